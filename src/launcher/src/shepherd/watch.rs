//! The shepherd's one loop: signals, the launch report, the control socket and its connections, and a timer.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use deputy_core::denial::Denial;
use deputy_core::ids::JobId;
use deputy_core::job::{EndCause, JobEnd, Usage};
use deputy_core::kind::Leftovers;
use deputy_core::message::job::{self, AdoptAnswer, JOB_VERSION, JobVersions};
use deputy_core::message::{JobCommand, JobState};
use deputy_core::stream::Captured;
use deputy_sys::launch::{LaunchResult, launch_result};
use deputy_sys::process::{self, SignalFd};
use deputy_wire::WireError;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SocketFlags, accept_with, sockopt};

use super::capture::Pumps;
use super::folder::JobFolder;
use super::tree::{self, Tree};
use crate::paths::control_socket;

/// How long either waits for the other's packet; both are root's and send at once.
const PATIENCE: Duration = Duration::from_secs(2);

/// The most connections that hear of one job at once; a daemon that restarts often leaves closed ones, which go.
const MAX_LISTENERS: usize = 32;

/// How long after a kill it is looked whether there is more to kill.
const KILL_AGAIN: Duration = Duration::from_millis(20);

/// When and how a job is ended.
#[derive(Debug, Clone, Copy)]
pub struct EndRules {
    /// The longest time from its start.
    pub time_limit: Option<Duration>,
    /// The longest time between TERM and KILL.
    pub grace: Duration,
    /// What happens to what is left when its first process has ended.
    pub leftovers: Leftovers,
}

/// How a job's whole tree ended.
pub struct Ended {
    /// How its first process ended.
    pub end: JobEnd,
    /// Why it was ended, where it did not end by itself.
    pub cause: Option<EndCause>,
    /// What all of it used.
    pub usage: Usage,
    /// What it wrote to captured streams.
    pub captured: Captured,
}

/// A job that is being ended.
struct Ending {
    /// None where its first process has ended, and the others are to follow.
    cause: Option<EndCause>,
    kill_at: Instant,
}

/// Who hears of the job, and the version in which.
struct Listener {
    connection: OwnedFd,
    version: u16,
}

