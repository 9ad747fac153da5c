//! Counting refusals to strangers, so that nobody without rights can make the log grow.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use deputy_core::Code;

use super::change::Change;
use super::clock::Timestamp;

/// Refusals since the last record.
#[derive(Debug, Default)]
pub(crate) struct Strangers(Mutex<Option<Count>>);

#[derive(Debug)]
struct Count {
    since: Timestamp,
    begun: Instant,
    codes: BTreeMap<Code, u64>,
}

impl Strangers {
    /// Counts one refusal. True for the first since the last record: somebody has to see to the next one.
    pub fn count(&self, code: Code, now: Timestamp) -> bool {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = held.is_none();
        let count =
            held.get_or_insert_with(|| Count { since: now, begun: Instant::now(), codes: BTreeMap::new() });
        *count.codes.entry(code).or_default() += 1;
        first
    }

    /// How long until the next record is due; `None` while there is nothing to record.
    pub fn due_in(&self, every: Duration) -> Option<Duration> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().map(|count| every.saturating_sub(count.begun.elapsed()))
    }

    /// The record of what was counted; the count begins anew.
    pub fn take(&self) -> Option<Change> {
        let count = self.0.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(Change::StrangersDenied { since: count.since, codes: count.codes })
    }
}
