//! The consent records on disk.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use deputy_core::consent::{Consent, GivenBy};
use deputy_core::denial::{Code, Denial};
use deputy_core::ids::OsUid;
use deputy_core::job::OsIdentity;
use deputy_core::message::ConsentPage;
use deputy_core::names::{AccountName, ApplicationName, OsGroupName};
use deputy_core::pool::PoolRecord;

use crate::paths::CONSENT;
use crate::rules::{Rules, look_up};
use crate::{durable, holders, pool};

/// The most bytes of a record.
const MAX_RECORD: u64 = 16 * 1024;

/// How many consents are on a page: few enough for one packet, whatever the names.
const PAGE: usize = 40;

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The record of a key, if there is one. A record that cannot be read is an error, not an absence.
pub fn find(
    application: &ApplicationName,
    account: &AccountName,
    uid: OsUid,
) -> Result<Option<Consent>, Denial> {
    read(&Consent::file_name(application, account, uid))
}

/// The record of this file name.
pub fn read(name: &str) -> Result<Option<Consent>, Denial> {
    let bad = |error: String| {
        Denial::new(
            Code::NoConsent,
            format!("{CONSENT}/{name}"),
            format!("the consent record is unreadable: {error}"),
        )
        .remedy("root can remove the record and let consent be given again")
    };
    match durable::read(Path::new(CONSENT), name, MAX_RECORD).map_err(|error| bad(error.to_string()))? {
        None => Ok(None),
        Some(text) => Consent::parse(name, &text).map(Some).map_err(|error| bad(error.to_string())),
    }
}

/// What the records and root's rules say about a key.
enum Standing {
    /// There is a consent that holds.
    Holds(Consent),
    /// There is none, and root's rule gives one.
    RuleGives,
}

/// Where the consent of a key stands now; a refusal if this application may not act for this account.
fn standing(rules: &Rules, account: &AccountName, identity: &OsIdentity) -> Result<Standing, Denial> {
    match find(&rules.name, account, identity.uid)? {
        // What the owner or root revoked is gone, and what is there but does not hold is not repaired by a rule:
        // only a key that has no record at all gets one.
        Some(consent) => consent.check(identity, rules.service_uid, now()).map(|()| Standing::Holds(consent)),
        None if rule_gives(rules, account, identity) => {
            // Whoever asks has named the identity: nothing is written down for one that is not so, or is refused.
            rules.pinned_target(identity)?;
            holders::check(rules, account, identity.uid)?;
            Ok(Standing::RuleGives)
        }
        None => Err(Consent::missing()),
    }
}

/// The consent under which this application may act as this OS account for this account, now. Where there is none
/// and root's own rule gives it, it is written down first.
pub fn valid(
    rules: &Rules,
    account: &AccountName,
    identity: &OsIdentity,
    by_uid: u32,
) -> Result<Consent, Denial> {
    match standing(rules, account, identity)? {
        Standing::Holds(consent) => Ok(consent),
        Standing::RuleGives => give(rules, account, identity, GivenBy::Policy, by_uid, None),
    }
}

/// Whether [`valid`] would find or make a consent. Nothing is written.
pub fn would_be_valid(rules: &Rules, account: &AccountName, identity: &OsIdentity) -> Result<(), Denial> {
    standing(rules, account, identity).map(drop)
}

/// Whether a consent that held a moment ago still does, also for the login on which the request rests.
pub fn still_valid(
    application: &ApplicationName,
    account: &AccountName,
    identity: &OsIdentity,
    service_uid: u32,
    login: Option<u64>,
) -> Result<(), Denial> {
    let found = find(application, account, identity.uid)?.ok_or_else(Consent::missing)?;
    found.check(identity, service_uid, now())?;
    login.map_or(Ok(()), |login| found.check_login(login))
}

/// Whether root's rule in the application's file gives this OS account to this account.
pub fn rule_gives(rules: &Rules, account: &AccountName, identity: &OsIdentity) -> bool {
    let link = &rules.application.link;
    link.os_user(account).as_ref() == Some(&identity.name)
        && link.groups.as_ref().is_none_or(|groups| is_member(identity, groups))
        // A name that happens to be that of a pool account says nothing about who the account is.
        && !pool::is_pools(identity.uid)
        && !is_revoked(&rules.name, account, identity.uid)
}

/// The consent to a lease of the pool's: policy's, since nobody else owns the OS account. The caller has made sure of
/// the lease. What the owner or root took back is not given again.
pub fn for_lease(
    rules: &Rules,
    account: &AccountName,
    identity: &OsIdentity,
    by_uid: u32,
) -> Result<(), Denial> {
    match find(&rules.name, account, identity.uid)? {
        Some(consent) => consent.check(identity, rules.service_uid, now()),
        None if is_revoked(&rules.name, account, identity.uid) => Err(Consent::missing()),
        None => give(rules, account, identity, GivenBy::Policy, by_uid, None).map(drop),
    }
}

/// Takes back every consent onto a uid of the pool that is returned, and the marks of revocations: they were about
/// whoever had it. A record that cannot be read is an error: it may be about this uid.
pub fn end_lease(lease: &PoolRecord, by_uid: u32) -> Result<(), Denial> {
    let uid = lease.os_account.uid;
    let entries = fs::read_dir(CONSENT).map_err(|error| Denial::internal(format!("{CONSENT}: {error}")))?;
    for entry in entries {
        let name = entry.map_err(|error| Denial::internal(format!("{CONSENT}: {error}")))?.file_name();
        let Some(name) = name.to_str().filter(|name| is_record_name(name)) else { continue };
        if let Some(consent) = read(name)?.filter(|consent| consent.os_account.uid == uid) {
            withdraw(&consent.application, &consent.account, uid, by_uid, false)?;
        }
    }
    let own = Consent::file_name(&lease.application, &lease.account, uid);
    durable::remove(Path::new(CONSENT), &revoked_name(&own)).map_err(disk).map(drop)
}

