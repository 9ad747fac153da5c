//! What people see of the queue.

use super::amount::{Amount, Most};
use super::lease::GpuLeases;
use super::scope::{Hold, Reservations};
use super::{Candidate, Scheduler};
use crate::ids::JobId;
use crate::names::ApplicationName;

/// A job that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting<'a> {
    /// The job, its owner and its need.
    pub candidate: &'a Candidate,
    /// Its place among the waiting jobs of its account; 1 is the first.
    pub place: usize,
    /// Why it waits.
    pub hold: Hold,
}

/// What jobs of one application have, and may have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OwnerUse {
    /// What its jobs have.
    pub used: Amount,
    /// What they may have together.
    pub most: Most,
    /// How many wait.
    pub waiting: usize,
}

impl Scheduler {
    /// What jobs have of the machine.
    pub fn used(&self) -> Amount {
        self.machine.used
    }

    /// What the machine has.
    pub fn capacity(&self) -> Most {
        self.machine.most
    }

    /// Who has which GPU.
    pub fn gpus(&self) -> &GpuLeases {
        &self.gpus
    }

    /// How many jobs wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether a job waits.
    pub fn is_waiting(&self, job: &JobId) -> bool {
        self.waiting.contains_key(job)
    }

    /// A job that has a place.
    pub fn candidate(&self, job: &JobId) -> Option<&Candidate> {
        self.running.get(job).map(|running| &running.candidate)
    }

    /// How many jobs have a place.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// How an application stands.
    pub fn application(&self, name: &ApplicationName) -> OwnerUse {
        self.applications.get(name).map_or_else(OwnerUse::default, |application| OwnerUse {
            used: application.used,
            most: application.policy.total.into(),
            waiting: application.waiting,
        })
    }

    /// The jobs that wait, account by account in the present order, with the reason at this moment; at most so many,
    /// and of one application only if it is named. The order changes as jobs run.
    pub fn waiting_jobs(&self, application: Option<&ApplicationName>, at_most: usize) -> Vec<Waiting<'_>> {
        let mut reservations = Reservations::default();
        let mut order = self.order();
        let mut shown = Vec::new();
        while let Some(index) = order.pop() {
            let Some(first) = self.accounts[index].line.first() else { continue };
            let hold = self.hold(index, first, &mut reservations).unwrap_or(Hold::Nothing);
            if application.is_some_and(|wanted| *wanted != first.owner.application) {
                continue;
            }
            let room = at_most - shown.len();
            let line = self.accounts[index].line.iter().take(room).enumerate();
            shown.extend(line.map(|(before, candidate)| Waiting {
                candidate,
                place: before + 1,
                hold: if before == 0 { hold.clone() } else { Hold::EarlierJobs },
            }));
            if shown.len() >= at_most {
                break;
            }
        }
        shown
    }
}
