//! `.Accounts`: passwords that somebody else sets.

use std::sync::Arc;

use deputy_core::{AccountName, Denial};

use crate::authentication::password::{check_method, read};
use crate::authority::{About, Call, Granted};
use crate::bus::options::{Options, parse};
use crate::passwords::{self, New};

/// `Accounts.SetPassword`.
pub async fn set_password(
    call: Call,
    (account, password, mut options): (String, zbus::OwnedFd, Options),
) -> Result<Granted<()>, Denial> {
    let account: AccountName = parse("account", &account)?;
    let application = options.application()?;
    let by = options.by()?;
    let temporary = options.flag("temporary")?;
    options.finish()?;
    let grant = call.authorize(About::application(application).account(&account).by(by)).await?;
    let registered = Arc::clone(grant.application()?);
    check_method(&registered)?;
    let daemon = &call.daemon;
    let password = read(daemon, call.caller.uid, password.into()).await?;
    let found = daemon.store.account(&registered.name, &account)?.ok_or_else(Denial::not_found)?;
    let new =
        New { password: &password, temporary, replaces: None, policy: Some(&registered.policy.passwords) };
    daemon.passwords.set(&daemon.store, &found, new, grant.actor()?).await?;
    Ok(grant.answer(()))
}

/// `Accounts.ResetPassword`.
pub async fn reset_password(
    call: Call,
    (account, mut options): (String, Options),
) -> Result<Granted<(zbus::OwnedFd,)>, Denial> {
    let account: AccountName = parse("account", &account)?;
    let application = options.application()?;
    let by = options.by()?;
    options.finish()?;
    let grant = call.authorize(About::application(application).account(&account).by(by)).await?;
    let registered = Arc::clone(grant.application()?);
    check_method(&registered)?;
    let daemon = &call.daemon;
    let found = daemon.store.account(&registered.name, &account)?.ok_or_else(Denial::not_found)?;
    let password = passwords::temporary()?;
    // Before anything changes: a password that nobody can be told would lock the person out.
    let pipe = passwords::hand_out(&password)?;
    let new = New { password: &password, temporary: true, replaces: None, policy: None };
    daemon.passwords.set(&daemon.store, &found, new, grant.actor()?).await?;
    Ok(grant.answer((pipe.into(),)))
}
