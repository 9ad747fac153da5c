//! `.Links`: which OS account an account is linked to.
//!
//! The ledger remembers what was asked for and what became of it. Whether a link may be used is decided by the
//! launcher's children, from the consent that they keep: what is said here gives nobody anything.

use deputy_core::consent::GivenBy;
use deputy_core::job::OsIdentity;
use deputy_core::message::{
    ConsentRequest, ExamineRequest, LauncherReply, LauncherRequest, LinkState as Asked, WithdrawRequest,
};
use deputy_core::{AccountName, ApplicationName, Code, Denial, Finding, OsUid, OsUserName, Severity};

use crate::accounts::page;
use crate::authority::{About, Call, Granted, Ground, Owned};
use crate::bus::options::{Options, parse};
use crate::bus::record::{Record, findings};
use crate::daemon::Daemon;
use crate::directory::Registered;
use crate::launcher::{ANSWER, LauncherError};
use crate::store::{Actor, Change, Link, LinkState, Page, Scope, StoreError, Timestamp};

impl Owned for Link {
    fn application(&self) -> &ApplicationName {
        &self.application
    }
    fn owner(&self) -> Option<u32> {
        Some(self.os.uid.raw())
    }
}

/// A moment of the launcher's, in seconds, as the ledger has it.
pub fn moment(seconds: u64) -> Timestamp {
    Timestamp(seconds.saturating_mul(1_000_000))
}

/// `Links.Check`.
pub async fn check(
    call: Call,
    (account, os_user, mut options): (String, String, Options),
) -> Result<Granted<(Vec<Record>,)>, Denial> {
    let account: AccountName = parse("account", &account)?;
    let os_user: OsUserName = parse("os_user", &os_user)?;
    let about = About::application(options.application()?).account(&account).os_user(Some(&os_user));
    options.finish()?;
    let grant = call.authorize(about).await?;
    let application = grant.application()?.name.clone();
    let daemon = &call.daemon;
    let mut found = Vec::new();
    if daemon.store.account(&application, &account)?.is_none() {
        found.push(
            Finding::new("account-missing", Severity::Error, "the application has no such account")
                .remedy("create the account first"),
        );
    }
    let pinned = daemon.store.link(&application, &account)?.map(|link| link.os);
    let pinned = pinned.filter(|os| os.name == os_user);
    let request = LauncherRequest::Examine(ExamineRequest { application, account, os_user, pinned });
    match daemon.launcher.ask(&request, &[], ANSWER).await? {
        LauncherReply::Findings(more) => found.extend(more),
        _ => return Err(LauncherError::Foreign.into()),
    }
    Ok(grant.answer((findings(&found),)))
}

/// `Links.Request`.
pub async fn request(
    call: Call,
    (account, os_user, mut options): (String, String, Options),
) -> Result<Granted<(String, String)>, Denial> {
    let account: AccountName = parse("account", &account)?;
    let os_user: OsUserName = parse("os_user", &os_user)?;
    let mut about = About::application(options.application()?).account(&account).os_user(Some(&os_user));
    options.finish()?;
    let mut grant = call.authorize(about.clone()).await?;
    let registered = grant.application()?.clone();
    about.application = Some(registered.name.clone());
    call.ask_too(&mut grant, about).await?;
    let daemon = &call.daemon;
    let application = &registered.name;
    daemon.store.account(application, &account)?.ok_or_else(Denial::not_found)?;
    may_link(daemon, application, &account, &os_user)?;
    let (os, state) = ask(daemon, application, &account, &os_user).await?;
    let link = record(daemon, grant.actor()?, &registered, &account, os, state).await?;
    let code = link.code.map(String::from).unwrap_or_default();
    Ok(grant.answer((link.state.as_str().to_owned(), code)))
}

/// An account has one link at a time; to another OS account it has to be unlinked first.
pub fn may_link(
    daemon: &Daemon,
    application: &ApplicationName,
    account: &AccountName,
    os_user: &OsUserName,
) -> Result<(), Denial> {
    match daemon.store.link(application, account)? {
        Some(link)
            if matches!(link.state, LinkState::Active | LinkState::Waiting) && link.os.name != *os_user =>
        {
            Err(Denial::new(Code::Conflict, "link", "the account has a link to another OS account")
                .remedy("remove that link first"))
        }
        _ => Ok(()),
    }
}

/// Asks the launcher for a link. Asking again for one that waits gives the same code while it lives.
async fn ask(
    daemon: &Daemon,
    application: &ApplicationName,
    account: &AccountName,
    os_user: &OsUserName,
) -> Result<(OsIdentity, Asked), Denial> {
    let request = LauncherRequest::RequestLink(ConsentRequest {
        application: application.clone(),
        account: account.clone(),
        os_user: os_user.clone(),
        expires: None,
    });
    match daemon.launcher.ask(&request, &[], ANSWER).await? {
        LauncherReply::Link { os_account, state } => Ok((os_account, state)),
        _ => Err(LauncherError::Foreign.into()),
    }
}

