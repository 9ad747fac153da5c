//! What a job may use, and for how long: by policy, and by a request that can only make it less.

use serde::{Deserialize, Serialize};

use crate::denial::{Code, Denial};
use crate::size::{ByteSize, MilliCpus};

/// Ceilings of one job; what is absent has none of Deputy's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResourceLimits {
    /// Memory of the whole job.
    pub memory: Option<ByteSize>,
    /// CPU time in each moment.
    pub cpus: Option<MilliCpus>,
    /// Processes and threads.
    pub pids: Option<u32>,
    /// Open files of each process.
    pub files: Option<u32>,
    /// The size of a core dump; 0 makes none.
    pub core: Option<ByteSize>,
}

impl ResourceLimits {
    /// These, each filled up where it is absent from another.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            memory: self.memory.or(other.memory),
            cpus: self.cpus.or(other.cpus),
            pids: self.pids.or(other.pids),
            files: self.files.or(other.files),
            core: self.core.or(other.core),
        }
    }

    /// What a request leaves of these: each lower where it asks for that. More than policy allows is a refusal, not
    /// silently less.
    pub fn lowered_by(self, asked: Self, rule: &str) -> Result<Self, Denial> {
        Ok(Self {
            memory: lower("memory", self.memory, asked.memory, rule)?,
            cpus: lower("cpus", self.cpus, asked.cpus, rule)?,
            pids: lower("pids", self.pids, asked.pids, rule)?,
            files: lower("files", self.files, asked.files, rule)?,
            core: lower("core", self.core, asked.core, rule)?,
        })
    }
}

/// The lower of two, of which the second may not be the higher.
fn lower<T: Ord + Copy + std::fmt::Display>(
    what: &str,
    allowed: Option<T>,
    asked: Option<T>,
    rule: &str,
) -> Result<Option<T>, Denial> {
    match (allowed, asked) {
        (Some(allowed), Some(asked)) if asked > allowed => Err(Denial::new(
            Code::LimitNotAllowed,
            format!("{rule}.{what}"),
            format!("{what} {asked} is more than the {allowed} that policy allows"),
        )
        .remedy("ask for less, or have the administrator raise the limit")),
        (allowed, asked) => Ok(asked.or(allowed)),
    }
}

/// What bounds a job beside its resources.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JobBounds {
    /// Ceilings.
    pub limits: ResourceLimits,
    /// Seconds from its start after which it is ended.
    pub time_limit_seconds: Option<u32>,
    /// Seconds between TERM and KILL when it is ended.
    pub grace_seconds: Option<u32>,
    /// The nice value, 0 to 19.
    pub nice: Option<u8>,
}

/// The seconds between TERM and KILL where nobody says otherwise.
pub const DEFAULT_GRACE_SECONDS: u32 = 10;

/// The longest grace.
pub const MAX_GRACE_SECONDS: u32 = 3600;

/// The highest nice value.
pub const MAX_NICE: u8 = 19;

impl JobBounds {
    /// What a request leaves of what policy says. A time limit may be shorter and a nice value higher than policy's.
    pub fn lowered_by(self, asked: Self, rule: &str) -> Result<Self, Denial> {
        let grace = asked.grace_seconds.or(self.grace_seconds);
        if grace.is_some_and(|grace| grace > self.grace_seconds.unwrap_or(MAX_GRACE_SECONDS)) {
            return Err(Denial::new(
                Code::LimitNotAllowed,
                format!("{rule}.grace_seconds"),
                "the grace is longer than policy allows",
            )
            .remedy("ask for less"));
        }
        let least = self.nice.unwrap_or(0);
        let nice = asked.nice.unwrap_or(least);
        if nice < least || nice > MAX_NICE {
            return Err(Denial::new(
                Code::LimitNotAllowed,
                format!("{rule}.nice"),
                format!("a job's nice value here is {least} to {MAX_NICE}"),
            )
            .remedy("ask for a value between these"));
        }
        Ok(Self {
            limits: self.limits.lowered_by(asked.limits, &format!("{rule}.limits"))?,
            time_limit_seconds: lower(
                "time_limit_seconds",
                self.time_limit_seconds,
                asked.time_limit_seconds,
                rule,
            )?,
            grace_seconds: grace,
            nice: Some(nice),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_can_only_ask_for_less() {
        let policy = ResourceLimits {
            memory: Some(ByteSize(4 << 30)),
            cpus: Some(MilliCpus(2000)),
            ..ResourceLimits::default()
        };
        let asked =
            |memory: u64| ResourceLimits { memory: Some(ByteSize(memory)), ..ResourceLimits::default() };
        let less = policy.lowered_by(asked(1 << 30), "kinds.batch.limits").unwrap();
        assert_eq!((less.memory, less.cpus), (Some(ByteSize(1 << 30)), Some(MilliCpus(2000))));
        let refused = policy.lowered_by(asked(5 << 30), "kinds.batch.limits").unwrap_err();
        assert_eq!(refused.code, Code::LimitNotAllowed);
        assert_eq!(refused.rule, "kinds.batch.limits.memory");
        // Where policy has no ceiling a request may set one.
        let pids = ResourceLimits { pids: Some(7), ..ResourceLimits::default() };
        assert_eq!(policy.lowered_by(pids, "x").unwrap().pids, Some(7));
    }

    #[test]
    fn time_grace_and_nice_follow_policy() {
        let policy = JobBounds {
            time_limit_seconds: Some(60),
            grace_seconds: Some(5),
            nice: Some(5),
            ..JobBounds::default()
        };
        let refused = |asked: JobBounds| policy.lowered_by(asked, "x").unwrap_err().rule;
        assert_eq!(
            refused(JobBounds { time_limit_seconds: Some(61), ..JobBounds::default() }),
            "x.time_limit_seconds"
        );
        assert_eq!(refused(JobBounds { grace_seconds: Some(6), ..JobBounds::default() }), "x.grace_seconds");
        assert_eq!(refused(JobBounds { nice: Some(4), ..JobBounds::default() }), "x.nice");
        assert_eq!(refused(JobBounds { nice: Some(20), ..JobBounds::default() }), "x.nice");
        let bounds = policy.lowered_by(JobBounds { nice: Some(19), ..JobBounds::default() }, "x").unwrap();
        assert_eq!(
            (bounds.time_limit_seconds, bounds.grace_seconds, bounds.nice),
            (Some(60), Some(5), Some(19))
        );
        assert_eq!(JobBounds::default().lowered_by(JobBounds::default(), "x").unwrap().nice, Some(0));
    }
}
