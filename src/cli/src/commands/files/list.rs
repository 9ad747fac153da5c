//! `file ls`: a page where that is all, and else a stream, so that a folder of any size takes the same memory.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;

use deputy_core::denial::Code;
use serde_json::Value;

use super::{Caller, with_octal_mode};
use crate::commands::Context;
use crate::failure::Failure;
use crate::output;
use crate::value::{self, Dictionary, Record};

/// The entries of one page, and of one table of a stream.
const PAGE: u32 = 1000;

/// Up to so many entries are put in order.
const SORTED: usize = 20_000;

const ENTRY: [&str; 6] = ["mode", "uid", "gid", "size", "modified", "name"];

/// `file ls`.
pub async fn list(context: &Context, caller: &Caller, path: &OsStr) -> Result<(), Failure> {
    let body = (caller.name(), path.as_bytes(), caller.options(vec![("limit", PAGE.into())]));
    let (page, more): (Vec<Dictionary>, bool) = caller.bus.call("Files", "List", &body).await?;
    let mut printed = context.output.list(&ENTRY);
    if !more {
        let records: Vec<Record> =
            value::records(&page).into_iter().map(|record| with_octal_mode(context, record)).collect();
        printed.page(&records)?;
        return printed.end();
    }
    let body = (caller.name(), path.as_bytes(), caller.options(Vec::new()));
    let pipe: zbus::OwnedFd = caller.bus.call("Files", "ListStream", &body).await?;
    let mut held: Vec<Record> = Vec::new();
    let mut in_order = true;
    for line in BufReader::new(File::from(OwnedFd::from(pipe))).lines() {
        let mut record: Record = serde_json::from_str(&line?)
            .map_err(|error| Failure::new(Code::Internal, format!("a line of the list: {error}")))?;
        if record.contains_key("result") {
            ended(&record)?;
            if in_order {
                let name = |record: &Record| record.get("name").map(Value::to_string);
                held.sort_by_key(name);
            }
            for page in held.chunks(PAGE as usize) {
                printed.page(page)?;
            }
            return printed.end();
        }
        in_microseconds(&mut record);
        held.push(with_octal_mode(context, record));
        if in_order && held.len() > SORTED {
            in_order = false;
            output::note(&format!("more than {SORTED} entries: in the order of the file system"))?;
        }
        if !in_order && held.len() >= PAGE as usize {
            for page in held.chunks(PAGE as usize) {
                printed.page(page)?;
            }
            held.clear();
        }
    }
    Err(super::ended_early())
}

fn ended(last: &Record) -> Result<(), Failure> {
    match last.get("result").and_then(Value::as_str) {
        Some("done") => Ok(()),
        _ => Err(super::broken_off(last)),
    }
}

/// The time of a change, as `Files.List` has it.
fn in_microseconds(record: &mut Record) {
    let seconds = record.get("modified").and_then(Value::as_i64);
    let nanoseconds = record.remove("modified_ns").and_then(|value| value.as_i64()).unwrap_or_default();
    if let Some(seconds) = seconds {
        let micros = seconds.saturating_mul(1_000_000).saturating_add(nanoseconds / 1000);
        record.insert("modified".into(), micros.into());
    }
}
