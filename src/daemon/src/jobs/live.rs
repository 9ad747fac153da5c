//! One job that is not ended, in the daemon's memory.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use deputy_core::message::JobCommand;
use deputy_core::queue::GpuIndex;
use deputy_core::slurm::SlurmJobId;
use deputy_core::{Code, Denial, JobId};
use tokio::sync::{Mutex as Turns, MutexGuard as Turn, mpsc, watch};
use tokio::time::Instant;

use super::shown::Shown;
use super::signals::Subscribers;
use super::watch::Watchers;
use crate::limits::Place;
use crate::store::{Job, JobState, Timestamp};

/// The most commands that wait for a job's shepherd.
const COMMANDS: usize = 16;

/// The job.
pub struct Live {
    commands: mpsc::Sender<JobCommand>,
    now: Mutex<Now>,
    changed: watch::Sender<()>,
    subscribers: OnceLock<Arc<Subscribers>>,
    requeued: Turns<Option<Instant>>,
}

struct Now {
    job: Job,
    /// Why its shepherd, which lives, takes no commands of this release.
    foreign: Option<Denial>,
    watchers: Watchers,
}

impl Live {
    /// The job, and what its shepherd will be asked for.
    pub fn new(job: Job) -> (Self, mpsc::Receiver<JobCommand>) {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let now = Mutex::new(Now { job, foreign: None, watchers: Watchers::default() });
        let live = Self {
            commands,
            now,
            changed: watch::Sender::new(()),
            subscribers: OnceLock::new(),
            requeued: Turns::default(),
        };
        (live, receiver)
    }

    /// Has the states told to these too, from the next one on.
    pub fn tell_also(&self, subscribers: &Arc<Subscribers>) {
        let _ = self.subscribers.set(Arc::clone(subscribers));
    }

    /// The job as it is now.
    pub fn job(&self) -> Job {
        self.lock().job.clone()
    }

    /// Its id.
    pub fn id(&self) -> JobId {
        self.lock().job.id.clone()
    }

    /// Whether nobody has begun to start it, or given it up.
    pub fn waits(&self) -> bool {
        self.lock().job.state == (JobState::Queued {})
    }

    /// The GPUs that it was leased.
    pub fn lease(&self, gpus: &[GpuIndex]) {
        self.lock().job.gpus = gpus.to_vec();
    }

    /// Takes note of the number that Slurm gave it; false if it is known already.
    pub fn submitted(&self, number: SlurmJobId) -> bool {
        self.lock().job.slurm_job.replace(number).is_none()
    }

    /// Takes note of what it waits for at Slurm.
    pub fn waits_for(&self, reason: String) {
        self.lock().job.reason = Some(reason).filter(|reason| reason != "None");
    }

    /// Takes note of where it runs at Slurm.
    pub fn runs_on(&self, host: String) {
        self.lock().job.host = Some(host).filter(|host| !host.is_empty());
    }

