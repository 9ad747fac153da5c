//! A password on its way in: out of a descriptor, into memory that is wiped.
//!
//! The other end is a client's and may do anything: never write, write for ever, or be something else than it says.
//! So what is not a pipe or a sealed memfd is refused before a byte is read, and a pipe is never read itself: what is in
//! it is moved into a pipe of our own without blocking. Reading the client's would need `O_NONBLOCK` on a description
//! that the client shares, and can clear again in the moment between the look and the read.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deputy_core::Denial;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, SealFlags, fcntl_get_seals, fstat};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
use zeroize::Zeroizing;

/// The most bytes of a password.
pub const MAX_BYTES: usize = 1024;

/// How long a pipe may take until its end.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A password. It is wiped when the last clone goes, and is never printed.
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<Vec<u8>>>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// Takes bytes over.
    pub fn new(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(Arc::new(bytes))
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text, if it can be a new password: text, not empty, without control characters.
    pub fn text(&self) -> Option<&str> {
        let text = std::str::from_utf8(&self.0).ok()?;
        (!text.is_empty() && !text.chars().any(char::is_control)).then_some(text)
    }

    /// Reads a password to its end; a line feed at the end is not part of it. Blocks for [`PATIENCE`] at most.
    pub fn read(descriptor: OwnedFd) -> Result<Self, Denial> {
        Self::read_within(descriptor, PATIENCE)
    }

    fn read_within(descriptor: OwnedFd, patience: Duration) -> Result<Self, Denial> {
        let stat = fstat(&descriptor).map_err(|_| not_one())?;
        let mut bytes = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Fifo => read_pipe(&descriptor, patience)?,
            FileType::RegularFile => read_memfd(descriptor)?,
            _ => return Err(not_one()),
        };
        if bytes.len() > MAX_BYTES {
            return Err(Denial::invalid(format!("a password has at most {MAX_BYTES} bytes")));
        }
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        Ok(Self::new(bytes))
    }
}

fn not_one() -> Denial {
    Denial::invalid("a password comes through a pipe, or in a memfd with all seals")
        .remedy("write it into a pipe and close that, or seal the memfd (F_SEAL_SEAL, SHRINK, GROW, WRITE)")
}

