//! Where jobs at Slurm stand: one `squeue` for all that are asked about, and one `sacct` for those that it no longer has. A
//! cluster without accounting is asked for its queue alone.
//!
//! The operator that `deputy.toml` names for a cluster asks for everybody; where there is none, each OS account asks for its own. Only
//! jobs whose numbers are in their folders are asked about, and an answer about somebody else's job is none.

use std::collections::BTreeMap;

use deputy_core::denial::Denial;
use deputy_core::ids::JobId;
use deputy_core::job::OsIdentity;
use deputy_core::message::MAX_ASKED;
use deputy_core::settings::{Ends, Settings, SlurmSettings};
use deputy_core::slurm::listing::{self, Listed, Listing};
use deputy_core::slurm::{ClusterName, SlurmJobId, Standing, command, state};

use super::program::{Account, run};
use super::record;
use crate::shepherd::folder;

/// A job that Slurm has, or had.
pub(super) struct Asked {
    /// Its id.
    pub job: JobId,
    /// As whom it was submitted.
    pub owner: OsIdentity,
    /// Its number there.
    pub number: SlurmJobId,
    /// The cluster that has it.
    pub cluster: ClusterName,
}

/// Answers for those jobs that are at Slurm. Those about which Slurm gave no answer are left out.
///
/// Each is asked about at its own cluster, by its folder. Whoever asks about jobs of several at once waits for all of them.
pub fn ask(settings: &Settings, jobs: &[JobId]) -> Result<Vec<(JobId, Standing)>, Denial> {
    if jobs.len() > MAX_ASKED {
        return Err(Denial::invalid(format!("at most {MAX_ASKED} jobs at a time")));
    }
    let mut groups: BTreeMap<(ClusterName, Option<u32>), Vec<Asked>> = BTreeMap::new();
    for one in jobs.iter().filter_map(at_slurm) {
        // Without an operator each OS account asks for its own.
        let operator = super::settings(settings, &one.cluster).is_ok_and(|slurm| slurm.operator.is_some());
        let owner = (!operator).then(|| one.owner.uid.raw());
        groups.entry((one.cluster.clone(), owner)).or_default().push(one);
    }
    let (mut known, mut failure) = (Vec::new(), None);
    for ((cluster, _), group) in groups {
        match answered(settings, &cluster, group) {
            Ok(states) => known.extend(states),
            Err(denial) => failure = Some(denial),
        }
    }
    match failure {
        Some(denial) if known.is_empty() => Err(denial),
        Some(denial) => {
            tracing::warn!(event = "slurm_silent", message = %denial.message);
            Ok(known)
        }
        None => Ok(known),
    }
}

/// Asks about jobs of one cluster, and of one OS account where there is no operator.
fn answered(
    settings: &Settings,
    cluster: &ClusterName,
    group: Vec<Asked>,
) -> Result<Vec<(JobId, Standing)>, Denial> {
    let slurm = super::settings(settings, cluster)?;
    let account = match &slurm.operator {
        Some(operator) => Account::operator(operator)?,
        None => Account::of(&group[0].owner)?,
    };
    states(slurm, &account, group)
}

fn at_slurm(job: &JobId) -> Option<Asked> {
    let number = record::number(job).ok().flatten()?;
    let cluster = record::cluster(job).ok()?;
    Some(Asked { job: job.clone(), owner: folder::identity(job)?.os_account, number, cluster })
}

/// Where these stand.
pub(super) fn states(
    slurm: &SlurmSettings,
    account: &Account,
    asked: Vec<Asked>,
) -> Result<Vec<(JobId, Standing)>, Denial> {
    let mut users: Vec<_> = asked.iter().map(|one| one.owner.uid).collect();
    users.sort_unstable();
    users.dedup();
    let jobs: Vec<&JobId> = asked.iter().map(|one| &one.job).collect();
    let output = run(slurm, account, &command::squeue(&users, &jobs), None)?.good("squeue")?;
    let queue = listing::queue(&output);
    warn("squeue", &queue);
    if slurm.ends == Ends::Queue {
        let standing = |one: Asked| {
            let (name, uid) = (command::job_name(&one.job), one.owner.uid.raw());
            Some((one.job, state::by_queue_alone(&name, uid, queue.about(one.number))?))
        };
        return Ok(asked.into_iter().filter_map(standing).collect());
    }
    let not_open = |one: &&Asked| {
        let queued = queue.about(one.number).filter(|queued| queued.name == command::job_name(&one.job));
        queued != Listed::NoNews && queued.entry().and_then(state::open).is_none()
    };
    let over: Vec<SlurmJobId> = asked.iter().filter(not_open).map(|one| one.number).collect();
    let names: Vec<&JobId> = asked.iter().filter(not_open).map(|one| &one.job).collect();
    let accounted = if over.is_empty() {
        Listing::default()
    } else {
        let output = run(slurm, account, &command::sacct(&over, &names), None)?.good("sacct")?;
        listing::accounting(&output)
    };
    warn("sacct", &accounted);
    let standing = |one: Asked| {
        let (queued, accounted) = (queue.about(one.number), accounted.about(one.number));
        let standing = state::standing(&command::job_name(&one.job), one.owner.uid.raw(), queued, accounted)?;
        Some((one.job, standing))
    };
    Ok(asked.into_iter().filter_map(standing).collect())
}

/// Lines that cannot be read are for the administrator: the jobs that they are about stay where they were.
fn warn<T>(program: &str, listing: &Listing<T>) {
    if let Some(first) = listing.strange().first() {
        tracing::warn!(event = "slurm_strange", program, lines = listing.strange().len(), first = %first);
    }
}
