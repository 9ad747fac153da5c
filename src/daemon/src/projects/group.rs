//! The OS group of a project, kept in step with who works in it.
//!
//! The ledger says who is a member; the launcher's record is what the kernel's rights rest on, and is never wider than
//! what was last acknowledged. So whoever leaves does so there first and in the ledger second, and whoever comes, in the
//! ledger first. What a crash leaves between the two is mended at the next start.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deputy_core::message::{LauncherReply, LauncherRequest, NotInGroup, SetGroupRequest};
use deputy_core::project::ProjectKey;
use deputy_core::project_group::{GroupMember, GroupRecord};
use deputy_core::{AccountName, ApplicationName, Code, Denial, OsGid};
use tokio::sync::OwnedMutexGuard;

use crate::daemon::Daemon;
use crate::directory::Registered;
use crate::launcher::{ANSWER, LauncherError};
use crate::store::{Actor, Change, PageRequest, Project, ProjectEvent, ProjectGroup, ProjectScope};

/// How long after the launcher could not be reached it is tried again at the start.
const AGAIN: Duration = Duration::from_secs(5);

/// Who changes the members of projects: one after the other in each application, so that no late request undoes a newer
/// one.
#[derive(Debug, Default)]
pub struct Turns(Mutex<HashMap<ApplicationName, Arc<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// Waits for the turn; it ends when dropped.
    pub async fn of(&self, application: &ApplicationName) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(turns.entry(application.clone()).or_default())
        };
        turn.lock_owned().await
    }
}

/// Whether projects of the application have groups on this machine, by root's files.
fn are_allowed(daemon: &Daemon, registered: &Registered) -> bool {
    registered.policy.pool.project_groups && daemon.directory.snapshot().settings.pool.is_some()
}

/// The gid that jobs and file agents of an account get in a project.
pub fn gid_for(
    daemon: &Daemon,
    registered: &Registered,
    project: &Project,
    account: &AccountName,
) -> Option<OsGid> {
    project.gid_for(account).filter(|_| are_allowed(daemon, registered))
}

async fn ask(daemon: &Daemon, request: LauncherRequest) -> Result<(GroupRecord, Vec<NotInGroup>), Denial> {
    match daemon.launcher.ask(&request, &[], ANSWER).await? {
        LauncherReply::Group { record, left_out } => Ok((record, left_out)),
        _ => Err(LauncherError::Foreign.into()),
    }
}

/// Makes a group for a project that has none, where root's files allow one. The caller has the turn.
pub async fn ensure(
    daemon: &Daemon,
    registered: &Registered,
    project: Project,
    actor: Actor,
) -> Result<Project, Denial> {
    if project.group.is_some() || !are_allowed(daemon, registered) {
        return Ok(project);
    }
    let (application, key) = (project.application.clone(), project.key.clone());
    let request = LauncherRequest::MakeGroup { application: application.clone(), project: key.clone() };
    // A gid that is not recorded here, because one of the two died, is nobody's and stays so.
    let (record, _) = ask(daemon, request).await?;
    let group = ProjectGroup { gid: record.gid, name: record.name };
    let event = ProjectEvent::Grouped { group: group.clone() };
    daemon.store.commit(Change::Project { application, project: key, event }, actor).await?;
    Ok(Project { group: Some(group), ..project })
}

