//! From the ledger to the launcher: what becomes of a job that was accepted.
//!
//! This is the one way to a start, for `Jobs.Run`, for jobs that waited while the daemon was away, and for services.

use std::sync::Arc;

use deputy_core::message::{JobCommand, JobState as Told};
use deputy_core::queue::GpuIndex;
use deputy_core::{Code, Denial, OsGid};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::executor;
use super::live::Live;
use super::queue::CANCELLED;
use super::stdio::Descriptors;
use super::track::Tracker;
use crate::launcher::{Channel, LauncherError};
use crate::store::{Actor, Change, Job, JobState};
use crate::{links, projects};

/// How long `Jobs.Run` waits for what became of a launch whose answer was lost.
const DOUBT: std::time::Duration = std::time::Duration::from_secs(10);

/// A connection to the launcher that was opened before it was needed, or why there is none.
pub type Opened = Result<Channel, LauncherError>;

/// A job that is in the ledger and not started: what its launch will need.
pub struct Waiting {
    /// The job. [`Live::begin`] takes it out of those that wait; only who was told `true` may start it.
    pub live: Arc<Live>,
    /// What its shepherd will be asked for.
    pub commands: mpsc::Receiver<JobCommand>,
    /// What only this process has.
    pub descriptors: Descriptors,
}

impl Waiting {
    /// Whether it was asked that the job ends, while it waited.
    pub(super) fn cancelled(&mut self) -> bool {
        while let Ok(command) = self.commands.try_recv() {
            if matches!(command, JobCommand::Cancel { .. }) {
                return true;
            }
        }
        false
    }
}

impl Tracker {
    /// Decides what becomes of a job that is in the ledger: it starts now, or it waits.
    ///
    /// The queue decides here. A job that starts now is given to [`Tracker::start`] with the GPUs that it was leased,
    /// and its refusal is the caller's; one that waits is kept by the queue, which gives it to [`Tracker::start`] later,
    /// and this answers at once. `opened` is a connection whose other end waits some seconds for the request: it is
    /// for a start at once, and is dropped otherwise. What is needed (CPUs, memory, GPUs) is in the job's
    /// specification.
    pub async fn admit(&self, waiting: Waiting, opened: Option<Opened>) -> Result<(), Denial> {
        if !waiting.live.job().spec.has_shepherd() {
            // It waits in the engine's own queue.
            return self.start(waiting, opened, Vec::new()).await;
        }
        match self.0.queue.turn(waiting) {
            Some((waiting, gpus)) => self.start_leased(waiting, opened, gpus).await,
            None => Ok(()),
        }
    }

    /// Has a job launched whose turn it is. Its GPUs are in the ledger before the launcher hears of it, so that nobody
    /// else is given them after a restart.
    pub(super) async fn start_leased(
        &self,
        waiting: Waiting,
        opened: Option<Opened>,
        gpus: Vec<GpuIndex>,
    ) -> Result<(), Denial> {
        if !gpus.is_empty() {
            let leased = Change::JobLeased { id: waiting.live.id(), gpus: gpus.clone() };
            if let Err(error) = self.0.store.commit(leased, Actor::daemon("queue")).await {
                let denial = Denial::from(error);
                if waiting.live.begin() {
                    let cause = format!("{}: {}", denial.code, denial.message);
                    self.end(&waiting.live, JobState::Abandoned { cause }, None).await;
                }
                return Err(denial);
            }
            waiting.live.lease(&gpus);
        }
        self.start(waiting, opened, gpus).await
    }

    /// Admits a job for which nobody waits. Of those for Slurm there may be many, so each waits for its turn.
    pub(super) fn admit_again(&self, mut waiting: Waiting) {
        let tracker = self.clone();
        tokio::spawn(async move {
            let job = waiting.live.job();
            let at_slurm = !job.spec.has_shepherd();
            let cluster = at_slurm.then(|| tracker.0.slurm.of(&tracker, &executor::cluster_of(&job)));
            let _turn = match &cluster {
                Some(cluster) => cluster.submitting.acquire().await.ok(),
                None => None,
            };
            if at_slurm && waiting.cancelled() {
                let state = JobState::Abandoned { cause: CANCELLED.to_owned() };
                return tracker.end(&waiting.live, state, None).await;
            }
            // A refusal is in the ledger: nobody else hears it.
            if let Err(denial) = tracker.admit(waiting, None).await {
                tracing::info!(code = %denial.code, "a job that waited was refused");
            }
        });
    }

