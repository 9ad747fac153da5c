//! Leases of the pool: OS accounts for accounts whose people have none.
//!
//! A lease is, in this order: the record of the uid, the home, the name service's map, the consent. Each step is whole
//! or not at all, and a request that comes again goes on behind the last one that was done.

mod groups;
mod home;
mod map;
mod records;
mod returning;
mod search;

use std::collections::BTreeSet;

use deputy_core::denial::{Code, Denial};
use deputy_core::finding::{Finding, FindingCode, Severity};
use deputy_core::ids::OsUid;
use deputy_core::job::OsIdentity;
use deputy_core::message::{Leased, MAX_IMPORT, PoolPage};
use deputy_core::names::{AccountName, ApplicationName};
use deputy_core::policy::{Group, PasswdEntry};
use deputy_core::pool::{PoolRecord, PoolSettings, PoolState};
use deputy_core::settings::Settings;
use deputy_sys::accounts;
use deputy_wire::Peer;

pub use groups::{
    import as import_groups, leave, make as make_group, of as group_of, of_member as group_of_member,
    page as groups_page, record_path as group_record, set as set_group, still_has, with_answer as group,
};
pub use records::is_pools;
pub use returning::give_back;

use crate::consents;
use crate::rules::{Rules, Target};

/// How many numbers that somebody else has are passed over for one lease.
const MAX_PASSED_OVER: usize = 64;

/// The lease of an account: the one that it has, or a new one if the application's file allows it.
pub fn lease(application: &ApplicationName, account: &AccountName, peer: Peer) -> Result<Leased, Denial> {
    let rules = Rules::read(application)?;
    let pool = pool_for(&rules)?;
    map::ensure_there(pool)?;
    let mut findings = Vec::new();
    let record = take(&rules, pool, account, &mut findings)?;
    let os_account = record.os_account.clone();
    map::ensure(pool, &os_account)?;
    rules.pinned_target(&os_account).map_err(not_named)?;
    // A return that came meanwhile has the last word.
    let _turn = records::turn()?;
    if records::of_account(application, account)?.as_ref() != Some(&record) {
        return Err(
            Denial::new(Code::Conflict, "pool", "the lease has been returned meanwhile").remedy("ask again")
        );
    }
    consents::for_lease(&rules, account, &os_account, peer.uid)?;
    Ok(Leased { os_account, findings })
}

/// The pool's settings, if root lets this application lease from it.
fn pool_for(rules: &Rules) -> Result<&PoolSettings, Denial> {
    let refuse = |rule: String, message: &str, remedy: &str| {
        Denial::new(Code::PoolNotAllowed, rule, message).remedy(remedy)
    };
    if !rules.application.pool.lease {
        return Err(refuse(
            format!("applications.d/{}.toml: pool.lease", rules.name),
            "accounts of this application are not leased OS accounts",
            "link the account to an OS account, or let root set lease = true in [pool]",
        ));
    }
    of_machine(&rules.settings)
}

/// The pool of this machine.
fn of_machine(settings: &Settings) -> Result<&PoolSettings, Denial> {
    settings.pool.as_ref().ok_or_else(|| {
        Denial::new(Code::PoolNotAllowed, "deputy.toml: pool", "this machine has no pool of OS accounts")
            .remedy("let root write [pool] into deputy.toml")
    })
}

/// A map that the name service does not read is no fault of the account's.
fn not_named(denial: Denial) -> Denial {
    match denial.code {
        Code::LinkStale | Code::OsAccountUnknown => Denial::new(
            Code::OsAccountUnknown,
            "name service",
            format!("the pool's OS account is leased and in the map, but: {}", denial.message),
        )
        .remedy("install libnss_deputy.so.2 and write 'deputy' behind 'files' for passwd and group in nsswitch.conf; a cache (nscd, SSSD) may need a minute"),
        _ => denial,
    }
}