/// Brings the ledger to what the launcher says.
async fn record(
    daemon: &Daemon,
    actor: Actor,
    registered: &Registered,
    account: &AccountName,
    os: OsIdentity,
    state: Asked,
) -> Result<Link, Denial> {
    let application = &registered.name;
    match state {
        Asked::Active => {
            supersede(daemon, registered, account, |old| old.os == os).await?;
            let given_by = given_by(registered, account, &os.name);
            activate(daemon, actor, application, account, os, given_by, None).await?;
        }
        Asked::Waiting { code, expires } => {
            let same = |old: &Link| {
                old.state == LinkState::Waiting && old.os == os && old.code.as_ref() == Some(&code)
            };
            if !supersede(daemon, registered, account, same).await? {
                let change = Change::LinkRequested {
                    application: application.clone(),
                    account: account.clone(),
                    os,
                    code: Some(code),
                    expires: Some(moment(expires)),
                };
                daemon.store.commit(change, actor).await?;
            }
        }
    }
    daemon.store.link(application, account)?.ok_or_else(Denial::not_found)
}

/// Whether the link in the ledger is the same as what the launcher says; if it is in the way of that, it is moved out
/// of it first.
async fn supersede(
    daemon: &Daemon,
    registered: &Registered,
    account: &AccountName,
    same: impl Fn(&Link) -> bool,
) -> Result<bool, Denial> {
    let Some(old) = daemon.store.link(&registered.name, account)? else { return Ok(false) };
    if same(&old) {
        return Ok(true);
    }
    let (application, account) = (old.application, old.account);
    let change = match old.state {
        // The code is not good any more, or was for an OS account that has changed since.
        LinkState::Waiting => Change::LinkExpired { application, account },
        // The launcher's children do not count on the consent that the ledger still counts on.
        LinkState::Active => Change::LinkRevoked { application, account },
        LinkState::Stale | LinkState::Expired | LinkState::Revoked => return Ok(false),
    };
    daemon.store.commit(change, Actor::daemon("the launcher knows better")).await?;
    Ok(false)
}

/// On whose word a link that was asked for is active: the launcher tells that it is, and the application's rule tells
/// whether the rule gives it; otherwise it was a person.
fn given_by(registered: &Registered, account: &AccountName, os_user: &OsUserName) -> GivenBy {
    let rule = registered.policy.link.as_ref().and_then(|rule| rule.os_user(account));
    if rule.as_ref() == Some(os_user) { GivenBy::Policy } else { GivenBy::Owner }
}

/// Records that a link is active; that it is so already is no mistake.
pub async fn activate(
    daemon: &Daemon,
    actor: Actor,
    application: &ApplicationName,
    account: &AccountName,
    os: OsIdentity,
    given_by: GivenBy,
    expires: Option<Timestamp>,
) -> Result<(), Denial> {
    let change = Change::LinkActivated {
        application: application.clone(),
        account: account.clone(),
        os: os.clone(),
        given_by,
        expires,
    };
    match daemon.store.commit(change, actor).await {
        Ok(_) => Ok(()),
        Err(error @ StoreError::Conflict { .. }) => {
            let link = daemon.store.link(application, account)?;
            let is_so = link.is_some_and(|link| link.state == LinkState::Active && link.os == os);
            if is_so { Ok(()) } else { Err(error.into()) }
        }
        Err(error) => Err(error.into()),
    }
}

/// The link of an account as it can be used now: one that waits is asked for again, because its owner may have
/// consented since.
pub async fn usable(daemon: &Daemon, registered: &Registered, account: &AccountName) -> Result<Link, Denial> {
    let link = daemon.store.link(&registered.name, account)?.ok_or_else(not_linked)?;
    let link = refreshed(daemon, registered, link).await?;
    let denial = match link.state {
        LinkState::Active => return Ok(link),
        LinkState::Waiting => Denial::new(Code::NoConsent, "link", "the link waits for its owner's consent")
            .remedy("the owner gives it in his own login: deputyctl consent give CODE"),
        LinkState::Stale => {
            Denial::new(Code::LinkStale, "link", "the OS account is no longer what was linked")
                .remedy("if it is still the same person, link the account again")
        }
        LinkState::Expired => {
            Denial::new(Code::ConsentExpired, "link", "the consent to this link has expired")
                .remedy("link the account again")
        }
        LinkState::Revoked => Denial::new(Code::NoConsent, "link", "the consent to this link was taken back")
            .remedy("link the account again, if its owner agrees"),
    };
    Err(denial)
}

/// A waiting link, asked for again.
pub async fn refreshed(daemon: &Daemon, registered: &Registered, link: Link) -> Result<Link, Denial> {
    if link.state != LinkState::Waiting {
        return Ok(link);
    }
    let (os, state) = ask(daemon, &registered.name, &link.account, &link.os.name).await?;
    record(daemon, Actor::daemon("look at a waiting link again"), registered, &link.account, os, state).await
}

/// The account has no link.
pub fn not_linked() -> Denial {
    Denial::new(Code::NotLinked, "link", "the account is linked to no OS account")
        .remedy("link it: deputyctl link add, or link request")
}

