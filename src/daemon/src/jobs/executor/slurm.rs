//! Jobs at Slurm: submitted by a child of the launcher's, and followed by one question a period for all of a cluster.
//!
//! Slurm's answers are the truth. That it does not answer is no answer: a job stays where it was, however long that
//! takes. Only a job that Slurm, asked, no longer knows for some time is lost.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deputy_core::job::{EndCause, Enforcement, JobEnd};
use deputy_core::kind::Kind;
use deputy_core::message::{JobCommand, LauncherReply, LauncherRequest, MAX_ASKED, SubmitRequest};
use deputy_core::settings::{Ends, SlurmSettings};
use deputy_core::slurm::policy::{check_bounds, unknown_cluster};
use deputy_core::slurm::state::{CANCELLED, TERM};
use deputy_core::slurm::{ClusterName, Ended, SlurmCommand, SlurmJobId, SlurmRequest, SlurmState, Standing};
use deputy_core::stream::Captured;
use deputy_core::{Code, Denial, JobId};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::{Instant, sleep, timeout};

use super::{Begun, Hold, local};
use crate::daemon::Daemon;
use crate::jobs::admit::Opened;
use crate::jobs::dependencies;
use crate::jobs::live::{Live, ended};
use crate::jobs::stdio::Descriptors;
use crate::jobs::track::{Tracker, told_to_stop};
use crate::launcher::LauncherError;
use crate::store::{Change, Job, JobSpec, JobState, Timestamp};

/// How long the caller of `Jobs.Run` waits for Slurm's word; what becomes of the job is then told by its state.
const SUBMIT: Duration = Duration::from_secs(12);

/// How long the launcher's child may take over Slurm's programs.
const ANSWER: Duration = Duration::from_secs(120);

/// The shortest time between two questions, after something was submitted or ended.
const SOON: Duration = Duration::from_secs(1);

/// How many jobs of a cluster for which nobody waits are submitted at once.
const SUBMITTING: usize = 4;

/// How many jobs of a cluster are asked about at once after a restart.
const SETTLING: usize = 16;

/// How often a submission is tried again for a job that ends while another one is submitted to wait for it.
const TRIES: usize = 5;

/// What is followed at which cluster.
#[derive(Default)]
pub struct Clusters(Mutex<BTreeMap<ClusterName, Arc<Followed>>>);

impl Clusters {
    /// One cluster. At the first use somebody begins to ask it: each is asked by itself, so that one that does not answer
    /// keeps no other waiting.
    pub fn of(&self, tracker: &Tracker, name: &ClusterName) -> Arc<Followed> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(name) {
            return Arc::clone(known);
        }
        let followed = Arc::new(Followed::default());
        all.insert(name.clone(), Arc::clone(&followed));
        tokio::spawn(poll(tracker.clone(), name.clone(), Arc::clone(&followed)));
        followed
    }
}

/// Where a job stands, and when that was asked.
type Heard = (Standing, Instant);

/// Who waits for news of which job of one cluster.
pub struct Followed {
    jobs: Mutex<HashMap<JobId, mpsc::UnboundedSender<Heard>>>,
    /// Told when news can be expected.
    news: Notify,
    /// The turns of those for whom nobody waits to be submitted.
    pub submitting: Semaphore,
    /// The turns of those about which the launcher is asked what became of them.
    pub settling: Semaphore,
}

impl Default for Followed {
    fn default() -> Self {
        Self {
            jobs: Mutex::default(),
            news: Notify::new(),
            submitting: Semaphore::new(SUBMITTING),
            settling: Semaphore::new(SETTLING),
        }
    }
}

impl Followed {
    fn jobs(&self) -> MutexGuard<'_, HashMap<JobId, mpsc::UnboundedSender<Heard>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn follow(self: &Arc<Self>, job: &JobId) -> News {
        let (sender, states) = mpsc::unbounded_channel();
        self.jobs().insert(job.clone(), sender);
        self.news.notify_one();
        News { states, job: job.clone(), followed: Arc::clone(self) }
    }
}

/// The news of one job, for as long as this is held.
struct News {
    states: mpsc::UnboundedReceiver<Heard>,
    job: JobId,
    followed: Arc<Followed>,
}

impl Drop for News {
    fn drop(&mut self) {
        self.followed.jobs().remove(&self.job);
    }
}

/// The cluster of a job. Records of the time when there was one name none.
pub fn cluster_of(job: &Job) -> ClusterName {
    job.spec.slurm.cluster.clone().unwrap_or_default()
}

