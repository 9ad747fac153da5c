//! Status and applications.

use std::process::ExitCode;

use serde_json::Value;

use super::install::install;
use super::{Context, FINDING, block_on, findings};
use crate::bus::Bus;
use crate::failure::Failure;
use crate::options::ApplicationCommand;
use crate::output;
use crate::value::{self, Dictionary, Record};

const APPLICATION: [&str; 7] = ["name", "state", "valid", "service_user", "service_uid", "mode", "trust"];

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
    // What root writes down needs no deputyd.
    if let ApplicationCommand::Install(options) = &command {
        return install(context, options);
    }
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
            ApplicationCommand::Install(_) => {}
            ApplicationCommand::Check { application } => {
                let found: Vec<Dictionary> =
                    bus.call("Applications", "Check", &(application.as_str(),)).await?;
                return findings(context, &found);
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}
