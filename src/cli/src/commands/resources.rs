//! `resources`: what there is for jobs, with bars of what is used.

use std::process::ExitCode;

use deputy_core::quota::human_bytes;
use serde_json::Value;

use super::files::bar;
use super::{Context, block_on};
use crate::bus::{Bus, CallOptions};
use crate::failure::Failure;
use crate::options::ResourcesOptions;
use crate::output;
use crate::value::{self, Dictionary, Record};

const HOSTS: [&str; 8] = ["name", "executor", "cluster", "state", "partitions", "cpus", "memory", "gpus"];
const PARTITIONS: [&str; 6] = ["cluster", "partition", "nodes", "cpus", "memory", "gpus"];
const ASSOCIATIONS: [&str; 5] = ["cluster", "account", "partition", "qos", "limits"];

/// `resources`.
pub fn resources(context: &Context, options: ResourcesOptions) -> Result<ExitCode, Failure> {
    block_on(async {
        let mut asked = CallOptions::new();
        let application = options.application.map(String::from);
        for (key, value) in [("application", application), ("account", options.account.map(String::from))] {
            if let Some(value) = value {
                asked.insert(key, value.into());
            }
        }
        let found: Dictionary = Bus::connect().await?.call("Manager", "Resources", &(asked,)).await?;
        let found = value::record(&found);
        if context.json {
            context.output.record(&found, &[])?;
            return Ok(ExitCode::SUCCESS);
        }
        context.output.records(&rows(found.get("hosts")), &HOSTS)?;
        for (key, columns) in [("partitions", &PARTITIONS[..]), ("associations", &ASSOCIATIONS)] {
            let rows = rows(found.get(key));
            if !rows.is_empty() {
                output::print("\n")?;
                context.output.records(&rows, columns)?;
            }
        }
        if let Some(Value::Array(clusters)) = found.get("without_accounting") {
            let names: Vec<&str> = clusters.iter().filter_map(Value::as_str).collect();
            output::note(&format!("no accounting, and so no associations and limits: {}", names.join(", ")))?;
        }
        if let Some(Value::String(why)) = found.get("unavailable") {
            output::note(&format!("not every cluster can be asked: {why}"))?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// The records of a list, each amount with what of it is free, and a bar of what is used.
fn rows(list: Option<&Value>) -> Vec<Record> {
    let Some(Value::Array(list)) = list else { return Vec::new() };
    let mut rows: Vec<Record> = list.iter().filter_map(|row| row.as_object().cloned()).collect();
    for row in &mut rows {
        for key in ["cpus", "memory", "gpus"] {
            let free = row.remove(&format!("{key}_free"));
            if let Some(all) = row.get(key) {
                let shown = amount(key, all, free.as_ref());
                row.insert(key.to_owned(), shown.into());
            }
        }
    }
    rows
}

fn amount(key: &str, all: &Value, free: Option<&Value>) -> String {
    let number = |value: &Value| {
        let shown =
            if key == "memory" { human_bytes(value.as_u64().unwrap_or(0)) } else { value.to_string() };
        shown.trim_end_matches(".0").to_owned()
    };
    // Thousandths, so that parts of a CPU count.
    let milli = |value: &Value| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "amounts of a machine")]
        value.as_u64().unwrap_or_else(|| (value.as_f64().unwrap_or(0.0).max(0.0) * 1000.0) as u64)
    };
    match free {
        None => number(all),
        Some(_) if milli(all) == 0 => "0".to_owned(),
        Some(free) => {
            let bar = bar(milli(all).saturating_sub(milli(free)), milli(all));
            format!("{} free of {} {bar}", number(free), number(all))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_free_is_told_with_a_bar_of_what_is_used() {
        let host = json!([{
            "name": "n1", "cpus": 16.0, "cpus_free": 12.0, "memory": 8_589_934_592_u64,
            "memory_free": 4_294_967_296_u64, "gpus": 0, "gpus_free": 0
        }, { "name": "n2", "cpus": 1.5, "gpus": 2 }]);
        let rows = rows(Some(&host));
        assert_eq!(rows[0]["cpus"], "12 free of 16 [##........] 25 %");
        assert_eq!(rows[0]["memory"], "4.0 GiB free of 8.0 GiB [#####.....] 50 %");
        assert_eq!(rows[0]["gpus"], "0");
        // Where it is not told what is free.
        assert_eq!((&rows[1]["cpus"], &rows[1]["gpus"]), (&json!("1.5"), &json!("2")));
        assert!(!rows[0].contains_key("cpus_free"));
    }
}
