//! The rules of jobs and services.

use deputy_core::JobId;

use super::super::change::Change;
use super::super::clock::Timestamp;
use super::super::error::StoreError;
use super::super::job::{Job, JobState};
use super::super::projects;
use super::super::view::{Draft, keys};
use super::{accounts, conflict, missing, sessions};

/// The changes of jobs.
pub(super) fn apply(
    change: &Change,
    number: u64,
    at: Timestamp,
    draft: &mut Draft<'_>,
) -> Result<(), StoreError> {
    match change {
        Change::JobQueued { .. } => queue(change, number, at, draft),
        Change::JobLeased { id, gpus } => {
            let mut job = need(draft, id)?;
            // The daemon may have ended before it used an earlier lease.
            if job.state != (JobState::Queued {}) {
                return Err(conflict("job", id.to_string(), "it is not waiting to be started"));
            }
            job.gpus.clone_from(gpus);
            draft.put(keys::job(id), &job);
            Ok(())
        }
        Change::JobSubmitted { id, slurm_job } => {
            let mut job = need(draft, id)?;
            if !job.state.is_open() || job.slurm_job.is_some() {
                return Err(conflict("job", id.to_string(), "it is not waiting to be submitted"));
            }
            job.slurm_job = Some(*slurm_job);
            draft.put(keys::job(id), &job);
            Ok(())
        }
        Change::JobRequeued { id, requeues } => {
            let mut job = need(draft, id)?;
            // Only what asked for it goes back, and each time once.
            if !job.state.is_open() || !job.spec.slurm.requeue || *requeues <= job.requeues {
                return Err(conflict("job", id.to_string(), "it is not one that goes back into the queue"));
            }
            job.requeues = *requeues;
            job.state = JobState::Queued {};
            job.started = None;
            draft.put(keys::job(id), &job);
            Ok(())
        }
        Change::JobStarted { id, starting, started } => {
            let mut job = need(draft, id)?;
            if job.state != (JobState::Queued {}) {
                return Err(conflict("job", id.to_string(), "it is not waiting to be started"));
            }
            job.state = JobState::Running {};
            job.starting = *starting;
            job.started = Some(started.unwrap_or(at));
            draft.put(keys::job(id), &job);
            Ok(())
        }
        Change::JobEnded { id, end, cause, usage, captured, enforcement, ended, times } => {
            let state = JobState::Ended {
                end: end.clone(),
                cause: *cause,
                usage: usage.clone(),
                captured: *captured,
                enforcement: *enforcement,
            };
            let job = need(draft, id)?;
            let job = Job {
                starting: job.starting.or(times.starting),
                started: job.started.or(times.started),
                ending: times.ending,
                ..job
            };
            end_job(draft, job, state, *ended)
        }
        Change::JobLost { id, cause } => {
            let job = need(draft, id)?;
            end_job(draft, job, JobState::Lost { cause: cause.clone() }, at)
        }
        Change::JobAbandoned { id, cause } => {
            let job = need(draft, id)?;
            if job.state == (JobState::Running {}) {
                return Err(conflict("job", id.to_string(), "it runs"));
            }
            end_job(draft, job, JobState::Abandoned { cause: cause.clone() }, at)
        }
        Change::JobCommanded { id, .. } => need(draft, id).map(drop),
        Change::JobsForgotten { ids } => {
            for id in ids {
                let mut job = need(draft, id)?;
                draft.remove(keys::numbered(keys::KEPT_JOBS.to_vec(), job.number));
                job.forgotten = Some(at);
                draft.put(keys::job(id), &job);
            }
            Ok(())
        }
        Change::ServiceStopped { id, .. } => {
            let job = need(draft, id)?;
            take_service(draft, &job)
        }
        _ => Ok(()),
    }
}

fn queue(change: &Change, number: u64, at: Timestamp, draft: &mut Draft<'_>) -> Result<(), StoreError> {
    let Change::JobQueued { id, application, account, os, kind, argv, cwd, project, session, spec } = change
    else {
        return Ok(());
    };
    accounts::need_active(draft, application, account)?;
    let key = keys::job(id);
    if draft.has(&key)? {
        return Err(conflict("job", id.to_string(), "it exists already"));
    }
    if let Some(predecessor) = &spec.predecessor {
        // Each job of a service is followed by one at most.
        let predecessor = need(draft, predecessor)?;
        if predecessor.state.is_open() {
            return Err(conflict("job", predecessor.id.to_string(), "it has not ended"));
        }
        take_service(draft, &predecessor)?;
    }
    if let Some(session) = session {
        sessions::used(draft, session, at)?;
    }
    if let Some(project) = project {
        projects::job_queued(draft, application, project, account, os)?;
    }
    let job = Job {
        id: id.clone(),
        number,
        application: application.clone(),
        account: account.clone(),
        os: os.clone(),
        kind: kind.clone(),
        argv: argv.clone(),
        cwd: cwd.clone(),
        project: project.clone(),
        session: session.clone(),
        spec: (**spec).clone(),
        state: JobState::Queued {},
        queued: at,
        starting: None,
        started: None,
        ending: None,
        ended: None,
        gpus: Vec::new(),
        forgotten: None,
        slurm_job: None,
        requeues: 0,
        reason: None,
        host: None,
    };
    draft.put(key, &job);
    for index in [
        keys::jobs_of_application(application),
        keys::jobs_of_account(application, account),
        keys::jobs_of_uid(os.uid),
        keys::open_jobs_of_account(application, account),
        keys::OPEN_JOBS.to_vec(),
    ] {
        draft.put_entry(keys::numbered(index, number), id.as_str());
    }
    if spec.service {
        draft.put_entry(keys::numbered(keys::SERVICES.to_vec(), number), id.as_str());
    }
    Ok(())
}

/// Records the end of a job: the first one stays, whatever it was.
fn end_job(draft: &mut Draft<'_>, mut job: Job, state: JobState, ended: Timestamp) -> Result<(), StoreError> {
    if !job.state.is_open() {
        return Err(conflict("job", job.id.to_string(), "its end is recorded already"));
    }
    if let Some(project) = &job.project {
        projects::job_ended(draft, &job.application, project)?;
    }
    let has_folder = !matches!(state, JobState::Abandoned { .. });
    job.state = state;
    job.ended = Some(ended);
    draft.put(keys::job(&job.id), &job);
    draft.remove(keys::numbered(keys::OPEN_JOBS.to_vec(), job.number));
    draft.remove(keys::numbered(keys::open_jobs_of_account(&job.application, &job.account), job.number));
    if has_folder && job.spec.streams.captures() {
        draft.put_entry(keys::numbered(keys::KEPT_JOBS.to_vec(), job.number), job.id.as_str());
    }
    Ok(())
}

/// Takes a job out of those after which their services may go on.
fn take_service(draft: &mut Draft<'_>, job: &Job) -> Result<(), StoreError> {
    let key = keys::numbered(keys::SERVICES.to_vec(), job.number);
    if !draft.has(&key)? {
        return Err(conflict("job", job.id.to_string(), "it is not the latest of a service that goes on"));
    }
    draft.remove(key);
    Ok(())
}

fn need(draft: &Draft<'_>, id: &JobId) -> Result<Job, StoreError> {
    draft.record(&keys::job(id))?.ok_or_else(|| missing("job", id.to_string()))
}
