//! The job's three descriptors.
//!
//! Files, pipes and sockets are handed over as they are. A terminal is not: a job that held it could read what is
//! typed next, or change its settings. Its bytes are copied through a pipe instead.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::fstat;
use rustix::termios::isatty;

/// The copies between the terminal and the job.
pub struct Streams {
    /// Where what is typed goes, once the job has been accepted.
    input: Option<PipeWriter>,
    /// The copies to the terminal.
    outputs: Vec<JoinHandle<()>>,
    /// Closed to say that nothing more will be written.
    end: PipeWriter,
}

impl Streams {
    /// The copies that this process's own standard descriptors need, and what to hand over for them.
    pub fn new() -> io::Result<(Self, [OwnedFd; 3])> {
        Self::of([io::stdin().as_fd(), io::stdout().as_fd(), io::stderr().as_fd()])
    }

    fn of([stdin, stdout, stderr]: [BorrowedFd<'_>; 3]) -> io::Result<(Self, [OwnedFd; 3])> {
        let (ended, end) = io::pipe()?;
        let mut streams = Self { input: None, outputs: Vec::new(), end };
        let input = if isatty(stdin) {
            let (theirs, ours) = io::pipe()?;
            streams.input = Some(ours);
            theirs.into()
        } else {
            stdin.try_clone_to_owned()?
        };
        let output = streams.output(stdout, &ended)?;
        // On one terminal both go through one pipe, so that their order stays.
        let error = if isatty(stdout) && isatty(stderr) && fstat(stdout)?.st_rdev == fstat(stderr)?.st_rdev {
            output.try_clone()?
        } else {
            streams.output(stderr, &ended)?
        };
        Ok((streams, [input, output, error]))
    }

    /// What to hand over for this output.
    fn output(&mut self, own: BorrowedFd<'_>, ended: &PipeReader) -> io::Result<OwnedFd> {
        if !isatty(own) {
            return own.try_clone_to_owned();
        }
        let (ours, theirs) = io::pipe()?;
        let (terminal, ended) = (File::from(own.try_clone_to_owned()?), ended.try_clone()?);
        self.outputs.push(thread::Builder::new().spawn(move || copy_output(ours, terminal, &ended))?);
        Ok(theirs.into())
    }

    /// Begins to copy what is typed: from here on it is the job's.
    pub fn begin(&mut self) -> io::Result<()> {
        if let Some(mut job) = self.input.take() {
            // It ends with the program: nothing else interrupts the reading of a terminal. A job that has closed its
            // input is no error.
            thread::Builder::new().spawn(move || io::copy(&mut io::stdin().lock(), &mut job))?;
        }
        Ok(())
    }

    /// Waits until everything that the job wrote is on the terminal.
    pub fn finish(self) {
        drop(self.end);
        for output in self.outputs {
            // A copy that panicked has nothing more to copy.
            let _ = output.join();
        }
    }
}

/// Copies until the job's end of the pipe, or of the pair of terminals, is closed; or, once the job has ended, until the pipe is empty, whoever may
/// still hold the other end.
pub fn copy_output(mut job: impl Read + AsFd, mut terminal: File, ended: &PipeReader) {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut buffer = vec![0; 64 * 1024];
    let mut over = false;
    loop {
        let mut ready = [PollFd::new(&job, PollFlags::IN), PollFd::new(ended, PollFlags::IN)];
        let watched = if over { &mut ready[..1] } else { &mut ready[..] };
        match poll(watched, over.then_some(&now)) {
            Ok(0) => return,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
        let readable = !ready[0].revents().is_empty();
        over |= !ready[1].revents().is_empty();
        if readable {
            match job.read(&mut buffer) {
                Ok(0) => return,
                // A terminal that is gone closes the pipe, and the job hears of it as it would on the terminal.
                Ok(length) => {
                    if terminal.write_all(&buffer[..length]).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_terminal_is_handed_over_itself() {
        let file = tempfile::tempfile().unwrap();
        let (streams, handed) = Streams::of([file.as_fd(); 3]).unwrap();
        assert!(streams.outputs.is_empty() && streams.input.is_none());
        for own in handed {
            assert_eq!(fstat(own).unwrap().st_ino, fstat(&file).unwrap().st_ino);
        }
    }

    #[test]
    fn everything_written_is_copied_even_if_somebody_keeps_the_pipe_open() {
        let (job, mut writer) = io::pipe().unwrap();
        let (ended, end) = io::pipe().unwrap();
        let mut terminal = tempfile::tempfile().unwrap();
        let copy = {
            let terminal = terminal.try_clone().unwrap();
            thread::spawn(move || copy_output(job, terminal, &ended))
        };
        writer.write_all(b"the last words").unwrap();
        drop(end);
        copy.join().unwrap();
        drop(writer);
        let mut copied = String::new();
        io::Seek::rewind(&mut terminal).unwrap();
        terminal.read_to_string(&mut copied).unwrap();
        assert_eq!(copied, "the last words");
    }
}
