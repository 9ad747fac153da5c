//! How many children of one sort live at once, counted by the kernel.
//!
//! A slot is a file that its holder has locked. The lock goes with the process, however it ends, and it survives a
//! restart of the launcher, since the children do.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// A slot that this process holds until it drops it or ends.
#[derive(Debug)]
pub struct Slot(File);

impl AsFd for Slot {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Takes one of `count` slots of this sort in a folder that only root can write; none if all are taken.
pub fn take(folder: &Path, sort: &str, count: u16) -> io::Result<Option<Slot>> {
    if count == 0 {
        return Ok(None);
    }
    // Beginning anywhere keeps the search short while slots are left.
    let start = u16::try_from(crate::process::own_pid().unsigned_abs() % u32::from(count)).unwrap_or(0);
    for index in (start..count).chain(0..start) {
        let path = folder.join(format!("{sort}-{index}"));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => return Ok(Some(Slot(file))),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_no_more_slots_than_said_and_a_dropped_one_is_free_again() {
        let folder = tempfile::tempdir().unwrap();
        let first = take(folder.path(), "job", 2).unwrap();
        let second = take(folder.path(), "job", 2).unwrap();
        assert!(first.is_some() && second.is_some());
        assert!(take(folder.path(), "job", 2).unwrap().is_none());
        assert!(take(folder.path(), "other", 2).unwrap().is_some());
        drop(first);
        assert!(take(folder.path(), "job", 2).unwrap().is_some());
        assert!(take(folder.path(), "none", 0).unwrap().is_none());
    }
}
