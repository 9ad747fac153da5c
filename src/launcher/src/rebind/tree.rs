//! Looking at what is in a tree, by descriptors alone.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use deputy_core::denial::{Code, Denial};
use deputy_core::message::FileKind;
use deputy_core::rebind::{Identity, ProblemKind};
use deputy_sys::root_path;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxFlags, getxattr, makedev, openat, openat2, statx,
};
use rustix::io::Errno;

use crate::agent::{own_link, stat};

/// How many folders above the present one stay open.
const OPEN: usize = 64;

/// A size in blocks, as stat(2) counts them.
const BLOCK: u64 = 512;

/// The most bytes that are shown of a path.
const MAX_SHOWN: usize = 4096;

/// The file capabilities of a program.
pub const CAPABILITY: &str = "security.capability";

/// What is known of an inode.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    /// Which it is.
    pub identity: Identity,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its permission bits.
    pub mode: u32,
    /// How many names it has.
    pub links: u32,
    /// Bytes that it takes on the disk.
    pub bytes: u64,
    /// When anything of it last changed.
    pub changed: (i64, u32),
}

impl Found {
    /// Whether it is a folder.
    pub fn is_folder(&self) -> bool {
        self.identity.kind == FileKind::Folder
    }
}

/// Looks at what a descriptor is open on.
pub fn look(entry: &OwnedFd) -> Result<Found, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT;
    let found = statx(entry, "", flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME)?;
    let has_birth = found.stx_mask & StatxFlags::BTIME.bits() != 0;
    Ok(Found {
        identity: Identity {
            device: makedev(found.stx_dev_major, found.stx_dev_minor),
            inode: found.stx_ino,
            born: has_birth.then_some((found.stx_btime.tv_sec, found.stx_btime.tv_nsec)),
            kind: stat::kind(FileType::from_raw_mode(found.stx_mode.into())),
        },
        uid: found.stx_uid,
        gid: found.stx_gid,
        mode: u32::from(found.stx_mode) & 0o7777,
        links: found.stx_nlink,
        bytes: found.stx_blocks * BLOCK,
        changed: (found.stx_ctime.tv_sec, found.stx_ctime.tv_nsec),
    })
}

/// Whether a program has file capabilities.
pub fn has_capability(entry: &OwnedFd) -> Result<bool, Errno> {
    match getxattr(own_link(entry), CAPABILITY, &mut [0u8; 64]) {
        Ok(_) | Err(Errno::RANGE) => Ok(true),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Opens one name in a folder with `O_PATH`, whatever it is; not through a link, and nothing that is mounted there.
pub fn open_entry(folder: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    // Names that a folder lists are single; this is what they have to be.
    if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') {
        return Err(Errno::INVAL);
    }
    openat2(folder, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// Opens a folder that is open with `O_PATH` for reading it.
pub fn open_to_read(folder: &OwnedFd) -> Result<OwnedFd, Errno> {
    openat(folder, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Opens the top of a tree: links on the way to it are followed where they are root's, in folders that only root can
/// write.
pub fn open_top(path: &[u8]) -> Result<OwnedFd, Denial> {
    let path = Path::new(OsStr::from_bytes(path));
    if !path.is_absolute()
        || path.components().any(|part| part.as_os_str() == "..")
        || path.parent().is_none()
    {
        return Err(Denial::invalid("the tree is named by an absolute path without '..', which is not /"));
    }
    root_path::open_folder(path).map_err(|error| {
        Denial::new(Code::FileError, "rebind", format!("{}: {error}", path.display()))
            .remedy("name a folder by its own path: links on the way are followed only where they are root's")
    })
}

/// What the kernel said about the tree's top.
pub fn failed(errno: Errno) -> Denial {
    Denial::new(Code::FileError, "rebind", format!("the tree: {errno}"))
}

/// What is said of a name that cannot be opened.
pub fn why(errno: Errno) -> (ProblemKind, String) {
    match errno {
        Errno::NOENT => (ProblemKind::Gone, String::new()),
        Errno::XDEV => (ProblemKind::Mount, String::new()),
        errno => (ProblemKind::Failed, errno.to_string()),
    }
}

/// The way from the top of a tree to a folder in it. Far above, folders are closed again; the way back to one is then
/// `..`, which has to be the folder that it was.
pub struct Way {
    levels: Vec<Level>,
}

struct Level {
    name: Vec<u8>,
    identity: Identity,
    folder: Option<OwnedFd>,
}

impl Way {
    /// A way that has not begun.
    pub fn new() -> Self {
        Self { levels: Vec::new() }
    }

    /// The present folder.
    pub fn folder(&self) -> Result<&OwnedFd, Errno> {
        self.levels.last().and_then(|level| level.folder.as_ref()).ok_or(Errno::STALE)
    }

    /// Goes into a folder that is open.
    pub fn enter(&mut self, name: Vec<u8>, identity: Identity, folder: OwnedFd) {
        self.levels.push(Level { name, identity, folder: Some(folder) });
        // The top stays open.
        if let Some(far) = self.levels.len().checked_sub(OPEN + 1).filter(|far| *far > 0) {
            self.levels[far].folder = None;
        }
    }

    /// Leaves the present folder. An error: the one above it can no longer be found, and neither can what is in it.
    pub fn leave(&mut self) -> Result<(), Errno> {
        let left = self.levels.pop().ok_or(Errno::INVAL)?;
        let Some(above) = self.levels.last_mut().filter(|above| above.folder.is_none()) else {
            return Ok(());
        };
        let inner = left.folder.ok_or(Errno::STALE)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let outer = openat(inner.as_fd(), "..", flags, Mode::empty())?;
        if look(&outer)?.identity != above.identity {
            return Err(Errno::STALE);
        }
        above.folder = Some(outer);
        Ok(())
    }

    /// The path of a name in the present folder, or in folders further down, below the top; only its end if it is very
    /// long.
    pub fn path(&self, further: &[Vec<u8>], name: &[u8]) -> Vec<u8> {
        let further = further.iter().map(Vec::as_slice);
        let names = self.levels.iter().map(|level| level.name.as_slice()).chain(further).chain([name]);
        let path = names.filter(|name| !name.is_empty()).collect::<Vec<_>>().join(&b'/');
        match path.len().checked_sub(MAX_SHOWN) {
            None | Some(0) => path,
            Some(cut) => [b"...", &path[cut..]].concat(),
        }
    }
}
