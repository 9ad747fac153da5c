//! A program that comes with the request: a copy that nobody can change any more.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;

use deputy_core::denial::Denial;
use rustix::fs::{MemfdFlags, Mode, SealFlags, fchmod, fcntl_add_seals, memfd_create};

/// Its copy, in memory, sealed: whatever the sender does to its own afterwards has no effect.
pub struct Script {
    memfd: OwnedFd,
    bytes: usize,
}

impl Script {
    /// Copies it.
    pub fn seal(bytes: &[u8]) -> Result<Self, Denial> {
        if bytes.is_empty() {
            return Err(Denial::invalid("the script is empty"));
        }
        let memfd = copy(bytes).map_err(|error| Denial::internal(format!("the script's copy: {error}")))?;
        Ok(Self { memfd, bytes: bytes.len() })
    }

    /// How many bytes it has.
    pub fn size(&self) -> usize {
        self.bytes
    }

    /// The whole of it.
    pub fn contents(&self) -> Result<Vec<u8>, Denial> {
        let mut bytes = vec![0; self.bytes];
        let file = self.memfd.try_clone().map(File::from);
        file.and_then(|file| file.read_exact_at(&mut bytes, 0))
            .map_err(|error| Denial::internal(format!("the script's copy: {error}")))?;
        Ok(bytes)
    }

    /// What is executed.
    pub fn into_descriptor(self) -> OwnedFd {
        self.memfd
    }
}

fn copy(bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 do not know that it is to be executed, and let it be.
    let memfd = match memfd_create("deputy-script", flags | MemfdFlags::EXEC) {
        Err(rustix::io::Errno::INVAL) => memfd_create("deputy-script", flags)?,
        other => other?,
    };
    let mut file = File::from(memfd);
    file.write_all(bytes)?;
    // Its interpreter opens it as the user; it is root's, so that the user cannot change this.
    fchmod(&file, Mode::from_raw_mode(0o555))?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_copy_cannot_be_changed() {
        assert!(Script::seal(b"").is_err());
        let script = Script::seal(b"#!/bin/sh\n").unwrap();
        assert_eq!(script.size(), 10);
        let file = File::from(script.into_descriptor());
        assert!(file.write_at(b"x", 0).is_err());
        assert!(file.set_len(0).is_err());
        assert!(file.set_len(100).is_err());
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o7777, 0o555);
        let mut text = String::new();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        File::open(path).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "#!/bin/sh\n");
    }
}
