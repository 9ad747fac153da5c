//! The queue of this machine: what stands between the ledger and the launch.
//!
//! Which job starts when is decided by [`deputy_core::schedule`]; here are the jobs that it decides about. A job has its
//! place in the queue before it is in the ledger, so that what never fits is refused before it is recorded, and a job
//! that starts at once costs one look at memory. It gives its place back at its end, whatever that is.

mod need;
mod restore;
pub mod shown;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use deputy_core::message::{LauncherReply, LauncherRequest};
use deputy_core::queue::GpuIndex;
use deputy_core::schedule::{AccountKey, Candidate, Moment, Most, Scheduler, Start};
use deputy_core::{Denial, JobId, KindName};

use super::admit::Waiting;
use crate::daemon::Daemon;
use crate::directory::Snapshot;
use crate::launcher::ANSWER;
use crate::random;
use crate::store::{Job, JobSpec, JobState, Store, StoreError, Timestamp};

/// How often the files of root's are looked at while jobs wait.
const LOOK: Duration = Duration::from_secs(1);

/// For how long it is believed how many GPUs there are, where root's settings do not say it.
const GPUS_KNOWN: Duration = Duration::from_secs(30);

/// Why a job that waited was given up, where somebody asked for it.
pub const CANCELLED: &str = "cancelled before it started";

/// The queue. Clones share it.
#[derive(Clone)]
pub struct Queue(Arc<Inner>);

struct Inner {
    daemon: Weak<Daemon>,
    clock: Clock,
    state: Mutex<State>,
}

struct State {
    scheduler: Scheduler,
    /// Jobs whose turn it is and that are not in the ledger yet, with the GPUs that they were leased.
    granted: HashMap<JobId, Vec<GpuIndex>>,
    /// Jobs whose turn it is not yet.
    parked: HashMap<JobId, Waiting>,
    /// Jobs of before a restart of which it is not known whether they run, by their place in the ledger. Nothing starts
    /// before all of them are known.
    unknown: HashMap<JobId, u32>,
    applied: Option<Arc<Snapshot>>,
    found_gpus: Option<(u16, Instant)>,
    /// Whether a task looks at root's files.
    looking: bool,
}

/// A time that does not go back when the machine's clock is set.
struct Clock {
    wall: u64,
    started: Instant,
}

impl Clock {
    fn now(&self) -> Moment {
        let elapsed = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        Moment(self.wall.saturating_add(elapsed))
    }
}

/// A place in the queue of a job that is on its way into the ledger. Dropped, it is given back.
pub struct Place {
    queue: Queue,
    job: Option<JobId>,
    starts: bool,
}

impl Place {
    /// Whether the job starts at once.
    pub fn starts(&self) -> bool {
        self.starts
    }

    /// The job is in the ledger: from here on its end gives the place back.
    pub fn keep(mut self) {
        self.job = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(job) = self.job.take() {
            self.queue.give_back(&job, None);
        }
    }
}

impl Queue {
    /// An empty one.
    pub fn new(daemon: Weak<Daemon>) -> Self {
        let clock = Clock { wall: Timestamp::now().0, started: Instant::now() };
        let state = State {
            scheduler: Scheduler::new(clock.now()),
            granted: HashMap::new(),
            parked: HashMap::new(),
            unknown: HashMap::new(),
            applied: None,
            found_gpus: None,
            looking: false,
        };
        Self(Arc::new(Inner { daemon, clock, state: Mutex::new(state) }))
    }

    /// A place for a job that is about to be recorded; refused if it never fits, or too many wait.
    pub fn enter(&self, daemon: &Daemon, job: &Job) -> Result<Place, Denial> {
        let snapshot = daemon.directory.snapshot();
        self.place(daemon, &snapshot, need::candidate(&daemon.store, &snapshot, job)?)
    }

    fn place(
        &self,
        daemon: &Daemon,
        snapshot: &Arc<Snapshot>,
        candidate: Candidate,
    ) -> Result<Place, Denial> {
        let id = candidate.job.clone();
        let mut state = self.lock();
        state.apply(snapshot, self.0.clock.now());
        state.learn_limits(&daemon.store, &candidate.owner)?;
        let start = if state.unknown.is_empty() {
            state.scheduler.submit(candidate, self.0.clock.now())?
        } else {
            state.scheduler.submit_behind(candidate, self.0.clock.now())?;
            None
        };
        if let Some(start) = start {
            state.granted.insert(start.job, start.gpus);
        } else {
            // A small job may fill a gap at once.
            let starts = state.starts(self.0.clock.now());
            let due = state.hand_out(starts);
            self.look_on(&mut state);
            drop(state);
            self.release(due);
            state = self.lock();
        }
        let starts = state.granted.contains_key(&id);
        Ok(Place { queue: self.clone(), job: Some(id), starts })
    }

