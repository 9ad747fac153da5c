//! Sending and receiving single packets.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use deputy_core::denial::Denial;
use deputy_core::message::{MAX_MEMFD, MAX_OPEN, MAX_PACKET, MessageError};
use rustix::cmsg_space;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, memfd_create};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, recv, recvmsg, sendmsg,
    socket_with, socketpair, sockopt,
};
use thiserror::Error;

/// The most descriptors that a packet of Deputy's brings, but one with files that were opened.
pub const MAX_DESCRIPTORS: usize = 8;

// So many the kernel passes in one packet, and a memfd may be one more.
const _: () = assert!(MAX_OPEN < 253);

/// The packet that says that its one memfd holds the message.
const IN_MEMFD: &[u8] = b"DPTY-MEMFD";

const ALL_SEALS: SealFlags =
    SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);

/// A packet could not be sent or received.
#[derive(Debug, Error)]
pub enum WireError {
    /// The socket failed, or had nothing yet ([`io::ErrorKind::WouldBlock`]).
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The packet is longer than [`MAX_PACKET`] and was cut.
    #[error("the packet was truncated")]
    Truncated,
    /// The packet brought more descriptors than expected, or other control data that was cut.
    #[error("the packet's control data was truncated")]
    ControlTruncated,
    /// The memfd is missing, not fully sealed, too large, or not a memfd.
    #[error("the memfd that should hold the message is missing, too large, or not fully sealed")]
    Memfd,
    /// The bytes are not a message.
    #[error(transparent)]
    Message(#[from] MessageError),
}

impl From<rustix::io::Errno> for WireError {
    fn from(errno: rustix::io::Errno) -> Self {
        WireError::Io(errno.into())
    }
}

impl WireError {
    /// Whether the socket only has nothing yet.
    pub fn would_block(&self) -> bool {
        matches!(self, WireError::Io(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl From<WireError> for Denial {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Io(error) => Denial::internal(format!("a socket failed: {error}")),
            WireError::Message(error) => error.into(),
            other => Denial::new(deputy_core::Code::BadMessage, "protocol", other.to_string()),
        }
    }
}

/// One packet.
#[derive(Debug)]
pub struct Packet {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The descriptors it brought, each close-on-exec.
    pub descriptors: Vec<OwnedFd>,
}

/// Who is at the other end of a socket, as the kernel knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The process; 0 if it is not visible here.
    pub pid: i32,
    /// Its uid.
    pub uid: u32,
    /// Its gid.
    pub gid: u32,
}

impl From<rustix::net::UCred> for Peer {
    fn from(credentials: rustix::net::UCred) -> Self {
        Self {
            pid: credentials.pid.as_raw_nonzero().get(),
            uid: credentials.uid.as_raw(),
            gid: credentials.gid.as_raw(),
        }
    }
}

/// Two connected sockets without a name.
pub fn pair() -> Result<(OwnedFd, OwnedFd), WireError> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Connects to the socket at a path.
pub fn connect(path: impl AsRef<Path>) -> Result<OwnedFd, WireError> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path.as_ref())?)?;
    Ok(socket)
}

/// Who made the other end of a connected socket (`SO_PEERCRED`: fixed at connect or at socketpair).
pub fn peer(socket: impl AsFd) -> Result<Peer, WireError> {
    Ok(sockopt::socket_peercred(socket)?.into())
}

