//! What is printed.

use std::fmt;

use serde::Serialize;

use crate::contender::{LIMIT, RUNUSER, SUDO};
use crate::statistics::{quantile, ratio};

/// Everything that one run found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// How many launches each median is made of.
    pub rounds: usize,
    /// One at a time.
    pub latency: Vec<Latency>,
    /// Several at once.
    pub throughput: Vec<Throughput>,
}

/// Launch to exit.
#[derive(Debug, Serialize)]
pub struct Latency {
    /// Who.
    pub contender: &'static str,
    /// What that is.
    pub what: &'static str,
    /// The median, nanoseconds.
    pub median_ns: u64,
    /// Nine of ten are below, nanoseconds.
    pub p90_ns: u64,
}

impl Latency {
    /// Of the samples.
    pub fn new(contender: &'static str, what: &'static str, mut samples: Vec<u64>) -> Self {
        let (median_ns, p90_ns) = (quantile(&mut samples, 50), quantile(&mut samples, 90));
        Self { contender, what, median_ns, p90_ns }
    }
}

/// How many launches in a second.
#[derive(Debug, Serialize)]
pub struct Throughput {
    /// Who.
    pub contender: &'static str,
    /// How many at once.
    pub width: usize,
    /// Launches in a second.
    pub per_second: u64,
}

impl Throughput {
    /// Of so many launches in so many nanoseconds.
    pub fn new(contender: &'static str, width: usize, launches: usize, nanoseconds: u64) -> Self {
        let launches = u128::try_from(launches).unwrap_or(0);
        let per_second = launches * 1_000_000_000 / u128::from(nanoseconds.max(1));
        Self { contender, width, per_second: u64::try_from(per_second).unwrap_or(u64::MAX) }
    }
}

impl Report {
    fn median(&self, contender: &str) -> u64 {
        self.latency.iter().find(|line| line.contender == contender).map_or(0, |line| line.median_ns)
    }

    fn per_second(&self, contender: &str, width: usize) -> u64 {
        let mut lines = self.throughput.iter();
        lines
            .find(|line| line.contender == contender && line.width == width)
            .map_or(0, |line| line.per_second)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Launch to exit of /bin/true, {} rounds. Ratios are this run's; times are this machine's.",
            self.rounds
        )?;
        writeln!(f)?;
        writeln!(
            f,
            "{:10} {:>10} {:>10} {:>9} {:>9} {:>9}",
            "", "median ms", "p90 ms", "/ limit", "/ runuser", "/ sudo"
        )?;
        let (limit, runuser, sudo) = (self.median(LIMIT), self.median(RUNUSER), self.median(SUDO));
        for line in &self.latency {
            let median = line.median_ns;
            let (ms, p90) = (ratio(median, 1_000_000), ratio(line.p90_ns, 1_000_000));
            let (to_limit, to_runuser, to_sudo) =
                (ratio(median, limit), ratio(median, runuser), ratio(median, sudo));
            writeln!(
                f,
                "{:10} {ms:>10.2} {p90:>10.2} {to_limit:>9.2} {to_runuser:>9.2} {to_sudo:>9.2}  {}",
                line.contender, line.what
            )?;
        }
        if self.throughput.is_empty() {
            return Ok(());
        }
        writeln!(f)?;
        writeln!(f, "{:10} {:>14} {:>12} {:>8}", "at once", "deputy / s", "limit / s", "ratio")?;
        for line in self.throughput.iter().filter(|line| line.contender == LIMIT) {
            let (deputy, limit) = (self.per_second(crate::contender::DEPUTY, line.width), line.per_second);
            writeln!(f, "{:<10} {deputy:>14} {limit:>12} {:>8.2}", line.width, ratio(deputy, limit))?;
        }
        Ok(())
    }
}
