//! The jobs for which a job at Slurm waits, all of them at its own cluster.
//!
//! Of one that has ended the ledger says whether the condition holds; Slurm, which forgets ended jobs, is not asked about it.

use deputy_core::job::JobEnd;
use deputy_core::slurm::policy::other_cluster;
use deputy_core::slurm::{ClusterName, Dependency, Executor};
use deputy_core::{AccountName, ApplicationName, Code, Denial};

use super::executor;
use super::track::Tracker;
use crate::store::{Job, JobState};

/// What is left to wait for. A job that is not one of the same account of the same application is not there.
pub fn left(
    tracker: &Tracker,
    application: &ApplicationName,
    account: &AccountName,
    cluster: &ClusterName,
    dependencies: &[Dependency],
) -> Result<Vec<Dependency>, Denial> {
    let mut left = Vec::new();
    for dependency in dependencies {
        let stored = tracker.0.store.job(&dependency.job)?.ok_or_else(Denial::not_found)?;
        if (&stored.application, &stored.account) != (application, account) {
            return Err(Denial::not_found());
        }
        let job = tracker.get(&dependency.job).map_or(stored, |live| live.job());
        if job.spec.executor != Executor::Slurm {
            return Err(Denial::invalid("a job at Slurm waits for jobs at Slurm alone"));
        }
        let its_cluster = executor::cluster_of(&job);
        if its_cluster != *cluster {
            return Err(other_cluster(&job.id, &its_cluster));
        }
        let Job { state, slurm_job, .. } = job;
        if state.is_open() {
            if slurm_job.is_none() {
                return Err(Denial::new(
                    Code::Busy,
                    "dependency",
                    format!("the job {} is not at Slurm yet", dependency.job),
                )
                .remedy("ask again in a moment"));
            }
            left.push(dependency.clone());
        } else if !dependency.when.holds(ended_well(&state)) {
            return Err(Denial::new(
                Code::Conflict,
                "dependency",
                format!("{dependency} cannot hold any more: the job has ended"),
            )
            .remedy("look at how it ended: deputyctl job show ID"));
        }
    }
    Ok(left)
}

fn ended_well(state: &JobState) -> bool {
    matches!(state, JobState::Ended { end: JobEnd::Exited { code: 0 }, .. })
}