/// What is followed at a job's cluster.
fn at(tracker: &Tracker, job: &Job) -> Arc<Followed> {
    tracker.0.slurm.of(tracker, &cluster_of(job))
}

/// What a job asks of Slurm.
pub fn slurm_request(spec: &JobSpec) -> SlurmRequest {
    SlurmRequest { gpus: spec.gpus, ..spec.slurm.clone() }
}

/// Whether Slurm can be asked for a job of this kind at all, by everything that can be decided here; at which cluster.
pub fn check(daemon: &Daemon, kind: &Kind, rule: &str, spec: &JobSpec) -> Result<ClusterName, Denial> {
    let policy = kind.slurm.as_ref().ok_or_else(|| Denial::internal("no table for Slurm"))?;
    let snapshot = daemon.directory.snapshot();
    let Some(slurm) = &snapshot.settings.executor.slurm else {
        return Err(Denial::new(
            Code::SlurmUnavailable,
            "deputy.toml: executor.slurm",
            "this machine is not set up to submit jobs to Slurm",
        )
        .remedy("have root add the table [executor.slurm] to deputy.toml"));
    };
    if spec.slurm.interactive.is_some() {
        // Its streams are a shepherd's.
        if spec.script {
            return Err(Denial::invalid(
                "an interactive job at Slurm names its program: none comes by descriptor",
            )
            .remedy("name a program that is on the nodes, or submit the script without interactive"));
        }
    } else if spec.streams.descriptors() > 0 || spec.streams.captures() {
        return Err(Denial::invalid(
            "the streams of a job at Slurm are files: none comes by descriptor, and nothing is captured",
        )
        .remedy("with deputyctl run: --executor slurm, and --stdout FILE"));
    }
    check_bounds(&spec.bounds)?;
    let asked = policy.check(&slurm_request(spec), rule)?;
    let cluster = asked.cluster.clone().unwrap_or_default();
    let Some(settings) = slurm.cluster(&cluster) else {
        return Err(unknown_cluster(&cluster));
    };
    policy.check_account(&asked, settings.ends, rule)?;
    Ok(cluster)
}

/// Has a job submitted; it is Slurm's from then on.
pub(super) async fn begin(
    tracker: &Tracker,
    opened: Option<Opened>,
    job: &Job,
    descriptors: &Descriptors,
) -> Begun {
    let mut begun = submit(tracker, opened, job, descriptors).await;
    for _ in 0..TRIES {
        match begun {
            // What it waits for has ended in this moment: nothing was submitted, and the ledger will say how it ended.
            Err(LauncherError::Denied(denial))
                if denial.code == Code::Busy && denial.rule == "dependency" =>
            {
                sleep(SOON).await;
            }
            begun => return begun,
        }
        begun = submit(tracker, None, job, descriptors).await;
    }
    begun
}

async fn submit(tracker: &Tracker, opened: Option<Opened>, job: &Job, descriptors: &Descriptors) -> Begun {
    let cluster = cluster_of(job);
    let waits_for = &job.spec.slurm.dependencies;
    let left = dependencies::left(tracker, &job.application, &job.account, &cluster, waits_for);
    let dependencies = left.map_err(LauncherError::Denied)?;
    let slurm = SlurmRequest { cluster: Some(cluster), dependencies, ..slurm_request(&job.spec) };
    let run = local::request(job, tracker.project_group(job), job.spec.streams.clone(), Vec::new());
    let request = LauncherRequest::Submit(SubmitRequest { run, slurm });
    // Its streams are files, so that there are no others.
    let passed: Vec<_> = descriptors.script.iter().chain(&descriptors.environment).map(AsFd::as_fd).collect();
    let channel = match opened {
        Some(Ok(channel)) if channel.request(&request, &passed).await.is_ok() => channel,
        _ => tracker.0.launcher.request(&request, &passed).await?,
    };
    match timeout(SUBMIT, channel.reply()).await {
        Err(_) => Err(LauncherError::TimedOut),
        Ok(Ok(Some(LauncherReply::Submitted { slurm }))) => Ok((Hold::Slurm(slurm), None)),
        Ok(Ok(Some(_))) => Err(LauncherError::Foreign),
        Ok(Ok(None)) => Err(LauncherError::Ended),
        Ok(Err(error)) => Err(error),
    }
}

