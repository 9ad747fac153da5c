//! A connection to one of the launcher's sockets, on which anything can be said.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use deputy_core::message::job::{JOB_VERSION, decode_reply, encode_command};
use deputy_core::message::{FileReply, JobCommand, LauncherReply, MessageError, OwnerReply, decode};
use deputy_wire::{LAUNCHER_SOCKET, OWNER_SOCKET, WireError, connect, receive};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::acting::{Ids, acting_as};

/// How long an answer may take before the test fails instead of waiting for ever.
const PATIENCE: Duration = Duration::from_secs(120);

/// The most descriptors that a test sends along: what the kernel lets one packet have (`SCM_MAX_FD`).
const MAX_DESCRIPTORS: usize = 253;

/// What one of the sockets answers with.
pub trait Answer: Sized {
    /// The answer of a packet.
    fn of(packet: &[u8]) -> Result<Self, MessageError>;
}

impl Answer for LauncherReply {
    fn of(packet: &[u8]) -> Result<Self, MessageError> {
        decode_reply(packet).map(|(reply, _)| reply)
    }
}

impl Answer for OwnerReply {
    fn of(packet: &[u8]) -> Result<Self, MessageError> {
        decode(packet)
    }
}

impl Answer for FileReply {
    fn of(packet: &[u8]) -> Result<Self, MessageError> {
        decode(packet)
    }
}

/// One connection.
#[derive(Debug)]
pub struct Line(OwnedFd);

impl Line {
    /// Connects to the launcher with these ids.
    pub fn to_launcher(ids: Ids) -> Result<Self, WireError> {
        Self::to(ids, LAUNCHER_SOCKET)
    }

    /// Connects to the owners' socket with these ids.
    pub fn to_owner_socket(ids: Ids) -> Result<Self, WireError> {
        Self::to(ids, OWNER_SOCKET)
    }

    fn to(ids: Ids, path: &str) -> Result<Self, WireError> {
        let socket = acting_as(ids, || connect(path))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        Ok(Self(socket))
    }

    /// Sends these very bytes as one packet, with these descriptors. An end that has been closed already is no
    /// failure: its answer may be there.
    pub fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            assert!(
                control.push(SendAncillaryMessage::ScmRights(descriptors)),
                "too many descriptors for a test"
            );
        }
        match sendmsg(&self.0, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
            Ok(_) | Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => {}
            Err(errno) => panic!("sending {} bytes: {errno}", bytes.len()),
        }
    }

    /// Sends a command to the shepherd at the other end.
    pub fn command(&self, command: JobCommand) {
        self.send(&encode_command(command, JOB_VERSION).expect("a command"), &[]);
    }

    /// The next answer; none when the other end has closed.
    pub fn next<M: Answer>(&self) -> Option<M> {
        match receive(self.0.as_fd()) {
            Ok(Some(packet)) => Some(M::of(&packet.bytes).expect("an answer is a message")),
            Ok(None) => None,
            Err(error) => panic!("no answer: {error}"),
        }
    }

    /// The launcher's next answer, which has to come.
    pub fn reply(&self) -> LauncherReply {
        self.next().expect("an answer, but the launcher closed the connection")
    }

    /// All answers until the other end closes.
    pub fn rest<M: Answer>(&self) -> Vec<M> {
        std::iter::from_fn(|| self.next()).collect()
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