/// Whether an OS account is in one of these groups. Where the name service does not say, it is not.
fn is_member(identity: &OsIdentity, groups: &[OsGroupName]) -> bool {
    let Ok(target) = look_up(&identity.name) else { return false };
    target.groups.iter().any(|group| groups.iter().any(|name| name.as_str() == group.name))
}

/// Writes a consent, until `asked` at most. The caller has made sure that whoever gives it may.
pub fn give(
    rules: &Rules,
    account: &AccountName,
    identity: &OsIdentity,
    given_by: GivenBy,
    by_uid: u32,
    asked: Option<u64>,
) -> Result<Consent, Denial> {
    // Root's own word holds for as long as root says, and a rule of root's while it is there.
    let expires = match given_by {
        GivenBy::Owner => rules.application.link.consent_until(now(), asked),
        GivenBy::Root | GivenBy::Policy => asked,
    };
    let mut consent = Consent {
        version: Consent::VERSION,
        application: rules.name.clone(),
        service_uid: rules.service_uid,
        account: account.clone(),
        os_account: identity.clone(),
        given_by,
        by_uid,
        made: now(),
        expires,
    };
    let name = consent.own_file_name();
    let _turn = holders::turn()?;
    // One that is renewed goes on: logins under it are still logins under it.
    if let Ok(Some(before)) = read(&name)
        && before.check(identity, rules.service_uid, now()).is_ok()
    {
        consent.made = consent.made.min(before.made);
    }
    let text = consent.to_text().map_err(|error| Denial::internal(error.to_string()))?;
    holders::check(rules, account, identity.uid)?;
    holders::add(&rules.name, identity.uid, &name).map_err(disk)?;
    durable::replace(Path::new(CONSENT), &name, text.as_bytes()).map_err(disk)?;
    // Whoever may give consent may also take back an earlier revocation; a rule never gets here past one.
    durable::remove(Path::new(CONSENT), &revoked_name(&name)).map_err(disk)?;
    tracing::info!(
        event = "consent_given",
        application = %consent.application,
        account = %account,
        os_user = %identity.name,
        uid = identity.uid.raw(),
        given_by = given_by.as_str(),
        by_uid,
        expires = expires.map(tracing::field::display),
    );
    Ok(consent)
}

/// Takes a consent back. A revocation by the owner or by root leaves a mark, so that a rule does not give at the next
/// use what they took; an application that unlinks can have the link again by the rule.
pub fn withdraw(
    application: &ApplicationName,
    account: &AccountName,
    uid: OsUid,
    by_uid: u32,
    leave_mark: bool,
) -> Result<bool, Denial> {
    let name = Consent::file_name(application, account, uid);
    if leave_mark {
        durable::replace(Path::new(CONSENT), &revoked_name(&name), b"").map_err(disk)?;
    }
    let removed = durable::remove(Path::new(CONSENT), &name).map_err(disk)?;
    holders::tidy(application, account, uid);
    pool::leave(application, account, uid);
    tracing::info!(
        event = "consent_withdrawn",
        application = %application,
        account = %account,
        uid = uid.raw(),
        by_uid,
        removed,
    );
    Ok(removed)
}

/// Whether there is a record of a key, readable or not.
pub fn is_there(application: &ApplicationName, account: &AccountName, uid: OsUid) -> bool {
    // What cannot be looked at may be there.
    Path::new(CONSENT).join(Consent::file_name(application, account, uid)).try_exists().unwrap_or(true)
}

fn revoked_name(name: &str) -> String {
    format!("{name}.revoked")
}

fn is_revoked(application: &ApplicationName, account: &AccountName, uid: OsUid) -> bool {
    let name = revoked_name(&Consent::file_name(application, account, uid));
    // What cannot be looked at counts as revoked.
    Path::new(CONSENT).join(name).try_exists().unwrap_or(true)
}

fn disk(error: std::io::Error) -> Denial {
    Denial::new(Code::Disk, CONSENT, format!("the consent record could not be written: {error}"))
        .remedy("make room on the file system of /var/lib/deputy; nothing was changed")
}

/// A page of the consents that `wanted` wants, in the order of their file names.
pub fn page(after: Option<&str>, wanted: impl Fn(&Consent) -> bool) -> Result<ConsentPage, Denial> {
    let entries = fs::read_dir(CONSENT).map_err(|error| Denial::internal(format!("{CONSENT}: {error}")))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| is_record_name(name) && after.is_none_or(|after| name.as_str() > after))
        .collect();
    names.sort_unstable();
    let mut page = ConsentPage::default();
    for name in names {
        // One that went or broke meanwhile is not on the page; a use of it is refused with the reason.
        let Ok(Some(consent)) = read(&name) else { continue };
        if wanted(&consent) {
            page.consents.push(consent);
            if page.consents.len() == PAGE {
                page.next = Some(name);
                break;
            }
        }
    }
    Ok(page)
}

/// Whether a file of this name is a record.
pub fn is_record_name(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit())
}
