//! Pipes for those who watch a job.
//!
//! A pipe holds the few lines that a job has in its life, so nothing is kept here for a reader who does not read:
//! what does not fit is left out, and the pipe is closed.

use std::os::fd::OwnedFd;

use deputy_core::Denial;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::{Errno, write};
use rustix::net::{SendFlags, send};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};

use crate::limits::Place;

/// The writing ends of a job's watchers.
#[derive(Debug, Default)]
pub struct Watchers(Vec<Watcher>);

#[derive(Debug)]
struct Watcher {
    pipe: OwnedFd,
    /// A descriptor of the caller's: its other holders can change how it behaves.
    foreign: bool,
    /// What it has not been told yet, while it is not to be told anything.
    held: Option<Vec<u8>>,
    _place: Option<Place>,
}

impl Watchers {
    /// A pipe whose first line is this one. It is closed after it if the job has ended.
    pub fn add(&mut self, line: &[u8], ended: bool, place: Option<Place>) -> Result<OwnedFd, Denial> {
        let failed = |error| Denial::internal(format!("a pipe could not be made: {error}"));
        let (reader, pipe) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
        // Only our end: the two are descriptions of their own.
        fcntl_setfl(&pipe, OFlags::NONBLOCK).map_err(failed)?;
        let watcher = Watcher { pipe, foreign: false, held: None, _place: place };
        if watcher.write(line) && !ended {
            self.0.retain(Watcher::has_reader);
            self.0.push(watcher);
        }
        Ok(reader)
    }

    /// A descriptor that the caller brought, for all that comes. It is told nothing before [`Watchers::release`], unless
    /// the job ends before.
    pub fn adopt(&mut self, pipe: OwnedFd, place: Place) {
        self.0.push(Watcher { pipe, foreign: true, held: Some(Vec::new()), _place: Some(place) });
    }

    /// Tells those that were held what they missed: `line`, if nothing happened in between.
    pub fn release(&mut self, line: &[u8]) {
        self.0.retain_mut(|watcher| match watcher.held.take() {
            None => true,
            Some(missed) if missed.is_empty() => watcher.write(line),
            Some(missed) => watcher.write(&missed),
        });
    }

    /// Writes a line to all; after the last line all are closed.
    pub fn tell(&mut self, line: &[u8], last: bool) {
        self.0.retain_mut(|watcher| match &mut watcher.held {
            None => watcher.write(line),
            Some(missed) => {
                missed.extend_from_slice(line);
                true
            }
        });
        if last {
            self.release(line);
            self.0.clear();
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

impl Watcher {
    /// Whether the lines were taken whole. They are shorter than what a pipe takes at once, so there are no halves.
    fn write(&self, line: &[u8]) -> bool {
        let written = if self.foreign { self.write_foreign(line) } else { write(&self.pipe, line) };
        written.is_ok_and(|written| written == line.len())
    }

    /// Whether a descriptor waits is a flag that all its holders share, and could change while a line is written. So
    /// the one who does not wait is the call itself, whatever the flag says.
    fn write_foreign(&self, line: &[u8]) -> Result<usize, Errno> {
        match send(&self.pipe, line, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Err(Errno::NOTSOCK) => {}
            sent => return sent,
        }
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        write(&writer, line)?;
        splice(&reader, None, &self.pipe, None, line.len(), SpliceFlags::NONBLOCK)
    }

    fn has_reader(&self) -> bool {
        let mut polled = [PollFd::new(&self.pipe, PollFlags::empty())];
        match poll(&mut polled, Some(&Timespec::default())) {
            Ok(_) => !polled[0].revents().contains(PollFlags::ERR),
            Err(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Ceiling;
    use std::io::Read as _;

    fn read(pipe: OwnedFd) -> String {
        let mut text = String::new();
        std::fs::File::from(pipe).read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn each_watcher_sees_the_states_from_his_first_on_and_then_the_end() {
        let mut watchers = Watchers::default();
        let first = watchers.add(b"queued\n", false, None).unwrap();
        watchers.tell(b"running\n", false);
        let second = watchers.add(b"running\n", false, None).unwrap();
        watchers.tell(b"done\n", true);
        let late = watchers.add(b"done\n", true, None).unwrap();
        assert_eq!(read(first), "queued\nrunning\ndone\n");
        assert_eq!(read(second), "running\ndone\n");
        assert_eq!(read(late), "done\n");
        assert_eq!(watchers.count(), 0);
    }

    #[test]
    fn a_descriptor_of_the_callers_never_holds_the_daemon_up() {
        let ceiling = Ceiling::new("pipes", 9, 9);
        let (reader, writer) = std::io::pipe().unwrap();
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let (gone, without_reader) = std::io::pipe().unwrap();
        drop(gone);
        let mut watchers = Watchers::default();
        // None of them is set not to wait.
        for descriptor in [OwnedFd::from(writer), theirs.into(), without_reader.into()] {
            watchers.adopt(descriptor, ceiling.enter(1).unwrap());
        }
        watchers.release(b"starting\n");
        assert_eq!((watchers.count(), ceiling.taken()), (2, 2));
        watchers.tell(b"running\n", false);
        assert_eq!(watchers.count(), 2);
        let long = vec![b'a'; 4000];
        for _ in 0..200 {
            watchers.tell(&long, false);
        }
        assert_eq!((watchers.count(), ceiling.taken()), (0, 0));
        assert!(read(reader.into()).starts_with("starting\nrunning\na"));
        assert!(read(ours.into()).starts_with("starting\nrunning\na"));
    }

    #[test]
    fn who_was_held_misses_nothing_whenever_it_is_released() {
        let ceiling = Ceiling::new("pipes", 9, 9);
        for (before, after) in [(0, 4), (2, 2), (4, 0)] {
            let states: [&[u8]; 4] = [b"starting\n", b"running\n", b"ending\n", b"done\n"];
            let (reader, writer) = std::io::pipe().unwrap();
            let mut watchers = Watchers::default();
            watchers.adopt(writer.into(), ceiling.enter(1).unwrap());
            let tell = |watchers: &mut Watchers, line: &[u8]| watchers.tell(line, line == b"done\n");
            states[..before].iter().for_each(|line| tell(&mut watchers, line));
            watchers.release(b"queued\n");
            states[4 - after..].iter().for_each(|line| tell(&mut watchers, line));
            let first = if before == 0 { "queued\n" } else { "" };
            assert_eq!(read(reader.into()), format!("{first}starting\nrunning\nending\ndone\n"), "{before}");
            assert_eq!((watchers.count(), ceiling.taken()), (0, 0));
        }
    }

    #[test]
    fn a_watcher_who_does_not_read_or_left_costs_nothing() {
        let ceiling = Ceiling::new("pipes", 2, 2);
        let mut watchers = Watchers::default();
        let silent = watchers.add(b"x\n", false, Some(ceiling.enter(1).unwrap())).unwrap();
        let gone = watchers.add(b"x\n", false, Some(ceiling.enter(1).unwrap())).unwrap();
        drop(gone);
        assert_eq!(ceiling.taken(), 2);
        // The place of the one who left is found when somebody else comes.
        let other = watchers.add(b"x\n", false, None).unwrap();
        assert_eq!((watchers.count(), ceiling.taken()), (2, 1));
        let long = vec![b'a'; 4000];
        for _ in 0..100 {
            watchers.tell(&long, false);
        }
        assert_eq!((watchers.count(), ceiling.taken()), (0, 0));
        assert!(read(silent).starts_with("x\na"));
        assert!(read(other).len() <= 65_536);
    }
}
