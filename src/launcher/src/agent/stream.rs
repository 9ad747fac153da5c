//! The pipe of a long call: lines out, and whether anybody still reads.

use std::os::fd::OwnedFd;

use deputy_core::file_line::FileLine;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, write};

use super::CallError;
use super::watched::Watched;

/// Lines are written together up to so many bytes.
const BUFFER: usize = 16 * 1024;

/// After so many things it is looked whether the work may go on.
const STRIDE: u64 = 256;

/// For how long nobody may read before the work is given up.
const PATIENCE: Timespec = Timespec { tv_sec: 120, tv_nsec: 0 };

/// The pipe.
pub struct Lines<'a> {
    pipe: OwnedFd,
    watched: &'a Watched,
    buffer: Vec<u8>,
    since: u64,
}

impl<'a> Lines<'a> {
    /// Over a descriptor that was given for it.
    pub fn new(pipe: OwnedFd, watched: &'a Watched) -> Result<Self, CallError> {
        fcntl_setfl(&pipe, fcntl_getfl(&pipe)? | OFlags::NONBLOCK)?;
        Ok(Self { pipe, watched, buffer: Vec::with_capacity(BUFFER), since: 0 })
    }

    /// One thing was dealt with: an error if nobody reads any more, or what the work was begun under has changed. True
    /// now and then, when it is time to tell how far it is.
    pub fn step(&mut self) -> Result<bool, CallError> {
        self.since += 1;
        if self.since < STRIDE {
            return Ok(false);
        }
        self.since = 0;
        self.may_go_on()?;
        Ok(true)
    }

    /// The same where one thing takes long.
    pub fn may_go_on(&mut self) -> Result<(), CallError> {
        self.watched.check_own()?;
        let mut pipe = [PollFd::new(&self.pipe, PollFlags::empty())];
        poll(&mut pipe, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        if pipe[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) {
            return Err(Errno::PIPE.into());
        }
        Ok(())
    }

    /// Writes a line, now or with the next ones.
    pub fn line(&mut self, line: &FileLine<'_>) -> Result<(), CallError> {
        self.buffer.extend_from_slice(line.to_json().as_bytes());
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    /// Writes what is left.
    pub fn flush(&mut self) -> Result<(), CallError> {
        let mut written = 0;
        while written < self.buffer.len() {
            match write(&self.pipe, &self.buffer[written..]) {
                Ok(count) => written += count,
                Err(Errno::AGAIN) => {
                    let mut pipe = [PollFd::new(&self.pipe, PollFlags::OUT)];
                    if poll(&mut pipe, Some(&PATIENCE))? == 0 {
                        return Err(Errno::TIMEDOUT.into());
                    }
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        self.buffer.clear();
        Ok(())
    }
}
