//! `Accounts.Setup`: the first account of an application, by an administrator of the machine.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use deputy_core::account::Status;
use deputy_core::application::AuthenticationMethod;
use deputy_core::queue::Ceilings;
use deputy_core::role::SUPERUSER;
use deputy_core::{AccountName, Code, Denial};

use super::Person;
use crate::authentication::password::{check_method, read};
use crate::authority::{About, Call, Granted};
use crate::bus::options::{Options, parse};
use crate::passwords::{self, New, secret::Secret};
use crate::store::{Account, Change, Timestamp};

/// `Accounts.Setup`.
pub async fn setup(
    call: Call,
    (account, mut options): (String, Options),
) -> Result<Granted<(zbus::OwnedFd,)>, Denial> {
    let account: AccountName = parse("account", &account)?;
    let about = About::application(options.application()?).account(&account);
    let Person { email, first_name, last_name } = Person::take(&mut options)?.known();
    let given = options.descriptor("password")?;
    options.finish()?;
    let grant = call.authorize(about).await?;
    let registered = Arc::clone(grant.application()?);
    let daemon = &call.daemon;
    let first = Account {
        application: registered.name.clone(),
        name: account.clone(),
        email: email.clone(),
        first_name: first_name.clone(),
        last_name: last_name.clone(),
        role: SUPERUSER.to_owned(),
        status: Status::Active,
        reason: None,
        created: Timestamp::now(),
        changed: Timestamp::now(),
        last_login: None,
        limits: Ceilings::default(),
    };
    // Everything that can be refused is, before there is an account: after that nobody can set up again.
    if daemon.store.account_count(&registered.name)? > 0 {
        return Err(Denial::new(Code::Conflict, "setup", "the application has an account already").remedy(
            "have one of its superusers do what is needed; root can give a role: deputyctl role set",
        ));
    }
    let policy = &registered.policy.passwords;
    let password = match given {
        Some(descriptor) => {
            check_method(&registered)?;
            let password = read(daemon, call.caller.uid, descriptor).await?;
            daemon.passwords.check(&daemon.store, &first, policy, &password).await?;
            Some((password, false))
        }
        None if registered.policy.authentication.contains(&AuthenticationMethod::Password) => {
            Some((passwords::temporary()?, true))
        }
        None => None,
    };
    let pipe = told(password.as_ref())?;
    let change = Change::AccountCreated {
        application: registered.name.clone(),
        account,
        email,
        first_name,
        last_name,
        role: SUPERUSER.to_owned(),
        group: None,
        first: true,
    };
    daemon.store.commit(change, grant.actor()?).await?;
    if let Some((password, temporary)) = &password {
        let new = New { password, temporary: *temporary, replaces: None, policy: None };
        daemon.passwords.set(&daemon.store, &first, new, grant.actor()?).await?;
    }
    Ok(grant.answer((pipe.into(),)))
}

/// A pipe from which the generated password can be read; at its end already, where there is none.
fn told(password: Option<&(Secret, bool)>) -> Result<OwnedFd, Denial> {
    if let Some((password, true)) = password {
        return passwords::hand_out(password);
    }
    let (reader, _) = std::io::pipe().map_err(|error| Denial::internal(format!("a pipe: {error}")))?;
    Ok(reader.into())
}
