//! Whether a job could be asked of the launcher: what `Jobs.Run` and `Manager.Explain` both decide by.
//!
//! The launcher's child decides by the same rules from the same file. Here they only save the ledger and the launcher
//! what is refused anyway, and say as which OS account it would run.

use deputy_core::job::OsIdentity;
use deputy_core::policy::{check_command, check_environment, check_kind};
use deputy_core::project::{ProjectAccess, ProjectKey};
use deputy_core::{AccountName, Code, Denial, KindName, Permission};

use crate::acting;
use crate::daemon::Daemon;
use crate::directory::Registered;
use crate::links;
use crate::store::{Link, Project, ProjectDefaults};

/// A job that is wanted.
pub struct Wanted<'a> {
    /// The account that asks.
    pub account: &'a AccountName,
    /// The project that it belongs to.
    pub project: Option<&'a ProjectKey>,
    /// Its label.
    pub kind: &'a KindName,
    /// The program and its arguments.
    pub argv: &'a [Vec<u8>],
    /// Variables, each `NAME=VALUE`.
    pub environment: &'a [Vec<u8>],
}

/// A job that the launcher can be asked for.
#[derive(Debug)]
pub struct Ready {
    /// As which OS account.
    pub os: OsIdentity,
    /// What it begins with.
    pub defaults: ProjectDefaults,
    /// The link, where that is what names the OS account.
    pub link: Option<Link>,
}

/// Decides about a job, as far as it can be decided here.
pub async fn ready(daemon: &Daemon, registered: &Registered, wanted: &Wanted<'_>) -> Result<Ready, Denial> {
    let account = acting::active(daemon, registered, wanted.account)?;
    acting::permitted(daemon, registered, &account, Permission::RunJobs)?;
    let kind = check_kind(&registered.name, &registered.policy, Some(wanted.kind))?;
    check_command(&registered.name, wanted.kind.as_str(), kind, wanted.argv)?;
    check_environment(&registered.name, &registered.policy, wanted.environment)?;
    let Some(key) = wanted.project else {
        let link = links::usable(daemon, registered, wanted.account).await?;
        return Ok(Ready { os: link.os.clone(), defaults: ProjectDefaults::default(), link: Some(link) });
    };
    let project = daemon.store.project(&registered.name, key)?;
    let project = project.ok_or_else(Denial::not_found)?;
    let os = in_project(&project, wanted.account)?;
    // What the launcher says about the identity is about the link only if that names the same.
    let link = daemon.store.link(&registered.name, wanted.account)?.filter(|link| link.os == os);
    Ok(Ready { os, defaults: project.defaults, link })
}

/// As which OS account an account runs jobs in a project: as the one that was pinned for it there, whatever its link
/// is now. Who does not see the project is told that it is not there.
fn in_project(project: &Project, account: &AccountName) -> Result<OsIdentity, Denial> {
    match project.access(account) {
        None => Err(Denial::not_found()),
        Some(ProjectAccess::Read) => Err(Denial::new(
            Code::PermissionMissing,
            "project members",
            "the account may look at this project, but run no jobs in it",
        )
        .remedy("its owner shares it: deputyctl project share APP OWNER/NAME ACCOUNT write")),
        Some(ProjectAccess::Write) => project.identity(account).cloned().ok_or_else(links::not_linked),
    }
}
