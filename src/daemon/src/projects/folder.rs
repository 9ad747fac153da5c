//! The folder of a project: made by its owner's file agent, as the owner, and kept in step with the members.

use std::time::Duration;

use deputy_core::message::{FileReply, FileRequest, FolderShare, NotInGroup};
use deputy_core::project::{ProjectAccess, ProjectKey};
use deputy_core::{Code, Denial, Finding};

use super::group;
use crate::authority::{Call, Granted};
use crate::bus::options::{Options, parse};
use crate::bus::record::Record;
use crate::daemon::Daemon;
use crate::directory::Registered;
use crate::files;
use crate::store::{Change, Project, ProjectEvent};

/// How long the agent may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// `Projects.ShareFolder`.
pub async fn share_folder(
    call: Call,
    (subject, project, path, options): (String, String, Vec<u8>, Options),
) -> Result<Granted<(Vec<Record>,)>, Denial> {
    let key: ProjectKey = parse("project", &project)?;
    let ready = files::ready_in(&call, &subject, key.clone(), options).await?;
    let (registered, daemon) = (ready.grant.application()?.clone(), &call.daemon);
    if ready.whose.account != key.owner {
        return Err(Denial::new(
            Code::PermissionMissing,
            "project owner",
            "only the owner of a project makes its folder: it is his on the disk",
        )
        .remedy("let the owner do it"));
    }
    let _turn = daemon.projects.of(&registered.name).await;
    let project = daemon.store.project(&registered.name, &key)?.ok_or_else(Denial::not_found)?;
    let again = project.folder.is_some();
    let path = match &project.folder {
        Some(there) if path.is_empty() || there.0 == path => there.0.clone(),
        Some(there) => {
            let there = String::from_utf8_lossy(&there.0).into_owned();
            return Err(Denial::new(Code::Conflict, "project", format!("the project has a folder: {there}"))
                .remedy("a project has one folder, which keeps its place"));
        }
        None => path,
    };
    let project = group::ensure(daemon, &registered, project, ready.grant.actor()?).await?;
    let left_out = group::set(daemon, &project, project.workers()).await?;
    apply(daemon, &registered, &project, path.clone(), again).await?;
    if !again {
        let event = ProjectEvent::FolderMade { path: path.into() };
        let change = Change::Project { application: registered.name.clone(), project: key, event };
        daemon.store.commit(change, ready.grant.actor()?).await?;
    }
    Ok(ready.grant.answer((left_out.iter().map(shown).collect(),)))
}

/// A member who is not in the group, as a finding.
pub fn shown(NotInGroup { account, denial }: &NotInGroup) -> Record {
    Record::from(&Finding::from(denial.clone())).text("account", account)
}

/// Gives the folder of a project, if it has one, the rights of those who are members now. The caller has the turn.
pub async fn keep(daemon: &Daemon, registered: &Registered, project: &Project) -> Result<(), Denial> {
    match &project.folder {
        Some(path) => apply(daemon, registered, project, path.0.clone(), true).await,
        None => Ok(()),
    }
}

async fn apply(
    daemon: &Daemon,
    registered: &Registered,
    project: &Project,
    path: Vec<u8>,
    again: bool,
) -> Result<(), Denial> {
    let gid = group::gid_for(daemon, registered, project, &project.key.owner);
    let whose = files::Whose {
        application: project.application.clone(),
        account: project.key.owner.clone(),
        os: project.os.clone(),
        umask: files::umask_in(project),
        project_group: gid,
    };
    let request = FileRequest::ShareFolder(share(project, path, again, gid.map(u32::from)));
    match daemon.files.call(&daemon.launcher, &whose, &request, DEADLINE).await?.reply {
        FileReply::Done => Ok(()),
        FileReply::Failed { errno } => Err(files::refused(errno, "")),
        FileReply::Denied(denial) => Err(denial),
        _ => Err(files::lost()),
    }
}

/// Who comes in: the group, whose members work there; by name, who only reads, and without a group all members. Then the
/// owner is one of them, for what others make in his folder.
fn share(project: &Project, path: Vec<u8>, again: bool, group: Option<u32>) -> FolderShare {
    let people = project.members.values().filter_map(|member| {
        let uid = member.os.as_ref()?.uid;
        let writes = member.access == ProjectAccess::Write;
        (uid != project.os.uid && !(writes && group.is_some())).then_some((uid.raw(), writes))
    });
    let owner = group.is_none().then_some((project.os.uid.raw(), true));
    FolderShare { path, again, group, people: people.chain(owner).collect() }
}