/// The record of the account's lease, with its home.
fn take(
    rules: &Rules,
    pool: &PoolSettings,
    account: &AccountName,
    findings: &mut Vec<Finding>,
) -> Result<PoolRecord, Denial> {
    let new = |uid: OsUid| -> Result<PoolRecord, Denial> {
        PoolRecord::lease(pool, uid.raw(), &rules.name, account, consents::now()).ok_or_else(exhausted)
    };
    let mut searched = BTreeSet::new();
    loop {
        let turn = records::turn()?;
        let own = records::of_account(&rules.name, account)?;
        if let Some(record) = own.filter(|record| record.state == PoolState::Leased) {
            return complete(pool, record, findings);
        }
        if let Some(identity) = never_used(pool, findings)? {
            may_be_target(rules, pool, &identity)?;
            return start(pool, new(identity.uid)?, findings);
        }
        // All numbers were used: one that nobody has any more is searched for, without keeping others waiting.
        let Some(candidate) = reusable(pool, &searched)? else { return Err(exhausted()) };
        drop(turn);
        let uid = candidate.os_account.uid;
        searched.insert(uid);
        if !search::of(&candidate.os_account, pool, &rules.settings)?.is_empty() {
            tracing::warn!(event = "pool_uid_not_empty", uid = uid.raw());
            continue;
        }
        let _turn = records::turn()?;
        let own = records::of_account(&rules.name, account)?;
        if own.is_none_or(|record| record.state != PoolState::Leased)
            && records::of_uid(uid)?.as_ref() == Some(&candidate)
            && !is_taken(pool, &candidate.os_account, findings)?
        {
            may_be_target(rules, pool, &candidate.os_account)?;
            return start(pool, new(uid)?, findings);
        }
    }
}

fn exhausted() -> Denial {
    Denial::new(Code::PoolExhausted, "deputy.toml: pool", "no OS account of the pool is free")
        .remedy("return leases that nobody needs (deputyctl pool list), or widen the range")
}

/// Writes down a new lease, and goes on.
fn start(pool: &PoolSettings, record: PoolRecord, findings: &mut Vec<Finding>) -> Result<PoolRecord, Denial> {
    records::write(&record)?;
    tracing::info!(
        event = "pool_leased",
        application = %record.application,
        account = %record.account,
        os_user = %record.os_account.name,
        uid = record.os_account.uid.raw(),
    );
    complete(pool, record, findings)
}

/// Makes the home, if that has not been done. The caller has the turn.
fn complete(
    pool: &PoolSettings,
    mut record: PoolRecord,
    findings: &mut Vec<Finding>,
) -> Result<PoolRecord, Denial> {
    if !record.home_made {
        findings.extend(home::make(pool, &record)?);
        record.home_made = true;
        records::write(&record)?;
    }
    Ok(record)
}

/// The first number that was never used and that nobody else has.
fn never_used(pool: &PoolSettings, findings: &mut Vec<Finding>) -> Result<Option<OsIdentity>, Denial> {
    let used = records::uids()?;
    let mut passed_over = 0;
    for uid in (pool.uid_min..=pool.uid_max).filter_map(OsUid::new).filter(|uid| !used.contains(uid)) {
        let Some(identity) = pool.identity(uid.raw()) else { continue };
        if !is_taken(pool, &identity, findings)? {
            return Ok(Some(identity));
        }
        passed_over += 1;
        if passed_over == MAX_PASSED_OVER {
            return Err(Denial::new(
                Code::PoolExhausted,
                "deputy.toml: pool",
                format!(
                    "somebody else has {MAX_PASSED_OVER} numbers of the pool's range, one after the other"
                ),
            )
            .remedy("choose a range that no other directory uses"));
        }
    }
    Ok(None)
}

/// Whether somebody else has the name or a number, in any name service, or something is in the home's place.
fn is_taken(pool: &PoolSettings, identity: &OsIdentity, findings: &mut Vec<Finding>) -> Result<bool, Denial> {
    let OsIdentity { name, uid, gid } = identity;
    let failed = |error: std::io::Error| Denial::internal(format!("the name service failed: {error}"));
    let what = if accounts::by_name(name.as_str()).map_err(failed)?.is_some() {
        format!("another OS account is called {name}")
    } else if accounts::by_uid(uid.raw()).map_err(failed)?.is_some() {
        format!("another OS account has uid {uid}")
    } else if accounts::has_group(name.as_str(), gid.raw()).map_err(failed)? {
        format!("another group is called {name} or has gid {gid}")
    } else if home::is_occupied(pool, identity)? {
        format!("there is something in {} called {name}", pool.homes().display())
    } else {
        return Ok(false);
    };
    tracing::warn!(event = "pool_number_taken", uid = uid.raw(), error = %what);
    let message = format!("{what}: the number is passed over");
    findings.push(
        Finding::new(FindingCode::PoolNumberTaken, Severity::Warning, message)
            .remedy("choose a range for [pool] in deputy.toml that no other directory uses"),
    );
    Ok(true)
}

