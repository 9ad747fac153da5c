//! The shepherd's one loop: signals, the launch report, the control socket and its connections, and a timer.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use deputy_core::denial::Denial;
use deputy_core::ids::JobId;
use deputy_core::job::{JobEnd, Usage};
use deputy_core::message::{JobCommand, JobState, LauncherReply, decode};
use deputy_sys::cgroup::JobCgroup;
use deputy_sys::descendants;
use deputy_sys::launch::{LaunchResult, Started, launch_result};
use deputy_sys::process::{self, SignalFd, Wait};
use deputy_wire::WireError;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SocketFlags, accept_with, sockopt};

use super::folder::JobFolder;
use crate::paths::control_socket;
use crate::request::reply;

/// What the launcher's child says when it hands a connection over.
const ADOPT: &[u8] = b"adopt";

/// What the shepherd answers when it has it.
const ADOPTED: &[u8] = b"adopted";

/// How long either waits for the other's packet; both are root's and send at once.
const PATIENCE: Duration = Duration::from_secs(2);

/// The most connections that hear of one job at once; a daemon that restarts often leaves closed ones, which go.
const MAX_LISTENERS: usize = 32;

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

/// How a job's whole tree ended.
pub struct Ended {
    /// How its first process ended.
    pub end: JobEnd,
    /// What all of it used.
    pub usage: Usage,
}

/// A job that is being watched.
pub struct Watch<'a> {
    folder: &'a JobFolder,
    signals: SignalFd,
    cgroup: Option<JobCgroup>,
    pid: i32,
    report: Option<OwnedFd>,
    state: Option<JobState>,
    listeners: Vec<OwnedFd>,
    started: Instant,
    end: Option<JobEnd>,
    launch_failure: Option<JobEnd>,
    usage: Usage,
    kill_at: Option<Instant>,
}

impl<'a> Watch<'a> {
    /// Watches a job that was just forked. The connection that asked for it is the first to hear of it.
    pub fn new(
        folder: &'a JobFolder,
        connection: BorrowedFd<'_>,
        signals: SignalFd,
        cgroup: Option<JobCgroup>,
        started: Started,
    ) -> Result<Self, Denial> {
        let own = connection.try_clone_to_owned().map_err(|error| Denial::internal(error.to_string()))?;
        never_wait_for(&own);
        Ok(Self {
            folder,
            signals,
            cgroup,
            pid: started.pid,
            report: Some(started.report),
            state: None,
            listeners: vec![own],
            started: Instant::now(),
            end: None,
            launch_failure: None,
            usage: Usage::default(),
            kill_at: None,
        })
    }

    /// Waits until nothing of the job is left. Nobody needs to listen for that.
    pub fn until_the_tree_has_ended(&mut self) -> Result<Ended, Denial> {
        loop {
            self.wait_for_something()
                .map_err(|error| Denial::internal(format!("the shepherd's loop: {error}")))?;
            if self.reap()? {
                break;
            }
        }
        // A child that failed before exec may be reaped before its report has been read.
        self.read_report();
        self.usage.wall_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let end = self.launch_failure.take().or(self.end.take());
        let end = end.ok_or_else(|| Denial::internal("the job's first process was never reaped"))?;
        Ok(Ended { end, usage: self.usage.clone() })
    }

    /// Tells everybody who listens where the job stands.
    pub fn tell(&mut self, state: &JobState) {
        self.state = Some(state.clone());
        for listener in &self.listeners {
            // Each has room for the few packets there are; one that does not read, or has gone, misses them, and can
            // attach again.
            reply(listener, &LauncherReply::Job(state.clone()));
        }
    }

    /// Gives up the cgroup and the connections.
    pub fn close(mut self) {
        // Whoever connects now finds the record instead of a shepherd.
        self.accept();
        if let Some(cgroup) = &self.cgroup
            && let Err(error) = cgroup.remove()
        {
            tracing::warn!(event = "cgroup_left", error = %error);
        }
    }

