//! Slurm as the user: what may be asked of it, how it is asked, and what its words mean.
//!
//! Everything here is a value made from values: the words that a request may have ([`names`], [`dependency`], [`array`]), what
//! root's policy says about them ([`policy`]), where a job runs that may run at either place ([`choice`]), the argument vectors
//! ([`command`]) and the batch script ([`script`]), those of a job that somebody speaks with ([`interactive`]), what Slurm's
//! programs answer ([`answer`], [`listing`], [`resources`]), and what that means for a job ([`state`]).

pub mod answer;
pub mod array;
pub mod choice;
pub mod command;
pub mod dependency;
pub mod interactive;
pub mod listing;
pub mod names;
pub mod policy;
pub mod resources;
pub mod script;
pub mod state;

use serde::{Deserialize, Serialize};

pub use array::ArrayPart;
pub use choice::{Chosen, ExecutorChoice};
pub use dependency::{Dependency, When};
pub use interactive::Interactive;
pub use names::{ClusterName, Feature, Partition, Qos, SlurmAccount};
pub use policy::{Accounts, SlurmPolicy};
pub use state::{Ended, SlurmState, Standing};

/// Where a job runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Executor {
    /// On this machine, by a shepherd of its own.
    #[default]
    Local,
    /// Wherever Slurm puts it, submitted as the OS account.
    Slurm,
}

impl Executor {
    /// The word in files, on the bus and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Executor::Local => "local",
            Executor::Slurm => "slurm",
        }
    }
}

/// What a job asks of Slurm beside what every job can ask for. CPUs of each task, memory of each node and time are the
/// job's ordinary bounds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SlurmRequest {
    /// The cluster; none is the first that policy lists.
    pub cluster: Option<ClusterName>,
    /// The partition; none is the first that policy lists.
    pub partition: Option<Partition>,
    /// The account of Slurm's; none is the first that policy lists, or the user's own default.
    pub account: Option<SlurmAccount>,
    /// The quality of service; none is Slurm's default.
    pub qos: Option<Qos>,
    /// How many nodes; none is one.
    pub nodes: Option<u32>,
    /// How many tasks; none is one.
    pub tasks: Option<u32>,
    /// How many GPUs on each node.
    pub gpus: u16,
    /// What each node has to have, all of it.
    pub features: Vec<Feature>,
    /// For what it waits.
    pub dependencies: Vec<Dependency>,
    /// Whether it waits until it is released.
    pub hold: bool,
    /// Which part of an array it is.
    pub array: Option<ArrayPart>,
    /// Whether somebody speaks with it, and how.
    pub interactive: Option<Interactive>,
    /// Whether it may be run again: by Slurm, after a node failed, say, or where somebody asks for it.
    pub requeue: bool,
}

/// A word about a job that Slurm has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SlurmCommand {
    /// End it.
    End,
    /// Send this signal to its first process.
    Signal(i32),
    /// Do not begin it until it is released.
    Hold,
    /// It may begin.
    Release,
    /// End the run that is on, and run it again.
    Requeue,
}

impl SlurmRequest {
    /// Whether it asks for something that only Slurm has.
    pub fn names_slurm(&self) -> bool {
        self.cluster.is_some()
            || self.partition.is_some()
            || self.account.is_some()
            || self.qos.is_some()
            || self.nodes.is_some()
            || self.tasks.is_some()
            || !self.features.is_empty()
            || !self.dependencies.is_empty()
            || self.hold
            || self.array.is_some()
            || self.interactive.is_some()
            || self.requeue
    }
}

/// The number that Slurm gives to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SlurmJobId(pub u32);

impl std::fmt::Display for SlurmJobId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