/// Sends bytes and descriptors as one packet; bytes that do not fit go into a sealed memfd before the others.
pub fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), WireError> {
    if bytes.len() <= MAX_PACKET {
        return send_packet(socket.as_fd(), bytes, descriptors);
    }
    if bytes.len() > MAX_MEMFD {
        return Err(MessageError::TooLong(bytes.len()).into());
    }
    let memfd = memfd_create("deputy-message", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = File::from(memfd);
    file.write_all(bytes)?;
    fcntl_add_seals(&file, ALL_SEALS)?;
    let mut all = vec![file.as_fd()];
    all.extend_from_slice(descriptors);
    send_packet(socket.as_fd(), IN_MEMFD, &all)
}

fn send_packet(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), WireError> {
    let mut space = vec![MaybeUninit::uninit(); cmsg_space!(ScmRights(descriptors.len()))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if descriptors.len() > MAX_OPEN + 1 {
        return Err(WireError::ControlTruncated);
    }
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(WireError::ControlTruncated);
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives one packet; `None` when the other end is closed.
pub fn receive(socket: impl AsFd) -> Result<Option<Packet>, WireError> {
    receive_up_to(socket, MAX_DESCRIPTORS)
}

/// The same with as many descriptors at most: [`MAX_OPEN`] from a file agent, which may have opened so many files.
pub fn receive_up_to(socket: impl AsFd, most: usize) -> Result<Option<Packet>, WireError> {
    Ok(receive_packet(socket.as_fd(), most)?.map(|(packet, _)| packet))
}

/// Receives one packet together with who sent it. The socket needs `SO_PASSCRED`
/// (see [`crate::conversation::Client`]); without it there is no sender.
pub fn receive_with_sender(socket: impl AsFd) -> Result<Option<(Packet, Option<Peer>)>, WireError> {
    receive_packet(socket.as_fd(), MAX_DESCRIPTORS)
}

/// Waits for a packet, as long as the socket waits, and leaves it there: how long it is; 0 when the other end is closed.
fn length_of_next(socket: BorrowedFd<'_>) -> Result<usize, WireError> {
    let look = || recv(socket, &mut [0; 0], RecvFlags::PEEK | RecvFlags::TRUNC);
    let (_, length) = past_the_reset(look)?;
    Ok(length)
}

/// The other end may close without reading everything of ours, at any moment. The kernel says so once, ahead of what the
/// other end sent before, and that is the reason for which it closed.
fn past_the_reset<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    match call() {
        Err(rustix::io::Errno::CONNRESET) => call(),
        other => other,
    }
}

fn receive_packet(socket: BorrowedFd<'_>, most: usize) -> Result<Option<(Packet, Option<Peer>)>, WireError> {
    // As large as the packet that waits, not as the largest that could: a process that was just forked pays for every
    // page of it.
    let mut bytes = vec![0; length_of_next(socket)?.min(MAX_PACKET)];
    let mut space = vec![MaybeUninit::uninit(); cmsg_space!(ScmRights(most + 1), ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = past_the_reset(|| {
        recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    // Taking them out first closes them on every way out of here.
    let mut descriptors = Vec::new();
    let mut sender = None;
    for message in control.drain() {
        match message {
            RecvAncillaryMessage::ScmRights(rights) => descriptors.extend(rights),
            RecvAncillaryMessage::ScmCredentials(credentials) => sender = Some(credentials.into()),
            _ => {}
        }
    }
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Err(WireError::Truncated);
    }
    if received.flags.contains(ReturnFlags::CTRUNC) || descriptors.len() > most + 1 {
        return Err(WireError::ControlTruncated);
    }
    if received.bytes == 0 && descriptors.is_empty() {
        return Ok(None);
    }
    bytes.truncate(received.bytes);
    if bytes == IN_MEMFD {
        if descriptors.is_empty() {
            return Err(WireError::Memfd);
        }
        bytes = read_memfd(descriptors.remove(0))?;
    }
    Ok(Some((Packet { bytes, descriptors }, sender)))
}

fn read_memfd(memfd: OwnedFd) -> Result<Vec<u8>, WireError> {
    // Only memfds have seals; for anything else the kernel answers EINVAL.
    let seals = fcntl_get_seals(&memfd).map_err(|_| WireError::Memfd)?;
    let size = usize::try_from(fstat(&memfd)?.st_size).map_err(|_| WireError::Memfd)?;
    if !seals.contains(ALL_SEALS) || size > MAX_MEMFD {
        return Err(WireError::Memfd);
    }
    let mut bytes = vec![0; size];
    File::from(memfd).read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn a_closed_end_is_no_packet() {
        let (ours, theirs) = pair().unwrap();
        drop(theirs);
        assert!(receive(&ours).unwrap().is_none());
    }

    #[test]
    fn what_was_said_before_closing_without_listening_is_heard() {
        let (ours, theirs) = pair().unwrap();
        send(&ours, b"never read", &[]).unwrap();
        send(&theirs, b"no", &[]).unwrap();
        drop(theirs);
        assert_eq!(receive(&ours).unwrap().unwrap().bytes, b"no");
        assert!(receive(&ours).unwrap().is_none());
    }

    #[test]
    fn so_it_is_at_whatever_moment_the_other_end_closes() {
        for _ in 0..5000 {
            let (ours, theirs) = pair().unwrap();
            send(&ours, b"never read", &[]).unwrap();
            let refuses = std::thread::spawn(move || send(&theirs, b"no", &[]).unwrap());
            assert_eq!(receive(&ours).unwrap().unwrap().bytes, b"no");
            assert!(receive(&ours).unwrap().is_none());
            refuses.join().unwrap();
        }
    }

    #[test]
    fn a_packet_that_is_too_long_is_refused_whole() {
        let (ours, theirs) = pair().unwrap();
        rustix::net::send(&theirs, &vec![0; MAX_PACKET + 1], SendFlags::empty()).unwrap();
        assert!(matches!(receive(&ours), Err(WireError::Truncated)));
    }

    #[test]
    fn more_descriptors_than_expected_are_refused_and_closed() {
        let (ours, theirs) = pair().unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        let many = vec![writer.as_fd(); MAX_DESCRIPTORS + 2];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_DESCRIPTORS + 2))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&many)));
        sendmsg(&theirs, &[IoSlice::new(b"x")], &mut control, SendFlags::empty()).unwrap();
        assert!(matches!(receive(&ours), Err(WireError::ControlTruncated)));
        // The pipe's only writer is now ours: closing it must be the end of file.
        drop(writer);
        let mut rest = Vec::new();
        let mut reader = reader;
        assert_eq!(reader.read_to_end(&mut rest).unwrap(), 0);
    }

    #[test]
    fn as_many_files_as_one_expects_and_no_more() {
        let (ours, theirs) = pair().unwrap();
        let file = tempfile_like();
        for (sent, expected) in [(MAX_OPEN, MAX_OPEN), (MAX_OPEN, MAX_DESCRIPTORS), (2, 0)] {
            send(&theirs, b"x", &vec![file.as_fd(); sent]).unwrap();
            let came = receive_up_to(&ours, expected);
            if sent == expected {
                assert_eq!(came.unwrap().unwrap().descriptors.len(), sent);
            } else {
                assert!(matches!(came, Err(WireError::ControlTruncated)), "{expected}");
            }
        }
        let too_many = vec![file.as_fd(); MAX_OPEN + 2];
        assert!(matches!(send(&theirs, b"x", &too_many), Err(WireError::ControlTruncated)));
    }

    #[test]
    fn a_long_message_travels_in_a_sealed_memfd_with_its_descriptors() {
        let (ours, theirs) = pair().unwrap();
        let (_reader, writer) = std::io::pipe().unwrap();
        let long: Vec<u8> = (0..200_000u32).map(|n| n.to_le_bytes()[0]).collect();
        send(&theirs, &long, &[writer.as_fd()]).unwrap();
        let packet = receive(&ours).unwrap().unwrap();
        assert_eq!(packet.bytes, long);
        assert_eq!(packet.descriptors.len(), 1);
        assert!(matches!(send(&theirs, &vec![0; MAX_MEMFD + 1], &[]), Err(WireError::Message(_))));
    }

    #[test]
    fn a_memfd_that_can_still_change_is_refused() {
        let (ours, theirs) = pair().unwrap();
        for seals in [SealFlags::empty(), ALL_SEALS.difference(SealFlags::WRITE)] {
            let memfd = memfd_create("x", MemfdFlags::ALLOW_SEALING).unwrap();
            fcntl_add_seals(&memfd, seals).unwrap();
            send_packet(theirs.as_fd(), IN_MEMFD, &[memfd.as_fd()]).unwrap();
            assert!(matches!(receive(&ours), Err(WireError::Memfd)));
        }
        send_packet(theirs.as_fd(), IN_MEMFD, &[]).unwrap();
        assert!(matches!(receive(&ours), Err(WireError::Memfd)));
        let plain = tempfile_like();
        send_packet(theirs.as_fd(), IN_MEMFD, &[plain.as_fd()]).unwrap();
        assert!(matches!(receive(&ours), Err(WireError::Memfd)));
    }

    fn tempfile_like() -> File {
        File::open("/dev/null").unwrap()
    }

    #[test]
    fn the_peer_is_who_made_the_socket() {
        let (ours, _theirs) = pair().unwrap();
        let peer = peer(&ours).unwrap();
        assert_eq!(peer.uid, rustix::process::getuid().as_raw());
        assert_eq!(peer.pid, rustix::process::getpid().as_raw_nonzero().get());
    }
}
