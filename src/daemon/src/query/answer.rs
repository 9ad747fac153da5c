//! The answers.

use std::sync::Arc;

use deputy_core::account::Status;
use deputy_core::message::query::{MAX_SECRET, Query, QueryReply, Question, Standing};
use deputy_core::{AccountName, ApplicationName, Code, Denial, SessionId};
use zeroize::Zeroizing;

use super::tickets::Proved;
use crate::authentication::PASSWORD_METHOD;
use crate::authentication::password::{changed_meanwhile, check_age, check_method, prove};
use crate::authority::About;
use crate::bus::caller::Caller;
use crate::bus::introspection::session_path;
use crate::daemon::Daemon;
use crate::directory::Registered;
use crate::passwords::New;
use crate::passwords::secret::{MAX_BYTES, Secret};
use crate::sessions::{self, Times};
use crate::store::{Actor, Authentication, Change, LinkState, StoreError};

/// What records have for the name on the bus of who asked here.
const HERE: &str = "query.sock";

/// The most bytes of an origin.
const MAX_ORIGIN: usize = 256;

/// A question whose names are names, about an application that the peer may ask about.
struct Asked<'a> {
    daemon: &'a Daemon,
    uid: u32,
    registered: Arc<Registered>,
    account: AccountName,
    service: &'a str,
    origin: Option<String>,
}

/// Answers one question of this uid's.
pub async fn answer(daemon: &Daemon, uid: u32, query: &Query<'_>) -> Result<QueryReply, Denial> {
    let application: ApplicationName =
        query.application.parse().map_err(|_| Denial::invalid("the application's name is none"))?;
    let account: AccountName =
        query.account.parse().map_err(|_| Denial::invalid("the account's name is none"))?;
    let about = About::application(Some(application.clone())).account(&account);
    let registered = registered(daemon, uid, &application)?;
    let asked = Asked {
        daemon,
        uid,
        registered,
        account,
        service: query.service,
        origin: plain(query.origin, MAX_ORIGIN),
    };
    let answered = asked.answer(query.question).await;
    if let Err(denial) = &answered {
        asked.record(query.question, &about, denial);
    }
    answered
}

/// The application, if this uid may ask about it.
fn registered(daemon: &Daemon, uid: u32, application: &ApplicationName) -> Result<Arc<Registered>, Denial> {
    let snapshot = daemon.directory.snapshot();
    if uid != 0 && snapshot.of_uid(uid).is_none_or(|own| own.name != *application) {
        return Err(Denial::not_found());
    }
    snapshot.get(application).ok_or_else(Denial::not_found)?
}

/// A text of the service's, if it can be kept.
fn plain(text: &str, max: usize) -> Option<String> {
    let known = !text.is_empty() && text.len() <= max && !text.chars().any(char::is_control);
    known.then(|| text.to_owned())
}