/// Has exactly these in the project's group, and says who may not be. The caller has the turn.
pub async fn set(
    daemon: &Daemon,
    project: &Project,
    members: Vec<GroupMember>,
) -> Result<Vec<NotInGroup>, Denial> {
    let Some(group) = &project.group else { return Ok(Vec::new()) };
    let mut again = true;
    loop {
        let application = project.application.clone();
        let now = LauncherRequest::Group { application: application.clone(), gid: group.gid };
        let record = match ask(daemon, now).await {
            Ok((record, _)) => record,
            // Root has taken its record away: nobody is in it, and nobody can be.
            Err(denial) if denial.code == Code::NotFound => {
                let gid = group.gid.raw();
                tracing::error!(project = %project.key, gid, "the launcher has no record of a project's group");
                return Ok(Vec::new());
            }
            Err(denial) => return Err(denial),
        };
        let request = SetGroupRequest {
            application,
            gid: group.gid,
            project: project.key.clone(),
            revision: record.revision,
            members: members.clone(),
        };
        match ask(daemon, LauncherRequest::SetGroup(request)).await {
            // Somebody took his consent back in between.
            Err(denial) if denial.code == Code::Conflict && again => again = false,
            Err(denial) => return Err(denial),
            Ok((_, left_out)) => {
                for NotInGroup { account, denial } in &left_out {
                    tracing::warn!(
                        application = %project.application, project = %project.key, %account, code = %denial.code,
                        message = denial.message, "an account is not in the group of its project"
                    );
                }
                return Ok(left_out);
            }
        }
    }
}

/// Those who work in a project, without one account.
pub fn workers_without(project: &Project, account: &AccountName) -> Vec<GroupMember> {
    let mut workers = project.workers();
    workers.retain(|worker| worker.account != *account);
    workers
}

/// Brings a project's group into step with the ledger, beside whatever goes on. Begins again until the launcher can be
/// reached.
pub fn bring_into_step(daemon: &Arc<Daemon>, application: &ApplicationName, key: &ProjectKey) {
    let (daemon, application, key) = (Arc::clone(daemon), application.clone(), key.clone());
    tokio::spawn(async move {
        let told = |denial: &Denial| {
            tracing::warn!(%application, project = %key, message = denial.message, "a project's group is not in step");
        };
        until_reached(|| step(&daemon, &application, &key, true), told).await;
    });
}

/// The same for one project, now. Unless it is `forced`, nothing is asked for where the record is in step.
async fn step(
    daemon: &Daemon,
    application: &ApplicationName,
    key: &ProjectKey,
    forced: bool,
) -> Result<(), Denial> {
    let _turn = daemon.projects.of(application).await;
    let Some(project) = daemon.store.project(application, key)? else { return Ok(()) };
    let Some(group) = &project.group else { return Ok(()) };
    let now = LauncherRequest::Group { application: application.clone(), gid: group.gid };
    if forced || ask(daemon, now).await?.0.members != project.workers() {
        set(daemon, &project, project.workers()).await?;
    }
    Ok(())
}

/// Brings the groups of all projects into step: what an earlier daemon or a child of the launcher's left by half. Begins
/// again until the launcher can be reached.
pub async fn reconcile(daemon: Arc<Daemon>) {
    let told = |denial: &Denial| {
        tracing::warn!(message = denial.message, "the groups of projects are not known to be in step");
    };
    until_reached(|| reconcile_once(&daemon), told).await;
}

/// Does it, and again until the launcher can be reached. Each failure is told.
async fn until_reached<F: Future<Output = Result<(), Denial>>>(work: impl Fn() -> F, told: impl Fn(&Denial)) {
    while let Err(denial) = work().await {
        told(&denial);
        if denial.code != Code::LauncherUnavailable {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn reconcile_once(daemon: &Daemon) -> Result<(), Denial> {
    // The first one also has the name service's map written anew.
    let mut forced = true;
    for application in daemon.directory.snapshot().names() {
        let mut page = PageRequest::first(100);
        loop {
            let found = daemon.store.projects(&application, &ProjectScope::All, &page)?;
            for project in found.items.iter().filter(|project| project.group.is_some()) {
                match step(daemon, &application, &project.key, forced).await {
                    Ok(()) => forced = false,
                    Err(denial) if denial.code == Code::LauncherUnavailable => return Err(denial),
                    Err(denial) => tracing::warn!(
                        %application, project = %project.key, message = denial.message,
                        "a project's group is not in step"
                    ),
                }
            }
            let Some(next) = found.next else { break };
            page = PageRequest { after: Some(next), ..page };
        }
    }
    Ok(())
}
