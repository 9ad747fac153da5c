//! The end of a lease: searched, quarantined, searched again, free.

use deputy_core::denial::{Code, Denial};
use deputy_core::message::Returned;
use deputy_core::names::{AccountName, ApplicationName};
use deputy_core::pool::{PoolRecord, PoolSettings, PoolState};
use deputy_core::settings::Settings;
use deputy_wire::Peer;

use super::{map, of_machine, only_root, records, search};
use crate::consents;

/// When the uid of a returned lease can be somebody else's at the earliest, seconds since 1970.
pub fn quarantine_ends(pool: &PoolSettings, record: &PoolRecord) -> u64 {
    record.since.saturating_add(pool.quarantine_seconds)
}

/// Takes a lease back: into quarantine, and after its time to the free ones. What is left of it is listed, and keeps it
/// where it is.
pub fn give_back(
    settings: &Settings,
    application: &ApplicationName,
    account: &AccountName,
    peer: Peer,
) -> Result<Returned, Denial> {
    only_root(peer, "takes leases back")?;
    let pool = of_machine(settings)?;
    let before = records::of_account(application, account)?.ok_or_else(Denial::not_found)?;
    if before.state == PoolState::Free {
        return Ok(Returned { record: before, left: Vec::new(), more: false });
    }
    if before.state == PoolState::Quarantined {
        // A return that died in between is finished here.
        consents::end_lease(&before, peer.uid)?;
        map::renew(pool)?;
        let left = quarantine_ends(pool, &before).saturating_sub(consents::now());
        if left > 0 {
            return Err(Denial::new(
                Code::Conflict,
                "deputy.toml: pool.quarantine_seconds",
                format!("{} is in quarantine for {left} seconds more", before.os_account.name),
            )
            .remedy("nothing has to be done: it can be leased again after that if nothing is left of it"));
        }
    }
    // Without the turn: this can take as long as the folders are large.
    let found = search::of(&before.os_account, pool, settings)?;
    if !found.is_empty() {
        let (left, more) = found.into_list();
        return Ok(Returned { record: before, left, more });
    }
    let record = {
        let _turn = records::turn()?;
        if records::of_account(application, account)?.as_ref() != Some(&before) {
            return Err(
                Denial::new(Code::Conflict, "pool", "the lease has changed meanwhile").remedy("ask again")
            );
        }
        // First what allows anything to start, so that a return that dies here has taken that at least.
        consents::end_lease(&before, peer.uid)?;
        let state = match before.state {
            PoolState::Leased => PoolState::Quarantined,
            PoolState::Quarantined | PoolState::Free => PoolState::Free,
        };
        let record = PoolRecord { state, since: consents::now(), ..before };
        records::write(&record)?;
        record
    };
    map::renew(pool)?;
    tracing::info!(
        event = "pool_returned",
        application = %application,
        account = %account,
        os_user = %record.os_account.name,
        uid = record.os_account.uid.raw(),
        state = record.state.as_str(),
    );
    Ok(Returned { record, left: Vec::new(), more: false })
}
