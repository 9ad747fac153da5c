//! The pool's records on disk: one for each uid that was ever leased, and for each account which uid it has.
//!
//! The record is the truth. The account's file comes before it, so that no lease is without one; a file that names a
//! uid whose record is not this account's means nothing.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use deputy_core::denial::{Code, Denial};
use deputy_core::ids::OsUid;
use deputy_core::message::PoolPage;
use deputy_core::names::{AccountName, ApplicationName};
use deputy_core::pool::PoolRecord;
use deputy_core::root_record::RootRecord as _;

use crate::durable;
use crate::paths::{LEASING, POOL, POOL_ACCOUNTS};

/// The most bytes of a record.
const MAX_RECORD: u64 = 16 * 1024;

/// How many records are on a page: few enough for one packet, whatever the names.
const PAGE: usize = 40;

/// The turn of whoever changes something; it ends when dropped.
#[derive(Debug)]
pub struct Turn(#[expect(dead_code, reason = "the lock lives as long as the open file")] File);

/// Waits for the turn at a lock file of root's.
pub fn turn_at(path: &str) -> Result<Turn, Denial> {
    let take = || -> io::Result<File> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        file.lock()?;
        Ok(file)
    };
    take().map(Turn).map_err(|error| Denial::internal(format!("{path}: {error}")))
}

/// Waits for the turn to change records.
pub fn turn() -> Result<Turn, Denial> {
    turn_at(LEASING)
}

/// The record of a uid. One that cannot be read is an error, not an absence.
pub fn of_uid(uid: OsUid) -> Result<Option<PoolRecord>, Denial> {
    let name = PoolRecord::file_name(uid);
    let bad = |error: String| {
        Denial::internal(format!("{POOL}/{name}: the pool's record is unreadable: {error}"))
            .remedy("restore the record from a backup; nobody gets this uid meanwhile")
    };
    match durable::read(Path::new(POOL), &name, MAX_RECORD).map_err(|error| bad(error.to_string()))? {
        None => Ok(None),
        Some(text) => PoolRecord::parse(&name, &text).map(Some).map_err(bad),
    }
}

/// The latest record of an account, whatever its state, if its uid is not another's by now.
pub fn of_account(
    application: &ApplicationName,
    account: &AccountName,
) -> Result<Option<PoolRecord>, Denial> {
    let name = PoolRecord::account_file_name(application, account);
    let text = durable::read(Path::new(POOL_ACCOUNTS), &name, 32)
        .map_err(|error| Denial::internal(format!("{POOL_ACCOUNTS}/{name}: {error}")))?;
    let Some(text) = text else { return Ok(None) };
    let uid = text.trim_end().parse().ok().and_then(OsUid::new);
    let uid = uid.ok_or_else(|| Denial::internal(format!("{POOL_ACCOUNTS}/{name} has no uid")))?;
    Ok(of_uid(uid)?.filter(|record| record.application == *application && record.account == *account))
}

/// Writes a record, and first that its account has this uid. The caller has the turn.
pub fn write(record: &PoolRecord) -> Result<(), Denial> {
    let uid = record.os_account.uid;
    let text = record.to_text().map_err(Denial::internal)?;
    let account = PoolRecord::account_file_name(&record.application, &record.account);
    durable::replace(Path::new(POOL_ACCOUNTS), &account, format!("{uid}\n").as_bytes())
        .and_then(|()| durable::replace(Path::new(POOL), &PoolRecord::file_name(uid), text.as_bytes()))
        .map_err(|error| {
            Denial::new(Code::Disk, POOL, format!("the pool's record could not be written: {error}"))
                .remedy("make room on the file system of /var/lib/deputy; nobody else gets this uid")
        })
}

/// Whether a uid is, or was, the pool's. What cannot be looked at is.
pub fn is_pools(uid: OsUid) -> bool {
    Path::new(POOL).join(PoolRecord::file_name(uid)).try_exists().unwrap_or(true)
}

/// The uids that have a record.
pub fn uids() -> Result<BTreeSet<OsUid>, Denial> {
    let failed = |error: io::Error| Denial::internal(format!("{POOL}: {error}"));
    let mut uids = BTreeSet::new();
    for entry in fs::read_dir(POOL).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        uids.extend(name.to_str().and_then(|name| name.parse().ok()).and_then(OsUid::new));
    }
    Ok(uids)
}

/// All records, in the order of uids.
pub fn all() -> Result<Vec<PoolRecord>, Denial> {
    let records: Result<Vec<_>, _> = uids()?.into_iter().map(of_uid).collect();
    Ok(records?.into_iter().flatten().collect())
}

/// The records behind this uid, as many as fit.
pub fn page(after: Option<OsUid>) -> Result<PoolPage, Denial> {
    let mut page = PoolPage::default();
    for uid in uids()?.into_iter().filter(|uid| after.is_none_or(|after| *uid > after)) {
        if page.records.len() == PAGE {
            page.next = page.records.last().map(|record| record.os_account.uid);
            break;
        }
        page.records.extend(of_uid(uid)?);
    }
    Ok(page)
}
