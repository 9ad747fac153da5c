//! Jobs on this machine: each has a shepherd, which the launcher forks and which tells everything itself. So has one at Slurm
//! that somebody here speaks with.

use deputy_core::OsGid;
use deputy_core::message::{LauncherReply, LauncherRequest, RunRequest, SubmitRequest};
use deputy_core::queue::GpuIndex;
use deputy_core::slurm::Executor;
use deputy_core::stream::Streams;
use tokio::time::timeout;

use super::{Begun, Hold, slurm};
use crate::jobs::admit::Opened;
use crate::jobs::stdio::Descriptors;
use crate::jobs::track::Tracker;
use crate::launcher::{LAUNCH, LauncherError};
use crate::store::Job;

/// What every engine's launcher child is told of a job.
pub(super) fn request(
    job: &Job,
    project_group: Option<OsGid>,
    streams: Streams,
    gpus: Vec<GpuIndex>,
) -> RunRequest {
    RunRequest {
        job: job.id.clone(),
        application: job.application.clone(),
        account: job.account.clone(),
        os_account: job.os.clone(),
        kind: Some(job.kind.clone()),
        argv: job.argv.iter().map(|argument| argument.0.clone()).collect(),
        script: job.spec.script,
        directory: job.cwd.as_ref().map(|directory| directory.0.clone()),
        environment: job.spec.environment.iter().map(|variable| variable.0.clone()).collect(),
        environment_descriptor: job.spec.environment_descriptor,
        umask: job.spec.umask,
        os_group: job.spec.os_group.clone(),
        project_group,
        streams,
        bounds: job.spec.bounds,
        gpus,
        login: job.spec.login,
    }
}

/// Has it launched; the answer is its shepherd's first word.
pub(super) async fn begin(
    tracker: &Tracker,
    opened: Option<Opened>,
    job: &Job,
    descriptors: &Descriptors,
    gpus: Vec<GpuIndex>,
) -> Begun {
    let (streams, passed) = descriptors.for_request(&tracker.0.null, &job.spec.streams);
    let run = request(job, tracker.project_group(job), streams, gpus);
    let request = match job.spec.executor {
        Executor::Local => LauncherRequest::Run(run),
        Executor::Slurm => {
            LauncherRequest::Interact(SubmitRequest { run, slurm: slurm::slurm_request(&job.spec) })
        }
    };
    let channel = match opened {
        Some(Ok(channel)) if channel.request(&request, &passed).await.is_ok() => channel,
        // The disk took so long that the child has given up, or there was none: a job's id can be used once only,
        // so asking again does no harm.
        _ => tracker.0.launcher.request(&request, &passed).await?,
    };
    match timeout(LAUNCH, channel.reply()).await {
        Err(_) => Err(LauncherError::TimedOut),
        Ok(Ok(Some(LauncherReply::Job(state)))) => Ok((Hold::Shepherd(channel), Some(state))),
        Ok(Ok(Some(_))) => Err(LauncherError::Foreign),
        Ok(Ok(None)) => Err(LauncherError::Ended),
        Ok(Err(error)) => Err(error),
    }
}
