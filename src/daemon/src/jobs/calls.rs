//! `Jobs.List` and the methods of a job.

use std::sync::OnceLock;

use deputy_core::message::JobCommand;
use deputy_core::slurm::policy::runs_once;
use deputy_core::slurm::{ClusterName, Executor, SlurmJobId};
use deputy_core::{AccountName, Code, Denial, JobId, OsUid};
use futures_util::stream::{self, StreamExt as _};

use super::executor;
use super::live::{Live, ended};
use super::queue::CANCELLED;
use super::shown::{Shown, record, state_of, stored_name};
use super::watch::Watchers;
use crate::accounts::page;
use crate::authority::{About, Call, Grant, Granted, Ground};
use crate::bus::options::Options;
use crate::bus::record::Record;
use crate::daemon::Daemon;
use crate::store::{Actor, Change, Job, JobFilter, JobState, Page, Scope};

/// The grace of a cancelled job that was given none.
const DEFAULT_GRACE_MS: u32 = 10_000;

/// The longest grace.
const MAX_GRACE_MS: u32 = 3_600_000;

/// How many jobs of an array are cancelled at once: each at Slurm costs a process of root's and one of Slurm's.
const CANCELLING: usize = 8;

/// The highest signal number.
const MAX_SIGNAL: i32 = 64;

/// The job as it is now: the ledger's record, with what has happened since.
fn now(daemon: &Daemon, mut job: Job) -> Job {
    if job.state.is_open()
        && let Some(live) = daemon.tracker.get(&job.id)
    {
        let newer = live.job();
        job.state = newer.state;
        job.starting = job.starting.or(newer.starting);
        // What runs again has begun anew.
        job.started = if newer.requeues > 0 { newer.started } else { job.started.or(newer.started) };
        job.ending = newer.ending;
        job.ended = newer.ended;
        job.slurm_job = job.slurm_job.or(newer.slurm_job);
        job.requeues = newer.requeues;
        job.reason = newer.reason;
        job.host = newer.host;
    }
    job
}

/// The job that a call is on.
pub(super) async fn of_call(call: &Call) -> Result<(Grant, Job), Denial> {
    let id: Option<JobId> = call.id.as_deref().and_then(|id| id.parse().ok());
    let look_up = || match &id {
        None => Ok(None),
        Some(id) => Ok(call.daemon.store.job(id)?),
    };
    let (grant, job) = call.authorize_object(look_up).await?;
    let about = About::application(Some(job.application.clone())).account(&job.account);
    call.note(&about.os_user(Some(&job.os.name)));
    Ok((grant, now(&call.daemon, job)))
}

/// `Job.Get`.
pub async fn get(call: Call, (): ()) -> Result<Granted<(Record,)>, Denial> {
    let (grant, job) = of_call(&call).await?;
    Ok(grant.answer((record(&job),)))
}

/// `Job.Watch`.
pub async fn watch(call: Call, (): ()) -> Result<Granted<(zbus::OwnedFd,)>, Denial> {
    let (grant, job) = of_call(&call).await?;
    let place = call.daemon.limits.watches.enter(call.caller.uid)?;
    let pipe = if let Some(live) = call.daemon.tracker.get(&job.id) {
        live.watch(place)?
    } else {
        // It may have ended since it was looked up: then the ledger has the end.
        let job = call.daemon.store.job(&job.id)?.unwrap_or(job);
        Watchers::default().add(&Shown::from(&job).line(), true, None)?
    };
    Ok(grant.answer((pipe.into(),)))
}

/// `Job.Cancel`.
pub async fn cancel(call: Call, (mut options,): (Options,)) -> Result<Granted<()>, Denial> {
    let grace_ms = options.number("grace_ms")?.unwrap_or(DEFAULT_GRACE_MS).min(MAX_GRACE_MS);
    let by = options.by()?;
    options.finish()?;
    command(call, JobCommand::Cancel { grace_ms }, by).await
}

/// `Job.Signal`.
pub async fn signal(call: Call, (signal, mut options): (i32, Options)) -> Result<Granted<()>, Denial> {
    let by = options.by()?;
    options.finish()?;
    if !(1..=MAX_SIGNAL).contains(&signal) {
        return Err(Denial::invalid(format!("a signal has a number from 1 to {MAX_SIGNAL}")));
    }
    command(call, JobCommand::Signal { signal }, by).await
}

/// `Job.Hold`.
pub async fn hold(call: Call, (options,): (Options,)) -> Result<Granted<()>, Denial> {
    wait_or_go_on(call, options, true).await
}

/// `Job.Release`.
pub async fn release(call: Call, (options,): (Options,)) -> Result<Granted<()>, Denial> {
    wait_or_go_on(call, options, false).await
}

