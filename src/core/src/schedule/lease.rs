//! Which job has which GPU.

use std::collections::BTreeSet;

use crate::ids::JobId;
use crate::queue::GpuIndex;

/// The GPUs of the machine and who has them. A GPU is leased to one job at a time.
#[derive(Debug, Clone, Default)]
pub struct GpuLeases {
    count: u16,
    holders: BTreeSet<(GpuIndex, JobId)>,
}

impl GpuLeases {
    /// The machine has this many from now on. A lease of one that is no longer there goes on until its job ends.
    pub fn set_count(&mut self, count: u16) {
        self.count = count;
    }

    /// How many there are.
    pub fn count(&self) -> u16 {
        self.count
    }

    /// Those that nobody has, in order.
    pub fn free(&self) -> impl Iterator<Item = GpuIndex> {
        let mut held = self.holders.iter().map(|(gpu, _)| *gpu).peekable();
        (0..self.count).map(GpuIndex).filter(move |gpu| {
            while held.next_if(|held| held < gpu).is_some() {}
            held.peek() != Some(gpu)
        })
    }

    /// Who has which, in order.
    pub fn holders(&self) -> impl Iterator<Item = (GpuIndex, &JobId)> {
        self.holders.iter().map(|(gpu, job)| (*gpu, job))
    }

    /// The first so many that are free; `None`, and nothing is taken, if there are not so many.
    pub fn lease(&mut self, job: &JobId, wanted: u16) -> Option<Vec<GpuIndex>> {
        let gpus: Vec<GpuIndex> = self.free().take(usize::from(wanted)).collect();
        if gpus.len() < usize::from(wanted) {
            return None;
        }
        self.holders.extend(gpus.iter().map(|gpu| (*gpu, job.clone())));
        Some(gpus)
    }

    /// A job has these already, as its record says. Answers those that another has by its own record too: such a GPU
    /// is free again when both have ended.
    pub fn restore(&mut self, job: &JobId, gpus: &[GpuIndex]) -> Vec<GpuIndex> {
        let twice = self.holders().filter(|(gpu, holder)| gpus.contains(gpu) && *holder != job);
        let twice = twice.map(|(gpu, _)| gpu).collect();
        self.holders.extend(gpus.iter().map(|gpu| (*gpu, job.clone())));
        twice
    }

    /// The job has them no longer.
    pub fn give_back(&mut self, job: &JobId, gpus: &[GpuIndex]) {
        for gpu in gpus {
            self.holders.remove(&(*gpu, job.clone()));
        }
    }
}
