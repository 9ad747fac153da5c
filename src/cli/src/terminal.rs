//! Questions on the terminal.
//!
//! The terminal is `/dev/tty`, whatever standard input and output are. While a secret is typed its echo is off; it is
//! switched on again on every way out: the answer, an error, a panic, and the signals that end the program.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use deputy_core::denial::Code;
use deputy_core::message::conversation::MAX_ANSWER;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::failure::Failure;

/// The longest line that a terminal gives in one piece.
const MAX_LINE: usize = 4096;

/// A terminal, with what it was like before a question. Clones are the same terminal.
#[derive(Clone)]
pub struct Terminal {
    device: Arc<File>,
    state: Arc<Mutex<State>>,
}

/// What a terminal has to be put back to.
#[derive(Default)]
struct State {
    /// What it was like, while a secret is asked for.
    before: Option<Termios>,
    /// A signal has ended the questions: no later one may switch the echo off again.
    closed: bool,
}

impl Terminal {
    /// Opens the terminal that the process has, if it has one.
    pub fn open() -> Option<Self> {
        let device = File::options().read(true).write(true).open("/dev/tty").ok()?;
        Some(Self::on(device))
    }

    fn on(device: File) -> Self {
        Self { device: Arc::new(device), state: Arc::default() }
    }

    /// Writes text that is escaped already.
    pub fn write(&self, text: &str) -> io::Result<()> {
        (&*self.device).write_all(text.as_bytes())
    }

    /// Asks, and reads one line; without echo if `secret`. `None` at the end of the terminal's input.
    pub fn ask(&self, question: &str, secret: bool) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
        if !secret {
            self.write(question)?;
            return self.line();
        }
        // Before the question is shown: who sees it may type at once.
        let guard = self.silence()?;
        self.write(question)?;
        let line = self.line();
        drop(guard);
        // The person's own line feed was not shown.
        self.write("\n")?;
        line
    }

    /// Puts the terminal back as it was before the question, and lets no other be asked. For the signals' way out.
    pub fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        self.restore(&mut state);
    }

    /// Switches the echo off until the guard is dropped. What was typed ahead is thrown away: it was not an answer.
    fn silence(&self) -> Result<Silence<'_>, Failure> {
        let mut state = self.state();
        if state.closed {
            return Err(Failure::new(Code::ConversationAborted, "a signal ended the questions"));
        }
        let before = tcgetattr(self.device.as_fd()).map_err(io::Error::from)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO | LocalModes::ECHONL);
        silent.local_modes.insert(LocalModes::ICANON | LocalModes::ISIG);
        // Stopping or dumping core here would leave a terminal without echo, or the secret on the disk.
        for key in [SpecialCodeIndex::VSUSP, SpecialCodeIndex::VQUIT] {
            silent.special_codes[key] = 0;
        }
        state.before = Some(before);
        let guard = Silence(self);
        let changed = tcsetattr(self.device.as_fd(), OptionalActions::Flush, &silent);
        drop(state);
        changed.map_err(io::Error::from)?;
        Ok(guard)
    }

    fn restore(&self, state: &mut State) {
        if let Some(before) = state.before.take() {
            // There is nobody left to tell.
            let _ = tcsetattr(self.device.as_fd(), OptionalActions::Now, &before);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
        read_line(&*self.device)
    }
}

/// Switches the echo on again when it is dropped.
struct Silence<'a>(&'a Terminal);

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        self.0.restore(&mut self.0.state());
    }
}

/// Reads one line byte by byte, so that nothing behind it is taken, into memory that is wiped and never moves.
pub fn read_line(mut source: impl io::Read) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_LINE));
    let mut byte = Zeroizing::new([0]);
    loop {
        match source.read(&mut *byte) {
            Ok(0) if line.is_empty() => return Ok(None),
            Ok(0) => break,
            Ok(_) if byte[0] == b'\n' => break,
            Ok(_) if line.len() == MAX_ANSWER => {
                return Err(Failure::new(
                    Code::InvalidArgument,
                    format!("an answer has at most {MAX_ANSWER} bytes"),
                ));
            }
            Ok(_) => line.push(byte[0]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                return Err(Failure::new(
                    Code::ConversationAborted,
                    format!("the answer could not be read: {error}"),
                ));
            }
        }
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(Some(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_one_by_one_and_bounded() {
        let mut source: &[u8] = b"first\nsecond\r\n\nlast";
        let mut next = || read_line(&mut source).unwrap().map(|line| line.to_vec());
        assert_eq!(next().unwrap(), b"first");
        assert_eq!(next().unwrap(), b"second");
        assert_eq!(next().unwrap(), b"");
        assert_eq!(next().unwrap(), b"last");
        assert_eq!(next(), None);
        assert!(read_line(&vec![b'x'; MAX_ANSWER][..]).is_ok());
        assert!(read_line(&vec![b'x'; MAX_ANSWER + 1][..]).is_err());
    }
}
