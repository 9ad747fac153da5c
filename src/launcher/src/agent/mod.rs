//! The file agent: files of one OS account, for one account of one application, beneath the roots that policy names.
//!
//! Read [`serve`] from top to bottom. What may be is decided as root, as for a job; then the process becomes the OS
//! account for good, shuts itself in beneath its roots, and does nothing but file calls from there on, one at a time.
//! Before each of them it looks whether what it was started under is still so.

pub mod acls;
mod calls;
pub mod decide;
mod explain;
mod kept;
mod listing;
mod places;
mod resolve;
mod share;
pub mod stat;
mod stream;
mod tree;
mod watched;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use deputy_core::denial::{Code, Denial};
use deputy_core::message::{
    DEFAULT_UMASK, FileReply, FileRequest, FilesRequest, IDLE_SECONDS, LauncherReply, decode, encode,
};
use deputy_core::project::MAX_UMASK;
use deputy_core::settings::Settings;
use deputy_sys::{become_user, confine, process};
use deputy_wire::{Peer, WireError};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use self::decide::Decision;
use self::kept::Kept;
use self::resolve::Roots;
pub use self::resolve::own_link;
use self::watched::Watched;
use crate::request::{refuse, reply};

pub use self::explain::explain;

/// For how long an agent goes by one decision: the name service, PAM and the groups are asked again by the next one.
const LIFE: Duration = Duration::from_secs(600);

/// For how long files that are being written keep an agent from ending.
const LIFE_OF_KEPT: Duration = Duration::from_secs(24 * 3600);

/// Why a call was not done.
enum CallError {
    /// The kernel refused.
    Errno(i32),
    /// Deputy refused.
    Denied(Denial),
}

impl From<rustix::io::Errno> for CallError {
    fn from(errno: rustix::io::Errno) -> Self {
        CallError::Errno(errno.raw_os_error())
    }
}

impl From<io::Error> for CallError {
    fn from(error: io::Error) -> Self {
        CallError::Errno(error.raw_os_error().unwrap_or(rustix::io::Errno::IO.raw_os_error()))
    }
}

impl From<Denial> for CallError {
    fn from(denial: Denial) -> Self {
        CallError::Denied(denial)
    }
}

impl From<CallError> for FileReply {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Errno(errno) => FileReply::Failed { errno },
            CallError::Denied(denial) => FileReply::Denied(denial),
        }
    }
}

/// The whole life of a file agent.
pub fn serve(settings: &Settings, request: &FilesRequest, connection: OwnedFd, peer: Peer) {
    let decision = match decide::decide(settings, request, Some(peer.uid)) {
        Ok(decision) => decision,
        Err(denial) => return refuse(&connection, peer, denial),
    };
    tracing::info!(
        event = "file_agent_started",
        application = %request.application,
        account = %request.account,
        os_user = %request.os_account.name,
        uid = request.os_account.uid.raw(),
        roots = decision.roots.len(),
        peer_uid = peer.uid,
        peer_pid = peer.pid,
    );
    let mut agent = match settle(decision, request, &connection) {
        Ok(agent) => agent,
        // Who it is now is not certain: it tells and leaves.
        Err(denial) => return refuse(&connection, peer, denial),
    };
    reply(&connection, &LauncherReply::Done);
    agent.serve(&connection);
}

/// Becomes the OS account, with nothing but the connection, what is watched, and the roots.
fn settle(decision: Decision, request: &FilesRequest, connection: &OwnedFd) -> Result<Agent, Denial> {
    let failed = |what: &'static str| {
        move |error: &dyn std::fmt::Display| Denial::internal(format!("file agent: {what}: {error}"))
    };
    let Decision { credentials, roots, watched, slots, .. } = decision;
    let kept: Vec<BorrowedFd<'_>> = [connection.as_fd()]
        .into_iter()
        .chain(slots.iter().map(AsFd::as_fd))
        .chain(watched.descriptors())
        .collect();
    process::close_all_but(&kept).map_err(|error| failed("close")(&error))?;
    // A project can make it other than a login's, within what a login could do by itself.
    process::set_umask(request.umask.unwrap_or(DEFAULT_UMASK) & MAX_UMASK);
    become_user(&credentials).map_err(|error| failed("the drop")(&error))?;
    process::shut_in().map_err(|error| failed("shutting in")(&error))?;
    let roots = Roots::open(&request.application, roots);
    match confine::restrict_to(&roots.reach()) {
        Ok(true) => {}
        // The paths are resolved beneath the roots' descriptors anyway.
        Ok(false) => tracing::warn!(event = "file_agent_without_landlock"),
        Err(error) => return Err(failed("Landlock")(&error)),
    }
    let idle = request.idle_seconds.unwrap_or(IDLE_SECONDS).clamp(1, IDLE_SECONDS);
    set_socket_timeout(connection, Timeout::Recv, Some(Duration::from_secs(idle.into())))
        .map_err(|error| failed("a socket")(&error))?;
    Ok(Agent { roots, watched, credentials, kept: Kept::default(), began: Instant::now(), slots })
}

