//! The descriptors that a request brings: only files, pipes, sockets and a few devices pass, each for what it is for.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use deputy_core::denial::{Code, Denial};
use deputy_core::message::RunRequest;
use deputy_core::stream::{Input, Output, Streams};
use deputy_sys::process;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat, major, minor};

use super::script::Script;
use super::variables::Variables;

/// The memory devices that are no more than they seem: null, zero, full, random, urandom.
const HARMLESS_DEVICES: [(u32, u32); 5] = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9)];

/// The numbers of pseudo-terminals' slaves (`linux/major.h`, `UNIX98_PTY_SLAVE_MAJOR` and those behind it).
const PSEUDO_TERMINALS: std::ops::RangeInclusive<u32> = 136..=143;

/// The most bytes of a script, and of variables.
pub const MAX_CONTENTS: usize = 1 << 20;

/// How long whoever is at the other end of a pipe may take to say everything.
const PATIENCE: Duration = Duration::from_secs(10);

/// After so many seconds a file system that does not answer is no longer waited for: the process ends, as after any
/// request that never came. Nothing has been decided or written then.
const PATIENCE_WITH_FILES: u32 = 15;

/// What a request brought, looked at and, where it is not for the job itself, read.
pub struct Brought {
    /// Standard input.
    pub input: Option<OwnedFd>,
    /// Standard output.
    pub output: Option<OwnedFd>,
    /// Standard error.
    pub error: Option<OwnedFd>,
    /// The program.
    pub script: Option<Script>,
    /// Variables that nobody writes down.
    pub variables: Variables,
}

/// Takes exactly the descriptors that the request says it has, each of a sort that it can be. A terminal is refused: a
/// job that shares one with other processes could type into it (CVE-2005-4890). Only a job that is to have one of its own
/// brings one, as input and output; that it is nobody else's is seen to when it becomes the job's session's.
pub fn take(request: &RunRequest, terminal: bool, descriptors: Vec<OwnedFd>) -> Result<Brought, Denial> {
    let (wanted, got) = (request.descriptors(), descriptors.len());
    if wanted != got {
        return Err(refused(format!("this request takes exactly {wanted} descriptors, not {got}")));
    }
    let streams = &request.streams;
    if streams.output == Output::SameAsOutput {
        return Err(refused("standard output cannot go where standard output goes".to_owned()));
    }
    let mut left = descriptors.into_iter();
    let mut stream = |is_brought: bool, name: &str, is_input: bool| {
        let descriptor = is_brought.then(|| left.next()).flatten();
        let check = |descriptor: &OwnedFd| {
            if terminal { check_terminal(descriptor) } else { check_one(descriptor, name, is_input) }
        };
        descriptor.map(|descriptor| check(&descriptor).map(|()| descriptor)).transpose()
    };
    let input = stream(streams.input == Input::Descriptor, "standard input", true)?;
    let output = stream(streams.output == Output::Descriptor, "standard output", false)?;
    let error = stream(streams.error == Output::Descriptor, "standard error", false)?;
    if terminal {
        same_terminal(streams, input.as_ref(), output.as_ref())?;
    }
    let mut contents = |is_brought: bool, name: &str| {
        let descriptor = is_brought.then(|| left.next()).flatten();
        descriptor.map(|descriptor| read_whole(descriptor, name)).transpose()
    };
    let script = contents(request.script, "the script")?;
    let variables = contents(request.environment_descriptor, "the variables' descriptor")?;
    Ok(Brought {
        input,
        output,
        error,
        script: script.map(|bytes| Script::seal(&bytes)).transpose()?,
        variables: variables.map(|bytes| Variables::read(&bytes)).transpose()?.unwrap_or_default(),
    })
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

/// Whether this is the job's side of a pseudo-terminal.
fn check_terminal(descriptor: &OwnedFd) -> Result<(), Denial> {
    let unknown = |_| refused("the terminal cannot be looked at".to_owned());
    let stat = fstat(descriptor).map_err(unknown)?;
    let flags = fcntl_getfl(descriptor).map_err(unknown)?;
    let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    if !is_device || !PSEUDO_TERMINALS.contains(&major(stat.st_rdev)) {
        return Err(refused("the terminal is not the slave of a pseudo-terminal".to_owned()));
    }
    if flags.contains(OFlags::PATH) || flags & OFlags::RWMODE != OFlags::RDWR {
        return Err(refused("the terminal is not open for reading and writing".to_owned()));
    }
    Ok(())
}

/// A job with a terminal has no other streams.
fn same_terminal(streams: &Streams, input: Option<&OwnedFd>, output: Option<&OwnedFd>) -> Result<(), Denial> {
    let device = |descriptor: Option<&OwnedFd>| fstat(descriptor?).ok().map(|stat| stat.st_rdev);
    let (input, output) = (device(input), device(output));
    if input.is_none() || input != output || streams.error != Output::SameAsOutput {
        return Err(refused("a terminal is standard input, output and error at once".to_owned()));
    }
    Ok(())
}

/// Everything that a file holds, from its beginning, or that comes through a pipe until it ends.
fn read_whole(descriptor: OwnedFd, name: &str) -> Result<Vec<u8>, Denial> {
    check_one(&descriptor, name, true)?;
    let stat = fstat(&descriptor).map_err(|_| refused(format!("{name} cannot be looked at")))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            // Only as much as the file says that it has: those of /proc, whose text may depend on who reads, say none.
            let size = usize::try_from(stat.st_size).ok().filter(|&size| size <= MAX_CONTENTS);
            let mut bytes = vec![0; size.ok_or_else(|| too_large(name))?];
            let file = File::from(descriptor);
            let read = process::or_end_after(PATIENCE_WITH_FILES, || file.read_exact_at(&mut bytes, 0));
            read.map_err(|error| refused(format!("{name} could not be read: {error}")))?;
            Ok(bytes)
        }
        FileType::CharacterDevice => Err(refused(format!("{name} is a device"))),
        _ => read_to_end(descriptor, name, PATIENCE),
    }
}

