//! `.Session`: an authenticated account, for a limited time.
//!
//! A session ends when it was not used for a while, at the latest when its lifetime is over, and at once with whatever
//! it rests on: the account put out of use, its password set, its link removed. Uses move the end; what moves it only a
//! little is not recorded.

use std::time::Duration;

use deputy_core::application::SessionPolicy;
use deputy_core::settings::SessionSettings;
use deputy_core::{AccountName, ApplicationName, Denial, SessionId};

use crate::accounts::page;
use crate::authority::{About, Call, Granted, Owned};
use crate::bus::introspection::session_path;
use crate::bus::options::Options;
use crate::bus::record::Record;
use crate::daemon::Daemon;
use crate::random;
use crate::store::{Actor, Authentication, Change, PageRequest, Session, Store, StoreError, Timestamp};

/// How often sessions that are over are closed.
const SWEEP: Duration = Duration::from_secs(60);

/// A use is recorded when it moves the end by at least this part of the time that a session may be idle.
const WORTH: u64 = 8;

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

/// How long a new session lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// When it ends at the latest.
    pub ends: Timestamp,
    /// For how long a use keeps it alive; none: it ends at its end and not before.
    pub idle_seconds: Option<u64>,
}

impl Times {
    /// From now on, as the machine's settings and the application's file say.
    pub fn of(settings: &SessionSettings, policy: &SessionPolicy) -> Self {
        let lifetime = policy.lifetime_seconds.unwrap_or(settings.lifetime_seconds);
        let idle = policy.idle_seconds.unwrap_or(settings.idle_seconds);
        Self { ends: after(Timestamp::now(), lifetime), idle_seconds: Some(idle) }
    }

    /// But not longer than until then.
    #[must_use]
    pub fn until(self, latest: Option<Timestamp>) -> Self {
        Self { ends: latest.map_or(self.ends, |latest| latest.min(self.ends)), ..self }
    }

    fn expires(&self) -> Timestamp {
        let idle = self.idle_seconds.map(|seconds| after(Timestamp::now(), seconds));
        idle.map_or(self.ends, |idle| idle.min(self.ends))
    }
}

fn after(moment: Timestamp, seconds: u64) -> Timestamp {
    Timestamp(moment.0.saturating_add(seconds.saturating_mul(1_000_000)))
}

/// The session that a call is on. To look at it is no use of it.
fn look_up(call: &Call) -> Result<Option<Session>, Denial> {
    let Some(Ok(id)) = call.id.as_deref().map(str::parse) else { return Ok(None) };
    not_over(&call.daemon, &id)
}

fn not_over(daemon: &Daemon, id: &SessionId) -> Result<Option<Session>, Denial> {
    let found = daemon.store.session(id)?;
    Ok(found.filter(|session| session.expires > Timestamp::now()))
}

/// A session that is not over, for who uses it: that keeps it alive.
pub fn live(daemon: &Daemon, id: &SessionId) -> Result<Option<Session>, Denial> {
    let found = not_over(daemon, id)?;
    if let Some(session) = &found {
        let expires = session.expires_if_used(Timestamp::now());
        let worth = session.idle_seconds.unwrap_or_default().saturating_mul(1_000_000 / WORTH);
        if expires.0 - session.expires.0 > worth {
            let (store, id) = (daemon.store.clone(), id.clone());
            // Nobody waits for this. If it was closed meanwhile it stays closed.
            tokio::spawn(async move {
                let change = Change::SessionExtended { id, expires };
                let _ = store.commit(change, Actor::daemon("use of a session")).await;
            });
        }
    }
    Ok(found)
}

/// When the login as the OS account was that made this session, seconds since 1970; none for other sessions, which
/// rest on no consent.
pub fn login_as_os_account(daemon: &Daemon, id: &SessionId) -> Result<Option<u64>, Denial> {
    let found = not_over(daemon, id)?.ok_or_else(Denial::not_found)?;
    Ok(matches!(found.how, Authentication::Os {}).then_some(found.opened.0 / 1_000_000))
}

/// Makes a session that ends at this time, used or not; its path is what the application is given.
pub async fn open(
    daemon: &Daemon,
    actor: Actor,
    application: ApplicationName,
    account: AccountName,
    how: Authentication,
    ends: Timestamp,
) -> Result<SessionId, Denial> {
    open_for(daemon, actor, application, account, how, Times { ends, idle_seconds: None }).await
}

/// Makes a session for the caller.
pub async fn open_for(
    daemon: &Daemon,
    actor: Actor,
    application: ApplicationName,
    account: AccountName,
    how: Authentication,
    times: Times,
) -> Result<SessionId, Denial> {
    let service_uid = actor.caller_uid;
    open_pinned(daemon, actor, service_uid, application, account, how, times).await
}

/// Makes a session that only this uid may use.
pub async fn open_pinned(
    daemon: &Daemon,
    actor: Actor,
    service_uid: u32,
    application: ApplicationName,
    account: AccountName,
    how: Authentication,
    times: Times,
) -> Result<SessionId, Denial> {
    let id = SessionId::from_random(random::bytes()?);
    let change = Change::SessionOpened {
        id: id.clone(),
        application,
        account,
        service_uid,
        how,
        expires: times.expires(),
        ends: Some(times.ends),
        idle_seconds: times.idle_seconds,
    };
    daemon.store.commit(change, actor).await?;
    Ok(id)
}