/// Records what a refusal of the launcher's says about a link.
pub async fn learn(daemon: &Daemon, link: &Link, denial: &Denial) {
    let (application, account) = (link.application.clone(), link.account.clone());
    let change = match denial.code {
        Code::LinkStale => Change::LinkStale { application, account, reason: denial.message.clone() },
        Code::NoConsent => Change::LinkRevoked { application, account },
        Code::ConsentExpired => Change::LinkExpired { application, account },
        _ => return,
    };
    if let Err(error) = daemon.store.commit(change, Actor::daemon("the launcher refused")).await {
        tracing::warn!(%error, "a link's state could not be recorded");
    }
}

/// `Links.Unlink`.
pub async fn unlink(call: Call, (account, mut options): (String, Options)) -> Result<Granted<()>, Denial> {
    let account: AccountName = parse("account", &account)?;
    let asked = options.application()?;
    options.finish()?;
    let own = call.daemon.directory.snapshot().of_uid(call.caller.uid).map(|own| own.name.clone());
    let application = match (asked, own) {
        (Some(asked), _) => asked,
        (None, Some(own)) => own,
        (None, None) => return Err(Denial::invalid("the option application is needed")),
    };
    let (grant, link) = call.authorize_object(|| Ok(call.daemon.store.link(&application, &account)?)).await?;
    call.note(&About::application(Some(application.clone())).account(&account).os_user(Some(&link.os.name)));
    let request = LauncherRequest::Withdraw(WithdrawRequest {
        application: application.clone(),
        account: account.clone(),
        os_account: link.os,
    });
    match call.daemon.launcher.ask(&request, &[], ANSWER).await {
        // There was none: the link is removed all the same.
        Ok(LauncherReply::Done) => {}
        Err(LauncherError::Denied(denial)) if matches!(denial.code, Code::NotFound | Code::NoConsent) => {}
        Ok(_) => return Err(LauncherError::Foreign.into()),
        Err(error) => return Err(error.into()),
    }
    let change = Change::LinkRemoved { application, account };
    match call.daemon.store.commit(change, grant.actor()?).await {
        Ok(_) | Err(StoreError::NotFound { .. }) => Ok(grant.answer(())),
        Err(error) => Err(error.into()),
    }
}

/// `Links.List`.
pub async fn list(call: Call, (mut options,): (Options,)) -> Result<Granted<(Vec<Record>, String)>, Denial> {
    let application = options.application()?;
    let account: Option<AccountName> = options.name("account")?;
    let os_user: Option<OsUserName> = options.name("os_user")?;
    let state = options.text("state")?.map(|text| link_state(&text)).transpose()?;
    let request = page(options.page()?);
    options.finish()?;
    let grant = call.authorize_any(About::application(application)).await?;
    let store = &call.daemon.store;
    let found: Page<Link> = match (grant.ground, grant.maybe_application()) {
        (Ground::Owner, _) => match OsUid::new(call.caller.uid) {
            Some(uid) => store.links(&Scope::OsUid(uid), state, &request)?,
            None => Page { items: Vec::new(), next: None },
        },
        (_, Some(registered)) => match &account {
            Some(account) => {
                // Who looks at one link wants to know whether its owner has consented since.
                if let Some(link) = store.link(&registered.name, account)?
                    && let Err(denial) = refreshed(&call.daemon, registered, link).await
                {
                    tracing::info!(code = %denial.code, "a waiting link could not be asked for again");
                }
                store.links(&Scope::Account(registered.name.clone(), account.clone()), state, &request)?
            }
            None => store.links(&Scope::Application(registered.name.clone()), state, &request)?,
        },
        (_, None) => store.all_links(state, &request)?,
    };
    let wanted = |link: &&Link| {
        os_user.as_ref().is_none_or(|name| link.os.name == *name)
            && account.as_ref().is_none_or(|name| link.account == *name)
    };
    let records = found.items.iter().filter(wanted).map(Record::from).collect();
    Ok(grant.answer((records, found.next.map(String::from).unwrap_or_default())))
}

fn link_state(text: &str) -> Result<LinkState, Denial> {
    [LinkState::Waiting, LinkState::Active, LinkState::Stale, LinkState::Expired, LinkState::Revoked]
        .into_iter()
        .find(|state| state.as_str() == text)
        .ok_or_else(|| Denial::invalid("a link's state is waiting, active, stale, expired or revoked"))
}

impl From<&Link> for Record {
    fn from(link: &Link) -> Self {
        Record::new()
            .text("application", &link.application)
            .text("account", &link.account)
            .text("os_user", &link.os.name)
            .with("uid", link.os.uid.raw())
            .with("gid", link.os.gid.raw())
            .text("state", link.state.as_str())
            .maybe("reason", link.reason.clone())
            .maybe("given_by", link.given_by.map(|by| by.as_str().to_owned()))
            .maybe("code", link.code.clone().map(String::from))
            .with("requested", link.requested.0)
            .with("changed", link.changed.0)
            .maybe("expires", link.expires.map(|at| at.0))
    }
}
