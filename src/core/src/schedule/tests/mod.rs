//! Tests of the scheduler: by examples, by runs, and against a naive reference.

mod examples;
mod model;
mod random;
mod runs;

use super::*;
use crate::queue::Ceilings;
use crate::size::MilliCpus;

fn seconds(seconds: f64) -> Moment {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small numbers of tests")]
    let micros = (seconds * 1e6).round() as u64;
    Moment(micros)
}

fn id(number: u64) -> JobId {
    let mut bytes = [0; JobId::BYTES];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    JobId::from_random(bytes)
}

fn owner(application: &str, account: &str) -> AccountKey {
    AccountKey { application: application.parse().unwrap(), account: account.parse().unwrap() }
}

/// A job of `demo` that needs so many CPUs and GPUs.
fn job(number: u64, account: &str, cpus: u32, gpus: u16) -> Candidate {
    Candidate {
        job: id(number),
        owner: owner("demo", account),
        groups: Vec::new(),
        need: Amount::of_job(Some(MilliCpus(cpus * 1000)), None, gpus),
    }
}

fn machine(jobs: u32, cpus: u32, gpus: u16) -> Scheduler {
    let mut scheduler = Scheduler::new(Moment(0));
    scheduler.set_capacity(Most::new(Some(jobs), Some(MilliCpus(cpus * 1000)), None, None), gpus);
    scheduler
}

fn jobs_at_most(jobs: u32) -> Ceilings {
    Ceilings { jobs: Some(jobs), ..Ceilings::default() }
}

fn ids(starts: &[Start]) -> Vec<JobId> {
    starts.iter().map(|start| start.job.clone()).collect()
}
