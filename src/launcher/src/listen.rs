//! The two listening sockets: from systemd, or bound here where there is no systemd.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use deputy_core::policy::DAEMON_USER;
use deputy_sys::{accounts, process};
use deputy_wire::{LAUNCHER_SOCKET, OWNER_SOCKET};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with, sockopt,
};

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 512;

/// The first descriptor that systemd passes; see `sd_listen_fds(3)`.
const FIRST_PASSED: i32 = 3;

/// The two sockets.
pub struct Sockets {
    /// For `deputyd` and root.
    pub launcher: OwnedFd,
    /// For everybody, about themselves.
    pub owner: OwnedFd,
}

/// Takes the sockets that systemd passed, or binds them.
pub fn sockets() -> io::Result<Sockets> {
    let passed = std::env::var("LISTEN_PID").ok() == Some(process::own_pid().to_string());
    if !passed {
        return Ok(Sockets {
            launcher: bind_at(Path::new(LAUNCHER_SOCKET), 0o660)?,
            owner: bind_at(Path::new(OWNER_SOCKET), 0o666)?,
        });
    }
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut launcher = None;
    let mut owner = None;
    for (number, name) in (FIRST_PASSED..).zip(names.split(':')) {
        let descriptor = process::take_descriptor(number)?;
        match name {
            "launcher" => launcher = Some(check(descriptor)?),
            "owner" => owner = Some(check(descriptor)?),
            _ => {}
        }
    }
    match (launcher, owner) {
        (Some(launcher), Some(owner)) => Ok(Sockets { launcher, owner }),
        _ => Err(io::Error::other(
            "systemd passed sockets, but not one named 'launcher' and one named 'owner' (FileDescriptorName=)",
        )),
    }
}

fn check(socket: OwnedFd) -> io::Result<OwnedFd> {
    if sockopt::socket_type(&socket)? != SocketType::SEQPACKET || !sockopt::socket_acceptconn(&socket)? {
        return Err(io::Error::other("a passed socket is not a listening SEQPACKET socket"));
    }
    rustix::io::ioctl_fionbio(&socket, true)?;
    Ok(socket)
}

/// The gid of the daemon's group, and its uid.
pub fn daemon_ids() -> io::Result<(u32, u32)> {
    accounts::by_name(DAEMON_USER)?.map(|entry| (entry.uid, entry.gid)).ok_or_else(|| {
        io::Error::other(format!(
            "there is no user {DAEMON_USER}: run systemd-sysusers, or install the package"
        ))
    })
}

fn bind_at(path: &Path, mode: u32) -> io::Result<OwnedFd> {
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    // The folder is root's alone, so what has this name is what an earlier launcher left.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    let (_, gid) = daemon_ids()?;
    std::os::unix::fs::chown(path, Some(0), Some(gid))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}
