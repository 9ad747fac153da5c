//! Going down into a tree and up again.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use crate::agent::CallError;
use crate::agent::resolve::{LOOK, identity};

/// How many folders above the present one stay open.
const OPEN: usize = 64;

/// A folder above the present one.
struct Above {
    identity: (u64, u64),
    folder: Option<OwnedFd>,
}

/// A place in a tree.
pub struct Descent {
    folder: OwnedFd,
    above: Vec<Above>,
}

impl Descent {
    /// Begins in a folder.
    pub fn new(folder: OwnedFd) -> Self {
        Self { folder, above: Vec::new() }
    }

    /// The present folder.
    pub fn folder(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    /// The same, for reading it.
    pub fn owned(&self) -> &OwnedFd {
        &self.folder
    }

    /// Device and inode of the present folder.
    pub fn identity(&self) -> Result<(u64, u64), CallError> {
        identity(&self.folder).ok_or_else(|| Errno::IO.into())
    }

    /// Goes into a folder of this name, which is no link.
    pub fn down(&mut self, name: &[u8]) -> Result<(), CallError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let inner = openat(&self.folder, name, flags, Mode::empty())?;
        let identity = self.identity()?;
        let outer = std::mem::replace(&mut self.folder, inner);
        self.above.push(Above { identity, folder: Some(outer) });
        if let Some(far) = self.above.len().checked_sub(OPEN + 1) {
            self.above[far].folder = None;
        }
        Ok(())
    }

    /// Goes back.
    pub fn up(&mut self) -> Result<(), CallError> {
        let above = self.above.pop().ok_or(Errno::INVAL)?;
        self.folder = match above.folder {
            Some(folder) => folder,
            None => openat(&self.folder, "..", LOOK | OFlags::DIRECTORY, Mode::empty())?,
        };
        // It was moved meanwhile: what is above it now is somebody else's.
        if identity(&self.folder) == Some(above.identity) { Ok(()) } else { Err(Errno::AGAIN.into()) }
    }
}
