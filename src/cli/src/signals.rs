//! The signals with which somebody ends a command.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// SIGHUP, SIGINT and SIGTERM, from when it is made on.
pub struct Signals {
    caught: Option<[Signal; 3]>,
}

impl Signals {
    /// Begins to catch them.
    pub fn new() -> Result<Self, Failure> {
        let caught = [
            signal(SignalKind::hangup())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        ];
        Ok(Self { caught: Some(caught) })
    }

    /// None of them: they do what they do to any program.
    pub fn none() -> Self {
        Self { caught: None }
    }

    /// Waits for the next one, and says its number.
    pub async fn next(&mut self) -> i32 {
        let Some([hangup, interrupt, terminate]) = &mut self.caught else {
            return std::future::pending().await;
        };
        let kind = tokio::select! {
            _ = hangup.recv() => SignalKind::hangup(),
            _ = interrupt.recv() => SignalKind::interrupt(),
            _ = terminate.recv() => SignalKind::terminate(),
        };
        kind.as_raw_value()
    }
}