/// What is in a sealed memfd. Without the seals it could change, or shrink, while it is read.
fn read_memfd(descriptor: OwnedFd) -> Result<Zeroizing<Vec<u8>>, Denial> {
    let needed = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    let sealed = fcntl_get_seals(&descriptor).is_ok_and(|seals| seals.contains(needed));
    if !sealed {
        return Err(not_one());
    }
    let file = File::from(descriptor);
    let mut bytes = buffer();
    let mut filled = 0;
    while filled <= MAX_BYTES {
        match file.read_at(&mut bytes[filled..], filled as u64).map_err(|_| not_one())? {
            0 => break,
            count => filled += count,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

fn read_pipe(theirs: &OwnedFd, patience: Duration) -> Result<Zeroizing<Vec<u8>>, Denial> {
    let failed = |errno: Errno| Denial::internal(format!("a pipe: {errno}"));
    let deadline = Instant::now() + patience;
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(failed)?;
    let mut reader = File::from(reader);
    let mut bytes = buffer();
    let mut filled = 0;
    loop {
        // One byte more than a password has shows that there is more; nothing beyond that is taken.
        let room = MAX_BYTES + 1 - filled;
        if room == 0 {
            return Ok(bytes);
        }
        match splice(theirs, None, &writer, None, room, SpliceFlags::NONBLOCK) {
            Ok(0) => {
                bytes.truncate(filled);
                return Ok(bytes);
            }
            Ok(mut moved) => {
                while moved > 0 {
                    let count = reader
                        .read(&mut bytes[filled..filled + moved])
                        .map_err(|error| Denial::internal(format!("a pipe: {error}")))?;
                    filled += count;
                    moved -= count;
                }
            }
            Err(Errno::AGAIN) => wait(theirs, deadline)?,
            Err(Errno::INTR) => {}
            // The wrong end, or not to be read.
            Err(_) => return Err(not_one()),
        }
    }
}

/// Waits until something has come into the pipe, or nobody can write to it any more.
fn wait(pipe: &OwnedFd, deadline: Instant) -> Result<(), Denial> {
    let late = || {
        Denial::invalid("the password did not come to its end in time")
            .remedy("write it, and close every copy of the pipe's other end")
    };
    let left = deadline.checked_duration_since(Instant::now()).ok_or_else(late)?;
    let timeout = Timespec::try_from(left).map_err(|_| late())?;
    match poll(&mut [PollFd::new(pipe, PollFlags::IN)], Some(&timeout)) {
        Ok(0) => Err(late()),
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(Denial::internal(format!("a pipe: {}", io::Error::from(errno)))),
    }
}

/// Room for the largest password and a byte: it never grows, so no copy of it is left behind.
fn buffer() -> Zeroizing<Vec<u8>> {
    Zeroizing::new(vec![0; MAX_BYTES + 1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, fcntl_add_seals, memfd_create};
    use std::io::Write as _;

    const SEALS: SealFlags =
        SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);

    fn memfd(content: &[u8], seals: SealFlags) -> OwnedFd {
        let fd = memfd_create("password", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).unwrap();
        let mut file = File::from(fd);
        file.write_all(content).unwrap();
        let fd = OwnedFd::from(file);
        fcntl_add_seals(&fd, seals).unwrap();
        fd
    }

    fn pipe_with_content(content: &[u8]) -> OwnedFd {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(content).unwrap();
        reader.into()
    }

    #[test]
    fn what_is_neither_a_pipe_nor_a_sealed_memfd_is_not_read() {
        let (_ours, theirs) = deputy_wire::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        let (_reader, writer) = io::pipe().unwrap();
        let some = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
        for descriptor in [
            theirs,
            file.into(),
            File::open("/").unwrap().into(),
            File::open("/dev/zero").unwrap().into(),
            File::open("/dev/ptmx").unwrap().into(),
            writer.into(),
            memfd(b"secret", SealFlags::empty()),
            memfd(b"secret", some),
        ] {
            let denial = Secret::read(descriptor).unwrap_err();
            assert_eq!(denial.code, deputy_core::Code::InvalidArgument);
            assert!(denial.remedy.contains("pipe"), "{denial:?}");
        }
    }

    #[test]
    fn what_is_too_long_or_does_not_end_is_refused() {
        assert!(Secret::read(pipe_with_content(&[b'x'; MAX_BYTES + 1])).is_err());
        assert!(Secret::read(memfd(&[b'x'; MAX_BYTES + 1], SEALS)).is_err());
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"begun").unwrap();
        let denial = Secret::read_within(reader.into(), Duration::from_millis(50)).unwrap_err();
        assert!(denial.message.contains("in time"), "{denial:?}");
    }

    #[test]
    fn the_reading_leaves_the_callers_pipe_as_it_was() {
        let (reader, mut writer) = io::pipe().unwrap();
        let copy = reader.try_clone().unwrap();
        writer.write_all(b"x").unwrap();
        drop(writer);
        Secret::read(reader.into()).unwrap();
        let flags = rustix::fs::fcntl_getfl(&copy).unwrap();
        assert!(!flags.contains(rustix::fs::OFlags::NONBLOCK));
    }

    #[test]
    fn a_password_is_what_was_sent_without_the_last_line_feed() {
        for (content, password) in
            [(&b"secret"[..], &b"secret"[..]), (b"two\nlines\n\n", b"two\nlines\n"), (b"", b""), (b"\n", b"")]
        {
            assert_eq!(Secret::read(pipe_with_content(content)).unwrap().bytes(), password);
            assert_eq!(Secret::read(memfd(content, SEALS)).unwrap().bytes(), password);
        }
        let long = [b'x'; MAX_BYTES];
        assert_eq!(Secret::read(pipe_with_content(&long)).unwrap().bytes(), long);
        let (reader, mut writer) = io::pipe().unwrap();
        let slow = std::thread::spawn(move || {
            for part in [&b"in "[..], b"parts"] {
                writer.write_all(part).unwrap();
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        assert_eq!(Secret::read(reader.into()).unwrap().bytes(), b"in parts");
        slow.join().unwrap();
    }

    #[test]
    fn a_password_is_not_printed_and_not_everything_can_be_a_new_one() {
        let of = |bytes: &[u8]| Secret::new(Zeroizing::new(bytes.to_vec()));
        assert_eq!(format!("{:?}", of(b"hunter2")), "Secret(..)");
        for wrong in [&b""[..], b"\xff", b"a\nb", b"a\0b"] {
            assert_eq!(of(wrong).text(), None);
        }
        assert_eq!(of("größer als".as_bytes()).text(), Some("größer als"));
    }
}