async fn wait_or_go_on(call: Call, mut options: Options, held: bool) -> Result<Granted<()>, Denial> {
    let by = options.by()?;
    options.finish()?;
    let (grant, job, actor) = to_command(&call, by).await?;
    if job.spec.executor != Executor::Slurm {
        return Err(Denial::invalid("only a job at Slurm is held and released"));
    }
    let live = call.daemon.tracker.get(&job.id).filter(|live| live.state().is_open()).ok_or_else(ended)?;
    if live.state().has_started() || live.job().slurm_job.is_none() {
        return Err(Denial::new(Code::Conflict, "job", "the job does not wait at Slurm").remedy(
            "look at its state: one that runs is not held, and one that is on its way there soon can be",
        ));
    }
    executor::hold(&call.daemon.tracker, &live, held).await?;
    let command = if held { "hold" } else { "release" }.to_owned();
    call.daemon.store.commit(Change::JobCommanded { id: job.id, command }, actor).await?;
    Ok(grant.answer(()))
}

/// `Job.Requeue`.
pub async fn requeue(call: Call, (mut options,): (Options,)) -> Result<Granted<()>, Denial> {
    let by = options.by()?;
    options.finish()?;
    let (grant, job, actor) = to_command(&call, by).await?;
    if job.spec.executor != Executor::Slurm {
        return Err(Denial::invalid("only a job at Slurm is run again"));
    }
    let live = call.daemon.tracker.get(&job.id).ok_or_else(ended)?;
    if !job.spec.slurm.requeue {
        return Err(runs_once());
    }
    executor::requeue(&call.daemon.tracker, &live).await?;
    let command = "requeue".to_owned();
    call.daemon.store.commit(Change::JobCommanded { id: job.id, command }, actor).await?;
    Ok(grant.answer(()))
}

/// The job of a call, for a caller who may change something about it.
async fn to_command(call: &Call, by: Option<String>) -> Result<(Grant, Job, Actor), Denial> {
    let (mut grant, job) = of_call(call).await?;
    let about = About::application(Some(job.application.clone())).account(&job.account);
    call.act(&mut grant, about.os_user(Some(&job.os.name)).by(by))?;
    // Whoever has an actor may change something.
    let actor = grant.actor()?;
    Ok((grant, job, actor))
}

async fn command(call: Call, command: JobCommand, by: Option<String>) -> Result<Granted<()>, Denial> {
    let (grant, job, actor) = to_command(&call, by).await?;
    let live = call.daemon.tracker.get(&job.id).filter(|live| live.state().is_open());
    let Some(live) = live else {
        if matches!(command, JobCommand::Cancel { .. }) {
            // A service may be between two of its jobs.
            call.daemon.tracker.cancel_service(&job, actor).await?;
            return Ok(grant.answer(()));
        }
        return Err(ended());
    };
    say(&call.daemon, &live, command, actor).await?;
    Ok(grant.answer(()))
}

/// Says a word to a job that has not ended, for somebody who may.
async fn say(daemon: &Daemon, live: &Live, command: JobCommand, actor: Actor) -> Result<(), Denial> {
    let tracker = &daemon.tracker;
    let given_up = matches!(command, JobCommand::Cancel { .. }) && tracker.queue().give_up(&live.id());
    if !given_up {
        executor::command(tracker, live, command).await?;
    }
    let change = Change::JobCommanded { id: live.id(), command: words(command) };
    // A job has to end when its owner says so, on a full disk too: that this is not recorded is an error of its own.
    if let Err(error) = daemon.store.commit(change, actor).await {
        tracing::error!(%error, "a command to a job could not be recorded");
    }
    if given_up {
        let state = JobState::Abandoned { cause: CANCELLED.to_owned() };
        tracker.end(live, state, None).await;
    }
    Ok(())
}

/// `Jobs.CancelArray`: what `Job.Cancel` does, to each job of an array that has not ended.
///
/// All jobs of an array are one account's, by one call: whoever may cancel one of them may cancel each.
pub async fn cancel_array(
    call: Call,
    (array, mut options): (String, Options),
) -> Result<Granted<(Vec<Record>,)>, Denial> {
    let by = options.by()?;
    options.finish()?;
    let array: Option<JobId> = array.parse().ok();
    let open = || {
        let mut open = Vec::new();
        call.daemon.tracker.each(|job| {
            let part = job.spec.slurm.array.as_ref();
            if job.state.is_open() && part.is_some_and(|part| Some(&part.array) == array.as_ref()) {
                open.push(job.clone());
            }
        });
        open.sort_by_key(|job| job.spec.slurm.array.as_ref().map(|part| part.index));
        open
    };
    let (mut grant, first) = call.authorize_object(|| Ok(open().into_iter().next())).await?;
    let about = About::application(Some(first.application.clone())).account(&first.account);
    call.act(&mut grant, about.os_user(Some(&first.os.name)).by(by))?;
    let actor = grant.actor()?;
    let same = |job: &Job| {
        (&job.application, &job.account, &job.os) == (&first.application, &first.account, &first.os)
    };
    // A cluster that did not answer once is not asked for each of a thousand jobs.
    let silent = OnceLock::new();
    let told = stream::iter(open().into_iter().filter(same)).map(|job| {
        let (daemon, actor, silent) = (&call.daemon, actor.clone(), &silent);
        async move {
            let grace_ms = DEFAULT_GRACE_MS;
            let live = daemon.tracker.get(&job.id);
            let told = match (live, silent.get()) {
                // It has ended in this moment.
                (None, _) => Ok(()),
                (Some(live), Some(denial)) if live.job().slurm_job.is_some() => Err(Denial::clone(denial)),
                (Some(live), _) => say(daemon, &live, JobCommand::Cancel { grace_ms }, actor).await,
            };
            let record = Record::new()
                .text("id", &job.id)
                .maybe("index", job.spec.slurm.array.as_ref().map(|part| part.index));
            match told {
                Err(denial) if daemon.tracker.get(&job.id).is_some() => {
                    if denial.code == Code::SlurmUnavailable {
                        let _ = silent.set(denial.clone());
                    }
                    record.text("code", denial.code).text("message", denial.message)
                }
                _ => record,
            }
        }
    });
    let records = told.buffered(CANCELLING).collect().await;
    Ok(grant.answer((records,)))
}

