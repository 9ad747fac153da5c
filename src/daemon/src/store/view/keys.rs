//! The keys of the view's rows. A first byte says which index; names end with NUL, which no name contains.

use deputy_core::account::Status;
use deputy_core::project::ProjectKey;
use deputy_core::quota::Whose;
use deputy_core::role::DEFAULT_ROLE;
use deputy_core::{AccountName, ApplicationName, GroupName, JobId, OsUid, SessionId};

use crate::store::argument::Argument;
use crate::store::change::QuotaOf;
use crate::store::record::Account;

/// The view's own mark.
pub const MARK: &[u8] = b"M";
/// Jobs that are not ended, by number.
pub const OPEN_JOBS: &[u8] = b"o";
/// Ended jobs whose folders are kept, by number.
pub const KEPT_JOBS: &[u8] = b"k";
/// The latest jobs of services that go on, by number.
pub const SERVICES: &[u8] = b"v";
/// All accounts, links and sessions, whoever's they are.
pub const ACCOUNTS: &[u8] = b"A";
pub const LINKS: &[u8] = b"L";
pub const SESSIONS: &[u8] = b"S";
/// All memberships, under their groups.
pub const MEMBERS: &[u8] = b"m";

/// The orders of accounts.
pub const BY_NAME: u8 = b'n';
pub const BY_CREATED: u8 = b'c';
pub const BY_LOGIN: u8 = b'l';

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

/// What is counted of an application.
pub fn counts(application: &ApplicationName) -> Vec<u8> {
    join(b'N', &[application.as_str().as_bytes()])
}

/// The entries of accounts under a facet (empty for all), in the order of `sort`.
pub fn sorted_accounts(application: &ApplicationName, facet: &str, sort: u8) -> Vec<u8> {
    join(b'I', &[application.as_str().as_bytes(), &[0], facet.as_bytes(), &[0, sort]])
}

/// The entry of an account there; `moment` is empty where the order is that of the names.
pub fn sorted_account(mut prefix: Vec<u8>, moment: &[u8], account: &AccountName) -> Vec<u8> {
    prefix.extend_from_slice(moment);
    prefix.extend_from_slice(account.as_str().as_bytes());
    prefix
}

/// What such an entry says: the account's name, and what is asked for most often, so that an account that is something
/// else need not be looked up.
pub fn entry(account: &Account) -> String {
    format!("{}\0{}\0{}", account.name, account.status, account.role)
}

/// Name, status and role of an entry.
pub fn entry_parts(value: &[u8]) -> Option<(&str, &str, &str)> {
    let (name, rest) = std::str::from_utf8(value).ok()?.split_once('\0')?;
    let (status, role) = rest.split_once('\0')?;
    Some((name, status, role))
}

/// What stands before the name in an order's key.
pub fn moment(sort: u8, account: &Account) -> Vec<u8> {
    match sort {
        BY_CREATED => account.created.0.to_be_bytes().to_vec(),
        // Those that never had a session are behind each other by age, so that the unused ones are found at once.
        BY_LOGIN => [account.last_login.unwrap_or_default(), account.created]
            .map(|moment| moment.0.to_be_bytes())
            .concat(),
        _ => Vec::new(),
    }
}

/// The facet of a status that few accounts have.
pub fn status_facet(status: Status) -> Option<String> {
    (status != Status::Active).then(|| format!("s:{status}"))
}

/// The facet of a role that few accounts have.
pub fn role_facet(role: &str) -> Option<String> {
    (role != DEFAULT_ROLE).then(|| format!("r:{role}"))
}

/// A group.
pub fn group(application: &ApplicationName, group: &GroupName) -> Vec<u8> {
    join(b'G', &[application.as_str().as_bytes(), &[0], group.as_str().as_bytes()])
}

/// The groups of an application.
pub fn groups(application: &ApplicationName) -> Vec<u8> {
    join(b'G', &[application.as_str().as_bytes(), &[0]])
}

/// A membership, under its group.
pub fn member(application: &ApplicationName, group: &GroupName, account: &AccountName) -> Vec<u8> {
    join(
        b'm',
        &[
            application.as_str().as_bytes(),
            &[0],
            group.as_str().as_bytes(),
            &[0],
            account.as_str().as_bytes(),
        ],
    )
}

