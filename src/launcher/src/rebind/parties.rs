//! Who takes part: whose files are moved, to whom, and which groups become which.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use deputy_core::denial::{Code, Denial};
use deputy_core::ids::{OsGid, OsUid};
use deputy_core::job::OsIdentity;
use deputy_core::names::OsUserName;
use deputy_core::policy::{DAEMON_USER, Group};
use deputy_core::rebind::{GroupChange, MAX_NAMED, NamedGroup, NamedUser, RebindPlan, Source};
use deputy_core::settings::Settings;
use deputy_sys::accounts;
use rustix::io::Errno;

use crate::rules::{self, name_service};

/// How many processes are named.
const MAX_SHOWN: usize = 10;

/// Everybody and every group that a plan is about.
pub struct Parties {
    /// Whose files are moved.
    pub from: Vec<Source>,
    /// To whom.
    pub to: OsIdentity,
    /// Which group becomes which.
    pub groups: Vec<GroupChange>,
}

/// Finds out who was named, and refuses whom no file may be taken from or given to.
pub fn named(
    settings: &Settings,
    from: &[NamedUser],
    to: &OsUserName,
    groups: &[(NamedGroup, NamedGroup)],
) -> Result<Parties, Denial> {
    if from.is_empty() || from.len() > MAX_NAMED || groups.len() > MAX_NAMED {
        return Err(Denial::invalid(format!(
            "a plan has 1 to {MAX_NAMED} sources and at most as many groups"
        )));
    }
    let services = rules::all_services()?;
    let to = rules::machine_target(settings, &services, to)?;
    let deputy = accounts::by_name(DAEMON_USER).map_err(name_service)?.map(|entry| entry.uid);
    let mut changes = BTreeMap::new();
    let mut sources: Vec<Source> = Vec::new();
    for user in from {
        let entry = match user {
            NamedUser::Name(name) => Some(rules::look_up(name)?.entry),
            NamedUser::Uid(uid) => accounts::by_uid(*uid).map_err(name_service)?,
        };
        let uid = match (&entry, user) {
            (Some(entry), _) => entry.uid,
            (None, NamedUser::Uid(uid)) => *uid,
            (None, NamedUser::Name(_)) => return Err(Denial::internal("a name without an entry")),
        };
        let name = entry.as_ref().and_then(|entry| OsUserName::new(entry.name.clone()).ok());
        let source = Source { uid, name };
        // A service user may lose files, and so may an account that is gone; root and Deputy itself may not.
        if OsUid::new(uid).is_none() || deputy == Some(uid) {
            return Err(Denial::new(
                Code::OsAccountReserved,
                "never a source: root, reserved ids, deputy",
                format!("the files of {source} never go to somebody else"),
            )
            .remedy("name the accounts whose files are meant"));
        }
        if uid == to.uid.raw() || sources.iter().any(|other| other.uid == uid) {
            return Err(Denial::invalid(format!("{source} is named twice")));
        }
        if let Some(entry) = &entry {
            changes.insert(entry.gid, to.gid.raw());
        }
        sources.push(source);
    }
    for (old, new) in groups {
        let old = match old {
            NamedGroup::Gid(gid) => *gid,
            NamedGroup::Name(_) => group(old)?.gid,
        };
        let new = group(new)?;
        let is_service = services.gids.contains(&new.gid);
        // A group that stays what it is gains nothing.
        if old != new.gid
            && (OsGid::new(new.gid).is_none()
                || is_service
                || settings.os_accounts.privileged_groups.contains(&new.name))
        {
            return Err(Denial::new(
                Code::OsAccountPrivileged,
                "deputy.toml: os_accounts.privileged_groups",
                format!(
                    "no file is given to the group {}, which is root's, privileged, or a service's",
                    new.name
                ),
            )
            .remedy("choose a group of people"));
        }
        changes.insert(old, new.gid);
    }
    changes.retain(|old, new| old != new);
    let groups = changes.into_iter().map(|(old, new)| GroupChange { old, new }).collect();
    Ok(Parties { from: sources, to, groups })
}

fn group(named: &NamedGroup) -> Result<Group, Denial> {
    let found = match named {
        NamedGroup::Name(name) => accounts::group_by_name(name.as_str()),
        NamedGroup::Gid(gid) => accounts::group_by_gid(*gid),
    };
    found.map_err(name_service)?.ok_or_else(|| {
        Denial::new(
            Code::InvalidArgument,
            "name service",
            format!("the name service does not know the group {named}"),
        )
        .remedy("check the spelling with: getent group NAME")
    })
}

/// Whether the destination is still who it was, and may still be given files.
pub fn check_destination(settings: &Settings, plan: &RebindPlan) -> Result<(), Denial> {
    let now = rules::machine_target(settings, &rules::all_services()?, &plan.to.name)?;
    if now == plan.to { Ok(()) } else { Err(somebody_else(&plan.to.to_string())) }
}

/// Whether the sources are still who they were: they are given their files back.
pub fn check_sources(plan: &RebindPlan) -> Result<(), Denial> {
    for source in &plan.from {
        let by_uid = accounts::by_uid(source.uid).map_err(name_service)?;
        let by_name = match &source.name {
            Some(name) => accounts::by_name(name.as_str()).map_err(name_service)?,
            None => None,
        };
        let same = match &source.name {
            Some(name) => {
                by_uid.is_some_and(|entry| entry.name == name.as_str())
                    && by_name.is_some_and(|entry| entry.uid == source.uid)
            }
            None => by_uid.is_none(),
        };
        if !same {
            return Err(somebody_else(&source.to_string()));
        }
    }
    Ok(())
}

fn somebody_else(who: &str) -> Denial {
    Denial::new(
        Code::LinkStale,
        "pinned identity",
        format!("the name service no longer says what it said when the plan was made: {who}"),
    )
    .remedy("make a new plan for whoever is meant")
}

/// Refuses while processes of the accounts run.
pub fn refuse_running(plan: &RebindPlan) -> Result<(), Denial> {
    let uids: Vec<u32> = plan.from.iter().map(|source| source.uid).chain([plan.to.uid.raw()]).collect();
    let running = processes(&uids).map_err(|error| Denial::internal(format!("/proc: {error}")))?;
    if running.is_empty() {
        return Ok(());
    }
    let shown = running.iter().take(MAX_SHOWN).cloned().collect::<Vec<_>>().join(", ");
    let more = if running.len() > MAX_SHOWN { ", and more" } else { "" };
    Err(Denial::new(
        Code::RebindBlocked,
        "processes of the accounts",
        format!("processes of the accounts run: {shown}{more}"),
    )
    .remedy("end them (a service that runs as a source: stop it), or say --while-running"))
}

/// The processes with one of the uids as any of theirs, each as its number and name.
fn processes(uids: &[u32]) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let status = match fs::read(format!("/proc/{pid}/status")) {
            Ok(status) => String::from_utf8_lossy(&status).into_owned(),
            // It has ended meanwhile.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    || error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) =>
            {
                continue;
            }
            Err(error) => return Err(error),
        };
        let field = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        if field("Uid:").split_ascii_whitespace().any(|uid| uid.parse().is_ok_and(|uid| uids.contains(&uid)))
        {
            found.push(format!("{pid} ({})", field("Name:").trim()));
        }
    }
    Ok(found)
}
