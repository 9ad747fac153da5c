//! The jobs that are not ended: each has a connection to its shepherd, watchers, and a task that listens.
//!
//! The shepherd's exit record is on disk before it tells the end. So watchers are told at once, the ledger takes the
//! end in its next group, and only then may the launcher forget the job.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use deputy_core::job::ExitRecord;
use deputy_core::message::{JobCommand, JobState as Told, LauncherReply, LauncherRequest, MAX_FORGET};
use deputy_core::stream::{Output, Streams};
use deputy_core::{Denial, JobId};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::admit::Waiting;
use super::executor::{Clusters, Hold, follow_at_slurm};
use super::forget::{forget_when_quiet, tidy_up};
use super::live::Live;
use super::queue::Queue;
use super::retention::Shelf;
use super::settle::Settled;
use super::signals::Subscribers;
use super::stdio::Descriptors;
use crate::daemon::Daemon;
use crate::directory::Snapshot;
use crate::launcher::{ANSWER, Channel, Launcher, LauncherError};
use crate::store::{Actor, Change, Job, JobState, JobTimes, PageRequest, Store, StoreError, Timestamp};

/// How long after its start a job's start is recorded. A job that ends sooner needs one record less: its end tells
/// when it began.
const START_RECORDED_AFTER: Duration = Duration::from_millis(100);

/// How long ends are gathered before the launcher is told to forget them.
const GATHER: Duration = Duration::from_millis(200);

/// How often it is looked whether output is kept no longer.
const LOOK: Duration = Duration::from_secs(60);

/// How long a full disk is given before the next try.
const RETRY: Duration = Duration::from_secs(5);

/// How many jobs of this machine's are asked about at once after a restart. The launcher's children are limited too.
const SETTLING: usize = 16;

/// The jobs that are not ended. Clones share them.
#[derive(Clone)]
pub struct Tracker(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub store: Store,
    pub launcher: Launcher,
    pub daemon: Weak<Daemon>,
    pub null: Arc<OwnedFd>,
    pub subscribers: Arc<Subscribers>,
    pub queue: Queue,
    /// Who waits for news from which cluster.
    pub slurm: Clusters,
    live: Mutex<HashMap<JobId, Arc<Live>>>,
    forget: mpsc::Sender<JobId>,
    shelf: Mutex<Shelf>,
    crowded: Notify,
    /// Told when folders may be left over.
    pub untidy: Arc<Notify>,
    pub settling: Semaphore,
    pub stopping: watch::Sender<bool>,
}

impl Tracker {
    /// Starts with no jobs.
    pub fn new(
        store: Store,
        launcher: Launcher,
        daemon: Weak<Daemon>,
        null: Arc<OwnedFd>,
        subscribers: Arc<Subscribers>,
    ) -> Self {
        let (forget, receiver) = mpsc::channel(4096);
        let (stopping, stopped) = watch::channel(false);
        let untidy = Arc::new(Notify::new());
        tokio::spawn(forget_when_quiet(launcher.clone(), receiver, stopped, Arc::clone(&untidy)));
        let tracker = Self(Arc::new(Inner {
            store,
            launcher,
            queue: Queue::new(daemon.clone()),
            slurm: Clusters::default(),
            daemon,
            null,
            subscribers,
            live: Mutex::default(),
            forget,
            shelf: Mutex::default(),
            crowded: Notify::new(),
            untidy,
            settling: Semaphore::new(SETTLING),
            stopping,
        }));
        tokio::spawn(remove_old_output(tracker.clone()));
        tracker
    }