    fn wait_for_something(&mut self) -> io::Result<()> {
        let timeout = self.kill_at.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = timeout.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        });
        let mut set = vec![
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(&self.folder.listener, PollFlags::IN),
        ];
        set.extend(self.listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)));
        set.extend(self.report.as_ref().map(|report| PollFd::new(report, PollFlags::IN)));
        match poll(&mut set, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(errno) => return Err(errno.into()),
            Ok(_) => {}
        }
        let ready: Vec<bool> = set.iter().map(|entry| !entry.revents().is_empty()).collect();
        drop(set);
        let listening = 2..2 + self.listeners.len();

        // The signals are only a reason to wake up: what they mean is found out by `reap`.
        while ready[0] && self.signals.read_signal()?.is_some() {}
        if ready.get(listening.end).copied().unwrap_or(false) {
            self.read_report();
        }
        for index in listening.rev().filter(|&index| ready[index]) {
            if !self.serve(index - 2) {
                self.listeners.swap_remove(index - 2);
            }
        }
        if ready[1] {
            self.accept();
        }
        if self.kill_at.is_some_and(|at| at <= Instant::now()) {
            self.kill();
        }
        Ok(())
    }

    /// Reads what the child says about its launch, once.
    fn read_report(&mut self) {
        let Some(report) = self.report.take() else { return };
        match launch_result(report) {
            Ok(LaunchResult::Executed) => self.tell(&JobState::Running),
            Ok(LaunchResult::Failed { step, errno }) => {
                self.launch_failure = Some(JobEnd::LaunchFailed { step, errno });
            }
            // Killed before it could exec: how it ended is what is waited for anyway.
            Ok(LaunchResult::Vanished) => {}
            Err(error) => tracing::error!(event = "launch_report_failed", error = %error),
        }
    }

    /// Waits for what has ended. Whether nothing is left.
    fn reap(&mut self) -> Result<bool, Denial> {
        loop {
            match process::reap().map_err(|error| Denial::internal(format!("wait: {error}")))? {
                Wait::Running => return Ok(false),
                Wait::NoChildren => return Ok(true),
                Wait::Reaped(child) => {
                    self.usage.user_us += child.user_us;
                    self.usage.system_us += child.system_us;
                    self.usage.max_rss_kib = self.usage.max_rss_kib.max(child.max_rss_kib);
                    if child.pid == self.pid {
                        self.end = Some(child.end);
                    }
                }
            }
        }
    }

    fn accept(&mut self) {
        while let Ok(control) = accept_with(&self.folder.listener, SocketFlags::CLOEXEC) {
            // The folder of the socket is root's alone, so only a child of the launcher's gets here.
            let _ = sockopt::set_socket_timeout(&control, sockopt::Timeout::Recv, Some(PATIENCE));
            let adopted = match deputy_wire::receive(&control) {
                Ok(Some(mut packet)) if packet.bytes == ADOPT => packet.descriptors.pop(),
                _ => None,
            };
            let Some(listener) = adopted.filter(|_| self.listeners.len() < MAX_LISTENERS) else { continue };
            if deputy_wire::send(&control, ADOPTED, &[]).is_err() {
                continue;
            }
            if let Some(state) = &self.state {
                reply(&listener, &LauncherReply::Job(state.clone()));
            }
            never_wait_for(&listener);
            self.listeners.push(listener);
        }
    }

    /// Carries out one command of a connection. Whether the connection is still there.
    fn serve(&mut self, index: usize) -> bool {
        let received = match deputy_wire::receive(&self.listeners[index]) {
            // The other end closed without having read what it was told. The kernel says so before it gives out what
            // that end had sent, and says it once: a command must not be lost to that.
            Err(WireError::Io(error)) if error.kind() == io::ErrorKind::ConnectionReset => {
                deputy_wire::receive(&self.listeners[index])
            }
            other => other,
        };
        let packet = match received {
            Ok(Some(packet)) => packet,
            Err(error) if error.would_block() => return true,
            Ok(None) | Err(_) => return false,
        };
        match decode(&packet.bytes) {
            Ok(JobCommand::Cancel { grace_ms }) => self.cancel(Duration::from_millis(grace_ms.into())),
            Ok(JobCommand::Signal { signal }) if process::is_signal(signal) && self.end.is_none() => {
                let _ = process::signal_child(self.pid, signal);
            }
            Ok(JobCommand::Signal { .. }) => {}
            Err(_) => return false,
        }
        true
    }

    fn cancel(&mut self, grace: Duration) {
        if let Err(error) = descendants::signal_all(SIGTERM) {
            tracing::warn!(event = "cancel_failed", error = %error);
        }
        let at = Instant::now() + grace;
        self.kill_at = Some(self.kill_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// Kills the whole tree: by its cgroup where there is one, and by descent, again until nothing is left.
    fn kill(&mut self) {
        if let Some(cgroup) = &self.cgroup {
            let _ = cgroup.kill();
        }
        let _ = descendants::signal_all(SIGKILL);
        // What was forked meanwhile is looked for again; the loop ends when nothing is left to wait for.
        self.kill_at = Some(Instant::now() + Duration::from_millis(20));
    }
}

/// A daemon that does not read must not keep the shepherd from its job.
fn never_wait_for(listener: &OwnedFd) {
    let _ = rustix::io::ioctl_fionbio(listener, true);
}

/// What came of handing a connection over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adoption {
    /// The shepherd has it.
    Adopted,
    /// Nobody listens: the shepherd has gone.
    NoShepherd,
    /// Somebody listens, but did not take it.
    Failed,
}

/// Hands a connection over to the shepherd of a job.
pub fn adopt(job: &JobId, connection: &OwnedFd) -> Adoption {
    let Ok(control) = deputy_wire::connect(control_socket(job)) else { return Adoption::NoShepherd };
    let _ = sockopt::set_socket_timeout(&control, sockopt::Timeout::Recv, Some(PATIENCE));
    let sent = deputy_wire::send(&control, ADOPT, &[connection.as_fd()]).is_ok();
    match deputy_wire::receive(&control) {
        Ok(Some(packet)) if sent && packet.bytes == ADOPTED => Adoption::Adopted,
        // It may have been on its way out, and be gone by now.
        _ if has_shepherd(job) => Adoption::Failed,
        _ => Adoption::NoShepherd,
    }
}

/// Whether somebody is the shepherd of a job.
pub fn has_shepherd(job: &JobId) -> bool {
    deputy_wire::connect(control_socket(job)).is_ok()
}
