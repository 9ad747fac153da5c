//! What happens to sessions and passwords.

use deputy_core::SessionId;

use super::{accounts, conflict, missing, pair};
use crate::store::change::{Authentication, Change};
use crate::store::clock::Timestamp;
use crate::store::error::StoreError;
use crate::store::record::{PasswordFact, Session};
use crate::store::view::{Draft, keys};

pub(super) fn apply(change: &Change, at: Timestamp, draft: &mut Draft<'_>) -> Result<(), StoreError> {
    match change {
        Change::SessionOpened { .. } => open(change, at, draft)?,
        Change::SessionExtended { id, expires } => {
            let mut session = need_live(draft, id, at)?;
            if *expires > session.ends {
                return Err(conflict("session", format!("{id:?}"), "it ends before that, whatever happens"));
            }
            session.expires = *expires;
            draft.put(keys::session(id), &session);
        }
        Change::SessionClosed { id, .. } => {
            let session = need(draft, id)?;
            remove(draft, &session);
        }
        Change::SessionsEnded { application, account, .. } => {
            accounts::need(draft, application, account)?;
            accounts::end_sessions(draft, application, account)?;
        }
        Change::PasswordSet { application, account, generation, temporary, replaces } => {
            accounts::need(draft, application, account)?;
            let key = keys::password(application, account);
            let old: Option<PasswordFact> = draft.record(&key)?;
            if replaces.is_some() && old.map(|old| old.generation) != *replaces {
                return Err(conflict("password", pair(application, account), "it was changed meanwhile"));
            }
            let fact = PasswordFact { generation: generation.clone(), set: at, temporary: *temporary };
            draft.put(key, &fact);
            accounts::end_sessions(draft, application, account)?;
        }
        _ => {}
    }
    Ok(())
}

fn open(change: &Change, at: Timestamp, draft: &mut Draft<'_>) -> Result<(), StoreError> {
    let Change::SessionOpened { id, application, account, service_uid, how, expires, ends, idle_seconds } =
        change
    else {
        return Ok(());
    };
    let key = keys::session(id);
    if draft.has(&key)? {
        return Err(conflict("session", format!("{id:?}"), "it exists already"));
    }
    match how {
        Authentication::Password { generation } => {
            // It may have been reset between the comparison and this.
            let now: Option<PasswordFact> = draft.record(&keys::password(application, account))?;
            if now.is_none_or(|now| now.generation != *generation) {
                return Err(conflict("password", pair(application, account), "it was changed meanwhile"));
            }
            accounts::logged_in(draft, application, account, at)?;
        }
        Authentication::ActFor { by, .. } => {
            accounts::need_active(draft, application, account)?;
            accounts::need_active(draft, application, by)?;
        }
        Authentication::Os {} | Authentication::Vouched { .. } => {
            accounts::logged_in(draft, application, account, at)?;
        }
    }
    let session = Session {
        id: id.clone(),
        application: application.clone(),
        account: account.clone(),
        service_uid: *service_uid,
        how: how.clone(),
        opened: at,
        expires: *expires,
        ends: ends.unwrap_or(*expires),
        idle_seconds: *idle_seconds,
    };
    draft.put(key, &session);
    for key in entries(&session) {
        draft.put_entry(key, id.as_str());
    }
    Ok(())
}

/// A session is under its account; one that acts for another also under the account that acts, and ends with either's.
fn entries(session: &Session) -> Vec<Vec<u8>> {
    let accounts = [Some(&session.account), session.acting()].into_iter().flatten();
    accounts.map(|account| keys::session_of(&session.application, account, &session.id)).collect()
}

/// Removes a session with its entries.
pub(super) fn remove(draft: &mut Draft<'_>, session: &Session) {
    draft.remove(keys::session(&session.id));
    for key in entries(session) {
        draft.remove(key);
    }
}

/// A session was used: it has to be live, and lives on.
pub(super) fn used(draft: &mut Draft<'_>, id: &SessionId, at: Timestamp) -> Result<(), StoreError> {
    let mut session = need_live(draft, id, at)?;
    session.expires = session.expires_if_used(at);
    draft.put(keys::session(id), &session);
    Ok(())
}

fn need_live(draft: &Draft<'_>, id: &SessionId, at: Timestamp) -> Result<Session, StoreError> {
    let session = need(draft, id)?;
    if session.expires <= at { Err(missing("session", format!("{id:?}"))) } else { Ok(session) }
}

fn need(draft: &Draft<'_>, id: &SessionId) -> Result<Session, StoreError> {
    draft.record(&keys::session(id))?.ok_or_else(|| missing("session", format!("{id:?}")))
}
