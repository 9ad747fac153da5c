//! The keys of the view's rows. A first byte says which index; names end with NUL, which no name contains.

use deputy_core::{AccountName, ApplicationName, JobId, OsUid, SessionId};

/// The view's own mark.
pub const MARK: &[u8] = b"M";
/// Jobs that are not ended, by number.
pub const OPEN_JOBS: &[u8] = b"o";
/// All accounts, links and sessions, whoever's they are.
pub const ACCOUNTS: &[u8] = b"A";
pub const LINKS: &[u8] = b"L";
pub const SESSIONS: &[u8] = b"S";

fn join(index: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + parts.iter().map(|p| p.len()).sum::<usize>());
    key.push(index);
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

/// An account.
pub fn account(application: &ApplicationName, account: &AccountName) -> Vec<u8> {
    join(b'A', &[application.as_str().as_bytes(), &[0], account.as_str().as_bytes()])
}

/// The accounts of an application whose names begin with `start`.
pub fn accounts(application: &ApplicationName, start: &str) -> Vec<u8> {
    join(b'A', &[application.as_str().as_bytes(), &[0], start.as_bytes()])
}

/// An account's link.
pub fn link(application: &ApplicationName, account: &AccountName) -> Vec<u8> {
    join(b'L', &[application.as_str().as_bytes(), &[0], account.as_str().as_bytes()])
}

/// The links of an application.
pub fn links(application: &ApplicationName) -> Vec<u8> {
    join(b'L', &[application.as_str().as_bytes(), &[0]])
}

/// The entry of a link under its OS uid.
pub fn link_of_uid(uid: OsUid, application: &ApplicationName, account: &AccountName) -> Vec<u8> {
    let uid = uid.raw().to_be_bytes();
    join(b'U', &[&uid, application.as_str().as_bytes(), &[0], account.as_str().as_bytes()])
}

/// The links onto an OS uid.
pub fn links_of_uid(uid: OsUid) -> Vec<u8> {
    join(b'U', &[&uid.raw().to_be_bytes()])
}

/// A session.
pub fn session(id: &SessionId) -> Vec<u8> {
    join(b'S', &[id.as_str().as_bytes()])
}

/// The entry of a session under its account.
pub fn session_of(application: &ApplicationName, account: &AccountName, id: &SessionId) -> Vec<u8> {
    let mut key = sessions_of_account(application, account);
    key.extend_from_slice(id.as_str().as_bytes());
    key
}

/// The sessions of an account.
pub fn sessions_of_account(application: &ApplicationName, account: &AccountName) -> Vec<u8> {
    join(b's', &[application.as_str().as_bytes(), &[0], account.as_str().as_bytes(), &[0]])
}

/// The sessions of an application.
pub fn sessions_of_application(application: &ApplicationName) -> Vec<u8> {
    join(b's', &[application.as_str().as_bytes(), &[0]])
}

/// A job.
pub fn job(id: &JobId) -> Vec<u8> {
    join(b'J', &[id.as_str().as_bytes()])
}

/// The jobs of an application, by number.
pub fn jobs_of_application(application: &ApplicationName) -> Vec<u8> {
    join(b'a', &[application.as_str().as_bytes(), &[0]])
}

/// The jobs of an account, by number.
pub fn jobs_of_account(application: &ApplicationName, account: &AccountName) -> Vec<u8> {
    join(b'c', &[application.as_str().as_bytes(), &[0], account.as_str().as_bytes(), &[0]])
}

/// The jobs as an OS uid, by number.
pub fn jobs_of_uid(uid: OsUid) -> Vec<u8> {
    join(b'u', &[&uid.raw().to_be_bytes()])
}

/// The entry of a numbered thing under one of the prefixes above.
pub fn numbered(mut prefix: Vec<u8>, number: u64) -> Vec<u8> {
    prefix.extend_from_slice(&number.to_be_bytes());
    prefix
}
