//! What a file system's quota says, and what that means for whoever is to write there.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::finding::{Finding, FindingCode, Severity};
use crate::ids::{OsGid, OsUid};

/// Whose use a quota counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Whose {
    /// What belongs to an OS account.
    User(OsUid),
    /// What belongs to an OS group.
    Group(OsGid),
    /// What is in a tree of folders that was given this project's number.
    Project(u32),
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Whose::User(uid) => write!(f, "uid {}", uid.raw()),
            Whose::Group(gid) => write!(f, "gid {}", gid.raw()),
            Whose::Project(id) => write!(f, "quota project {id}"),
        }
    }
}

/// How much of one thing is used, and how much may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Amount {
    /// What is used: bytes, or files.
    pub used: u64,
    /// What may be used for long; none: there is no such limit.
    pub soft: Option<u64>,
    /// What may be used at all.
    pub hard: Option<u64>,
    /// When the soft limit becomes a hard one, in seconds since 1970; none: it has not been passed.
    pub grace_ends: Option<u64>,
}

/// Where a use stands between its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Below all limits, or there are none.
    Within,
    /// Above the soft limit, for so many seconds more; none: the kernel has not said.
    AboveSoft(Option<u64>),
    /// At the hard limit: nothing more can be written.
    AtHard,
    /// Above the soft limit for too long: nothing more can be written.
    GraceOver,
}

impl Amount {
    /// What it is measured by: the hard limit, or where there is none the soft one.
    pub fn limit(&self) -> Option<u64> {
        self.hard.or(self.soft)
    }

    /// How much of its limit is used, in whole percent rounded down; none without a limit.
    pub fn percent(&self) -> Option<u64> {
        let limit = self.limit()?.max(1);
        u64::try_from(u128::from(self.used) * 100 / u128::from(limit)).ok()
    }

    /// How much more can be used before it is refused; none where nothing refuses it. `now`: seconds since 1970.
    pub fn room(&self, now: u64) -> Option<u64> {
        match self.standing(now) {
            Standing::AtHard | Standing::GraceOver => Some(0),
            Standing::Within | Standing::AboveSoft(_) => self.hard.map(|hard| hard.saturating_sub(self.used)),
        }
    }

    /// Where it stands now (seconds since 1970).
    pub fn standing(&self, now: u64) -> Standing {
        if self.hard.is_some_and(|hard| self.used >= hard) {
            return Standing::AtHard;
        }
        if self.soft.is_none_or(|soft| self.used <= soft) {
            return Standing::Within;
        }
        match self.grace_ends {
            Some(ends) if ends <= now => Standing::GraceOver,
            ends => Standing::AboveSoft(ends.map(|ends| ends - now)),
        }
    }
}

/// A quota of one file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuotaUsage {
    /// Whose.
    pub whose: Whose,
    /// Bytes.
    pub space: Amount,
    /// Files, folders and whatever else has a number of its own.
    pub files: Amount,
}

impl QuotaUsage {
    /// What is to be said about it. `place`: the folder, as people know it; `now`: seconds since 1970.
    pub fn findings(&self, place: &str, now: u64) -> Vec<Finding> {
        let space = finding(self.whose, place, &self.space, now, "space", &|bytes| human_bytes(bytes));
        let files = finding(self.whose, place, &self.files, now, "files", &|count| count.to_string());
        space.into_iter().chain(files).collect()
    }
}

fn finding(
    whose: Whose,
    place: &str,
    amount: &Amount,
    now: u64,
    what: &str,
    show: &dyn Fn(u64) -> String,
) -> Option<Finding> {
    let used = show(amount.used);
    let limit = |limit: Option<u64>| show(limit.unwrap_or_default());
    let (code, severity, told) = match amount.standing(now) {
        Standing::Within => return None,
        Standing::AtHard => (
            FindingCode::QuotaExceeded,
            Severity::Error,
            format!("uses {used} of {}, the hard limit: nothing more can be written", limit(amount.hard)),
        ),
        Standing::GraceOver => (
            FindingCode::QuotaExceeded,
            Severity::Error,
            format!(
                "uses {used}, more than the soft limit of {}, and the time for that is over: nothing more can be \
                 written",
                limit(amount.soft)
            ),
        ),
        Standing::AboveSoft(left) => {
            let left = left.map_or_else(String::new, |left| format!(" within {}", human_seconds(left)));
            let hard =
                amount.hard.map_or_else(String::new, |hard| format!("; the hard limit is {}", show(hard)));
            (
                FindingCode::QuotaAboveSoftLimit,
                Severity::Warning,
                format!(
                    "uses {used}, more than the soft limit of {}: what is above it has to go{left}{hard}",
                    limit(amount.soft)
                ),
            )
        }
    };
    let remedy = match whose {
        Whose::User(_) => "remove files there, or have the account's quota raised (setquota -u)",
        Whose::Group(_) => "remove files of the group there, or have its quota raised (setquota -g)",
        Whose::Project(_) => "remove files from the tree, or have its quota raised (setquota -P)",
    };
    Some(Finding::new(code, severity, format!("{place}: {whose} {told} ({what})")).remedy(remedy))
}

