//! `Jobs.Run`.
//!
//! The way of an ordinary job: the caller's uid and the application from memory, the link from the view, one commit of
//! the job's id, one request to the launcher. Nothing else waits.

use std::sync::Arc;

use deputy_core::application::Trust;
use deputy_core::message::JobCommand;
use deputy_core::project::ProjectKey;
use deputy_core::slurm::Executor;
use deputy_core::{AccountName, ApplicationName, Code, Denial, JobId, KindName, SessionId};
use tokio::sync::mpsc;
use zbus::OwnedObjectPath;

use super::admit::{Opened, Waiting};
use super::asked::{Asked, Needs};
use super::live::Live;
use super::queue::Place;
use super::ready::{self, Ready, Wanted};
use crate::acting;
use crate::authority::{About, Call, Granted};
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
    let mut asked = Asked::new(argv, &mut options)?;
    options.finish()?;
    let mut grant = call.authorize(About::application(application)).await?;
    let registered = Arc::clone(grant.application()?);
    let mut about = About {
        kind: Some(asked.kind.clone()),
        argv: asked.argv.clone(),
        ..About::application(Some(registered.name.clone()))
    };
    call.note(&about);
    let trust = trust(&registered, &asked.kind);
    let (account, session) = whose_by(&call, &registered, &subject, trust)?;
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
        spec: Some(&asked.spec),
        executor: asked.executor,
    };
    let mut ready = ready::ready(&call.daemon, &registered, &wanted).await?;
    about.os_user = Some(ready.os.name.clone());
    call.ask_too(&mut grant, about).await?;
    if call.method.asks.is_some_and(|(question, _)| registered.policy.ask_polkit.contains(&question)) {
        // The dialog may have taken minutes.
        whose_by(&call, &registered, &subject, trust)?;
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
    let place = match &asked.watch {
        Some(_) => Some(call.daemon.limits.watches.enter(call.caller.uid)?),
        None => None,
    };
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
    let (live, commands, opened) = accept(&call.daemon, accepted, ready, actor).await?;
    if let (Some(watch), Some(place)) = (watch, place) {
        live.watch_by(watch, place);
    }
    let path = job_path(&live.job().id);
    call.daemon.tracker.admit(Waiting { live, commands, descriptors }, opened).await?;
    let path = OwnedObjectPath::try_from(path).map_err(|error| Denial::internal(error.to_string()))?;
    Ok(grant.answer((path,)))
}

/// A job that may be, by everything that can be decided here.
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
    ready: Ready,
    actor: Actor,
) -> Result<(Arc<Live>, mpsc::Receiver<JobCommand>, Option<Opened>), Denial> {
    let Accepted { application, account, kind, argv, directory, project, session, mut spec } = accepted;
    spec.service = ready.service;
    spec.executor = ready.executor;
    daemon.store.boot().clone_into(&mut spec.boot);
    // A project only takes bits away, and so does a request.
    spec.umask = match (spec.umask, ready.defaults.umask) {
        (Some(asked), Some(default)) => Some(asked | default),
        (asked, default) => asked.or(default),
    };
    spec.os_group = spec.os_group.or(ready.defaults.os_group);
    let mut job = Job {
        id: JobId::from_random(random::bytes()?),
        number: 0,
        application,
        account,
        os: ready.os,
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
        reason: None,
    };
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
    let local = job.spec.executor == Executor::Local;
    if job.spec.gpus > 0 && local {
        daemon.tracker.queue().find_gpus(daemon).await;
    }
    // Another engine has a queue of its own.
    let place = if local { Some(daemon.tracker.queue().enter(daemon, &job)?) } else { None };
    // The launcher forks while the disk works; it hears nothing of the job before the job is in the ledger.
    let (opened, committed) = if place.as_ref().is_none_or(Place::starts) {
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