    /// Takes up the jobs that were open when the daemon last ended.
    pub fn take_up(&self) -> Result<usize, StoreError> {
        self.take_up_output()?;
        self.take_up_services()?;
        let mut request = PageRequest::first(1000);
        let daemon = self.0.daemon.upgrade();
        let mut taken_up = Vec::new();
        let mut count: u32 = 0;
        loop {
            let page = self.0.store.open_jobs(&request)?;
            for job in page.items {
                count += 1;
                if let Some(daemon) = self.0.daemon.upgrade().filter(|_| job.spec.streams.captures()) {
                    let bytes = Self::output_bound(&job, &daemon.directory.snapshot());
                    self.shelf().runs(&job.id, job.os.uid, bytes);
                }
                if let Some(daemon) = daemon.as_ref().filter(|_| job.spec.has_shepherd()) {
                    self.0.queue.take_up(daemon, &job, count);
                }
                taken_up.push(self.insert(job));
            }
            match page.next {
                Some(next) => request.after = Some(next),
                None => break,
            }
        }
        if let Some(daemon) = &daemon {
            self.0.queue.recall(daemon)?;
        }
        tokio::spawn(tidy_up(self.clone()));
        // The queue knows all of them before anything starts.
        let taken = taken_up.len();
        for (live, commands) in taken_up {
            let tracker = self.clone();
            tokio::spawn(async move { tracker.follow(live, None, commands).await });
        }
        Ok(taken)
    }

