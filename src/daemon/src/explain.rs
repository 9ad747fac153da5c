//! `Manager.Explain`: what would be decided about a job, or about a path.
//!
//! The daemon's part is what `Jobs.Run` and the calls of `.Files` decide by; the rest is decided by the launcher's child
//! with the code of a run, or of a file agent.
//! An application is told about itself only, and not without end: each answer costs a process of root's.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use deputy_core::application::DEFAULT_KIND;
use deputy_core::message::{
    ExplainPathRequest, ExplainRequest, Explanation, LauncherReply, LauncherRequest, PathAccess,
};
use deputy_core::project::ProjectKey;
use deputy_core::schedule::AccountKey;
use deputy_core::slurm::{Chosen, Executor, ExecutorChoice, SlurmRequest};
use deputy_core::stream::Streams;
use deputy_core::{AccountName, Code, Denial, KindName};

use crate::acting;
use crate::authority::{About, Call, Granted};
use crate::bus::options::{Options, parse};
use crate::bus::record::Record;
use crate::daemon::Daemon;
use crate::directory::Registered;
use crate::jobs::asked;
use crate::jobs::executor::slurm_request;
use crate::jobs::ready::{Wanted, ready};
use crate::launcher::{ANSWER, LauncherError};
use crate::store::Link;
use crate::store::{JobSpec, no_input, no_output};
use crate::{files, links};

/// How many explanations one uid has in a burst, and how long it takes to earn one more.
const BURST: u32 = 50;
const EARN: Duration = Duration::from_millis(200);

/// The most uids that are remembered; who has earned all back is forgotten.
const MAX_UIDS: usize = 1024;

/// How often each uid asked of late.
#[derive(Debug, Default)]
pub struct Rate(Mutex<HashMap<u32, (f64, Instant)>>);

impl Rate {
    /// Takes one of what a uid has, if there is one left.
    pub fn take(&self, uid: u32, now: Instant) -> Result<(), Denial> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = |(had, at): (f64, Instant)| {
            let earned = now.saturating_duration_since(at).as_secs_f64() / EARN.as_secs_f64();
            (had + earned).min(f64::from(BURST))
        };
        if all.len() >= MAX_UIDS {
            all.retain(|_, held| left(*held) < f64::from(BURST));
        }
        let has = all.get(&uid).map_or(f64::from(BURST), |held| left(*held));
        if has < 1.0 || (all.len() >= MAX_UIDS && !all.contains_key(&uid)) {
            return Err(Denial::new(
                Code::Busy,
                format!("{BURST} explanations at once, and one more each {} ms", EARN.as_millis()),
                "too many explanations were asked for",
            )
            .remedy("ask again in a moment; to find out about a job, run it"));
        }
        all.insert(uid, (has - 1.0, now));
        Ok(())
    }
}

/// What is asked about.
struct Question {
    account: AccountName,
    project: Option<ProjectKey>,
    what: What,
}

enum What {
    Job(Box<Job>),
    Path(Vec<u8>, PathAccess),
}

struct Job {
    kind: KindName,
    argv: Vec<Vec<u8>>,
    directory: Option<Vec<u8>>,
    environment: Vec<Vec<u8>>,
    spec: JobSpec,
    executor: Option<ExecutorChoice>,
}

/// `Manager.Explain`.
pub async fn explain(call: Call, (mut options,): (Options,)) -> Result<Granted<(Record,)>, Denial> {
    let application = options.application()?;
    let account: AccountName =
        options.name("account")?.ok_or_else(|| Denial::invalid("the option account is needed"))?;
    let project = options.name("project")?;
    let mut about = About::application(application).account(&account);
    let what = if let Some(path) = options.bytes("path")? {
        What::Path(path, access(&mut options)?)
    } else {
        let job = job(&mut options)?;
        about.kind = Some(job.kind.clone());
        about.argv.clone_from(&job.argv);
        What::Job(Box::new(job))
    };
    options.finish()?;
    let grant = call.authorize(about).await?;
    call.daemon.explanations.take(call.caller.uid, Instant::now())?;
    let registered = grant.application()?.clone();
    let question = Question { account, project, what };
    let decided = decide(&call.daemon, &registered, question).await;
    let record = match decided {
        Ok(record) => record.with("allowed", true),
        // A fault is no decision.
        Err(denial) if matches!(denial.code, Code::Internal | Code::LauncherUnavailable | Code::Busy) => {
            return Err(denial);
        }
        Err(denial) => Record::new()
            .with("allowed", false)
            .text("code", denial.code)
            .text("rule", denial.rule)
            .text("message", denial.message)
            .text("remedy", denial.remedy),
    };
    Ok(grant.answer((record,)))
}

/// What is to be done with a path.
fn access(options: &mut Options) -> Result<PathAccess, Denial> {
    match options.text("access")?.as_deref() {
        None | Some("read") => Ok(PathAccess::Read),
        Some("write") => Ok(PathAccess::Write),
        Some(_) => Err(Denial::invalid("the option access is read or write")),
    }
}

