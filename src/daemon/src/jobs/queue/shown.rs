//! `Manager.Queue`.
//!
//! What one application uses is nobody else's business: an application is told of its own jobs, of what root's files
//! give, and of the one thing that it cannot find out by itself and needs to share the machine: how many GPUs nobody
//! has. Only an administrator is told what all use together, and each application.

use std::sync::Arc;
use std::time::Duration;

use deputy_core::Denial;
use deputy_core::queue::Ceilings;
use deputy_core::schedule::{Amount, Most, Resource, Waiting};
use tokio::time::timeout;
use zbus::ObjectPath;

use super::Queue;
use crate::authority::{About, Call, Granted, Ground};
use crate::bus::introspection::job_path;
use crate::bus::options::Options;
use crate::bus::record::{Record, list};
use crate::directory::Snapshot;

/// The most waiting jobs of one answer.
const MOST_SHOWN: usize = 1000;

/// How long an answer waits for the launcher to count the GPUs.
const PATIENCE: Duration = Duration::from_millis(500);

/// `Manager.Queue`.
pub async fn queue(call: Call, (mut options,): (Options,)) -> Result<Granted<(Record,)>, Denial> {
    let application = options.application()?;
    options.finish()?;
    let grant = call.authorize_any(About::application(application)).await?;
    let daemon = &call.daemon;
    // What was last known is good enough where the launcher is away.
    let _ = timeout(PATIENCE, daemon.tracker.queue().find_gpus(daemon)).await;
    let queue = daemon.tracker.queue();
    let own = grant.maybe_application().map(|application| application.name.clone());
    let everything = grant.ground == Ground::Administrator;
    let shown = queue.with(&grant.snapshot, |state| {
        let scheduler = &state.scheduler;
        let (capacity, used) = (scheduler.capacity(), scheduler.used());
        let mut shown = Record::new()
            .with("capacity", most(capacity))
            .with("free_gpus", u32::try_from(scheduler.gpus().free().count()).unwrap_or(u32::MAX));
        if everything {
            let waiting = u32::try_from(scheduler.waiting()).unwrap_or(u32::MAX);
            shown = shown
                .with("machine_used", amount(used))
                .with("machine_free", most(capacity.without(used)))
                .with("machine_waiting", waiting);
        }
        let names = match &own {
            Some(own) => vec![own.clone()],
            None => grant.snapshot.names(),
        };
        let applications = names
            .iter()
            .map(|name| {
                let of = scheduler.application(name);
                Record::new()
                    .text("application", name)
                    .with("used", amount(of.used))
                    .with("ceilings", most(of.most))
                    .with("waiting", u32::try_from(of.waiting).unwrap_or(u32::MAX))
            })
            .collect();
        let jobs = scheduler.waiting_jobs(own.as_ref(), MOST_SHOWN);
        shown.with("applications", list(applications)).with("jobs", list(jobs.iter().map(waiting).collect()))
    });
    Ok(grant.answer((shown,)))
}

impl Queue {
    /// What this machine has for jobs, what of it is free, and how many GPUs nobody has.
    pub fn machine(&self, snapshot: &Arc<Snapshot>) -> (Most, Most, u64) {
        self.with(snapshot, |state| {
            let capacity = state.scheduler.capacity();
            let free = capacity.without(state.scheduler.used());
            (capacity, free, state.scheduler.gpus().free().count() as u64)
        })
    }
}

fn waiting(waiting: &Waiting<'_>) -> Record {
    let candidate = waiting.candidate;
    Record::new()
        .text("id", &candidate.job)
        .maybe("path", ObjectPath::try_from(job_path(&candidate.job)).ok())
        .text("application", &candidate.owner.application)
        .text("account", &candidate.owner.account)
        .with("place", u32::try_from(waiting.place).unwrap_or(u32::MAX))
        .text("reason", &waiting.hold)
        .with("cpus", cpus(candidate.need.of(Resource::Cpus)))
        .with("memory", candidate.need.of(Resource::Memory))
        .with("gpus", candidate.need.of(Resource::Gpus))
}

fn cpus(milli: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let milli = milli as f64;
    milli / 1000.0
}

fn fields(of: impl Fn(Resource) -> Option<u64>) -> Record {
    Record::new()
        .maybe("jobs", of(Resource::Jobs))
        .maybe("cpus", of(Resource::Cpus).map(cpus))
        .maybe("memory", of(Resource::Memory))
        .maybe("gpus", of(Resource::Gpus))
}

fn amount(amount: Amount) -> Record {
    fields(|resource| Some(amount.of(resource)))
}

/// The ceilings of one account.
pub fn ceilings(ceilings: Ceilings) -> Record {
    most(ceilings.into())
}

/// What is absent is not counted.
fn most(most: Most) -> Record {
    fields(|resource| most.of(resource))
}
