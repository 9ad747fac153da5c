//! What each change needs to find, and what it leaves: the one place where the state moves.
//!
//! The same rules run when a change is committed and when the view is made anew from the ledger.

mod accounts;
mod alerts;
mod groups;
mod jobs;
mod sessions;

pub(crate) use accounts::{check_acting, remaining};

use deputy_core::job::OsIdentity;
use deputy_core::{AccountName, ApplicationName};

use super::change::Change;
use super::clock::Timestamp;
use super::error::StoreError;
use super::projects;
use super::record::{Link, LinkState};
use super::view::{Draft, keys};

/// Checks a change against the draft and writes its rows there. After an error the draft is as it was.
pub(crate) fn apply(
    change: &Change,
    number: u64,
    at: Timestamp,
    draft: &mut Draft<'_>,
) -> Result<(), StoreError> {
    match change {
        Change::RoleChanged { group: Some(_), .. }
        | Change::GroupCreated { .. }
        | Change::GroupDeleted { .. }
        | Change::MemberAdded { .. }
        | Change::MemberRemoved { .. } => groups::apply(change, at, draft)?,
        Change::AccountCreated { .. }
        | Change::AccountRegistered { .. }
        | Change::AccountApproved { .. }
        | Change::AccountRejected { .. }
        | Change::AccountEdited { .. }
        | Change::AccountLimited { .. }
        | Change::RoleChanged { .. }
        | Change::AccountDeactivated { .. }
        | Change::AccountReactivated { .. }
        | Change::AccountDeleted { .. } => accounts::apply(change, at, draft)?,
        Change::LinkRequested { .. }
        | Change::LinkActivated { .. }
        | Change::LinkRenewed { .. }
        | Change::LinkStale { .. }
        | Change::LinkExpired { .. }
        | Change::LinkRevoked { .. }
        | Change::LinkRemoved { .. } => apply_link(change, at, draft)?,
        Change::SessionOpened { .. }
        | Change::SessionExtended { .. }
        | Change::SessionClosed { .. }
        | Change::SessionsEnded { .. }
        | Change::PasswordSet { .. } => sessions::apply(change, at, draft)?,
        Change::Project { application, project, event } => {
            projects::apply(application, project, event, at, draft)?;
        }
        Change::JobQueued { .. }
        | Change::JobLeased { .. }
        | Change::JobSubmitted { .. }
        | Change::JobRequeued { .. }
        | Change::JobStarted { .. }
        | Change::JobEnded { .. }
        | Change::JobLost { .. }
        | Change::JobAbandoned { .. }
        | Change::JobCommanded { .. }
        | Change::JobsForgotten { .. }
        | Change::ServiceStopped { .. } => jobs::apply(change, number, at, draft)?,
        Change::QuotaAlert { .. } => alerts::apply(change, at, draft)?,
        Change::Denied { .. }
        | Change::FilesUsed { .. }
        | Change::StrangersDenied { .. }
        | Change::TailCut { .. }
        | Change::Imported { .. } => {}
    }
    Ok(())
}

