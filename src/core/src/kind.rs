//! One kind of job, as root's policy describes it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::application::{ApplicationError, Trust};
use crate::limits::{DEFAULT_GRACE_SECONDS, JobBounds, MAX_GRACE_SECONDS, MAX_NICE, ResourceLimits};
use crate::names::KindName;
use crate::pattern::CommandRule;
use crate::size::ByteSize;
use crate::slurm::{ExecutorChoice, SlurmPolicy};

/// Whether a confined job reaches the home directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HomeAccess {
    /// It does not; what it sees there is empty.
    #[default]
    None,
    /// It can look.
    ReadOnly,
    /// It can look and change.
    ReadWrite,
}

/// What happens to processes of a job that are left when its first process has ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Leftovers {
    /// They are ended: TERM, the grace, KILL.
    #[default]
    End,
    /// The job goes on until they have ended.
    Wait,
}

/// When a service is started again after its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Never.
    Never,
    /// When it ended otherwise than with exit code 0, and nobody cancelled it.
    #[default]
    OnFailure,
    /// Unless somebody cancelled it.
    Always,
}

/// One kind of job.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kind {
    /// What may run; at least one rule has to match.
    pub commands: Vec<CommandRule>,
    /// Whether setuid programs are without effect in the job.
    #[serde(default = "yes")]
    pub no_new_privileges: bool,
    /// Whose word is enough for jobs of this kind; absent: as for the application.
    #[serde(default)]
    pub trust: Option<Trust>,
    /// Whether a job reaches nothing but the roots, the system's files to read, and the home directory as `home` says.
    #[serde(default)]
    pub confine: bool,
    /// Whether a confined job reaches the home directory; absent: it does not.
    #[serde(default)]
    pub home: Option<HomeAccess>,
    /// Ceilings of each job; what is absent is the application's.
    #[serde(default)]
    pub limits: ResourceLimits,
    /// The longest time, seconds; absent: none.
    #[serde(default)]
    pub time_limit_seconds: Option<u32>,
    /// The longest time between TERM and KILL, and the one where a request says nothing.
    #[serde(default = "default_grace")]
    pub grace_seconds: u32,
    /// The lowest nice value, 0 to 19.
    #[serde(default)]
    pub nice: u8,
    /// What happens to processes that are left when the first one has ended.
    #[serde(default)]
    pub leftovers: Leftovers,
    /// How much of each captured stream is kept; absent: what the machine's settings say.
    #[serde(default)]
    pub output: Option<ByteSize>,
    /// Whether jobs of this kind are services: started again when the machine has started, and by `restart`.
    #[serde(default)]
    pub service: bool,
    /// When a service is started again after its end; absent: on failure.
    #[serde(default)]
    pub restart: Option<Restart>,
    /// Where jobs of this kind run unless they ask otherwise; absent: as the application's file says.
    #[serde(default)]
    pub(crate) executor: Option<ExecutorChoice>,
    /// What they may ask of Slurm; absent: none of them runs there.
    #[serde(default)]
    pub slurm: Option<SlurmPolicy>,
}

fn yes() -> bool {
    true
}

fn default_grace() -> u32 {
    DEFAULT_GRACE_SECONDS
}

impl Kind {
    /// Where jobs of this kind run unless they ask otherwise.
    pub fn executor(&self) -> ExecutorChoice {
        self.executor.unwrap_or_default()
    }

    /// What bounds each job of this kind, in an application with these ceilings.
    pub fn bounds(&self, application: ResourceLimits) -> JobBounds {
        JobBounds {
            limits: self.limits.or(application),
            time_limit_seconds: self.time_limit_seconds,
            grace_seconds: Some(self.grace_seconds),
            nice: Some(self.nice),
        }
    }
}

/// Checks what the keys of each kind mean together.
pub(crate) fn check_kinds(kinds: &BTreeMap<KindName, Kind>) -> Result<(), ApplicationError> {
    for kind in kinds.values() {
        let wrong = [
            (kind.home.is_some() && !kind.confine, "home has a meaning only with confine = true"),
            (
                kind.confine && !kind.no_new_privileges,
                "confine = true needs no_new_privileges: a setuid program would be outside of it",
            ),
            (kind.restart.is_some() && !kind.service, "restart has a meaning only with service = true"),
            (
                kind.service && kind.time_limit_seconds.is_some(),
                "a service has no time_limit_seconds: it runs until it ends",
            ),
            (kind.time_limit_seconds == Some(0), "time_limit_seconds is at least 1, or absent"),
            (kind.grace_seconds > MAX_GRACE_SECONDS, "grace_seconds is at most 3600"),
            (kind.nice > MAX_NICE, "nice is 0 to 19"),
            (
                kind.executor() != ExecutorChoice::Local && kind.slurm.is_none(),
                "executor = \"slurm\" or \"auto\" needs a table [kinds.NAME.slurm]: nothing named is nothing allowed. A \
                 kind without one says executor = \"local\" where the application's executor is another",
            ),
            (
                kind.slurm.is_some() && (kind.confine || kind.service),
                "what is confined or a service runs on this machine: it has no table for Slurm",
            ),
        ];
        if let Some(message) = kind.slurm.as_ref().and_then(SlurmPolicy::meaningless) {
            return Err(ApplicationError::Meaning(message));
        }
        if let Some((_, message)) = wrong.into_iter().find(|(wrong, _)| *wrong) {
            return Err(ApplicationError::Meaning(message));
        }
    }
    Ok(())
}
