//! Finding out what became of a job whose shepherd is not connected: after a restart of the daemon or the launcher,
//! or where an answer was lost.
//!
//! The launcher's folder of the job is the truth. Where there is none, the job is given up with a tombstone that the
//! launcher's child makes with the same mkdir, so that it can never start afterwards.

use std::time::Duration;

use deputy_core::Code;
use deputy_core::job::EndCause;
use deputy_core::message::{JobState as Told, LauncherReply, LauncherRequest};
use deputy_core::slurm::{Executor, SlurmJobId};
use tokio::time::{sleep, timeout};

use super::executor;
use super::live::Live;
use super::track::Tracker;
use crate::launcher::{ANSWER, Channel, LauncherError};
use crate::store::{Job, JobState};

/// The first and the longest pause between two tries.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// What became of it.
pub enum Settled {
    /// It runs; this is its shepherd. It may be ending already.
    Running(Channel, Option<EndCause>),
    /// Slurm has it, by this number.
    AtSlurm(SlurmJobId),
    /// It has ended, or is lost.
    Told(Told),
    /// It never started, and never will.
    NeverStarted {
        /// How that is known.
        cause: String,
    },
    /// It never started, and can still: nothing that it needs has gone.
    StillWaits,
}

impl Tracker {
    /// Asks until there is an answer. A launcher that is away is no answer.
    pub(super) async fn settle(&self, live: &Live) -> Settled {
        let mut pause = PAUSES.0;
        loop {
            match self.try_settle(live).await {
                Ok(Some(settled)) => return settled,
                Ok(None) => {}
                // Nothing that is done here makes another release of it; its record is read when it has ended.
                Err(LauncherError::Denied(denial)) if denial.code == Code::UnsupportedVersion => {
                    tracing::warn!(job = %live.id(), message = %denial.message, "a job cannot be commanded");
                    live.can_be_commanded(Some(denial));
                }
                Err(error) => tracing::warn!(job = %live.job().id, %error, "a job cannot be asked about"),
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// One try; `None` if the job started between two questions.
    async fn try_settle(&self, live: &Live) -> Result<Option<Settled>, LauncherError> {
        let whole = live.job();
        // A cluster that does not answer keeps nobody else waiting.
        let cluster = (whole.spec.executor == Executor::Slurm)
            .then(|| self.0.slurm.of(self, &executor::cluster_of(&whole)));
        let settling = cluster.as_ref().map_or(&self.0.settling, |cluster| &cluster.settling);
        let _turn = settling.acquire().await;
        let Job { id: job, state, spec, .. } = whole;
        let channel = self.0.launcher.request(&LauncherRequest::Attach { job: job.clone() }, &[]).await?;
        let reply = timeout(ANSWER, channel.reply()).await.map_err(|_| LauncherError::TimedOut)?;
        match reply {
            Ok(Some(LauncherReply::Job(Told::Running))) => return Ok(Some(Settled::Running(channel, None))),
            Ok(Some(LauncherReply::Job(Told::Ending(cause)))) => {
                return Ok(Some(Settled::Running(channel, Some(cause))));
            }
            Ok(Some(LauncherReply::Job(state))) => return Ok(Some(Settled::Told(state))),
            Ok(Some(LauncherReply::Submitted { slurm })) => return Ok(Some(Settled::AtSlurm(slurm))),
            Err(LauncherError::Denied(denial)) if denial.code == Code::NotFound => {}
            Ok(Some(_)) => return Err(LauncherError::Foreign),
            Ok(None) => return Err(LauncherError::Ended),
            Err(error) => return Err(error),
        }
        let cause = if self.of_another_boot(live) {
            "the machine was started again before it started"
        } else if state != (JobState::Queued {}) {
            "the launcher knows nothing of it: its answer was lost before it started"
        } else if spec.needs_descriptors() {
            "deputyd restarted while it waited, and its descriptors are gone"
        } else {
            return Ok(Some(Settled::StillWaits));
        };
        match self.0.launcher.ask(&LauncherRequest::Abandon { job }, &[], ANSWER).await {
            Ok(LauncherReply::Done) => Ok(Some(Settled::NeverStarted { cause: cause.to_owned() })),
            Err(LauncherError::Denied(denial)) if denial.code == Code::JobExists => Ok(None),
            Ok(_) => Err(LauncherError::Foreign),
            Err(error) => Err(error),
        }
    }
}