impl Listener {
    /// Says where the job stands. Each has room for the few packets there are; one that does not read, or has gone,
    /// misses them, and can attach again.
    fn tell(&self, state: &JobState) {
        match job::encode_state(state.clone(), self.version) {
            Ok(packet) => drop(deputy_wire::send(&self.connection, &packet, &[])),
            Err(error) => tracing::error!(event = "reply_failed", error = %error),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

/// A job that is being watched.
pub struct Watch<'a> {
    folder: &'a JobFolder,
    signals: SignalFd,
    tree: Tree,
    rules: EndRules,
    report: Option<OwnedFd>,
    state: Option<JobState>,
    listeners: Vec<Listener>,
    launch_failure: Option<JobEnd>,
    end_at: Option<Instant>,
    ending: Option<Ending>,
    pumps: Pumps,
}

impl<'a> Watch<'a> {
    /// Watches a job that was just forked. The connection that asked for it is the first to hear of it.
    pub fn new(
        folder: &'a JobFolder,
        connection: BorrowedFd<'_>,
        signals: SignalFd,
        tree: Tree,
        report: OwnedFd,
        rules: EndRules,
        pumps: Pumps,
    ) -> Result<Self, Denial> {
        let own = connection.try_clone_to_owned().map_err(|error| Denial::internal(error.to_string()))?;
        never_wait_for(&own);
        Ok(Self {
            folder,
            signals,
            rules,
            report: Some(report),
            state: None,
            // It comes from a daemon of this very release.
            listeners: vec![Listener { connection: own, version: JOB_VERSION }],
            launch_failure: None,
            end_at: rules.time_limit.map(|limit| tree.started() + limit),
            ending: None,
            pumps,
            tree,
        })
    }

    /// Waits until nothing of the job is left. Nobody needs to listen for that.
    pub fn until_the_tree_has_ended(&mut self) -> Result<Ended, Denial> {
        loop {
            self.wait_for_something()
                .map_err(|error| Denial::internal(format!("the shepherd's loop: {error}")))?;
            if self.tree.reap()? {
                break;
            }
            if self.tree.end().is_some() && self.rules.leftovers == Leftovers::End {
                self.end(None, self.rules.grace);
            }
        }
        // A child that failed before exec may be reaped before its report has been read.
        self.read_report();
        let ended = self.tree.take_end().map_err(|error| Denial::internal(error.to_string()))?;
        let ran_out = || self.tree.ran_out_of_memory().then_some(EndCause::OutOfMemory);
        Ok(Ended {
            end: self.launch_failure.take().unwrap_or(ended),
            cause: self.ending.as_ref().and_then(|ending| ending.cause).or_else(ran_out),
            usage: self.tree.usage(),
            captured: self.pumps.finish(),
        })
    }

    /// Tells everybody who listens where the job stands.
    pub fn tell(&mut self, state: &JobState) {
        self.state = Some(state.clone());
        for listener in &self.listeners {
            listener.tell(state);
        }
    }

    /// Gives up the cgroup and the connections.
    pub fn close(mut self) {
        // Whoever connects now finds the record instead of a shepherd.
        self.accept();
    }

    fn wait_for_something(&mut self) -> io::Result<()> {
        let next = self.ending.as_ref().map(|ending| ending.kill_at).or(self.end_at);
        let timeout = next.map(|at| at.saturating_duration_since(Instant::now()));
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
        set.extend(self.pumps.descriptors().map(|pipe| PollFd::from_borrowed_fd(pipe, PollFlags::IN)));
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
        let pumps = listening.end + usize::from(self.report.is_some());
        if ready[listening.end..pumps].contains(&true) {
            self.read_report();
        }
        if ready[pumps..].contains(&true) {
            self.pumps.serve();
        }
        for index in listening.rev().filter(|&index| ready[index]) {
            if !self.serve(index - 2) {
                self.listeners.swap_remove(index - 2);
            }
        }
        if ready[1] {
            self.accept();
        }
        self.look_at_the_clock();
        Ok(())
    }

    /// Reads what the child says about its launch, once.
    fn read_report(&mut self) {
        let Some(report) = self.report.take() else { return };
        match launch_result(report) {
            // Whoever hears that it ends has not to hear that it runs.
            Ok(LaunchResult::Executed) if self.ending.is_some() => {}
            Ok(LaunchResult::Executed) => self.tell(&JobState::Running),
            Ok(LaunchResult::Failed { step, errno }) => {
                self.launch_failure = Some(JobEnd::LaunchFailed { step, errno });
            }
            // Killed before it could exec: how it ended is what is waited for anyway.
            Ok(LaunchResult::Vanished) => {}
            Err(error) => tracing::error!(event = "launch_report_failed", error = %error),
        }
    }

    fn accept(&mut self) {
        while let Ok(control) = accept_with(&self.folder.listener, SocketFlags::CLOEXEC) {
            // The folder of the socket is root's alone, so only a child of the launcher's gets here.
            let _ = sockopt::set_socket_timeout(&control, sockopt::Timeout::Recv, Some(PATIENCE));
            let Ok(Some(mut packet)) = deputy_wire::receive(&control) else { continue };
            let theirs = job::read_adopt(&packet.bytes).filter(|_| self.listeners.len() < MAX_LISTENERS);
            let (Some(theirs), Some(connection)) = (theirs, packet.descriptors.pop()) else { continue };
            let (answer, version) = job::answer_adopt(theirs);
            let sent = deputy_wire::send(&control, &answer, &[]).is_ok();
            let Some(version) = version.filter(|_| sent) else { continue };
            let listener = Listener { connection, version };
            if let Some(state) = &self.state {
                listener.tell(state);
            }
            never_wait_for(&listener.connection);
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
        match job::decode_command(&packet.bytes) {
            Ok(JobCommand::Cancel { grace_ms }) => {
                self.end(Some(EndCause::Cancelled), Duration::from_millis(grace_ms.into()));
            }
            Ok(JobCommand::EndForConsent) => {
                let grace = Duration::from_millis(JobCommand::CONSENT_GRACE_MS.into());
                self.end(Some(EndCause::ConsentRevoked), grace);
            }
            Ok(JobCommand::Signal { signal }) if process::is_signal(signal) => self.tree.signal_first(signal),
            Ok(JobCommand::Signal { .. }) => {}
            Err(_) => return false,
        }
        true
    }

    /// Ends the job: TERM now, KILL after the grace, which is never longer than policy says. One that is being ended
    /// already has its cause, and can only be ended sooner.
    fn end(&mut self, cause: Option<EndCause>, grace: Duration) {
        let kill_at = Instant::now() + grace.min(self.rules.grace);
        if let Some(ending) = &mut self.ending {
            ending.kill_at = ending.kill_at.min(kill_at);
            return;
        }
        self.ending = Some(Ending { cause, kill_at });
        if let Some(cause) = cause {
            self.tell(&JobState::Ending(cause));
        }
        tree::ask_to_end();
    }

    fn look_at_the_clock(&mut self) {
        let now = Instant::now();
        match &mut self.ending {
            None if self.end_at.is_some_and(|at| at <= now) => {
                self.end(Some(EndCause::TimeLimit), self.rules.grace);
            }
            Some(ending) if ending.kill_at <= now => {
                self.tree.kill();
                // What was forked meanwhile is looked for again; the loop ends when nothing is left to wait for.
                ending.kill_at = now + KILL_AGAIN;
            }
            _ => {}
        }
    }
}

/// A daemon that does not read must not keep the shepherd from its job.
fn never_wait_for(listener: &OwnedFd) {
    let _ = rustix::io::ioctl_fionbio(listener, true);
}

/// What came of handing a connection over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adoption {
    /// The shepherd has it, and speaks this version on it.
    Adopted(u16),
    /// Nobody listens: the shepherd has gone.
    NoShepherd,
    /// Somebody listens, but did not take it.
    Failed,
    /// Somebody listens who speaks only these versions, none of which this program does.
    Foreign(JobVersions),
}

/// Hands a connection over to the shepherd of a job.
pub fn adopt(job: &JobId, connection: &OwnedFd) -> Adoption {
    match offer(job, connection, JobVersions::OURS) {
        // A shepherd of before versions were named does not understand them, and closes.
        Offered::Closed if JobVersions::OURS.common(JobVersions::UNNAMED).is_some() => {
            offer(job, connection, JobVersions::UNNAMED).adoption(job)
        }
        other => other.adoption(job),
    }
}

enum Offered {
    Answered(AdoptAnswer),
    NobodyListens,
    Closed,
    NoAnswer,
}

impl Offered {
    fn adoption(self, job: &JobId) -> Adoption {
        match self {
            Offered::Answered(AdoptAnswer::Adopted(version)) => Adoption::Adopted(version),
            Offered::Answered(AdoptAnswer::Refused(theirs)) => Adoption::Foreign(theirs),
            // It may have been on its way out, and be gone by now.
            Offered::Closed | Offered::NoAnswer if has_shepherd(job) => Adoption::Failed,
            Offered::NobodyListens | Offered::Closed | Offered::NoAnswer => Adoption::NoShepherd,
        }
    }
}

fn offer(job: &JobId, connection: &OwnedFd, versions: JobVersions) -> Offered {
    let Ok(control) = deputy_wire::connect(control_socket(job)) else { return Offered::NobodyListens };
    let _ = sockopt::set_socket_timeout(&control, sockopt::Timeout::Recv, Some(PATIENCE));
    if deputy_wire::send(&control, &job::adopt(versions), &[connection.as_fd()]).is_err() {
        return Offered::Closed;
    }
    match deputy_wire::receive(&control) {
        Ok(Some(packet)) => job::read_answer(&packet.bytes).map_or(Offered::NoAnswer, Offered::Answered),
        Err(error) if error.would_block() => Offered::NoAnswer,
        Ok(None) | Err(_) => Offered::Closed,
    }
}

/// Whether somebody is the shepherd of a job.
pub fn has_shepherd(job: &JobId) -> bool {
    deputy_wire::connect(control_socket(job)).is_ok()
}
