//! Following a list through its tree: to each entry by the names of the list, and then whether it is what was found
//! there.
//!
//! Folders are opened with `O_PATH` only, and nothing is listed: what is not on the list is never looked at.

use std::os::fd::OwnedFd;

use deputy_core::denial::Denial;
use deputy_core::rebind::{Entry, Item, ProblemKind};

use super::records::ListReader;
use super::tree::{Found, Way, look, open_entry, why};

/// What is at the place of an entry.
pub type There = Result<(OwnedFd, Found), (ProblemKind, String)>;

/// What a visitor is shown.
pub enum Visit<'a> {
    /// An entry.
    Entry {
        /// What the list says.
        item: &'a Item,
        /// Of a folder: since when it had not changed when it was listed ([`Entry::Enter`]).
        steady: Option<(i64, u32)>,
        /// What is there now: the very inode of the list, or why not.
        there: &'a There,
        /// Its path below the top.
        path: &'a dyn Fn() -> Vec<u8>,
    },
    /// The end of a folder.
    Leave,
}

/// A walk along a list.
pub struct Follow {
    list: ListReader,
    top: Option<OwnedFd>,
    way: Way,
    /// The folders at the end of the present way that could not be entered.
    lost: Vec<Vec<u8>>,
}

impl Follow {
    /// From the tree's top, which is open.
    pub fn new(list: ListReader, top: OwnedFd) -> Self {
        Self { list, top: Some(top), way: Way::new(), lost: Vec::new() }
    }

    /// Shows every entry from `start` on, until the end or until the visitor says that it is enough. Of those before,
    /// only folders are opened. The result: the place behind the last entry that was shown.
    pub fn each(
        mut self,
        start: u64,
        mut visit: impl FnMut(u64, Visit<'_>) -> Result<bool, Denial>,
    ) -> Result<u64, Denial> {
        let mut next = 0;
        while let Some((index, entry)) = self.list.next()? {
            next = index + 1;
            let go_on = match entry {
                Entry::Enter { item, steady } => {
                    let there = self.open(&item);
                    let go_on = index < start || self.show(index, &item, steady, &there, &mut visit)?;
                    match there {
                        Ok((folder, _)) => self.way.enter(item.name, item.identity, folder),
                        Err(_) => self.lost.push(item.name),
                    }
                    go_on
                }
                Entry::Item(item) if index >= start => {
                    let there = self.open(&item);
                    self.show(index, &item, None, &there, &mut visit)?
                }
                Entry::Leave => {
                    if self.lost.pop().is_none() {
                        // Where the way back was lost there is no folder, and nothing in it is found.
                        let _ = self.way.leave();
                    }
                    index < start || visit(index, Visit::Leave)?
                }
                Entry::Item(_) | Entry::End { .. } => true,
            };
            if !go_on {
                break;
            }
        }
        Ok(next)
    }

    fn show(
        &self,
        index: u64,
        item: &Item,
        steady: Option<(i64, u32)>,
        there: &There,
        visit: &mut impl FnMut(u64, Visit<'_>) -> Result<bool, Denial>,
    ) -> Result<bool, Denial> {
        let path = || self.way.path(&self.lost, &item.name);
        visit(index, Visit::Entry { item, steady, there, path: &path })
    }

    fn open(&mut self, item: &Item) -> There {
        let gone = || (ProblemKind::Gone, "its folder is no longer there".to_owned());
        if !self.lost.is_empty() {
            return Err(gone());
        }
        let entry = match self.top.take() {
            Some(top) => top,
            None => open_entry(self.way.folder().map_err(|_| gone())?, &item.name).map_err(why)?,
        };
        let found = look(&entry).map_err(why)?;
        if found.identity != item.identity {
            return Err((ProblemKind::Changed, "something else has its name now".into()));
        }
        Ok((entry, found))
    }
}
