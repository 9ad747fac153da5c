//! What would be decided about a path: the agent's own decision, drop and resolution, in a process that ends with the
//! answer. Nothing is opened, made or written down.

use std::os::fd::OwnedFd;

use deputy_core::denial::{Code, Denial};
use deputy_core::message::{ExplainPathRequest, Explanation, FileKind, LauncherReply, PathAccess};
use deputy_core::settings::Settings;
use deputy_wire::Peer;
use rustix::fs::{Access, Mode, access, fstat};
use rustix::io::Errno;

use super::resolve::{LOOK, Root, own_link};
use super::{Agent, CallError, decide, settle, stat};
use crate::obstacle::{missing_permission, obstacle};
use crate::request::{refuse, reply};

/// Decides as an agent would, and says what came of it.
pub fn explain(settings: &Settings, request: &ExplainPathRequest, connection: &OwnedFd, peer: Peer) {
    let explanation = match decide::decide(settings, &request.agent, None) {
        Ok(decision) => {
            tracing::info!(
                event = "path_explained",
                application = %request.agent.application,
                account = %request.agent.account,
                os_user = %request.agent.os_account.name,
                uid = request.agent.os_account.uid.raw(),
                peer_uid = peer.uid,
                peer_pid = peer.pid,
            );
            match settle(decision, &request.agent, connection) {
                Ok(agent) => agent.explanation(&request.path, request.access),
                Err(denial) => return refuse(connection, peer, denial),
            }
        }
        // A fault of the machine's, or no place for an agent, is no decision.
        Err(denial) if matches!(denial.code, Code::Internal | Code::Busy) => {
            return refuse(connection, peer, denial);
        }
        Err(denial) => Explanation::Refused(denial),
    };
    reply(connection, &LauncherReply::Explained(explanation));
}

impl Agent {
    fn explanation(&self, path: &[u8], wanted: PathAccess) -> Explanation {
        match self.try_path(path, wanted) {
            Ok(root) => Explanation::Allowed { rule: format!("roots: {}", root.path.display()) },
            Err(CallError::Denied(denial)) => Explanation::Refused(denial),
            Err(CallError::Errno(errno)) => {
                Explanation::Kernel { errno, at: self.where_it_ends(path, wanted, errno).unwrap_or_default() }
            }
        }
    }

    /// The root that allows it, if the kernel does too. It is asked (access(2), of a descriptor that opens nothing)
    /// instead of tried: to open a file can change it, and to make one does.
    fn try_path(&self, path: &[u8], wanted: PathAccess) -> Result<&Root, CallError> {
        let roots = &self.roots;
        let (root, _) = roots.find(path)?;
        let found = match wanted {
            PathAccess::Read => roots.open_at(path, LOOK, Mode::empty())?,
            PathAccess::Write => match roots.open_to_change(path, LOOK, Mode::empty()) {
                // It would be made: what counts is the folder.
                Err(CallError::Errno(errno)) if errno == Errno::NOENT.raw_os_error() => {
                    roots.place(path)?.folder
                }
                found => found?,
            },
        };
        let also = match stat::kind_of(&fstat(&found)?) {
            FileKind::File => Access::empty(),
            FileKind::Folder => Access::EXEC_OK,
            other => {
                let message = format!("it is neither file nor folder but a {}", other.as_str());
                return Err(Denial::invalid(message).into());
            }
        };
        access(own_link(&found), permission(wanted).0 | also)?;
        Ok(root)
    }

    /// Where on a path the kernel says no, and what is missing there.
    fn where_it_ends(&self, path: &[u8], wanted: PathAccess, errno: i32) -> Option<String> {
        let (root, rest) = self.roots.find(path).ok()?;
        if root.folder.is_err() {
            return obstacle(&root.path, Access::EXEC_OK, &self.credentials).map(|found| found.to_string());
        }
        let (found, part) = self.roots.farthest(root, rest).ok()?;
        let mut name = root.path.to_string_lossy().into_owned();
        if !part.is_empty() {
            name = format!("{}/{}", name.trim_end_matches('/'), String::from_utf8_lossy(part));
        }
        let name = name.escape_debug();
        if errno != Errno::ACCESS.raw_os_error() {
            return Some(format!("the path leads as far as {name}"));
        }
        let stat = fstat(&found).ok()?;
        let folder = stat::kind_of(&stat) == FileKind::Folder;
        let missing = if folder && access(own_link(&found), Access::EXEC_OK).is_err() {
            "search permission, x"
        } else {
            permission(wanted).1
        };
        let missing =
            missing_permission(stat.st_mode & 0o7777, stat.st_uid, stat.st_gid, &self.credentials, missing);
        Some(format!("{name}: {missing}"))
    }
}

fn permission(wanted: PathAccess) -> (Access, &'static str) {
    match wanted {
        PathAccess::Read => (Access::READ_OK, "read permission, r"),
        PathAccess::Write => (Access::WRITE_OK, "write permission, w"),
    }
}
