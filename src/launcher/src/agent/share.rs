//! The folder of a project, made and kept by its owner's own agent: with setgid, an access list for the members, and
//! the same list for all that is made in it.

use std::os::fd::OwnedFd;

use deputy_core::denial::{Code, Denial};
use deputy_core::ids::OsUid;
use deputy_core::message::FolderShare;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, chmod, chownat, fstat, mkdirat, openat, unlinkat};
use rustix::io::Errno;

use super::resolve::{LOOK, Place, Roots, own_link};
use super::{CallError, acls, stat};

/// The permission bits of the folder: setgid, everything for the owner and, within the list, for its members.
const SHARED: u32 = 0o2770;

/// The bits that it is made with, before anybody has been let in.
const CLOSED: u32 = 0o700;

/// Makes the folder, or gives the one that is there the rights of its members.
pub fn folder(roots: &Roots, share: &FolderShare, owner: OsUid) -> Result<(), CallError> {
    let place = roots.place_to_share(&share.path)?;
    let made = match mkdirat(&place.folder, &place.name, Mode::from_raw_mode(CLOSED)) {
        Ok(()) => true,
        Err(Errno::EXIST) if share.again => false,
        Err(errno) => return Err(errno.into()),
    };
    let done = open(&place, owner).and_then(|folder| give_rights(&folder, share));
    if done.is_err() && made {
        // Nobody was told of it, and it is empty unless its owner was quick.
        let _ = unlinkat(&place.folder, &place.name, AtFlags::REMOVEDIR);
    }
    done
}

/// The folder itself, never what a link leads to.
fn open(place: &Place, owner: OsUid) -> Result<OwnedFd, CallError> {
    let folder =
        openat(&place.folder, &place.name, LOOK | OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
    if fstat(&folder)?.st_uid != owner.raw() {
        return Err(Denial::new(
            Code::PathOutside,
            "project's folder",
            "the folder is not the project owner's any more",
        )
        .remedy(
            "only the owner of a folder can say who comes in: have root give it to the project owner's OS account \
             (deputyctl rebind, with what is in it; or chown), and then say deputyctl project folder APP OWNER/NAME",
        )
        .into());
    }
    Ok(folder)
}

/// Group, lists and bits. Until the last step nobody has more than before, since the lists are the narrower or the wider
/// ones as a whole.
fn give_rights(folder: &OwnedFd, share: &FolderShare) -> Result<(), CallError> {
    let acl = share.acl();
    if let Some(gid) = share.group {
        if gid == u32::MAX {
            return Err(Errno::INVAL.into());
        }
        chownat(folder, "", None, Some(Gid::from_raw(gid)), AtFlags::EMPTY_PATH)?;
    }
    acls::set(folder, true, Some(&acl))?;
    acls::set(folder, false, Some(&acl))?;
    // The kernel drops the setgid bit without a word for who is not in the group.
    chmod(own_link(folder), Mode::from_raw_mode(SHARED))?;
    let found = stat::of(folder, b"")?;
    let as_wanted = found.mode == SHARED && share.group.is_none_or(|gid| found.gid == gid);
    if as_wanted { Ok(()) } else { Err(Errno::PERM.into()) }
}
