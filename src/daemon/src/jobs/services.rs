//! Services: jobs that are started again, after their end as their kind says, and when the machine has been started.
//!
//! Each start is a new job that names the one before. Which ones go on is in the ledger: the latest job of a service stays
//! on a list until a new job follows it, or it is recorded that none will. So a restart of the daemon loses none and starts
//! none twice.

use std::sync::Arc;
use std::time::Duration;

use deputy_core::job::{EndCause, JobEnd};
use deputy_core::kind::{Kind, Restart};
use deputy_core::{Code, Denial, JobId};
use tokio::time::sleep;

use super::admit::Waiting;
use super::live::ended;
use super::ready;
use super::run::{Accepted, accept};
use super::stdio::Descriptors;
use super::track::Tracker;
use crate::daemon::Daemon;
use crate::directory::Registered;
use crate::store::{Actor, Change, Job, JobSpec, JobState, PageRequest, StoreError};

/// How long a service has to have run to be started again after the short pause.
const STEADY_US: u64 = 10_000_000;

/// The pauses before a service is started again: after a steady run, and after a short one or a refusal that may pass.
const PAUSES: [Duration; 2] = if cfg!(test) {
    [Duration::from_millis(20), Duration::from_millis(100)]
} else {
    [Duration::from_secs(1), Duration::from_secs(10)]
};

/// Whether a service goes on after this job of its, and if not, why.
fn goes_on(job: &Job, kind: Option<&Kind>, boot: &str) -> Result<(), &'static str> {
    let Some(kind) = kind.filter(|kind| kind.service) else {
        return Err("its kind is no service any more");
    };
    let of_another_boot = job.spec.boot != boot;
    let rule = kind.restart.unwrap_or_default();
    match &job.state {
        JobState::Ended { cause: Some(EndCause::Cancelled), .. } => Err("it was cancelled"),
        JobState::Ended { cause: Some(EndCause::ConsentRevoked), .. } => Err("the consent was taken back"),
        // It ran when the machine went down, and ends as that has it.
        _ if of_another_boot => Ok(()),
        JobState::Abandoned { .. } => Err("it was refused, or given up before it started"),
        _ if rule == Restart::Never => Err("its kind is started again only when the machine is"),
        JobState::Ended { end: JobEnd::Exited { code: 0 }, .. } if rule == Restart::OnFailure => {
            Err("it ended well")
        }
        _ => Ok(()),
    }
}

/// Whether a refusal may be none a little later.
fn passes(denial: &Denial) -> bool {
    matches!(
        denial.code,
        Code::LauncherUnavailable | Code::Busy | Code::QueueFull | Code::Disk | Code::Internal
    )
}

