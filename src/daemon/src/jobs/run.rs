//! `Jobs.Run`.
//!
//! The way of an ordinary job: the caller's uid and the application from memory, the link from the view, one commit of
//! the job's id, one request to the launcher. Nothing else waits.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use deputy_core::application::Trust;
use deputy_core::message::JobCommand;
use deputy_core::project::ProjectKey;
use deputy_core::slurm::Executor;
use deputy_core::slurm::array::Indices;
use deputy_core::stream::{Input, Output, Streams};
use deputy_core::{AccountName, ApplicationName, Code, Denial, JobId, KindName, SessionId};
use futures_util::future::join_all;
use tokio::sync::mpsc;
use zbus::OwnedObjectPath;

use super::admit::{Opened, Waiting};
use super::asked::{Asked, Needs};
use super::live::Live;
use super::queue::Place;
use super::ready::{self, Ready, Wanted};
use super::stdio::Descriptors;
use crate::acting;
use crate::authority::{About, Call, Grant, Granted};
use crate::bus::introspection::{self, Path, job_path};
use crate::bus::options::{Options, parse};
use crate::bus::table::Object;
use crate::daemon::Daemon;
use crate::directory::Registered;
use crate::files::Whose;
use crate::store::{Actor, Argument, Change, Job, JobSpec, JobState, Timestamp};
use crate::{files, random, sessions};

/// `Jobs.Run`.
pub async fn run(
    call: Call,
    (subject, argv, mut options): (String, Vec<Vec<u8>>, Options),
) -> Result<Granted<(OwnedObjectPath,)>, Denial> {
    let application = options.application()?;
    let asked = Asked::new(argv, &mut options)?;
    options.finish()?;
    let Allowed { grant, accepted, ready, actor, descriptors, watch } =
        allowed(&call, application, &subject, asked).await?;
    let place = match &watch {
        Some(_) => Some(call.daemon.limits.watches.enter(call.caller.uid)?),
        None => None,
    };
    let (live, commands, opened) = accept(&call.daemon, accepted, ready, actor).await?;
    let path = path_of(&live.id())?;
    if let (Some(watch), Some(place)) = (watch, place) {
        live.watch_by(watch, place);
    }
    let watched = Arc::clone(&live);
    let admitted = call.daemon.tracker.admit(Waiting { live, commands, descriptors }, opened).await;
    // Not before: whoever watches would be woken to read that it starts, beside the launcher at work.
    watched.release_watchers();
    admitted?;
    Ok(grant.answer((path,)))
}

fn path_of(job: &JobId) -> Result<OwnedObjectPath, Denial> {
    OwnedObjectPath::try_from(job_path(job)).map_err(|error| Denial::internal(error.to_string()))
}

/// `Jobs.RunArray`: each index is a job of its own, in the ledger before this answers.
pub async fn run_array(
    call: Call,
    (subject, argv, indices, mut options): (String, Vec<Vec<u8>>, String, Options),
) -> Result<Granted<(String, Vec<OwnedObjectPath>)>, Denial> {
    let indices: Indices = parse("indices", &indices)?;
    let application = options.application()?;
    let mut asked = Asked::new(argv, &mut options)?;
    options.finish()?;
    if asked.watch.is_some() {
        return Err(Denial::invalid(
            "the option watch is for one job: an array is watched by Jobs.Subscribe",
        ));
    }
    if asked.spec.needs_descriptors() {
        return Err(Denial::invalid(
            "nothing of an array comes by descriptor: its jobs begin at different times",
        ));
    }
    let array = JobId::from_random(random::bytes()?);
    let parts = indices.parts(&array);
    // Policy bounds how many there are, by any of them.
    asked.spec.slurm.array = parts.first().cloned();
    let Allowed { grant, accepted, ready, actor, .. } = allowed(&call, application, &subject, asked).await?;
    let each = parts.into_iter().map(|part| {
        let mut accepted = accepted.clone();
        of_index(&mut accepted.spec.streams, part.index);
        accepted.spec.slurm.array = Some(part);
        accept(&call.daemon, accepted, ready.clone(), actor.clone())
    });
    let (mut waiting, mut failure) = (Vec::new(), None);
    for accepted in join_all(each).await {
        match accepted {
            Ok((live, commands, _)) => {
                waiting.push(Waiting { live, commands, descriptors: Descriptors::default() });
            }
            Err(denial) => failure = Some(denial),
        }
    }
    let tracker = &call.daemon.tracker;
    if let Some(denial) = failure {
        // All of them, or none.
        for Waiting { live, .. } in waiting {
            let cause = "another job of its array could not be recorded".to_owned();
            tracker.end(&live, JobState::Abandoned { cause }, None).await;
        }
        return Err(denial);
    }
    let paths = waiting.iter().map(|waiting| path_of(&waiting.live.id())).collect::<Result<_, _>>()?;
    for waiting in waiting {
        tracker.admit_again(waiting);
    }
    Ok(grant.answer((array.as_str().to_owned(), paths)))
}

