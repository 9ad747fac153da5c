//! Links and logins.

use std::process::ExitCode;

use deputy_core::Code;
use deputy_core::message::Purpose;
use deputy_core::names::{AccountName, ApplicationName};
use deputy_wire::conversation::Expected;
use serde_json::Value;

use super::accounts::options as call_options;
use super::{Context, block_on, findings, is_error, link_import, list, record_of};
use crate::answers::Answers;
use crate::bus::Bus;
use crate::confirm::confirm;
use crate::converse::authenticate;
use crate::escape;
use crate::failure::Failure;
use crate::options::{ByOption, CheckOptions, LinkCommand, LinkTarget, LoginOptions, RequestOptions};
use crate::output::{List, note};
use crate::value::{self, Dictionary, Record};

const LINK: [&str; 9] =
    ["application", "account", "os_user", "uid", "gid", "state", "code", "requested", "expires"];

const FINDING_OF_LINK: [&str; 7] =
    ["application", "account", "os_user", "severity", "code", "message", "remedy"];

/// `link`.
pub fn link(context: &Context, command: LinkCommand) -> Result<ExitCode, Failure> {
    match command {
        LinkCommand::Check(options) => block_on(check(context, options)),
        LinkCommand::Add { target, answers_fd } => add(context, target, answers_fd),
        LinkCommand::Request(options) => block_on(request(context, &options)),
        LinkCommand::Import(options) => link_import::import(context, &options),
        LinkCommand::List { application, account, os_user, state } => {
            let filters = [
                ("application", application.map(String::from)),
                ("account", account.map(String::from)),
                ("os_user", os_user.map(String::from)),
                ("state", state),
            ];
            block_on(list(context, "Links", &filters, &LINK))
        }
        LinkCommand::Remove { application, account, end_jobs, by } => {
            remove(context, &application, &account, end_jobs, &by)
        }
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

/// The findings about one link, or about all of an application.
async fn check(context: &Context, options: CheckOptions) -> Result<ExitCode, Failure> {
    let bus = Bus::connect().await?;
    if let (Some(application), Some(account), Some(os_user)) =
        (&options.application, &options.account, &options.os_user)
    {
        let call = (account.as_str(), os_user.as_str(), call_options(application.as_str(), &options.by));
        let found: Vec<Dictionary> = bus.call("Links", "Check", &call).await?;
        return findings(context, &found);
    }
    let applications = match &options.application {
        Some(application) => vec![application.to_string()],
        None => applications(&bus).await?,
    };
    let mut printed = context.output.list(&FINDING_OF_LINK);
    let mut errors = false;
    for application in &applications {
        errors |= check_all(&bus, application, &options, &mut printed).await?;
    }
    printed.end()?;
    Ok(if errors { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// Prints the findings about all links of an application; whether one is an error. An application whose file is invalid
/// is one, and no reason to leave out those after it.
async fn check_all(
    bus: &Bus,
    application: &str,
    options: &CheckOptions,
    printed: &mut List<'_>,
) -> Result<bool, Failure> {
    let mut errors = false;
    let mut cursor = String::new();
    loop {
        let mut call = call_options(application, &options.by);
        call.insert("cursor", cursor.as_str().into());
        let answer: Result<(Vec<Dictionary>, String), Failure> =
            bus.call("Links", "CheckAll", &(call,)).await;
        let (page, next) = match answer {
            Err(failure) if options.all_applications && failure.code == Code::ApplicationInvalid.as_str() => {
                note(&format!("{}: {}", escape::text(application), failure.report(false).trim_end()))?;
                return Ok(true);
            }
            answer => answer?,
        };
        let of = |mut record: Record| {
            record.insert("application".to_owned(), application.into());
            record
        };
        let page: Vec<Record> = value::records(&page).into_iter().map(of).collect();
        errors |= page.iter().any(is_error);
        printed.page(&page)?;
        if next.is_empty() || next == cursor {
            return Ok(errors);
        }
        cursor = next;
    }
}

/// The names of all applications that the caller sees.
async fn applications(bus: &Bus) -> Result<Vec<String>, Failure> {
    let found: Vec<Dictionary> = bus.call("Applications", "List", &()).await?;
    let name = |record: Record| record.get("name").and_then(Value::as_str).map(str::to_owned);
    Ok(value::records(&found).into_iter().filter_map(name).collect())
}

async fn request(context: &Context, options: &RequestOptions) -> Result<ExitCode, Failure> {
    let LinkTarget { application, account, os_user } = &options.target;
    let mut asked = call_options(application.as_str(), &options.by);
    asked.insert("renew", options.renew.into());
    asked.insert("relink", options.relink.into());
    let call = (account.as_str(), os_user.as_str(), asked);
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
    end_jobs: bool,
    by: &ByOption,
) -> Result<ExitCode, Failure> {
    let jobs = if end_jobs { " Its running jobs end." } else { "" };
    confirm(
        context.yes,
        &format!("Remove the link of {account} in {application}?{jobs} A new one needs a new consent."),
    )?;
    block_on(async {
        let mut options = call_options(application.as_str(), by);
        options.insert("end_jobs", end_jobs.into());
        let () = Bus::connect().await?.call("Links", "Unlink", &(account.as_str(), options)).await?;
        let record = record_of([("application", application.as_str()), ("account", account.as_str())]);
        context.output.done(&format!("the link of {account} in {application} is removed"), &record)?;
        Ok(ExitCode::SUCCESS)
    })
}
