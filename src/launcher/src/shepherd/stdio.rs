//! The three descriptors that a request brings: only files, pipes, sockets and a few devices pass.

use std::os::fd::OwnedFd;

use deputy_core::denial::{Code, Denial};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat, major, minor};

/// The memory devices that are no more than they seem: null, zero, full, random, urandom.
const HARMLESS_DEVICES: [(u32, u32); 5] = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9)];

/// Exactly three, each of a sort that can be standard input or output. A terminal is refused: a job that shares one
/// with other processes could type into it (CVE-2005-4890).
pub fn check(descriptors: Vec<OwnedFd>) -> Result<[OwnedFd; 3], Denial> {
    let stdio: [OwnedFd; 3] = descriptors.try_into().map_err(|wrong: Vec<OwnedFd>| {
        refused(format!("a job takes exactly three descriptors, not {}", wrong.len()))
    })?;
    for (descriptor, name) in stdio.iter().zip(["standard input", "standard output", "standard error"]) {
        check_one(descriptor, name, name == "standard input")?;
    }
    Ok(stdio)
}

fn refused(message: String) -> Denial {
    Denial::new(Code::BadMessage, "descriptors", message)
        .remedy("pass regular files, pipes or sockets; /dev/null for what is not needed")
}

fn check_one(descriptor: &OwnedFd, name: &str, is_input: bool) -> Result<(), Denial> {
    let unknown = |_| refused(format!("{name} cannot be looked at"));
    let stat = fstat(descriptor).map_err(unknown)?;
    let fits = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile | FileType::Fifo | FileType::Socket => true,
        FileType::CharacterDevice => HARMLESS_DEVICES.contains(&(major(stat.st_rdev), minor(stat.st_rdev))),
        _ => false,
    };
    if !fits {
        return Err(refused(format!("{name} is not a regular file, a pipe, a socket or /dev/null")));
    }
    let flags = fcntl_getfl(descriptor).map_err(unknown)?;
    let mode = flags & OFlags::RWMODE;
    let right_way = if is_input { mode != OFlags::WRONLY } else { mode != OFlags::RDONLY };
    if flags.contains(OFlags::PATH) || !right_way {
        return Err(refused(format!(
            "{name} is not open for {}",
            if is_input { "reading" } else { "writing" }
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, OpenOptions};
    use std::os::unix::fs::OpenOptionsExt as _;

    fn null() -> OwnedFd {
        OpenOptions::new().read(true).write(true).open("/dev/null").unwrap().into()
    }

    fn open(path: &str, flags: OFlags) -> OwnedFd {
        let flags = i32::try_from(flags.bits()).unwrap();
        OpenOptions::new().read(true).custom_flags(flags).open(path).unwrap().into()
    }

    #[test]
    fn what_is_no_file_pipe_or_socket_is_refused() {
        assert!(check(vec![]).is_err());
        assert!(check(vec![null(), null()]).is_err());
        assert!(check(vec![null(), null(), null(), null()]).is_err());
        assert!(check(vec![File::open("/").unwrap().into(), null(), null()]).is_err());
        assert!(check(vec![open("/", OFlags::PATH), null(), null()]).is_err());
        assert!(check(vec![open("/etc/passwd", OFlags::PATH), null(), null()]).is_err());
        assert!(check(vec![null(), File::open("/etc/passwd").unwrap().into(), null()]).is_err());
        let terminal = open("/dev/ptmx", OFlags::NOCTTY);
        assert!(check(vec![terminal, null(), null()]).is_err());
        let (reader, writer) = std::io::pipe().unwrap();
        assert!(check(vec![writer.into(), null(), null()]).is_err());
        assert!(check(vec![null(), reader.into(), null()]).is_err());
    }

    #[test]
    fn files_pipes_sockets_and_null_pass() {
        let (reader, writer) = std::io::pipe().unwrap();
        assert!(check(vec![reader.into(), writer.into(), null()]).is_ok());
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(check(vec![ours.into(), theirs.into(), null()]).is_ok());
    }
}