    /// Whether such a job would start in this moment. It is given a place to find out, and gives it back.
    pub fn would_start(
        &self,
        daemon: &Daemon,
        owner: AccountKey,
        kind: &KindName,
        spec: &JobSpec,
    ) -> Result<bool, Denial> {
        let snapshot = daemon.directory.snapshot();
        let nobodys = JobId::from_random(random::bytes()?);
        let candidate = need::asking(&daemon.store, &snapshot, nobodys, owner, kind, spec)?;
        // What never fits does not start.
        Ok(self.place(daemon, &snapshot, candidate).is_ok_and(|place| place.starts()))
    }

    /// Whether such a job could ever start, and there is a place for it now. It is given none.
    pub fn would_enter(
        &self,
        daemon: &Daemon,
        owner: AccountKey,
        kind: &KindName,
        spec: &JobSpec,
    ) -> Result<(), Denial> {
        let snapshot = daemon.directory.snapshot();
        let nobodys = JobId::from_random([0; JobId::BYTES]);
        let candidate = need::asking(&daemon.store, &snapshot, nobodys, owner, kind, spec)?;
        let mut state = self.lock();
        state.apply(&snapshot, self.0.clock.now());
        state.learn_limits(&daemon.store, &candidate.owner)?;
        state.scheduler.check(&candidate)
    }

    /// The limits of an account are others now, or it is gone.
    pub fn limits_changed(&self, daemon: &Daemon, owner: &AccountKey) -> Result<(), StoreError> {
        let mut state = self.lock();
        // Of two changes at once the later one is read last: each is on disk before it comes here.
        state.set_limits(&daemon.store, owner)?;
        let starts = state.starts(self.0.clock.now());
        let due = state.hand_out(starts);
        drop(state);
        self.release(due);
        Ok(())
    }

    /// A job that is in the ledger. Answers it with its GPUs if its turn has come; otherwise it is kept here.
    pub fn turn(&self, waiting: Waiting) -> Option<(Waiting, Vec<GpuIndex>)> {
        let id = waiting.live.id();
        let mut state = self.lock();
        if let Some(gpus) = state.granted.remove(&id) {
            return Some((waiting, gpus));
        }
        // Given up in the meantime: who did that tells the queue, and does so after this.
        if !waiting.live.waits() {
            return None;
        }
        if let Some(number) = state.unknown.remove(&id) {
            // It waited before the restart, and waits again where it was.
            let now = self.0.clock.now();
            let candidate = state.scheduler.candidate(&id).cloned();
            state.scheduler.end(&id, Some(0.0), now);
            if let Some(candidate) = candidate {
                let gpus = waiting.live.job().spec.gpus_here();
                state.scheduler.resubmit(candidate.with_gpus(gpus), number, now);
            }
        }
        state.parked.insert(id, waiting);
        let starts = state.starts(self.0.clock.now());
        let due = state.hand_out(starts);
        self.look_on(&mut state);
        drop(state);
        self.release(due);
        None
    }

    /// Takes a job that waits out of the queue, so that it never starts; false if it does not wait here.
    pub fn give_up(&self, job: &JobId) -> bool {
        let parked = self.lock().parked.remove(job);
        // Its place goes when its end is told.
        parked.is_some_and(|waiting| waiting.live.begin())
    }

    /// A job ended, or will never start: its place is free.
    pub fn ended(&self, job: &Job) {
        let cpu_seconds = match &job.state {
            JobState::Ended { usage, .. } => Some(need::cpu_seconds(job.spec.executor, usage)),
            JobState::Abandoned { .. } => Some(0.0),
            _ => None,
        };
        self.give_back(&job.id, cpu_seconds);
    }

    /// A job of before a restart runs.
    pub fn runs(&self, job: &JobId) {
        let mut state = self.lock();
        if state.unknown.remove(job).is_none() {
            return;
        }
        let starts = state.starts(self.0.clock.now());
        let due = state.hand_out(starts);
        drop(state);
        self.release(due);
    }

    fn give_back(&self, job: &JobId, cpu_seconds: Option<f64>) {
        let mut state = self.lock();
        state.unknown.remove(job);
        state.granted.remove(job);
        // Its descriptors are closed when nothing is locked.
        let parked = state.parked.remove(job);
        let now = self.0.clock.now();
        let known = state.scheduler.end(job, cpu_seconds, now);
        let due = if known && state.scheduler.waiting() > 0 {
            let starts = state.starts(now);
            state.hand_out(starts)
        } else {
            Vec::new()
        };
        drop(state);
        drop(parked);
        self.release(due);
    }

    /// Starts jobs whose turn it is.
    fn release(&self, due: Vec<(Waiting, Vec<GpuIndex>)>) {
        for (waiting, gpus) in due {
            let Some(daemon) = self.0.daemon.upgrade() else { return };
            tokio::spawn(async move {
                let mut waiting = waiting;
                let cause = match need::still_allowed(&daemon, &waiting.live.job()).await {
                    Ok(()) if waiting.cancelled() => Some(CANCELLED.to_owned()),
                    Ok(()) => None,
                    Err(denial) => Some(format!("{}: {}", denial.code, denial.message)),
                };
                if let Some(cause) = cause {
                    if waiting.live.begin() {
                        daemon.tracker.end(&waiting.live, JobState::Abandoned { cause }, None).await;
                    }
                    return;
                }
                // A refusal is in the ledger: nobody else hears it.
                if let Err(denial) = daemon.tracker.start_leased(waiting, None, gpus).await {
                    tracing::info!(code = %denial.code, "a job that waited was refused");
                }
            });
        }
    }

