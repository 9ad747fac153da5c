//! The descriptors that come with a job: looked at, kept until it starts, passed on, never read or written.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use deputy_core::Denial;
use deputy_core::stream::{Input, Output, Streams};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat, major, minor};

use crate::store::{no_input, no_output};

/// The character devices that a job may be given: null, zero, full, random, urandom. Terminals are none of them: who
/// shares a terminal with another can type into it.
const MEMORY_DEVICES: u32 = 1;
const HARMLESS: [u32; 5] = [3, 5, 7, 8, 9];

/// The numbers of the slaves of pseudo-terminals.
const PSEUDO_TERMINALS: std::ops::RangeInclusive<u32> = 136..=143;

/// What a descriptor of a job is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Standard input.
    Input,
    /// Standard output or error.
    Output,
    /// The terminal that becomes the job's own: the slave of a pair that the caller made for it.
    Terminal,
    /// The program.
    Script,
    /// Variables.
    Environment,
    /// Where the job's states are told.
    Watch,
}

/// Those of one job.
#[derive(Debug, Default)]
pub struct Descriptors {
    /// Standard input, output and error.
    pub streams: [Option<OwnedFd>; 3],
    /// The program.
    pub script: Option<OwnedFd>,
    /// Variables that nobody writes down.
    pub environment: Option<OwnedFd>,
}

impl Descriptors {
    /// What goes to the launcher, in its order, and the streams as it is told of them: where the specification has
    /// `/dev/null` it is the daemon's own descriptor of that.
    pub fn for_request<'a>(&'a self, null: &'a OwnedFd, streams: &Streams) -> (Streams, Vec<BorrowedFd<'a>>) {
        let mut told = streams.clone();
        let mut passed = Vec::with_capacity(5);
        let own = |at: usize| self.streams[at].as_ref().unwrap_or(null).as_fd();
        if told.input == no_input() {
            told.input = Input::Descriptor;
        }
        if told.input == Input::Descriptor {
            passed.push(own(0));
        }
        for (at, output) in [(1, &mut told.output), (2, &mut told.error)] {
            if *output == no_output() {
                *output = Output::Descriptor;
            }
            if *output == Output::Descriptor {
                passed.push(own(at));
            }
        }
        passed.extend(self.script.iter().chain(&self.environment).map(AsFd::as_fd));
        (told, passed)
    }
}

/// Whether a descriptor can be what it is given for. `name` is the option that brought it.
pub fn check(fd: BorrowedFd<'_>, name: &str, purpose: Use) -> Result<(), Denial> {
    let unusable = |_| Denial::invalid(format!("{name} is not a descriptor that can be used"));
    let stat = fstat(fd).map_err(unusable)?;
    let flags = fcntl_getfl(fd).map_err(unusable)?;
    let sort = FileType::from_raw_mode(stat.st_mode);
    let sort_allowed = match (sort, purpose) {
        (FileType::CharacterDevice, Use::Terminal) => PSEUDO_TERMINALS.contains(&major(stat.st_rdev)),
        (_, Use::Terminal) => false,
        (FileType::Fifo | FileType::Socket, _) => true,
        (FileType::RegularFile, _) => purpose != Use::Watch,
        (FileType::CharacterDevice, Use::Input | Use::Output) => {
            // A device's number has 64 bits here and 32 elsewhere; its parts always fit.
            major(stat.st_rdev) == MEMORY_DEVICES && HARMLESS.contains(&minor(stat.st_rdev))
        }
        _ => false,
    };
    if !sort_allowed || flags.contains(OFlags::PATH) {
        let words = match purpose {
            Use::Input | Use::Output => "a file, a pipe, a socket or /dev/null",
            Use::Script | Use::Environment => "a file, a pipe or a socket",
            Use::Watch => "a pipe or a socket",
            Use::Terminal => "the slave of a pseudo-terminal",
        };
        return Err(Denial::invalid(format!("{name} is not {words}"))
            .remedy("a terminal cannot be passed to a job: give one end of a pipe, and copy"));
    }
    let mode = flags & OFlags::RWMODE;
    if purpose == Use::Terminal && mode != OFlags::RDWR {
        return Err(Denial::invalid(format!("{name} is not open for reading and writing")));
    }
    let reads = !matches!(purpose, Use::Output | Use::Watch);
    let usable = if reads { mode != OFlags::WRONLY } else { mode != OFlags::RDONLY };
    if usable {
        Ok(())
    } else {
        let way = if reads { "reading" } else { "writing" };
        Err(Denial::invalid(format!("{name} is not open for {way}")))
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
            for purpose in [Use::Input, Use::Script, Use::Environment] {
                assert!(check(descriptor.as_fd(), "x", purpose).is_err());
            }
        }
        for purpose in [Use::Output, Use::Watch] {
            assert!(check(fd("/dev/null", OFlags::RDONLY).as_fd(), "x", purpose).is_err());
        }
        assert!(check(fd("/dev/null", OFlags::RDONLY).as_fd(), "x", Use::Script).is_err());
        // Who watches gets lines in a pipe; a file would grow.
        let file = tempfile::tempfile().unwrap();
        assert!(check(file.as_fd(), "x", Use::Watch).is_err());
        check(file.as_fd(), "x", Use::Output).unwrap();
    }

    #[test]
    fn only_the_slave_of_a_pair_is_a_jobs_own_terminal() {
        let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY;
        let master = rustix::pty::openpt(flags).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).unwrap();
        check(slave.as_fd(), "x", Use::Terminal).unwrap();
        assert!(check(slave.as_fd(), "x", Use::Input).is_err());
        let (reader, _writer) = std::io::pipe().unwrap();
        for other in [master.as_fd(), fd("/dev/null", OFlags::RDWR).as_fd(), reader.as_fd()] {
            assert!(check(other, "x", Use::Terminal).is_err());
        }
        let flags = rustix::pty::OpenptFlags::NOCTTY;
        let half = rustix::pty::ioctl_tiocgptpeer(&master, flags).unwrap();
        assert!(check(half.as_fd(), "x", Use::Terminal).is_err());
    }

    #[test]
    fn what_is_given_is_passed_on_in_order_and_what_is_missing_is_null() {
        let (reader, writer) = std::io::pipe().unwrap();
        let script = tempfile::tempfile().unwrap();
        let null = fd("/dev/null", OFlags::RDWR);
        let descriptors = Descriptors {
            streams: [Some(reader.into()), Some(writer.into()), None],
            script: Some(script.into()),
            environment: None,
        };
        let streams = Streams { input: Input::Descriptor, output: Output::Descriptor, error: no_output() };
        let (told, passed) = descriptors.for_request(&null, &streams);
        assert_eq!((told.error, passed.len()), (Output::Descriptor, 4));
        assert_eq!(fstat(passed[2]).unwrap().st_rdev, fstat(&null).unwrap().st_rdev);
        let streams = Streams { input: no_input(), output: Output::Captured, error: Output::SameAsOutput };
        let nothing = Descriptors::default();
        let (told, passed) = nothing.for_request(&null, &streams);
        assert_eq!((told.output, told.error, passed.len()), (Output::Captured, Output::SameAsOutput, 1));
    }
}
