//! The ledger: append-only segments of records, each chained to the one before by a hash.
//!
//! A group of records is written with one write and put on disk with one `fdatasync`; the next group is written only
//! after that returned. Everything about recovery rests on this order.

mod append;
mod disk;
pub(crate) mod frame;
mod recovery;
mod scan;
#[cfg(test)]
mod tests;
mod walk;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub(crate) use append::Appender;
pub(crate) use frame::{MAX_BODY, Tip};
#[cfg(test)]
pub(crate) use recovery::CutTail;
pub(crate) use recovery::{Found, inspect, segments};
pub(crate) use scan::{Frame, Scan, name_of};
pub(crate) use walk::{Walk, check_chain};

/// The most bytes of bodies that one group takes before it is closed.
pub(crate) const GROUP_BYTES: usize = 4 << 20;
/// The most records of one group.
pub(crate) const GROUP_RECORDS: usize = 1024;
/// The most that an unacknowledged end can measure: one group.
pub(crate) const MAX_TAIL: u64 = (GROUP_BYTES + MAX_BODY + GROUP_RECORDS * frame::FRAME_HEAD) as u64;

/// One segment: its first record, and the byte up to which it is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub first: u64,
    pub end: u64,
}

/// What is on disk, for readers beside the writer.
#[derive(Debug)]
pub(crate) struct Index {
    pub identity: [u8; 16],
    pub spans: Vec<Span>,
    pub tip: Tip,
}

/// The index, shared by the writer and the readers.
#[derive(Debug, Clone)]
pub(crate) struct SharedIndex(Arc<RwLock<Index>>);

impl SharedIndex {
    pub fn new(index: Index) -> Self {
        Self(Arc::new(RwLock::new(index)))
    }

    // The index is only ever replaced by whole values, so a panic elsewhere leaves it sound.
    pub fn read(&self) -> RwLockReadGuard<'_, Index> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn write(&self) -> RwLockWriteGuard<'_, Index> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