/// Ends all sessions of an account. What makes an account unusable, or sets its password, ends them by itself; this is
/// for what else a session rests on.
pub async fn end_all(
    daemon: &Daemon,
    actor: Actor,
    application: &ApplicationName,
    account: &AccountName,
    why: &str,
) -> Result<(), Denial> {
    // Most accounts have none: then there is nothing to record.
    if daemon.store.sessions(application, Some(account), &PageRequest::first(1))?.items.is_empty() {
        return Ok(());
    }
    let change = Change::SessionsEnded {
        application: application.clone(),
        account: account.clone(),
        reason: why.to_owned(),
    };
    daemon.store.commit(change, actor).await?;
    Ok(())
}

fn record(session: &Session) -> Record {
    let how = match &session.how {
        Authentication::Os {} => "os",
        Authentication::Vouched { .. } => "vouched",
        Authentication::Password { .. } => "password",
        Authentication::ActFor { .. } => "act-for",
    };
    let record = Record::new()
        .text("application", &session.application)
        .text("account", &session.account)
        .text("how", how)
        .with("opened", session.opened.0)
        .with("expires", session.expires.0)
        .with("ends", session.ends.0)
        .maybe("idle_seconds", session.idle_seconds);
    let known = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    match &session.how {
        Authentication::Vouched { issuer, subject } => {
            record.maybe("issuer", known(issuer)).maybe("subject", known(subject))
        }
        Authentication::ActFor { by, reason } => record.text("by", by).text("reason", reason),
        Authentication::Os {} | Authentication::Password { .. } => record,
    }
}

/// `Session.Get`.
pub async fn get(call: Call, (): ()) -> Result<Granted<(Record,)>, Denial> {
    let (grant, session) = call.authorize_object(|| look_up(&call)).await?;
    call.note(&About::application(Some(session.application.clone())).account(&session.account));
    let link = call.daemon.store.link(&session.application, &session.account)?;
    let record = record(&session)
        .text("path", session_path(&session.id))
        .maybe("os_user", link.map(|link| link.os.name.to_string()));
    Ok(grant.answer((record,)))
}

/// `Session.Extend`.
pub async fn extend(call: Call, (): ()) -> Result<Granted<()>, Denial> {
    let (grant, session) = call.authorize_object(|| look_up(&call)).await?;
    let expires = session.expires_if_used(Timestamp::now());
    let change = Change::SessionExtended { id: session.id, expires };
    call.daemon.store.commit(change, grant.actor()?).await?;
    Ok(grant.answer(()))
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

/// `Authentication.Sessions`.
pub async fn list(call: Call, (mut options,): (Options,)) -> Result<Granted<(Vec<Record>, String)>, Denial> {
    let application = options.application()?;
    let account: Option<AccountName> = options.name("account")?;
    let by = options.by()?;
    let request = page(options.page()?);
    options.finish()?;
    let mut about = About::application(application).by(by);
    about.account.clone_from(&account);
    let grant = call.authorize(about).await?;
    let application = grant.application()?.name.clone();
    let found = call.daemon.store.sessions(&application, account.as_ref(), &request)?;
    let acting = grant.actor()?.by.map(|by| by.account);
    let now = Timestamp::now();
    let shown = found.items.iter().filter(|session| session.expires > now).map(|session| {
        // An account that looks at others' sessions is not given what an application may take for a proof.
        let own = acting.as_ref().is_none_or(|acting| *acting == session.account);
        record(session).maybe("path", own.then(|| session_path(&session.id)))
    });
    let next = found.next.map(String::from).unwrap_or_default();
    Ok(grant.answer((shown.collect(), next)))
}

/// Closes sessions that are over, for as long as the daemon lives. Nothing depends on it being in time.
pub async fn sweep(store: Store) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let over = |session: &Session| session.expires <= Timestamp::now();
        close_those(&store, over, "expired", "close expired sessions").await;
    }
}

/// Ends every session that there is: the clock by which they end was set back.
pub async fn end_all_for_the_clock(store: &Store) {
    close_those(store, |_| true, "the machine's clock was set back", "look at the clock").await;
}

async fn close_those(
    store: &Store,
    meant: impl Fn(&Session) -> bool,
    reason: &'static str,
    task: &'static str,
) {
    let mut request = PageRequest::first(1000);
    while let Ok(page) = store.all_sessions(&request) {
        for session in page.items.into_iter().filter(&meant) {
            let change = Change::SessionClosed { id: session.id, reason: reason.into() };
            match store.commit(change, Actor::daemon(task)).await {
                // It ended meanwhile.
                Ok(_) | Err(StoreError::NotFound { .. }) => {}
                Err(_) => break,
            }
        }
        let Some(next) = page.next else { break };
        request.after = Some(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_applications_file_comes_before_the_machines_settings_and_neither_is_passed() {
        let settings = SessionSettings { lifetime_seconds: 100, idle_seconds: 10 };
        let now = Timestamp::now();
        let close = |moment: Timestamp, seconds: u64| moment.0.abs_diff(after(now, seconds).0) < 5_000_000;
        let times = Times::of(&settings, &SessionPolicy::default());
        assert!(close(times.ends, 100) && times.idle_seconds == Some(10) && close(times.expires(), 10));
        let policy = SessionPolicy { idle_seconds: Some(500), lifetime_seconds: Some(50) };
        let times = Times::of(&settings, &policy);
        assert!(close(times.ends, 50) && close(times.expires(), 50));
        assert!(close(times.until(Some(after(now, 20))).ends, 20));
        assert!(close(times.until(Some(after(now, 90))).ends, 50));
        let endless = SessionPolicy { idle_seconds: Some(u64::MAX), lifetime_seconds: Some(u64::MAX) };
        assert_eq!(Times::of(&settings, &endless).expires(), Timestamp(u64::MAX));
    }
}
