//! The jobs that are not ended: each has a connection to its shepherd, watchers, and a task that listens.
//!
//! The shepherd's exit record is on disk before it tells the end. So watchers are told at once, the ledger takes the
//! end in its next group, and only then may the launcher forget the job.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deputy_core::job::ExitRecord;
use deputy_core::message::{
    JobCommand, JobState as Told, LauncherReply, LauncherRequest, MAX_FORGET, RunRequest,
};
use deputy_core::{Code, Denial, JobId};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::settle::Settled;
use super::shown::Shown;
use super::stdio::Stdio;
use super::watch::Watchers;
use crate::launcher::{ANSWER, Channel, LAUNCH, Launcher, LauncherError};
use crate::limits::Place;
use crate::store::{Actor, Change, Job, JobState, PageRequest, Store, StoreError, Timestamp};

/// How long after its start a job's start is recorded. A job that ends sooner needs one record less: its end tells
/// when it began.
const START_RECORDED_AFTER: Duration = Duration::from_millis(100);

/// How long ends are gathered before the launcher is told to forget them.
const GATHER: Duration = Duration::from_millis(200);

/// How long a full disk is given before the next try.
const RETRY: Duration = Duration::from_secs(5);

/// How long `Jobs.Run` waits for what became of a launch whose answer was lost.
const DOUBT: Duration = Duration::from_secs(10);

/// How many jobs are asked about at once after a restart. The launcher's children are limited too.
const SETTLING: usize = 16;

/// The most commands that wait for a job's shepherd.
const COMMANDS: usize = 16;

/// The jobs that are not ended. Clones share them.
#[derive(Clone)]
pub struct Tracker(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub store: Store,
    pub launcher: Launcher,
    live: Mutex<HashMap<JobId, Arc<Live>>>,
    forget: mpsc::Sender<JobId>,
    pub settling: Semaphore,
    pub stopping: watch::Sender<bool>,
}

/// One of them.
pub struct Live {
    commands: mpsc::Sender<JobCommand>,
    now: Mutex<Now>,
}

struct Now {
    job: Job,
    watchers: Watchers,
}

impl Live {
    /// The job as it is now.
    pub fn job(&self) -> Job {
        self.lock().job.clone()
    }

    /// A pipe with the job's states, from the present one on.
    pub fn watch(&self, place: Place) -> Result<OwnedFd, Denial> {
        let mut now = self.lock();
        let line = Shown::from(&now.job).line();
        let ended = !now.job.state.is_open();
        now.watchers.add(&line, ended, Some(place))
    }

