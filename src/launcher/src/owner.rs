//! What the owner of an OS account says about links onto it, in his own login.
//!
//! Whose account is meant is the peer's uid, as the kernel gives it. A job of Deputy's has that uid too, so processes
//! inside the job cgroups are refused: else an application could give itself the consent it lacks.

use deputy_core::consent::GivenBy;
use deputy_core::denial::{Code, Denial};
use deputy_core::ids::OsUid;
use deputy_core::message::{Offer, OwnerReply, OwnerRequest};
use deputy_core::names::{AccountName, ApplicationName};
use deputy_core::policy::identity;
use deputy_core::settings::Settings;
use deputy_sys::{accounts, cgroup};
use deputy_wire::Peer;

use crate::request::withdrawn;
use crate::rules::Rules;
use crate::{consents, offers};

/// Answers the peer about his own OS account.
pub fn answer(request: OwnerRequest, peer: Peer) -> Result<OwnerReply, Denial> {
    let uid = OsUid::new(peer.uid).ok_or_else(|| {
        Denial::new(Code::OsAccountReserved, "owner", "root and reserved uids own no OS account of this kind")
            .remedy("as root use: deputyctl consent grant")
    })?;
    match request {
        OwnerRequest::List { after } => {
            consents::page(after.as_deref(), |consent| consent.os_account.uid == uid)
                .map(OwnerReply::Consents)
        }
        OwnerRequest::Describe { code } => offers::find(&code, uid).map(|offer| {
            OwnerReply::Offer(Offer {
                application: offer.application,
                account: offer.account,
                expires: offer.expires,
            })
        }),
        OwnerRequest::Give { code } => {
            let offer = offers::find(&code, uid)?;
            let rules = Rules::read(&offer.application)?;
            rules.pinned_target(&offer.os_account)?;
            let given_by = GivenBy::Owner;
            consents::give(
                &rules,
                &offer.account,
                &offer.os_account,
                given_by,
                peer.uid,
                offer.consent_expires,
            )?;
            offers::forget(&offer)?;
            Ok(OwnerReply::Done)
        }
        OwnerRequest::Renew { application, account } => renew(&application, &account, uid, peer),
        OwnerRequest::Revoke { application, account, end_jobs } => {
            // The owner is whoever has the uid now; his name does not matter for taking away.
            accounts::by_uid(peer.uid)
                .map_err(|error| Denial::internal(error.to_string()))?
                .as_ref()
                .map(identity)
                .transpose()?;
            let rule_would_give = would_be_given(&application, &account, uid);
            if !rule_would_give && !consents::is_there(&application, &account, uid) {
                return Err(Denial::not_found());
            }
            let removed = consents::withdraw(&application, &account, uid, peer.uid, true)?;
            if !removed && !rule_would_give {
                return Err(Denial::not_found());
            }
            Ok(OwnerReply::Withdrawn(withdrawn(&application, &account, uid, removed, end_jobs)))
        }
    }
}

/// Lets a consent hold as long as one given now. What was revoked is not there to be renewed, and what is for another
/// identity than the owner's present one is not his to renew.
fn renew(
    application: &ApplicationName,
    account: &AccountName,
    uid: OsUid,
    peer: Peer,
) -> Result<OwnerReply, Denial> {
    let consent = consents::find(application, account, uid)?.ok_or_else(Denial::not_found)?;
    let rules = Rules::read(application)?;
    match consent.check(&consent.os_account, rules.service_uid, consents::now()) {
        Err(denial) if denial.code != Code::ConsentExpired => return Err(denial),
        _ => {}
    }
    rules.pinned_target(&consent.os_account)?;
    let renewed = consents::give(&rules, account, &consent.os_account, GivenBy::Owner, peer.uid, None)?;
    Ok(OwnerReply::Renewed { expires: renewed.expires })
}

/// Whether a rule of root's would give this link onto the peer at its next use. Only then is there something to take
/// back where no consent is: else anybody could fill the disk with revocations of links that nobody ever made.
fn would_be_given(application: &ApplicationName, account: &AccountName, uid: OsUid) -> bool {
    let own = accounts::by_uid(uid.raw()).ok().flatten();
    let Some(own) = own.and_then(|entry| identity(&entry).ok()) else { return false };
    Rules::read(application).is_ok_and(|rules| consents::rule_gives(&rules, account, &own))
}

/// Refuses a peer that is inside a job, or of which that cannot be told. To be asked as soon as the peer is known: its
/// pid could be another process's later.
pub fn refuse_jobs(settings: &Settings, peer: Peer) -> Result<(), Denial> {
    let inside = cgroup::contains(&settings.executor.local.cgroup, peer.pid).map_err(|error| {
        Denial::new(
            Code::InsideJob,
            "owner",
            format!("it cannot be told whether the caller is a job: {error}"),
        )
        .remedy("call again from a login of yours")
    })?;
    if inside {
        return Err(Denial::new(Code::InsideJob, "owner", "a job may not give, list or revoke consent")
            .remedy("call from a login of yours, not from a job of an application"));
    }
    Ok(())
}