/// The memberships of a group.
pub fn members(application: &ApplicationName, group: &GroupName) -> Vec<u8> {
    join(b'm', &[application.as_str().as_bytes(), &[0], group.as_str().as_bytes(), &[0]])
}

/// The entry of a membership under its account.
pub fn membership(application: &ApplicationName, account: &AccountName, group: &GroupName) -> Vec<u8> {
    let mut key = memberships(application, account);
    key.extend_from_slice(group.as_str().as_bytes());
    key
}

/// The memberships of an account.
pub fn memberships(application: &ApplicationName, account: &AccountName) -> Vec<u8> {
    join(b'g', &[application.as_str().as_bytes(), &[0], account.as_str().as_bytes(), &[0]])
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

/// The jobs of an account that are not ended, by number.
pub fn open_jobs_of_account(application: &ApplicationName, account: &AccountName) -> Vec<u8> {
    join(b'q', &[application.as_str().as_bytes(), &[0], account.as_str().as_bytes(), &[0]])
}

/// The jobs as an OS uid, by number.
pub fn jobs_of_uid(uid: OsUid) -> Vec<u8> {
    join(b'u', &[&uid.raw().to_be_bytes()])
}

/// The projects of an application.
pub fn projects(application: &ApplicationName) -> Vec<u8> {
    join(b'P', &[application.as_str().as_bytes(), &[0]])
}

/// A project. Owner and name stand last, so that the entries below end as this does.
pub fn project(application: &ApplicationName, project: &ProjectKey) -> Vec<u8> {
    with_project(projects(application), project)
}

/// The projects that an account owns or is a member of.
pub fn projects_of(application: &ApplicationName, account: &AccountName) -> Vec<u8> {
    join(b'p', &[application.as_str().as_bytes(), &[0], account.as_str().as_bytes(), &[0]])
}

/// The entry of a project under one who has a part in it.
pub fn project_of(application: &ApplicationName, account: &AccountName, project: &ProjectKey) -> Vec<u8> {
    with_project(projects_of(application, account), project)
}

/// The public projects of an application.
pub fn public_projects(application: &ApplicationName) -> Vec<u8> {
    join(b'b', &[application.as_str().as_bytes(), &[0]])
}

/// The entry of a project among those.
pub fn public_project(application: &ApplicationName, project: &ProjectKey) -> Vec<u8> {
    with_project(public_projects(application), project)
}

fn with_project(mut prefix: Vec<u8>, project: &ProjectKey) -> Vec<u8> {
    prefix.extend_from_slice(project.owner.as_str().as_bytes());
    prefix.push(0);
    prefix.extend_from_slice(project.name.as_str().as_bytes());
    prefix
}

/// The entry of a numbered thing under one of the prefixes above.
pub fn numbered(mut prefix: Vec<u8>, number: u64) -> Vec<u8> {
    prefix.extend_from_slice(&number.to_be_bytes());
    prefix
}

/// The alerts of an application.
pub fn alerts(application: &ApplicationName) -> Vec<u8> {
    join(b'Q', &[application.as_str().as_bytes(), &[0]])
}

/// The alerts of an account.
pub fn alerts_of(application: &ApplicationName, account: &AccountName) -> Vec<u8> {
    join(b'Q', &[application.as_str().as_bytes(), &[0], account.as_str().as_bytes(), &[0]])
}

/// An alert. A path has no NUL either.
pub fn alert(
    application: &ApplicationName,
    account: &AccountName,
    place: &Argument,
    whose: Whose,
    of: QuotaOf,
) -> Vec<u8> {
    let mut key = alerts_of(application, account);
    key.extend_from_slice(&place.0);
    key.push(0);
    key.extend_from_slice(format!("{whose}\0{}", of.as_str()).as_bytes());
    key
}

/// What is known of an account's password.
pub fn password(application: &ApplicationName, account: &AccountName) -> Vec<u8> {
    join(b'w', &[application.as_str().as_bytes(), &[0], account.as_str().as_bytes()])
}
