//! One question to `deputyd`, in a foreign process: no thread, no signal, and an end to each wait.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use deputy_core::message::query::{
    MAX_QUERY, QUERY_SOCKET, Query, QueryReply, SOON, decode_reply, encode_query,
};
use deputy_core::policy::DAEMON_USER;
use nix::unistd::User;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv, send,
    socket_with, sockopt,
};
use zeroize::Zeroizing;

/// How long to wait before a full queue is tried again.
const PAUSE: Duration = Duration::from_millis(10);

/// Asks. Why there is no answer is in words.
pub fn ask(query: &Query<'_>) -> Result<QueryReply, String> {
    let soon = Instant::now() + SOON;
    let socket = connected(soon).map_err(|error| format!("{QUERY_SOCKET}: {error}"))?;
    check_peer(&socket)?;
    match receive(&socket, soon)? {
        QueryReply::Accepted => {}
        denied @ QueryReply::Denied(_) => return Ok(denied),
        _ => return Err("it answers before it was asked".into()),
    }
    let packet = encode_query(query).map_err(|error| error.to_string())?;
    send(&socket, &packet, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
        .map_err(|errno| format!("it does not listen: {errno}"))?;
    drop(packet);
    match receive(&socket, Instant::now() + query.question.patience())? {
        QueryReply::Accepted => Err("it accepts twice".into()),
        reply => Ok(reply),
    }
}

fn connected(until: Instant) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    let address = SocketAddrUnix::new(QUERY_SOCKET)?;
    loop {
        match connect(&socket, &address) {
            Ok(()) => return Ok(socket),
            // The queue is full, and a unix socket does not tell when it no longer is.
            Err(Errno::AGAIN | Errno::INTR) if Instant::now() < until => std::thread::sleep(PAUSE),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Whoever listens there was root or `deputy` when it began to.
fn check_peer(socket: &OwnedFd) -> Result<(), String> {
    let uid = sockopt::socket_peercred(socket).map_err(|errno| errno.to_string())?.uid.as_raw();
    if uid == 0 {
        return Ok(());
    }
    let deputy = User::from_name(DAEMON_USER).map_err(|errno| format!("the name service: {errno}"))?;
    if deputy.is_some_and(|deputy| deputy.uid.as_raw() == uid) {
        return Ok(());
    }
    Err(format!("{QUERY_SOCKET} is uid {uid}'s, neither root's nor {DAEMON_USER}'s"))
}

fn receive(socket: &OwnedFd, until: Instant) -> Result<QueryReply, String> {
    // One byte more: a packet that is cut is no packet.
    let mut bytes = Zeroizing::new(vec![0; MAX_QUERY + 1]);
    loop {
        match recv(socket, bytes.as_mut_slice(), RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return Err("it went away without an answer".into()),
            Ok((_, length)) => return decode_reply(&bytes[..length]).map_err(|error| error.to_string()),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(format!("no answer: {errno}")),
        }
        let left = until.checked_duration_since(Instant::now()).ok_or("it does not answer in time")?;
        let left = Timespec::try_from(left).map_err(|_| "no time".to_owned())?;
        match poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&left)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(format!("no answer: {errno}")),
        }
    }
}
