//! The three descriptors of a job: looked at, passed on, never read or written.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use deputy_core::Denial;
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat, major, minor};

/// The character devices that a job may be given: null, zero, full, random, urandom. Terminals are none of them: who
/// shares a terminal with another can type into it.
const MEMORY_DEVICES: u32 = 1;
const HARMLESS: [u32; 5] = [3, 5, 7, 8, 9];

/// The three.
#[derive(Debug)]
pub struct Stdio {
    given: [Option<OwnedFd>; 3],
}

impl Stdio {
    /// Checks what the caller gave.
    pub fn new(
        stdin: Option<OwnedFd>,
        stdout: Option<OwnedFd>,
        stderr: Option<OwnedFd>,
    ) -> Result<Self, Denial> {
        let given = [stdin, stdout, stderr];
        for (fd, name) in given.iter().zip(["stdin", "stdout", "stderr"]) {
            if let Some(fd) = fd {
                check(fd.as_fd(), name)?;
            }
        }
        Ok(Self { given })
    }

    /// What goes to the launcher: those that were given, and `/dev/null` for the others.
    pub fn descriptors<'a>(&'a self, null: &'a OwnedFd) -> [BorrowedFd<'a>; 3] {
        self.given.each_ref().map(|fd| fd.as_ref().unwrap_or(null).as_fd())
    }
}

fn check(fd: BorrowedFd<'_>, name: &str) -> Result<(), Denial> {
    let unusable = |_| Denial::invalid(format!("{name} is not a descriptor that can be used"));
    let stat = fstat(fd).map_err(unusable)?;
    let flags = fcntl_getfl(fd).map_err(unusable)?;
    // A device's number has 64 bits here and 32 elsewhere; its parts always fit.
    let sort_allowed = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile | FileType::Fifo | FileType::Socket => true,
        FileType::CharacterDevice => {
            major(stat.st_rdev) == MEMORY_DEVICES && HARMLESS.contains(&minor(stat.st_rdev))
        }
        _ => false,
    };
    if !sort_allowed || flags.contains(OFlags::PATH) {
        return Err(Denial::invalid(format!("{name} is not a file, a pipe, a socket or /dev/null"))
            .remedy("a terminal cannot be passed to a job: give one end of a pipe, and copy"));
    }
    let mode = flags & OFlags::RWMODE;
    let usable = if name == "stdin" { mode != OFlags::WRONLY } else { mode != OFlags::RDONLY };
    if usable {
        Ok(())
    } else {
        Err(Denial::invalid(format!(
            "{name} is not open for {}",
            if name == "stdin" { "reading" } else { "writing" }
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Mode, open};

    fn fd(path: &str, flags: OFlags) -> OwnedFd {
        open(path, flags, Mode::empty()).unwrap()
    }

    #[test]
    fn folders_terminals_paths_and_the_wrong_direction_are_refused() {
        let terminal = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR).unwrap();
        let refused = [
            fd("/tmp", OFlags::RDONLY),
            fd("/dev/null", OFlags::PATH),
            fd("/dev/null", OFlags::WRONLY),
            terminal,
        ];
        for descriptor in refused {
            assert!(Stdio::new(Some(descriptor), None, None).is_err());
        }
        assert!(Stdio::new(None, Some(fd("/dev/null", OFlags::RDONLY)), None).is_err());
    }

    #[test]
    fn pipes_and_null_are_passed_on_and_what_is_missing_is_null() {
        let (reader, writer) = std::io::pipe().unwrap();
        let null = fd("/dev/null", OFlags::RDWR);
        let stdio = Stdio::new(Some(reader.into()), Some(writer.into()), None).unwrap();
        let [_, _, stderr] = stdio.descriptors(&null);
        assert_eq!(fstat(stderr).unwrap().st_rdev, fstat(&null).unwrap().st_rdev);
    }
}