/// Follows a job that Slurm has until it has ended.
pub(crate) async fn follow(
    tracker: &Tracker,
    live: Arc<Live>,
    number: SlurmJobId,
    mut commands: mpsc::Receiver<JobCommand>,
) {
    let id = live.id();
    if live.submitted(number) {
        tracker.commit(Change::JobSubmitted { id: id.clone(), slurm_job: number }).await;
    }
    let mut news = at(tracker, &live.job()).follow(&id);
    let mut stopping = tracker.stopping();
    let mut missed = None;
    loop {
        tokio::select! {
            Some((Standing { state, restarts }, asked)) = news.states.recv() => {
                // Nobody has it run again meanwhile; and what was asked before somebody did is of an earlier run.
                let requeued = live.requeued().await;
                if requeued.is_some_and(|requeued| asked <= requeued) {
                    continue;
                }
                if live.runs_again(restarts) {
                    // The ledger first: who is told has to find it there.
                    tracker.commit(Change::JobRequeued { id: id.clone(), requeues: restarts }).await;
                    live.goes_back(restarts);
                }
                let absent = matches!(state, SlurmState::Gone | SlurmState::Unsettled);
                let since = *missed.get_or_insert_with(Instant::now);
                if !absent {
                    missed = None;
                }
                if heard(tracker, &live, state, since).await {
                    return;
                }
                // A cancel is done when the job has ended, and said again until then.
                if !absent && matches!(live.state(), JobState::Ending { .. }) {
                    say_again(tracker, &id, SlurmCommand::End).await;
                }
            }
            // Said while it was being submitted: whoever said it was told that it will be done.
            Some(wanted) = commands.recv() => {
                let word = word(wanted);
                if word == SlurmCommand::End {
                    ends(tracker, &live);
                }
                say_again(tracker, &id, word).await;
            },
            () = told_to_stop(&mut stopping) => return,
        }
    }
}

/// Has Slurm end a job that it has, or signal it. What Slurm says against that is the caller's.
pub(super) async fn command(tracker: &Tracker, live: &Live, wanted: JobCommand) -> Result<(), Denial> {
    let word = word(wanted);
    say(tracker, &live.id(), word).await?;
    if word == SlurmCommand::End {
        ends(tracker, live);
    }
    Ok(())
}

fn word(wanted: JobCommand) -> SlurmCommand {
    match wanted {
        JobCommand::Signal { signal } => SlurmCommand::Signal(signal),
        JobCommand::Cancel { .. } | JobCommand::EndForConsent => SlurmCommand::End,
    }
}

/// Has Slurm let a job wait, or go on.
pub async fn hold(tracker: &Tracker, live: &Live, held: bool) -> Result<(), Denial> {
    let wanted = if held { SlurmCommand::Hold } else { SlurmCommand::Release };
    say(tracker, &live.id(), wanted).await?;
    at(tracker, &live.job()).news.notify_one();
    Ok(())
}

/// Has Slurm end the run of a job that is on, and run it again. Where it goes from here, Slurm says.
pub async fn requeue(tracker: &Tracker, live: &Live) -> Result<(), Denial> {
    let mut requeued = live.requeued().await;
    match live.state() {
        JobState::Running {} => {}
        state if !state.is_open() => return Err(ended()),
        _ => {
            return Err(Denial::new(Code::Conflict, "job", "the job does not run").remedy(
                "look at its state: one that waits runs by itself, and one that is being ended has to end",
            ));
        }
    }
    let said = say(tracker, &live.id(), SlurmCommand::Requeue).await;
    // Where the answer was lost, too: Slurm may have taken it.
    *requeued = Some(Instant::now());
    at(tracker, &live.job()).news.notify_one();
    Ok(said?)
}

/// Takes note that a job is to end: from here on that is said each period.
fn ends(tracker: &Tracker, live: &Live) {
    live.become_state(JobState::Ending { cause: EndCause::Cancelled }, None);
    at(tracker, &live.job()).news.notify_one();
}

async fn say(tracker: &Tracker, job: &JobId, command: SlurmCommand) -> Result<(), LauncherError> {
    let request = LauncherRequest::CommandAtSlurm { job: job.clone(), command };
    tracker.0.launcher.ask(&request, &[], ANSWER).await.map(drop)
}

async fn say_again(tracker: &Tracker, job: &JobId, command: SlurmCommand) {
    if let Err(error) = say(tracker, job, command).await {
        tracing::warn!(job = %job, %error, "a command did not reach Slurm");
    }
}

