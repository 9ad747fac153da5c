//! `.Session`: an authenticated account, for a limited time.

use std::time::Duration;

use deputy_core::{AccountName, ApplicationName, Denial, SessionId};

use crate::authority::{About, Call, Granted, Owned};
use crate::bus::introspection::session_path;
use crate::bus::record::Record;
use crate::daemon::Daemon;
use crate::random;
use crate::store::{Actor, Authentication, Change, PageRequest, Session, Store, StoreError, Timestamp};

/// How often sessions that are over are closed.
const SWEEP: Duration = Duration::from_secs(60);

impl Owned for Session {
    fn application(&self) -> &ApplicationName {
        &self.application
    }
    fn owner(&self) -> Option<u32> {
        None
    }
    fn service_uid(&self) -> Option<u32> {
        Some(self.service_uid)
    }
}

/// The session that a call is on.
fn look_up(call: &Call) -> Result<Option<Session>, Denial> {
    let Some(Ok(id)) = call.id.as_deref().map(str::parse) else { return Ok(None) };
    live(&call.daemon, &id)
}

/// A session that is not over.
pub fn live(daemon: &Daemon, id: &SessionId) -> Result<Option<Session>, Denial> {
    let found = daemon.store.session(id)?;
    Ok(found.filter(|session| session.expires > Timestamp::now()))
}

/// Makes a session; its path is what the application is given.
pub async fn open(
    daemon: &Daemon,
    actor: Actor,
    application: ApplicationName,
    account: AccountName,
    how: Authentication,
    expires: Timestamp,
) -> Result<SessionId, Denial> {
    let id = SessionId::from_random(random::bytes()?);
    let change = Change::SessionOpened {
        id: id.clone(),
        application,
        account,
        service_uid: actor.caller_uid,
        how,
        expires,
    };
    daemon.store.commit(change, actor).await?;
    Ok(id)
}

/// `Session.Get`.
pub async fn get(call: Call, (): ()) -> Result<Granted<(Record,)>, Denial> {
    let (grant, session) = call.authorize_object(|| look_up(&call)).await?;
    call.note(&About::application(Some(session.application.clone())).account(&session.account));
    let link = call.daemon.store.link(&session.application, &session.account)?;
    let how = match &session.how {
        Authentication::Os {} => "os",
        Authentication::Vouched { .. } => "vouched",
    };
    let record = Record::new()
        .text("path", session_path(&session.id))
        .text("application", &session.application)
        .text("account", &session.account)
        .maybe("os_user", link.map(|link| link.os.name.to_string()))
        .text("how", how)
        .with("opened", session.opened.0)
        .with("expires", session.expires.0);
    Ok(grant.answer((record,)))
}

/// `Session.Close`.
pub async fn close(call: Call, (): ()) -> Result<Granted<()>, Denial> {
    let (grant, session) = call.authorize_object(|| look_up(&call)).await?;
    let change = Change::SessionClosed { id: session.id, reason: "closed".into() };
    match call.daemon.store.commit(change, grant.actor()?).await {
        // Somebody else closed it meanwhile: it is closed.
        Ok(_) | Err(StoreError::NotFound { .. }) => Ok(grant.answer(())),
        Err(error) => Err(error.into()),
    }
}

/// Closes sessions that are over, for as long as the daemon lives. Nothing depends on it being in time.
pub async fn sweep(store: Store) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let mut request = PageRequest::first(1000);
        while let Ok(page) = store.all_sessions(&request) {
            let now = Timestamp::now();
            for session in page.items.into_iter().filter(|session| session.expires <= now) {
                let change = Change::SessionClosed { id: session.id, reason: "expired".into() };
                if store.commit(change, Actor::daemon("close expired sessions")).await.is_err() {
                    break;
                }
            }
            let Some(next) = page.next else { break };
            request.after = Some(next);
        }
    }
}
