//! The launcher itself: accept, check the peer, fork, wait for children. It parses nothing.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use deputy_core::denial::{Code, Denial};
use deputy_core::job::JobEnd;
use deputy_core::message::{LauncherReply, encode};
use deputy_sys::process::{self, Fork, Wait};
use deputy_wire::Peer;
use readiness::{Readiness, wait_readable};
use rustix::net::{SocketFlags, accept_with};

use crate::listen::{self, Sockets};
use crate::modules::Modules;
use crate::request::{self, Entrance};

mod readiness {
    //! Waiting for descriptors.
    use std::io;
    use std::os::fd::BorrowedFd;

    use rustix::event::{PollFd, PollFlags, poll};

    /// Whether each descriptor has something to read.
    pub type Readiness<const N: usize> = [bool; N];

    /// Waits until one of them has.
    pub fn wait_readable<const N: usize>(descriptors: [BorrowedFd<'_>; N]) -> io::Result<Readiness<N>> {
        let mut set = descriptors.map(|descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN));
        loop {
            match poll(&mut set, None) {
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
                Ok(_) => return Ok(set.map(|entry| !entry.revents().is_empty())),
            }
        }
    }
}

/// The most children at once, long-lived shepherds included; how many there are of each sort is counted by the
/// children themselves (`deputy_sys::slots`).
const MAX_CHILDREN: usize = 8192;

/// The most children at once that one uid has at the owners' socket, and all uids together.
const MAX_OWNER_CHILDREN_PER_UID: usize = 4;
const MAX_OWNER_CHILDREN: usize = 64;

/// Which children live, and for whom.
#[derive(Default)]
struct Children {
    by_pid: HashMap<i32, (Entrance, u32)>,
    sweeper: Option<i32>,
    /// Whether a child was killed since the sweeper was started: what it left is to be ended.
    sweep_again: bool,
}

impl Children {
    fn may_have_one_more(&self, entrance: Entrance, uid: u32) -> bool {
        let of =
            |wanted: &dyn Fn(&(Entrance, u32)) -> bool| self.by_pid.values().filter(|c| wanted(c)).count();
        match entrance {
            Entrance::Launcher => self.by_pid.len() < MAX_CHILDREN,
            Entrance::Owner => {
                of(&|child| child.0 == Entrance::Owner) < MAX_OWNER_CHILDREN
                    && of(&|child| *child == (Entrance::Owner, uid)) < MAX_OWNER_CHILDREN_PER_UID
            }
        }
    }

    fn reap(&mut self) -> io::Result<()> {
        while let Wait::Reaped(child) = process::reap()? {
            self.by_pid.remove(&child.pid);
            if self.sweeper == Some(child.pid) {
                self.sweeper = None;
            }
            // Which child it was is not known here, and need not be.
            self.sweep_again |= !matches!(child.end, JobEnd::Exited { code: 0 });
        }
        if self.sweep_again && self.sweeper.is_none() {
            self.sweep();
        }
        Ok(())
    }

    /// Starts the child that ends what is left of jobs whose shepherds have gone.
    fn sweep(&mut self) {
        self.sweep_again = false;
        match process::fork_single_threaded() {
            Ok(Fork::Child) => request::sweep(),
            Ok(Fork::Parent(pid)) => self.sweeper = Some(pid),
            Err(error) => tracing::error!(event = "fork_failed", error = %error),
        }
    }
}

/// Serves until SIGTERM or SIGINT. Children go on by themselves.
pub fn main() -> io::Result<()> {
    let Sockets { launcher, owner } = listen::sockets()?;
    process::harden()?;
    let (daemon_uid, _) = listen::daemon_ids()?;
    if process::thread_count()? != 1 {
        return Err(io::Error::other("the launcher must have one thread"));
    }
    let signals = process::signals()?;
    let mut children = Children::default();
    let mut modules = Modules::default();
    modules.keep_mapped();
    children.sweep();
    tracing::info!(event = "launcher_ready");

    loop {
        let ready: Readiness<3> = wait_readable([signals.as_fd(), launcher.as_fd(), owner.as_fd()])?;
        if ready[0] {
            while let Some(signal) = signals.read_signal()? {
                if signal.ssi_signo != SIGCHLD {
                    tracing::info!(event = "launcher_stopping", signal = signal.ssi_signo);
                    return Ok(());
                }
            }
            children.reap()?;
        }
        if ready[1] {
            modules.keep_mapped();
            accept_one(&launcher, Entrance::Launcher, &mut children, |peer| {
                peer.uid == 0 || peer.uid == daemon_uid
            });
        }
        if ready[2] {
            accept_one(&owner, Entrance::Owner, &mut children, |_| true);
        }
    }
}

/// `SIGCHLD` as signalfd reports it.
const SIGCHLD: u32 = 17;

fn accept_one(
    listener: &OwnedFd,
    entrance: Entrance,
    children: &mut Children,
    may_ask: impl Fn(&Peer) -> bool,
) {
    let connection = match accept_with(listener, SocketFlags::CLOEXEC) {
        Ok(connection) => connection,
        // Another has taken it, or the client has gone again.
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => return,
        Err(errno) => {
            tracing::error!(event = "accept_failed", error = %errno);
            return;
        }
    };
    let peer = match deputy_wire::peer(&connection) {
        Ok(peer) => peer,
        Err(error) => {
            tracing::error!(event = "peer_unknown", error = %error);
            return;
        }
    };
    if !may_ask(&peer) {
        tracing::warn!(event = "peer_refused", pid = peer.pid, uid = peer.uid);
        refuse(&connection, Code::PeerNotAllowed, "only deputyd and root speak to the launcher");
        return;
    }
    if !children.may_have_one_more(entrance, peer.uid) {
        tracing::warn!(event = "too_many_children", uid = peer.uid);
        refuse(&connection, Code::Busy, "too many requests are under way");
        return;
    }
    match process::fork_single_threaded() {
        Ok(Fork::Child) => request::child(entrance, connection, peer),
        Ok(Fork::Parent(pid)) => {
            children.by_pid.insert(pid, (entrance, peer.uid));
        }
        Err(error) => {
            tracing::error!(event = "fork_failed", error = %error);
            refuse(&connection, Code::Busy, "the machine has no room for another process");
        }
    }
}

/// Both sockets' replies begin with the same variant, so one refusal serves both.
fn refuse(connection: &OwnedFd, code: Code, message: &str) {
    let reply = LauncherReply::Denied(
        Denial::new(code, "launcher", message).remedy("try again later, or as who may"),
    );
    if let Ok(packet) = encode(&reply) {
        let _ = deputy_wire::send(connection, &packet, &[]);
    }
}
