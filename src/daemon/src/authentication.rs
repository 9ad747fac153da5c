//! `.Authentication`: who a person is, without ever hearing a password.
//!
//! The client's end of a conversation goes straight on to the launcher. What comes back is who answered well, or
//! that nobody did; it is kept for a short while, for the one who began the conversation, and told once.

pub mod password;

use std::collections::HashMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deputy_core::application::{AuthenticationMethod, Mode, Trust};
use deputy_core::consent::GivenBy;
use deputy_core::job::OsIdentity;
use deputy_core::message::{ConverseRequest, LauncherReply, LauncherRequest, Purpose};
use deputy_core::{AccountName, ApplicationName, Code, Denial, Nonce, OsUserName};
use rustix::net::{AddressFamily, SocketType, sockopt};
use tokio::sync::watch;
use tokio::time::timeout;
use zbus::OwnedObjectPath;

use crate::authority::{About, Call, Granted};
use crate::bus::introspection::session_path;
use crate::bus::options::{Options, parse};
use crate::bus::record::Record;
use crate::daemon::Daemon;
use crate::directory::Registered;
use crate::launcher::{CONVERSATION, LauncherError};
use crate::sessions::Times;
use crate::store::{Actor, Authentication, LinkState, Timestamp};
use crate::{links, random, sessions};

/// How long `Finish` waits.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long an outcome is kept for who asks.
const KEPT: Duration = Duration::from_secs(120);

/// The most conversations that are remembered, those that have ended included.
const MAX_REMEMBERED: usize = 4096;

/// The method of this module that takes passwords, as records of refusals name it.
pub const PASSWORD_METHOD: &str = "Authentication.Password";

/// What the person who does not exist is called at the launcher, where every name takes the same path.
const NOBODY: &str = "unlinked";

/// What came of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    /// The owner of this OS account answered.
    Well(OsIdentity),
    /// Nobody did, or it could not be recorded.
    Ill(Denial),
}

/// A conversation that was begun.
#[derive(Debug, Clone)]
struct Begun {
    uid: u32,
    application: ApplicationName,
    account: AccountName,
    purpose: Purpose,
    outcome: watch::Receiver<Option<Outcome>>,
}

/// The conversations, by id.
#[derive(Debug, Default)]
pub struct Conversations(Mutex<HashMap<String, Begun>>);

impl Conversations {
    fn insert(&self, id: &str, begun: Begun) -> Result<(), Denial> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.len() >= MAX_REMEMBERED {
            return Err(Denial::new(Code::Busy, "conversations", "too many conversations were begun")
                .remedy("finish those that have ended, and try again"));
        }
        held.insert(id.to_owned(), begun);
        Ok(())
    }

    fn get(&self, id: &str) -> Option<Begun> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// Takes it out: of two who ask for the same outcome one is told.
    fn take(&self, id: &str) -> Option<Begun> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id)
    }
}

/// `Authentication.Begin`.
pub async fn begin(
    call: Call,
    (account, purpose, conversation, mut options): (String, String, zbus::OwnedFd, Options),
) -> Result<Granted<(String,)>, Denial> {
    let account: AccountName = parse("account", &account)?;
    let purpose = match purpose.as_str() {
        "login" => Purpose::Login,
        "link" => Purpose::Link,
        _ => return Err(Denial::invalid("a conversation's purpose is login or link")),
    };
    let os_user: Option<OsUserName> = options.name("os_user")?;
    let application = options.application()?;
    options.finish()?;
    let conversation = OwnedFd::from(conversation);
    check_socket(&conversation)?;
    let mut about = About::application(application).account(&account).os_user(os_user.as_ref());
    let mut grant = call.authorize(about.clone()).await?;
    let registered = Arc::clone(grant.application()?);
    about.application = Some(registered.name.clone());
    let daemon = Arc::clone(&call.daemon);
    let os_user = match purpose {
        Purpose::Login => {
            // The question is about links; this writes none.
            grant.no_question();
            login_target(&daemon, &registered, &account, os_user).await?
        }
        Purpose::Link => {
            call.ask_too(&mut grant, about).await?;
            let os_user = os_user.ok_or_else(|| Denial::invalid("to link, the option os_user is needed"))?;
            daemon.store.account(&registered.name, &account)?.ok_or_else(Denial::not_found)?;
            links::may_link(&daemon, &registered.name, &account, &os_user)?;
            os_user
        }
    };
    let actor = grant.actor()?;
    let place = daemon.limits.conversations.enter(call.caller.uid)?;
    let id = Nonce::from_random(random::bytes()?).as_str().to_owned();
    let (tell, outcome) = watch::channel(None);
    let begun = Begun {
        uid: call.caller.uid,
        application: registered.name.clone(),
        account: account.clone(),
        purpose,
        outcome,
    };
    daemon.conversations.insert(&id, begun)?;
    let request = ConverseRequest { purpose, application: registered.name.clone(), account, os_user };
    let (own_id, caller) = (id.clone(), call.caller.clone());
    tokio::spawn(async move {
        let outcome = converse(&daemon, request, conversation, actor).await;
        drop(place);
        // Nobody listens yet, usually: the value stays for who asks.
        let _ = tell.send(Some(outcome.clone()));
        tokio::time::sleep(KEPT).await;
        // A failure is recorded when it is told; one that nobody asks for is recorded here.
        if let Some(begun) = daemon.conversations.take(&own_id)
            && let Outcome::Ill(denial) = outcome
        {
            let about = About::application(Some(begun.application)).account(&begun.account);
            daemon.audit.denied("Authentication.Begin", &caller, false, &about, &denial);
        }
    });
    Ok(grant.answer((id,)))
}