fn apply_link(change: &Change, at: Timestamp, draft: &mut Draft<'_>) -> Result<(), StoreError> {
    match change {
        Change::LinkRequested { application, account, os, code, expires } => {
            need_account(draft, application, account)?;
            let old = find_link(draft, application, account)?;
            if let Some(old) = &old {
                let lapsed = old.state == LinkState::Waiting && old.expires.is_some_and(|end| end <= at);
                if !lapsed && matches!(old.state, LinkState::Waiting | LinkState::Active) {
                    return Err(conflict("link", pair(application, account), "it exists already"));
                }
            }
            let link = Link {
                code: code.clone(),
                expires: *expires,
                ..new_link(application, account, os, LinkState::Waiting, at)
            };
            replace_link(draft, old.as_ref(), &link);
        }
        Change::LinkActivated { application, account, os, given_by, expires } => {
            need_account(draft, application, account)?;
            let old = find_link(draft, application, account)?;
            match &old {
                Some(old) if old.state == LinkState::Active => {
                    return Err(conflict("link", pair(application, account), "it is active already"));
                }
                Some(old) if old.state == LinkState::Waiting && old.os != *os => {
                    return Err(conflict(
                        "link",
                        pair(application, account),
                        "another OS account was asked for",
                    ));
                }
                _ => {}
            }
            let requested = match &old {
                Some(old) if old.state == LinkState::Waiting => old.requested,
                _ => at,
            };
            let link = Link {
                given_by: Some(*given_by),
                expires: *expires,
                requested,
                ..new_link(application, account, os, LinkState::Active, at)
            };
            replace_link(draft, old.as_ref(), &link);
        }
        Change::LinkRenewed { application, account, given_by, expires } => {
            let mut link = need_link(draft, application, account)?;
            if link.state != LinkState::Active {
                return Err(conflict("link", pair(application, account), "it is not active"));
            }
            link.given_by = Some(*given_by);
            link.expires = *expires;
            draft.put(keys::link(application, account), &link);
        }
        Change::LinkStale { application, account, reason } => {
            let from = [LinkState::Active];
            move_link(draft, application, account, &from, LinkState::Stale, Some(reason.clone()), at)?;
            accounts::end_os_sessions(draft, application, account)?;
        }
        Change::LinkExpired { application, account } => {
            let from = [LinkState::Waiting, LinkState::Active];
            move_link(draft, application, account, &from, LinkState::Expired, None, at)?;
        }
        Change::LinkRevoked { application, account } => {
            let from = [LinkState::Waiting, LinkState::Active, LinkState::Stale, LinkState::Expired];
            move_link(draft, application, account, &from, LinkState::Revoked, None, at)?;
            accounts::end_os_sessions(draft, application, account)?;
        }
        Change::LinkRemoved { application, account, .. } => {
            let link = need_link(draft, application, account)?;
            draft.remove(keys::link(application, account));
            draft.remove(keys::link_of_uid(link.os.uid, application, account));
            alerts::forget(draft, application, account)?;
            // They were of an account that acted as this OS account.
            accounts::end_sessions(draft, application, account)?;
        }
        _ => {}
    }
    Ok(())
}

fn new_link(
    application: &ApplicationName,
    account: &AccountName,
    os: &OsIdentity,
    state: LinkState,
    at: Timestamp,
) -> Link {
    Link {
        application: application.clone(),
        account: account.clone(),
        os: os.clone(),
        state,
        reason: None,
        given_by: None,
        code: None,
        requested: at,
        changed: at,
        expires: None,
    }
}

fn replace_link(draft: &mut Draft<'_>, old: Option<&Link>, link: &Link) {
    if let Some(old) = old {
        draft.remove(keys::link_of_uid(old.os.uid, &old.application, &old.account));
    }
    draft.put(keys::link(&link.application, &link.account), link);
    draft.put_entry(keys::link_of_uid(link.os.uid, &link.application, &link.account), "");
}

fn move_link(
    draft: &mut Draft<'_>,
    application: &ApplicationName,
    account: &AccountName,
    from: &[LinkState],
    to: LinkState,
    reason: Option<String>,
    at: Timestamp,
) -> Result<(), StoreError> {
    let mut link = need_link(draft, application, account)?;
    if !from.contains(&link.state) {
        return Err(conflict("link", pair(application, account), "it is not in a state that allows this"));
    }
    link.state = to;
    link.reason = reason;
    link.changed = at;
    link.code = None;
    draft.put(keys::link(application, account), &link);
    Ok(())
}

fn find_link(
    draft: &Draft<'_>,
    application: &ApplicationName,
    account: &AccountName,
) -> Result<Option<Link>, StoreError> {
    draft.record(&keys::link(application, account))
}

fn need_link(
    draft: &Draft<'_>,
    application: &ApplicationName,
    account: &AccountName,
) -> Result<Link, StoreError> {
    find_link(draft, application, account)?.ok_or_else(|| missing("link", pair(application, account)))
}

fn need_account(
    draft: &Draft<'_>,
    application: &ApplicationName,
    account: &AccountName,
) -> Result<(), StoreError> {
    if draft.has(&keys::account(application, account))? {
        Ok(())
    } else {
        Err(missing("account", pair(application, account)))
    }
}

fn pair(application: &ApplicationName, account: &AccountName) -> String {
    format!("{application}/{account}")
}

fn conflict(what: &'static str, key: String, why: &'static str) -> StoreError {
    StoreError::Conflict { what, key, why }
}

fn missing(what: &'static str, key: String) -> StoreError {
    StoreError::NotFound { what, key }
}
