//! Files that are being written, kept so that the kernel's error is seen.
//!
//! The agent keeps a duplicate of the descriptor that it gave away: the same open file description, since an fsync(2) of
//! another one may not tell an error of this one.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use deputy_core::denial::{Code, Denial};
use deputy_core::message::MAX_KEPT;
use rustix::fs::fsync;

use super::CallError;

/// Files by their handles.
#[derive(Default)]
pub struct Kept {
    files: BTreeMap<u32, OwnedFd>,
    latest: u32,
}

impl Kept {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Whether one more may be kept. Asked before anything is opened, and so made.
    pub fn has_room(&self) -> Result<(), Denial> {
        if self.files.len() < MAX_KEPT {
            return Ok(());
        }
        Err(Denial::new(Code::Busy, "file agent", format!("{MAX_KEPT} files wait to be committed already"))
            .remedy("commit some of them"))
    }

    /// Keeps a file. The handle is never given twice.
    pub fn keep(&mut self, file: &OwnedFd) -> Result<u32, CallError> {
        let kept = file.try_clone()?;
        self.latest += 1;
        self.files.insert(self.latest, kept);
        Ok(self.latest)
    }

    /// Writes a file's data to the disk, unless nobody wants them, and keeps it no longer.
    pub fn commit(&mut self, handle: u32, discard: bool) -> Result<(), CallError> {
        let file = self.files.remove(&handle).ok_or_else(Denial::not_found)?;
        if discard { Ok(()) } else { Ok(fsync(&file)?) }
    }
}
