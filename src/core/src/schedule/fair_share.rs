//! How much CPU time each account used lately, so that who used less goes first.
//!
//! What was used counts half after each half-life. Since that is so for everybody alike, nothing is made smaller as
//! time goes by: what is used later counts more instead, by `growth`. So an account costs nothing while it does
//! nothing, and what its jobs use at this moment follows from two sums.

use std::f64::consts::LN_2;

use super::Moment;

/// After so many half-lives the numbers are made small again.
const REBASE_AFTER: f64 = 32.0;

/// How used CPU time fades.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Fading {
    half_life: f64,
    origin: Moment,
}

/// What one account used, and what its running jobs use.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Share {
    /// CPU seconds of what has ended, each times the growth of its time.
    used: f64,
    /// The thousandths of CPUs of the jobs that run.
    cpus: u64,
    /// The CPUs of the jobs that run, each times the growth at its start.
    starts: f64,
}

/// CPUs from thousandths.
fn cpus(milli: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let milli = milli as f64;
    milli / 1000.0
}

impl Fading {
    pub fn new(half_life_seconds: u64, origin: Moment) -> Self {
        // A machine's uptime in seconds is exact as a float for longer than a machine lives.
        #[expect(clippy::cast_precision_loss, reason = "a number of seconds")]
        let half_life = half_life_seconds.max(1) as f64;
        Self { half_life, origin }
    }

    /// Seconds.
    pub fn half_life(&self) -> f64 {
        self.half_life
    }

    /// The same half-life from another origin on.
    pub fn with_origin(self, origin: Moment) -> Self {
        Self { origin, ..self }
    }

    fn half_lives(&self, at: Moment) -> f64 {
        at.seconds_since(self.origin) / self.half_life
    }

    /// How much more a CPU second counts at a moment than at the origin.
    pub fn growth(&self, at: Moment) -> f64 {
        self.half_lives(at).exp2()
    }

    /// What one CPU that was busy between two moments counts, from the growths at both.
    fn busy(&self, from: f64, to: f64) -> f64 {
        self.half_life / LN_2 * (to - from)
    }

    pub fn is_old(&self, now: Moment) -> bool {
        self.half_lives(now) > REBASE_AFTER
    }
}

impl Share {
    /// What the account counts at a moment with this growth, in units of that moment's CPU seconds times the growth.
    pub fn counted(&self, fading: &Fading, growth: f64) -> f64 {
        self.used + fading.busy(self.starts, cpus(self.cpus) * growth).max(0.0)
    }

    /// The CPUs of the jobs that run.
    pub fn cpus(&self) -> f64 {
        cpus(self.cpus)
    }

    pub fn start(&mut self, milli_cpus: u64, growth_at_start: f64) {
        self.cpus += milli_cpus;
        self.starts += cpus(milli_cpus) * growth_at_start;
    }

    /// A job ended. What it truly used takes the place of what its CPUs could have done; where that is not known, it
    /// counts as busy all the time.
    pub fn end(
        &mut self,
        fading: &Fading,
        milli_cpus: u64,
        started: Moment,
        ended: Moment,
        used_seconds: Option<f64>,
    ) {
        let (from, to) = (fading.growth(started), fading.growth(ended));
        self.cpus = self.cpus.saturating_sub(milli_cpus);
        self.starts -= cpus(milli_cpus) * from;
        if self.cpus == 0 {
            // What differences of large numbers left over.
            self.starts = 0.0;
        }
        let elapsed = ended.seconds_since(started);
        let mean_growth = if elapsed > 0.0 { fading.busy(from, to) / elapsed } else { to };
        self.used += used_seconds.unwrap_or(cpus(milli_cpus) * elapsed) * mean_growth;
    }

    /// Something that was used at an earlier time.
    pub fn charge(&mut self, seconds: f64, growth: f64) {
        self.used += seconds * growth;
    }

    /// The same in the units of a new origin, at which the old growth was `growth`. The jobs that run are started
    /// again by the caller.
    pub fn rebase(&mut self, growth: f64) {
        self.used /= growth;
        (self.cpus, self.starts) = (0, 0.0);
    }

    /// Whether the account can be forgotten.
    pub fn is_nothing(&self, growth: f64) -> bool {
        self.cpus == 0 && self.used / growth < 1e-3
    }
}