/// Puts the index in the place of `%a` in the names of files.
fn of_index(streams: &mut Streams, index: u32) {
    let index = index.to_string();
    let put = |path: &mut Vec<u8>| {
        let mut made = Vec::with_capacity(path.len());
        let mut rest = path.as_slice();
        while let Some(at) = rest.windows(2).position(|pair| pair == b"%a") {
            made.extend_from_slice(&rest[..at]);
            made.extend_from_slice(index.as_bytes());
            rest = &rest[at + 2..];
        }
        made.extend_from_slice(rest);
        *path = made;
    };
    if let Input::File(path) = &mut streams.input {
        put(path);
    }
    for output in [&mut streams.output, &mut streams.error] {
        if let Output::File { path, .. } = output {
            put(path);
        }
    }
}

/// A job, or an array of them, that was asked for and may be.
struct Allowed {
    grant: Grant,
    accepted: Accepted,
    ready: Ready,
    actor: Actor,
    descriptors: Descriptors,
    watch: Option<OwnedFd>,
}

/// Decides whether what was asked for may be, as far as that can be decided here.
async fn allowed(
    call: &Call,
    application: Option<ApplicationName>,
    subject: &str,
    mut asked: Asked,
) -> Result<Allowed, Denial> {
    let mut grant = call.authorize(About::application(application)).await?;
    let registered = Arc::clone(grant.application()?);
    let mut about = About {
        kind: Some(asked.kind.clone()),
        argv: asked.argv.clone(),
        ..About::application(Some(registered.name.clone()))
    };
    call.note(&about);
    let trust = trust(&registered, &asked.kind);
    let (account, session) = whose_by(call, &registered, subject, trust)?;
    if let Some(session) = &session {
        asked.spec.login = sessions::login_as_os_account(&call.daemon, session)?;
    }
    about.account = Some(account.clone());
    about.acting = acting::of_session(&call.daemon, &registered, session.as_ref())?;
    let acting = about.acting.clone();
    call.note(&about);
    let environment: Vec<Vec<u8>> =
        asked.spec.environment.iter().map(|variable| variable.0.clone()).collect();
    let wanted = Wanted {
        account: &account,
        project: asked.project.as_ref(),
        kind: &asked.kind,
        argv: &asked.argv,
        environment: &environment,
        spec: &asked.spec,
        executor: asked.executor,
    };
    let mut ready = ready::ready(&call.daemon, &registered, &wanted).await?;
    about.os_user = Some(ready.os.name.clone());
    call.ask_too(&mut grant, about).await?;
    if call.method.asks.is_some_and(|(question, _)| registered.policy.ask_polkit.contains(&question)) {
        // The dialog may have taken minutes.
        whose_by(call, &registered, subject, trust)?;
        ready = ready::ready(&call.daemon, &registered, &wanted).await?;
    }
    let whose = Whose {
        application: registered.name.clone(),
        account: account.clone(),
        os: ready.os.clone(),
        umask: None,
        project_group: None,
    };
    if let Some(Needs { bytes, folder }) = &asked.needs {
        files::quota::check_needs(&call.daemon, &whose, folder, *bytes).await?;
    }
    call.daemon.alerts.note(&whose);
    let mut actor = grant.actor()?;
    if acting.is_some() {
        // Both names are in the log: whose job it is, and who asked for it.
        actor.by = acting;
    }
    let Asked { project, kind, argv, directory, spec, descriptors, watch, .. } = asked;
    let accepted = Accepted {
        application: registered.name.clone(),
        account,
        kind,
        argv,
        directory,
        project,
        session,
        spec,
    };
    Ok(Allowed { grant, accepted, ready, actor, descriptors, watch })
}

/// A job that may be, by everything that can be decided here.
#[derive(Clone)]
pub struct Accepted {
    /// The application.
    pub application: ApplicationName,
    /// The account.
    pub account: AccountName,
    /// The kind.
    pub kind: KindName,
    /// The program and its arguments.
    pub argv: Vec<Vec<u8>>,
    /// The working directory.
    pub directory: Option<Vec<u8>>,
    /// The project.
    pub project: Option<ProjectKey>,
    /// The session that asked.
    pub session: Option<SessionId>,
    /// What else was asked for.
    pub spec: JobSpec,
}

