//! How much of the machine jobs may have at once: what the settings and the application's file say.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::application::ApplicationError;
use crate::names::AccountName;
use crate::size::{ByteSize, MilliCpus};

/// A GPU of this machine: its place in the list of the settings, or in the list of those that were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GpuIndex(pub u16);

impl fmt::Display for GpuIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How much of the machine jobs may have at once. What is absent is not counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Capacity {
    /// Jobs; absent: as many as the launcher may have children for.
    pub jobs: Option<u32>,
    /// CPUs. A job that names none counts as one.
    pub cpus: Option<MilliCpus>,
    /// Memory. A job that names none, and has no ceiling, counts as none.
    pub memory: Option<ByteSize>,
    /// The device of each GPU, for example `/dev/nvidia0`; absent: those that are found.
    pub gpus: Option<Vec<String>>,
}

/// How much jobs of one owner may have at once. What is absent has no ceiling.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ceilings {
    /// Jobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jobs: Option<u32>,
    /// CPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<MilliCpus>,
    /// Memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// GPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpus: Option<u16>,
}

impl Ceilings {
    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// How an application's jobs queue.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QueuePolicy {
    /// The most jobs that wait.
    pub waiting: u32,
    /// What all of its jobs may have at once.
    pub total: Ceilings,
    /// What the jobs of each of its accounts may have at once.
    pub account: Ceilings,
    /// What the jobs of the accounts of each of its groups may have at once.
    pub group: Ceilings,
    /// How much of the machine accounts have in proportion to others, where they are not equal; 1 is usual.
    pub weights: BTreeMap<AccountName, f64>,
}

impl Default for QueuePolicy {
    fn default() -> Self {
        Self {
            waiting: 10_000,
            total: Ceilings::default(),
            account: Ceilings::default(),
            group: Ceilings::default(),
            weights: BTreeMap::new(),
        }
    }
}

// A weight is checked to be a number.
impl Eq for QueuePolicy {}

impl QueuePolicy {
    /// The weight of an account.
    pub fn weight(&self, account: &AccountName) -> f64 {
        self.weights.get(account).copied().unwrap_or(1.0)
    }

    pub(crate) fn check(&self) -> Result<(), ApplicationError> {
        if self.weights.values().any(|weight| !weight.is_finite() || *weight <= 0.0) {
            return Err(ApplicationError::Meaning("a weight in queue.weights is a number above 0"));
        }
        Ok(())
    }
}
