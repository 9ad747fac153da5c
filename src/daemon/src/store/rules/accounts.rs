//! What happens to accounts.

use deputy_core::account::{Refused, Status, Step};
use deputy_core::role::SUPERUSER;
use deputy_core::{AccountName, ApplicationName, SessionId};

use super::{alerts, groups};
use super::{conflict, missing, pair};
use crate::store::change::{Actor, Authentication, Change};
use crate::store::clock::Timestamp;
use crate::store::error::StoreError;
use crate::store::projects::Project;
use crate::store::record::{Account, Counts, Link, Membership, Remaining, Session};
use crate::store::view::{Draft, keys};

pub(super) fn apply(change: &Change, at: Timestamp, draft: &mut Draft<'_>) -> Result<(), StoreError> {
    match change {
        Change::AccountCreated { .. } | Change::AccountRegistered { .. } => begin(change, at, draft),
        Change::AccountApproved { application, account } => {
            step(draft, application, account, Step::Approve, None, at)
        }
        Change::AccountRejected { application, account, reason } => {
            step(draft, application, account, Step::Reject, Some(reason), at)
        }
        Change::AccountEdited { application, account, email, first_name, last_name } => {
            let (old, _) = take(draft, application, account, Step::Edit)?;
            let edited = |old: &Option<String>, new: &Option<String>| match new {
                None => old.clone(),
                Some(text) => Some(text.clone()).filter(|text| !text.is_empty()),
            };
            let new = Account {
                email: edited(&old.email, email),
                first_name: edited(&old.first_name, first_name),
                last_name: edited(&old.last_name, last_name),
                ..old.clone()
            };
            put(draft, Some(&old), Some(&new))
        }
        Change::AccountLimited { application, account, limits } => {
            let (old, _) = take(draft, application, account, Step::Edit)?;
            put(draft, Some(&old), Some(&Account { limits: *limits, ..old.clone() }))
        }
        Change::RoleChanged { application, account, group: None, from, to } => {
            let (old, _) = take(draft, application, account, Step::SetRole)?;
            let Some(role) = to else {
                return Err(conflict("account", pair(application, account), "it needs a role"));
            };
            if from.as_ref() != Some(&old.role) {
                return Err(conflict(
                    "account",
                    pair(application, account),
                    "its role was changed meanwhile",
                ));
            }
            let new = Account { role: role.clone(), ..old.clone() };
            put(draft, Some(&old), Some(&new))
        }
        Change::AccountDeactivated { application, account, reason } => {
            step(draft, application, account, Step::Deactivate, Some(reason), at)?;
            end_sessions(draft, application, account)
        }
        Change::AccountReactivated { application, account } => {
            step(draft, application, account, Step::Reactivate, None, at)
        }
        Change::AccountDeleted { application, account } => delete(draft, application, account, at),
        _ => Ok(()),
    }
}

/// An account begins, or a rejected one asks again.
fn begin(change: &Change, at: Timestamp, draft: &mut Draft<'_>) -> Result<(), StoreError> {
    let (Change::AccountCreated { application, account, email, first_name, last_name, role, group, .. }
    | Change::AccountRegistered { application, account, email, first_name, last_name, role, group }) = change
    else {
        return Ok(());
    };
    let first = matches!(change, Change::AccountCreated { first: true, .. });
    let step = if matches!(change, Change::AccountCreated { .. }) { Step::Create } else { Step::Register };
    let old = find(draft, application, account)?;
    let status = next(step, old.as_ref(), application, account)?.unwrap_or_default();
    if first && counts(draft, application)?.accounts > 0 {
        return Err(conflict("application", application.to_string(), "it has an account already"));
    }
    let new = Account {
        application: application.clone(),
        name: account.clone(),
        email: email.clone(),
        first_name: first_name.clone(),
        last_name: last_name.clone(),
        role: role.clone(),
        status,
        reason: None,
        created: old.as_ref().map_or(at, |old| old.created),
        changed: at,
        last_login: None,
        limits: old.as_ref().map(|old| old.limits).unwrap_or_default(),
    };
    // What can be refused goes first: after an error the draft is as it was.
    let joined = match group {
        Some(group) if !groups::is_member(draft, application, group, account)? => {
            Some(groups::find(draft, application, group)?)
        }
        _ => None,
    };
    put(draft, old.as_ref(), Some(&new))?;
    if let Some(group) = joined {
        groups::join(draft, group, account, None, at);
    }
    Ok(())
}

/// Moves an account to another status.
fn step(
    draft: &mut Draft<'_>,
    application: &ApplicationName,
    account: &AccountName,
    step: Step,
    reason: Option<&String>,
    at: Timestamp,
) -> Result<(), StoreError> {
    let (old, status) = take(draft, application, account, step)?;
    let new = Account { status, reason: reason.cloned(), changed: at, ..old.clone() };
    put(draft, Some(&old), Some(&new))
}

