//! The jobs for which another one waits: by the numbers in their own folders, and only those of the same account of the same
//! application at the same cluster.

use deputy_core::denial::{Code, Denial};
use deputy_core::message::SubmitRequest;
use deputy_core::slurm::policy::other_cluster;
use deputy_core::slurm::{Dependency, SlurmJobId, When};

use super::record;
use crate::shepherd::folder;

/// For what Slurm is told to wait. A job whose folder is gone has ended, which the ledger knows: nothing has been used up
/// by this refusal.
pub fn numbers(request: &SubmitRequest) -> Result<Vec<(When, SlurmJobId)>, Denial> {
    let number = |Dependency { when, job }: &Dependency| {
        let gone = || {
            Denial::new(Code::Busy, "dependency", format!("the job {job} is not at Slurm now"))
                .remedy("look at its state, and ask again")
        };
        let identity = folder::identity(job).ok_or_else(gone)?;
        if (&identity.application, &identity.account) != (&request.run.application, &request.run.account) {
            return Err(Denial::not_found());
        }
        let number = record::number(job)?.ok_or_else(gone)?;
        let cluster = record::cluster(job)?;
        if cluster != request.slurm.cluster.clone().unwrap_or_default() {
            return Err(other_cluster(job, &cluster));
        }
        Ok((*when, number))
    };
    request.slurm.dependencies.iter().map(number).collect()
}
