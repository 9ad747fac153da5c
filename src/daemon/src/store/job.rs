//! A job as the store knows it: what was asked for, and where it stands.

use deputy_core::job::{EndCause, Enforcement, JobEnd, OsIdentity, Usage};
use deputy_core::limits::JobBounds;
use deputy_core::project::ProjectKey;
use deputy_core::queue::GpuIndex;
use deputy_core::slurm::{Chosen, Executor, SlurmJobId, SlurmRequest};
use deputy_core::stream::{Captured, Input, Output, Streams};
use deputy_core::{AccountName, ApplicationName, JobId, JobName, KindName, OsGroupName, SessionId};
use serde::{Deserialize, Serialize};

use super::argument::Argument;
use super::clock::Timestamp;

/// What was asked for beside the command: everything that is needed to start the job, but what descriptors bring.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JobSpec {
    /// What the job is called.
    pub name: Option<JobName>,
    /// Whether a descriptor brings the program.
    pub script: bool,
    /// Variables, each `NAME=VALUE`.
    pub environment: Vec<Argument>,
    /// Whether a descriptor brings more of them, which nobody writes down.
    pub environment_descriptor: bool,
    /// Permission bits that are taken away.
    pub umask: Option<u32>,
    /// The group of new files.
    pub os_group: Option<OsGroupName>,
    /// Standard input, output and error. Where nothing was given it is the file `/dev/null`.
    pub streams: Streams,
    /// What was asked for below what policy allows.
    pub bounds: JobBounds,
    /// How many GPUs.
    pub gpus: u16,
    /// Whether it is a service: a job that is started again.
    pub service: bool,
    /// The job of the same service before this one.
    pub predecessor: Option<JobId>,
    /// The boot of the machine in which it was accepted.
    pub boot: String,
    /// When the login as the OS account was on whose session it rests, seconds since 1970; none if it rests on none.
    pub login: Option<u64>,
    /// Where it runs.
    pub executor: Executor,
    /// Why it runs there, where that was left to Deputy.
    pub chosen: Option<Chosen>,
    /// What it asks of Slurm, where it runs there.
    pub slurm: SlurmRequest,
}

impl JobSpec {
    /// Whether it rests on descriptors that only the daemon that accepted it has.
    pub fn needs_descriptors(&self) -> bool {
        self.script || self.environment_descriptor || self.streams.descriptors() > 0
    }

    /// Whether a shepherd of this machine's has it: it runs here, or somebody here speaks with it.
    pub fn has_shepherd(&self) -> bool {
        self.executor == Executor::Local || self.slurm.interactive.is_some()
    }

    /// How many of this machine's GPUs it needs.
    pub fn gpus_here(&self) -> u16 {
        if self.executor == Executor::Local { self.gpus } else { 0 }
    }
}

/// The file that stands for nothing.
pub const NULL: &[u8] = b"/dev/null";

/// Standard input that is empty.
pub fn no_input() -> Input {
    Input::File(NULL.to_vec())
}

/// Output that is thrown away.
pub fn no_output() -> Output {
    Output::File { path: NULL.to_vec(), append: true }
}

/// Where a job stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum JobState {
    /// Accepted; whether its shepherd was started is not recorded yet.
    Queued {},
    /// The launcher was asked to start it. Only in the daemon's memory.
    Starting {},
    /// Its program runs.
    Running {},
    /// It is being ended, and something of it still runs. Only in the daemon's memory.
    Ending {
        /// Why.
        cause: EndCause,
    },
    /// It ended.
    Ended {
        /// How.
        end: JobEnd,
        /// Why it was ended, where it did not end by itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cause: Option<EndCause>,
        /// What it used.
        usage: Usage,
        /// What it wrote to captured streams.
        #[serde(default)]
        captured: Captured,
        /// By what its ceilings were held.
        #[serde(default)]
        enforcement: Enforcement,
    },
    /// Its shepherd or machine died: its end will never be known.
    Lost {
        /// Why.
        cause: String,
    },
    /// It was given up before it started.
    Abandoned {
        /// Why.
        cause: String,
    },
}

