//! `.Manager`: how Deputy does.

use crate::authority::{Call, Granted};
use crate::bus::record::{Record, findings, list};
use deputy_core::Denial;

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
            .with("findings", list(findings(&grant.snapshot.findings(None))));
    } else if let Some(own) = grant.maybe_application() {
        status = status
            .text("application", &own.name)
            .with("findings", list(findings(&grant.snapshot.findings(Some(&own.name)))));
    }
    Ok(grant.answer((status,)))
}
