//! The methods that change projects.

use deputy_core::project::{ProjectAccess, ProjectKey};
use deputy_core::{AccountName, ApplicationName, Denial, ProjectName};

use super::{changed, defaults, manage};
use crate::acting;
use crate::authority::{About, Call, Grant, Granted};
use crate::bus::options::{Options, parse};
use crate::daemon::Daemon;
use crate::jobs::run::whose;
use crate::links;
use crate::store::{Change, LinkState, ProjectDefaults, ProjectEvent};

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
) -> Result<Granted<()>, Denial> {
    let key: ProjectKey = parse("project", &project)?;
    let account: AccountName = parse("account", &account)?;
    let access: ProjectAccess = parse("access", &access)?;
    let (grant, project) = manage(&call, &mut options, &key).await?;
    options.finish()?;
    // The member's own OS account is pinned when he joins. One who has no link yet sees the records; shared with again
    // once he has one, he can run jobs too.
    let link = call.daemon.store.link(&project.application, &account)?;
    let os = link.filter(|link| link.state == LinkState::Active).map(|link| link.os);
    let event = ProjectEvent::Shared { account, access, os };
    commit(&call.daemon, &grant, project.application, key, event).await?;
    Ok(grant.answer(()))
}

/// `Projects.Unshare`.
pub async fn unshare(
    call: Call,
    (project, account, mut options): (String, String, Options),
) -> Result<Granted<()>, Denial> {
    let key: ProjectKey = parse("project", &project)?;
    let account: AccountName = parse("account", &account)?;
    let (grant, project) = manage(&call, &mut options, &key).await?;
    options.finish()?;
    let event = ProjectEvent::Unshared { account };
    commit(&call.daemon, &grant, project.application, key, event).await?;
    Ok(grant.answer(()))
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
) -> Result<Granted<(String,)>, Denial> {
    let key: ProjectKey = parse("project", &project)?;
    let to: AccountName = parse("account", &to)?;
    let (grant, project) = manage(&call, &mut options, &key).await?;
    options.finish()?;
    // Where it has been a member, its OS account in this project stays the one that was pinned then.
    let os = if let Some(os) = project.members.get(&to).and_then(|member| member.os.clone()) {
        os
    } else {
        let link = call.daemon.store.link(&project.application, &to)?;
        link.filter(|link| link.state == LinkState::Active).ok_or_else(links::not_linked)?.os
    };
    let new = ProjectKey { owner: to.clone(), name: key.name.clone() };
    let event = ProjectEvent::HandedOver { to, os };
    commit(&call.daemon, &grant, project.application, key, event).await?;
    Ok(grant.answer((new.to_string(),)))
}

/// `Projects.Delete`.
pub async fn delete(call: Call, (project, mut options): (String, Options)) -> Result<Granted<()>, Denial> {
    let key: ProjectKey = parse("project", &project)?;
    let (grant, project) = manage(&call, &mut options, &key).await?;
    options.finish()?;
    commit(&call.daemon, &grant, project.application, key, ProjectEvent::Deleted {}).await?;
    Ok(grant.answer(()))
}
