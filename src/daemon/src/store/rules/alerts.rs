//! What becomes of alerts about quotas.

use deputy_core::{AccountName, ApplicationName};

use super::{conflict, need_account, pair};
use crate::store::change::Change;
use crate::store::clock::Timestamp;
use crate::store::error::StoreError;
use crate::store::record::Alert;
use crate::store::view::{Draft, keys};

pub(super) fn apply(change: &Change, at: Timestamp, draft: &mut Draft<'_>) -> Result<(), StoreError> {
    let Change::QuotaAlert { application, account, os, place, whose, of, threshold, used, limit } = change
    else {
        return Ok(());
    };
    need_account(draft, application, account)?;
    let key = keys::alert(application, account, place, *whose, *of);
    let old: Option<Alert> = draft.record(&key)?;
    // Who looked at the same time has said so already.
    if old.as_ref().map_or(0, |old| old.threshold) == *threshold {
        return Err(conflict("alert", pair(application, account), "it stands there already"));
    }
    if *threshold == 0 {
        draft.remove(key);
        return Ok(());
    }
    let alert = Alert {
        application: application.clone(),
        account: account.clone(),
        os: os.clone(),
        place: place.clone(),
        whose: *whose,
        of: *of,
        threshold: *threshold,
        used: *used,
        limit: *limit,
        since: at,
    };
    draft.put(key, &alert);
    Ok(())
}

/// The account acts as that OS account no more.
pub(super) fn forget(
    draft: &mut Draft<'_>,
    application: &ApplicationName,
    account: &AccountName,
) -> Result<(), StoreError> {
    for (key, _) in draft.rows(&keys::alerts_of(application, account))? {
        draft.remove(key);
    }
    Ok(())
}