/// Puts a job into the ledger. From here on it is known, and has to come to an end.
pub async fn accept(
    daemon: &Daemon,
    accepted: Accepted,
    mut ready: Ready,
    actor: Actor,
) -> Result<(Arc<Live>, mpsc::Receiver<JobCommand>, Option<Opened>), Denial> {
    let Accepted { application, account, kind, argv, directory, project, session, mut spec } = accepted;
    spec.service = ready.service;
    daemon.store.boot().clone_into(&mut spec.boot);
    // A project only takes bits away, and so does a request.
    spec.umask = match (spec.umask, ready.defaults.umask) {
        (Some(asked), Some(default)) => Some(asked | default),
        (asked, default) => asked.or(default),
    };
    spec.os_group = spec.os_group.or_else(|| ready.defaults.os_group.clone());
    let mut job = Job {
        id: JobId::from_random(random::bytes()?),
        number: 0,
        application,
        account,
        os: ready.os.clone(),
        kind,
        argv: argv.into_iter().map(Argument).collect(),
        cwd: directory.map(Argument),
        project,
        session,
        spec,
        state: JobState::Queued {},
        queued: Timestamp(0),
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
    job.spec.executor = ready.executor;
    if job.spec.gpus_here() > 0 {
        daemon.tracker.queue().find_gpus(daemon).await;
    }
    // Another engine has a queue of its own. A place that starts is the job's, whoever else looks for one meanwhile.
    let place = match ready.executor {
        Executor::Slurm if !job.spec.has_shepherd() => None,
        Executor::Local if ready.needs_room() => {
            let place = daemon.tracker.queue().enter(daemon, &job).ok().filter(Place::starts);
            if place.is_none() {
                ready.without_room();
            }
            place
        }
        Executor::Slurm | Executor::Local => Some(daemon.tracker.queue().enter(daemon, &job)?),
    };
    job.spec.executor = ready.executor;
    job.spec.chosen = ready.chosen;
    if ready.executor == Executor::Slurm {
        job.spec.slurm.cluster = ready.cluster;
    }
    let change = Change::JobQueued {
        id: job.id.clone(),
        application: job.application.clone(),
        account: job.account.clone(),
        os: job.os.clone(),
        kind: job.kind.clone(),
        argv: job.argv.clone(),
        cwd: job.cwd.clone(),
        project: job.project.clone(),
        session: job.session.clone(),
        spec: Box::new(job.spec.clone()),
    };
    // The launcher forks while the disk works; it hears nothing of the job before the job is in the ledger.
    let soon = place.as_ref().is_none_or(Place::starts) && job.spec.slurm.array.is_none();
    let (opened, committed) = if soon {
        let (opened, committed) = tokio::join!(daemon.tracker.open(), daemon.store.commit(change, actor));
        (Some(opened), committed)
    } else {
        (None, daemon.store.commit(change, actor).await)
    };
    let committed = committed?;
    if let Some(place) = place {
        place.keep();
    }
    job.number = committed.number;
    job.queued = committed.at;
    daemon.subscribers.tell(&job);
    let (live, commands) = daemon.tracker.insert(job);
    Ok((live, commands, opened))
}

/// Whose word is enough for a job of this kind. There may be no such kind: that is refused later.
fn trust(registered: &Registered, kind: &KindName) -> Trust {
    registered
        .policy
        .kinds
        .get(kind)
        .map_or(registered.policy.trust, |kind| registered.policy.trust_for(kind))
}

/// The account that a subject means: by a live session of its own or by the application's word.
pub fn whose(
    call: &Call,
    registered: &Registered,
    subject: &str,
) -> Result<(AccountName, Option<SessionId>), Denial> {
    whose_by(call, registered, subject, registered.policy.trust)
}

fn whose_by(
    call: &Call,
    registered: &Registered,
    subject: &str,
    trust: Trust,
) -> Result<(AccountName, Option<SessionId>), Denial> {
    if subject.starts_with('/') {
        let Some(Path::Object(Object::Session, Some(id))) = introspection::path(subject) else {
            return Err(Denial::not_found());
        };
        let id: SessionId = parse("subject", &id)?;
        let session = sessions::live(&call.daemon, &id)?
            .filter(|session| {
                session.application == registered.name && session.service_uid == call.caller.uid
            })
            .ok_or_else(Denial::not_found)?;
        return Ok((session.account, Some(id)));
    }
    if trust != Trust::Application {
        return Err(Denial::new(
            Code::SessionRequired,
            format!("applications.d/{}.toml: trust", registered.name),
            "this application's word is not enough: the subject has to be a live session",
        )
        .remedy("have the person log in, and give the session's path"));
    }
    let account: AccountName = parse("subject", subject)?;
    call.daemon.store.account(&registered.name, &account)?.ok_or_else(Denial::not_found)?;
    Ok((account, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_takes_the_place_of_its_sign_in_names_of_files() {
        let file = |path: &str| Output::File { path: path.as_bytes().to_vec(), append: false };
        let mut streams = Streams {
            input: Input::File(b"in.%a".to_vec()),
            output: file("%a%a/%b%%a"),
            error: Output::SameAsOutput,
        };
        of_index(&mut streams, 12);
        let error = Output::SameAsOutput;
        assert_eq!(
            streams,
            Streams { input: Input::File(b"in.12".to_vec()), output: file("1212/%b%12"), error }
        );
    }
}