    /// Has a job launched. Answers when its program runs, or has ended, or was refused; of a job that waits no more, at
    /// once.
    pub async fn start(
        &self,
        waiting: Waiting,
        opened: Option<Opened>,
        gpus: Vec<GpuIndex>,
    ) -> Result<(), Denial> {
        let Waiting { live, commands, descriptors } = waiting;
        if !live.begin() {
            return Ok(());
        }
        let job = live.job();
        let id = job.id.clone();
        let asked = match self.make_room(&job) {
            Ok(()) => executor::begin(self, opened, &job, &descriptors, gpus).await,
            Err(denial) => Err(LauncherError::Denied(denial)),
        };
        // The job has its own by now, and pipes have to end with it.
        drop(descriptors);
        let (hold, first) = match asked {
            Ok(begun) => begun,
            // An earlier daemon asked before it ended, and was heard.
            Err(LauncherError::Denied(denial)) if denial.code == Code::JobExists => {
                return self.in_doubt(live, commands).await;
            }
            Err(error) if error.had_no_effect() => {
                let denial = Denial::from(error);
                let cause = format!("{}: {}", denial.code, denial.message);
                self.end(&live, JobState::Abandoned { cause }, None).await;
                self.learn(&job, &denial).await;
                return Err(denial);
            }
            Err(error) => {
                tracing::warn!(job = %id, %error, "what became of a launch is not known; asking");
                return self.in_doubt(live, commands).await;
            }
        };
        if let Some(daemon) = self.0.daemon.upgrade() {
            daemon.counters.launched();
        }
        let tracker = self.clone();
        let over = match first {
            None => None,
            Some(Told::Running) => {
                live.become_state(JobState::Running {}, None);
                None
            }
            Some(Told::Ending(cause)) => {
                live.become_state(JobState::Ending { cause }, None);
                None
            }
            Some(state) => Some(state),
        };
        tokio::spawn(async move {
            match over {
                None => tracker.follow(live, Some(hold), commands).await,
                Some(state) => tracker.end_as_told(&live, state).await,
            }
        });
        Ok(())
    }

    /// The gid of the group of a job's project, if it has one and the account works there now.
    pub(super) fn project_group(&self, job: &Job) -> Option<OsGid> {
        let daemon = self.0.daemon.upgrade()?;
        let project = daemon.store.project(&job.application, job.project.as_ref()?).ok()??;
        let registered = daemon.directory.snapshot().get(&job.application)?.ok()?;
        projects::gid_for(&daemon, &registered, &project, &job.account)
    }

    /// What a refusal says about the session, and about the link if the job runs as the link's OS account.
    async fn learn(&self, job: &Job, denial: &Denial) {
        let Some(daemon) = self.0.daemon.upgrade() else { return };
        if let (Code::SessionRequired, Some(id)) = (denial.code, &job.session) {
            let change = Change::SessionClosed { id: id.clone(), reason: "consent taken back".to_owned() };
            // It may be closed already, and is of no use anyway.
            let _ = daemon.store.commit(change, Actor::daemon("refused by the launcher")).await;
        }
        if let (Code::OsAccountNotInGroup, Some(key)) = (denial.code, &job.project) {
            projects::bring_into_step(&daemon, &job.application, key);
        }
        if let Ok(Some(link)) = daemon.store.link(&job.application, &job.account)
            && link.os == job.os
        {
            links::learn(&daemon, &link, denial).await;
        }
    }

    /// The launch may have worked. Its caller hears what is found out soon; after that the job's state tells.
    async fn in_doubt(&self, live: Arc<Live>, commands: mpsc::Receiver<JobCommand>) -> Result<(), Denial> {
        let (tracker, followed) = (self.clone(), Arc::clone(&live));
        let mut changes = live.changes();
        tokio::spawn(async move { tracker.follow(followed, None, commands).await });
        let deadline = Instant::now() + DOUBT;
        loop {
            match live.state() {
                JobState::Queued {} | JobState::Starting {} => {}
                JobState::Abandoned { cause } => {
                    return Err(Denial::new(Code::LauncherUnavailable, "launcher", cause)
                        .remedy("the job did not start, and will not; run it again"));
                }
                _ => return Ok(()),
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = sleep_until(deadline) => return Ok(()),
            }
        }
    }
}
