//! The methods that change projects.

use deputy_core::project::{ProjectAccess, ProjectKey};
use deputy_core::project_group::GroupMember;
use deputy_core::{AccountName, ApplicationName, Denial, Finding, ProjectName};

use super::{changed, defaults, folder, group, manage};
use crate::acting;
use crate::authority::{About, Call, Grant, Granted};
use crate::bus::options::{Options, parse};
use crate::bus::record::Record;
use crate::daemon::Daemon;
use crate::jobs::run::whose;
use crate::links;
use crate::store::{Change, LinkState, Project, ProjectDefaults, ProjectEvent};

/// Commits what takes an account out of a project, or all of them: first they leave its OS group, and only then its
/// record, so that a right never outlives the membership that was acknowledged.
async fn commit_leaving(
    call: &Call,
    grant: &Grant,
    project: &Project,
    remaining: Vec<GroupMember>,
    event: ProjectEvent,
) -> Result<(), Denial> {
    let daemon = &call.daemon;
    if remaining != project.workers() {
        group::set(daemon, project, remaining).await?;
    }
    let done = commit(daemon, grant, project.application.clone(), project.key.clone(), event).await;
    if done.is_err() {
        group::bring_into_step(daemon, &project.application, &project.key);
    }
    done
}

/// Brings group and folder of a project into step with its members as they are recorded now. The record stands, whatever
/// fails here; what does is in the journal, and the caller is told.
async fn follow(
    call: &Call,
    grant: &Grant,
    application: &ApplicationName,
    key: &ProjectKey,
) -> Result<Vec<Record>, Denial> {
    let daemon = &call.daemon;
    let registered = grant.application()?;
    let Some(project) = daemon.store.project(application, key)? else { return Ok(Vec::new()) };
    let mut findings = Vec::new();
    let mut note = |what: &str, denial: Denial| {
        tracing::warn!(%application, project = %key, code = %denial.code, message = denial.message, "{what}");
        findings.push(finding(what, denial));
    };
    let others = project.workers().len() > 1;
    let project = match project {
        // A project of one person needs none.
        project if others => match group::ensure(daemon, registered, project.clone(), grant.actor()?).await {
            Ok(project) => project,
            Err(denial) => {
                note("the project has no OS group", denial);
                project
            }
        },
        project => project,
    };
    let left_out = match group::set(daemon, &project, project.workers()).await {
        Ok(left_out) => left_out,
        Err(denial) => {
            note("the project's group is not in step with its members yet", denial);
            group::bring_into_step(daemon, application, key);
            Vec::new()
        }
    };
    // Nobody else may do it for the owner's agent.
    if let Err(denial) = folder::keep(daemon, registered, &project).await {
        note("the project's folder is not in step with its members", denial);
    }
    findings.extend(left_out.iter().map(folder::shown));
    Ok(findings)
}

/// What is not as the record has it.
fn finding(what: &str, denial: Denial) -> Record {
    Record::from(&Finding::from(Denial { message: format!("{what}: {}", denial.message), ..denial }))
}

/// The project as it is now that nobody else changes its members.
fn again(call: &Call, project: &Project) -> Result<Project, Denial> {
    call.daemon.store.project(&project.application, &project.key)?.ok_or_else(Denial::not_found)
}

/// Commits what happens to a project.
async fn commit(
    daemon: &Daemon,
    grant: &Grant,
    application: ApplicationName,
    project: ProjectKey,
    event: ProjectEvent,
) -> Result<(), Denial> {
    let change = Change::Project { application, project, event };
    daemon.store.commit(change, grant.actor()?).await?;
    Ok(())
}

/// `Projects.Create`.
pub async fn create(
    call: Call,
    (subject, name, mut options): (String, String, Options),
) -> Result<Granted<(String,)>, Denial> {
    let name: ProjectName = parse("project", &name)?;
    let application = options.application()?;
    let public = options.flag("public")?;
    let (umask, os_group) = defaults(&mut options)?;
    options.finish()?;
    let grant = call.authorize(About::application(application)).await?;
    let registered = grant.application()?.clone();
    let (owner, session) = whose(&call, &registered, &subject)?;
    call.note(&About::application(Some(registered.name.clone())).account(&owner));
    // A project stays when who acts for its owner is gone, and says nothing of him.
    acting::for_itself(&call.daemon, &registered, session.as_ref())?;
    // Pinned now: a later relink changes new projects only.
    let link = links::usable(&call.daemon, &registered, &owner).await?;
    let key = ProjectKey { owner, name };
    let defaults = ProjectDefaults { umask, os_group };
    let event = ProjectEvent::Created { os: link.os, public, defaults };
    commit(&call.daemon, &grant, registered.name.clone(), key.clone(), event).await?;
    Ok(grant.answer((key.to_string(),)))
}

