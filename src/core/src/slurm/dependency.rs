//! What a job at Slurm waits for: other jobs of Deputy's.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::JobId;

/// The most that one job waits for.
pub const MAX_DEPENDENCIES: usize = 64;

/// A text is not a dependency, or a list of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "a dependency is after, afterok, afternotok or afterany, a colon and a job's id; at most {MAX_DEPENDENCIES} of them, \
     with commas between"
)]
pub struct DependencyError;

/// What the other job has to have come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// It has begun, or was cancelled.
    After,
    /// It has ended with exit code 0.
    AfterOk,
    /// It has ended in any other way.
    AfterNotOk,
    /// It has ended.
    AfterAny,
}

impl When {
    /// Slurm's word.
    pub fn as_str(self) -> &'static str {
        match self {
            When::After => "after",
            When::AfterOk => "afterok",
            When::AfterNotOk => "afternotok",
            When::AfterAny => "afterany",
        }
    }

    /// Whether it holds of a job that has ended, well or not.
    pub fn holds(self, well: bool) -> bool {
        match self {
            When::After | When::AfterAny => true,
            When::AfterOk => well,
            When::AfterNotOk => !well,
        }
    }
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// What the other job has to have come to.
    pub when: When,
    /// The other job.
    pub job: JobId,
}

impl FromStr for Dependency {
    type Err = DependencyError;
    fn from_str(text: &str) -> Result<Self, DependencyError> {
        let (when, job) = text.split_once(':').ok_or(DependencyError)?;
        let when = [When::After, When::AfterOk, When::AfterNotOk, When::AfterAny]
            .into_iter()
            .find(|one| one.as_str() == when)
            .ok_or(DependencyError)?;
        Ok(Self { when, job: job.parse().map_err(|_| DependencyError)? })
    }
}

impl fmt::Display for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.when.as_str(), self.job)
    }
}

/// All that a job waits for: each has to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dependencies(pub Vec<Dependency>);

impl FromStr for Dependencies {
    type Err = DependencyError;
    fn from_str(text: &str) -> Result<Self, DependencyError> {
        let all: Vec<Dependency> = text.split(',').map(str::parse).collect::<Result<_, _>>()?;
        if all.len() > MAX_DEPENDENCIES { Err(DependencyError) } else { Ok(Self(all)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_jobs_of_deputys_are_waited_for() {
        let id = JobId::from_random([3; JobId::BYTES]);
        let text = format!("afterok:{id},after:{id},afternotok:{id},afterany:{id}");
        let all: Dependencies = text.parse().unwrap();
        let shown: Vec<String> = all.0.iter().map(ToString::to_string).collect();
        assert_eq!(shown.join(","), text);
        let many = vec![format!("after:{id}"); MAX_DEPENDENCIES + 1].join(",");
        for bad in [
            "",
            "afterok",
            "afterok:",
            "afterok:5",
            "singleton",
            "expand:5",
            "aftercorr:5",
            &format!("AFTEROK:{id}"),
            &format!("afterok:{id}:{id}"),
            &format!("afterok:{id}?after:{id}"),
            &format!("afterok:{id},"),
            &format!("after:{id}+5"),
            &many,
        ] {
            assert_eq!(bad.parse::<Dependencies>(), Err(DependencyError), "{bad:?}");
        }
    }

    #[test]
    fn an_end_is_good_or_not() {
        let holds = |well| {
            [When::After, When::AfterOk, When::AfterNotOk, When::AfterAny].map(|when| when.holds(well))
        };
        assert_eq!(holds(true), [true, true, false, true]);
        assert_eq!(holds(false), [true, false, true, true]);
    }
}
