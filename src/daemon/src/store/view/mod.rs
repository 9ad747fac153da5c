//! The view: sled, as the indexes over what the ledger says. Nothing rests on it: it can be made anew at any time.

pub(crate) mod keys;
mod mark;
mod open;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError, RwLock};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::StoreError;
use super::ledger::Tip;
pub(crate) use mark::Mark;
pub(crate) use open::{Place, Usable};

/// The rows that a group of changes writes, by key; `None` removes.
pub(crate) type Rows = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// A key and its value.
pub(crate) type Row = (Vec<u8>, Vec<u8>);

/// An open view.
#[derive(Debug)]
pub(crate) struct View {
    db: RwLock<Option<sled::Db>>,
    mark: Mutex<Mark>,
}

impl View {
    fn new(db: sled::Db, mark: Mark) -> Self {
        Self { db: RwLock::new(Some(db)), mark: Mutex::new(mark) }
    }

    /// What the view says about itself.
    pub fn mark(&self) -> Mark {
        *self.mark.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` on the database. sled panics where it should answer with an error; that stays here.
    fn with<T>(&self, work: impl FnOnce(&sled::Db) -> sled::Result<T>) -> Result<T, StoreError> {
        let guard = self.db.read().unwrap_or_else(PoisonError::into_inner);
        let db = guard.as_ref().ok_or(StoreError::Closed)?;
        guarded(|| work(db)).map_err(StoreError::View)
    }

    /// A row.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.with(|db| db.get(key))?.map(|value| value.to_vec()))
    }

    /// A row, decoded.
    pub fn record<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, StoreError> {
        self.with(|db| db.get(key))?.map(|value| decode(&value)).transpose()
    }

    /// Up to `count` rows whose keys begin with `prefix`, in order or against it, after the key `after`.
    pub fn rows(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        backwards: bool,
        count: usize,
    ) -> Result<Vec<Row>, StoreError> {
        let prefix_end = end_of(prefix);
        let high = prefix_end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let range: (Bound<&[u8]>, Bound<&[u8]>) = match (after, backwards) {
            (None, _) => (Bound::Included(prefix), high),
            (Some(after), false) => (Bound::Excluded(after), high),
            (Some(after), true) => (Bound::Included(prefix), Bound::Excluded(after)),
        };
        self.with(|db| {
            let rows = db.range::<&[u8], _>(range);
            let owned = |row: sled::Result<(sled::IVec, sled::IVec)>| {
                row.map(|(key, value)| (key.to_vec(), value.to_vec()))
            };
            if backwards {
                rows.rev().take(count).map(owned).collect()
            } else {
                rows.take(count).map(owned).collect()
            }
        })
    }

    /// Writes the rows of a group together with the mark.
    pub fn apply(&self, rows: &Rows, tip: &Tip) -> Result<(), StoreError> {
        let mut held = self.mark.lock().unwrap_or_else(PoisonError::into_inner);
        let mut mark = *held;
        let mut batch = sled::Batch::default();
        for (key, value) in rows {
            if let Some(old) = self.with(|db| db.get(key))? {
                mark.subtract(key, &old);
            }
            if let Some(value) = value {
                mark.add(key, value);
                batch.insert(key.as_slice(), value.as_slice());
            } else {
                batch.remove(key.as_slice());
            }
        }
        mark.number = tip.number;
        mark.hash = tip.hash;
        batch.insert(keys::MARK, mark.encode());
        self.with(|db| db.apply_batch(batch))?;
        *held = mark;
        Ok(())
    }

    /// Reads every row once, and compares with the mark. Nothing may be written meanwhile.
    fn check(&self) -> Result<(), String> {
        let mark = self.mark();
        let mut seen = Mark { rows: 0, sum: 0, ..mark };
        self.with(|db| {
            for row in db.iter() {
                let (key, value) = row?;
                if key.as_ref() != keys::MARK {
                    seen.add(&key, &value);
                }
            }
            Ok(())
        })
        .map_err(|e| e.to_string())?;
        if seen == mark { Ok(()) } else { Err("its rows are not those that its mark counts".to_owned()) }
    }

    /// Reads every row, so that a page that sled cannot read is found before it is needed. Works beside writes.
    pub fn read_all(&self, stop: impl Fn() -> bool) -> Result<(), StoreError> {
        let mut after = Vec::new();
        while !stop() {
            // In parts: the database must not be held when the store is closed.
            let Some((last, _)) = self.rows(&[], Some(&after), false, 1000)?.pop() else { break };
            after = last;
        }
        Ok(())
    }

    /// Flushes and lets go of the database.
    pub fn shut(&self) -> Result<(), StoreError> {
        let db = self.db.write().unwrap_or_else(PoisonError::into_inner).take();
        let Some(db) = db else { return Ok(()) };
        guarded(move || db.flush().map(drop)).map_err(StoreError::View)
    }
}

/// Changes that are checked but not on disk yet, over the view.
pub(crate) struct Draft<'v> {
    view: &'v View,
    rows: Rows,
}

impl<'v> Draft<'v> {
    /// A draft without changes.
    pub fn new(view: &'v View) -> Self {
        Self { view, rows: Rows::new() }
    }

    /// A row as it will be.
    pub fn record<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, StoreError> {
        match self.rows.get(key) {
            Some(row) => row.as_deref().map(decode).transpose(),
            None => self.view.record(key),
        }
    }

    /// Whether a row will be there.
    pub fn has(&self, key: &[u8]) -> Result<bool, StoreError> {
        match self.rows.get(key) {
            Some(row) => Ok(row.is_some()),
            None => Ok(self.view.get(key)?.is_some()),
        }
    }

    /// All rows whose keys begin with `prefix`, as they will be. For prefixes that few rows have.
    pub fn rows(&self, prefix: &[u8]) -> Result<Vec<Row>, StoreError> {
        const PART: usize = 1000;
        let mut found = BTreeMap::new();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let part = self.view.rows(prefix, after.as_deref(), false, PART)?;
            after = part.last().map(|(key, _)| key.clone());
            let whole = part.len() < PART;
            found.extend(part);
            if whole {
                break;
            }
        }
        for (key, value) in self.rows.range(prefix.to_vec()..).take_while(|(key, _)| key.starts_with(prefix))
        {
            match value {
                Some(value) => found.insert(key.clone(), value.clone()),
                None => found.remove(key),
            };
        }
        Ok(found.into_iter().collect())
    }

    /// Writes a record.
    pub fn put<T: Serialize>(&mut self, key: Vec<u8>, record: &T) {
        let value = serde_json::to_vec(record).expect("records have string keys only");
        self.rows.insert(key, Some(value));
    }

    /// Writes the bytes of an index entry.
    pub fn put_entry(&mut self, key: Vec<u8>, value: &str) {
        self.rows.insert(key, Some(value.as_bytes().to_vec()));
    }

    /// Removes a row.
    pub fn remove(&mut self, key: Vec<u8>) {
        self.rows.insert(key, None);
    }

    /// The rows to write.
    pub fn into_rows(self) -> Rows {
        self.rows
    }
}

/// A record from its row.
pub(crate) fn decode<T: DeserializeOwned>(value: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(value).map_err(|e| StoreError::View(format!("a row is not a record: {e}")))
}

/// Runs a call of sled's, and makes an error of a panic.
fn guarded<T>(work: impl FnOnce() -> sled::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("sled panicked".to_owned()),
    }
}

/// The first key after all those that begin with `prefix`.
fn end_of(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}
