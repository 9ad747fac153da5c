//! What moves an account from one status to another; and one account that acts for another.

use std::sync::Arc;
use std::time::Duration;

use deputy_core::message::JobCommand;
use deputy_core::schedule::AccountKey;
use deputy_core::{AccountName, ApplicationName, Code, Denial};
use zbus::OwnedObjectPath;

use crate::acting;
use crate::authority::{About, Call, Grant, Granted};
use crate::bus::introspection::session_path;
use crate::bus::options::{Options, parse};
use crate::bus::record::Record;
use crate::daemon::Daemon;
use crate::sessions;
use crate::store::{Authentication, Change, Timestamp};

/// How long jobs have to end by themselves when their account is put out of use.
const GRACE_MS: u32 = 10_000;

/// How often, and how many times, a job is looked for that was accepted and has not been launched yet.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
const LOOKS: usize = 100;

/// Decides a call about one account, with the options that all have; gives the application's name.
async fn about_one(
    call: &Call,
    account: &AccountName,
    mut options: Options,
) -> Result<(Grant, ApplicationName), Denial> {
    let about = About::application(options.application()?).account(account).by(options.by()?);
    options.finish()?;
    let grant = call.authorize(about).await?;
    let application = grant.application()?.name.clone();
    Ok((grant, application))
}

/// `Accounts.Approve`.
pub async fn approve(call: Call, (account, options): (String, Options)) -> Result<Granted<()>, Denial> {
    let account: AccountName = parse("account", &account)?;
    let (grant, application) = about_one(&call, &account, options).await?;
    let change = Change::AccountApproved { application, account };
    call.daemon.store.commit(change, grant.actor()?).await?;
    Ok(grant.answer(()))
}

/// `Accounts.Reject`.
pub async fn reject(
    call: Call,
    (account, reason, options): (String, String, Options),
) -> Result<Granted<()>, Denial> {
    let account: AccountName = parse("account", &account)?;
    let reason = free("reason", reason)?;
    let (grant, application) = about_one(&call, &account, options).await?;
    let change = Change::AccountRejected { application, account, reason };
    call.daemon.store.commit(change, grant.actor()?).await?;
    Ok(grant.answer(()))
}

/// `Accounts.Deactivate`.
pub async fn deactivate(
    call: Call,
    (account, mut options): (String, Options),
) -> Result<Granted<()>, Denial> {
    let account: AccountName = parse("account", &account)?;
    let reason = options.free_text("reason")?.unwrap_or_default();
    let cancel_jobs = options.flag("cancel_jobs")?;
    let (grant, application) = about_one(&call, &account, options).await?;
    let change =
        Change::AccountDeactivated { application: application.clone(), account: account.clone(), reason };
    call.daemon.store.commit(change, grant.actor()?).await?;
    if cancel_jobs {
        // From here on none is accepted any more, so these are all.
        let open = call.daemon.store.open_jobs_of(&application, &account)?;
        tokio::spawn(cancel(Arc::clone(&call.daemon), open));
    }
    Ok(grant.answer(()))
}

/// Ends jobs, those included that were accepted and are being launched.
async fn cancel(daemon: Arc<Daemon>, mut jobs: Vec<deputy_core::JobId>) {
    for _ in 0..LOOKS {
        jobs.retain(|id| {
            let Some(live) = daemon.tracker.get(id) else { return true };
            match live.command(JobCommand::Cancel { grace_ms: GRACE_MS }) {
                Ok(()) => tracing::info!(job = %id, "cancelled: its account was deactivated"),
                Err(error) => tracing::warn!(job = %id, %error, "could not be cancelled"),
            }
            false
        });
        if jobs.is_empty() {
            return;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// `Accounts.Reactivate`.
pub async fn reactivate(call: Call, (account, options): (String, Options)) -> Result<Granted<()>, Denial> {
    let account: AccountName = parse("account", &account)?;
    let (grant, application) = about_one(&call, &account, options).await?;
    let change = Change::AccountReactivated { application, account };
    call.daemon.store.commit(change, grant.actor()?).await?;
    Ok(grant.answer(()))
}

/// `Accounts.Delete`.
pub async fn delete(call: Call, (account, options): (String, Options)) -> Result<Granted<()>, Denial> {
    let account: AccountName = parse("account", &account)?;
    let (grant, application) = about_one(&call, &account, options).await?;
    let change = Change::AccountDeleted { application: application.clone(), account: account.clone() };
    call.daemon.store.commit(change, grant.actor()?).await?;
    let owner = AccountKey { application: application.clone(), account: account.clone() };
    if let Err(error) = call.daemon.tracker.queue().limits_changed(&call.daemon, &owner) {
        tracing::error!(%application, %error, "the limits of a deleted account remain until a restart");
    }
    if let Err(denial) = call.daemon.passwords.forget(&application, &account).await {
        // The account is gone, and its password with it; only the hash of it is still in the file.
        tracing::error!(%application, message = denial.message, "the hashes of a deleted account remain");
    }
    Ok(grant.answer(()))
}

/// `Accounts.DeletionReport`.
pub async fn deletion_report(
    call: Call,
    (account, options): (String, Options),
) -> Result<Granted<(Vec<Record>,)>, Denial> {
    let account: AccountName = parse("account", &account)?;
    let (grant, application) = about_one(&call, &account, options).await?;
    let store = &call.daemon.store;
    store.account(&application, &account)?.ok_or_else(Denial::not_found)?;
    let remaining = store.remaining(&application, &account)?;
    let records = remaining
        .into_iter()
        .map(|one| Record::new().text("what", one.what).text("name", one.name))
        .collect();
    Ok(grant.answer((records,)))
}

/// `Accounts.ActFor`.
pub async fn act_for(
    call: Call,
    (account, reason, options): (String, String, Options),
) -> Result<Granted<(OwnedObjectPath,)>, Denial> {
    let account: AccountName = parse("account", &account)?;
    let reason = free("reason", reason)?;
    if reason.trim().is_empty() {
        return Err(Denial::invalid("a reason is needed to act for another account"));
    }
    let (grant, application) = about_one(&call, &account, options).await?;
    let registered = Arc::clone(grant.application()?);
    let Some(seconds) = registered.policy.roles.act_for_seconds else {
        return Err(Denial::new(
            Code::MethodNotAllowed,
            format!("applications.d/{application}.toml: act_for"),
            "in this application no account acts for another",
        )
        .remedy("root can set act_for = true, and name act_for in a role"));
    };
    let actor = grant.actor()?;
    let Some(by) = actor.by.as_ref().map(|by| by.account.clone()) else {
        return Err(acting::acting_account_required(&registered));
    };
    if by == account {
        return Err(Denial::invalid("nobody needs to act for himself"));
    }
    acting::active(&call.daemon, &registered, &account)?;
    let expires = Timestamp(Timestamp::now().0.saturating_add(seconds.saturating_mul(1_000_000)));
    let how = Authentication::ActFor { by, reason };
    let session = sessions::open(&call.daemon, actor, application, account, how, expires).await?;
    let path = OwnedObjectPath::try_from(session_path(&session))
        .map_err(|error| Denial::internal(error.to_string()))?;
    Ok(grant.answer((path,)))
}

/// A text of a person that is an argument.
fn free(what: &str, text: String) -> Result<String, Denial> {
    const MAX: usize = 256;
    if text.len() > MAX || text.chars().any(char::is_control) {
        return Err(Denial::invalid(format!("{what} has more than {MAX} bytes, or a control character")));
    }
    Ok(text)
}
