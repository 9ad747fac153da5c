//! What is in a folder: a page in order, or all of it as it comes.

use std::collections::BTreeSet;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};

use deputy_core::message::{FileEntry, FileReply, MAX_ENTRIES};
use rustix::fs::{FileType, RawDir};
use rustix::io::Errno;

use super::CallError;
use super::stat;

/// Bytes of one reading of a folder.
const BUFFER: usize = 64 * 1024;

/// Calls `each` with every entry of a folder but `.` and `..`, until it says that it is enough.
pub fn each(
    folder: &OwnedFd,
    mut each: impl FnMut(&[u8], FileType) -> Result<bool, CallError>,
) -> Result<(), CallError> {
    let mut buffer = vec![MaybeUninit::uninit(); BUFFER];
    let mut entries = RawDir::new(folder.as_fd(), &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Err(Errno::INTR) => continue,
            other => other?,
        };
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." && !each(name, entry.file_type())? {
            break;
        }
    }
    Ok(())
}

/// The first entries after a name, in the order of their bytes. The whole folder is read, and as many names kept as
/// the page has.
pub fn page(folder: &OwnedFd, after: &[u8], limit: u32) -> Result<FileReply, CallError> {
    let limit = limit.clamp(1, MAX_ENTRIES) as usize;
    let mut names: BTreeSet<Vec<u8>> = BTreeSet::new();
    let mut more = false;
    each(folder, |name, _| {
        let wanted = name > after;
        if wanted && (names.len() < limit || names.last().is_some_and(|last| name < last.as_slice())) {
            names.insert(name.to_vec());
        } else {
            more |= wanted;
        }
        if names.len() > limit {
            names.pop_last();
            more = true;
        }
        Ok(true)
    })?;
    // One that has gone since is not there.
    let entries = names.into_iter().filter_map(|name| entry(folder, name)).collect();
    Ok(FileReply::Entries { entries, more })
}

/// An entry with what is known of it; none if it has gone.
pub fn entry(folder: &OwnedFd, name: Vec<u8>) -> Option<FileEntry> {
    match stat::of(folder, &name) {
        Ok(stat) => Some(FileEntry { name, stat: Some(stat) }),
        Err(Errno::NOENT) => None,
        Err(_) => Some(FileEntry { name, stat: None }),
    }
}
