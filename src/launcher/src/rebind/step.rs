//! One entry: looked at and changed through one descriptor.
//!
//! That the descriptor is the inode of the list was seen when it was opened. What is checked here, the owner above all,
//! nobody but root can change in between; what others can change (modes, lists, further names, contents of their files)
//! makes an entry be left as it is, or makes no difference.

use std::os::fd::OwnedFd;

use deputy_core::acl::Acl;
use deputy_core::message::FileKind;
use deputy_core::rebind::{Change, Item, Mapping, Owned, ProblemKind, same};
use rustix::fs::{AtFlags, Gid, Mode, Uid, chmod, chownat, removexattr};
use rustix::io::Errno;

use super::carry::Direction;
use super::tree::{CAPABILITY, Found, look};
use crate::agent::{acls, own_link};

/// Bits that give a program its owner's or its group's rights.
pub const SET_ID: u32 = 0o6000;

/// The bit by which what is made in a folder has the folder's group.
const SET_GID: u32 = 0o2000;

/// What became of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was changed.
    Changed,
    /// It was already as it should be.
    Already,
    /// It was left as it is.
    Left(ProblemKind, String),
}

/// Changes the owner, and the group with it.
pub fn give(entry: &OwnedFd, uid: u32, gid: u32) -> Result<(), Errno> {
    chownat(entry, "", Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::EMPTY_PATH)
}

/// Sets the permission bits.
pub fn set_mode(entry: &OwnedFd, mode: u32) -> Result<(), Errno> {
    chmod(own_link(entry), Mode::from_raw_mode(mode))
}

/// The access lists of an entry; a link, and a file system that knows no lists, has none.
pub fn lists(entry: &OwnedFd, kind: FileKind) -> Result<[Option<Acl>; 2], Errno> {
    let get = |default| match acls::get(entry, default) {
        Err(Errno::OPNOTSUPP) => Ok(None),
        told => told,
    };
    match kind {
        FileKind::Symlink => Ok([None, None]),
        FileKind::Folder => Ok([get(false)?, get(true)?]),
        _ => Ok([get(false)?, None]),
    }
}

/// Makes an entry what it is to be, if it is what the plan says, or a part of the way there was gone already.
pub fn step(
    entry: &OwnedFd,
    found: &Found,
    item: &Item,
    change: &Change,
    mapping: &Mapping,
    direction: Direction,
) -> Result<Outcome, Errno> {
    let before = change.before();
    let after = mapping.apply(&before);
    let target = if direction == Direction::There { &after } else { &before };
    let left = |why: &str| Ok(Outcome::Left(ProblemKind::Changed, why.to_owned()));
    if ![before.uid, after.uid].contains(&found.uid) {
        return left(&format!("it belongs to uid {}", found.uid));
    }
    if ![before.gid, after.gid].contains(&found.gid) {
        return left(&format!("its group is gid {}", found.gid));
    }
    let is_first = direction == Direction::There;
    if is_first && !found.is_folder() && found.links != item.links {
        return Ok(Outcome::Left(ProblemKind::Linked, format!("{} names, not {}", found.links, item.links)));
    }
    let now = lists(entry, item.identity.kind)?;
    let planned = [(&before.access, &after.access), (&before.default, &after.default)];
    for (now, (old, new)) in now.iter().zip(planned) {
        let known = match old {
            Some(_) => same(old.as_ref(), now.as_ref()) || same(new.as_ref(), now.as_ref()),
            // A list that names a source account was not there then.
            None => !is_first || now.as_ref().is_none_or(|now| same(Some(now), Some(&mapping.acl(now)))),
        };
        if !known {
            return left("its access list is another one");
        }
    }
    let done = change_what_differs(entry, found, &now, target)?;
    let kept = after_giving(entry, found, change)?;
    Ok(if done || kept { Outcome::Changed } else { Outcome::Already })
}

/// Owner and group first: the kernel takes from a file what gave its owner's rights.
fn change_what_differs(
    entry: &OwnedFd,
    found: &Found,
    now: &[Option<Acl>; 2],
    target: &Owned,
) -> Result<bool, Errno> {
    let mut done = false;
    if (found.uid, found.gid) != (target.uid, target.gid) {
        give(entry, target.uid, target.gid)?;
        done = true;
    }
    for (default, wanted) in [(false, &target.access), (true, &target.default)] {
        if wanted.is_some() && !same(wanted.as_ref(), now[usize::from(default)].as_ref()) {
            acls::set(entry, default, wanted.as_ref())?;
            done = true;
        }
    }
    Ok(done)
}

/// Sees to it that no file gives its new owner's rights to who runs it, and that folders go on to give their group. Not
/// every file system does that by itself. Whether anything was changed.
fn after_giving(entry: &OwnedFd, found: &Found, change: &Change) -> Result<bool, Errno> {
    let mut done = false;
    if found.mode & SET_ID != 0 && found.identity.kind != FileKind::Symlink {
        let now = look(entry)?.mode;
        let wanted = if found.is_folder() { now | found.mode & SET_GID } else { now & !SET_ID };
        if now != wanted {
            set_mode(entry, wanted)?;
            done = true;
        }
    }
    if change.capability {
        match removexattr(own_link(entry), CAPABILITY) {
            Ok(()) => done = true,
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}
