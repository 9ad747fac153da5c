//! From the ledger to the view: decoding records, catching up, making the view anew.

use std::sync::Arc;

use super::change::{Body, Entry, VERSION};
use super::error::{Damage, StoreError};
use super::folder::Folder;
use super::ledger::frame::KIND_CHANGE;
use super::ledger::{Frame, SharedIndex, Walk, name_of};
use super::rules;
use super::view::{Draft, View};

/// How many records are applied to the view at once.
const BATCH: usize = 1000;

/// A record, decoded.
pub(crate) fn entry(frame: &Frame) -> Result<Entry, StoreError> {
    let damage = |what: String| Damage {
        segment: name_of(frame.segment),
        record: frame.head.number,
        offset: frame.offset,
        what,
    };
    if frame.head.kind != KIND_CHANGE || frame.head.version != VERSION {
        let (kind, version) = (frame.head.kind, frame.head.version);
        return Err(StoreError::Newer(damage(format!(
            "records of sort {kind}, version {version}, are not known here"
        ))));
    }
    // The record has its hash, so these are the bytes that were written; another program wrote them.
    let body: Body = serde_json::from_slice(&frame.body)
        .map_err(|e| StoreError::Newer(damage(format!("the record cannot be read by this program: {e}"))))?;
    Ok(Entry { number: frame.head.number, at: body.at, actor: body.actor, change: body.change })
}

/// Applies to the view what it has not seen. `Ok(false)`: it is no view of this ledger.
pub(crate) fn catch_up(folder: &Arc<Folder>, index: &SharedIndex, view: &View) -> Result<bool, StoreError> {
    let mark = view.mark();
    let (identity, tip) = {
        let index = index.read();
        (index.identity, index.tip)
    };
    if mark.identity != identity || mark.number > tip.number {
        return Ok(false);
    }
    if mark.number == tip.number {
        return Ok(mark.hash == tip.hash);
    }
    let mut walk = Walk::new(Arc::clone(folder), index, mark.number + 1);
    let mut draft = Draft::new(view);
    let mut count = 0;
    while let Some(frame) = walk.advance()? {
        if frame.head.number == mark.number + 1 && frame.head.previous != mark.hash {
            return Ok(false);
        }
        let entry = entry(&frame)?;
        rules::apply(&entry.change, entry.number, entry.at, &mut draft).map_err(|error| match error {
            StoreError::Conflict { .. } | StoreError::NotFound { .. } => StoreError::Damaged(Damage {
                segment: name_of(frame.segment),
                record: entry.number,
                offset: frame.offset,
                what: format!("the record contradicts those before it: {error}"),
            }),
            other => other,
        })?;
        count += 1;
        if count == BATCH || frame.head.number == tip.number {
            view.show(std::mem::replace(&mut draft, Draft::new(view)).into_rows(), frame.head.tip());
            view.settle()?;
            count = 0;
        }
    }
    Ok(true)
}
