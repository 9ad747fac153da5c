//! How far something is, on a terminal's standard error.

use std::io::{self, IsTerminal as _, Write as _};

use deputy_core::quota::human_bytes;

/// What is shown moves on by so much at least.
const STEP: u64 = 1024 * 1024;

/// How far something is.
pub struct Progress {
    shown: bool,
    of: Option<u64>,
    latest: u64,
}

impl Progress {
    /// Of so many bytes; none: things are counted, or the number is not known.
    pub fn new(of: Option<u64>) -> Self {
        Self { shown: io::stderr().is_terminal(), of, latest: 0 }
    }

    /// Nothing is shown.
    pub fn none() -> Self {
        Self { shown: false, of: None, latest: 0 }
    }

    /// Shows it, not more often than can be seen.
    pub fn show(&mut self, now: u64) {
        let step = self.of.map_or(STEP, |of| (of / 100).max(STEP));
        if !self.shown || now < self.latest + step && self.latest != 0 {
            return;
        }
        self.latest = now;
        let words = match self.of {
            Some(of) => format!("{} of {}", human_bytes(now), human_bytes(of)),
            None => now.to_string(),
        };
        // A terminal that takes nothing is no reason to stop.
        let _ = write!(io::stderr(), "\r\x1b[K{words}");
    }

    /// Shows nothing any more.
    pub fn end(&self) {
        if self.shown && self.latest != 0 {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
