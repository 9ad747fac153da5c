//! What is printed.

use std::fmt;

use serde::Serialize;

use crate::contender::{DEPUTY, LIMIT, Missing, RUNUSER, SUDO};
use crate::cost::Cost;
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
    /// CPU time.
    pub cost: Vec<Cost>,
    /// Who could not be measured, and why.
    pub missing: Vec<Missing>,
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
    /// One of ten is below, nanoseconds: what it takes when nothing else happens.
    pub p10_ns: u64,
    /// Nine of ten are below, nanoseconds.
    pub p90_ns: u64,
}

impl Latency {
    /// Of the samples.
    pub fn new(contender: &'static str, what: &'static str, mut samples: Vec<u64>) -> Self {
        let [p10_ns, median_ns, p90_ns] = [10, 50, 90].map(|percent| quantile(&mut samples, percent));
        Self { contender, what, median_ns, p10_ns, p90_ns }
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
            "{:11} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "", "median ms", "p10 ms", "p90 ms", "/ limit", "p10/limit", "/ runuser", "/ sudo"
        )?;
        let (limit, runuser, sudo) = (self.median(LIMIT), self.median(RUNUSER), self.median(SUDO));
        let limit_p10 =
            self.latency.iter().find(|line| line.contender == LIMIT).map_or(0, |line| line.p10_ns);
        for line in &self.latency {
            let median = line.median_ns;
            let [ms, p10, p90] = [median, line.p10_ns, line.p90_ns].map(|ns| ratio(ns, 1_000_000));
            // What was not measured has no median.
            let times = |value: u64, other: u64| match other {
                0 => "-".to_owned(),
                other => format!("{:.2}", ratio(value, other)),
            };
            let [to_limit, to_runuser, to_sudo] = [limit, runuser, sudo].map(|other| times(median, other));
            let to_limit_p10 = times(line.p10_ns, limit_p10);
            writeln!(
                f,
                "{:11} {ms:>9.2} {p10:>9.2} {p90:>9.2} {to_limit:>9} {to_limit_p10:>9} {to_runuser:>9} \
                 {to_sudo:>9}  {}",
                line.contender, line.what
            )?;
        }
        for (name, why) in &self.missing {
            writeln!(f, "{name:11} {why}")?;
        }
        writeln!(f)?;
        if self.throughput.is_empty() {
            return Ok(());
        }
        writeln!(f, "{:10} {:>14} {:>12} {:>8}", "at once", "deputy / s", "limit / s", "ratio")?;
        for line in self.throughput.iter().filter(|line| line.contender == LIMIT) {
            let (deputy, limit) = (self.per_second(DEPUTY, line.width), line.per_second);
            writeln!(f, "{:<10} {deputy:>14} {limit:>12} {:>8.2}", line.width, ratio(deputy, limit))?;
        }
        writeln!(f)?;
        let sum = |name: &str| -> u64 {
            self.cost.iter().filter(|cost| cost.contender == name).map(|cost| cost.cpu_ns).sum()
        };
        let limit = sum(LIMIT);
        writeln!(f, "{:10} {:16} {:>10} {:>8}", "CPU time", "process", "ms/launch", "/ limit")?;
        for cost in &self.cost {
            let (ms, to_limit) = (ratio(cost.cpu_ns, 1_000_000), ratio(cost.cpu_ns, limit));
            writeln!(f, "{:10} {:16} {ms:>10.2} {to_limit:>8.2}", cost.contender, cost.process)?;
        }
        let all = sum(DEPUTY);
        let (ms, to_limit) = (ratio(all, 1_000_000), ratio(all, limit));
        writeln!(f, "{:10} {:16} {ms:>10.2} {to_limit:>8.2}", DEPUTY, "all")
    }
}
