//! Writing groups of records at the ledger's end.

use std::sync::Arc;

use super::disk::Disk;
use super::frame::{self, SEGMENT_HEAD, SegmentHead, Tip};
use super::scan::name_of;
use super::{SharedIndex, Span};
use crate::store::error::StoreError;
use crate::store::folder::Folder;

/// Where a new segment is made before it gets its name.
pub const NEW_SEGMENT: &str = "segment.new";

/// The ledger's end, held by the one thread that writes.
#[derive(Debug)]
pub struct Appender {
    pub(super) folder: Arc<Folder>,
    pub(super) index: SharedIndex,
    pub(super) disk: Disk,
    pub(super) identity: [u8; 16],
    pub(super) tip: Tip,
    pub(super) offset: u64,
    pub(super) segment_bytes: u64,
    /// Why nothing may be written any more.
    pub(super) failed: Option<String>,
}

impl Appender {
    /// The end of the chain on disk.
    pub fn tip(&self) -> Tip {
        self.tip
    }

    /// Why nothing may be written any more.
    pub fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    #[cfg(test)]
    pub fn faults(&self) -> super::disk::Faults {
        self.disk.faults.clone()
    }

    /// Writes the bodies as one group. When this returns, they are on disk, or none of them is in the ledger.
    pub fn append(&mut self, version: u16, bodies: &[Vec<u8>]) -> Result<(), StoreError> {
        if let Some(why) = &self.failed {
            return Err(StoreError::ReadOnly(why.clone()));
        }
        if self.offset >= self.segment_bytes {
            self.rotate()?;
        }
        let mut bytes = Vec::with_capacity(bodies.iter().map(|b| b.len() + frame::FRAME_HEAD).sum());
        let group = self.tip.group + 1;
        let mut tip = self.tip;
        for (body, remaining) in bodies.iter().zip((0..bodies.len()).rev()) {
            let remaining = u32::try_from(remaining).unwrap_or(u32::MAX);
            tip = frame::encode(&mut bytes, &tip, group, remaining, version, body);
        }
        if let Err(source) = self.disk.write(&bytes, self.offset) {
            // Nothing that is acknowledged was touched: with the half-written bytes gone, the next group may try.
            if let Err(again) = self.disk.truncate(self.offset) {
                self.failed =
                    Some(format!("a write failed ({source}), and taking it back did too ({again})"));
            }
            return Err(StoreError::Disk { step: "write", source });
        }
        if let Err(source) = self.disk.sync() {
            // The kernel may have marked the unwritten pages clean, so a second sync would prove nothing. Opening
            // the ledger again writes its last group anew; until then nothing is taken.
            let taken_back = self.disk.truncate(self.offset).is_ok();
            self.failed =
                Some(format!("fdatasync of the ledger failed ({source}); taken back: {taken_back}"));
            return Err(StoreError::Disk { step: "fdatasync", source });
        }
        self.tip = tip;
        self.offset += bytes.len() as u64;
        let mut index = self.index.write();
        index.tip = tip;
        index.spans.last_mut().expect("there is a segment").end = self.offset;
        Ok(())
    }

    /// Goes over to a new segment.
    fn rotate(&mut self) -> Result<(), StoreError> {
        let name = name_of(self.tip.number + 1);
        let head = SegmentHead { identity: self.identity, before: self.tip };
        let disk = make_segment(&self.folder, &name, &head)?;
        if let Err(error) = self.folder.sync() {
            // Whether the new name is on disk is not known.
            self.failed = Some(format!("the ledger's folder could not be put on disk: {error}"));
            return Err(error);
        }
        self.disk = disk;
        self.offset = SEGMENT_HEAD as u64;
        self.index.write().spans.push(Span { first: self.tip.number + 1, end: self.offset });
        Ok(())
    }
}

/// Makes a segment with nothing but its head. It has its name only when the head is on disk; the caller syncs the
/// folder.
pub fn make_segment(folder: &Folder, name: &str, head: &SegmentHead) -> Result<Disk, StoreError> {
    folder.remove(NEW_SEGMENT)?;
    let disk = Disk::new(folder.create(NEW_SEGMENT)?);
    let failed = |step: &'static str| move |source| StoreError::Disk { step, source };
    disk.write(&head.encode(), 0).map_err(failed("new segment"))?;
    disk.sync().map_err(failed("new segment"))?;
    folder.rename(NEW_SEGMENT, name)?;
    Ok(disk)
}
