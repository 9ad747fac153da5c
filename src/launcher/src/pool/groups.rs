//! Groups of projects: the records, and who may be in one.
//!
//! Who is a member of a project is `deputyd`'s word. A gid is a right that the kernel honours, so that word is not
//! enough: a group belongs to one application for ever, its gid is of root's range and of nobody else's, and in it is
//! only who has a consent of that application now. A group gives the files that were made with its gid, and nothing
//! else.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use deputy_core::denial::{Code, Denial};
use deputy_core::ids::{OsGid, OsUid};
use deputy_core::job::OsIdentity;
use deputy_core::message::{GroupPage, LauncherReply, MAX_IMPORT, NotInGroup, SetGroupRequest};
use deputy_core::names::{AccountName, ApplicationName};
use deputy_core::pool::PoolSettings;
use deputy_core::project::ProjectKey;
use deputy_core::project_group::{GroupMember, GroupRecord, MAX_GROUP_MEMBERS};
use deputy_core::root_record::RootRecord as _;
use deputy_core::settings::Settings;
use deputy_nss_format::Group;
use deputy_sys::accounts;
use deputy_wire::Peer;

use super::{MAX_PASSED_OVER, map, of_machine, only_root, records};
use crate::paths::{GROUPING, POOL_GROUPS};
use crate::rules::{self, Rules};
use crate::{consents, durable};

/// The most bytes of a record.
const MAX_RECORD: u64 = 1024 * 1024;

/// How many records are on a page: few enough for one message, with all members.
const PAGE: usize = 8;

/// Waits for the turn to change groups.
fn turn() -> Result<records::Turn, Denial> {
    records::turn_at(GROUPING)
}

/// Where the record of a group is: who goes by it looks whether it is still the same file.
pub fn record_path(gid: OsGid) -> PathBuf {
    Path::new(POOL_GROUPS).join(GroupRecord::file_name(gid))
}

/// The record of a gid. One that cannot be read is an error, not an absence.
fn read(gid: OsGid) -> Result<Option<GroupRecord>, Denial> {
    let name = GroupRecord::file_name(gid);
    let bad = |error: String| {
        Denial::internal(format!("{POOL_GROUPS}/{name}: the group's record is unreadable: {error}"))
            .remedy("restore the record from a backup; nobody is in this group meanwhile")
    };
    match durable::read(Path::new(POOL_GROUPS), &name, MAX_RECORD).map_err(|error| bad(error.to_string()))? {
        None => Ok(None),
        Some(text) => GroupRecord::parse(&name, &text).map(Some).map_err(bad),
    }
}

/// The record of an application's group.
fn of_application(application: &ApplicationName, gid: OsGid) -> Result<GroupRecord, Denial> {
    read(gid)?.filter(|record| record.application == *application).ok_or_else(Denial::not_found)
}

fn write(record: &GroupRecord) -> Result<(), Denial> {
    let text = record.to_text().map_err(Denial::internal)?;
    durable::replace(Path::new(POOL_GROUPS), &GroupRecord::file_name(record.gid), text.as_bytes()).map_err(
        |error| {
            Denial::new(Code::Disk, POOL_GROUPS, format!("the group's record could not be written: {error}"))
                .remedy("make room on the file system of /var/lib/deputy")
        },
    )
}

/// The gids that have a record.
fn gids() -> Result<BTreeSet<OsGid>, Denial> {
    let failed = |error: io::Error| Denial::internal(format!("{POOL_GROUPS}: {error}"));
    let mut gids = BTreeSet::new();
    let entries = match fs::read_dir(POOL_GROUPS) {
        // Nobody was ever given one: leases and revocations need no such folder.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(gids),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        gids.extend(name.to_str().and_then(|name| name.parse().ok()).and_then(OsGid::new));
    }
    Ok(gids)
}

/// All groups, in the order of gids. One whose record is damaged is left out, so that it keeps no other from changing:
/// nobody is in it.
pub fn all() -> Result<Vec<GroupRecord>, Denial> {
    let read = |gid| {
        read(gid).unwrap_or_else(|denial| {
            tracing::error!(event = "project_group_unreadable", error = %denial.message);
            None
        })
    };
    Ok(gids()?.into_iter().filter_map(read).collect())
}

