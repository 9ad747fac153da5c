//! Lists in pages.

use serde::{Deserialize, Serialize};

use super::error::StoreError;
use super::ledger::frame::hex;

/// The most items of a page, whatever was asked for.
pub const MAX_PAGE: usize = 1000;

/// Where the next page begins. It means something only to the query that gave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor(String);

impl Cursor {
    pub(crate) fn new(key: &[u8]) -> Self {
        Self(hex(key))
    }

    pub(crate) fn key(&self) -> Result<Vec<u8>, StoreError> {
        let digits = self.0.as_bytes();
        if !digits.len().is_multiple_of(2) || digits.len() > 1024 {
            return Err(StoreError::Cursor);
        }
        let digit = |byte: u8| {
            (byte as char).to_digit(16).and_then(|d| u8::try_from(d).ok()).ok_or(StoreError::Cursor)
        };
        digits.chunks(2).map(|pair| Ok(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
    }
}

impl From<String> for Cursor {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<Cursor> for String {
    fn from(cursor: Cursor) -> String {
        cursor.0
    }
}

/// Which page is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest {
    /// The most items wanted; at most [`MAX_PAGE`].
    pub limit: usize,
    /// The end of the page before; `None` for the first.
    pub after: Option<Cursor>,
}

impl Default for PageRequest {
    fn default() -> Self {
        Self { limit: 100, after: None }
    }
}

impl PageRequest {
    /// The first page.
    pub fn first(limit: usize) -> Self {
        Self { limit, after: None }
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit.clamp(1, MAX_PAGE)
    }
}

/// One page of a list. It may hold fewer items than were asked for, even none, and still have a next one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Page<T> {
    /// The items, in the list's order.
    pub items: Vec<T>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<Cursor>,
}
