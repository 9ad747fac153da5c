//! What is known of something, in the words of the messages.

use std::os::fd::{AsFd, OwnedFd};

use deputy_core::message::{FileKind, FileStat, FileTime};
use rustix::fs::{AtFlags, FileType, Stat, StatxFlags, fstat, makedev, statx};
use rustix::io::Errno;

/// A size in blocks, as stat(2) counts them.
const BLOCK: u64 = 512;

/// The sort of a file type.
pub fn kind(sort: FileType) -> FileKind {
    match sort {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Folder,
        FileType::Symlink => FileKind::Symlink,
        FileType::Fifo => FileKind::Pipe,
        FileType::Socket => FileKind::Socket,
        FileType::BlockDevice => FileKind::Block,
        FileType::CharacterDevice => FileKind::Character,
        FileType::Unknown => FileKind::Unknown,
    }
}

/// The sort of what was looked at.
pub fn kind_of(found: &Stat) -> FileKind {
    kind(FileType::from_raw_mode(found.st_mode))
}

/// Whether a descriptor is a folder's.
pub fn is_folder(descriptor: &OwnedFd) -> Result<bool, Errno> {
    Ok(kind_of(&fstat(descriptor)?) == FileKind::Folder)
}

/// What is known of a name in a folder, without following it; of the folder itself where the name is empty.
pub fn of(folder: impl AsFd, name: &[u8]) -> Result<FileStat, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT;
    let found = statx(folder, name, flags, StatxFlags::BASIC_STATS)?;
    let time =
        |time: rustix::fs::StatxTimestamp| FileTime { seconds: time.tv_sec, nanoseconds: time.tv_nsec };
    Ok(FileStat {
        kind: kind(FileType::from_raw_mode(found.stx_mode.into())),
        mode: u32::from(found.stx_mode) & 0o7777,
        uid: found.stx_uid,
        gid: found.stx_gid,
        size: found.stx_size,
        allocated: found.stx_blocks * BLOCK,
        links: found.stx_nlink,
        inode: found.stx_ino,
        device: makedev(found.stx_dev_major, found.stx_dev_minor),
        accessed: time(found.stx_atime),
        modified: time(found.stx_mtime),
        changed: time(found.stx_ctime),
    })
}
