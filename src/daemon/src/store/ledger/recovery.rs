//! Finding the ledger's end: what is whole, what is an unacknowledged tail, and what is damage.
//!
//! A group is written only after the one before it is on disk. So a record that does not verify, with a whole record
//! of a *later* group behind it, was once on disk: that is damage. Without one, it belongs to the last group, which
//! nobody was told about unless a mark (the view's, or the one of an orderly close) says so.

use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use super::append::{Appender, NEW_SEGMENT, make_segment};
use super::disk::Disk;
use super::frame::{FRAME_HEAD, Head, SEGMENT_HEAD, SegmentHead, Tip};
use super::scan::{Frame, Scan, first_of, name_of};
use super::walk::check_chain;
use super::{Index, MAX_TAIL, SharedIndex, Span};
use crate::store::error::{Damage, StoreError};
use crate::store::folder::Folder;

/// An end of the ledger that was never acknowledged.
#[derive(Debug, Clone)]
pub struct Tail {
    /// Where it begins.
    pub damage: Damage,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A tail that was put aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutTail {
    /// The file in the ledger's folder that keeps it; `None` when only the group's count was short.
    pub kept: Option<String>,
    /// How many bytes.
    pub bytes: u64,
}

/// What a look at the ledger found; nothing was changed yet.
#[derive(Debug)]
pub struct Found {
    /// Whose ledger it is.
    pub identity: [u8; 16],
    /// The end of what verifies.
    pub tip: Tip,
    /// All segments; the last one's end is the end of what verifies.
    pub spans: Vec<Span>,
    /// Segments (from the oldest) that were not read yet.
    pub unchecked: usize,
    /// What comes after the end.
    pub tail: Option<Tail>,
    /// Where the last group begins in the last segment.
    pub group_start: u64,
}

/// The ledger's segments by name, with their lengths.
pub fn segments(folder: &Folder) -> Result<Vec<Span>, StoreError> {
    let mut spans = Vec::new();
    for name in folder.names()? {
        if let Some(first) = first_of(&name) {
            let length =
                folder.read(&name)?.metadata().map_err(|e| StoreError::io(folder.path().join(&name), e))?;
            spans.push(Span { first, end: length.len() });
        }
    }
    spans.sort_unstable_by_key(|span| span.first);
    Ok(spans)
}

/// Looks for the ledger's end. Reads the newest segments up to `check_bytes`, and always the last one. `None` when
/// there is no ledger.
pub fn inspect(
    folder: &Folder,
    check_bytes: u64,
    mut visit: impl FnMut(&Frame) -> Result<(), StoreError>,
) -> Result<Option<Found>, StoreError> {
    let mut spans = segments(folder)?;
    let Some((last, sealed)) = spans.split_last() else { return Ok(None) };
    if spans[0].first != 1 {
        let segment = name_of(spans[0].first);
        let what = "the segments before this one are missing".to_owned();
        return Err(StoreError::Damaged(Damage { segment, record: 1, offset: 0, what }));
    }
    let mut unchecked = sealed.len();
    let mut bytes = last.end;
    while unchecked > 0 && bytes + sealed[unchecked - 1].end <= check_bytes {
        unchecked -= 1;
        bytes += sealed[unchecked].end;
    }
    let (before, identity) = check_chain(folder, &sealed[unchecked..], None, None, &mut visit)?;
    let mut scan = Scan::open(folder, &name_of(last.first), None)?;
    if before.is_some_and(|tip| tip != scan.head().before)
        || identity.is_some_and(|identity| identity != scan.head().identity)
    {
        return Err(StoreError::Damaged(Damage {
            segment: name_of(last.first),
            record: last.first,
            offset: 0,
            what: "the segment does not continue the one before".to_owned(),
        }));
    }
    let tail = find_end(folder, &mut scan, &mut visit)?;
    let found = Found {
        identity: scan.head().identity,
        tip: scan.tip(),
        unchecked,
        tail,
        group_start: scan.group_start(),
        spans: {
            let last = spans.len() - 1;
            spans[last].end = scan.offset();
            spans
        },
    };
    Ok(Some(found))
}

/// Reads a last segment to the end of what verifies, and judges what comes after.
fn find_end(
    folder: &Folder,
    scan: &mut Scan,
    visit: &mut impl FnMut(&Frame) -> Result<(), StoreError>,
) -> Result<Option<Tail>, StoreError> {
    let damage = loop {
        match scan.advance() {
            Ok(Some(frame)) => visit(&frame)?,
            Ok(None) => return Ok(None),
            Err(StoreError::Damaged(damage)) => break damage,
            Err(error) => return Err(error),
        }
    };
    let length = scan.end() - scan.offset();
    if length > MAX_TAIL {
        let what = format!("{}, and more follows than one group can measure", damage.what);
        return Err(StoreError::Damaged(Damage { what, ..damage }));
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    let path = folder.path().join(&damage.segment);
    folder
        .read(&damage.segment)?
        .read_exact_at(&mut bytes, scan.offset())
        .map_err(|e| StoreError::io(path, e))?;
    match later_record(&scan.tip(), &bytes) {
        Some((head, at)) => {
            let what = format!(
                "{}; record {} at byte {} was written later and is whole",
                damage.what,
                head.number,
                scan.offset() + at
            );
            Err(StoreError::Damaged(Damage { what, ..damage }))
        }
        None => Ok(Some(Tail { damage, bytes })),
    }
}

/// A whole record in `bytes`, the tail after `tip`, that proves that the bytes before it were once on disk.
fn later_record(tip: &Tip, bytes: &[u8]) -> Option<(Head, u64)> {
    let torn_group = if tip.remaining > 0 { tip.group } else { tip.group + 1 };
    (0..bytes.len().saturating_sub(FRAME_HEAD - 1)).find_map(|at| {
        let (head_bytes, rest) = bytes[at..].split_first_chunk::<FRAME_HEAD>()?;
        let head = Head::decode(head_bytes).ok()?;
        // A record at the very beginning is whole, but does not continue the chain: no torn write makes that.
        let late = head.group > torn_group || at == 0;
        (late && head.verifies(head_bytes, rest.get(..head.length as usize)?)).then_some((head, at as u64))
    })
}

impl Found {
    /// Makes a new, empty ledger.
    pub fn create(folder: &Folder) -> Result<Self, StoreError> {
        let mut identity = [0; 16];
        rustix::rand::getrandom(&mut identity, rustix::rand::GetRandomFlags::empty())
            .map_err(|e| StoreError::io("getrandom", e))?;
        make_segment(folder, &name_of(1), &SegmentHead { identity, before: Tip::default() })?;
        folder.sync()?;
        let end = SEGMENT_HEAD as u64;
        Ok(Self {
            identity,
            tip: Tip::default(),
            spans: vec![Span { first: 1, end }],
            unchecked: 0,
            tail: None,
            group_start: end,
        })
    }

    /// Whether the last group was not written whole: its first records may be there, its last are not.
    pub fn is_cut_short(&self) -> bool {
        self.tail.is_some() || self.tip.remaining > 0
    }

    /// Checks the end against a mark made when a record was known to be on disk.
    pub fn check_mark(&self, whose: &str, number: u64, hash: &[u8; 32]) -> Result<(), StoreError> {
        let what = if number > self.tip.number {
            let here = self.tail.as_ref().map_or("the ledger ends here", |tail| tail.damage.what.as_str());
            format!("{here}, but {whose} says that record {number} was on disk")
        } else if number == self.tip.number && *hash != self.tip.hash {
            format!("record {number} is not the one that {whose} names")
        } else {
            return Ok(());
        };
        let last = self.spans.last().expect("there is a segment");
        let segment = name_of(last.first);
        Err(StoreError::Damaged(Damage { segment, record: self.tip.number + 1, offset: last.end, what }))
    }

    /// Puts an unacknowledged tail aside, makes sure that the last group is on disk, and opens the end for writing.
    pub fn open(
        self,
        folder: Arc<Folder>,
        segment_bytes: u64,
    ) -> Result<(Appender, SharedIndex, Option<CutTail>), StoreError> {
        folder.remove(NEW_SEGMENT)?;
        let cut_short = self.is_cut_short();
        let last = *self.spans.last().expect("there is a segment");
        let name = name_of(last.first);
        let disk = Disk::new(folder.write(&name)?);
        let failed = |step: &'static str| move |source| StoreError::Disk { step, source };
        let mut kept = None;
        if let Some(tail) = &self.tail {
            kept = Some(keep(&folder, self.tip.number + 1, &tail.bytes)?);
            disk.truncate(last.end).map_err(failed("cut"))?;
        }
        // The last group may have been written by a process that died before it learned whether the disk took it.
        // Its pages are written anew, so that this sync, on this description, speaks for them.
        let group = disk.read(self.group_start, last.end - self.group_start).map_err(failed("read"))?;
        disk.write(&group, self.group_start).map_err(failed("write"))?;
        disk.sync().map_err(failed("fdatasync"))?;
        let index = SharedIndex::new(Index { identity: self.identity, spans: self.spans, tip: self.tip });
        let cut = cut_short.then(|| CutTail { kept, bytes: self.tail.map_or(0, |t| t.bytes.len() as u64) });
        let appender = Appender {
            folder,
            index: index.clone(),
            disk,
            identity: self.identity,
            tip: self.tip,
            offset: last.end,
            segment_bytes,
            failed: None,
        };
        Ok((appender, index, cut))
    }
}

/// Writes the bytes of a tail to a file of their own.
fn keep(folder: &Folder, record: u64, bytes: &[u8]) -> Result<String, StoreError> {
    let names = folder.names()?;
    let name = (0..u32::MAX)
        .map(|n| format!("tail-{record:020}-{n}.cut"))
        .find(|name| !names.contains(name))
        .expect("some number is free");
    let mut file = folder.create(&name)?;
    let io = |e| StoreError::io(folder.path().join(&name), e);
    file.write_all(bytes).map_err(io)?;
    file.sync_all().map_err(io)?;
    folder.sync()?;
    Ok(name)
}