/// A group as the name service gives it: its members are OS accounts, each once.
pub fn entry(record: &GroupRecord) -> Group {
    let names: BTreeSet<&str> = record.members.iter().map(|member| member.os_account.name.as_str()).collect();
    // A list of members is separated by commas.
    let members = names.into_iter().filter(|name| !name.contains(',')).map(str::to_owned).collect();
    Group { name: record.name.as_str().to_owned(), gid: record.gid.raw(), members }
}

/// The pool's settings, if root lets projects of this application have groups.
fn allowed(rules: &Rules) -> Result<&PoolSettings, Denial> {
    if !rules.application.pool.project_groups {
        return Err(Denial::new(
            Code::PoolNotAllowed,
            format!("applications.d/{}.toml: pool.project_groups", rules.name),
            "projects of this application have no OS groups",
        )
        .remedy("let root set project_groups = true in [pool]"));
    }
    of_machine(&rules.settings)
}

/// A new group for a project, without members; one that was imported for it if there is one.
pub fn make(application: &ApplicationName, project: &ProjectKey) -> Result<GroupRecord, Denial> {
    let rules = Rules::read(application)?;
    let pool = allowed(&rules)?;
    // Without a map the name service cannot say that a number is nobody's.
    map::ensure_there(pool)?;
    let record = {
        let _turn = turn()?;
        let imported = all()?.into_iter().find(|record| {
            !record.claimed && record.application == *application && record.project == *project
        });
        let record = match imported {
            Some(imported) => GroupRecord { claimed: true, ..imported },
            None => new(pool, application, project)?,
        };
        write(&record)?;
        record
    };
    map::renew(pool)?;
    tracing::info!(event = "project_group_made", application = %application, project = %project, gid = record.gid.raw());
    Ok(record)
}

/// The record of the first number that was never anybody's. The caller has the turn.
fn new(
    pool: &PoolSettings,
    application: &ApplicationName,
    project: &ProjectKey,
) -> Result<GroupRecord, Denial> {
    let used = gids()?;
    let free = |gid: &u32| OsGid::new(*gid).is_some_and(|gid| !used.contains(&gid));
    for gid in pool.group_gids().filter(free).take(MAX_PASSED_OVER) {
        let record = GroupRecord::new(pool, gid, application, project, consents::now());
        let Some(record) = record else { continue };
        if !has_group(&record)? {
            return Ok(record);
        }
        tracing::warn!(
            event = "pool_number_taken",
            gid,
            "another group has the name or gid of a project group"
        );
    }
    Err(Denial::new(Code::PoolExhausted, "deputy.toml: pool", "no gid is left for a project's group").remedy(
        "widen gid_min to gid_max in [pool]; a project group's gid is never given to another project",
    ))
}

/// Whether any name service has a group of the name or the gid.
fn has_group(record: &GroupRecord) -> Result<bool, Denial> {
    accounts::has_group(record.name.as_str(), record.gid.raw()).map_err(name_service)
}

fn name_service(error: io::Error) -> Denial {
    Denial::internal(format!("the name service failed: {error}")).remedy("check nsswitch.conf, SSSD or LDAP")
}

/// A group as it is, as an answer.
pub fn with_answer(record: GroupRecord) -> LauncherReply {
    LauncherReply::Group { record, left_out: Vec::new() }
}

/// An application's group.
pub fn of(application: &ApplicationName, gid: OsGid) -> Result<GroupRecord, Denial> {
    of_application(application, gid)
}

