//! What the administrator does with a store: verify, rebuild, export, import.

use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::change::{Actor, Body, Change};
use super::clock::Timestamp;
use super::error::{Damage, StoreError};
use super::folder::Folder;
use super::ledger::frame::hex;
use super::ledger::{self, Found, Index, SharedIndex, Walk};
use super::open::{self, CleanMark, IMPORTING};
use super::replay;
use super::view::Place;
use super::{Directories, Options, Store};

/// The version of the form of an export.
const EXPORT_VERSION: u32 = 1;
/// How many lines of an import are committed together.
const IMPORT_BATCH: usize = 500;
/// How often a ledger that is being written is looked at again before a fault at its end counts.
const TRIES: u32 = 20;

/// An end of a ledger that does not verify and was never acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tail {
    /// Where it begins, and why it is no record.
    #[serde(flatten)]
    pub at: Damage,
    /// How many bytes it has.
    pub bytes: u64,
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Whether every byte of the ledger verifies.
    pub whole: bool,
    /// Whether another process has the store open.
    pub in_use: bool,
    /// How many segments there are.
    pub segments: usize,
    /// The number of the last record that verifies, all before it included.
    pub last_number: u64,
    /// That record's hash, in hexadecimal.
    pub hash: String,
    /// What does not verify.
    pub damage: Option<Damage>,
    /// What a crash left behind the last record. The next start puts it aside.
    pub tail: Option<Tail>,
}

/// Reads the whole ledger in `directory` and checks every record, the chain, and the mark of the last orderly close.
///
/// Changes nothing, and works while the daemon runs.
pub fn verify(directory: &Path) -> Result<VerifyReport, StoreError> {
    let folder = Folder::open(directory, false)?;
    let mut tries = 0;
    let mut first_end = None;
    loop {
        tries += 1;
        let (found, in_use) = look(&folder)?;
        let (tip, segments, tail, damage) = match found {
            Ok(Some(found)) => {
                let tail = found.tail.map(|tail| Tail { at: tail.damage, bytes: tail.bytes.len() as u64 });
                (found.tip, found.spans.len(), tail, None)
            }
            Ok(None) => (ledger::Tip::default(), 0, None, None),
            Err(damage) => (ledger::Tip::default(), ledger::segments(&folder)?.len(), None, Some(damage)),
        };
        let end = tail.as_ref().map(|tail| tail.at.record);
        // The daemon came on since the first look: its end moves, and what is behind it is being written.
        let moves = in_use && end.is_some() && end != *first_end.get_or_insert(end);
        let at_end = damage.as_ref().is_none_or(|d| {
            ledger::segments(&folder)
                .is_ok_and(|all| all.last().is_some_and(|s| ledger::name_of(s.first) == d.segment))
        });
        if in_use && (damage.is_some() || tail.is_some()) && at_end && !moves && tries < TRIES {
            // A group that is being written looks like that for a moment.
            std::thread::sleep(Duration::from_millis(20));
            continue;
        }
        return Ok(VerifyReport {
            whole: damage.is_none() && (tail.is_none() || moves),
            in_use,
            segments,
            last_number: damage.as_ref().map_or(tip.number, |damage| damage.record.saturating_sub(1)),
            hash: if damage.is_none() { hex(&tip.hash) } else { String::new() },
            damage,
            tail,
        });
    }
}

/// One look at the ledger: what was found, or the damage; and whether it is in use.
fn look(folder: &Folder) -> Result<(Result<Option<Found>, Damage>, bool), StoreError> {
    let in_use = folder.is_locked()?;
    let found = ledger::inspect(folder, u64::MAX, |frame| replay::entry(frame).map(drop));
    // The mark is read after the ledger: a close in between moves both on.
    let clean = CleanMark::read(folder);
    let found = found.and_then(|found| {
        match (&found, clean?) {
            (Some(found), Some(clean)) if !in_use => clean.check(found)?,
            (None, Some(clean)) => clean.check_empty()?,
            _ => {}
        }
        Ok(found)
    });
    match found {
        Ok(found) => Ok((Ok(found), in_use)),
        Err(StoreError::Damaged(damage) | StoreError::Newer(damage)) => Ok((Err(damage), in_use)),
        Err(error) => Err(error),
    }
}

/// Makes the view anew from the ledger. The daemon must not run.
///
/// Returns the number of the last record.
pub fn rebuild(directories: &Directories, options: Options) -> Result<u64, StoreError> {
    // Without a ledger there is nothing to make a view of; a typing error must not make an empty store.
    Folder::open(&directories.ledger, false)?;
    Place::open(&directories.view, &options.boot)?.forget()?;
    let (store, report) = Store::open_with(directories, options)?;
    store.close_blocking()?;
    Ok(report.last_number)
}

/// The first line of an export.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExportHead {
    deputy_export: u32,
    identity: String,
    records: u64,
    hash: String,
}

/// Another line of an export.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExportLine {
    number: u64,
    at: Timestamp,
    actor: Actor,
    change: Change,
}

/// Writes all records as JSON lines, after a first line that says how many there are. Works while the daemon runs.
///
/// Returns how many records were written.
pub fn export(directories: &Directories, out: &mut impl Write) -> Result<u64, StoreError> {
    export_after(directories, out, |_| Ok(()))
}