impl Tracker {
    /// Looks after the services that ended while the daemon was away.
    pub(super) fn take_up_services(&self) -> Result<(), StoreError> {
        let mut request = PageRequest::first(1000);
        loop {
            let page = self.0.store.services(&request)?;
            page.items.into_iter().filter(|job| !job.state.is_open()).for_each(|job| self.service_ended(job));
            match page.next {
                Some(next) => request.after = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// A job of a service has ended, and that is in the ledger.
    pub(super) fn service_ended(&self, job: Job) {
        let tracker = self.clone();
        let mut stopping = self.stopping();
        tokio::spawn(async move {
            tokio::select! {
                () = tracker.next_of_service(job) => {}
                _ = stopping.wait_for(|stop| *stop) => {}
            }
        });
    }

    async fn next_of_service(&self, job: Job) {
        let ran = job.started.zip(job.ended).map_or(0, |(start, end)| end.0.saturating_sub(start.0));
        let mut pause = PAUSES[usize::from(ran < STEADY_US)];
        loop {
            let Some(daemon) = self.0.daemon.upgrade() else { return };
            let snapshot = daemon.directory.snapshot();
            let registered = match snapshot.get(&job.application) {
                Some(Ok(registered)) => registered,
                // A file that is wrong may be put right; one that is gone takes its services with it.
                Some(Err(_)) => {
                    drop(daemon);
                    sleep(PAUSES[1]).await;
                    continue;
                }
                None => return self.stop_service(&job.id, "the application is gone").await,
            };
            if let Err(reason) = goes_on(&job, registered.policy.kinds.get(&job.kind), self.0.store.boot()) {
                return self.stop_service(&job.id, reason).await;
            }
            drop(daemon);
            sleep(pause).await;
            let Some(daemon) = self.0.daemon.upgrade() else { return };
            match self.start_again(&daemon, &registered, &job).await {
                Ok(()) => return,
                // Somebody said meanwhile that it stops.
                Err(denial) if denial.code == Code::Conflict => return,
                Err(denial) if passes(&denial) => pause = PAUSES[1],
                Err(denial) => {
                    let reason = format!("{}: {}", denial.code, denial.message);
                    return self.stop_service(&job.id, &reason).await;
                }
            }
        }
    }

    async fn start_again(
        &self,
        daemon: &Arc<Daemon>,
        registered: &Arc<Registered>,
        job: &Job,
    ) -> Result<(), Denial> {
        let ready = ready::again(daemon, registered, job).await?;
        if ready.os != job.os {
            return Err(Denial::new(
                Code::LinkStale,
                "links",
                "the account is linked to another OS account now",
            ));
        }
        let accepted = Accepted {
            application: job.application.clone(),
            account: job.account.clone(),
            kind: job.kind.clone(),
            argv: job.argv.iter().map(|argument| argument.0.clone()).collect(),
            directory: job.cwd.as_ref().map(|directory| directory.0.clone()),
            project: job.project.clone(),
            // Its session may be long over: a service goes on for as long as there is consent.
            session: None,
            spec: JobSpec { predecessor: Some(job.id.clone()), ..job.spec.clone() },
        };
        let (live, commands, opened) = accept(daemon, accepted, ready, Actor::daemon("service")).await?;
        let waiting = Waiting { live, commands, descriptors: Descriptors::default() };
        // What becomes of it from here on is the new job's own end.
        if let Err(denial) = self.admit(waiting, opened).await {
            tracing::info!(code = %denial.code, "a service was refused");
        }
        Ok(())
    }

    async fn stop_service(&self, job: &JobId, reason: &str) {
        let change = Change::ServiceStopped { id: job.clone(), reason: reason.to_owned() };
        self.commit(change).await;
    }

    /// Somebody cancels the job of a service that has ended and would be started again.
    pub(super) async fn cancel_service(&self, job: &Job, actor: Actor) -> Result<(), Denial> {
        if !job.spec.service {
            return Err(ended());
        }
        let change = Change::ServiceStopped { id: job.id.clone(), reason: "it was cancelled".to_owned() };
        match self.0.store.commit(change, actor).await {
            Err(StoreError::Conflict { .. }) => Err(ended()),
            other => other.map(drop).map_err(Denial::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::shown::tests::job;
    use super::*;
    use deputy_core::application::Application;
    use deputy_core::job::{Enforcement, Usage};
    use deputy_core::stream::Captured;

    fn after(rule: &str, boot: &str, state: JobState) -> bool {
        let text = format!(
            "service_uid = 900\n[kinds.batch]\ncommands = [\"*\"]\nservice = true\nrestart = \"{rule}\"\n"
        );
        let application = Application::parse(&text).unwrap();
        let mut job = job(state);
        boot.clone_into(&mut job.spec.boot);
        goes_on(&job, application.kinds.get(&job.kind), "this").is_ok()
    }

    fn done(end: JobEnd, cause: Option<EndCause>) -> JobState {
        let (usage, captured) = (Usage::default(), Captured::default());
        JobState::Ended { end, cause, usage, captured, enforcement: Enforcement::default() }
    }

    #[test]
    fn a_service_goes_on_as_its_kind_says_and_never_against_its_owner() {
        let well = || done(JobEnd::Exited { code: 0 }, None);
        let badly = || done(JobEnd::Exited { code: 1 }, None);
        let lost = || JobState::Lost { cause: String::new() };
        for (rule, expected) in
            [("never", [false, false, false]), ("on-failure", [false, true, true]), ("always", [true; 3])]
        {
            assert_eq!([well(), badly(), lost()].map(|state| after(rule, "this", state)), expected, "{rule}");
            // What ran when the machine went down is started again.
            assert!(after(rule, "before", lost()) && after(rule, "before", well()), "{rule}");
            for boot in ["this", "before"] {
                for cause in [EndCause::Cancelled, EndCause::ConsentRevoked] {
                    let ended = done(JobEnd::Signaled { signal: 15, core: false }, Some(cause));
                    assert!(!after(rule, boot, ended), "{rule} {cause:?}");
                }
            }
            assert!(!after(rule, "this", JobState::Abandoned { cause: "NoConsent".into() }), "{rule}");
        }
        assert!(goes_on(&job(badly()), None, "this").is_err());
    }
}