/// The socket has to be of the sort that a conversation takes. It is only passed on: nothing is read or written here.
fn check_socket(socket: &OwnedFd) -> Result<(), Denial> {
    let wrong = || Denial::invalid("the conversation is not one end of an AF_UNIX SOCK_SEQPACKET pair");
    let kind = sockopt::socket_type(socket).map_err(|_| wrong())?;
    let family = sockopt::socket_domain(socket).map_err(|_| wrong())?;
    if kind == SocketType::SEQPACKET && family == AddressFamily::UNIX { Ok(()) } else { Err(wrong()) }
}

/// As whom a person has to prove to be for a login. An account that is not there or not linked goes the same way, to
/// a conversation that cannot end well: which accounts are linked is not told at a login page.
async fn login_target(
    daemon: &Daemon,
    registered: &Registered,
    account: &AccountName,
    asked: Option<OsUserName>,
) -> Result<OsUserName, Denial> {
    check_login(registered)?;
    if !registered.policy.authentication.contains(&AuthenticationMethod::Os) {
        return Err(Denial::new(
            Code::MethodNotAllowed,
            format!("applications.d/{}.toml: authentication", registered.name),
            "this application does not authenticate its accounts by the operating system",
        )
        .remedy("root can add \"os\" to the list"));
    }
    let linked = match daemon.store.link(&registered.name, account)? {
        // Its owner may have consented since. If the launcher cannot tell, the conversation will.
        Some(link) => links::refreshed(daemon, registered, link).await.ok(),
        None => None,
    };
    let named = linked.filter(|link| link.state == LinkState::Active).map(|link| link.os.name).or(asked);
    Ok(match named {
        Some(name) => name,
        None => OsUserName::new(account.as_str())
            .or_else(|_| OsUserName::new(NOBODY))
            .map_err(|error| Denial::internal(error.to_string()))?,
    })
}

/// Whether there is a login at all.
fn check_login(registered: &Registered) -> Result<(), Denial> {
    match registered.policy.mode {
        Mode::Login => Ok(()),
        Mode::SingleUser => Err(Denial::new(
            Code::MethodNotAllowed,
            format!("applications.d/{}.toml: mode", registered.name),
            "this application is for one person, and has no login",
        )
        .remedy("give the account's name for the subject")),
    }
}

/// Has the conversation held, and records what it gave.
async fn converse(daemon: &Daemon, request: ConverseRequest, socket: OwnedFd, actor: Actor) -> Outcome {
    let (application, account) = (request.application.clone(), request.account.clone());
    let purpose = request.purpose;
    let request = LauncherRequest::Converse(request);
    let channel = match daemon.launcher.request(&request, &[socket.as_fd()]).await {
        Ok(channel) => channel,
        Err(error) => return Outcome::Ill(error.into()),
    };
    // From here on the launcher's child alone holds it: when that ends, the client sees the end.
    drop(socket);
    let authenticated = match timeout(CONVERSATION, channel.reply()).await {
        Ok(Ok(Some(LauncherReply::Authenticated(done)))) if done.purpose == purpose => done,
        Ok(Ok(Some(_))) => return Outcome::Ill(LauncherError::Foreign.into()),
        Ok(Ok(None)) => return Outcome::Ill(LauncherError::Ended.into()),
        Ok(Err(error)) => return Outcome::Ill(error.into()),
        Err(_) => return Outcome::Ill(LauncherError::TimedOut.into()),
    };
    if purpose == Purpose::Link {
        let os = authenticated.os_account.clone();
        let expires = authenticated.expires.map(links::moment);
        let recorded =
            links::activate(daemon, actor, &application, &account, os, GivenBy::Owner, expires).await;
        if let Err(denial) = recorded {
            return Outcome::Ill(denial);
        }
    }
    Outcome::Well(authenticated.os_account)
}