/// The same, after something else that is written when it is certain which records there will be.
pub fn export_after<W: Write, E: From<StoreError>>(
    directories: &Directories,
    out: &mut W,
    first: impl FnOnce(&mut W) -> Result<(), E>,
) -> Result<u64, E> {
    let folder = Arc::new(Folder::open(&directories.ledger, false)?);
    let none = || StoreError::Untrusted { path: directories.ledger.clone(), why: "holds no ledger" };
    let found = ledger::inspect(&folder, 0, |_| Ok(()))?.ok_or_else(none)?;
    let index = SharedIndex::new(Index { identity: found.identity, spans: found.spans, tip: found.tip });
    let head = ExportHead {
        deputy_export: EXPORT_VERSION,
        identity: hex(&found.identity),
        records: found.tip.number,
        hash: hex(&found.tip.hash),
    };
    first(out)?;
    write_line(out, &head)?;
    let mut walk = Walk::new(folder, &index, 1);
    while let Some(frame) = walk.advance()? {
        let entry = replay::entry(&frame)?;
        let line =
            ExportLine { number: entry.number, at: entry.at, actor: entry.actor, change: entry.change };
        write_line(out, &line)?;
    }
    out.flush().map_err(|e| StoreError::io("the export", e))?;
    Ok(found.tip.number)
}

fn write_line(out: &mut impl Write, line: &impl Serialize) -> Result<(), StoreError> {
    let mut bytes = serde_json::to_vec(line).expect("lines have string keys only");
    bytes.push(b'\n');
    out.write_all(&bytes).map_err(|e| StoreError::io("the export", e))
}

/// Takes an export into an empty store. The daemon must not run. Consent is not part of it: no link that comes this
/// way can be used before its owner, or root, consents on this machine.
///
/// All lines are taken, or none. Returns how many records came in.
pub fn import(
    directories: &Directories,
    options: Options,
    input: &mut impl BufRead,
) -> Result<u64, StoreError> {
    let open::Prepared { mut writer, report, .. } = open::prepare(directories, options)?;
    if report.last_number > 0 {
        let why = "is not empty: an import goes into a new store only";
        return Err(StoreError::Untrusted { path: directories.ledger.clone(), why });
    }
    let folder = Arc::clone(&writer.inner.folder);
    // Whatever happens before the end, the next start sees that this is no whole store.
    folder.replace(IMPORTING, b"")?;
    let result = take_lines(&mut writer, input);
    match result {
        Ok(records) => {
            folder.remove(IMPORTING)?;
            folder.sync()?;
            writer.close()?;
            Ok(records)
        }
        Err(error) => {
            writer.place.forget()?;
            for span in ledger::segments(&folder)? {
                folder.remove(&ledger::name_of(span.first))?;
            }
            folder.sync()?;
            folder.remove(IMPORTING)?;
            Err(error)
        }
    }
}

fn take_lines(writer: &mut super::writer::Writer, input: &mut impl BufRead) -> Result<u64, StoreError> {
    let mut lines = input.lines();
    let mut number = 0;
    let mut line = |number: u64| -> Result<Option<String>, StoreError> {
        let bad = |e: std::io::Error| StoreError::Import { line: number, what: e.to_string() };
        lines.next().transpose().map_err(bad)
    };
    let wrong = |line: u64, what: String| StoreError::Import { line, what };
    let first = line(1)?.ok_or_else(|| wrong(1, "it is empty".to_owned()))?;
    let head: ExportHead = serde_json::from_str(&first).map_err(|e| wrong(1, e.to_string()))?;
    if head.deputy_export != EXPORT_VERSION {
        return Err(wrong(1, format!("version {} is not known here", head.deputy_export)));
    }
    let mut batch = Vec::new();
    while let Some(text) = line(number + 2)? {
        let parsed: ExportLine = serde_json::from_str(&text).map_err(|e| wrong(number + 2, e.to_string()))?;
        number += 1;
        if parsed.number != number {
            return Err(wrong(number + 1, format!("record {} where {number} should be", parsed.number)));
        }
        batch.push(Body { at: parsed.at, actor: parsed.actor, change: parsed.change });
        if batch.len() == IMPORT_BATCH {
            let taken = std::mem::take(&mut batch);
            writer.import(taken).map_err(|e| in_lines(number + 1, e))?;
        }
    }
    if number != head.records {
        return Err(wrong(number + 1, format!("it ends after {number} of {} records", head.records)));
    }
    if !batch.is_empty() {
        writer.import(batch).map_err(|e| in_lines(number + 1, e))?;
    }
    let change = Change::Imported { records: head.records, identity: head.identity, hash: head.hash };
    writer.commit_own(change, Actor::daemon("import"))?;
    Ok(head.records)
}

/// A record that does not fit to those before it is the import's fault.
fn in_lines(last: u64, error: StoreError) -> StoreError {
    match error {
        StoreError::Conflict { .. } | StoreError::NotFound { .. } | StoreError::TooLarge { .. } => {
            StoreError::Import {
                line: last,
                what: format!("in the {IMPORT_BATCH} lines up to here: {error}"),
            }
        }
        other => other,
    }
}