/// `Projects.Share`.
pub async fn share(
    call: Call,
    (project, account, access, mut options): (String, String, String, Options),
) -> Result<Granted<(Vec<Record>,)>, Denial> {
    let key: ProjectKey = parse("project", &project)?;
    let account: AccountName = parse("account", &account)?;
    let access: ProjectAccess = parse("access", &access)?;
    let (grant, project) = manage(&call, &mut options, &key).await?;
    options.finish()?;
    // The member's own OS account is pinned when he joins. One who has no link yet sees the records; shared with again
    // once he has one, he can run jobs too.
    let link = call.daemon.store.link(&project.application, &account)?;
    let os = link.filter(|link| link.state == LinkState::Active).map(|link| link.os);
    let _turn = call.daemon.projects.of(&project.application).await;
    let project = again(&call, &project)?;
    let event = ProjectEvent::Shared { account: account.clone(), access, os };
    let remaining = match access {
        ProjectAccess::Write => project.workers(),
        ProjectAccess::Read => group::workers_without(&project, &account),
    };
    commit_leaving(&call, &grant, &project, remaining, event).await?;
    let findings = follow(&call, &grant, &project.application, &key).await?;
    Ok(grant.answer((findings,)))
}

/// `Projects.Unshare`.
pub async fn unshare(
    call: Call,
    (project, account, mut options): (String, String, Options),
) -> Result<Granted<(Vec<Record>,)>, Denial> {
    let key: ProjectKey = parse("project", &project)?;
    let account: AccountName = parse("account", &account)?;
    let (grant, project) = manage(&call, &mut options, &key).await?;
    options.finish()?;
    let _turn = call.daemon.projects.of(&project.application).await;
    let project = again(&call, &project)?;
    let remaining = group::workers_without(&project, &account);
    let event = ProjectEvent::Unshared { account };
    commit_leaving(&call, &grant, &project, remaining, event).await?;
    let findings = follow(&call, &grant, &project.application, &key).await?;
    Ok(grant.answer((findings,)))
}

/// `Projects.Publish`.
pub async fn publish(
    call: Call,
    (project, public, mut options): (String, bool, Options),
) -> Result<Granted<()>, Denial> {
    let key: ProjectKey = parse("project", &project)?;
    let (grant, project) = manage(&call, &mut options, &key).await?;
    options.finish()?;
    let event = ProjectEvent::Published { public };
    commit(&call.daemon, &grant, project.application, key, event).await?;
    Ok(grant.answer(()))
}

/// `Projects.Edit`.
pub async fn edit(call: Call, (project, mut options): (String, Options)) -> Result<Granted<()>, Denial> {
    let key: ProjectKey = parse("project", &project)?;
    let (umask, os_group) = defaults(&mut options)?;
    let (grant, project) = manage(&call, &mut options, &key).await?;
    options.finish()?;
    let event = ProjectEvent::Edited { defaults: changed(project.defaults, umask, os_group) };
    commit(&call.daemon, &grant, project.application, key, event).await?;
    Ok(grant.answer(()))
}

/// `Projects.HandOver`.
pub async fn hand_over(
    call: Call,
    (project, to, mut options): (String, String, Options),
) -> Result<Granted<(String, Vec<Record>)>, Denial> {
    let key: ProjectKey = parse("project", &project)?;
    let to: AccountName = parse("account", &to)?;
    let (grant, project) = manage(&call, &mut options, &key).await?;
    options.finish()?;
    let _turn = call.daemon.projects.of(&project.application).await;
    let project = again(&call, &project)?;
    // Where it has been a member, its OS account in this project stays the one that was pinned then.
    let os = if let Some(os) = project.members.get(&to).and_then(|member| member.os.clone()) {
        os
    } else {
        let link = call.daemon.store.link(&project.application, &to)?;
        link.filter(|link| link.state == LinkState::Active).ok_or_else(links::not_linked)?.os
    };
    let new = ProjectKey { owner: to.clone(), name: key.name.clone() };
    let event = ProjectEvent::HandedOver { to, os };
    let remaining = group::workers_without(&project, &key.owner);
    commit_leaving(&call, &grant, &project, remaining, event).await?;
    let findings = follow(&call, &grant, &project.application, &new).await?;
    Ok(grant.answer((new.to_string(), findings)))
}

/// `Projects.Delete`.
pub async fn delete(call: Call, (project, mut options): (String, Options)) -> Result<Granted<()>, Denial> {
    let key: ProjectKey = parse("project", &project)?;
    let (grant, project) = manage(&call, &mut options, &key).await?;
    options.finish()?;
    let _turn = call.daemon.projects.of(&project.application).await;
    let project = again(&call, &project)?;
    commit_leaving(&call, &grant, &project, Vec::new(), ProjectEvent::Deleted {}).await?;
    Ok(grant.answer(()))
}
