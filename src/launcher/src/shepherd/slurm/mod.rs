//! Slurm as the user: the launcher's children that submit a job, end it, and ask where jobs stand.
//!
//! A submission takes the steps of any job: the folder, then policy and consent, PAM's account phase and session, the
//! whole identity, and only then Slurm's program, as the user ([`submit`]). What follows needs no right that was not
//! given then: to end, hold or release what runs under an OS account, and to look at it ([`command`], [`ask`]). A further run
//! of a job needs what the first one did, looked at anew ([`requeue`]). A job that somebody speaks with keeps its shepherd, which
//! starts `srun` in the place of the job's program ([`interactive`]).

mod ask;
mod command;
mod dependencies;
mod interactive;
mod program;
mod record;
mod requeue;
mod resources;
mod submit;

use deputy_core::denial::{Code, Denial};
use deputy_core::settings::{Settings, SlurmSettings};
use deputy_core::slurm::ClusterName;
use deputy_core::slurm::policy::unknown_cluster;

pub use self::ask::ask;
pub use self::command::command;
pub use self::interactive::{AtSlurm, end_what_is_left};
pub use self::record::{begin_interactive, cluster, is_submitted};
pub use self::resources::resources;
pub use self::submit::{attach, submit};

/// What `deputy.toml` says about a cluster.
fn settings<'a>(settings: &'a Settings, cluster: &ClusterName) -> Result<&'a SlurmSettings, Denial> {
    let slurm = settings.executor.slurm.as_ref().ok_or_else(|| {
        Denial::new(
            Code::SlurmUnavailable,
            "deputy.toml: executor.slurm",
            "this machine is not set up to submit jobs to Slurm",
        )
        .remedy("have root add the table [executor.slurm] to deputy.toml")
    })?;
    slurm.cluster(cluster).ok_or_else(|| unknown_cluster(cluster))
}

/// Slurm's programs gave no answer that can be used.
fn no_answer(message: impl Into<String>) -> Denial {
    Denial::new(Code::SlurmUnavailable, "Slurm", message)
        .remedy("look at Slurm's own state: sinfo, scontrol ping")
}
