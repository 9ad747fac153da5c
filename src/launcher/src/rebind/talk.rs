//! What root hears while the work goes on.

use std::os::fd::OwnedFd;

use deputy_core::message::{LauncherReply, RebindReply, encode};
use deputy_core::rebind::Problem;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Problems are told together, up to so many bytes of paths and words.
const TOGETHER: usize = 32 * 1024;

/// The connection of the one who asked.
pub struct Talk<'a> {
    connection: &'a OwnedFd,
    problems: Vec<Problem>,
    bytes: usize,
    gone: bool,
}

impl<'a> Talk<'a> {
    /// Over this connection.
    pub fn new(connection: &'a OwnedFd) -> Self {
        Self { connection, problems: Vec::new(), bytes: 0, gone: false }
    }

    /// Says something that is not the last.
    pub fn say(&mut self, reply: RebindReply) {
        let packet = encode(&LauncherReply::Rebind(reply));
        let sent = packet.is_ok_and(|packet| deputy_wire::send(self.connection, &packet, &[]).is_ok());
        self.gone |= !sent;
    }

    /// Tells of something that is to be said about an entry, now or with the next ones.
    pub fn problem(&mut self, problem: Problem) {
        self.bytes += problem.path.len() + problem.detail.len() + 16;
        self.problems.push(problem);
        if self.bytes >= TOGETHER {
            self.flush();
        }
    }

    /// Tells what has not been told yet.
    pub fn flush(&mut self) {
        self.bytes = 0;
        let problems = std::mem::take(&mut self.problems);
        if !problems.is_empty() {
            self.say(RebindReply::Problems(problems));
        }
    }

    /// Tells how far the work is.
    pub fn progress(&mut self, done: u64, of: Option<u64>) {
        self.flush();
        self.say(RebindReply::Progress { done, of });
    }

    /// Whether nobody listens any more.
    pub fn is_gone(&mut self) -> bool {
        let mut ends = [PollFd::new(self.connection, PollFlags::empty())];
        let polled = poll(&mut ends, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        self.gone |= polled.is_ok() && ends[0].revents().intersects(PollFlags::ERR | PollFlags::HUP);
        self.gone
    }

    /// Says the last thing.
    pub fn end(mut self, reply: RebindReply) {
        self.flush();
        self.say(reply);
    }
}
