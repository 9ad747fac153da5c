//! The view: sled, as the indexes over what the ledger says. Nothing rests on it: it can be made anew at any time.

mod blocks;
pub(crate) mod keys;
mod mark;
mod open;
mod recent;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::StoreError;
use super::folder::Folder;
use super::ledger::Tip;
use recent::Recent;

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
    /// What the database says about itself. Who writes holds it all the time.
    mark: Mutex<Mark>,
    recent: RwLock<Recent>,
    folder: Arc<Folder>,
    failure: Mutex<Option<String>>,
}

impl View {
    fn new(db: sled::Db, mark: Mark, folder: Arc<Folder>) -> Self {
        let (db, mark, failure) = (RwLock::new(Some(db)), Mutex::new(mark), Mutex::new(None));
        Self { db, mark, recent: RwLock::default(), folder, failure }
    }

    /// What the database says about itself.
    pub fn mark(&self) -> Mark {
        *self.mark.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why nothing is read or written here any more.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The view cannot be trusted any more: the first failure stays, and the next start makes the view anew, whatever
    /// becomes of this process.
    pub fn fail(&self, why: String) -> StoreError {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let first = failure.get_or_insert_with(|| {
            tracing::error!(%why, "the view of the ledger failed; the next start makes it anew");
            if let Err(error) = open::forget(&self.folder) {
                tracing::error!(%error, "the view could not be marked as failed");
            }
            why
        });
        StoreError::View(first.clone())
    }

    /// Runs `work` on the database. sled panics where it should answer with an error; that stays here.
    fn with<T>(&self, work: impl FnOnce(&sled::Db) -> Result<T, String>) -> Result<T, StoreError> {
        let guard = self.db.read().unwrap_or_else(PoisonError::into_inner);
        let db = guard.as_ref().ok_or(StoreError::Closed)?;
        if let Some(why) = self.failure() {
            return Err(StoreError::View(why));
        }
        guarded(|| work(db)).map_err(|why| self.fail(why))
    }

    /// A record from its row.
    pub fn decode<T: DeserializeOwned>(&self, value: &[u8]) -> Result<T, StoreError> {
        serde_json::from_slice(value).map_err(|error| self.fail(format!("a row is not a record: {error}")))
    }

    /// A row.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        // Held until the database was asked: a row that goes from here to there is seen once at least.
        let recent = self.recent();
        if let Some(why) = self.failure() {
            return Err(StoreError::View(why));
        }
        recent.row_over(key, || self.with(|db| blocks::get(db, key)))
    }

    /// A row, decoded.
    pub fn record<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, StoreError> {
        self.get(key)?.map(|value| self.decode(&value)).transpose()
    }

    /// Up to `count` rows whose keys begin with `prefix`, in order, after the key `after`.
    pub fn rows(&self, prefix: &[u8], after: Option<&[u8]>, count: usize) -> Result<Vec<Row>, StoreError> {
        let low = after.map_or_else(|| prefix.to_vec(), next_after);
        self.range(&low, end_of(prefix).as_deref(), false, count)
    }

    /// Up to `count` rows from the key `low` up to the key `high`, that one not included: the first ones in order, or
    /// the last ones against it.
    pub fn range(
        &self,
        low: &[u8],
        high: Option<&[u8]>,
        backwards: bool,
        count: usize,
    ) -> Result<Vec<Row>, StoreError> {
        let walk = if backwards { blocks::backwards } else { blocks::forwards };
        self.recent()
            .rows_over(low, high, backwards, count, |count| self.with(|db| walk(db, low, high, count)))
    }

    fn recent(&self) -> RwLockReadGuard<'_, Recent> {
        self.recent.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows the rows of a group, which ends with this record. The database gets them with [`View::settle`].
    pub fn show(&self, rows: Rows, tip: Tip) {
        let _writing = self.mark.lock().unwrap_or_else(PoisonError::into_inner);
        self.recent.write().unwrap_or_else(PoisonError::into_inner).add(rows, tip);
    }

    /// How long until [`View::settle`] is due, if there is anything to settle.
    pub fn due_in(&self, gather: Duration) -> Option<Duration> {
        self.recent().due_in(gather)
    }

    /// Writes what is shown into the database, together with the mark.
    pub fn settle(&self) -> Result<(), StoreError> {
        let mut held = self.mark.lock().unwrap_or_else(PoisonError::into_inner);
        // Readers go on: as long as a row is in both places it is the same in both.
        if let Some((rows, tip)) = self.recent().all() {
            let mut mark = *held;
            let mut batch = sled::Batch::default();
            self.with(|db| blocks::change(db, rows, &mut mark, &mut batch))?;
            mark.number = tip.number;
            mark.hash = tip.hash;
            batch.insert(keys::MARK, mark.encode());
            self.with(|db| db.apply_batch(batch).map_err(blocks::text))?;
            *held = mark;
        }
        *self.recent.write().unwrap_or_else(PoisonError::into_inner) = Recent::default();
        Ok(())
    }

    /// Reads every row once, and compares with the mark. Nothing may be written meanwhile.
    fn check(&self) -> Result<(), String> {
        let mark = self.mark();
        let mut seen = Mark { rows: 0, sum: 0, ..mark };
        self.with(|db| blocks::each(db, |key, value| seen.add(key, value))).map_err(|e| e.to_string())?;
        if seen == mark { Ok(()) } else { Err("its rows are not those that its mark counts".to_owned()) }
    }

    /// Settles and flushes, and lets go of the database.
    pub fn shut(&self) -> Result<(), StoreError> {
        self.settle()?;
        let db = self.db.write().unwrap_or_else(PoisonError::into_inner).take();
        let Some(db) = db else { return Ok(()) };
        guarded(move || db.flush().map(drop).map_err(blocks::text)).map_err(StoreError::View)
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
            Some(row) => row.as_deref().map(|row| self.decode(row)).transpose(),
            None => self.view.record(key),
        }
    }

    /// A record from its row.
    pub fn decode<T: DeserializeOwned>(&self, value: &[u8]) -> Result<T, StoreError> {
        self.view.decode(value)
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
            let part = self.view.rows(prefix, after.as_deref(), PART)?;
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

/// Runs calls of sled's, and makes an error of a panic.
fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err("sled panicked".to_owned()))
}

/// The first key after all those that begin with `prefix`.
pub(crate) fn end_of(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// The first key after this one.
pub(crate) fn next_after(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}