/// A process that is the OS account.
struct Agent {
    roots: Roots,
    watched: Watched,
    credentials: deputy_sys::Credentials,
    kept: Kept,
    began: Instant,
    #[expect(dead_code, reason = "their locks live as long as the agent")]
    slots: Vec<deputy_sys::slots::Slot>,
}

impl Agent {
    fn serve(&mut self, connection: &OwnedFd) {
        loop {
            let packet = match deputy_wire::receive(connection) {
                Ok(Some(packet)) => packet,
                // Nothing for so long; but whoever writes a file comes back to have it committed.
                Err(error) if error.would_block() && self.waits_for_kept() => continue,
                // It was stopped and goes on.
                Err(WireError::Io(error)) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(None) | Err(_) => return,
            };
            let request = match decode::<FileRequest>(&packet.bytes) {
                Ok(request) => request,
                Err(error) => return send(connection, &FileReply::Denied(error.into()), Vec::new()),
            };
            if let Err(denial) = self.watched.check() {
                return send(connection, &FileReply::Stale(denial), Vec::new());
            }
            // A kept file is this agent's alone: no other one can open it anew.
            let commits = matches!(request, FileRequest::Commit { .. });
            if self.began.elapsed() > LIFE && !commits {
                send(connection, &FileReply::Stale(old()), Vec::new());
                if self.waits_for_kept() {
                    continue;
                }
                return;
            }
            if request.is_long() {
                let Ok([pipe]) = <[OwnedFd; 1]>::try_from(packet.descriptors) else {
                    return send(connection, &FileReply::Denied(wrong_descriptors()), Vec::new());
                };
                self.long_call(connection, request, pipe);
                continue;
            }
            if !packet.descriptors.is_empty() {
                return send(connection, &FileReply::Denied(wrong_descriptors()), Vec::new());
            }
            match self.call(request) {
                Ok((answer, opened)) => send(connection, &answer, opened),
                // A root's descriptor stands for a folder that its server no longer knows. Landlock knows the roots by
                // what was opened too, so that it is not enough to open them anew: another agent does.
                Err(CallError::Errno(errno)) if errno == Errno::STALE.raw_os_error() && !commits => {
                    send(connection, &FileReply::Stale(server_forgot()), Vec::new());
                    if !self.waits_for_kept() {
                        return;
                    }
                }
                Err(error) => send(connection, &error.into(), Vec::new()),
            }
        }
    }

    fn waits_for_kept(&self) -> bool {
        !self.kept.is_empty() && self.began.elapsed() < LIFE_OF_KEPT
    }
}

fn old() -> Denial {
    Denial::new(Code::Busy, "file agent", "the agent is old, and another one decides anew")
        .remedy("try again")
}

fn server_forgot() -> Denial {
    Denial::new(Code::FileError, "kernel", "ESTALE: the file server no longer knows what was open")
        .remedy("try again: the roots are opened anew; where it stays so, look at the mount")
}

fn wrong_descriptors() -> Denial {
    Denial::new(Code::BadMessage, "protocol", "a long call brings one descriptor, the others none")
}

/// Answers. A peer that has gone has nobody to be told; the next receive says so.
fn send(connection: &OwnedFd, answer: &FileReply, opened: Vec<OwnedFd>) {
    let descriptors: Vec<BorrowedFd<'_>> = opened.iter().map(AsFd::as_fd).collect();
    match encode(answer) {
        Ok(packet) => match deputy_wire::send(connection, &packet, &descriptors) {
            // The owner's processes have too many descriptors on their way: that is the kernel's refusal, and no silence.
            Err(WireError::Io(error)) if !opened.is_empty() => {
                send(connection, &CallError::from(error).into(), Vec::new());
            }
            _ => {}
        },
        Err(error) => tracing::error!(event = "reply_failed", error = %error),
    }
}