fn read_to_end(descriptor: OwnedFd, name: &str, patience: Duration) -> Result<Vec<u8>, Denial> {
    let end = Instant::now() + patience;
    let mut pipe = File::from(descriptor);
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        match poll(&mut [PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Err(refused(format!("{name} did not end within {} s", patience.as_secs()))),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(errno) => return Err(refused(format!("{name} could not be waited for: {errno}"))),
        }
        // Somebody else may have read what was there; then this waits for the next, as a file system may.
        match process::or_end_after(PATIENCE_WITH_FILES, || pipe.read(&mut part)) {
            Ok(0) => return Ok(bytes),
            Ok(count) => bytes.extend_from_slice(&part[..count]),
            Err(error) => return Err(refused(format!("{name} could not be read: {error}"))),
        }
        if bytes.len() > MAX_CONTENTS {
            return Err(too_large(name));
        }
    }
}

fn too_large(name: &str) -> Denial {
    Denial::invalid(format!("{name} has more than {MAX_CONTENTS} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::OpenOptions;
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;

    use deputy_core::ids::{JobId, OsGid, OsUid};
    use deputy_core::job::OsIdentity;
    use deputy_core::limits::JobBounds;

    fn request(streams: Streams) -> RunRequest {
        RunRequest {
            job: JobId::from_random([0; JobId::BYTES]),
            application: "demo".parse().unwrap(),
            account: "ada".parse().unwrap(),
            os_account: OsIdentity {
                name: "ada".parse().unwrap(),
                uid: OsUid::new(1001).unwrap(),
                gid: OsGid::new(1001).unwrap(),
            },
            kind: None,
            argv: vec![b"x".to_vec()],
            script: false,
            directory: None,
            environment: Vec::new(),
            environment_descriptor: false,
            umask: None,
            os_group: None,
            project_group: None,
            streams,
            bounds: JobBounds::default(),
            gpus: Vec::new(),
            login: None,
        }
    }

    fn check(descriptors: Vec<OwnedFd>) -> Result<Brought, Denial> {
        take(&request(Streams::default()), false, descriptors)
    }

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

    #[test]
    fn a_terminal_is_all_three_streams_and_no_stream_is_one_by_itself() {
        let pair = || {
            let master = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR).unwrap();
            rustix::pty::unlockpt(&master).unwrap();
            let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY;
            let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).unwrap();
            (master, slave)
        };
        let streams =
            Streams { input: Input::Descriptor, output: Output::Descriptor, error: Output::SameAsOutput };
        let takes = |terminal, descriptors| take(&request(streams.clone()), terminal, descriptors).is_ok();
        let (master, slave) = pair();
        let copy = || slave.try_clone().unwrap();
        assert!(takes(true, vec![copy(), copy()]));
        assert!(!takes(false, vec![copy(), copy()]));
        assert!(!takes(true, vec![copy(), null()]));
        assert!(!takes(true, vec![null(), null()]));
        assert!(!takes(true, vec![master.try_clone().unwrap(), master.try_clone().unwrap()]));
        assert!(!takes(true, vec![copy(), pair().1]));
        assert!(take(&request(Streams::default()), true, vec![copy(), copy(), copy()]).is_err());
    }

    #[test]
    fn descriptors_are_those_of_what_the_request_says_in_its_order() {
        let streams =
            Streams { input: Input::Descriptor, output: Output::Captured, error: Output::SameAsOutput };
        let with_variables = RunRequest { environment_descriptor: true, ..request(streams.clone()) };
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(b"A=1\0").unwrap();
        drop(writer);
        assert!(take(&request(streams.clone()), false, vec![null(), null()]).is_err());
        let brought = take(&with_variables, false, vec![null(), reader.into()]).unwrap();
        assert!(brought.input.is_some() && brought.output.is_none() && brought.script.is_none());
        assert_eq!(brought.variables.iter().collect::<Vec<_>>(), [b"A=1"]);
        let circle = Streams { output: Output::SameAsOutput, ..streams };
        assert!(take(&request(circle), false, vec![null()]).is_err());
    }

    #[test]
    fn contents_end_have_a_size_and_are_those_of_a_file_or_pipe() {
        let read = |descriptor: OwnedFd| read_whole(descriptor, "it");
        assert!(read(null()).is_err());
        assert!(read(File::open("/").unwrap().into()).is_err());
        assert_eq!(read(File::open("/proc/self/stat").unwrap().into()), Ok(Vec::new()));
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; MAX_CONTENTS]).unwrap();
        assert_eq!(read(file.try_clone().unwrap().into()).map(|bytes| bytes.len()), Ok(MAX_CONTENTS));
        file.write_all(b"x").unwrap();
        assert_eq!(read(file.into()).unwrap_err().code, Code::InvalidArgument);

        let (reader, writer) = std::io::pipe().unwrap();
        let endless = read_to_end(reader.try_clone().unwrap().into(), "it", Duration::from_millis(20));
        assert_eq!(endless.unwrap_err().code, Code::BadMessage);
        let mut writer = writer;
        let writing = std::thread::spawn(move || writer.write_all(&vec![0; MAX_CONTENTS + 1]));
        assert_eq!(read(reader.into()).unwrap_err().code, Code::InvalidArgument);
        drop(writing.join());
    }
}
