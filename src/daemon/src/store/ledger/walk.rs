//! Reading records across segments.

use std::sync::Arc;

use super::frame::Tip;
use super::scan::{Frame, Scan, name_of};
use super::{SharedIndex, Span};
use crate::store::error::{Damage, StoreError};
use crate::store::folder::Folder;

/// Records in order, from some number to what was on disk when the walk began.
#[derive(Debug)]
pub struct Walk {
    folder: Arc<Folder>,
    identity: [u8; 16],
    spans: std::vec::IntoIter<Span>,
    scan: Option<Scan>,
    from: u64,
}

impl Walk {
    /// A walk that begins with record `from`.
    pub fn new(folder: Arc<Folder>, index: &SharedIndex, from: u64) -> Self {
        let index = index.read();
        let start = index.spans.partition_point(|span| span.first <= from).saturating_sub(1);
        let spans: Vec<Span> = index.spans[start..].into();
        Self { folder, identity: index.identity, spans: spans.into_iter(), scan: None, from }
    }

    /// The next record, verified.
    pub fn advance(&mut self) -> Result<Option<Frame>, StoreError> {
        loop {
            if let Some(scan) = &mut self.scan
                && let Some(frame) = scan.advance()?
            {
                return Ok(Some(frame));
            }
            let Some(next) = self.spans.next() else { return Ok(None) };
            let before = self.scan.as_ref().map(Scan::tip);
            let mut scan = open_next(&self.folder, &next, before, Some(&self.identity))?;
            scan.skip_to(self.from)?;
            self.scan = Some(scan);
        }
    }
}

/// Opens the segment that follows `before`, and checks that it does.
fn open_next(
    folder: &Folder,
    next: &Span,
    before: Option<Tip>,
    identity: Option<&[u8; 16]>,
) -> Result<Scan, StoreError> {
    let name = name_of(next.first);
    let scan = Scan::open(folder, &name, Some(next.end))?;
    let bad = |what: &str| {
        StoreError::Damaged(Damage {
            segment: name.clone(),
            record: next.first,
            offset: 0,
            what: what.to_owned(),
        })
    };
    if identity.is_some_and(|identity| scan.head().identity != *identity) {
        return Err(bad("the segment belongs to another ledger"));
    }
    if before.is_some_and(|tip| scan.head().before != tip) {
        return Err(bad("the segment does not continue the one before"));
    }
    Ok(scan)
}

/// Verifies whole segments, and gives the last scan, at the end of its segment. `visit` sees every record and may
/// stop the check by an error.
pub fn check_chain(
    folder: &Folder,
    spans: &[Span],
    mut before: Option<Tip>,
    mut identity: Option<[u8; 16]>,
    mut visit: impl FnMut(&Frame) -> Result<(), StoreError>,
) -> Result<(Option<Tip>, Option<[u8; 16]>), StoreError> {
    for span in spans {
        let mut scan = open_next(folder, span, before, identity.as_ref())?;
        while let Some(frame) = scan.advance()? {
            visit(&frame)?;
        }
        before = Some(scan.tip());
        identity = Some(scan.head().identity);
    }
    Ok((before, identity))
}