/// `Authentication.Finish`.
pub async fn finish(call: Call, (id,): (String,)) -> Result<Granted<(Record,)>, Denial> {
    let grant = {
        let mut grant = call.authorize(About::default()).await?;
        grant.no_question();
        grant
    };
    let registered = Arc::clone(grant.application()?);
    let daemon = &call.daemon;
    let mine = |begun: &Begun| begun.uid == call.caller.uid && begun.application == registered.name;
    let mut begun = daemon.conversations.get(&id).filter(mine).ok_or_else(Denial::not_found)?;
    let mut about = About::application(Some(registered.name.clone())).account(&begun.account);
    call.note(&about);
    let ended =
        async { begun.outcome.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone()) };
    let outcome = timeout(PATIENCE, ended).await.map_err(|_| {
        Denial::new(Code::Conflict, "conversation", "the conversation has not ended")
            .remedy("wait for its last frame, then ask again")
    })?;
    let begun = daemon.conversations.take(&id).ok_or_else(Denial::not_found)?;
    let os = match outcome {
        Some(Outcome::Well(os)) => os,
        Some(Outcome::Ill(denial)) => return Err(denial),
        None => return Err(Denial::internal("the conversation's task is gone")),
    };
    about = about.os_user(Some(&os.name));
    call.note(&about);
    let record = Record::new()
        .text("purpose", begun.purpose.as_str())
        .text("account", &begun.account)
        .text("os_user", &os.name);
    if begun.purpose == Purpose::Link {
        return Ok(grant.answer((record,)));
    }
    // The link may have been removed while the person was typing.
    let link = daemon.store.link(&registered.name, &begun.account)?;
    if !link.is_some_and(|link| link.state == LinkState::Active && link.os == os) {
        return Err(Denial::authentication_failed());
    }
    let times = Times::of(&grant.snapshot.settings.sessions, &registered.policy.sessions);
    let opened = sessions::open_for(
        daemon,
        grant.actor()?,
        registered.name.clone(),
        begun.account,
        Authentication::Os {},
        times,
    )
    .await;
    // Whether the account is there and active is not told to who only knows the OS account's password.
    let session = opened.map_err(|denial| match denial.code {
        Code::AccountNotActive | Code::NotFound => Denial::authentication_failed(),
        _ => denial,
    })?;
    Ok(grant.answer((record.with("session", path(&session)?.into_inner()),)))
}

fn path(session: &deputy_core::SessionId) -> Result<OwnedObjectPath, Denial> {
    OwnedObjectPath::try_from(session_path(session)).map_err(|error| Denial::internal(error.to_string()))
}

/// `Authentication.Vouch`.
pub async fn vouch(
    call: Call,
    (account, mut options): (String, Options),
) -> Result<Granted<(OwnedObjectPath,)>, Denial> {
    let account: AccountName = parse("account", &account)?;
    let application = options.application()?;
    let issuer = options.free_text("issuer")?.unwrap_or_default();
    let subject = options.free_text("subject")?.unwrap_or_default();
    let expiry = options.moment("expiry")?;
    options.finish()?;
    let grant = call.authorize(About::application(application).account(&account)).await?;
    let registered = Arc::clone(grant.application()?);
    check_login(&registered)?;
    if registered.policy.trust != Trust::Application {
        return Err(Denial::new(
            Code::MethodNotAllowed,
            format!("applications.d/{}.toml: trust", registered.name),
            "this application's word is not enough: its accounts authenticate themselves",
        )
        .remedy("have the person log in, or let root set trust = \"application\""));
    }
    let daemon = &call.daemon;
    daemon.store.account(&registered.name, &account)?.ok_or_else(Denial::not_found)?;
    if expiry.is_some_and(|expiry| expiry <= Timestamp::now().0) {
        return Err(Denial::invalid("the expiry is over already"));
    }
    let times = Times::of(&grant.snapshot.settings.sessions, &registered.policy.sessions);
    let times = times.until(expiry.map(Timestamp));
    let how = Authentication::Vouched { issuer, subject };
    let session =
        sessions::open_for(daemon, grant.actor()?, registered.name.clone(), account, how, times).await?;
    let path = path(&session)?;
    Ok(grant.answer((path,)))
}