fn job(options: &mut Options) -> Result<Job, Denial> {
    Ok(Job {
        kind: match options.name("kind")? {
            Some(kind) => kind,
            None => parse("kind", DEFAULT_KIND)?,
        },
        argv: options.list_of_bytes("argv")?.unwrap_or_default(),
        directory: options.bytes("directory")?,
        environment: options.list_of_bytes("environment")?.unwrap_or_default(),
        spec: JobSpec {
            bounds: asked::bounds(options)?,
            gpus: asked::count(options, "gpus")?.unwrap_or_default(),
            streams: Streams { input: no_input(), output: no_output(), error: no_output() },
            slurm: asked::slurm(options)?,
            ..JobSpec::default()
        },
        executor: options.name("executor")?,
    })
}

/// The rule that allows it and, of a job, where it would run; or the refusal.
async fn decide(daemon: &Daemon, registered: &Registered, question: Question) -> Result<Record, Denial> {
    let Question { account, project, what } = question;
    let project = project.as_ref();
    acting::active(daemon, registered, &account)?;
    let (request, link, more) = match what {
        What::Job(job) => of_job(daemon, registered, account, project, *job).await?,
        What::Path(path, access) => {
            let whose = files::identity(daemon, registered, &account, project).await?;
            let link = daemon.store.link(&registered.name, &account)?.filter(|link| link.os == whose.os);
            let agent = whose.files_request();
            (LauncherRequest::ExplainPath(ExplainPathRequest { agent, path, access }), link, Record::new())
        }
    };
    match daemon.launcher.ask(&request, &[], ANSWER).await? {
        LauncherReply::Explained(Explanation::Allowed { rule }) => {
            Ok(more.text("rule", format!("applications.d/{}.toml: {rule}", registered.name)))
        }
        LauncherReply::Explained(Explanation::Refused(denial)) => {
            if let Some(link) = &link {
                links::learn(daemon, link, &denial).await;
            }
            Err(denial)
        }
        LauncherReply::Explained(Explanation::Kernel { errno, at }) => {
            Err(files::refused(errno, &if at.is_empty() { at } else { format!("; {at}") }))
        }
        _ => Err(LauncherError::Foreign.into()),
    }
}

/// Decides about a job as far as it can be decided here: what is to be asked of the launcher, the link, and where it would
/// run.
async fn of_job(
    daemon: &Daemon,
    registered: &Registered,
    account: AccountName,
    project: Option<&ProjectKey>,
    job: Job,
) -> Result<(LauncherRequest, Option<Link>, Record), Denial> {
    let wanted = Wanted {
        account: &account,
        project,
        kind: &job.kind,
        argv: &job.argv,
        environment: &job.environment,
        spec: &job.spec,
        executor: job.executor,
    };
    let mut ready = ready(daemon, registered, &wanted).await?;
    if ready.executor == Executor::Local {
        if job.spec.gpus > 0 {
            daemon.tracker.queue().find_gpus(daemon).await;
        }
        let owner = AccountKey { application: registered.name.clone(), account: account.clone() };
        if !ready.needs_room() {
            daemon.tracker.queue().would_enter(daemon, owner, &job.kind, &job.spec)?;
        } else if !daemon.tracker.queue().would_start(daemon, owner, &job.kind, &job.spec)? {
            ready.without_room();
        }
    }
    let slurm = (ready.executor == Executor::Slurm)
        .then(|| SlurmRequest { cluster: ready.cluster.clone(), ..slurm_request(&job.spec) });
    let where_it_runs = Record::new()
        .with("executor", ready.executor.as_str())
        .maybe("cluster", slurm.as_ref().and(ready.cluster.as_ref()).map(ToString::to_string))
        .maybe("chosen", ready.chosen.map(Chosen::as_str));
    let request = ExplainRequest {
        application: registered.name.clone(),
        account,
        os_account: ready.os,
        kind: Some(job.kind),
        argv: job.argv,
        directory: job.directory,
        environment: job.environment,
        os_group: ready.defaults.os_group,
        bounds: job.spec.bounds,
        slurm,
    };
    Ok((LauncherRequest::Explain(request), ready.link, where_it_runs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_uid_uses_up_its_own_explanations_and_earns_them_back() {
        let (rate, start) = (Rate::default(), Instant::now());
        for _ in 0..BURST {
            rate.take(900, start).unwrap();
        }
        assert_eq!(rate.take(900, start).unwrap_err().code, Code::Busy);
        rate.take(901, start).unwrap();
        rate.take(900, start + EARN).unwrap();
        assert_eq!(rate.take(900, start + EARN).unwrap_err().code, Code::Busy);
        for uid in 0..5000 {
            let _ = rate.take(uid, start);
        }
        assert!(rate.0.lock().unwrap().len() <= MAX_UIDS);
        // Whoever earned all back makes room for others.
        rate.take(9999, start + EARN * (BURST + 2)).unwrap();
    }
}
