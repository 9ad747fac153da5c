//! What runs jobs: one file for each engine.
//!
//! An engine does three things. It takes a job that is in the ledger ([`begin`]) and answers with what is held of it
//! from then on, a [`Hold`]. It is followed by that hold until the job has ended, and is told there what the job's owner
//! wants of it. And after a restart the launcher says of each job which engine holds it ([`super::settle`]). A further
//! engine is a file here, a variant of the two enums, and the launcher's requests that it needs.

mod local;
mod slurm;

use deputy_core::Denial;
use deputy_core::message::{JobCommand, JobState as Told};
use deputy_core::queue::GpuIndex;
use deputy_core::slurm::{Executor, SlurmJobId};

pub(super) use self::slurm::follow as follow_at_slurm;
pub use self::slurm::{Clusters, check, cluster_of, hold, requeue, slurm_request};

use super::admit::Opened;
use super::live::Live;
use super::stdio::Descriptors;
use super::track::Tracker;
use crate::launcher::{Channel, LauncherError};
use crate::store::Job;

/// What is held of a job that an engine has.
pub(super) enum Hold {
    /// The connection to its shepherd on this machine.
    Shepherd(Channel),
    /// The number that Slurm gave it.
    Slurm(SlurmJobId),
}

/// What an engine answers when it takes a job: the hold, and where the job stands if it says that, too.
pub(super) type Begun = Result<(Hold, Option<Told>), LauncherError>;

/// Gives a job to its engine.
pub(super) async fn begin(
    tracker: &Tracker,
    opened: Option<Opened>,
    job: &Job,
    descriptors: &Descriptors,
    gpus: Vec<GpuIndex>,
) -> Begun {
    match job.spec.executor {
        Executor::Slurm if !job.spec.has_shepherd() => slurm::begin(tracker, opened, job, descriptors).await,
        Executor::Slurm | Executor::Local => local::begin(tracker, opened, job, descriptors, gpus).await,
    }
}

/// Tells an engine what a job's owner wants of it. Slurm's refusal is the caller's; a shepherd is told when it listens.
pub(super) async fn command(tracker: &Tracker, live: &Live, command: JobCommand) -> Result<(), Denial> {
    let job = live.job();
    match (job.spec.executor, job.slurm_job) {
        (Executor::Slurm, Some(_)) => slurm::command(tracker, live, command).await,
        _ => live.command(command),
    }
}