    /// When Slurm was last told to run it again. Whoever tells it so, and whoever takes in what it says of the job, has this
    /// meanwhile: an end that it told before is no end any more.
    pub async fn requeued(&self) -> Turn<'_, Option<Instant>> {
        self.requeued.lock().await
    }

    /// Whether Slurm has put it back into its queue since that was last heard of, by how often it says it did.
    pub fn runs_again(&self, requeues: u32) -> bool {
        is_put_back(&self.lock().job, requeues)
    }

    /// Moves it back to the queue and tells the watchers; one that is being ended still is. What does not go back, since it did
    /// not ask for that, stays where it is.
    pub fn goes_back(&self, requeues: u32) {
        let mut now = self.lock();
        let job = &mut now.job;
        if !is_put_back(job, requeues) {
            return;
        }
        job.requeues = requeues;
        job.started = None;
        (job.reason, job.host) = (None, None);
        if job.state == (JobState::Running {}) {
            job.state = JobState::Starting {};
            self.told(now);
        }
    }

    /// Whether no run of it was seen.
    pub fn never_ran(&self) -> bool {
        let job = &self.lock().job;
        job.started.is_none() && job.requeues == 0
    }

    /// Its state.
    pub fn state(&self) -> JobState {
        self.lock().job.state.clone()
    }

    /// Hears of each change of its state.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// A pipe with the job's states, from the present one on.
    pub fn watch(&self, place: Place) -> Result<OwnedFd, Denial> {
        let mut now = self.lock();
        let line = Shown::from(&now.job).line();
        let ended = !now.job.state.is_open();
        now.watchers.add(&line, ended, Some(place))
    }

    /// Has the states that come told to a descriptor of the caller's, which hears of them when
    /// [`Live::release_watchers`] is called, or at the job's end.
    pub fn watch_by(&self, descriptor: OwnedFd, place: Place) {
        self.lock().watchers.adopt(descriptor, place);
    }

    /// Tells those that brought a descriptor what came; the present state, if nothing did.
    pub fn release_watchers(&self) {
        let mut now = self.lock();
        let line = Shown::from(&now.job).line();
        now.watchers.release(&line);
    }

    /// Tells the present state to those who watch.
    pub fn tell(&self) {
        let mut now = self.lock();
        let line = Shown::from(&now.job).line();
        let last = !now.job.state.is_open();
        now.watchers.tell(&line, last);
    }

    /// Takes note that its shepherd is of a release that cannot be spoken to, or can again.
    pub fn can_be_commanded(&self, foreign: Option<Denial>) {
        self.lock().foreign = foreign;
    }

    /// Asks the job's shepherd for something.
    pub fn command(&self, command: JobCommand) -> Result<(), Denial> {
        if let Some(foreign) = self.lock().foreign.clone() {
            return Err(foreign);
        }
        self.commands.try_send(command).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                Denial::new(Code::Busy, "job", "the job has more commands waiting than it takes")
                    .remedy("try again in a moment")
            }
            mpsc::error::TrySendError::Closed(_) => ended(),
        })
    }

    /// Takes the job out of those that wait, so that nobody else starts it or gives it up; false if it waits no more.
    pub fn begin(&self) -> bool {
        let waits = self.lock().job.state == (JobState::Queued {});
        waits && self.become_state(JobState::Starting {}, None)
    }

    /// Moves to a state and tells the watchers. False if the job is there already, or beyond.
    pub fn become_state(&self, state: JobState, at: Option<Timestamp>) -> bool {
        let mut now = self.lock();
        let job = &mut now.job;
        if rank(&state) <= rank(&job.state) {
            return false;
        }
        let at = at.unwrap_or_else(Timestamp::now);
        match &state {
            JobState::Queued {} => {}
            JobState::Starting {} => job.starting = Some(at),
            JobState::Running {} => job.started = Some(at),
            JobState::Ending { .. } => job.ending = Some(at),
            JobState::Ended { .. } | JobState::Lost { .. } | JobState::Abandoned { .. } => {
                job.ended = Some(at);
                // The end is as of the shepherd's record, the others as of when they were heard of, which is later.
                for earlier in [&mut job.starting, &mut job.started, &mut job.ending] {
                    *earlier = earlier.map(|earlier| earlier.min(at));
                }
            }
        }
        job.state = state;
        job.reason = None;
        self.told(now);
        true
    }

    /// Tells a new state to everybody who wants to hear it.
    fn told(&self, mut now: MutexGuard<'_, Now>) {
        let line = Shown::from(&now.job).line();
        let last = !now.job.state.is_open();
        now.watchers.tell(&line, last);
        if let Some(subscribers) = self.subscribers.get() {
            subscribers.tell(&now.job);
        }
        drop(now);
        self.changed.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether this is how often a job was put back that asked for it, and not known yet.
fn is_put_back(job: &Job, requeues: u32) -> bool {
    job.spec.slurm.requeue && job.state.is_open() && requeues > job.requeues
}

/// A job's states have an order. Only what Slurm runs again goes back ([`Live::goes_back`]).
fn rank(state: &JobState) -> u8 {
    match state {
        JobState::Queued {} => 0,
        JobState::Starting {} => 1,
        JobState::Running {} => 2,
        JobState::Ending { .. } => 3,
        JobState::Ended { .. } | JobState::Lost { .. } | JobState::Abandoned { .. } => 4,
    }
}

/// The job has ended.
pub fn ended() -> Denial {
    Denial::new(Code::Conflict, "job", "the job has ended").remedy("look at its state")
}

#[cfg(test)]
mod tests {
    use super::super::shown::tests::job;
    use super::*;
    use deputy_core::job::EndCause;

    #[test]
    fn nothing_is_told_to_have_been_after_the_end() {
        let (live, _commands) = Live::new(job(JobState::Queued {}));
        assert!(live.begin());
        assert!(live.become_state(JobState::Running {}, Some(Timestamp(9))));
        assert!(live.become_state(JobState::Lost { cause: "x".into() }, Some(Timestamp(7))));
        let job = live.job();
        assert_eq!(
            (job.starting, job.started, job.ended),
            (Some(Timestamp(7)), Some(Timestamp(7)), Some(Timestamp(7)))
        );
    }

    #[test]
    fn only_what_asked_for_it_goes_back_and_each_time_once() {
        let (live, _commands) = Live::new(job(JobState::Running {}));
        live.goes_back(1);
        assert_eq!((live.state(), live.job().requeues), (JobState::Running {}, 0));
        let mut asked = job(JobState::Queued {});
        asked.spec.slurm.requeue = true;
        let (live, _commands) = Live::new(asked);
        assert!(live.become_state(JobState::Running {}, Some(Timestamp(5))));
        assert!(live.runs_again(1));
        live.goes_back(1);
        let job = live.job();
        assert_eq!((job.state, job.started, job.requeues), (JobState::Starting {}, None, 1));
        // What was asked before that happened is answered late.
        live.goes_back(1);
        live.goes_back(0);
        assert!(live.become_state(JobState::Running {}, Some(Timestamp(9))));
        live.goes_back(1);
        assert_eq!((live.state(), live.job().started), (JobState::Running {}, Some(Timestamp(9))));
        // Who wants it ended wants no further run of it.
        assert!(live.become_state(JobState::Ending { cause: EndCause::Cancelled }, None));
        live.goes_back(2);
        assert_eq!(live.job().requeues, 2);
        assert!(matches!(live.state(), JobState::Ending { .. }));
        assert!(live.become_state(JobState::Lost { cause: "x".into() }, None));
        live.goes_back(3);
        assert_eq!((live.state(), live.job().requeues), (JobState::Lost { cause: "x".into() }, 2));
    }

    #[test]
    fn a_state_never_goes_back_and_each_has_its_time() {
        let (live, _commands) = Live::new(job(JobState::Queued {}));
        assert!(live.begin() && !live.begin());
        assert!(live.become_state(JobState::Ending { cause: EndCause::Cancelled }, Some(Timestamp(5))));
        assert!(!live.become_state(JobState::Running {}, None));
        assert!(live.become_state(JobState::Lost { cause: "x".into() }, Some(Timestamp(7))));
        assert!(!live.become_state(JobState::Abandoned { cause: "y".into() }, None));
        let job = live.job();
        assert_eq!((job.ending, job.ended, job.started), (Some(Timestamp(5)), Some(Timestamp(7)), None));
        assert!(job.starting.is_some());
    }
}
