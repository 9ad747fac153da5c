//! What is known of files, as records.

use deputy_core::message::{FileEntry, FileStat, FileTime};
use deputy_core::quota::QuotaUsage;
use deputy_core::{Denial, OsUserName};

use super::quota::Told;

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

/// Why one of several was refused.
pub fn refusal(denial: &Denial) -> Record {
    Record::new().text("error", denial.code).text("message", &denial.message)
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
pub fn place((place, missing): Told, os_user: &OsUserName) -> Record {
    let quotas = place.quotas.iter().map(quota).collect();
    Record::new()
        .with("path", place.path)
        .text("os_user", os_user)
        .with("filesystem", place.filesystem)
        .maybe("missing", missing.map(|denial| denial.message))
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
