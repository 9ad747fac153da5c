//! A `deputyd` that has been taken over: any message, any descriptors, from the right uid; or from a wrong one.

use std::fs::{File, OpenOptions};
use std::io::{PipeReader, Read as _, pipe};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;

use deputy_core::job::ExitRecord;
use deputy_core::message::{
    JobState, LauncherReply, LauncherRequest, OwnerReply, OwnerRequest, RunRequest, encode,
};
use deputy_core::{Code, Denial};

use crate::acting::{Ids, ids};
use crate::line::Line;

/// `O_PATH` and `O_NOCTTY` of Linux.
const O_PATH: i32 = 0o10_000_000;
const O_NOCTTY: i32 = 0o400;

/// A descriptor to send along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Descriptor {
    /// `/dev/null`, for reading and writing.
    Null,
    /// A folder.
    Folder,
    /// A file opened with `O_PATH`.
    Path,
    /// A terminal.
    Terminal,
    /// A regular file, for reading alone.
    ReadOnly,
    /// `/dev/null`, for writing alone.
    WriteOnly,
    /// A block device.
    Block,
    /// A character device that is more than it seems.
    Character,
    /// Something that is no file at all.
    Pidfd,
    /// The write end of a pipe; what was written to it is [`Answers::output`].
    Output,
    /// One end of an unnamed SEQPACKET pair, for a conversation with nobody.
    Pair,
    /// One end of a stream pair.
    Stream,
}

/// The descriptors of one request, and what the test keeps of them.
#[derive(Debug, Default)]
struct Opened {
    to_send: Vec<OwnedFd>,
    kept: Vec<OwnedFd>,
    output: Option<PipeReader>,
}

impl Opened {
    fn new(descriptors: &[Descriptor]) -> Self {
        let mut opened = Self::default();
        for &descriptor in descriptors {
            let open = opened.open(descriptor);
            opened.to_send.push(open.unwrap_or_else(|error| panic!("{descriptor:?}: {error}")));
        }
        opened
    }

    fn open(&mut self, descriptor: Descriptor) -> std::io::Result<OwnedFd> {
        let with = |flags: i32, path: &str| OpenOptions::new().read(true).custom_flags(flags).open(path);
        Ok(match descriptor {
            Descriptor::Null => OpenOptions::new().read(true).write(true).open("/dev/null")?.into(),
            Descriptor::Folder => File::open("/")?.into(),
            Descriptor::Path => with(O_PATH, "/etc/passwd")?.into(),
            Descriptor::Terminal => with(O_NOCTTY, "/dev/ptmx")?.into(),
            Descriptor::ReadOnly => File::open("/etc/passwd")?.into(),
            Descriptor::WriteOnly => OpenOptions::new().write(true).open("/dev/null")?.into(),
            Descriptor::Block => File::open(block_device()?)?.into(),
            Descriptor::Character => File::open("/dev/net/tun").or_else(|_| File::open("/dev/fuse"))?.into(),
            Descriptor::Pidfd => {
                rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())?
            }
            Descriptor::Output => {
                let (reader, writer) = pipe()?;
                self.output = Some(reader);
                writer.into()
            }
            Descriptor::Pair => {
                let (ours, theirs) = deputy_wire::pair().map_err(std::io::Error::other)?;
                self.kept.push(ours);
                theirs
            }
            Descriptor::Stream => {
                let (ours, theirs) = UnixStream::pair()?;
                self.kept.push(ours.into());
                theirs.into()
            }
        })
    }

    fn borrowed(&self) -> Vec<BorrowedFd<'_>> {
        self.to_send.iter().map(|descriptor| descriptor.as_fd()).collect()
    }
}

/// Any block device of the machine.
fn block_device() -> std::io::Result<std::path::PathBuf> {
    use std::os::unix::fs::FileTypeExt as _;
    let mut devices: Vec<_> = std::fs::read_dir("/dev")?
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|sort| sort.is_block_device()))
        .map(|entry| entry.path())
        .filter(|path| File::open(path).is_ok())
        .collect();
    devices.sort();
    devices.pop().ok_or_else(|| std::io::Error::other("this machine has no block device in /dev"))
}