/// The rules about every OS account, before there is one: a lease that could never be used is not begun.
fn may_be_target(rules: &Rules, pool: &PoolSettings, identity: &OsIdentity) -> Result<(), Denial> {
    let entry = PasswdEntry {
        name: identity.name.as_str().to_owned(),
        uid: identity.uid.raw(),
        gid: identity.gid.raw(),
        home: pool.home.as_bytes().to_vec(),
        shell: pool.shell.as_bytes().to_vec(),
    };
    let groups = vec![Group { name: entry.name.clone(), gid: entry.gid }];
    rules.denials(&Target { entry, groups }).into_iter().next().map_or(Ok(()), Err)
}

/// A uid that nobody has any more: free, or after its quarantine.
fn reusable(pool: &PoolSettings, searched: &BTreeSet<OsUid>) -> Result<Option<PoolRecord>, Denial> {
    let now = consents::now();
    let is_over = |record: &PoolRecord| match record.state {
        PoolState::Leased => false,
        PoolState::Quarantined => returning::quarantine_ends(pool, record) <= now,
        PoolState::Free => true,
    };
    let mut candidates = records::all()?;
    candidates.retain(|record| {
        is_over(record)
            && !searched.contains(&record.os_account.uid)
            && pool.identity(record.os_account.uid.raw()).as_ref() == Some(&record.os_account)
    });
    // The longest unused first.
    Ok(candidates.into_iter().min_by_key(|record| record.since))
}

/// A page of the records, for root.
pub fn page(after: Option<OsUid>, peer: Peer) -> Result<PoolPage, Denial> {
    only_root(peer, "lists the pool")?;
    records::page(after)
}

/// Takes over leases of another host, all of them or none.
pub fn import(settings: &Settings, wanted: &[PoolRecord], peer: Peer) -> Result<(), Denial> {
    only_root(peer, "imports leases")?;
    let pool = of_machine(settings)?;
    if wanted.len() > MAX_IMPORT {
        return Err(Denial::invalid(format!("at most {MAX_IMPORT} leases at a time")));
    }
    {
        let _turn = records::turn()?;
        let mut new = Vec::new();
        let mut uids = BTreeSet::new();
        for record in wanted {
            if !uids.insert(record.os_account.uid) {
                return Err(Denial::invalid(format!("uid {} occurs twice", record.os_account.uid)));
            }
            new.extend(importable(pool, record)?);
        }
        for record in &new {
            records::write(record)?;
        }
        tracing::info!(event = "pool_imported", count = new.len());
    }
    map::renew(pool)
}

/// The record as it is written here; none if it is here already.
fn importable(pool: &PoolSettings, record: &PoolRecord) -> Result<Option<PoolRecord>, Denial> {
    let uid = record.os_account.uid;
    let conflict = |why: String| {
        Denial::new(Code::Conflict, "pool import", format!("uid {uid}: {why}; nothing was imported"))
            .remedy("compare with: deputyctl pool list")
    };
    let fresh = PoolRecord::lease(pool, uid.raw(), &record.application, &record.account, record.since);
    let Some(fresh) = fresh.filter(|fresh| fresh.os_account == record.os_account) else {
        return Err(conflict("the pool of this machine does not have it under this name and gid".into()));
    };
    let here = records::of_uid(uid)?;
    if let Some(here) = &here
        && (&here.application, &here.account, here.state)
            == (&record.application, &record.account, record.state)
    {
        return Ok(None);
    }
    if here.as_ref().is_some_and(|here| here.state != PoolState::Free) {
        return Err(conflict("another account has it here, or it is in quarantine".into()));
    }
    let own = records::of_account(&record.application, &record.account)?;
    if own.is_some_and(|own| own.state == PoolState::Leased && own.os_account.uid != uid) {
        return Err(conflict(format!("{} of {} has another lease here", record.account, record.application)));
    }
    // The home may be there, on a file system that the hosts share; a name or number of somebody else's may not.
    let OsIdentity { name, gid, .. } = &record.os_account;
    let failed = |error: std::io::Error| Denial::internal(format!("the name service failed: {error}"));
    if accounts::by_name(name.as_str()).map_err(failed)?.is_some()
        || accounts::by_uid(uid.raw()).map_err(failed)?.is_some()
        || accounts::has_group(name.as_str(), gid.raw()).map_err(failed)?
    {
        return Err(conflict("somebody else has its name or number here".into()));
    }
    // No search of files: other hosts that share them use this very uid. The home is seen to at the first lease.
    Ok(Some(PoolRecord { state: record.state, ..fresh }))
}

/// What creates or ends right is root's own word alone.
fn only_root(peer: Peer, does: &str) -> Result<(), Denial> {
    if peer.uid == 0 {
        return Ok(());
    }
    Err(Denial::new(Code::PeerNotAllowed, "pool", format!("only root {does}"))
        .remedy("run the same deputyctl pool command as root"))
}
