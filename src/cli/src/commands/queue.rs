//! The queue.

use std::process::ExitCode;

use serde_json::Value;

use super::{Context, block_on};
use crate::bus::{Bus, CallOptions};
use crate::failure::Failure;
use crate::options::QueueOptions;
use crate::output;
use crate::value::{self, Dictionary, Record};

const RESOURCES: [&str; 7] = ["of", "jobs", "cpus", "memory", "gpus", "waiting", "free_gpus"];
const WAITING: [&str; 8] = ["id", "application", "account", "place", "reason", "cpus", "memory", "gpus"];

/// `queue`: what there is and who uses it, then who waits.
pub fn queue(context: &Context, options: QueueOptions) -> Result<ExitCode, Failure> {
    block_on(async {
        let mut asked = CallOptions::new();
        if let Some(application) = options.application {
            asked.insert("application", application.as_str().to_owned().into());
        }
        let found: Dictionary = Bus::connect().await?.call("Manager", "Queue", &(asked,)).await?;
        let found = value::record(&found);
        if context.json {
            context.output.record(&found, &[])?;
            return Ok(ExitCode::SUCCESS);
        }
        context.output.records(&resources(&found), &RESOURCES)?;
        let waiting = records(found.get("jobs"));
        if !waiting.is_empty() {
            output::print("\n")?;
            context.output.records(&waiting, &WAITING)?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// A line for the machine, what is used and free of it where that is told, and one for each application.
fn resources(found: &Record) -> Vec<Record> {
    let mut rows = Vec::new();
    let mut row = |of: &str, amounts: Option<&Value>, others: &[(&str, Option<&Value>)]| {
        let Some(Value::Object(amounts)) = amounts else { return };
        let mut record = amounts.clone();
        record.insert("of".to_owned(), of.into());
        for (name, value) in others {
            if let Some(value) = value {
                record.insert((*name).to_owned(), (*value).clone());
            }
        }
        rows.push(record);
    };
    row("capacity", found.get("capacity"), &[("free_gpus", found.get("free_gpus"))]);
    row("used", found.get("machine_used"), &[("waiting", found.get("machine_waiting"))]);
    row("free", found.get("machine_free"), &[]);
    for application in records(found.get("applications")) {
        let name = application.get("application").and_then(Value::as_str).unwrap_or_default();
        let waiting = [("waiting", application.get("waiting"))];
        row(&format!("used by {name}"), application.get("used"), &waiting);
        if application.get("ceilings").and_then(Value::as_object).is_some_and(|most| !most.is_empty()) {
            row(&format!("most for {name}"), application.get("ceilings"), &[]);
        }
    }
    rows
}

fn records(list: Option<&Value>) -> Vec<Record> {
    let Some(Value::Array(list)) = list else { return Vec::new() };
    list.iter().filter_map(|record| record.as_object().cloned()).collect()
}