impl JobState {
    /// The state as the store's filters name it.
    pub fn as_str(&self) -> &'static str {
        match self {
            JobState::Queued {} => "queued",
            JobState::Starting {} => "starting",
            JobState::Running {} => "running",
            JobState::Ending { .. } => "ending",
            JobState::Ended { .. } => "ended",
            JobState::Lost { .. } => "lost",
            JobState::Abandoned { .. } => "abandoned",
        }
    }

    /// Whether something may still happen to it.
    pub fn is_open(&self) -> bool {
        matches!(
            self,
            JobState::Queued {} | JobState::Starting {} | JobState::Running {} | JobState::Ending { .. }
        )
    }

    /// Whether its program was seen to run, and has not ended.
    pub fn has_started(&self) -> bool {
        matches!(self, JobState::Running {} | JobState::Ending { .. })
    }
}

/// One run of a command as an OS account; at Slurm it may be run again, where it asked for that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// The number of the record that queued it: jobs are listed in this order, newest first.
    pub number: u64,
    /// The application.
    pub application: ApplicationName,
    /// The account that asked.
    pub account: AccountName,
    /// The OS account as which it runs.
    pub os: OsIdentity,
    /// Its label.
    pub kind: KindName,
    /// The program and its arguments.
    pub argv: Vec<Argument>,
    /// The working directory, where one was named.
    pub cwd: Option<Argument>,
    /// The project that it belongs to.
    pub project: Option<ProjectKey>,
    /// The session that asked.
    pub session: Option<SessionId>,
    /// What else was asked for.
    pub spec: JobSpec,
    /// The GPUs that it was leased, until its end.
    #[serde(default)]
    pub gpus: Vec<GpuIndex>,
    /// Where it stands.
    pub state: JobState,
    /// When it was accepted.
    pub queued: Timestamp,
    /// When the launcher was asked to start it.
    pub starting: Option<Timestamp>,
    /// When its program began to run.
    pub started: Option<Timestamp>,
    /// When its ending began, where it did not end by itself.
    pub ending: Option<Timestamp>,
    /// When it ended (by its shepherd), or was recorded as lost or abandoned.
    pub ended: Option<Timestamp>,
    /// When its folder, and with it what it wrote, was removed.
    pub forgotten: Option<Timestamp>,
    /// The number that Slurm gave it.
    #[serde(default)]
    pub slurm_job: Option<SlurmJobId>,
    /// How often Slurm put it back into its queue after it had begun. The times above are those of its latest run.
    #[serde(default)]
    pub requeues: u32,
    /// What it waits for at Slurm. Only in the daemon's memory.
    #[serde(skip)]
    pub reason: Option<String>,
    /// Where it runs at Slurm. Only in the daemon's memory.
    #[serde(skip)]
    pub host: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use deputy_core::limits::ResourceLimits;
    use deputy_core::size::{ByteSize, MilliCpus};

    #[test]
    fn a_specification_is_the_same_after_the_ledger() {
        let spec = JobSpec {
            name: Some("nightly".parse().unwrap()),
            environment: vec![Argument(b"A=\xff".to_vec())],
            streams: Streams { input: no_input(), output: Output::Captured, error: Output::SameAsOutput },
            bounds: JobBounds {
                limits: ResourceLimits {
                    memory: Some(ByteSize(3 << 30)),
                    cpus: Some(MilliCpus(1501)),
                    ..ResourceLimits::default()
                },
                grace_seconds: Some(3),
                ..JobBounds::default()
            },
            gpus: 2,
            boot: "b".into(),
            ..JobSpec::default()
        };
        let text = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<JobSpec>(&text).unwrap(), spec);
        // Records of earlier releases do not have every field.
        let mut earlier: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(earlier.as_object_mut().unwrap().remove("chosen").is_some());
        for field in ["cluster", "requeue"] {
            assert!(earlier["slurm"].as_object_mut().unwrap().remove(field).is_some());
        }
        assert_eq!(serde_json::from_value::<JobSpec>(earlier).unwrap(), spec);
        assert!(!spec.slurm.requeue);
        assert!(!spec.needs_descriptors());
        assert!(JobSpec::default().needs_descriptors());
    }
}