fn delete(
    draft: &mut Draft<'_>,
    application: &ApplicationName,
    account: &AccountName,
    at: Timestamp,
) -> Result<(), StoreError> {
    let old = need(draft, application, account)?;
    let remaining = remaining(draft, application, account, at)?;
    if !remaining.is_empty() {
        let words: Vec<String> = remaining.iter().map(|one| format!("{} {}", one.what, one.name)).collect();
        return Err(StoreError::NotEmpty { key: pair(application, account), remaining: shortened(&words) });
    }
    put(draft, Some(&old), None)?;
    draft.remove(keys::password(application, account));
    alerts::forget(draft, application, account)?;
    // What is over counts for nothing, and must not come back with another account of that name.
    end_sessions(draft, application, account)
}

/// The first few of many words.
fn shortened(words: &[String]) -> String {
    const SHOWN: usize = 5;
    let more = words.len().saturating_sub(SHOWN);
    let shown = words[..words.len().min(SHOWN)].join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

/// What keeps an account from being deleted.
pub(crate) fn remaining(
    draft: &Draft<'_>,
    application: &ApplicationName,
    account: &AccountName,
    at: Timestamp,
) -> Result<Vec<Remaining>, StoreError> {
    let mut found = Vec::new();
    for (_, id) in draft.rows(&keys::open_jobs_of_account(application, account))? {
        found.push(Remaining { what: "job", name: String::from_utf8_lossy(&id).into_owned() });
    }
    if let Some(link) = draft.record::<Link>(&keys::link(application, account))? {
        found.push(Remaining { what: "link", name: link.os.name.to_string() });
    }
    for (_, key) in draft.rows(&keys::projects_of(application, account))? {
        let key = String::from_utf8_lossy(&key).into_owned();
        let own = key.split('/').next() == Some(account.as_str());
        // What stays on the disk whatever becomes of the project's record.
        if let Some(key) = key.parse().ok().filter(|_| own)
            && let Some(project) = draft.record::<Project>(&keys::project(application, &key))?
        {
            let folder = project.folder.map(|path| String::from_utf8_lossy(&path.0).into_owned());
            found.extend(folder.map(|name| Remaining { what: "project-folder", name }));
            found.extend(
                project.group.map(|group| Remaining { what: "project-group", name: group.name.to_string() }),
            );
        }
        found.push(Remaining { what: if own { "project" } else { "share" }, name: key });
    }
    for session in sessions(draft, application, account)? {
        if session.expires > at {
            // Its id is a secret of the application's.
            found.push(Remaining { what: "session", name: format!("until {}", session.expires) });
        }
    }
    for (_, row) in draft.rows(&keys::memberships(application, account))? {
        let membership: Membership = draft.decode(&row)?;
        found.push(Remaining { what: "group", name: membership.group.to_string() });
    }
    Ok(found)
}

/// The sessions of an account, those that are over included.
fn sessions(
    draft: &Draft<'_>,
    application: &ApplicationName,
    account: &AccountName,
) -> Result<Vec<Session>, StoreError> {
    let mut sessions = Vec::new();
    for (_, id) in draft.rows(&keys::sessions_of_account(application, account))? {
        sessions.extend(draft.record::<Session>(&[keys::SESSIONS, &id].concat())?);
    }
    Ok(sessions)
}

/// Ends all sessions of an account.
pub(super) fn end_sessions(
    draft: &mut Draft<'_>,
    application: &ApplicationName,
    account: &AccountName,
) -> Result<(), StoreError> {
    for session in sessions(draft, application, account)? {
        super::sessions::remove(draft, &session);
    }
    Ok(())
}

/// Ends the sessions that rest on a login as the linked OS account: the link does not say any more who that is.
pub(super) fn end_os_sessions(
    draft: &mut Draft<'_>,
    application: &ApplicationName,
    account: &AccountName,
) -> Result<(), StoreError> {
    for session in sessions(draft, application, account)? {
        if session.account == *account && matches!(session.how, Authentication::Os {}) {
            super::sessions::remove(draft, &session);
        }
    }
    Ok(())
}

/// A session of the account began.
pub(super) fn logged_in(
    draft: &mut Draft<'_>,
    application: &ApplicationName,
    account: &AccountName,
    at: Timestamp,
) -> Result<(), StoreError> {
    let old = need_active(draft, application, account)?;
    let new = Account { last_login: Some(at), ..old.clone() };
    put(draft, Some(&old), Some(&new))
}

/// The acting account has to be what it was when the call was allowed. Otherwise of two who take each other's role
/// both could win.
pub(crate) fn check_acting(actor: &Actor, draft: &Draft<'_>) -> Result<(), StoreError> {
    let (Some(application), Some(by)) = (&actor.application, &actor.by) else { return Ok(()) };
    let changed = || StoreError::ActorChanged { key: pair(application, &by.account) };
    let account = find(draft, application, &by.account)?.ok_or_else(changed)?;
    let session = |id: &SessionId| draft.has(&keys::session(id));
    let in_group = match &by.group {
        None => true,
        Some((group, role)) => groups::role(draft, application, group, &by.account)?.as_ref() == Some(role),
    };
    let same = account.status == Status::Active
        && account.role == by.role
        && in_group
        && by.session.as_ref().map_or(Ok(true), session)?;
    if same { Ok(()) } else { Err(changed()) }
}

pub(super) fn find(
    draft: &Draft<'_>,
    application: &ApplicationName,
    account: &AccountName,
) -> Result<Option<Account>, StoreError> {
    draft.record(&keys::account(application, account))
}

pub(super) fn need(
    draft: &Draft<'_>,
    application: &ApplicationName,
    account: &AccountName,
) -> Result<Account, StoreError> {
    find(draft, application, account)?.ok_or_else(|| missing("account", pair(application, account)))
}

/// An account that may have sessions and jobs.
pub(super) fn need_active(
    draft: &Draft<'_>,
    application: &ApplicationName,
    account: &AccountName,
) -> Result<Account, StoreError> {
    let found = need(draft, application, account)?;
    match found.status {
        Status::Active => Ok(found),
        status => Err(StoreError::NotActive { key: pair(application, account), status }),
    }
}

/// An account of which a step is taken, and where that leads.
fn take(
    draft: &Draft<'_>,
    application: &ApplicationName,
    account: &AccountName,
    step: Step,
) -> Result<(Account, Status), StoreError> {
    let old = need(draft, application, account)?;
    let status = next(step, Some(&old), application, account)?.unwrap_or(old.status);
    Ok((old, status))
}

fn next(
    step: Step,
    old: Option<&Account>,
    application: &ApplicationName,
    account: &AccountName,
) -> Result<Option<Status>, StoreError> {
    step.from(old.map(|old| old.status)).map_err(|refused| match refused {
        Refused::Absent => missing("account", pair(application, account)),
        other => conflict("account", pair(application, account), other.why()),
    })
}

fn counts(draft: &Draft<'_>, application: &ApplicationName) -> Result<Counts, StoreError> {
    Ok(draft.record(&keys::counts(application))?.unwrap_or_default())
}

/// Writes an account with its entries in the orders and facets, or removes it with them.
fn put(draft: &mut Draft<'_>, old: Option<&Account>, new: Option<&Account>) -> Result<(), StoreError> {
    let Some(any) = new.or(old) else { return Ok(()) };
    let (application, name) = (any.application.clone(), any.name.clone());
    let before = counts(draft, &application)?;
    let governs = |account: &&Account| account.status == Status::Active && account.role == SUPERUSER;
    let count = |account: Option<&Account>| u64::from(account.is_some());
    let after = Counts {
        accounts: (before.accounts + count(new)).saturating_sub(count(old)),
        superusers: (before.superusers + count(new.filter(governs)))
            .saturating_sub(count(old.filter(governs))),
    };
    if before.superusers > 0 && after.superusers == 0 {
        return Err(StoreError::LastSuperuser { key: pair(&application, &name) });
    }
    if after != before {
        draft.put(keys::counts(&application), &after);
    }
    let said = |account: Option<&Account>| account.map(keys::entry);
    let same = said(old) == said(new);
    let old_entries = old.map(entries).unwrap_or_default();
    let new_entries = new.map(entries).unwrap_or_default();
    for key in &old_entries {
        if !new_entries.contains(key) {
            draft.remove(key.clone());
        }
    }
    for key in new_entries {
        if !same || !old_entries.contains(&key) {
            draft.put_entry(key, &said(new).unwrap_or_default());
        }
    }
    match new {
        Some(account) => draft.put(keys::account(&application, &name), account),
        None => draft.remove(keys::account(&application, &name)),
    }
    Ok(())
}

/// The keys of an account's entries. What most accounts are (active, of the default role) is found by walking along
/// all of them; what few are has entries of its own, or a page of those few would be a walk through a million.
fn entries(account: &Account) -> Vec<Vec<u8>> {
    let mut keys = Vec::with_capacity(8);
    let facets = [Some(String::new()), keys::status_facet(account.status), keys::role_facet(&account.role)];
    for facet in facets.into_iter().flatten() {
        for sort in [keys::BY_NAME, keys::BY_CREATED, keys::BY_LOGIN] {
            if facet.is_empty() && sort == keys::BY_NAME {
                continue;
            }
            let prefix = keys::sorted_accounts(&account.application, &facet, sort);
            keys.push(keys::sorted_account(prefix, &keys::moment(sort, account), &account.name));
        }
    }
    keys
}
