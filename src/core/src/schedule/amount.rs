//! How much of each resource: what a job needs, what is used, and what there is at most.

use std::fmt;

use crate::queue::Ceilings;
use crate::size::{ByteSize, MilliCpus};

/// Something that a machine has so much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Resource {
    /// Jobs at once.
    Jobs,
    /// Thousandths of a CPU.
    Cpus,
    /// Bytes of memory.
    Memory,
    /// GPUs.
    Gpus,
}

impl Resource {
    /// All of them.
    pub const ALL: [Resource; 4] = [Resource::Jobs, Resource::Cpus, Resource::Memory, Resource::Gpus];

    /// The word of the settings and of the interface.
    pub fn as_str(self) -> &'static str {
        match self {
            Resource::Jobs => "jobs",
            Resource::Cpus => "cpus",
            Resource::Memory => "memory",
            Resource::Gpus => "gpus",
        }
    }

    /// So much of it, in words.
    pub fn words(self, amount: u64) -> String {
        match self {
            Resource::Jobs => format!("{amount} jobs"),
            Resource::Cpus => {
                format!("{}.{:03}", amount / 1000, amount % 1000)
                    .trim_end_matches('0')
                    .trim_end_matches('.')
                    .to_owned()
                    + " CPUs"
            }
            Resource::Memory => format!("{} of memory", ByteSize(amount)),
            Resource::Gpus => format!("{amount} GPUs"),
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// So much of each resource.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount([u64; 4]);

impl Amount {
    /// What one job needs. One that names no CPUs counts as one; one without a memory limit counts as none.
    pub fn of_job(cpus: Option<MilliCpus>, memory: Option<ByteSize>, gpus: u16) -> Self {
        let cpus = cpus.map_or(1000, |cpus| u64::from(cpus.0));
        Self([1, cpus, memory.map_or(0, |memory| memory.0), u64::from(gpus)])
    }

    /// What the smallest job needs: a place.
    pub fn least() -> Self {
        Self([1, 0, 0, 0])
    }

    /// The same with this number of GPUs.
    pub(super) fn with_gpus(mut self, gpus: u16) -> Self {
        self.0[Resource::Gpus as usize] = u64::from(gpus);
        self
    }

    /// So much of one resource: jobs, thousandths of a CPU, bytes, GPUs.
    pub fn of(&self, resource: Resource) -> u64 {
        self.0[resource as usize]
    }

    pub(super) fn add(&mut self, other: Amount) {
        for (mine, other) in self.0.iter_mut().zip(other.0) {
            *mine = mine.saturating_add(other);
        }
    }

    /// Takes away what was added before.
    pub(super) fn take(&mut self, other: Amount) {
        for (mine, other) in self.0.iter_mut().zip(other.0) {
            *mine = mine.saturating_sub(other);
        }
    }
}

/// At most so much of each resource; what is absent is not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Most([Option<u64>; 4]);

impl Most {
    /// From numbers of jobs, CPUs, bytes and GPUs.
    pub fn new(
        jobs: Option<u32>,
        cpus: Option<MilliCpus>,
        memory: Option<ByteSize>,
        gpus: Option<u16>,
    ) -> Self {
        Self([
            jobs.map(u64::from),
            cpus.map(|cpus| u64::from(cpus.0)),
            memory.map(|memory| memory.0),
            gpus.map(u64::from),
        ])
    }

    /// So much of one resource at most.
    pub fn of(&self, resource: Resource) -> Option<u64> {
        self.0[resource as usize]
    }

    /// The same with this number of GPUs.
    pub(super) fn with_gpus(mut self, gpus: u16) -> Self {
        self.0[Resource::Gpus as usize] = Some(u64::from(gpus));
        self
    }

    /// What is left of it.
    #[must_use]
    pub fn without(mut self, used: Amount) -> Self {
        for (most, used) in self.0.iter_mut().zip(used.0) {
            *most = most.map(|most| most.saturating_sub(used));
        }
        self
    }

    /// The lower of both in each resource.
    #[must_use]
    pub(super) fn and(mut self, other: Self) -> Self {
        for (most, other) in self.0.iter_mut().zip(other.0) {
            *most = match (*most, other) {
                (Some(most), Some(other)) => Some(most.min(other)),
                (most, other) => most.or(other),
            };
        }
        self
    }

    /// Whether nothing is counted.
    pub(super) fn is_boundless(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    /// The first resource of which there is too little, if so much is used and so much is needed.
    pub(super) fn lacks(&self, used: Amount, need: Amount) -> Option<Resource> {
        self.first(|resource, most| {
            need.of(resource) > 0 && used.of(resource).saturating_add(need.of(resource)) > most
        })
    }

    /// The first resource of which too little would be left for `reserved`, which needs it as well.
    pub(super) fn crowds(&self, used: Amount, need: Amount, reserved: Amount) -> Option<Resource> {
        self.first(|resource, most| {
            let (need, reserved) = (need.of(resource), reserved.of(resource));
            need > 0 && reserved > 0 && used.of(resource).saturating_add(need).saturating_add(reserved) > most
        })
    }

    fn first(&self, too_little: impl Fn(Resource, u64) -> bool) -> Option<Resource> {
        Resource::ALL
            .into_iter()
            .find(|resource| self.of(*resource).is_some_and(|most| too_little(*resource, most)))
    }
}

impl From<Ceilings> for Most {
    fn from(ceilings: Ceilings) -> Self {
        Self::new(ceilings.jobs, ceilings.cpus, ceilings.memory, ceilings.gpus)
    }
}