/// Takes in where a job stands; true if that is the end.
async fn heard(tracker: &Tracker, live: &Live, state: SlurmState, absent_since: Instant) -> bool {
    let (state, at) = match state {
        SlurmState::Waiting { reason } => {
            live.waits_for(reason);
            return false;
        }
        SlurmState::Completing => return false,
        SlurmState::Running { host } => {
            live.runs_on(host);
            if live.become_state(JobState::Running {}, None) {
                let Job { id, starting, started, .. } = live.job();
                tracker.commit(Change::JobStarted { id, starting, started }).await;
            }
            return false;
        }
        SlurmState::Ended(Ended { end, cause, usage, ended_us }) => {
            let (captured, enforcement) = (Captured::default(), Enforcement::default());
            (JobState::Ended { end, cause, usage, captured, enforcement }, Some(Timestamp(ended_us)))
        }
        SlurmState::NeverRan { state } if live.never_ran() => {
            (JobState::Abandoned { cause: format!("Slurm: {state} before it ran") }, None)
        }
        // Slurm said that it runs when it had nodes, and it was cancelled before its script was there; or it was where it
        // waited for a further run.
        SlurmState::NeverRan { state } if state == CANCELLED => {
            let end = JobEnd::Signaled { signal: TERM, core: false };
            let (usage, captured, enforcement) = Default::default();
            (JobState::Ended { end, cause: Some(EndCause::Cancelled), usage, captured, enforcement }, None)
        }
        SlurmState::NeverRan { state } | SlurmState::Failed { state } => {
            (JobState::Lost { cause: format!("Slurm: {state}, without an exit") }, None)
        }
        SlurmState::Gone | SlurmState::Unsettled => {
            let settings = settings(tracker, &cluster_of(&live.job()));
            let patience = settings.as_ref().map_or(u64::MAX, |settings| settings.lost_after_seconds);
            if absent_since.elapsed() < Duration::from_secs(patience) {
                return false;
            }
            let cause = match state {
                _ if settings.is_some_and(|settings| settings.ends == Ends::Queue) => {
                    "Slurm's queue no longer has it, and the cluster has no accounting"
                }
                SlurmState::Gone => "Slurm has it neither in its queue nor in its accounting",
                _ => "Slurm has it no longer in its queue, and its accounting has no end of it",
            };
            (JobState::Lost { cause: cause.to_owned() }, None)
        }
    };
    tracker.end(live, state, at).await;
    true
}

fn settings(tracker: &Tracker, cluster: &ClusterName) -> Option<SlurmSettings> {
    let snapshot = tracker.0.daemon.upgrade()?.directory.snapshot();
    snapshot.settings.executor.slurm.as_ref()?.cluster(cluster).cloned()
}

/// Asks where all followed jobs of a cluster stand, once a period, and sooner after something was submitted or ended. It
/// sleeps while there are none.
async fn poll(tracker: Tracker, cluster: ClusterName, followed: Arc<Followed>) {
    let mut stopping = tracker.stopping();
    let mut pause = SOON;
    loop {
        let period = settings(&tracker, &cluster)
            .map_or(Duration::from_secs(10), |settings| Duration::from_secs(settings.period_seconds.max(1)));
        let none = followed.jobs().is_empty();
        tokio::select! {
            () = followed.news.notified() => {
                pause = SOON.min(period);
                sleep(pause).await;
            }
            () = sleep(pause), if !none => pause = (pause * 2).min(period),
            () = told_to_stop(&mut stopping) => return,
        }
        ask(&tracker, &cluster, &followed).await;
    }
}

async fn ask(tracker: &Tracker, cluster: &ClusterName, followed: &Followed) {
    let jobs: Vec<JobId> = followed.jobs().keys().cloned().collect();
    for jobs in jobs.chunks(MAX_ASKED) {
        let asked = Instant::now();
        let request = LauncherRequest::AskSlurm { jobs: jobs.to_vec() };
        match tracker.0.launcher.ask(&request, &[], ANSWER).await {
            Ok(LauncherReply::AtSlurm(states)) => {
                let listeners = followed.jobs();
                for (job, standing) in states {
                    if let Some(listener) = listeners.get(&job) {
                        // Who listens no more has heard the end.
                        let _ = listener.send((standing, asked));
                    }
                }
            }
            Ok(_) => {
                tracing::warn!("the launcher gave an answer that does not belong to a question about Slurm");
            }
            Err(error) => {
                tracing::warn!(%cluster, %error, "Slurm does not say where its jobs stand; asking again");
            }
        }
    }
}
