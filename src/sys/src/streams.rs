//! A job's standard input, output and error, put in place by its own process before it executes its program.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use deputy_core::job::Step;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, FcntlArg, OFlag, OpenHow, ResolveFlag, fcntl, openat2};
use nix::sys::stat::{Mode, SFlag, fstat, major, minor};
use nix::unistd::ftruncate;

use crate::launch::{Failure, checked};

/// What becomes of one of the three.
#[derive(Debug)]
pub enum Stream {
    /// This descriptor.
    Descriptor(OwnedFd),
    /// A file that is opened as the user, after the change of directory.
    File {
        /// Its path; a relative one is one below the working directory.
        path: CString,
        /// What for.
        open_for: OpenFor,
    },
    /// For standard error: the same as standard output.
    SameAsOutput,
}

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenFor {
    /// To read what is there.
    Reading,
    /// To write it anew.
    Writing,
    /// To write behind what is there.
    Appending,
}

/// The steps at which files are opened, by the stream's number.
const STEPS: [Step; 3] = [Step::StandardInput, Step::StandardOutput, Step::StandardError];

/// Moves the descriptors among the three above 2, so that putting them in place cannot overwrite one of them.
pub fn above_stdio(streams: [Stream; 3]) -> io::Result<[Stream; 3]> {
    let [input, output, error] = streams.map(|stream| match stream {
        // The copy that the standard library makes has a number above 2.
        Stream::Descriptor(low) if low.as_raw_fd() <= 2 => {
            low.as_fd().try_clone_to_owned().map(Stream::Descriptor)
        }
        other => Ok(other),
    });
    Ok([input?, output?, error?])
}

/// Puts the descriptors in place: 0, 1 and 2 belong to nobody in the child.
pub(crate) fn put_descriptors(streams: &[Stream; 3]) -> Result<(), Failure> {
    for (number, stream) in (0..).zip(streams) {
        if let Stream::Descriptor(descriptor) = stream {
            put(descriptor.as_raw_fd(), number, Step::Stdio)?;
        }
    }
    Ok(())
}

/// Makes standard input's terminal the one of this process's session. The kernel refuses one that another session has, root
/// too, since nothing is to be taken away (the 0): so no job types into what somebody else sits at.
pub(crate) fn own_terminal() -> Result<(), Failure> {
    // SAFETY: no memory is touched: the argument of this call is a number.
    checked(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) }, Step::Terminal)
}

/// Opens the files, as who this process is by now, and makes standard error the same as output where that is wanted.
pub(crate) fn open_files(streams: &[Stream; 3]) -> Result<(), Failure> {
    for (number, (stream, step)) in (0..).zip(streams.iter().zip(STEPS)) {
        match stream {
            Stream::Descriptor(_) => {}
            Stream::File { path, open_for } => {
                let file = open_file(path, *open_for).map_err(|errno| Failure { step, errno })?;
                put(file.as_raw_fd(), number, step)?;
            }
            Stream::SameAsOutput => put(1, number, step)?,
        }
    }
    Ok(())
}

fn put(descriptor: i32, number: i32, step: Step) -> Result<(), Failure> {
    // SAFETY: no memory is touched. dup2 makes the copy without close-on-exec, over what the child inherited there.
    checked(unsafe { libc::dup2(descriptor, number) }, step)
}

/// Opens a regular file, or `/dev/null`. Nothing waits: a FIFO that nobody has at its other end, a device, a lease of
/// somebody's. What `/proc` has of this process's own descriptors is not looked through: until it executes its program
/// it has the shepherd's.
fn open_file(path: &CString, open_for: OpenFor) -> nix::Result<OwnedFd> {
    let how = match open_for {
        OpenFor::Reading => OFlag::O_RDONLY,
        // Not O_TRUNC: what turns out not to be a regular file is left as it is.
        OpenFor::Writing => OFlag::O_WRONLY | OFlag::O_CREAT,
        OpenFor::Appending => OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_APPEND,
    };
    let careful = OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    // The kernel refuses a mode where nothing can be made.
    let mode = if how.contains(OFlag::O_CREAT) { Mode::from_bits_truncate(0o666) } else { Mode::empty() };
    let how_to_open =
        OpenHow::new().flags(how | careful).mode(mode).resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = openat2(AT_FDCWD, path.as_c_str(), how_to_open)?;
    let stat = fstat(&file)?;
    let sort = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
    let is_null = sort == SFlag::S_IFCHR && (major(stat.st_rdev), minor(stat.st_rdev)) == (1, 3);
    match sort {
        SFlag::S_IFREG if open_for == OpenFor::Writing => ftruncate(&file, 0)?,
        SFlag::S_IFREG => {}
        SFlag::S_IFDIR => return Err(Errno::EISDIR),
        _ if is_null => {}
        _ => return Err(Errno::EINVAL),
    }
    let kept = how & OFlag::O_APPEND;
    fcntl(&file, FcntlArg::F_SETFL(kept))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::ffi::OsStrExt as _;
    use std::path::Path;

    fn path(path: &Path) -> CString {
        CString::new(path.as_os_str().as_bytes()).unwrap()
    }

    #[test]
    fn only_regular_files_and_null_are_opened_and_nothing_waits() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, Mode::from_bits_truncate(0o600)).unwrap();
        let socket = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let refused = |file: &Path, open_for| open_file(&path(file), open_for).map(drop).unwrap_err();
        for open_for in [OpenFor::Writing, OpenFor::Appending] {
            assert_eq!(refused(&fifo, open_for), Errno::ENXIO);
            assert_eq!(refused(&socket, open_for), Errno::ENXIO);
            assert_eq!(refused(folder.path(), open_for), Errno::EISDIR);
            assert_eq!(refused(Path::new("/dev/zero"), open_for), Errno::EINVAL);
            assert!(open_file(&c"/dev/null".to_owned(), open_for).is_ok());
        }
        assert_eq!(refused(&fifo, OpenFor::Reading), Errno::EINVAL);
        assert_eq!(refused(folder.path(), OpenFor::Reading), Errno::EISDIR);
        assert_eq!(refused(Path::new("/dev/ptmx"), OpenFor::Reading), Errno::EINVAL);
        assert_eq!(refused(Path::new(""), OpenFor::Reading), Errno::ENOENT);
        assert_eq!(refused(Path::new("/dev/stdin"), OpenFor::Reading), Errno::ELOOP);
        assert!(open_file(&c"/dev/null".to_owned(), OpenFor::Reading).is_ok());
    }

    #[test]
    fn a_file_is_cut_off_or_added_to_and_then_waited_for_as_usual() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("out");
        fs::write(&file, "before").unwrap();
        let appending = open_file(&path(&file), OpenFor::Appending).unwrap();
        let flags = OFlag::from_bits_retain(fcntl(&appending, FcntlArg::F_GETFL).unwrap());
        assert!(flags.contains(OFlag::O_APPEND) && !flags.contains(OFlag::O_NONBLOCK));
        nix::unistd::write(&appending, b" and after").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"before and after");
        let writing = open_file(&path(&file), OpenFor::Writing).unwrap();
        let flags = OFlag::from_bits_retain(fcntl(&writing, FcntlArg::F_GETFL).unwrap());
        assert!(!flags.intersects(OFlag::O_APPEND | OFlag::O_NONBLOCK));
        assert_eq!(fs::read(&file).unwrap(), b"");
    }
}
