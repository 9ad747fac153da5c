//! Passwords that Deputy keeps: setting, resetting, and logging in with one.
//!
//! A password goes from the terminal into a pipe, and with the pipe's other end to `deputyd`.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;

use deputy_core::denial::Code;
use zbus::{Fd, OwnedObjectPath};
use zeroize::Zeroizing;

use super::accounts::{options, person};
use super::{Context, block_on, record_of};
use crate::answers::Answers;
use crate::bus::Bus;
use crate::confirm::confirm;
use crate::converse::with_terminal;
use crate::escape;
use crate::failure::Failure;
use crate::options::{AccountTarget, ByOption, LoginOptions, SetupOptions};

/// What is typed, in memory that is wiped.
type Typed = Zeroizing<Vec<u8>>;

/// `account password`.
pub fn set(
    context: &Context,
    target: &AccountTarget,
    temporary: bool,
    answers_fd: Option<u32>,
) -> Result<ExitCode, Failure> {
    let answers = Arc::new(Answers::find(answers_fd)?);
    let (application, account) = (target.application.as_str(), target.account.as_str());
    block_on(async {
        let question = format!("New password of {account}: ");
        let password = with_terminal(answers, move |answers| new_password(answers, &question)).await?;
        let mut options = options(application, &target.by);
        options.insert("temporary", temporary.into());
        let body = (account, zbus::OwnedFd::from(pipe(&password)?), options);
        let () = Bus::connect().await?.call("Accounts", "SetPassword", &body).await?;
        let sentence =
            format!("account {account} of {application}: the password is set; its sessions have ended");
        context.output.done(&sentence, &record_of([("application", application), ("account", account)]))?;
        Ok(ExitCode::SUCCESS)
    })
}

/// `account reset`: the temporary password is shown once, and kept nowhere.
pub fn reset(context: &Context, target: &AccountTarget) -> Result<ExitCode, Failure> {
    let (application, account) = (target.application.as_str(), target.account.as_str());
    confirm(
        context.yes,
        &format!(
            "Reset the password of {account} in {application}? The old one is lost, and its sessions end."
        ),
    )?;
    block_on(async {
        let body = (account, options(application, &target.by));
        let pipe: zbus::OwnedFd = Bus::connect().await?.call("Accounts", "ResetPassword", &body).await?;
        let password = read_once(pipe)?;
        let record = record_of([("application", application), ("account", account), ("password", &password)]);
        context.output.done(&temporary(account, &password), &record)?;
        Ok(ExitCode::SUCCESS)
    })
}

/// What is in the pipe, which holds a password or nothing.
fn read_once(pipe: zbus::OwnedFd) -> Result<Zeroizing<String>, Failure> {
    let mut password = Zeroizing::new(String::with_capacity(64));
    File::from(OwnedFd::from(pipe)).take(64).read_to_string(&mut password)?;
    Ok(password)
}

fn temporary(account: &str, password: &str) -> Zeroizing<String> {
    Zeroizing::new(format!(
        "The temporary password of {account}, to be replaced at the first login: {}",
        escape::text(password)
    ))
}

/// `setup`.
pub fn setup(context: &Context, asked: SetupOptions) -> Result<ExitCode, Failure> {
    let (application, account) = (asked.application.as_str(), asked.account.as_str());
    let typed = asked.password || asked.answers_fd.is_some();
    let answers = if typed { Some(Arc::new(Answers::find(asked.answers_fd)?)) } else { None };
    block_on(async {
        let by = ByOption { by: None };
        let mut options = options(application, &by);
        person(&mut options, &asked.person);
        if let Some(answers) = answers {
            let question = format!("Password of {account}: ");
            let password = with_terminal(answers, move |answers| new_password(answers, &question)).await?;
            let fd: Fd<'static> = pipe(&password)?.into();
            options.insert("password", fd.into());
        }
        let told: zbus::OwnedFd =
            Bus::connect().await?.call("Accounts", "Setup", &(account, options)).await?;
        let password = read_once(told)?;
        let mut record = record_of([("application", application), ("account", account)]);
        let done = format!("account {account} is the superuser of {application}");
        if password.is_empty() {
            context.output.done(&done, &record)?;
        } else {
            record.insert("password".to_owned(), password.as_str().into());
            let sentence = Zeroizing::new(format!("{done}\n{}", *temporary(account, &password)));
            context.output.done(&sentence, &record)?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// `login` by a password of the account's own. A temporary or expired one is replaced on the way.
pub fn login(context: &Context, asked: &LoginOptions) -> Result<ExitCode, Failure> {
    let answers = Arc::new(Answers::find(asked.answers_fd)?);
    let account = asked.account.as_str();
    block_on(async {
        let bus = Bus::connect().await?;
        let question = format!("Password of {account}: ");
        let password =
            with_terminal(Arc::clone(&answers), move |answers| answers.ask(&question, true)).await?;
        let session = match attempt(&bus, asked, &password, None).await {
            Err(failure) if failure.code == Code::PasswordMustChange.as_str() => {
                let message = failure.message;
                let new = with_terminal(answers, move |answers| {
                    answers.show(&message)?;
                    new_password(answers, "New password: ")
                });
                attempt(&bus, asked, &password, Some(&new.await?)).await?
            }
            other => other?,
        };
        context
            .output
            .done(&escape::text(&session), &record_of([("account", account), ("session", &session)]))?;
        Ok(ExitCode::SUCCESS)
    })
}

async fn attempt(
    bus: &Bus,
    asked: &LoginOptions,
    password: &Typed,
    new: Option<&Typed>,
) -> Result<String, Failure> {
    let by = ByOption { by: None };
    let mut options = options(asked.application.as_str(), &by);
    if let Some(new) = new {
        let fd: Fd<'static> = pipe(new)?.into();
        options.insert("new_password", fd.into());
    }
    let body = (asked.account.as_str(), zbus::OwnedFd::from(pipe(password)?), options);
    let session: OwnedObjectPath = bus.call("Authentication", "Password", &body).await?;
    Ok(session.to_string())
}

/// A new password: on a terminal, where nothing is seen of it, twice.
fn new_password(answers: &Answers, question: &str) -> Result<Typed, Failure> {
    let password = answers.ask(question, true)?;
    if answers.terminal().is_some() && *answers.ask("Once more: ", true)? != *password {
        return Err(Failure::new(Code::InvalidArgument, "the two are not the same; nothing was changed")
            .remedy("type the same password twice"));
    }
    Ok(password)
}

/// A pipe out of which the password comes.
fn pipe(password: &Typed) -> Result<OwnedFd, Failure> {
    let (reader, mut writer) = io::pipe()?;
    // What can be typed is far less than a pipe holds, so this does not wait.
    writer.write_all(password)?;
    Ok(reader.into())
}
