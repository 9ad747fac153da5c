//! `quota` and `alert`.

use std::fmt::Write as _;
use std::process::ExitCode;

use deputy_core::denial::Code;
use deputy_core::quota::human_bytes;
use serde_json::{Value, json};

use super::Caller;
use crate::bus::Bus;
use crate::commands::{Context, block_on, list};
use crate::failure::Failure;
use crate::options::{AlertCommand, QuotaFormat, QuotaOptions};
use crate::output;
use crate::value::{self, Record};

const QUOTA: [&str; 9] = [
    "path",
    "whose",
    "space_used",
    "space_soft",
    "space_hard",
    "files_used",
    "files_soft",
    "files_hard",
    "use",
];

const ALERT: [&str; 10] =
    ["application", "account", "os_user", "place", "whose", "of", "threshold", "used", "limit", "since"];

/// What a block is in a dashboard's file.
const BLOCK: u64 = 1024;

/// `quota`.
pub fn quota(context: &Context, options: QuotaOptions) -> Result<ExitCode, Failure> {
    block_on(async {
        let places = Caller::new(Bus::connect().await?, options.subject).places().await?;
        let places = value::records(&places);
        let missing: Vec<String> = places.iter().filter_map(missing).collect();
        if options.format == QuotaFormat::Ood {
            // Half of the numbers would be read as all of them.
            if let Some(missing) = missing.into_iter().next() {
                return Err(Failure::new(Code::QuotaCommandFailed, missing));
            }
            output::print(&format!("{}\n", on_demand(&places, crate::time::now_seconds())))?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut records = Vec::new();
        for place in &places {
            for mut record in quotas(place) {
                record.insert("path".into(), place.get("path").cloned().unwrap_or_default());
                if !context.json {
                    shown_quota(&mut record);
                }
                records.push(record);
            }
        }
        context.output.records(&records, &QUOTA)?;
        for missing in missing {
            output::note(&missing)?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// `alert`.
pub fn alert(context: &Context, command: AlertCommand) -> Result<ExitCode, Failure> {
    let AlertCommand::List { application, account } = command;
    let filters = [
        ("application", Some(application.to_string())),
        ("account", account.map(|account| account.to_string())),
    ];
    block_on(list(context, "Alerts", &filters, &ALERT))
}

fn quotas(place: &Record) -> Vec<Record> {
    let quotas = place.get("quotas").and_then(Value::as_array).cloned().unwrap_or_default();
    quotas
        .into_iter()
        .filter_map(|quota| if let Value::Object(quota) = quota { Some(quota) } else { None })
        .collect()
}

/// Why the program that tells a place's quotas did not.
fn missing(place: &Record) -> Option<String> {
    let why = place.get("missing").and_then(Value::as_str)?;
    let path = place.get("path").and_then(Value::as_str).unwrap_or_default();
    Some(format!("{path}: its quotas are not known: {why}"))
}

fn number(record: &Record, name: &str) -> Option<u64> {
    record.get(name).and_then(Value::as_u64)
}

/// Bytes as people read them, and a bar of whichever is nearer to its limit.
fn shown_quota(record: &mut Record) {
    let share = |of: &str| {
        let limit =
            number(record, &format!("{of}_hard")).or_else(|| number(record, &format!("{of}_soft")))?;
        Some((number(record, &format!("{of}_used"))?, limit))
    };
    let nearer = |(used, limit): &(u64, u64)| u128::from(*used) * 1_000_000 / u128::from((*limit).max(1));
    if let Some((used, limit)) = ["space", "files"].into_iter().filter_map(share).max_by_key(nearer) {
        record.insert("use".into(), bar(used, limit).into());
    }
    for name in ["space_used", "space_soft", "space_hard"] {
        if let Some(bytes) = number(record, name) {
            record.insert(name.into(), human_bytes(bytes).into());
        }
    }
}

/// How full something is, in ten steps.
pub fn bar(used: u64, limit: u64) -> String {
    let percent = u128::from(used) * 100 / u128::from(limit.max(1));
    let full = usize::try_from(percent / 10).unwrap_or(10).min(10);
    format!("[{}{}] {percent} %", "#".repeat(full), ".".repeat(10 - full))
}

/// How much room there is at the places that can be written, to be added to a sentence.
pub fn room(places: &[Record]) -> String {
    let mut words = String::new();
    let writable = |place: &&Record| place.get("writable").and_then(Value::as_bool) == Some(true);
    for place in places.iter().filter(writable) {
        let path = place.get("path").and_then(Value::as_str).unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = write!(words, "; {path}: {} free", human_bytes(number(place, "free").unwrap_or_default()));
        for quota in quotas(place) {
            let whose = quota.get("whose").and_then(Value::as_str).unwrap_or_default();
            if let (Some(used), Some(hard)) = (number(&quota, "space_used"), number(&quota, "space_hard")) {
                let _ = write!(words, ", {whose}: {} of {} space", human_bytes(used), human_bytes(hard));
            }
            if let (Some(used), Some(hard)) = (number(&quota, "files_used"), number(&quota, "files_hard")) {
                let _ = write!(words, ", {whose}: {used} of {hard} files");
            }
        }
    }
    words
}

/// The quotas in version 1 of the form that the dashboard of `Open OnDemand` reads: blocks of 1024 bytes, 0 for no limit.
fn on_demand(places: &[Record], now: u64) -> Value {
    let mut all = Vec::new();
    for place in places {
        for quota in quotas(place) {
            let whose = quota.get("whose").and_then(Value::as_str).unwrap_or_default();
            let limit = |of: &str| {
                let limit =
                    number(&quota, &format!("{of}_hard")).or_else(|| number(&quota, &format!("{of}_soft")));
                limit.unwrap_or_default()
            };
            // What others use too is of the sort that the dashboard shows as shared.
            let kind = if whose.starts_with("uid ") { "user" } else { "fileset" };
            all.push(json!({
                "type": kind,
                "user": place.get("os_user"),
                "path": place.get("path"),
                "total_block_usage": number(&quota, "space_used").unwrap_or_default().div_ceil(BLOCK),
                "block_limit": limit("space") / BLOCK,
                "total_file_usage": number(&quota, "files_used").unwrap_or_default(),
                "file_limit": limit("files"),
            }));
        }
    }
    json!({ "version": 1, "timestamp": now, "quotas": all })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_full_as_what_it_shows_and_never_longer() {
        assert_eq!(bar(0, 100), "[..........] 0 %");
        assert_eq!(bar(55, 100), "[#####.....] 55 %");
        assert_eq!(bar(300, 100), "[##########] 300 %");
        assert_eq!(bar(u64::MAX, u64::MAX), "[##########] 100 %");
        assert_eq!(bar(1, 0), "[##########] 100 %");
    }

    fn place() -> Record {
        let Value::Object(place) = json!({
            "path": "/data/lab1", "os_user": "alice", "writable": true, "free": 2048,
            "quotas": [
                {"whose": "uid 1001", "space_used": 4097, "space_hard": 10240, "files_used": 9, "files_soft": 10},
                {"whose": "gid 7", "space_used": 1, "files_used": 2},
            ],
        }) else {
            unreachable!()
        };
        place
    }

    #[test]
    fn the_bar_is_that_of_what_is_nearer_to_its_limit() {
        let mut quota = quotas(&place()).remove(0);
        shown_quota(&mut quota);
        assert_eq!(quota["use"], "[#########.] 90 %");
        assert_eq!(quota["space_used"], "4.1 KiB");
    }

    #[test]
    fn open_ondemand_is_given_blocks_and_no_limit_is_zero() {
        let given = on_demand(&[place()], 1_800_000_000);
        assert_eq!(given["version"], 1);
        assert_eq!(given["timestamp"], 1_800_000_000u64);
        assert_eq!(
            given["quotas"][0],
            json!({
                "type": "user", "user": "alice", "path": "/data/lab1", "total_block_usage": 5,
                "block_limit": 10, "total_file_usage": 9, "file_limit": 10,
            })
        );
        assert_eq!(given["quotas"][1]["type"], "fileset");
        assert_eq!(
            (&given["quotas"][1]["block_limit"], &given["quotas"][1]["file_limit"]),
            (&json!(0), &json!(0))
        );
    }

    #[test]
    fn room_is_told_of_what_can_be_written() {
        assert_eq!(room(&[place()]), "; /data/lab1: 2.0 KiB free, uid 1001: 4.1 KiB of 10.0 KiB space");
        let mut closed = place();
        closed.insert("writable".into(), false.into());
        assert_eq!(room(&[closed]), "");
    }
}
