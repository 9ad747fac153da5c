//! `.Links`: which OS account an account is linked to.
//!
//! The ledger remembers what was asked for and what became of it. Whether a link may be used is decided by the
//! launcher's children, from the consent that they keep: what is said here gives nobody anything.

mod bulk;
mod calls;
mod pool;

use deputy_core::consent::GivenBy;
use deputy_core::job::OsIdentity;
use deputy_core::message::{Asking, ConsentRequest, LauncherReply, LauncherRequest, LinkState as Asked};
use deputy_core::{AccountName, ApplicationName, Code, Denial, OsUserName};

use crate::authority::Owned;
use crate::bus::record::Record;
use crate::daemon::Daemon;
use crate::directory::Registered;
use crate::launcher::{ANSWER, LauncherError};
use crate::store::{Actor, Change, Link, LinkState, StoreError, Timestamp};

pub use bulk::{check_all, import};
pub use calls::{check, list, request, unlink};

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

/// An account has one link at a time; to another OS account it has to be unlinked first, or linked anew on purpose.
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
            Err(Denial::new(Code::Conflict, "link", "the account has a link to another OS account").remedy(
                "remove that link first; or link it anew (option relink), which its projects do not notice",
            ))
        }
        _ => Ok(()),
    }
}

/// Asks the launcher for a link. Asking again for one that waits gives the same code while it lives.
pub async fn ask(
    daemon: &Daemon,
    application: &ApplicationName,
    account: &AccountName,
    os_user: &OsUserName,
    asking: Asking,
) -> Result<(OsIdentity, Asked), Denial> {
    let request = LauncherRequest::RequestLink(ConsentRequest {
        application: application.clone(),
        account: account.clone(),
        os_user: os_user.clone(),
        expires: None,
        asking,
    });
    match daemon.launcher.ask(&request, &[], ANSWER).await? {
        LauncherReply::Link { os_account, state } => Ok((os_account, state)),
        _ => Err(LauncherError::Foreign.into()),
    }
}

/// Brings the ledger to what the launcher says.
pub async fn record(
    daemon: &Daemon,
    actor: Actor,
    application: &ApplicationName,
    account: &AccountName,
    os: OsIdentity,
    state: Asked,
) -> Result<Link, Denial> {
    match state {
        Asked::Active { given_by, expires, .. } => {
            supersede(daemon, application, account, |old| old.os == os).await?;
            activate(daemon, actor, application, account, os, given_by, expires.map(moment)).await?;
        }
        Asked::Waiting { code, expires } => {
            let same = |old: &Link| {
                old.state == LinkState::Waiting && old.os == os && old.code.as_ref() == Some(&code)
            };
            if !supersede(daemon, application, account, same).await? {
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
    application: &ApplicationName,
    account: &AccountName,
    same: impl Fn(&Link) -> bool,
) -> Result<bool, Denial> {
    let Some(old) = daemon.store.link(application, account)? else { return Ok(false) };
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

/// Records that a link is active. That it is so already is no mistake; that it holds for another time than the ledger
/// says is recorded.
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
    let error = match daemon.store.commit(change, actor.clone()).await {
        Ok(_) => return Ok(()),
        Err(error @ StoreError::Conflict { .. }) => error,
        Err(error) => return Err(error.into()),
    };
    let link = daemon.store.link(application, account)?;
    let link = link.filter(|link| link.state == LinkState::Active && link.os == os);
    match link {
        None => Err(error.into()),
        Some(link) if link.expires == expires && link.given_by == Some(given_by) => Ok(()),
        Some(_) => {
            let (application, account) = (application.clone(), account.clone());
            let change = Change::LinkRenewed { application, account, given_by, expires };
            daemon.store.commit(change, actor).await?;
            Ok(())
        }
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
                .remedy("its owner renews it (deputyctl consent renew), or link the account again")
        }
        LinkState::Revoked => Denial::new(Code::NoConsent, "link", "the consent to this link was taken back")
            .remedy("link the account again, if its owner agrees"),
    };
    Err(denial)
}

/// A link that waits or has expired, asked for again: its owner may have consented, or renewed, since. One that is
/// stale or was revoked is never repaired by itself.
pub async fn refreshed(daemon: &Daemon, registered: &Registered, link: Link) -> Result<Link, Denial> {
    let asking = match link.state {
        LinkState::Waiting => Asking::Link,
        LinkState::Expired => Asking::Look,
        LinkState::Active | LinkState::Stale | LinkState::Revoked => return Ok(link),
    };
    let (os, state) = match ask(daemon, &registered.name, &link.account, &link.os.name, asking).await {
        Ok(found) => found,
        Err(denial) if link.state == LinkState::Expired && denial.code != Code::LauncherUnavailable => {
            return Ok(link);
        }
        Err(denial) => return Err(denial),
    };
    if link.state == LinkState::Expired && os != link.os {
        return Ok(link);
    }
    record(daemon, Actor::daemon("look at a link again"), &registered.name, &link.account, os, state).await
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
    // What was learned about a link that has moved on meanwhile is not about the one that is there now.
    let is_there = |now: &Link| now.os == link.os && now.state == LinkState::Active;
    if !daemon.store.link(&link.application, &link.account).ok().flatten().is_some_and(|now| is_there(&now)) {
        return;
    }
    if let Err(error) = daemon.store.commit(change, Actor::daemon("the launcher refused")).await {
        tracing::warn!(%error, "a link's state could not be recorded");
    }
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
