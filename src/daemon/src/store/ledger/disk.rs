//! The one file that is written: append, put on disk, take back.
//!
//! The same open file description writes and syncs: an error of the disk's is reported only to those who had the
//! file open when it happened.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// A segment open for writing.
#[derive(Debug)]
pub struct Disk {
    file: File,
    #[cfg(test)]
    pub faults: Faults,
}

/// What is to fail next, in tests.
#[cfg(test)]
#[derive(Debug, Default, Clone)]
pub struct Faults(pub std::sync::Arc<std::sync::Mutex<FaultPlan>>);

/// Which calls fail.
#[cfg(test)]
#[derive(Debug, Default)]
pub struct FaultPlan {
    /// Writes fail with ENOSPC after this many bytes.
    pub write_after: Option<usize>,
    /// Syncs fail with EIO.
    pub sync: bool,
    /// Truncations fail with EIO.
    pub truncate: bool,
}

impl Disk {
    /// Takes over an open file.
    pub fn new(file: File) -> Self {
        Self {
            file,
            #[cfg(test)]
            faults: Faults::default(),
        }
    }

    /// Writes all of `bytes` at `offset`.
    pub fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        #[cfg(test)]
        if let Some(after) = self.faults.0.lock().unwrap().write_after {
            self.file.write_all_at(&bytes[..after.min(bytes.len())], offset)?;
            return Err(rustix::io::Errno::NOSPC.into());
        }
        self.file.write_all_at(bytes, offset)
    }

    /// Puts what was written, and the file's length, on disk.
    pub fn sync(&self) -> io::Result<()> {
        #[cfg(test)]
        if self.faults.0.lock().unwrap().sync {
            return Err(rustix::io::Errno::IO.into());
        }
        self.file.sync_data()
    }

    /// Cuts the file off at `length`.
    pub fn truncate(&self, length: u64) -> io::Result<()> {
        #[cfg(test)]
        if self.faults.0.lock().unwrap().truncate {
            return Err(rustix::io::Errno::IO.into());
        }
        self.file.set_len(length)
    }

    /// Reads `length` bytes from `offset`.
    pub fn read(&self, offset: u64, length: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }
}
