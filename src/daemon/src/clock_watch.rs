//! Notices when the machine's clock is set while the daemon runs, or was set back while it did not.
//!
//! Sessions end at times of that clock. Where it goes back nobody knows any more how long they have lived, so all of them
//! end; where it goes ahead they end by themselves. Jobs are not concerned: their shepherds measure with a clock that
//! nobody can set.

use std::fmt;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::store::Timestamp;

/// What is no more than somebody's correction of a clock that was nearly right.
const TOLERANCE: Duration = Duration::from_secs(10);

/// The clock was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Back, by so much.
    Back(Duration),
    /// Ahead, by so much.
    Ahead(Duration),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Back(by) => {
                write!(f, "the machine's clock was set back by {} s: all sessions were ended", by.as_secs())
            }
            Step::Ahead(by) => write!(
                f,
                "the machine's clock was set ahead by {} s: sessions and consents may have expired early",
                by.as_secs()
            ),
        }
    }
}

/// Both clocks, as they were when they were last looked at.
#[derive(Debug, Clone, Copy)]
pub struct ClockWatch {
    wall: Timestamp,
    since_boot: Duration,
}

impl ClockWatch {
    /// From now on.
    pub fn new() -> Self {
        Self { wall: Timestamp::now(), since_boot: since_boot() }
    }

    /// Whether the clock is behind what was recorded last, before the daemon was started.
    pub fn behind(&self, last_recorded: Timestamp) -> Option<Step> {
        let behind = Duration::from_micros(last_recorded.0.saturating_sub(self.wall.0));
        (behind > TOLERANCE).then_some(Step::Back(behind))
    }

    /// Whether the clock was set since the last look.
    pub fn look(&mut self) -> Option<Step> {
        self.compare(Self::new())
    }

    fn compare(&mut self, now: Self) -> Option<Step> {
        let passed = now.since_boot.saturating_sub(self.since_boot);
        let expected = Duration::from_micros(self.wall.0).saturating_add(passed);
        let told = Duration::from_micros(now.wall.0);
        *self = now;
        let (back, ahead) = (expected.saturating_sub(told), told.saturating_sub(expected));
        if back > TOLERANCE {
            Some(Step::Back(back))
        } else {
            (ahead > TOLERANCE).then_some(Step::Ahead(ahead))
        }
    }
}

impl Default for ClockWatch {
    fn default() -> Self {
        Self::new()
    }
}

/// It goes on while the machine sleeps, as its clock does.
fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(now.tv_sec.try_into().unwrap_or(0), now.tv_nsec.try_into().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(wall: u64, since_boot: u64) -> ClockWatch {
        ClockWatch { wall: Timestamp(wall * 1_000_000), since_boot: Duration::from_secs(since_boot) }
    }

    #[test]
    fn a_clock_that_goes_with_time_was_not_set_and_one_that_does_not_was() {
        let seconds = Duration::from_secs;
        for (now, step) in [
            (at(1_001, 51), None),
            // The machine slept, or the daemon had no turn.
            (at(90_000, 89_050), None),
            (at(1_008, 51), None),
            (at(992, 51), None),
            (at(1_100, 51), Some(Step::Ahead(seconds(99)))),
            (at(901, 51), Some(Step::Back(seconds(100)))),
            (at(0, 50), Some(Step::Back(seconds(1_000)))),
            (at(1_000, 1_050), Some(Step::Back(seconds(1_000)))),
        ] {
            let mut watch = at(1_000, 50);
            assert_eq!(watch.compare(now), step, "{now:?}");
            // Each is told once.
            assert_eq!(watch.compare(now), None);
        }
    }

    #[test]
    fn a_record_of_the_future_tells_that_the_clock_was_set_back() {
        assert_eq!(at(1_000, 5).behind(Timestamp(1_005_000_000)), None);
        assert_eq!(at(1_000, 5).behind(Timestamp(1_000)), None);
        let step = Some(Step::Back(Duration::from_secs(500)));
        assert_eq!(at(1_000, 5).behind(Timestamp(1_500_000_000)), step);
    }

    #[test]
    fn the_clocks_of_this_machine_agree_with_themselves() {
        let mut watch = ClockWatch::new();
        assert_eq!(watch.look(), None);
    }
}