    fn take_up_output(&self) -> Result<(), StoreError> {
        let mut request = PageRequest::first(1000);
        loop {
            let page = self.0.store.kept_jobs(&request)?;
            page.items.iter().for_each(|job| self.shelf().end(job));
            match page.next {
                Some(next) => request.after = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// What decides when a job starts.
    pub fn queue(&self) -> &Queue {
        &self.0.queue
    }

    /// Becomes true when the daemon ends.
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.0.stopping.subscribe()
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.0.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The most that a job can leave in its folder.
    fn output_bound(job: &Job, snapshot: &Snapshot) -> u64 {
        let application = snapshot.get(&job.application).and_then(Result::ok);
        let kind = application.as_ref().and_then(|application| application.policy.kinds.get(&job.kind));
        let stream = kind.and_then(|kind| kind.output).unwrap_or(snapshot.settings.output.stream);
        let Streams { output, error, .. } = &job.spec.streams;
        let streams = [output, error].into_iter().filter(|output| **output == Output::Captured).count();
        stream.0.saturating_mul(streams as u64)
    }

    /// Makes room for what a job will write.
    pub(super) fn make_room(&self, job: &Job) -> Result<(), Denial> {
        let Some(daemon) = self.0.daemon.upgrade().filter(|_| job.spec.streams.captures()) else {
            return Ok(());
        };
        let snapshot = daemon.directory.snapshot();
        let bytes = Self::output_bound(job, &snapshot);
        self.shelf().begin(&job.id, job.os.uid, bytes, &snapshot.settings.output)?;
        self.0.crowded.notify_one();
        Ok(())
    }

    /// Removes the folders of ended jobs that are kept no longer.
    pub async fn remove_old_output(&self) {
        let Some(daemon) = self.0.daemon.upgrade() else { return };
        self.shelf().look(Timestamp::now(), &daemon.directory.snapshot().settings.retention);
        loop {
            let ids = self.shelf().going(MAX_FORGET);
            if ids.is_empty() {
                return;
            }
            let request = LauncherRequest::Forget { jobs: ids.clone() };
            // The folders first: what is recorded as removed has to be.
            if let Err(error) = self.0.launcher.ask(&request, &[], ANSWER).await {
                return tracing::warn!(%error, "the launcher could not be told which output is kept no longer");
            }
            if !self.commit(Change::JobsForgotten { ids: ids.clone() }).await {
                return;
            }
            self.shelf().gone(&ids);
        }
    }

    /// A job that is not ended.
    pub fn get(&self, id: &JobId) -> Option<Arc<Live>> {
        self.live_jobs().get(id).cloned()
    }

    /// Looks at each of them, one after the other.
    pub fn each(&self, mut look: impl FnMut(&Job)) {
        let all: Vec<_> = self.live_jobs().values().cloned().collect();
        for live in all {
            look(&live.job());
        }
    }

    /// How many there are.
    pub fn live(&self) -> usize {
        self.live_jobs().len()
    }

    /// The tasks that only wait end; the jobs go on, and the next start takes them up.
    pub fn stop(&self) {
        self.0.stopping.send_replace(true);
    }

    fn live_jobs(&self) -> std::sync::MutexGuard<'_, HashMap<JobId, Arc<Live>>> {
        self.0.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a job in that is in the ledger.
    pub(super) fn insert(&self, job: Job) -> (Arc<Live>, mpsc::Receiver<JobCommand>) {
        let id = job.id.clone();
        let (live, receiver) = Live::new(job);
        live.tell_also(&self.0.subscribers);
        let live = Arc::new(live);
        self.live_jobs().insert(id, Arc::clone(&live));
        (live, receiver)
    }

    /// A connection to the launcher for a job that is on its way into the ledger.
    pub async fn open(&self) -> Result<Channel, LauncherError> {
        self.0.launcher.open().await
    }

    /// Listens to a job's shepherd until the job has ended.
    pub(super) async fn follow(
        &self,
        live: Arc<Live>,
        mut hold: Option<Hold>,
        mut commands: mpsc::Receiver<JobCommand>,
    ) {
        let id = live.job().id;
        let recorded = live.state() == (JobState::Running {}) && hold.is_none();
        let mut record_start = (!recorded).then(|| Instant::now() + START_RECORDED_AFTER);
        let mut stopping = self.0.stopping.subscribe();
        loop {
            let current = if let Some(hold) = hold.take() {
                hold
            } else {
                let settled = tokio::select! {
                    settled = self.settle(&live) => settled,
                    () = told_to_stop(&mut stopping) => return,
                };
                match settled {
                    Settled::Running(channel, ending) => {
                        live.can_be_commanded(None);
                        live.become_state(JobState::Running {}, None);
                        self.0.queue.runs(&id);
                        if let Some(cause) = ending {
                            live.become_state(JobState::Ending { cause }, None);
                        }
                        Hold::Shepherd(channel)
                    }
                    Settled::AtSlurm(number) => Hold::Slurm(number),
                    Settled::Told(state) => return self.end_as_told(&live, state).await,
                    Settled::NeverStarted { cause } => return self.never_started(&live, cause).await,
                    Settled::StillWaits => {
                        let waiting = Waiting { live, commands, descriptors: Descriptors::default() };
                        return self.admit_again(waiting);
                    }
                }
            };
            let current = match current {
                Hold::Shepherd(channel) => channel,
                Hold::Slurm(number) => return follow_at_slurm(self, live, number, commands).await,
            };
            let due = record_start.unwrap_or_else(Instant::now);
            tokio::select! {
                reply = current.reply() => match reply {
                    Ok(Some(LauncherReply::Job(Told::Running))) => {
                        live.become_state(JobState::Running {}, None);
                        hold = Some(Hold::Shepherd(current));
                    }
                    Ok(Some(LauncherReply::Job(Told::Ending(cause)))) => {
                        live.become_state(JobState::Ending { cause }, None);
                        hold = Some(Hold::Shepherd(current));
                    }
                    Ok(Some(LauncherReply::Job(state))) => return self.end_as_told(&live, state).await,
                    // The shepherd's connection is gone: what the launcher's next child finds, counts.
                    Ok(_) | Err(_) => tracing::debug!(job = %id, "the shepherd's connection ended; asking"),
                },
                Some(command) = commands.recv() => {
                    if let Err(error) = current.command(command).await {
                        tracing::warn!(job = %id, %error, "a command did not reach the job");
                    }
                    hold = Some(Hold::Shepherd(current));
                }
                () = sleep_until(due), if record_start.is_some() => {
                    record_start = None;
                    let Job { starting, started, .. } = live.job();
                    self.commit(Change::JobStarted { id: id.clone(), starting, started }).await;
                    hold = Some(Hold::Shepherd(current));
                }
                () = told_to_stop(&mut stopping) => return,
            }
        }
    }

    pub(super) async fn end_as_told(&self, live: &Live, state: Told) {
        match state {
            Told::Ended(ExitRecord { end, cause, usage, captured, enforcement, ended_us, .. }) => {
                let state = JobState::Ended { end, cause, usage, captured, enforcement };
                self.end(live, state, Some(Timestamp(ended_us))).await;
            }
            Told::Refused(denial) => {
                let cause = format!("{}: {}", denial.code, denial.message);
                self.never_started(live, cause).await;
            }
            Told::Lost | Told::Running | Told::Ending(_) => {
                let cause = if !live.job().spec.has_shepherd() {
                    "Slurm did not say whether it took it, and does not have it"
                } else if self.of_another_boot(live) {
                    "the machine was started again while it ran"
                } else {
                    "its shepherd died without an exit record"
                };
                self.end(live, JobState::Lost { cause: cause.to_owned() }, None).await;
            }
        }
    }

    async fn never_started(&self, live: &Live, cause: String) {
        let state =
            if live.state().has_started() { JobState::Lost { cause } } else { JobState::Abandoned { cause } };
        // Whatever may still be on its way to the launcher finds the tombstone, which stays for a while.
        self.record_end(live, state, None).await;
        self.0.untidy.notify_one();
    }

    /// Whether a job was accepted before the machine was last started.
    pub(super) fn of_another_boot(&self, live: &Live) -> bool {
        live.job().spec.boot != self.0.store.boot()
    }

    /// Tells the end, records it, and lets the launcher forget the job.
    pub(super) async fn end(&self, live: &Live, state: JobState, at: Option<Timestamp>) {
        if let Some(id) = self.record_end(live, state, at).await
            && self.0.forget.try_send(id).is_err()
        {
            // The queue is full: it is found later.
            self.0.untidy.notify_one();
        }
    }

    /// Tells the end and records it. Answers the job if its folder can go.
    ///
    /// An exit is on root's record already, and told at once. Any other end is the ledger's word alone: it is told when
    /// the ledger has it, since a daemon that starts again without it would find another one.
    async fn record_end(&self, live: &Live, state: JobState, at: Option<Timestamp>) -> Option<JobId> {
        let ended = at.unwrap_or_else(Timestamp::now);
        let exited = matches!(state, JobState::Ended { .. });
        let tell = |state: JobState| {
            live.become_state(state, Some(ended));
            self.0.queue.ended(&live.job());
        };
        if exited {
            tell(state.clone());
        }
        let Job { id, starting, started, ending, .. } = live.job();
        let change = match state.clone() {
            JobState::Ended { end, cause, usage, captured, enforcement } => Change::JobEnded {
                id: id.clone(),
                end,
                cause,
                usage,
                captured,
                enforcement,
                ended,
                times: JobTimes { starting, started, ending },
            },
            JobState::Abandoned { cause } => Change::JobAbandoned { id: id.clone(), cause },
            JobState::Lost { cause } => Change::JobLost { id: id.clone(), cause },
            JobState::Queued {} | JobState::Starting {} | JobState::Running {} | JobState::Ending { .. } => {
                return None;
            }
        };
        if !self.commit(change).await {
            return None;
        }
        if !exited {
            tell(state);
        }
        self.live_jobs().remove(&id);
        let job = live.job();
        if let Some(daemon) = self.0.daemon.upgrade() {
            daemon.counters.ended(&job.state);
        }
        if job.spec.service {
            self.service_ended(job.clone());
        }
        if job.spec.streams.captures() {
            self.shelf().end(&job);
            self.0.crowded.notify_one();
            if !matches!(job.state, JobState::Abandoned { .. }) {
                return None;
            }
        }
        Some(id)
    }

    /// Commits a change that has happened already; false if the store takes nothing any more. Then the launcher keeps
    /// what it knows, and the next start records it.
    pub(super) async fn commit(&self, change: Change) -> bool {
        loop {
            match self.0.store.commit(change.clone(), Actor::daemon("job")).await {
                // A conflict: it was recorded before, and the first record stays.
                Ok(_) | Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => return true,
                Err(StoreError::Closed | StoreError::ReadOnly(_)) => return false,
                Err(error) => {
                    tracing::error!(%error, "the state of a job could not be recorded; trying again");
                    sleep(RETRY).await;
                }
            }
        }
    }
}

/// Waits until the daemon ends.
pub(super) async fn told_to_stop(stopping: &mut watch::Receiver<bool>) {
    // Where the sender is gone the daemon has ended too.
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Removes output when its time is over, or its room is needed.
async fn remove_old_output(tracker: Tracker) {
    let mut stopped = tracker.0.stopping.subscribe();
    loop {
        tokio::select! {
            () = sleep(LOOK) => {}
            () = tracker.0.crowded.notified() => sleep(GATHER).await,
            () = told_to_stop(&mut stopped) => return,
        }
        tracker.remove_old_output().await;
    }
}
