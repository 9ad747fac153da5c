//! Memory with a descriptor: what is handed over in it is in no file system, and gone with its last holder.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, memfd_create};

use crate::failure::Failure;

/// Memory that holds this, to be read from its beginning. The name is for people who look at descriptors.
pub fn holding(name: &str, bytes: &[u8]) -> Result<OwnedFd, Failure> {
    let mut memory = File::from(memfd_create(name, MemfdFlags::CLOEXEC).map_err(std::io::Error::from)?);
    memory.write_all(bytes)?;
    memory.rewind()?;
    Ok(memory.into())
}
