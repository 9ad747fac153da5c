//! Status, applications and accounts.

use std::process::ExitCode;

use serde_json::Value;

use super::{Context, FINDING, block_on, findings, list, record_of};
use crate::bus::{Bus, CallOptions};
use crate::failure::Failure;
use crate::options::{AccountCommand, AddAccountOptions, ApplicationCommand};
use crate::output;
use crate::value::{self, Dictionary, Record};

const APPLICATION: [&str; 7] = ["name", "state", "valid", "service_user", "service_uid", "mode", "trust"];
const ACCOUNT: [&str; 9] =
    ["application", "account", "status", "role", "email", "first_name", "last_name", "created", "last_login"];

/// `status`. Findings, which only some callers are told, follow in a table of their own.
pub fn status(context: &Context) -> Result<ExitCode, Failure> {
    block_on(async {
        let status: Dictionary = Bus::connect().await?.call("Manager", "Status", &()).await?;
        let mut status = value::record(&status);
        let found = if context.json { None } else { status.remove("findings") };
        context.output.record(&status, &["version", "features"])?;
        let Some(Value::Array(found)) = found else { return Ok(ExitCode::SUCCESS) };
        let found: Vec<Record> =
            found.into_iter().filter_map(|finding| finding.as_object().cloned()).collect();
        if !found.is_empty() {
            output::print("\n")?;
            context.output.records(&found, &FINDING)?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// `application`.
pub fn application(context: &Context, command: ApplicationCommand) -> Result<ExitCode, Failure> {
    block_on(async {
        let bus = Bus::connect().await?;
        match command {
            ApplicationCommand::List => {
                let found: Vec<Dictionary> = bus.call("Applications", "List", &()).await?;
                context.output.records(&value::records(&found), &APPLICATION)?;
            }
            ApplicationCommand::Show { application } => {
                let found: Dictionary = bus.call("Applications", "Get", &(application.as_str(),)).await?;
                context.output.record(&value::record(&found), &APPLICATION)?;
            }
            ApplicationCommand::Check { application } => {
                let found: Vec<Dictionary> =
                    bus.call("Applications", "Check", &(application.as_str(),)).await?;
                return findings(context, &found);
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// `account`.
pub fn account(context: &Context, command: AccountCommand) -> Result<ExitCode, Failure> {
    match command {
        AccountCommand::Add(options) => block_on(add(context, options)),
        AccountCommand::List { application } => {
            block_on(list(context, "Accounts", &[("application", Some(application.to_string()))], &ACCOUNT))
        }
        AccountCommand::Show { application, account } => block_on(async {
            let options = CallOptions::from([("application", application.as_str().into())]);
            let found: Dictionary =
                Bus::connect().await?.call("Accounts", "Get", &(account.as_str(), options)).await?;
            context.output.record(&value::record(&found), &ACCOUNT)?;
            Ok(ExitCode::SUCCESS)
        }),
    }
}

async fn add(context: &Context, new: AddAccountOptions) -> Result<ExitCode, Failure> {
    let (application, account) = (new.application.as_str(), new.account.as_str());
    let mut options = CallOptions::from([("application", application.into())]);
    let details = [
        ("email", &new.email),
        ("first_name", &new.first_name),
        ("last_name", &new.last_name),
        ("role", &new.role),
    ];
    for (name, value) in details {
        if let Some(value) = value {
            options.insert(name, value.as_str().into());
        }
    }
    let () = Bus::connect().await?.call("Accounts", "Create", &(account, options)).await?;
    let record = record_of([("application", application), ("account", account)]);
    context.output.done(&format!("account {account} added to {application}"), &record)?;
    Ok(ExitCode::SUCCESS)
}