/// Somebody at the launcher's sockets.
#[derive(Debug, Clone, Copy)]
pub struct Fake(Ids);

/// What came back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answers {
    /// Each reply, in order.
    pub replies: Vec<LauncherReply>,
    /// What was written to the [`Descriptor::Output`].
    pub output: String,
}

impl Answers {
    /// The refusal that was the only answer.
    pub fn denial(&self) -> Option<&Denial> {
        match self.replies.as_slice() {
            [LauncherReply::Denied(denial)] => Some(denial),
            _ => None,
        }
    }

    /// Its code.
    pub fn code(&self) -> Option<Code> {
        self.denial().map(|denial| denial.code)
    }

    /// The record of the job that ran to its end.
    pub fn record(&self) -> Option<&ExitRecord> {
        match self.replies.last() {
            Some(LauncherReply::Job(JobState::Ended(record))) => Some(record),
            _ => None,
        }
    }

    /// The exit status of the job that ran to its end, as a shell would say it.
    pub fn status(&self) -> Option<i32> {
        self.record().map(|record| record.end.shell_status())
    }
}

/// A job that was asked for and has not been waited for.
#[derive(Debug)]
pub struct Pending {
    /// The connection.
    pub line: Line,
    opened: Opened,
}

impl Pending {
    /// Waits for everything that comes back.
    pub fn answers(mut self) -> Answers {
        let replies = self.line.rest();
        let mut output = Vec::new();
        if let Some(mut reader) = self.opened.output.take() {
            reader.read_to_end(&mut output).expect("the output");
        }
        Answers { replies, output: String::from_utf8_lossy(&output).into_owned() }
    }
}

impl Fake {
    /// One with the daemon's own uid.
    pub fn daemon() -> Self {
        Self::as_user("deputy")
    }

    /// One with this user's uid and gid.
    pub fn as_user(user: &str) -> Self {
        Self(ids(user))
    }

    /// One with any ids.
    pub fn with(ids: Ids) -> Self {
        Self(ids)
    }

    /// Sends a request and collects what comes back until the other end closes.
    pub fn ask(&self, request: &LauncherRequest, descriptors: &[Descriptor]) -> Answers {
        self.send(&encode(request).expect("a message"), descriptors)
    }

    /// Sends any bytes and collects what comes back until the other end closes.
    pub fn send(&self, packet: &[u8], descriptors: &[Descriptor]) -> Answers {
        self.start(packet, descriptors).answers()
    }

    /// Sends any bytes and does not wait.
    pub fn start(&self, packet: &[u8], descriptors: &[Descriptor]) -> Pending {
        let line = Line::to_launcher(self.0).expect("the launcher's socket");
        let mut opened = Opened::new(descriptors);
        line.send(packet, &opened.borrowed());
        // Only the job's own copies keep the pipes open from now on.
        opened.to_send.clear();
        Pending { line, opened }
    }

    /// Asks for a job with `/dev/null` for input and errors, and waits for its end.
    pub fn run(&self, request: &RunRequest) -> Answers {
        self.begin(request).answers()
    }

    /// Asks for such a job and does not wait.
    pub fn begin(&self, request: &RunRequest) -> Pending {
        let packet = encode(&LauncherRequest::Run(request.clone())).expect("a message");
        self.start(&packet, &[Descriptor::Null, Descriptor::Output, Descriptor::Null])
    }

    /// Says something as the owner of an OS account.
    pub fn ask_as_owner(&self, request: &OwnerRequest) -> OwnerReply {
        let line = Line::to_owner_socket(self.0).expect("the owners' socket");
        line.send(&encode(request).expect("a message"), &[]);
        line.next().expect("an answer")
    }
}
