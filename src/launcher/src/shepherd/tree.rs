//! All processes of a job: the first one and whatever descends from it. They are the shepherd's descendants, because it
//! is a subreaper, and they are in the job's cgroup where it has one.

use std::io;
use std::time::Instant;

use deputy_core::denial::Denial;
use deputy_core::job::{JobEnd, Usage};
use deputy_sys::descendants;
use deputy_sys::process::{self, Reaped, Wait};

use super::bounds::OwnCgroup;

const SIGTERM: i32 = 15;
const SIGCONT: i32 = 18;

/// The processes of one job.
pub struct Tree {
    cgroup: Option<OwnCgroup>,
    first: i32,
    started: Instant,
    end: Option<JobEnd>,
    used: Usage,
}

impl Tree {
    /// That of a job whose first process was forked at this moment.
    pub fn new(first: i32, cgroup: Option<OwnCgroup>, started: Instant) -> Self {
        Self { cgroup, first, started, end: None, used: Usage::default() }
    }

    /// When it was forked. The clock goes on whatever is done to that of the machine, and stands while it sleeps.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// How its first process ended, once it has.
    pub fn end(&self) -> Option<&JobEnd> {
        self.end.as_ref()
    }

    /// Waits for what has ended. Whether nothing is left.
    pub fn reap(&mut self) -> Result<bool, Denial> {
        loop {
            match process::reap().map_err(|error| Denial::internal(format!("wait: {error}")))? {
                Wait::Running => return Ok(false),
                Wait::NoChildren => return Ok(true),
                Wait::Reaped(child) => self.count(child),
            }
        }
    }

    fn count(&mut self, child: Reaped) {
        self.used.user_us += child.user_us;
        self.used.system_us += child.system_us;
        self.used.max_rss_kib = self.used.max_rss_kib.max(child.max_rss_kib);
        self.used.read_bytes += child.read_bytes;
        self.used.written_bytes += child.written_bytes;
        if child.pid == self.first {
            self.end = Some(child.end);
        }
    }

    /// Sends a signal to the first process, while it has not been waited for.
    pub fn signal_first(&self, signal: i32) {
        if self.end.is_none() {
            let _ = process::signal_child(self.first, signal);
        }
    }

    /// Kills all of it: by its cgroup, and by descent, because a process can have left the one (a systemd of the user's
    /// takes it into a scope), and because the other is all there is without a cgroup. What is forked meanwhile is for
    /// the next time.
    pub fn kill(&self) {
        if let Some(cgroup) = &self.cgroup {
            let _ = cgroup.kill();
        }
        if let Err(error) = descendants::kill_all() {
            tracing::warn!(event = "kill_failed", error = %error);
        }
    }

    /// Whether the kernel ended it because it needed more memory than it may have.
    pub fn ran_out_of_memory(&self) -> bool {
        self.cgroup.as_ref().is_some_and(|cgroup| cgroup.ran_out_of_memory())
    }

    /// What all of it used, once nothing is left: as its cgroup counted it, or as was told of each process that was
    /// waited for, whichever is more. The first misses what has left it, the second what nobody waited for; and a cgroup
    /// counts what is written only when it reaches the device.
    pub fn usage(&self) -> Usage {
        let mut usage = self.used.clone();
        usage.wall_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let Some(counted) = self.cgroup.as_ref().map(|cgroup| cgroup.usage()) else { return usage };
        if let Some((user_us, system_us)) = counted.cpu_us
            && user_us + system_us > usage.user_us + usage.system_us
        {
            (usage.user_us, usage.system_us) = (user_us, system_us);
        }
        if let Some(peak) = counted.memory_peak {
            usage.max_rss_kib = peak / 1024;
        }
        if let Some((read, written)) = counted.io_bytes {
            usage.read_bytes = usage.read_bytes.max(read);
            usage.written_bytes = usage.written_bytes.max(written);
        }
        usage
    }

    /// The end of the first process, once nothing is left.
    pub fn take_end(&mut self) -> io::Result<JobEnd> {
        self.end.take().ok_or_else(|| io::Error::other("the job's first process was never reaped"))
    }
}

/// Asks everything that descends from this process to end. What is stopped hears of it when it goes on.
pub fn ask_to_end() {
    for signal in [SIGTERM, SIGCONT] {
        if let Err(error) = descendants::signal_all(signal) {
            tracing::warn!(event = "cancel_failed", error = %error);
        }
    }
}
