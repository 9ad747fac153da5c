//! What is known of files, as records.

use std::fmt::Write as _;

use deputy_core::message::{FileEntry, FilePlace, FileStat, FileTime};
use deputy_core::quota::{Amount, QuotaUsage, human_bytes};

use crate::bus::record::{self, Record};

/// Microseconds since 1970, negative before.
fn micros(time: FileTime) -> i64 {
    time.seconds.saturating_mul(1_000_000).saturating_add(i64::from(time.nanoseconds / 1000))
}

/// What a name stands for.
pub fn stat(stat: &FileStat) -> Record {
    with_stat(Record::new(), stat)
}

fn with_stat(record: Record, stat: &FileStat) -> Record {
    record
        .text("kind", stat.kind.as_str())
        .with("mode", stat.mode)
        .with("uid", stat.uid)
        .with("gid", stat.gid)
        .with("size", stat.size)
        .with("allocated", stat.allocated)
        .with("links", stat.links)
        .with("inode", stat.inode)
        .with("device", stat.device)
        .with("accessed", micros(stat.accessed))
        .with("modified", micros(stat.modified))
        .with("changed", micros(stat.changed))
}

/// An entry of a folder.
pub fn entry(entry: FileEntry) -> Record {
    let record = Record::new().with("name", entry.name);
    match &entry.stat {
        Some(stat) => with_stat(record, stat),
        None => record,
    }
}

/// Space and quotas of a root.
pub fn place(place: FilePlace) -> Record {
    let quotas = place.quotas.iter().map(quota).collect();
    Record::new()
        .with("path", place.path)
        .with("writable", place.writable)
        .with("size", place.size)
        .with("free", place.free)
        .with("files", place.files)
        .with("files_free", place.files_free)
        .with("quotas", record::list(quotas))
}

fn quota(usage: &QuotaUsage) -> Record {
    let QuotaUsage { whose, space, files } = usage;
    Record::new()
        .text("whose", whose)
        .with("space_used", space.used)
        .maybe("space_soft", space.soft)
        .maybe("space_hard", space.hard)
        .maybe("space_grace_ends", space.grace_ends)
        .with("files_used", files.used)
        .maybe("files_soft", files.soft)
        .maybe("files_hard", files.hard)
        .maybe("files_grace_ends", files.grace_ends)
}

/// How much room there is, in a sentence behind a refusal.
pub fn room(places: &[FilePlace]) -> String {
    let mut words = String::new();
    for place in places.iter().filter(|place| place.writable) {
        let path = String::from_utf8_lossy(&place.path);
        // Writing to a String cannot fail.
        let _ = write!(words, "; {path}: {} free", human_bytes(place.free));
        for QuotaUsage { whose, space, files } in &place.quotas {
            for (amount, what, show) in [(space, "space", true), (files, "files", false)] {
                if let Amount { used, hard: Some(hard), .. } = amount {
                    let shown = |number: u64| if show { human_bytes(number) } else { number.to_string() };
                    let _ = write!(words, ", {whose}: {} of {} {what}", shown(*used), shown(*hard));
                }
            }
        }
    }
    words
}
