//! What a job needs of the machine, and whether it may still start when its turn comes.

use std::time::Duration;

use deputy_core::job::Usage;
use deputy_core::queue::Ceilings;
use deputy_core::schedule::{AccountKey, Amount, Candidate};
use deputy_core::slurm::Executor;
use deputy_core::{Code, Denial, JobId, KindName};

use super::super::ready;
use crate::daemon::Daemon;
use crate::directory::Snapshot;
use crate::store::{Job, JobSpec, Store};

/// A job as the scheduler sees it. Its need is what it asks for, or what bounds each job of its kind. One that only has its
/// shepherd here needs a place.
pub fn candidate(store: &Store, snapshot: &Snapshot, job: &Job) -> Result<Candidate, Denial> {
    let owner = AccountKey { application: job.application.clone(), account: job.account.clone() };
    asking(store, snapshot, job.id.clone(), owner, &job.kind, &job.spec)
}

/// The same of a job that need not be one.
pub fn asking(
    store: &Store,
    snapshot: &Snapshot,
    job: JobId,
    owner: AccountKey,
    kind: &KindName,
    spec: &JobSpec,
) -> Result<Candidate, Denial> {
    let registered = snapshot.get(&owner.application).and_then(Result::ok);
    let asked = spec.bounds.limits;
    let limits = registered
        .as_ref()
        .and_then(|registered| {
            let kind = registered.policy.kinds.get(kind)?;
            Some(asked.or(kind.bounds(registered.policy.limits).limits))
        })
        .unwrap_or(asked);
    let ceilings = registered.as_ref().map(|registered| registered.policy.queue.group);
    // Most machines have no ceilings for groups, and then nobody looks who is in which.
    let groups = if ceilings.is_none_or(|ceilings| ceilings == Ceilings::default()) {
        Vec::new()
    } else {
        let memberships = store.memberships(&owner.application, &owner.account)?;
        memberships.into_iter().map(|membership| membership.group).collect()
    };
    let need = match spec.executor {
        Executor::Local => Amount::of_job(limits.cpus, limits.memory, spec.gpus),
        Executor::Slurm => Amount::least(),
    };
    Ok(Candidate { job, owner, groups, need })
}

/// The CPU time of this machine that a job used.
pub fn cpu_seconds(executor: Executor, usage: &Usage) -> f64 {
    if executor != Executor::Local {
        return 0.0;
    }
    Duration::from_micros(usage.user_us.saturating_add(usage.system_us)).as_secs_f64()
}

/// What was decided when the job was accepted is decided again: hours may have passed.
pub async fn still_allowed(daemon: &Daemon, job: &Job) -> Result<(), Denial> {
    let snapshot = daemon.directory.snapshot();
    let registered = snapshot.get(&job.application).ok_or_else(Denial::not_found)??;
    let ready = ready::again(daemon, &registered, job).await?;
    if ready.os == job.os {
        return Ok(());
    }
    Err(Denial::new(
        Code::LinkStale,
        "links",
        format!("the account was linked to {} when the job was accepted, and is not any more", job.os),
    )
    .remedy("run it again"))
}
