//! The methods that show projects, to an account or to those who administer the application.

use deputy_core::project::ProjectKey;
use deputy_core::{AccountName, Denial};

use crate::accounts::page;
use crate::authority::{About, Call, Granted};
use crate::bus::options::{Options, parse};
use crate::bus::record::{Record, list as records};
use crate::directory::Registered;
use crate::jobs::run::whose;
use crate::store::{Page, PageRequest, Project, ProjectScope};

/// For whom projects are shown: an account, which sees its own, those that are shared with it and public ones; or
/// nobody in particular, which is all of them.
fn viewer(
    call: &Call,
    registered: &Registered,
    subject: Option<String>,
) -> Result<Option<AccountName>, Denial> {
    subject.map(|subject| Ok(whose(call, registered, &subject)?.0)).transpose()
}

/// `Projects.Get`.
pub async fn get(
    call: Call,
    (project, mut options): (String, Options),
) -> Result<Granted<(Record,)>, Denial> {
    let key: ProjectKey = parse("project", &project)?;
    let subject = options.text("subject")?;
    let about = About::application(options.application()?).account(&key.owner).by(options.by()?);
    options.finish()?;
    let grant = call.authorize(about).await?;
    let registered = grant.application()?.clone();
    let viewer = viewer(&call, &registered, subject)?;
    let found = call.daemon.store.project(&registered.name, &key)?;
    let sees = |project: &Project| viewer.as_ref().is_none_or(|account| project.access(account).is_some());
    let found = found.filter(sees).ok_or_else(Denial::not_found)?;
    Ok(grant.answer((shown(&found, viewer.as_ref()),)))
}

/// `Projects.List`.
pub async fn list(call: Call, (mut options,): (Options,)) -> Result<Granted<(Vec<Record>, String)>, Denial> {
    let application = options.application()?;
    let subject = options.text("subject")?;
    let public = options.flag("public")?;
    let owner: Option<AccountName> = options.name("owner")?;
    let by = options.by()?;
    let request = page(options.page()?);
    options.finish()?;
    let about = About { account: owner.clone(), ..About::application(application).by(by) };
    let grant = call.authorize(about).await?;
    let registered = grant.application()?.clone();
    let viewer = viewer(&call, &registered, subject)?;
    let scope = match (&viewer, &owner, public) {
        (_, _, true) => ProjectScope::Public,
        (Some(account), _, false) => ProjectScope::Of(account.clone()),
        (None, Some(owner), false) => ProjectScope::Of(owner.clone()),
        (None, None, false) => ProjectScope::All,
    };
    let found: Page<Project> = found(&call, &registered, &scope, &request)?;
    let wanted = |project: &&Project| owner.as_ref().is_none_or(|owner| project.key.owner == *owner);
    let shown = found.items.iter().filter(wanted).map(|project| shown(project, viewer.as_ref())).collect();
    Ok(grant.answer((shown, found.next.map(String::from).unwrap_or_default())))
}

fn found(
    call: &Call,
    registered: &Registered,
    scope: &ProjectScope,
    request: &PageRequest,
) -> Result<Page<Project>, Denial> {
    Ok(call.daemon.store.projects(&registered.name, scope, request)?)
}

/// A project as the interface shows it. An account that has no part in it sees that it is there, and whose it is.
fn shown(project: &Project, viewer: Option<&AccountName>) -> Record {
    let record = Record::new()
        .text("application", &project.application)
        .text("project", &project.key)
        .text("owner", &project.key.owner)
        .text("name", &project.key.name)
        .with("public", project.public)
        .with("created", project.created.0)
        .with("changed", project.changed.0)
        .maybe("access", viewer.and_then(|account| project.access(account)).map(|a| a.as_str().to_owned()));
    let has_a_part =
        |account: &&AccountName| **account == project.key.owner || project.members.contains_key(*account);
    if viewer.is_some_and(|account| !has_a_part(&account)) {
        return record;
    }
    let members = project
        .members
        .iter()
        .map(|(account, member)| {
            Record::new()
                .text("account", account)
                .text("access", member.access.as_str())
                .maybe("os_user", member.os.as_ref().map(|os| os.name.to_string()))
                .with("since", member.since.0)
        })
        .collect();
    record
        .text("os_user", &project.os.name)
        .with("uid", project.os.uid.raw())
        .with("gid", project.os.gid.raw())
        .with("open_jobs", project.open_jobs)
        .with("members", records(members))
        .maybe("umask", project.defaults.umask.map(|umask| format!("{umask:03o}")))
        .maybe("group", project.group.as_ref().map(|group| group.name.to_string()))
        .maybe("group_gid", project.group.as_ref().map(|group| group.gid.raw()))
        .maybe("folder", project.folder.as_ref().map(|folder| folder.0.clone()))
        .maybe("os_group", project.defaults.os_group.as_ref().map(ToString::to_string))
}
