//! The calls that are answered at once.

use std::os::fd::OwnedFd;

use deputy_core::denial::Denial;
use deputy_core::message::{
    FileKind, FileReply, FileRequest, FileTime, MAX_OPEN, OpenHow, OpenedOne, RenameHow,
};
use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_OMIT, chmod, chownat, fcntl_getfl,
    fcntl_setfl, fstat, linkat, mkdirat, openat, readlinkat, renameat_with, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::resolve::{LOOK, Place, own_link};
use super::{Agent, CallError, acls, listing, places, stat};

/// The permission bits that a call can name.
const MODE_BITS: u32 = 0o7777;

const NEW_FILE: u32 = 0o666;
const NEW_FOLDER: u32 = 0o777;

fn mode(asked: u32) -> Result<Mode, CallError> {
    if asked & !MODE_BITS != 0 {
        return Err(Denial::invalid("permission bits are 7777 at most, in octal").into());
    }
    Ok(Mode::from_raw_mode(asked))
}

impl Agent {
    /// Does one thing. Opened files come with the answer.
    pub(super) fn call(&mut self, request: FileRequest) -> Result<(FileReply, Vec<OwnedFd>), CallError> {
        match request {
            FileRequest::Open { path, how } => {
                let file = self.open(&path, how)?;
                let handle = if how.keep { Some(self.kept.keep(&file)?) } else { None };
                Ok((FileReply::Opened { handle }, vec![file]))
            }
            FileRequest::OpenMany { paths, how } => self.open_many(&paths, how),
            other => self.answer(other).map(|answer| (answer, Vec::new())),
        }
    }

    /// Opens several files; what the kernel refuses of one is its own answer.
    fn open_many(&mut self, paths: &[Vec<u8>], how: OpenHow) -> Result<(FileReply, Vec<OwnedFd>), CallError> {
        if paths.len() > MAX_OPEN || how.keep {
            return Err(
                Denial::invalid(format!("{MAX_OPEN} files at once at most, of which none is kept")).into()
            );
        }
        let (mut answers, mut files) = (Vec::with_capacity(paths.len()), Vec::with_capacity(paths.len()));
        for path in paths {
            answers.push(match self.open(path, how) {
                Ok(file) => {
                    files.push(file);
                    OpenedOne::Opened
                }
                Err(CallError::Errno(errno)) if errno == Errno::STALE.raw_os_error() => {
                    return Err(CallError::Errno(errno));
                }
                Err(CallError::Errno(errno)) => OpenedOne::Failed { errno },
                Err(CallError::Denied(denial)) => OpenedOne::Denied(denial),
            });
        }
        Ok((FileReply::OpenedMany(answers), files))
    }