/// Bytes in the largest unit of which there is at least one, with a digit behind the point; rounded up, so that what
/// is above a limit is not shown as the limit.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [(u32, &str); 6] =
        [(60, "EiB"), (50, "PiB"), (40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let Some((shift, unit)) = UNITS.into_iter().find(|(shift, _)| bytes >> shift > 0) else {
        return format!("{bytes} bytes");
    };
    let tenths = (u128::from(bytes) * 10).div_ceil(1 << shift);
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// Seconds as people say them, in whole units rounded down.
fn human_seconds(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} seconds"),
        120..7200 => format!("{} minutes", seconds / 60),
        7200..172_800 => format!("{} hours", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn amount(used: u64, soft: Option<u64>, hard: Option<u64>, grace_ends: Option<u64>) -> Amount {
        Amount { used, soft, hard, grace_ends }
    }

    #[test]
    fn what_can_be_written_is_decided_as_the_kernel_does() {
        let (soft, hard) = (Some(100), Some(200));
        for (given, expected) in [
            (amount(0, None, None, None), Standing::Within),
            (amount(u64::MAX, None, None, None), Standing::Within),
            (amount(100, soft, hard, None), Standing::Within),
            // A time that was left from before, or is not yet begun.
            (amount(99, soft, hard, Some(5)), Standing::Within),
            (amount(101, soft, hard, None), Standing::AboveSoft(None)),
            (amount(199, soft, hard, Some(NOW + 60)), Standing::AboveSoft(Some(60))),
            (amount(150, soft, None, Some(NOW + 1)), Standing::AboveSoft(Some(1))),
            (amount(150, soft, hard, Some(NOW)), Standing::GraceOver),
            (amount(150, soft, hard, Some(5)), Standing::GraceOver),
            (amount(200, soft, hard, Some(NOW + 60)), Standing::AtHard),
            (amount(201, None, hard, None), Standing::AtHard),
            (amount(199, None, hard, None), Standing::Within),
        ] {
            assert_eq!(given.standing(NOW), expected, "{given:?}");
        }
    }

    #[test]
    fn a_finding_has_the_numbers_the_time_and_what_to_do() {
        let usage = QuotaUsage {
            whose: Whose::User(OsUid::new(1001).unwrap()),
            space: amount(11 << 30, Some(10 << 30), Some(12 << 30), Some(NOW + 3 * 86_400)),
            files: amount(500, Some(400), Some(500), Some(NOW + 5)),
        };
        let found = usage.findings("/home/ann", NOW);
        assert_eq!(found.len(), 2);
        let (space, files) = (&found[0], &found[1]);
        assert_eq!((space.code.as_str(), space.severity), ("quota-above-soft-limit", Severity::Warning));
        for expected in ["/home/ann", "uid 1001", "11.0 GiB", "10.0 GiB", "12.0 GiB", "3 days", "space"] {
            assert!(space.message.contains(expected), "{expected}: {}", space.message);
        }
        assert_eq!((files.code.as_str(), files.severity), ("quota-exceeded", Severity::Error));
        assert!(files.message.contains("500 of 500") && files.message.contains("files"), "{}", files.message);
        assert!(found.iter().all(|finding| finding.remedy.contains("setquota")));

        let over =
            QuotaUsage { space: amount(11, Some(10), None, Some(NOW)), files: Amount::default(), ..usage };
        let found = over.findings("/data", NOW);
        assert_eq!((found.len(), found[0].severity), (1, Severity::Error));
        let none = QuotaUsage { space: Amount::default(), files: Amount::default(), ..usage };
        assert!(none.findings("/data", NOW).is_empty());
        let group = QuotaUsage { whose: Whose::Group(OsGid::new(7).unwrap()), ..over };
        assert!(group.findings("/data", NOW)[0].message.contains("gid 7"));
        let project = QuotaUsage { whose: Whose::Project(42), ..over };
        assert!(project.findings("/data", NOW)[0].message.contains("quota project 42"));
    }

    #[test]
    fn bytes_are_shown_in_the_unit_that_people_use_and_never_as_less() {
        for (bytes, shown) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1.0 KiB"),
            (1025, "1.1 KiB"),
            (1536, "1.5 KiB"),
            (10 << 30, "10.0 GiB"),
            ((10 << 30) + 1, "10.1 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(human_bytes(bytes), shown);
        }
        assert_eq!(human_seconds(119), "119 seconds");
        assert_eq!(human_seconds(7199), "119 minutes");
        assert_eq!(human_seconds(86_400), "24 hours");
    }
}