    /// Asks the job's shepherd for something.
    pub fn command(&self, command: JobCommand) -> Result<(), Denial> {
        self.commands.try_send(command).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                Denial::new(Code::Busy, "job", "the job has more commands waiting than it takes")
                    .remedy("try again in a moment")
            }
            mpsc::error::TrySendError::Closed(_) => ended(),
        })
    }

    /// Moves to a state and tells the watchers.
    fn become_state(&self, state: JobState, at: Option<Timestamp>) {
        let mut now = self.lock();
        if !now.job.state.is_open() || now.job.state == state {
            return;
        }
        if state.is_open() {
            now.job.started = at;
        } else {
            now.job.ended = at;
        }
        now.job.state = state;
        let line = Shown::from(&now.job).line();
        let last = !now.job.state.is_open();
        now.watchers.tell(&line, last);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The job has ended.
pub fn ended() -> Denial {
    Denial::new(Code::Conflict, "job", "the job has ended").remedy("look at its state")
}

impl Tracker {
    /// Starts with no jobs.
    pub fn start(store: Store, launcher: Launcher) -> Self {
        let (forget, receiver) = mpsc::channel(4096);
        let (stopping, stopped) = watch::channel(false);
        tokio::spawn(forget_in_groups(launcher.clone(), receiver, stopped));
        Self(Arc::new(Inner {
            store,
            launcher,
            live: Mutex::default(),
            forget,
            settling: Semaphore::new(SETTLING),
            stopping,
        }))
    }

    /// Takes up the jobs that were open when the daemon last ended.
    pub fn take_up(&self) -> Result<usize, StoreError> {
        let mut request = PageRequest::first(1000);
        let mut count = 0;
        loop {
            let page = self.0.store.open_jobs(&request)?;
            for job in page.items {
                count += 1;
                let (live, commands) = self.insert(job);
                let tracker = self.clone();
                tokio::spawn(async move { tracker.follow(live, None, commands).await });
            }
            match page.next {
                Some(next) => request.after = Some(next),
                None => return Ok(count),
            }
        }
    }

    /// A job that is not ended.
    pub fn get(&self, id: &JobId) -> Option<Arc<Live>> {
        self.live_jobs().get(id).cloned()
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

    fn insert(&self, job: Job) -> (Arc<Live>, mpsc::Receiver<JobCommand>) {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let id = job.id.clone();
        let live = Arc::new(Live { commands, now: Mutex::new(Now { job, watchers: Watchers::default() }) });
        self.live_jobs().insert(id, Arc::clone(&live));
        (live, receiver)
    }

    /// A connection to the launcher for a job that is on its way into the ledger.
    pub async fn open(&self) -> Result<Channel, LauncherError> {
        self.0.launcher.open().await
    }

    /// Has a job launched that is in the ledger. Answers when its program runs, or has ended, or was refused.
    pub async fn launch(
        &self,
        job: Job,
        opened: Result<Channel, LauncherError>,
        request: RunRequest,
        stdio: &Stdio,
        null: &OwnedFd,
    ) -> Result<(), Denial> {
        let id = job.id.clone();
        let (live, commands) = self.insert(job);
        let (channel, first) = match self.ask_to_run(opened, request, stdio, null).await {
            Ok((channel, state)) => (channel, state),
            Err(error) if error.had_no_effect() => {
                let denial = Denial::from(error);
                let cause = format!("{}: {}", denial.code, denial.message);
                self.end(&live, JobState::Abandoned { cause }, None).await;
                return Err(denial);
            }
            Err(error) => {
                tracing::warn!(job = %id, %error, "what became of a launch is not known; asking");
                return self.in_doubt(live, commands).await;
            }
        };
        let tracker = self.clone();
        if first == Told::Running {
            live.become_state(JobState::Running {}, Some(Timestamp::now()));
        }
        let first = (first != Told::Running).then_some(first);
        tokio::spawn(async move {
            match first {
                None => tracker.follow(live, Some(channel), commands).await,
                Some(state) => tracker.end_as_told(&live, state).await,
            }
        });
        Ok(())
    }

    async fn ask_to_run(
        &self,
        opened: Result<Channel, LauncherError>,
        request: RunRequest,
        stdio: &Stdio,
        null: &OwnedFd,
    ) -> Result<(Channel, Told), LauncherError> {
        let request = LauncherRequest::Run(request);
        let descriptors = stdio.descriptors(null);
        let channel = match opened {
            Ok(channel) if channel.request(&request, &descriptors).await.is_ok() => channel,
            // The disk took so long that the child has given up, or there was none: a job's id can be used once only,
            // so asking again does no harm.
            _ => self.0.launcher.request(&request, &descriptors).await?,
        };
        match timeout(LAUNCH, channel.reply()).await {
            Err(_) => Err(LauncherError::TimedOut),
            Ok(Ok(Some(LauncherReply::Job(state)))) => Ok((channel, state)),
            Ok(Ok(Some(_))) => Err(LauncherError::Foreign),
            Ok(Ok(None)) => Err(LauncherError::Ended),
            Ok(Err(error)) => Err(error),
        }
    }

    /// The launch may have worked. Its caller hears what is found out soon; after that the job's state tells.
    async fn in_doubt(&self, live: Arc<Live>, commands: mpsc::Receiver<JobCommand>) -> Result<(), Denial> {
        let (tracker, followed) = (self.clone(), Arc::clone(&live));
        tokio::spawn(async move { tracker.follow(followed, None, commands).await });
        let deadline = Instant::now() + DOUBT;
        while Instant::now() < deadline {
            match live.job().state {
                JobState::Queued {} => sleep(Duration::from_millis(20)).await,
                JobState::Abandoned { cause } => {
                    return Err(Denial::new(Code::LauncherUnavailable, "launcher", cause)
                        .remedy("the job did not start, and will not; run it again"));
                }
                _ => break,
            }
        }
        Ok(())
    }

    /// Listens to a job's shepherd until the job has ended.
    async fn follow(
        &self,
        live: Arc<Live>,
        mut channel: Option<Channel>,
        mut commands: mpsc::Receiver<JobCommand>,
    ) {
        let id = live.job().id;
        let recorded = live.job().state == (JobState::Running {}) && channel.is_none();
        let mut record_start = (!recorded).then(|| Instant::now() + START_RECORDED_AFTER);
        let mut stopping = self.0.stopping.subscribe();
        loop {
            let current = if let Some(channel) = channel.take() {
                channel
            } else {
                let settled = tokio::select! {
                    settled = self.settle(&live) => settled,
                    () = told_to_stop(&mut stopping) => return,
                };
                match settled {
                    Settled::Running(channel) => {
                        live.become_state(JobState::Running {}, Some(Timestamp::now()));
                        channel
                    }
                    Settled::Told(state) => return self.end_as_told(&live, state).await,
                    Settled::NeverStarted { cause } => return self.never_started(&live, cause).await,
                }
            };
            let due = record_start.unwrap_or_else(Instant::now);
            tokio::select! {
                reply = current.reply() => match reply {
                    Ok(Some(LauncherReply::Job(Told::Running))) => {
                        live.become_state(JobState::Running {}, Some(Timestamp::now()));
                        channel = Some(current);
                    }
                    Ok(Some(LauncherReply::Job(state))) => return self.end_as_told(&live, state).await,
                    // The shepherd's connection is gone: what the launcher's next child finds, counts.
                    Ok(_) | Err(_) => tracing::debug!(job = %id, "the shepherd's connection ended; asking"),
                },
                Some(command) = commands.recv() => {
                    if let Err(error) = current.send(&command).await {
                        tracing::warn!(job = %id, %error, "a command did not reach the job");
                    }
                    channel = Some(current);
                }
                () = sleep_until(due), if record_start.is_some() => {
                    record_start = None;
                    self.commit(Change::JobStarted { id: id.clone() }).await;
                    channel = Some(current);
                }
                () = told_to_stop(&mut stopping) => return,
            }
        }
    }

    async fn end_as_told(&self, live: &Live, state: Told) {
        match state {
            Told::Ended(ExitRecord { end, usage, ended_us, .. }) => {
                self.end(live, JobState::Ended { end, usage }, Some(Timestamp(ended_us))).await;
            }
            Told::Lost | Told::Running => {
                let cause = "its shepherd or the machine died without an exit record".to_owned();
                self.end(live, JobState::Lost { cause }, None).await;
            }
        }
    }

    async fn never_started(&self, live: &Live, cause: String) {
        let state = match live.job().state {
            JobState::Running {} => JobState::Lost { cause },
            _ => JobState::Abandoned { cause },
        };
        self.end(live, state, None).await;
    }

    /// Tells the end, records it, and lets the launcher forget the job.
    async fn end(&self, live: &Live, state: JobState, at: Option<Timestamp>) {
        let ended = at.unwrap_or_else(Timestamp::now);
        live.become_state(state.clone(), Some(ended));
        let id = live.job().id;
        let change = match state {
            JobState::Ended { end, usage } => Change::JobEnded { id: id.clone(), end, usage, ended },
            JobState::Abandoned { cause } => Change::JobAbandoned { id: id.clone(), cause },
            JobState::Lost { cause } => Change::JobLost { id: id.clone(), cause },
            JobState::Queued {} | JobState::Running {} => return,
        };
        if !self.commit(change).await {
            return;
        }
        self.live_jobs().remove(&id);
        // Where the queue is full the launcher keeps the folder until the next start asks again.
        let _ = self.0.forget.try_send(id);
    }

    /// Commits a change that has happened already; false if the store takes nothing any more. Then the launcher keeps
    /// what it knows, and the next start records it.
    async fn commit(&self, change: Change) -> bool {
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
async fn told_to_stop(stopping: &mut watch::Receiver<bool>) {
    // Where the sender is gone the daemon has ended too.
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Tells the launcher which jobs' ends are in the ledger, many at a time.
async fn forget_in_groups(
    launcher: Launcher,
    mut ended: mpsc::Receiver<JobId>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut jobs = Vec::new();
    while ended.recv_many(&mut jobs, MAX_FORGET).await > 0 {
        tokio::select! {
            () = sleep(GATHER) => {}
            () = told_to_stop(&mut stopped) => {}
        }
        while jobs.len() < MAX_FORGET
            && let Ok(job) = ended.try_recv()
        {
            jobs.push(job);
        }
        let request = LauncherRequest::Forget { jobs: std::mem::take(&mut jobs) };
        if let Err(error) = launcher.ask(&request, &[], ANSWER).await {
            // Nothing is lost: the folders stay, and cost a little space.
            tracing::warn!(%error, "the launcher could not be told which jobs are recorded");
        }
    }
}