    fn answer(&mut self, request: FileRequest) -> Result<FileReply, CallError> {
        let roots = &self.roots;
        match request {
            FileRequest::Stat { path, follow } => {
                let flags = if follow { LOOK } else { LOOK | OFlags::NOFOLLOW };
                let found = roots.open_at(&path, flags, Mode::empty())?;
                return Ok(FileReply::Stat(stat::of(&found, b"")?));
            }
            FileRequest::List { path, after, limit } => {
                let folder = roots.open_at(&path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
                return listing::page(&folder, &after, limit);
            }
            FileRequest::MakeDirectory { path, mode: asked, parents } => {
                let bits = mode(asked.unwrap_or(NEW_FOLDER))?;
                if parents { self.make_all(&path, bits)? } else { self.make_one(&path, bits)? }
            }
            FileRequest::Remove { path, missing_ok } => remove(&roots.place(&path), missing_ok)?,
            FileRequest::Rename { from, to, how } => {
                let (from, to) = (roots.place(&from)?, roots.place(&to)?);
                let flags = match how {
                    RenameHow::Replace => RenameFlags::empty(),
                    RenameHow::NoReplace => RenameFlags::NOREPLACE,
                    RenameHow::Exchange => RenameFlags::EXCHANGE,
                };
                renameat_with(&from.folder, &from.name, &to.folder, &to.name, flags)?;
            }
            FileRequest::Symlink { target, path } => {
                let place = roots.place(&path)?;
                symlinkat(target, &place.folder, &place.name)?;
            }
            FileRequest::ReadLink { path } => {
                let place = roots.place_to_look(&path)?;
                let target = readlinkat(&place.folder, &place.name, Vec::new())?;
                return Ok(FileReply::Target(target.into_bytes()));
            }
            FileRequest::Link { from, to } => {
                // What gets a name in a root that may be changed can be changed there.
                let (from, to) = (roots.place(&from)?, roots.place(&to)?);
                linkat(&from.folder, &from.name, &to.folder, &to.name, AtFlags::empty())?;
            }
            FileRequest::SetMode { path, mode: asked } => {
                let bits = mode(asked)?;
                chmod(own_link(&roots.open_to_change(&path, LOOK, Mode::empty())?), bits)?;
            }
            FileRequest::SetGroup { path, gid } => {
                // The highest number means "leave it" to the kernel.
                if gid == u32::MAX {
                    return Err(Errno::INVAL.into());
                }
                let found = roots.open_to_change(&path, LOOK, Mode::empty())?;
                chownat(&found, "", None, Some(Gid::from_raw(gid)), AtFlags::EMPTY_PATH)?;
            }
            FileRequest::SetTimes { path, accessed, modified } => {
                let found = roots.open_to_change(&path, LOOK, Mode::empty())?;
                let times =
                    Timestamps { last_access: timespec(accessed)?, last_modification: timespec(modified)? };
                utimensat(&found, "", &times, AtFlags::EMPTY_PATH)?;
            }
            FileRequest::GetAcl { path, default } => {
                let found = roots.open_at(&path, LOOK, Mode::empty())?;
                return Ok(FileReply::Acl(acls::get(&found, default)?));
            }
            FileRequest::SetAcl { path, default, acl } => {
                let found = roots.open_to_change(&path, LOOK, Mode::empty())?;
                acls::set(&found, default, acl.as_ref())?;
            }
            FileRequest::ShareFolder(share) => {
                super::share::folder(roots, &share, self.credentials.uid)?;
            }
            FileRequest::Quota { path } => {
                let places = if path.is_empty() {
                    places::of_all(roots, &self.credentials)?
                } else {
                    vec![places::of_folder(roots, &self.credentials, &path)?]
                };
                return Ok(FileReply::Places(places));
            }
            FileRequest::Commit { handle, discard } => self.kept.commit(handle, discard)?,
            FileRequest::Open { .. }
            | FileRequest::OpenMany { .. }
            | FileRequest::ListStream { .. }
            | FileRequest::RemoveTree { .. }
            | FileRequest::DiskUsage { .. }
            | FileRequest::CopyTree { .. } => {
                return Err(Denial::internal("this request is answered elsewhere").into());
            }
        }
        Ok(FileReply::Done)
    }

    fn open(&self, path: &[u8], how: OpenHow) -> Result<OwnedFd, CallError> {
        let flags = flags(how)?;
        if how.keep {
            self.kept.has_room()?;
        }
        let bits = if how.create { mode(how.mode.unwrap_or(NEW_FILE))? } else { Mode::empty() };
        // A named pipe or a device must not keep the agent waiting, nor a terminal become its own.
        let opening = flags | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = if how.write {
            self.roots.open_to_change(path, opening, bits)?
        } else {
            self.roots.open_at(path, opening, bits)?
        };
        match stat::kind_of(&fstat(&file)?) {
            FileKind::File => {}
            FileKind::Folder => return Err(Errno::ISDIR.into()),
            other => {
                let message = format!("it is no regular file but a {}", other.as_str());
                return Err(Denial::invalid(message).into());
            }
        }
        fcntl_setfl(&file, fcntl_getfl(&file)?.difference(OFlags::NONBLOCK))?;
        Ok(file)
    }

    fn make_one(&self, path: &[u8], bits: Mode) -> Result<(), CallError> {
        let place = match self.roots.place(path) {
            // The root itself is there.
            Err(CallError::Errno(errno)) if errno == Errno::BUSY.raw_os_error() => {
                return Err(Errno::EXIST.into());
            }
            other => other?,
        };
        Ok(mkdirat(&place.folder, &place.name, bits)?)
    }

    /// Makes a folder and those above it, each beneath the root as it is at that moment. One that is there is well.
    fn make_all(&self, path: &[u8], bits: Mode) -> Result<(), CallError> {
        match self.make_one(path, bits) {
            Err(CallError::Errno(errno)) if errno == Errno::EXIST.raw_os_error() => {
                let found = self.roots.open_at(path, LOOK, Mode::empty())?;
                if stat::is_folder(&found)? { Ok(()) } else { Err(Errno::EXIST.into()) }
            }
            Err(CallError::Errno(errno)) if errno == Errno::NOENT.raw_os_error() => {
                let parent = parent(path).ok_or(Errno::NOENT)?;
                self.make_all(parent, Mode::from_raw_mode(NEW_FOLDER))?;
                self.make_one(path, bits)
            }
            other => other,
        }
    }
}

/// The path without its last component.
fn parent(path: &[u8]) -> Option<&[u8]> {
    let end = path.iter().rposition(|&b| b != b'/')? + 1;
    let slash = path[..end].iter().rposition(|&b| b == b'/')?;
    (slash > 0).then(|| &path[..slash])
}

fn flags(how: OpenHow) -> Result<OFlags, CallError> {
    let wrong = |message: &str| Err(Denial::invalid(message).into());
    let mut flags = match (how.read, how.write) {
        (true, false) => OFlags::RDONLY,
        (false, true) => OFlags::WRONLY,
        (true, true) => OFlags::RDWR,
        (false, false) => return wrong("a file is opened for reading, for writing, or for both"),
    };
    if !how.write && (how.create || how.append || how.truncate || how.keep) {
        return wrong("only a file that is opened for writing is made, cut, added to or kept");
    }
    if how.exclusive && !how.create {
        return wrong("exclusive goes with create");
    }
    for (asked, flag) in [
        (how.create, OFlags::CREATE),
        (how.exclusive, OFlags::EXCL),
        (how.append, OFlags::APPEND),
        (how.truncate, OFlags::TRUNC),
    ] {
        if asked {
            flags |= flag;
        }
    }
    Ok(flags)
}

fn timespec(time: Option<FileTime>) -> Result<Timespec, CallError> {
    let Some(FileTime { seconds, nanoseconds }) = time else {
        return Ok(Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT });
    };
    if nanoseconds > 999_999_999 {
        return Err(Errno::INVAL.into());
    }
    Ok(Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() })
}

/// Removes a name: what is no folder, or an empty one.
fn remove(place: &Result<Place, CallError>, missing_ok: bool) -> Result<(), CallError> {
    let removed = match place {
        Ok(Place { folder, name }) => match unlinkat(folder, name, AtFlags::empty()) {
            // A folder; some file systems say EPERM, as POSIX does.
            Err(errno @ (Errno::ISDIR | Errno::PERM)) => {
                match openat(folder, name, LOOK | OFlags::NOFOLLOW, Mode::empty()) {
                    Ok(found) if stat::is_folder(&found)? => unlinkat(folder, name, AtFlags::REMOVEDIR),
                    _ => Err(errno),
                }
            }
            other => other,
        },
        Err(CallError::Errno(errno)) => Err(Errno::from_raw_os_error(*errno)),
        Err(CallError::Denied(denial)) => return Err(denial.clone().into()),
    };
    match removed {
        Err(Errno::NOENT) if missing_ok => Ok(()),
        other => Ok(other?),
    }
}