/// Has those in a group who are named and may be in it. To leave nobody has to ask a policy: a request that only takes
/// away works whatever the application's file says.
pub fn set(wanted: &SetGroupRequest, peer: Peer) -> Result<LauncherReply, Denial> {
    if wanted.members.len() > MAX_GROUP_MEMBERS {
        return Err(Denial::invalid(format!("a group has at most {MAX_GROUP_MEMBERS} members")));
    }
    let mut left_out = Vec::new();
    let (record, before) = {
        let _turn = turn()?;
        let before = of_application(&wanted.application, wanted.gid)?;
        if before.revision != wanted.revision {
            return Err(Denial::new(Code::Conflict, "project group", "the group has changed meanwhile")
                .remedy("look at it, and ask again"));
        }
        let rules =
            Rules::read(&wanted.application).and_then(|rules| allowed(&rules).map(drop).map(|()| rules));
        let mut members: Vec<GroupMember> = Vec::new();
        for member in &wanted.members {
            let may = rules.as_ref().map_err(Clone::clone).and_then(|rules| admit(rules, member, peer));
            match may {
                Ok(()) if !members.contains(member) => members.push(member.clone()),
                Ok(()) => {}
                // A name service that is away takes nobody's group: each job asks again.
                Err(denial) if denial.code == Code::Internal && before.members.contains(member) => {
                    tracing::warn!(event = "project_group_member_kept", account = %member.account, error = %denial.message);
                    members.push(member.clone());
                }
                Err(denial) => left_out.push(NotInGroup { account: member.account.clone(), denial }),
            }
        }
        let same = members == before.members && wanted.project == before.project;
        let revision = before.revision + u64::from(!same);
        let (project, had) = (wanted.project.clone(), before.members.clone());
        let record = GroupRecord { members, project, revision, ..before };
        if !same {
            write(&record)?;
        }
        (record, had)
    };
    // Whatever was written, also by one who died before he came here.
    renew_map()?;
    tracing::info!(
        event = "project_group_set",
        application = %record.application,
        project = %record.project,
        gid = record.gid.raw(),
        members = record.members.len(),
        joined = %names(&record.members, &before),
        left = %names(&before, &record.members),
        left_out = left_out.len(),
    );
    Ok(LauncherReply::Group { record, left_out })
}

/// The accounts of these without some, for the journal.
fn names(these: &[GroupMember], without: &[GroupMember]) -> String {
    let only = these.iter().filter(|member| !without.contains(member));
    only.map(|member| member.account.as_str()).collect::<Vec<_>>().join(" ")
}

/// Whether an account may be in a group of this application: as for a job.
fn admit(rules: &Rules, member: &GroupMember, peer: Peer) -> Result<(), Denial> {
    consents::valid(rules, &member.account, &member.os_account, peer.uid)?;
    rules.pinned_target(&member.os_account).map(drop)
}

/// The map, written anew. Without a pool in the settings there are no ranges to write, and the map stays as it is.
fn renew_map() -> Result<(), Denial> {
    match rules::settings()?.pool {
        Some(pool) => map::renew(&pool),
        None => Ok(()),
    }
}

/// Takes an account whose consent was taken back out of all groups of the application. What fails is for the journal:
/// the consent is gone, and a job or file agent looks at that first.
pub fn leave(application: &ApplicationName, account: &AccountName, uid: OsUid) {
    let leave = || -> Result<(), Denial> {
        let is_it = |member: &GroupMember| member.account == *account && member.os_account.uid == uid;
        let of_it =
            |record: &GroupRecord| record.application == *application && record.members.iter().any(is_it);
        // Most accounts are in none: nobody has to wait for that.
        if !all()?.iter().any(of_it) {
            return Ok(());
        }
        {
            let _turn = turn()?;
            for mut record in all()?.into_iter().filter(of_it) {
                record.members.retain(|member| !is_it(member));
                record.revision += 1;
                write(&record)?;
            }
        }
        renew_map()
    };
    if let Err(denial) = leave() {
        tracing::error!(event = "project_groups_not_left", account = %account, uid = uid.raw(), error = %denial.message);
    }
}

