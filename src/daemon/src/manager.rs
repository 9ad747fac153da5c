//! `.Manager`: how Deputy does.

use crate::authority::{Call, Granted};
use crate::bus::record::{Record, findings, list};
use crate::daemon::Daemon;
use crate::launcher::{ANSWER, LauncherError};
use deputy_core::message::LauncherRequest;
use deputy_core::{Code, Denial, JobId};

/// `Manager.Status`.
pub async fn status(call: Call, (): ()) -> Result<Granted<(Record,)>, Denial> {
    let grant = call.authorize_public()?;
    let daemon = &call.daemon;
    let mut status = Record::new().text("version", env!("CARGO_PKG_VERSION"));
    if call.caller.uid == 0 {
        let (number, hash) = daemon.store.head();
        status = status
            .with("applications", u32::try_from(grant.snapshot.names().len()).unwrap_or(u32::MAX))
            .with("live_jobs", u32::try_from(daemon.tracker.live()).unwrap_or(u32::MAX))
            .with("ledger_records", number)
            .text("ledger_head", hash)
            .maybe("ledger_stopped", daemon.store.stopped())
            .with("launcher", launcher_answers(daemon).await)
            .with("findings", list(findings(&grant.snapshot.findings(None))));
    } else if let Some(own) = grant.maybe_application() {
        status = status
            .text("application", &own.name)
            .with("findings", list(findings(&grant.snapshot.findings(Some(&own.name)))));
    }
    Ok(grant.answer((status,)))
}

/// Whether the launcher answers: it is asked about a job that nobody has.
pub(crate) async fn launcher_answers(daemon: &Daemon) -> String {
    let nobodys = LauncherRequest::Attach { job: JobId::from_random([0; JobId::BYTES]) };
    match daemon.launcher.ask(&nobodys, &[], ANSWER).await {
        Err(LauncherError::Denied(denial)) if denial.code == Code::NotFound => "answers".into(),
        Ok(_) => LauncherError::Foreign.to_string(),
        Err(error) => error.to_string(),
    }
}
