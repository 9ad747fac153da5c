//! A terminal of the job's own, shown on the person's.
//!
//! It is one side of a pair that is made for this job; the person's terminal is never handed over. What the person types goes
//! to the other side byte by byte, and what the job writes comes from there. Meanwhile the person's terminal changes nothing
//! of that (raw mode), and on every way out it is put back as it was.

use std::fs::File;
use std::io::{self, PipeWriter};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use deputy_core::denial::Code;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};
use tokio::signal::unix::{SignalKind, signal};

use super::streams::copy_output;
use crate::failure::Failure;

/// The job's terminal, as the person has it.
pub struct JobTerminal {
    /// The person's side of the pair.
    side: Arc<File>,
    /// What the person's terminal was like, while the job has the keyboard.
    before: Option<Before>,
    /// The copy to the screen.
    screen: JoinHandle<()>,
    /// Closed to say that nothing more will be written.
    end: PipeWriter,
}

impl JobTerminal {
    /// Makes the pair, as large and with the same keys as the person's terminal, and says what to hand over.
    pub fn new() -> Result<(Self, OwnedFd), Failure> {
        let (keyboard, screen) = (io::stdin(), io::stdout());
        if !isatty(&keyboard) || !isatty(&screen) {
            return Err(Failure::new(
                Code::InvalidArgument,
                "--terminal needs a terminal as standard input and output",
            )
            .remedy("leave --terminal out: then they are handed over as they are"));
        }
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let made = || -> rustix::io::Result<(OwnedFd, OwnedFd)> {
            let side = openpt(flags)?;
            grantpt(&side)?;
            unlockpt(&side)?;
            // By the descriptor: no path is opened.
            let theirs = ioctl_tiocgptpeer(&side, flags)?;
            tcsetattr(&theirs, OptionalActions::Now, &tcgetattr(&keyboard)?)?;
            tcsetwinsize(&theirs, tcgetwinsize(&screen)?)?;
            Ok((side, theirs))
        };
        let (side, theirs) = made().map_err(io::Error::from)?;
        let side = Arc::new(File::from(side));
        let (ended, end) = io::pipe()?;
        let (from, to) = (side.try_clone()?, File::from(screen.as_fd().try_clone_to_owned()?));
        let screen = thread::Builder::new().spawn(move || copy_output(from, to, &ended))?;
        Ok((Self { side, before: None, screen, end }, theirs))
    }

    /// Gives the job the keyboard, once. For a job that runs: until then the keys that interrupt are for `deputyctl`.
    pub fn begin(&mut self) -> io::Result<()> {
        if self.before.is_some() {
            return Ok(());
        }
        self.before = Some(Before::now()?);
        let side = Arc::clone(&self.side);
        // It ends with the program: nothing else interrupts the reading of a terminal.
        thread::Builder::new().spawn(move || io::copy(&mut io::stdin().lock(), &mut &*side))?;
        let (side, mut resized) = (Arc::clone(&self.side), signal(SignalKind::window_change())?);
        tokio::spawn(async move {
            loop {
                // Once as well for what was missed until now. Whoever runs there hears of it by the kernel.
                if let Ok(size) = tcgetwinsize(io::stdout()) {
                    let _ = tcsetwinsize(&*side, size);
                }
                if resized.recv().await.is_none() {
                    return;
                }
            }
        });
        Ok(())
    }

    /// Waits until everything that the job wrote is on the screen, and puts the person's terminal back.
    pub fn finish(self) {
        drop(self.end);
        // A copy that panicked has nothing more to copy.
        let _ = self.screen.join();
        drop(self.before);
    }
}

/// What the person's terminal was like. Dropped, it is so again.
struct Before(Termios);

impl Before {
    /// Takes note of it, and has the terminal leave everything to the job.
    fn now() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        let guard = Self(before);
        tcsetattr(io::stdin(), OptionalActions::Drain, &raw)?;
        Ok(guard)
    }
}

impl Drop for Before {
    fn drop(&mut self) {
        // There is nobody left to tell.
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &self.0);
    }
}