impl Asked<'_> {
    async fn answer(&self, question: Question<'_>) -> Result<QueryReply, Denial> {
        match question {
            Question::Standing => self.standing(),
            Question::Authenticate { password } => self.authenticate(secret(password)?).await,
            Question::ChangePassword { old, new } => self.change(secret(old)?, secret(new)?).await,
            Question::OpenSession { ticket } => self.open(ticket).await,
            Question::CloseSession { session } => self.close(session).await,
        }
    }

    /// Where the account stands. What passwords are is not asked about, so nothing is computed.
    fn standing(&self) -> Result<QueryReply, Denial> {
        let store = &self.daemon.store;
        let (application, account) = (&self.registered.name, &self.account);
        let record = store.account(application, account)?.ok_or_else(Denial::not_found)?;
        let fact = store.password(application, account)?;
        let link = store.link(application, account)?;
        Ok(QueryReply::Standing(Standing {
            status: record.status,
            role: record.role,
            must_change: fact.is_some_and(|fact| check_age(&self.registered, &fact).is_err()),
            link: link.filter(|link| link.state == LinkState::Active).map(|link| link.os),
        }))
    }

    async fn authenticate(&self, password: Secret) -> Result<QueryReply, Denial> {
        check_method(&self.registered)?;
        let proved =
            prove(self.daemon, &self.registered, &self.account, password, self.origin.clone()).await?;
        self.right(proved.1.generation)
    }

    async fn change(&self, old: Secret, new: Secret) -> Result<QueryReply, Denial> {
        check_method(&self.registered)?;
        if new.bytes().len() > MAX_BYTES {
            return Err(Denial::invalid(format!("a password has at most {MAX_BYTES} bytes")));
        }
        let (record, fact) =
            prove(self.daemon, &self.registered, &self.account, old, self.origin.clone()).await?;
        let new = New {
            password: &new,
            temporary: false,
            replaces: Some(fact.generation),
            policy: Some(&self.registered.policy.passwords),
        };
        let set = self.daemon.passwords.set(&self.daemon.store, &record, new, self.actor("change"));
        self.right(set.await.map_err(changed_meanwhile)?)
    }

    /// The answer where a password was right.
    fn right(&self, generation: String) -> Result<QueryReply, Denial> {
        let proved = Proved {
            uid: self.uid,
            application: self.registered.name.clone(),
            account: self.account.clone(),
            generation,
        };
        Ok(QueryReply::Right { ticket: self.daemon.tickets.give(proved)? })
    }

    async fn open(&self, ticket: &str) -> Result<QueryReply, Denial> {
        let (daemon, application, account) = (self.daemon, &self.registered.name, &self.account);
        let how = match daemon.tickets.take(ticket, self.uid, application, account) {
            Some(proved) => {
                let fact = daemon.store.password(application, account)?;
                let fact = fact.filter(|fact| fact.generation == proved.generation);
                check_age(&self.registered, &fact.ok_or_else(Denial::authentication_failed)?)?;
                Authentication::Password { generation: proved.generation }
            }
            // Root can be anybody here anyway: what it authenticated by other means is its word.
            None if self.uid == 0 && ticket.is_empty() => Authentication::Vouched {
                issuer: "pam".to_owned(),
                subject: plain(self.service, 64).unwrap_or_default(),
            },
            None => return Err(Denial::authentication_failed()),
        };
        let record = daemon.store.account(application, account)?;
        if record.is_none_or(|record| record.status != Status::Active) {
            return Err(Denial::authentication_failed());
        }
        // Only the application uses it; whoever asked need not be it.
        let Some(service_uid) = self.registered.service_uid else {
            return Err(Denial::new(
                Code::ApplicationInvalid,
                format!("applications.d/{application}.toml: service_user"),
                "nobody speaks for the application, so nobody could use the session",
            ));
        };
        let settings = daemon.directory.snapshot();
        let times = Times::of(&settings.settings.sessions, &self.registered.policy.sessions);
        let (name, of) = (application.clone(), account.clone());
        let opened =
            sessions::open_pinned(daemon, self.actor("session"), service_uid, name, of, how, times).await;
        let id = opened.map_err(changed_meanwhile)?;
        Ok(QueryReply::Opened { session: session_path(&id) })
    }

    /// Ends a session of this account. One that is over already was ended.
    async fn close(&self, session: &str) -> Result<QueryReply, Denial> {
        let id = session.rsplit('/').next().and_then(|id| id.parse::<SessionId>().ok());
        let id = id.filter(|id| session_path(id) == session).ok_or_else(Denial::not_found)?;
        let Some(found) = self.daemon.store.session(&id)? else { return Ok(QueryReply::Done) };
        if found.application != self.registered.name || found.account != self.account {
            return Err(Denial::not_found());
        }
        let change = Change::SessionClosed { id, reason: "closed by PAM".into() };
        match self.daemon.store.commit(change, self.actor("session")).await {
            Ok(_) | Err(StoreError::NotFound { .. }) => Ok(QueryReply::Done),
            Err(error) => Err(error.into()),
        }
    }

    fn actor(&self, what: &str) -> Actor {
        let name = &self.registered.name;
        let rule =
            if self.uid == 0 { "uid 0".into() } else { format!("applications.d/{name}.toml: service_user") };
        Actor {
            caller_uid: self.uid,
            bus_name: None,
            application: (self.uid != 0).then(|| name.clone()),
            by: None,
            action: format!("PAM {what}"),
            rule: Some(rule),
        }
    }

    /// Records a refusal. A wrong password is the same fact here as on the bus, and counts the same after a restart.
    /// That somebody is no account is not recorded: a service asks about everybody.
    fn record(&self, question: Question<'_>, about: &About, denial: &Denial) {
        let method = match question {
            Question::Standing => return,
            Question::Authenticate { .. } | Question::ChangePassword { .. } => PASSWORD_METHOD,
            Question::OpenSession { .. } | Question::CloseSession { .. } => "PAM session",
        };
        let caller = Caller { uid: self.uid, bus_name: HERE.into() };
        self.daemon.audit.denied(method, &caller, false, about, denial);
    }
}

fn secret(bytes: &[u8]) -> Result<Secret, Denial> {
    if bytes.len() > MAX_SECRET {
        return Err(Denial::invalid("a password in a question is longer than any can be"));
    }
    Ok(Secret::new(Zeroizing::new(bytes.to_vec())))
}