    /// While jobs wait, what root writes down has its effect without anything else happening.
    fn look_on(&self, state: &mut State) {
        if state.looking || state.scheduler.waiting() == 0 {
            return;
        }
        state.looking = true;
        let queue = self.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                let Some(daemon) = queue.0.daemon.upgrade() else { return };
                if *daemon.tracker.stopping().borrow() {
                    return;
                }
                let snapshot = daemon.directory.snapshot();
                let mut state = queue.lock();
                let now = queue.0.clock.now();
                state.apply(&snapshot, now);
                let starts = state.starts(now);
                let due = state.hand_out(starts);
                state.looking = state.scheduler.waiting() > 0;
                let done = !state.looking;
                drop(state);
                queue.release(due);
                if done {
                    return;
                }
            }
        });
    }

    /// Learns how many GPUs there are, where the settings do not say it. The launcher sees the devices; this process
    /// does not.
    pub async fn find_gpus(&self, daemon: &Daemon) {
        let known = self.lock().found_gpus.is_some_and(|(_, at)| at.elapsed() < GPUS_KNOWN);
        if known || daemon.directory.snapshot().settings.executor.local.capacity.gpus.is_some() {
            return;
        }
        match daemon.launcher.ask(&LauncherRequest::Gpus, &[], ANSWER).await {
            Ok(LauncherReply::Gpus { count }) => {
                let mut state = self.lock();
                state.found_gpus = Some((count, Instant::now()));
                state.applied = None;
            }
            Ok(_) => tracing::warn!("the launcher did not say how many GPUs there are"),
            Err(error) => tracing::warn!(%error, "the launcher could not be asked for the GPUs"),
        }
    }

    /// How many jobs wait for room.
    pub fn waiting(&self, snapshot: &Arc<Snapshot>) -> usize {
        self.with(snapshot, |state| state.scheduler.waiting())
    }

    /// Looks at the queue by what root's files say now.
    fn with<R>(&self, snapshot: &Arc<Snapshot>, look: impl FnOnce(&State) -> R) -> R {
        let mut state = self.lock();
        state.apply(snapshot, self.0.clock.now());
        look(&state)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Puts what root wrote down into effect, if it is not yet.
    fn apply(&mut self, snapshot: &Arc<Snapshot>, now: Moment) {
        if self.applied.as_ref().is_some_and(|applied| Arc::ptr_eq(applied, snapshot)) {
            return;
        }
        let local = &snapshot.settings.executor.local;
        let launcher = u32::from(snapshot.settings.launcher.max_jobs);
        let jobs = local.capacity.jobs.map_or(launcher, |jobs| jobs.min(launcher));
        let gpus = match (&local.capacity.gpus, self.found_gpus) {
            (Some(listed), _) => u16::try_from(listed.len()).unwrap_or(u16::MAX),
            (None, found) => found.map_or(0, |(count, _)| count),
        };
        let most = Most::new(Some(jobs), local.capacity.cpus, local.capacity.memory, None);
        self.scheduler.set_capacity(most, gpus);
        self.scheduler.set_half_life(local.fair_share_half_life_seconds, now);
        for name in snapshot.names() {
            if let Some(Ok(registered)) = snapshot.get(&name) {
                self.scheduler.set_policy(&name, registered.policy.queue.clone());
            }
        }
        self.applied = Some(Arc::clone(snapshot));
    }

    /// Reads the limits of an account, if they are not known: later changes are told.
    fn learn_limits(&mut self, store: &Store, owner: &AccountKey) -> Result<(), StoreError> {
        if self.scheduler.knows_limits(owner) { Ok(()) } else { self.set_limits(store, owner) }
    }

    fn set_limits(&mut self, store: &Store, owner: &AccountKey) -> Result<(), StoreError> {
        let account = store.account(&owner.application, &owner.account)?;
        self.scheduler.set_limits(owner, account.map(|account| account.limits).unwrap_or_default());
        Ok(())
    }

    /// The jobs whose turn it is now.
    fn starts(&mut self, now: Moment) -> Vec<Start> {
        if self.unknown.is_empty() { self.scheduler.starts(now) } else { Vec::new() }
    }

    /// Those of them that are in the ledger; the others are told when they are.
    fn hand_out(&mut self, starts: Vec<Start>) -> Vec<(Waiting, Vec<GpuIndex>)> {
        let mut due = Vec::new();
        for Start { job, gpus } in starts {
            match self.parked.remove(&job) {
                Some(waiting) => due.push((waiting, gpus)),
                None => {
                    self.granted.insert(job, gpus);
                }
            }
        }
        due
    }
}
