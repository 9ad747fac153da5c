//! Copying a file, or a folder with everything in it.
//!
//! Links are copied as links, so that one to the tree itself does no harm. What is neither file, folder nor link is left
//! out, and told. Each file is on the disk before the next one: an error of the disk's is told where it was.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;

use deputy_core::message::{FileKind, FileStat};
use rustix::fs::{
    AtFlags, Mode, OFlags, Timespec, Timestamps, chmod, copy_file_range, fdatasync, futimens, mkdirat,
    openat, readlinkat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::Progress;
use super::descent::Descent;
use crate::agent::resolve::{Place, own_link};
use crate::agent::stream::Lines;
use crate::agent::{CallError, listing, stat};

/// So much is copied before it is looked whether the work may go on.
const CHUNK: usize = 32 * 1024 * 1024;

/// The same where the kernel cannot copy by itself.
const BUFFER: usize = 1024 * 1024;

/// The bits that a copy has of what it was made of, before the umask.
const COPIED_BITS: u32 = 0o777;

/// What the owner needs of a folder in which something is made.
const OWNER_BITS: u32 = 0o700;

/// A copy that is to be made.
pub struct Copying {
    from: Place,
    to: Place,
    kind: FileStat,
    resume: bool,
}

/// A folder on the way.
struct Level {
    name: Vec<u8>,
    mode: u32,
    folders: Vec<Vec<u8>>,
}

impl Copying {
    /// Looks what is to be copied.
    pub fn new(from: Place, to: Place, resume: bool) -> Result<Self, CallError> {
        let kind = stat::of(&from.folder, &from.name)?;
        Ok(Self { from, to, kind, resume })
    }

    /// Copies it. The first refusal is the end; what was copied stays, and `resume` goes on.
    pub fn run(self, lines: &mut Lines<'_>, progress: &mut Progress) -> Result<(), CallError> {
        let Self { from, to, kind, resume } = self;
        let mut walk = Walk { resume, top: None };
        if kind.kind != FileKind::Folder {
            return walk.one(&from.folder, &from.name, &to.folder, &to.name, &kind, lines, progress);
        }
        let (mut source, mut copy) = (Descent::new(from.folder), Descent::new(to.folder));
        let mut levels: Vec<Level> = Vec::new();
        let mut next = Some((from.name, to.name));
        loop {
            if let Some((name, new_name)) = next.take() {
                name.clone_into(&mut progress.name);
                source.down(&name)?;
                if walk.top == Some(source.identity()?) {
                    // The copy is inside of what is copied, and would grow for ever.
                    return Err(Errno::INVAL.into());
                }
                let mode = stat::of(source.folder(), b"")?.mode & COPIED_BITS;
                match mkdirat(copy.folder(), &new_name, Mode::from_raw_mode(mode | OWNER_BITS)) {
                    Err(Errno::EXIST) if resume => {}
                    other => other?,
                }
                copy.down(&new_name)?;
                walk.top = walk.top.or(Some(copy.identity()?));
                let folders = walk.files(&source, &copy, lines, progress)?;
                levels.push(Level { name: new_name, mode, folders });
            }
            let Some(level) = levels.last_mut() else { return Ok(()) };
            next = level.folders.pop().map(|name| (name.clone(), name));
            if next.is_some() {
                continue;
            }
            if let Some(level) = levels.pop() {
                if level.mode & OWNER_BITS != OWNER_BITS {
                    // By its own descriptor: its name may be somebody's link by now.
                    chmod(own_link(copy.owned()), Mode::from_raw_mode(level.mode))?;
                }
                progress.step(lines, &level.name, 0)?;
            }
            source.up()?;
            copy.up()?;
        }
    }
}

struct Walk {
    resume: bool,
    /// The copy's own first folder.
    top: Option<(u64, u64)>,
}

impl Walk {
    /// Copies what is in the present folder but folders, whose names are the result.
    fn files(
        &mut self,
        source: &Descent,
        copy: &Descent,
        lines: &mut Lines<'_>,
        progress: &mut Progress,
    ) -> Result<Vec<Vec<u8>>, CallError> {
        let mut folders = Vec::new();
        listing::each(source.owned(), |name, _| {
            name.clone_into(&mut progress.name);
            let found = stat::of(source.folder(), name)?;
            if found.kind == FileKind::Folder {
                folders.push(name.to_vec());
            } else {
                self.one(source.owned(), name, copy.owned(), name, &found, lines, progress)?;
            }
            Ok(true)
        })?;
        Ok(folders)
    }

    #[expect(clippy::too_many_arguments, reason = "two places, and where to tell of it")]
    fn one(
        &mut self,
        folder: &OwnedFd,
        name: &[u8],
        new_folder: &OwnedFd,
        new_name: &[u8],
        found: &FileStat,
        lines: &mut Lines<'_>,
        progress: &mut Progress,
    ) -> Result<(), CallError> {
        name.clone_into(&mut progress.name);
        match found.kind {
            FileKind::File => {
                if !(self.resume && is_there(new_folder, new_name, found)?) {
                    file(folder, name, new_folder, new_name, lines, self.resume)?;
                }
                progress.step(lines, name, found.size)
            }
            FileKind::Symlink => {
                let target = readlinkat(folder, name, Vec::new())?;
                match symlinkat(&target, new_folder, new_name) {
                    Err(Errno::EXIST)
                        if self.resume
                            && readlinkat(new_folder, new_name, Vec::new()).as_ref() == Ok(&target) => {}
                    other => other?,
                }
                progress.step(lines, name, 0)
            }
            other => progress.leave_out(lines, name, other.as_str()),
        }
    }
}

/// Whether a copy of an earlier try is whole: it gets its time when it is.
fn is_there(folder: &OwnedFd, name: &[u8], of: &FileStat) -> Result<bool, CallError> {
    match stat::of(folder, name) {
        Ok(found) => {
            Ok(found.kind == FileKind::File && found.size == of.size && found.modified == of.modified)
        }
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn file(
    folder: &OwnedFd,
    name: &[u8],
    new_folder: &OwnedFd,
    new_name: &[u8],
    lines: &mut Lines<'_>,
    replace: bool,
) -> Result<(), CallError> {
    let reading = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let source = openat(folder, name, reading, Mode::empty())?;
    // What it is now counts, not what it was when it was looked at.
    let found = stat::of(&source, b"")?;
    if found.kind != FileKind::File {
        return Err(Errno::AGAIN.into());
    }
    let mode = Mode::from_raw_mode(found.mode & COPIED_BITS);
    let writing = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let copy = match openat(new_folder, new_name, writing, mode) {
        // Half of an earlier try.
        Err(Errno::EXIST) if replace => {
            unlinkat(new_folder, new_name, AtFlags::empty())?;
            openat(new_folder, new_name, writing, mode)?
        }
        other => other?,
    };
    let time = Timespec { tv_sec: found.modified.seconds, tv_nsec: found.modified.nanoseconds.into() };
    let done = bytes(source, &copy, lines).and_then(|()| {
        futimens(&copy, &Timestamps { last_access: time, last_modification: time })?;
        Ok(fdatasync(&copy)?)
    });
    if done.is_err() {
        // Nothing is left by half.
        let _ = unlinkat(new_folder, new_name, AtFlags::empty());
    }
    done
}

fn bytes(source: OwnedFd, copy: &OwnedFd, lines: &mut Lines<'_>) -> Result<(), CallError> {
    let mut any = false;
    loop {
        match copy_file_range(&source, None, copy, None, CHUNK) {
            Ok(0) if any => return Ok(()),
            // Some file systems say 0 of files whose length is not known.
            Ok(0) | Err(Errno::XDEV | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL | Errno::PERM)
                if !any =>
            {
                break;
            }
            Ok(_) => any = true,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        lines.may_go_on()?;
    }
    let (mut source, mut copy) = (File::from(source), File::from(copy.try_clone()?));
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = source.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        copy.write_all(&buffer[..count])?;
        lines.may_go_on()?;
    }
}
