//! Links and logins.

use std::process::ExitCode;

use deputy_core::message::Purpose;
use deputy_core::names::{AccountName, ApplicationName};
use deputy_wire::conversation::Expected;
use serde_json::Value;

use super::{Context, block_on, findings, list, record_of};
use crate::answers::Answers;
use crate::bus::{Bus, CallOptions};
use crate::confirm::confirm;
use crate::converse::authenticate;
use crate::escape;
use crate::failure::Failure;
use crate::options::{LinkCommand, LinkTarget, LoginOptions};
use crate::value::Dictionary;

const LINK: [&str; 9] =
    ["application", "account", "os_user", "uid", "gid", "state", "code", "requested", "expires"];

/// `link`.
pub fn link(context: &Context, command: LinkCommand) -> Result<ExitCode, Failure> {
    match command {
        LinkCommand::Check(target) => block_on(async {
            let call = (target.account.as_str(), target.os_user.as_str(), of(&target.application));
            let found: Vec<Dictionary> = Bus::connect().await?.call("Links", "Check", &call).await?;
            findings(context, &found)
        }),
        LinkCommand::Add { target, answers_fd } => add(context, target, answers_fd),
        LinkCommand::Request(target) => block_on(request(context, &target)),
        LinkCommand::List { application, account, os_user } => {
            let filters = [
                ("application", application.map(String::from)),
                ("account", account.map(String::from)),
                ("os_user", os_user.map(String::from)),
            ];
            block_on(list(context, "Links", &filters, &LINK))
        }
        LinkCommand::Remove { application, account } => remove(context, &application, &account),
    }
}

/// `login`: the session's path is all that goes to standard output, so that a shell can keep it.
pub fn login(context: &Context, options: LoginOptions) -> Result<ExitCode, Failure> {
    let answers = Answers::find(options.answers_fd)?;
    let LoginOptions { application, account, .. } = options;
    let expected = Expected { purpose: Purpose::Login, application, account, os_user: None };
    let result = block_on(async { authenticate(&Bus::connect().await?, expected, answers).await })?;
    let session = result.get("session").and_then(Value::as_str).ok_or_else(|| {
        Failure::new(deputy_core::Code::Internal, "deputyd made no session of the login")
            .remedy("use a deputyctl of the same release as deputyd")
    })?;
    context.output.done(&escape::text(session), &result)?;
    Ok(ExitCode::SUCCESS)
}

fn add(context: &Context, target: LinkTarget, answers_fd: Option<u32>) -> Result<ExitCode, Failure> {
    let answers = Answers::find(answers_fd)?;
    let LinkTarget { application, account, os_user } = target;
    let sentence = format!("account {account} of {application} is linked to {os_user}");
    let expected = Expected { purpose: Purpose::Link, application, account, os_user: Some(os_user) };
    let result = block_on(async { authenticate(&Bus::connect().await?, expected, answers).await })?;
    context.output.done(&escape::text(&sentence), &result)?;
    Ok(ExitCode::SUCCESS)
}

async fn request(context: &Context, target: &LinkTarget) -> Result<ExitCode, Failure> {
    let LinkTarget { application, account, os_user } = target;
    let call = (account.as_str(), os_user.as_str(), of(application));
    let (state, code): (String, String) = Bus::connect().await?.call("Links", "Request", &call).await?;
    let sentence = if code.is_empty() {
        format!("The link of {account} to {os_user} is {state}.")
    } else {
        format!(
            "The link of {account} to {os_user} is {state}; its code is {code}\n\
             Let {os_user} type, in a login of their own on this machine:\n\n    deputyctl consent give {code}"
        )
    };
    context.output.done(&escape::lines(&sentence), &record_of([("state", &state), ("code", &code)]))?;
    Ok(ExitCode::SUCCESS)
}

fn remove(
    context: &Context,
    application: &ApplicationName,
    account: &AccountName,
) -> Result<ExitCode, Failure> {
    confirm(
        context.yes,
        &format!("Remove the link of {account} in {application}? A new one needs a new consent."),
    )?;
    block_on(async {
        let () = Bus::connect().await?.call("Links", "Unlink", &(account.as_str(), of(application))).await?;
        let record = record_of([("application", application.as_str()), ("account", account.as_str())]);
        context.output.done(&format!("the link of {account} in {application} is removed"), &record)?;
        Ok(ExitCode::SUCCESS)
    })
}

fn of(application: &ApplicationName) -> CallOptions<'_> {
    CallOptions::from([("application", application.as_str().into())])
}
