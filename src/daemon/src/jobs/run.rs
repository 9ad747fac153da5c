//! `Jobs.Run`.
//!
//! The way of an ordinary job: the caller's uid and the application from memory, the link from the view, one commit of
//! the job's id, one request to the launcher. Nothing else waits.

use std::sync::Arc;

use deputy_core::application::{DEFAULT_KIND, Trust};
use deputy_core::message::RunRequest;
use deputy_core::project::ProjectKey;
use deputy_core::{AccountName, Code, Denial, JobId, KindName, SessionId};
use zbus::OwnedObjectPath;

use super::ready::{self, Ready, Wanted};
use super::stdio::Stdio;
use crate::acting;
use crate::authority::{About, Call, Granted};
use crate::bus::introspection::{self, Path, job_path};
use crate::bus::options::{Options, parse};
use crate::bus::table::Object;
use crate::directory::Registered;
use crate::launcher::{Channel, LauncherError};
use crate::store::{Argument, Change, Job, JobState};
use crate::{links, random, sessions};

/// The most bytes of arguments and environment together; the kernel takes about as much.
const MAX_WORDS: usize = 1 << 20;

/// What is asked for, as far as the message alone tells.
struct Asked {
    project: Option<ProjectKey>,
    kind: KindName,
    argv: Vec<Vec<u8>>,
    directory: Option<Vec<u8>>,
    environment: Vec<Vec<u8>>,
    stdio: Stdio,
}

fn asked(argv: Vec<Vec<u8>>, options: &mut Options) -> Result<Asked, Denial> {
    let kind = match options.name("kind")? {
        Some(kind) => kind,
        None => parse("kind", DEFAULT_KIND)?,
    };
    let directory = options.bytes("directory")?;
    if let Some(directory) = &directory
        && (directory.first() != Some(&b'/') || directory.contains(&0))
    {
        return Err(Denial::invalid("the option directory is not an absolute path"));
    }
    let stdio = Stdio::new(
        options.descriptor("stdin")?,
        options.descriptor("stdout")?,
        options.descriptor("stderr")?,
    )?;
    let environment = options.list_of_bytes("environment")?.unwrap_or_default();
    let bytes = argv.iter().chain(&environment).map(|word| word.len() + 1).sum::<usize>();
    if bytes > MAX_WORDS {
        return Err(Denial::invalid(format!("arguments and environment have more than {MAX_WORDS} bytes")));
    }
    let project = options.name("project")?;
    Ok(Asked { project, kind, argv, directory, environment, stdio })
}

/// `Jobs.Run`.
pub async fn run(
    call: Call,
    (subject, argv, mut options): (String, Vec<Vec<u8>>, Options),
) -> Result<Granted<(OwnedObjectPath,)>, Denial> {
    let application = options.application()?;
    let asked = asked(argv, &mut options)?;
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
    about.account = Some(account.clone());
    about.acting = acting::of_session(&call.daemon, &registered, session.as_ref())?;
    let acting = about.acting.clone();
    call.note(&about);
    let wanted = Wanted {
        account: &account,
        project: asked.project.as_ref(),
        kind: &asked.kind,
        argv: &asked.argv,
        environment: &asked.environment,
    };
    let mut ready = ready::ready(&call.daemon, &registered, &wanted).await?;
    about.os_user = Some(ready.os.name.clone());
    call.ask_too(&mut grant, about).await?;
    if call.method.asks.is_some_and(|(question, _)| registered.policy.ask_polkit.contains(&question)) {
        // The dialog may have taken minutes.
        whose_by(&call, &registered, &subject, trust)?;
        ready = ready::ready(&call.daemon, &registered, &wanted).await?;
    }
    let id = JobId::from_random(random::bytes()?);
    let change = Change::JobQueued {
        id: id.clone(),
        application: registered.name.clone(),
        account: account.clone(),
        os: ready.os.clone(),
        kind: asked.kind.clone(),
        argv: asked.argv.iter().cloned().map(Argument).collect(),
        cwd: asked.directory.clone().map(Argument),
        project: asked.project.clone(),
        session: session.clone(),
    };
    let mut actor = grant.actor()?;
    if acting.is_some() {
        // Both names are in the log: whose job it is, and who asked for it.
        actor.by = acting;
    }
    // The launcher forks while the disk works; it hears nothing of the job before the job is in the ledger.
    let (opened, committed) =
        tokio::join!(call.daemon.tracker.open(), call.daemon.store.commit(change, actor));
    let committed = committed?;
    let job = Job {
        id: id.clone(),
        number: committed.number,
        application: registered.name.clone(),
        account: account.clone(),
        os: ready.os.clone(),
        kind: asked.kind.clone(),
        argv: Vec::new(),
        cwd: None,
        project: asked.project.clone(),
        session,
        state: JobState::Queued {},
        queued: committed.at,
        started: None,
        ended: None,
    };
    launch(&call, opened, asked, ready, job).await?;
    let path =
        OwnedObjectPath::try_from(job_path(&id)).map_err(|error| Denial::internal(error.to_string()))?;
    Ok(grant.answer((path,)))
}

async fn launch(
    call: &Call,
    opened: Result<Channel, LauncherError>,
    asked: Asked,
    ready: Ready,
    job: Job,
) -> Result<(), Denial> {
    let request = RunRequest {
        job: job.id.clone(),
        application: job.application.clone(),
        account: job.account.clone(),
        os_account: job.os.clone(),
        kind: Some(asked.kind),
        argv: asked.argv,
        directory: asked.directory,
        environment: asked.environment,
        umask: ready.defaults.umask,
        os_group: ready.defaults.os_group,
    };
    let launched = call.daemon.tracker.launch(job, opened, request, &asked.stdio, call.daemon.null()).await;
    if let (Err(denial), Some(link)) = (&launched, &ready.link) {
        links::learn(&call.daemon, link, denial).await;
    }
    launched
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
