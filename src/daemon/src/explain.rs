//! `Manager.Explain`: what would be decided about a job.
//!
//! The daemon's part is what `Jobs.Run` decides by; the rest is decided by the launcher's child with the code of a run.
//! An application is told about itself only, and not without end: each answer costs a process of root's.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use deputy_core::application::DEFAULT_KIND;
use deputy_core::message::{ExplainRequest, Explanation, LauncherReply, LauncherRequest};
use deputy_core::project::ProjectKey;
use deputy_core::schedule::AccountKey;
use deputy_core::slurm::Executor;
use deputy_core::stream::Streams;
use deputy_core::{AccountName, Code, Denial, KindName};

use crate::acting;
use crate::authority::{About, Call, Granted};
use crate::bus::options::{Options, parse};
use crate::bus::record::Record;
use crate::daemon::Daemon;
use crate::directory::Registered;
use crate::jobs::asked;
use crate::jobs::ready::{Wanted, ready};
use crate::launcher::{ANSWER, LauncherError};
use crate::links;
use crate::store::{JobSpec, no_input, no_output};

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
    kind: KindName,
    argv: Vec<Vec<u8>>,
    directory: Option<Vec<u8>>,
    environment: Vec<Vec<u8>>,
    spec: JobSpec,
}

/// `Manager.Explain`.
pub async fn explain(call: Call, (mut options,): (Options,)) -> Result<Granted<(Record,)>, Denial> {
    let application = options.application()?;
    let account: AccountName =
        options.name("account")?.ok_or_else(|| Denial::invalid("the option account is needed"))?;
    let question = Question {
        account,
        project: options.name("project")?,
        kind: match options.name("kind")? {
            Some(kind) => kind,
            None => parse("kind", DEFAULT_KIND)?,
        },
        argv: options.list_of_bytes("argv")?.unwrap_or_default(),
        directory: options.bytes("directory")?,
        environment: options.list_of_bytes("environment")?.unwrap_or_default(),
        spec: JobSpec {
            bounds: asked::bounds(&mut options)?,
            gpus: asked::count(&mut options, "gpus")?.unwrap_or_default(),
            streams: Streams { input: no_input(), output: no_output(), error: no_output() },
            ..JobSpec::default()
        },
    };
    options.finish()?;
    let about = About {
        kind: Some(question.kind.clone()),
        argv: question.argv.clone(),
        ..About::application(application).account(&question.account)
    };
    let grant = call.authorize(about).await?;
    call.daemon.explanations.take(call.caller.uid, Instant::now())?;
    let registered = grant.application()?.clone();
    let decided = decide(&call.daemon, &registered, question).await;
    let record = match decided {
        Ok(rule) => Record::new().with("allowed", true).text("rule", rule),
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

/// The rule that allows the job, or the refusal.
async fn decide(daemon: &Daemon, registered: &Registered, question: Question) -> Result<String, Denial> {
    acting::active(daemon, registered, &question.account)?;
    let wanted = Wanted {
        account: &question.account,
        project: question.project.as_ref(),
        kind: &question.kind,
        argv: &question.argv,
        environment: &question.environment,
        spec: Some(&question.spec),
        executor: None,
    };
    let ready = ready(daemon, registered, &wanted).await?;
    if ready.executor == Executor::Local {
        if question.spec.gpus > 0 {
            daemon.tracker.queue().find_gpus(daemon).await;
        }
        let owner = AccountKey { application: registered.name.clone(), account: question.account.clone() };
        daemon.tracker.queue().would_enter(daemon, owner, &question.kind, &question.spec)?;
    }
    let request = LauncherRequest::Explain(ExplainRequest {
        application: registered.name.clone(),
        account: question.account,
        os_account: ready.os,
        kind: Some(question.kind),
        argv: question.argv,
        directory: question.directory,
        environment: question.environment,
        os_group: ready.defaults.os_group,
        bounds: question.spec.bounds,
    });
    match daemon.launcher.ask(&request, &[], ANSWER).await? {
        LauncherReply::Explained(Explanation::Allowed { rule }) => {
            Ok(format!("applications.d/{}.toml: {rule}", registered.name))
        }
        LauncherReply::Explained(Explanation::Refused(denial)) => {
            if let Some(link) = &ready.link {
                links::learn(daemon, link, &denial).await;
            }
            Err(denial)
        }
        _ => Err(LauncherError::Foreign.into()),
    }
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
