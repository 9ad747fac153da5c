//! What the queue knows after a restart: which jobs run, with which GPUs, which wait, and who used how much lately.

use deputy_core::schedule::{AccountKey, Moment};
use deputy_core::slurm::Executor;

use super::{Queue, State, need};
use crate::daemon::Daemon;
use crate::directory::Snapshot;
use crate::store::{Job, JobFilter, JobState, PageRequest, Scope, StoreError, Timestamp};

/// At most so many ended jobs of an application are looked at, the latest.
const LATEST: usize = 2000;

/// What was used longer ago than this many half-lives counts for nothing.
const HALF_LIVES: u64 = 8;

impl Queue {
    /// A job that is open in the ledger, before anything starts. `number` is its place there. Whether it runs is found
    /// out later ([`Queue::runs`], [`Queue::turn`], [`Queue::ended`]); until then it has what it would have.
    pub fn take_up(&self, daemon: &Daemon, job: &Job, number: u32) {
        let snapshot = daemon.directory.snapshot();
        let candidate = match need::candidate(&daemon.store, &snapshot, job) {
            Ok(candidate) => candidate,
            Err(error) => return tracing::error!(job = %job.id, %error, "the queue does not know the job"),
        };
        let started = job.started.or(job.starting).unwrap_or_else(Timestamp::now);
        let mut state = self.lock();
        state.apply(&snapshot, self.0.clock.now());
        if let Err(error) = state.learn_limits(&daemon.store, &candidate.owner) {
            tracing::error!(job = %job.id, %error, "the limits of the job's account are not known");
        }
        let twice = state.scheduler.restore(candidate, &job.gpus, Moment(started.0), self.0.clock.now());
        if !twice.is_empty() {
            tracing::error!(job = %job.id, gpus = ?twice, "these GPUs are leased to another job as well");
        }
        if job.state == (JobState::Queued {}) {
            state.unknown.insert(job.id.clone(), number);
        }
    }

    /// What accounts used lately.
    pub fn recall(&self, daemon: &Daemon) -> Result<(), StoreError> {
        let snapshot = daemon.directory.snapshot();
        let half_life = snapshot.settings.executor.local.fair_share_half_life_seconds.max(1);
        let now = self.0.clock.now().0;
        let since = now.saturating_sub(half_life.saturating_mul(HALF_LIVES).saturating_mul(1_000_000));
        let mut state = self.lock();
        state.apply(&snapshot, Moment(now));
        recall(&mut state, daemon, &snapshot, Timestamp(since), Moment(now))
    }
}

fn recall(
    state: &mut State,
    daemon: &Daemon,
    snapshot: &Snapshot,
    since: Timestamp,
    now: Moment,
) -> Result<(), StoreError> {
    let filter = JobFilter { states: vec!["ended".to_owned()], kind: None };
    for name in snapshot.names() {
        let mut request = PageRequest::first(500);
        let mut seen = 0;
        loop {
            let page = daemon.store.jobs(&Scope::Application(name.clone()), &filter, &request)?;
            seen += page.items.len();
            let mut old = false;
            for job in page.items {
                old = job.queued < since;
                let (JobState::Ended { usage, .. }, Some(ended)) = (&job.state, job.ended) else { continue };
                if ended >= since && job.spec.executor == Executor::Local {
                    let used = need::cpu_seconds(job.spec.executor, usage);
                    let owner = AccountKey { application: job.application, account: job.account };
                    state.scheduler.charge(&owner, used, Moment(ended.0), now);
                }
            }
            match page.next {
                Some(next) if seen < LATEST && !old => request.after = Some(next),
                _ => break,
            }
        }
    }
    Ok(())
}