/// The gid of a project's group for a job or file agent of this account, decided now: root's file still allows such
/// groups, the record is this application's and has the account as this OS account, and the name service knows the gid
/// as nobody else's. The caller has made sure of the consent.
pub fn of_member(
    rules: &Rules,
    gid: OsGid,
    account: &AccountName,
    identity: &OsIdentity,
) -> Result<OsGid, Denial> {
    let pool = allowed(rules)?;
    let record = of_application(&rules.name, gid)?;
    if pool.group_name(gid.raw()).is_none() {
        return Err(Denial::new(
            Code::PoolNotAllowed,
            "deputy.toml: pool.gid_min, pool.gid_max",
            format!("gid {gid} is outside the range of project groups"),
        )
        .remedy("let the range have the gids of all project groups: deputyctl pool groups"));
    }
    if !record.has(account, identity) {
        return Err(missing(&record));
    }
    match accounts::group_by_gid(gid.raw()).map_err(name_service)? {
        Some(group) if group.name != record.name.as_str() => Err(Denial::new(
            Code::Conflict,
            "name service",
            format!("gid {gid} of the project's group is the group {} by now", group.name),
        )
        .remedy("take the other group away, or choose a range for [pool] that nobody else uses")),
        _ => Ok(gid),
    }
}

fn missing(record: &GroupRecord) -> Denial {
    Denial::new(
        Code::OsAccountNotInGroup,
        format!("the record of {}", record.name),
        "the project's group does not have this account",
    )
    .remedy("share the project with the account again; who has no consent that holds is in no group")
}

/// Whether an account that was in a group a moment ago still is.
pub fn still_has(
    application: &ApplicationName,
    gid: OsGid,
    account: &AccountName,
    identity: &OsIdentity,
) -> Result<(), Denial> {
    let record = of_application(application, gid)?;
    if record.has(account, identity) { Ok(()) } else { Err(missing(&record)) }
}

/// A page of the records, for root.
pub fn page(after: Option<OsGid>, peer: Peer) -> Result<GroupPage, Denial> {
    only_root(peer, "lists the groups of projects")?;
    let mut page = GroupPage::default();
    for gid in gids()?.into_iter().filter(|gid| after.is_none_or(|after| *gid > after)) {
        if page.groups.len() == PAGE {
            page.next = page.groups.last().map(|record| record.gid);
            break;
        }
        page.groups.extend(read(gid)?);
    }
    Ok(page)
}

/// Takes over numbers of another host, all of them or none. Nobody is in an imported group: who is a member here, and
/// has consent here, is found out when a project of its name is shared here.
pub fn import(settings: &Settings, wanted: &[GroupRecord], peer: Peer) -> Result<(), Denial> {
    only_root(peer, "imports groups")?;
    let pool = of_machine(settings)?;
    if wanted.len() > MAX_IMPORT {
        return Err(Denial::invalid(format!("at most {MAX_IMPORT} groups at a time")));
    }
    map::ensure_there(pool)?;
    {
        let _turn = turn()?;
        let mut new = Vec::new();
        let mut gids = BTreeSet::new();
        for record in wanted {
            if !gids.insert(record.gid) {
                return Err(Denial::invalid(format!("gid {} occurs twice", record.gid)));
            }
            new.extend(importable(pool, record)?);
        }
        for record in &new {
            write(record)?;
        }
        tracing::info!(event = "project_groups_imported", count = new.len());
    }
    map::renew(pool)
}

/// The record as it is written here; none if it is here already.
fn importable(pool: &PoolSettings, record: &GroupRecord) -> Result<Option<GroupRecord>, Denial> {
    let conflict = |why: &str| {
        Denial::new(Code::Conflict, "pool import", format!("gid {}: {why}; nothing was imported", record.gid))
            .remedy("compare with: deputyctl pool groups")
    };
    let fresh = GroupRecord::new(pool, record.gid.raw(), &record.application, &record.project, record.since);
    let Some(fresh) = fresh.filter(|fresh| fresh.name == record.name) else {
        return Err(conflict("the pool of this machine does not have it under this name"));
    };
    if let Some(here) = read(record.gid)? {
        let same = here.application == record.application && here.project == record.project;
        return if same { Ok(None) } else { Err(conflict("another project has it here")) };
    }
    if has_group(&fresh)? {
        return Err(conflict("another group has its name or number here"));
    }
    Ok(Some(GroupRecord { claimed: false, ..fresh }))
}