fn words(command: JobCommand) -> String {
    match command {
        JobCommand::Cancel { grace_ms } => format!("cancel, grace {grace_ms} ms"),
        JobCommand::Signal { signal } => format!("signal {signal}"),
        JobCommand::EndForConsent => "end, the consent was taken back".into(),
    }
}

/// The states in the store of jobs that may be in this state now: the store hears of a start or an end a moment later
/// than those who watch.
fn stored_states(shown: &str) -> Option<Vec<String>> {
    let stored = stored_name(shown)?;
    let earlier: &[&str] = match stored {
        "queued" => &[],
        "starting" | "running" => &["queued"],
        _ => &["queued", "running"],
    };
    Some([&[stored], earlier].concat().into_iter().map(str::to_owned).collect())
}

/// `Jobs.List`.
pub async fn list(call: Call, (mut options,): (Options,)) -> Result<Granted<(Vec<Record>, String)>, Denial> {
    let application = options.application()?;
    let account: Option<AccountName> = options.name("account")?;
    let state = options.text("state")?;
    let kind = options.name("kind")?;
    let array: Option<JobId> = options.name("array")?;
    let slurm_job = options.number("slurm_job")?;
    let cluster: Option<ClusterName> = options.name("cluster")?;
    let by = options.by()?;
    let request = page(options.page()?);
    options.finish()?;
    let states = match state.as_deref() {
        None => Vec::new(),
        Some(state) => stored_states(state).ok_or_else(|| {
            Denial::invalid("a job's state is queued, starting, running, ending, done, lost or abandoned")
        })?,
    };
    let about = About { account: account.clone(), ..About::application(application).by(by) };
    let grant = call.authorize_any(about).await?;
    let scope = if grant.ground == Ground::Owner {
        OsUid::new(call.caller.uid).map(Scope::OsUid)
    } else {
        let name = grant.application()?.name.clone();
        Some(match &account {
            Some(account) => Scope::Account(name, account.clone()),
            None => Scope::Application(name),
        })
    };
    if let Some(number) = slurm_job {
        // Of those that have ended Slurm gives the numbers again.
        let mut found = Vec::new();
        call.daemon.tracker.each(|job| {
            let seen = match &scope {
                None => false,
                Some(Scope::OsUid(uid)) => job.os.uid == *uid,
                Some(Scope::Account(name, account)) => (&job.application, &job.account) == (name, account),
                Some(Scope::Application(name)) => job.application == *name,
            };
            // Two clusters may have given the same number.
            let there = cluster.as_ref().is_none_or(|cluster| executor::cluster_of(job) == *cluster);
            if seen && there && job.slurm_job == Some(SlurmJobId(number)) {
                found.push(record(job));
            }
        });
        return Ok(grant.answer((found, String::new())));
    }
    let filter = JobFilter { states, kind };
    let found: Page<Job> = match scope {
        Some(scope) => call.daemon.store.jobs(&scope, &filter, &request)?,
        None => Page { items: Vec::new(), next: None },
    };
    let of_array = |job: &Job| job.spec.slurm.array.as_ref().map(|part| &part.array) == array.as_ref();
    let of_cluster = |job: &Job| {
        cluster.as_ref().is_none_or(|cluster| {
            job.spec.executor == Executor::Slurm && executor::cluster_of(job) == *cluster
        })
    };
    let wanted = |job: &Job| {
        of_cluster(job)
            && account.as_ref().is_none_or(|account| job.account == *account)
            && (array.is_none() || of_array(job))
    };
    let jobs = found.items.into_iter().map(|job| now(&call.daemon, job));
    let records = jobs
        .filter(wanted)
        .filter(|job| state.as_deref().is_none_or(|state| state == state_of(job)))
        .map(|job| record(&job))
        .collect();
    Ok(grant.answer((records, found.next.map(String::from).unwrap_or_default())))
}
