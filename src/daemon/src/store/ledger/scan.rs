//! Reading a segment from its beginning, record by record, checking the chain on the way.

use std::fs::File;
use std::io::{BufReader, Read as _};

use super::frame::{FRAME_HEAD, Head, SEGMENT_HEAD, SegmentHead, Tip};
use crate::store::error::{Damage, StoreError};
use crate::store::folder::Folder;

/// One record as it is on disk.
#[derive(Debug, Clone)]
pub struct Frame {
    pub head: Head,
    pub body: Vec<u8>,
    /// The first record of its segment.
    pub segment: u64,
    /// Where it begins in the segment.
    pub offset: u64,
}

/// A reader of one segment.
#[derive(Debug)]
pub struct Scan {
    name: String,
    reader: BufReader<File>,
    head: SegmentHead,
    tip: Tip,
    offset: u64,
    group_start: u64,
    end: u64,
    path: std::path::PathBuf,
}

impl Scan {
    /// Opens segment `name` and reads its head. `end` is where to stop: the durable end, for one that is written.
    pub fn open(folder: &Folder, name: &str, end: Option<u64>) -> Result<Self, StoreError> {
        let path = folder.path().join(name);
        let mut file = folder.read(name)?;
        let length = file.metadata().map_err(|e| StoreError::io(&path, e))?.len();
        let mut bytes = [0; SEGMENT_HEAD];
        let bad = |what: &str| {
            let record = first_of(name).unwrap_or(0);
            StoreError::Damaged(Damage { segment: name.to_owned(), record, offset: 0, what: what.to_owned() })
        };
        if length < SEGMENT_HEAD as u64 {
            return Err(bad("the segment is shorter than its head"));
        }
        file.read_exact(&mut bytes).map_err(|e| StoreError::io(&path, e))?;
        let head = SegmentHead::decode(&bytes).map_err(bad)?;
        if first_of(name) != Some(head.before.number + 1) {
            return Err(bad("the segment's head and its name disagree"));
        }
        if end.is_some_and(|end| end > length) {
            return Err(bad("the segment is shorter than it was"));
        }
        Ok(Self {
            name: name.to_owned(),
            reader: BufReader::with_capacity(64 << 10, file),
            head,
            tip: head.before,
            offset: SEGMENT_HEAD as u64,
            group_start: SEGMENT_HEAD as u64,
            end: end.unwrap_or(length),
            path,
        })
    }

    /// The segment's head.
    pub fn head(&self) -> &SegmentHead {
        &self.head
    }

    /// The end of the chain so far.
    pub fn tip(&self) -> Tip {
        self.tip
    }

    /// The byte after the last record so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The byte where the last group so far begins.
    pub fn group_start(&self) -> u64 {
        self.group_start
    }

    /// Where the reading stops.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// What is wrong at the present place.
    pub fn damage(&self, what: impl Into<String>) -> Damage {
        Damage {
            segment: self.name.clone(),
            record: self.tip.number + 1,
            offset: self.offset,
            what: what.into(),
        }
    }

    /// The next record, verified; `None` at the end.
    pub fn advance(&mut self) -> Result<Option<Frame>, StoreError> {
        let Some((head, head_bytes)) = self.next_head()? else { return Ok(None) };
        let mut body = vec![0; head.length as usize];
        self.reader.read_exact(&mut body).map_err(|e| StoreError::io(&self.path, e))?;
        if !head.verifies(&head_bytes, &body) {
            return Err(StoreError::Damaged(self.damage("the record does not have its hash")));
        }
        head.follows(&self.tip).map_err(|what| StoreError::Damaged(self.damage(what)))?;
        Ok(Some(self.step(head, body)))
    }

    /// Goes on to just before record `number`, by the records' lengths alone.
    pub fn skip_to(&mut self, number: u64) -> Result<(), StoreError> {
        while self.tip.number + 1 < number {
            let Some((head, _)) = self.next_head()? else { return Ok(()) };
            head.follows(&self.tip).map_err(|what| StoreError::Damaged(self.damage(what)))?;
            self.reader.seek_relative(i64::from(head.length)).map_err(|e| StoreError::io(&self.path, e))?;
            self.step(head, Vec::new());
        }
        Ok(())
    }

    fn next_head(&mut self) -> Result<Option<(Head, [u8; FRAME_HEAD])>, StoreError> {
        let left = self.end - self.offset;
        if left == 0 {
            return Ok(None);
        }
        if left < FRAME_HEAD as u64 {
            return Err(StoreError::Damaged(self.damage("the record is not whole")));
        }
        let mut bytes = [0; FRAME_HEAD];
        self.reader.read_exact(&mut bytes).map_err(|e| StoreError::io(&self.path, e))?;
        let head = Head::decode(&bytes).map_err(|what| StoreError::Damaged(self.damage(what)))?;
        if head.frame_length() > left {
            return Err(StoreError::Damaged(self.damage("the record is not whole")));
        }
        Ok(Some((head, bytes)))
    }

    fn step(&mut self, head: Head, body: Vec<u8>) -> Frame {
        let offset = self.offset;
        if head.group != self.tip.group {
            self.group_start = offset;
        }
        self.offset += head.frame_length();
        self.tip = head.tip();
        Frame { head, body, segment: self.head.before.number + 1, offset }
    }
}

/// The name of the segment whose first record is `number`.
pub fn name_of(number: u64) -> String {
    format!("{number:020}.ledger")
}

/// The first record of the segment of that name; `None` if it is no segment's name.
pub fn first_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".ledger")?;
    (digits.len() == 20).then(|| digits.parse().ok()).flatten()
}
