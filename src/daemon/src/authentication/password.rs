//! `Authentication.Password`: an account proves itself by a password that Deputy keeps.
//!
//! An account that is not there, not active, or without a password, and a wrong password: one answer, one path, and no
//! sooner than the same time.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deputy_core::account::Status;
use deputy_core::application::{AuthenticationMethod, PasswordPolicy};
use deputy_core::{AccountName, Code, Denial};
use zbus::OwnedObjectPath;

use super::path;
use crate::authority::{About, Call, Granted};
use crate::bus::options::{Options, parse};
use crate::daemon::Daemon;
use crate::directory::Registered;
use crate::passwords::New;
use crate::passwords::secret::Secret;
use crate::sessions::{self, Times};
use crate::store::{Account, Authentication, PasswordFact, Timestamp};

/// Microseconds of a day.
const DAY: u64 = 24 * 3600 * 1_000_000;

/// `Authentication.Password`.
pub async fn password(
    call: Call,
    (account, password, mut options): (String, zbus::OwnedFd, Options),
) -> Result<Granted<(OwnedObjectPath,)>, Denial> {
    let account: AccountName = parse("account", &account)?;
    let application = options.application()?;
    let origin = options.free_text("origin")?;
    let new = options.descriptor("new_password")?;
    options.finish()?;
    let grant = call.authorize(About::application(application).account(&account)).await?;
    let registered = Arc::clone(grant.application()?);
    call.note(&About::application(Some(registered.name.clone())).account(&account));
    check_method(&registered)?;
    let daemon = &call.daemon;
    let password = read(daemon, call.caller.uid, password.into()).await?;
    let new = match new {
        Some(new) => Some(read(daemon, call.caller.uid, new).await?),
        None => None,
    };
    let (record, fact) = prove(daemon, &registered, &account, password, origin).await?;
    let generation = if let Some(new) = new {
        let new = New {
            password: &new,
            temporary: false,
            replaces: Some(fact.generation),
            policy: Some(&registered.policy.passwords),
        };
        let set = daemon.passwords.set(&daemon.store, &record, new, grant.actor()?).await;
        set.map_err(changed_meanwhile)?
    } else {
        check_age(&registered, &fact)?;
        fact.generation
    };
    let how = Authentication::Password { generation };
    let times = Times::of(&grant.snapshot.settings.sessions, &registered.policy.sessions);
    let opened =
        sessions::open_for(daemon, grant.actor()?, registered.name.clone(), account, how, times).await;
    let path = path(&opened.map_err(changed_meanwhile)?)?;
    Ok(grant.answer((path,)))
}

/// Who an account is, proved by its password: one try, which waits for earlier wrong ones, costs the same whatever is
/// wrong, and is refused no sooner than the same time.
pub async fn prove(
    daemon: &Daemon,
    registered: &Registered,
    account: &AccountName,
    password: Secret,
    origin: Option<String>,
) -> Result<(Account, PasswordFact), Denial> {
    let attempt = daemon.passwords.throttle.begin(&registered.name, account, origin, Instant::now())?;
    tokio::time::sleep(attempt.delay).await;
    let begun = Instant::now();
    let Some(proved) = verify(daemon, registered, account, password).await? else {
        refuse_after(begun, attempt.wrong(Instant::now())).await;
        return Err(Denial::authentication_failed());
    };
    attempt.right();
    Ok(proved)
}

/// Whether the application's file lets its accounts have passwords.
pub fn check_method(registered: &Registered) -> Result<(), Denial> {
    if registered.policy.authentication.contains(&AuthenticationMethod::Password) {
        return Ok(());
    }
    Err(Denial::new(
        Code::MethodNotAllowed,
        format!("applications.d/{}.toml: authentication", registered.name),
        "the accounts of this application have no passwords of their own",
    )
    .remedy("root can add \"password\" to the list"))
}

/// Reads a password out of a descriptor, where blocking is allowed. However it behaves, it takes one of the places that
/// its sender has.
pub async fn read(daemon: &Daemon, uid: u32, descriptor: OwnedFd) -> Result<Secret, Denial> {
    let place = daemon.limits.passwords.enter(uid)?;
    tokio::task::spawn_blocking(move || {
        let _place = place;
        Secret::read(descriptor)
    })
    .await
    .map_err(|_| Denial::internal("the reading of a password was given up"))?
}

/// The account and what is known of its password, if this is the password and the account may log in.
async fn verify(
    daemon: &Daemon,
    registered: &Registered,
    account: &AccountName,
    password: Secret,
) -> Result<Option<(Account, PasswordFact)>, Denial> {
    let fact = daemon.passwords.verify(&daemon.store, &registered.name, account, password).await?;
    // Looked up for everybody, and after the computation: it may have been deactivated meanwhile.
    let record = daemon.store.account(&registered.name, account)?;
    let active = record.filter(|record| record.status == Status::Active);
    Ok(active.zip(fact))
}

/// Waits until the refusal may be told.
async fn refuse_after(begun: Instant, least: Duration) {
    let told = told_after(begun.elapsed(), least);
    tokio::time::sleep_until((begun + told).into()).await;
}

/// When a refusal is told: what took longer than the least time is rounded up to a multiple of it, so that a busy
/// machine tells no more than an idle one.
fn told_after(took: Duration, least: Duration) -> Duration {
    let steps = took.as_nanos().div_ceil(least.as_nanos().max(1)).max(1);
    least.saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX))
}

/// Whether a password that was right may still open a session.
pub fn check_age(registered: &Registered, fact: &PasswordFact) -> Result<(), Denial> {
    let (rule, message) = if fact.temporary {
        ("temporary passwords".to_owned(), "the password is a temporary one: it has to be replaced")
    } else if is_old(&registered.policy.passwords, fact, Timestamp::now()) {
        let rule = format!("applications.d/{}.toml: passwords.expire_days", registered.name);
        (rule, "the password has expired: it has to be replaced")
    } else {
        return Ok(());
    };
    Err(Denial::new(Code::PasswordMustChange, rule, message)
        .remedy("ask for a new password, and call again with the option new_password"))
}

fn is_old(policy: &PasswordPolicy, fact: &PasswordFact, now: Timestamp) -> bool {
    policy.expire_days.is_some_and(|days| fact.set.0.saturating_add(u64::from(days) * DAY) <= now.0)
}

/// Another password came into force, or the account went out of use, between the comparison and the record.
pub fn changed_meanwhile(denial: Denial) -> Denial {
    match denial.code {
        Code::Conflict | Code::NotFound | Code::AccountNotActive => Denial::authentication_failed(),
        _ => denial,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_expires_to_the_day() {
        let fact = PasswordFact { generation: "g".into(), set: Timestamp(1000 * DAY), temporary: false };
        let mut policy = PasswordPolicy::default();
        assert!(!is_old(&policy, &fact, Timestamp(u64::MAX)));
        policy.expire_days = Some(30);
        assert!(!is_old(&policy, &fact, Timestamp(1030 * DAY - 1)));
        assert!(is_old(&policy, &fact, Timestamp(1030 * DAY)));
        let ahead = PasswordFact { set: Timestamp(u64::MAX), ..fact };
        assert!(!is_old(&policy, &ahead, Timestamp(1030 * DAY)));
    }

    #[test]
    fn refusals_come_at_multiples_of_the_least_time() {
        let least = Duration::from_secs(1);
        for (took, told) in [(0, 1), (400, 1), (1000, 1), (1001, 2), (2999, 3)] {
            assert_eq!(told_after(Duration::from_millis(took), least).as_secs(), told, "{took}");
        }
    }
}
