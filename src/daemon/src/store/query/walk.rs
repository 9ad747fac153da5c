//! Walking along rows for one page, with bounded work.
//!
//! A page ends when it is full, when the rows end, or when its work is done: then it comes short, with the mark where
//! the next one goes on. Each mark is the key of the last row that was looked at, so pages that are joined have no row
//! twice and leave out none that stayed where it was.

use serde::de::DeserializeOwned;

use crate::store::Store;
use crate::store::error::StoreError;
use crate::store::page::{Cursor, Page, PageRequest};
use crate::store::view::{end_of, next_after};

/// How many rows may be looked at for a page of up to [`EVEN`] items.
const WORK: usize = 2100;
/// How many rows a look-up counts for: it goes to a place of its own.
const LOOK_UP: usize = 20;
/// A page of more items than this may look at more.
const EVEN: usize = WORK / (1 + LOOK_UP);
/// The fewest rows that are read at once.
const PART: usize = 64;

/// What one page may still cost, in rows.
#[derive(Debug)]
pub struct Work {
    left: usize,
    /// How many rows were looked at, and how many looked up.
    #[cfg(test)]
    pub done: (usize, usize),
}

impl Work {
    /// For a page of so many items: at least what they cost themselves.
    pub fn for_items(limit: usize) -> Self {
        Self::of(WORK.max(WORK * limit / EVEN))
    }

    /// As much as so many rows cost.
    pub fn of(rows: usize) -> Self {
        Self {
            left: rows,
            #[cfg(test)]
            done: (0, 0),
        }
    }

    /// A row is looked at, if there is work left for it.
    fn row(&mut self) -> bool {
        #[cfg(test)]
        if self.left > 0 {
            self.done.0 += 1;
        }
        let some = self.left > 0;
        self.left = self.left.saturating_sub(1);
        some
    }

    /// A row is looked up elsewhere.
    pub fn look_up(&mut self) {
        #[cfg(test)]
        {
            self.done.1 += 1;
        }
        self.left = self.left.saturating_sub(LOOK_UP);
    }
}

/// The rows to walk along.
#[derive(Debug)]
pub struct Rows {
    /// What their keys, and the marks of pages, begin with.
    pub prefix: Vec<u8>,
    /// The ranges of keys, in order: from the first one up to the second, that one not included.
    pub ranges: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Rows {
    /// All that begin so.
    pub fn below(prefix: Vec<u8>) -> Self {
        Self { ranges: vec![(prefix.clone(), end_of(&prefix))], prefix }
    }
}

impl Store {
    /// A page of the rows below `prefix`, as `pick` makes items of them. `pick` looks at nothing else.
    pub(in crate::store) fn page<T>(
        &self,
        prefix: &[u8],
        backwards: bool,
        page: &PageRequest,
        pick: impl Fn(&[u8], &[u8]) -> Result<Option<T>, StoreError>,
    ) -> Result<Page<T>, StoreError> {
        self.page_of_entries(prefix, backwards, page, |_, key, row| pick(key, row))
    }

    /// A page of the entries below `prefix`; `pick` looks up what they stand for, with [`Store::looked_up`].
    pub(in crate::store) fn page_of_entries<T>(
        &self,
        prefix: &[u8],
        backwards: bool,
        page: &PageRequest,
        pick: impl FnMut(&mut Work, &[u8], &[u8]) -> Result<Option<T>, StoreError>,
    ) -> Result<Page<T>, StoreError> {
        let mut work = Work::for_items(page.limit());
        self.walk(&Rows::below(prefix.to_vec()), backwards, page, &mut work, pick)
    }

    /// A page of the rows of some ranges.
    pub(super) fn walk<T>(
        &self,
        rows: &Rows,
        backwards: bool,
        page: &PageRequest,
        work: &mut Work,
        mut pick: impl FnMut(&mut Work, &[u8], &[u8]) -> Result<Option<T>, StoreError>,
    ) -> Result<Page<T>, StoreError> {
        let mut last = page.after.as_ref().map(Cursor::key).transpose()?;
        if last.as_ref().is_some_and(|key| !key.starts_with(&rows.prefix)) {
            return Err(StoreError::Cursor);
        }
        let limit = page.limit();
        // One more than the page has, to see whether there is a next one.
        let part = (limit + 1).max(PART);
        let mut items = Vec::new();
        let count = rows.ranges.len();
        for at in 0..count {
            let (low, high) = &rows.ranges[if backwards { count - 1 - at } else { at }];
            loop {
                let (low, high) = beyond(low, high.as_deref(), last.as_deref(), backwards);
                if high.as_ref().is_some_and(|high| low >= *high) {
                    break;
                }
                let found = self.inner.view.range(&low, high.as_deref(), backwards, part)?;
                let whole = found.len() < part;
                for (key, value) in found {
                    if items.len() == limit || !work.row() {
                        return Ok(Page { items, next: last.as_deref().map(Cursor::new) });
                    }
                    items.extend(pick(work, &key, &value)?);
                    last = Some(key);
                }
                if whole {
                    break;
                }
            }
        }
        Ok(Page { items, next: None })
    }

    /// A record from its row.
    pub(in crate::store) fn decoded<T: DeserializeOwned>(&self, row: &[u8]) -> Result<T, StoreError> {
        self.inner.view.decode(row)
    }

    /// A record that is not where the walk is.
    pub(in crate::store) fn looked_up<T: DeserializeOwned>(
        &self,
        work: &mut Work,
        key: &[u8],
    ) -> Result<Option<T>, StoreError> {
        work.look_up();
        self.inner.view.record(key)
    }
}

/// What is left of a range behind the last row.
fn beyond(
    low: &[u8],
    high: Option<&[u8]>,
    last: Option<&[u8]>,
    backwards: bool,
) -> (Vec<u8>, Option<Vec<u8>>) {
    let (mut low, mut high) = (low.to_vec(), high.map(<[u8]>::to_vec));
    match last {
        Some(last) if backwards && high.as_deref().is_some_and(|high| last >= high) => {}
        Some(last) if backwards => high = Some(last.to_vec()),
        Some(last) => low = low.max(next_after(last)),
        None => {}
    }
    (low, high)
}
