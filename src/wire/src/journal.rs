//! Where lines for the administrator go: to `systemd-journald` with their fields, or to standard error.
//!
//! Nothing here waits: a journal that takes nothing gets the plain line by way of standard error, as any program's.

use std::io::{self, Write as _};

use deputy_core::journal::Entry;
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, getpeername, sendto, socket_with,
};

/// Where journald takes fields.
const NATIVE: &str = "/run/systemd/journal/socket";
/// What a service's standard error is connected to.
const STDOUT: &[u8] = b"/run/systemd/journal/stdout";

/// Whether standard error is the journal's. Asked of the kernel, because the environment is cleared in some processes.
pub fn is_stderr_the_journal() -> bool {
    let Ok(Some(peer)) = getpeername(io::stderr()) else { return false };
    let peer = SocketAddrUnix::try_from(peer).ok();
    peer.is_some_and(|address| address.path_bytes() == Some(STDOUT))
}

/// Tells it; there is nobody to tell if that fails. `fields`: whether standard error is the journal's.
pub fn tell(entry: &Entry, program: &str, fields: bool) {
    if fields && send(&entry.datagram(program)).is_ok() {
        return;
    }
    // One write, so that lines of several processes do not mix.
    let _ = io::stderr().write_all(entry.line().as_bytes());
}

/// A socket for each line: processes that close all descriptors, or become somebody else, need not think of it.
fn send(datagram: &[u8]) -> io::Result<()> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let journal = SocketAddrUnix::new(NATIVE)?;
    sendto(&socket, datagram, SendFlags::DONTWAIT | SendFlags::NOSIGNAL, &journal)?;
    Ok(())
}
