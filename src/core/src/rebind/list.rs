//! The list of a plan: every folder of the tree and everything that is moved, in the order of the walk.
//!
//! It holds what an entry was: to go back is to put that back. A frame is four bytes of length and an entry in
//! postcard's encoding; the last entry says how many there were, so that a list that was cut is noticed.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::mapping::{Mapping, Owned, same};
use crate::acl::Acl;
use crate::message::FileKind;

/// The most bytes of a frame: a name, and four access lists of the largest size.
pub const MAX_FRAME: usize = 128 * 1024;

/// The bytes are no list.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the list of the plan is damaged")]
pub struct ListError;

/// What an inode is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The device of its file system.
    pub device: u64,
    /// Its number.
    pub inode: u64,
    /// When it was made, where the file system says so: numbers are used again.
    pub born: Option<(i64, u32)>,
    /// What it is.
    pub kind: FileKind,
}

/// What was there, of something that is moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The access list, if it is changed too.
    pub access: Option<Acl>,
    /// The folder's default list, if it is changed too.
    pub default: Option<Acl>,
    /// Whether it had file capabilities.
    pub capability: bool,
}

impl Change {
    /// What there was, so far as it changes; none if nothing does.
    pub fn new(mapping: &Mapping, before: Owned, capability: bool) -> Option<Self> {
        if !mapping.is_source(before.uid) {
            return None;
        }
        let after = mapping.apply(&before);
        let changed = |old: Option<Acl>, new: Option<&Acl>| old.filter(|old| !same(Some(old), new));
        Some(Self {
            uid: before.uid,
            gid: before.gid,
            access: changed(before.access, after.access.as_ref()),
            default: changed(before.default, after.default.as_ref()),
            capability,
        })
    }

    /// What was there. A list is none where it does not change.
    pub fn before(&self) -> Owned {
        let Self { uid, gid, access, default, .. } = self.clone();
        Owned { uid, gid, access, default }
    }
}

/// One entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Its name in its folder; empty for the tree itself.
    pub name: Vec<u8>,
    /// What it was.
    pub identity: Identity,
    /// Its permission bits.
    pub mode: u32,
    /// How many names it had.
    pub links: u32,
    /// What is changed; none for what stays as it is, and for further names of what was listed before.
    pub change: Option<Change>,
}

/// One entry of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// A folder; what follows until its [`Entry::Leave`] is in it.
    Enter {
        /// What it is.
        item: Item,
        /// When it last changed (seconds and nanoseconds since 1970), before it was listed; none if that was so short
        /// ago that another change might have the same time.
        steady: Option<(i64, u32)>,
    },
    /// Something that is no folder.
    Item(Item),
    /// The end of a folder.
    Leave,
    /// The end of the list.
    End {
        /// How many entries came before.
        entries: u64,
    },
}

impl Entry {
    /// The frame of it.
    pub fn to_frame(&self) -> Result<Vec<u8>, ListError> {
        let frame = postcard::to_extend(self, vec![0; 4]).map_err(|_| ListError)?;
        let length = frame.len() - 4;
        if length > MAX_FRAME {
            return Err(ListError);
        }
        let mut frame = frame;
        frame[..4].copy_from_slice(&u32::try_from(length).map_err(|_| ListError)?.to_le_bytes());
        Ok(frame)
    }

    /// The entry of a frame without its length.
    pub fn from_frame(frame: &[u8]) -> Result<Self, ListError> {
        match postcard::take_from_bytes(frame) {
            Ok((entry, [])) => Ok(entry),
            _ => Err(ListError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item() -> Item {
        let mapping = Mapping::new([1001], 1002, [(5, 6)]);
        let access: Acl = "user::rwx,user:1001:r--,group::---,mask::r--,other::---".parse().unwrap();
        let default: Acl = "user::rwx,group::---,other::---".parse().unwrap();
        let before = Owned { uid: 1001, gid: 5, access: Some(access), default: Some(default) };
        Item {
            name: b"a\xff\n".to_vec(),
            identity: Identity { device: 1, inode: u64::MAX, born: Some((5, 6)), kind: FileKind::Folder },
            mode: 0o2750,
            links: 2,
            change: Change::new(&mapping, before, false),
        }
    }

    #[test]
    fn a_list_that_does_not_change_is_not_written_down() {
        let change = item().change.unwrap();
        assert!(change.access.is_some() && change.default.is_none());
        let mapping = Mapping::new([1001], 1002, []);
        let others = Owned { uid: 7, gid: 5, access: None, default: None };
        assert_eq!(Change::new(&mapping, others, false), None);
    }

    #[test]
    fn an_entry_is_read_as_it_was_written_and_a_damaged_one_is_not() {
        let entry = Entry::Enter { item: item(), steady: Some((9, 9)) };
        let frame = entry.to_frame().unwrap();
        let (length, body) = frame.split_first_chunk::<4>().unwrap();
        assert_eq!(u32::from_le_bytes(*length) as usize, body.len());
        assert_eq!(Entry::from_frame(body), Ok(entry));
        for length in 0..body.len() {
            assert_eq!(Entry::from_frame(&body[..length]), Err(ListError), "{length}");
        }
        assert_eq!(Entry::from_frame(&[body, &[0]].concat()), Err(ListError));
        let long = Item { name: vec![b'x'; MAX_FRAME], ..item() };
        assert_eq!(Entry::Item(long).to_frame(), Err(ListError));
    }
}
