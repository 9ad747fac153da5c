//! A folder of the store's own: opened once, checked, and used by descriptor from then on.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::error::StoreError;

/// The name of the file on which the lock is held.
const LOCK: &str = "lock";

/// A folder that belongs to this process's uid and that nobody else may write.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    fd: OwnedFd,
}

/// A lock on a folder, held as long as this lives.
#[derive(Debug)]
pub(crate) struct Lock(OwnedFd);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing would not do: a child between fork and exec still has the description open for a moment.
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

impl Folder {
    /// Opens the folder, and makes it (0700) where `create` says so.
    pub fn open(path: &Path, create: bool) -> Result<Self, StoreError> {
        if create {
            match rustix::fs::mkdir(path, Mode::RWXU) {
                // The folder itself must survive a power cut as well as what is in it.
                Ok(()) => {
                    let parent =
                        path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
                    let parent_fd = open_directory(parent)?;
                    rustix::fs::fsync(&parent_fd).map_err(|e| StoreError::io(parent, e))?;
                }
                Err(Errno::EXIST) => {}
                Err(e) => return Err(StoreError::io(path, e)),
            }
        }
        let fd = open_directory(path)?;
        let stat = rustix::fs::fstat(&fd).map_err(|e| StoreError::io(path, e))?;
        check_owner(path, stat.st_uid, stat.st_mode)?;
        Ok(Self { path: path.to_owned(), fd })
    }

    /// Where the folder was opened, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the folder's lock for this process alone.
    pub fn lock(&self) -> Result<Lock, StoreError> {
        let file = self.open_file(LOCK, OFlags::RDWR | OFlags::CREATE)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Lock(file.into())),
            Err(Errno::WOULDBLOCK) => Err(StoreError::Locked { path: self.path.join(LOCK) }),
            Err(e) => Err(self.error(LOCK, e)),
        }
    }

    /// Whether another process holds the folder's lock just now.
    pub fn is_locked(&self) -> Result<bool, StoreError> {
        let file = match self.read(LOCK) {
            Ok(file) => file,
            Err(error) if is_missing(&error) => return Ok(false),
            Err(error) => return Err(error),
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(Errno::WOULDBLOCK) => Ok(true),
            Err(e) => Err(self.error(LOCK, e)),
        }
    }

    /// Opens a file to read it.
    pub fn read(&self, name: &str) -> Result<File, StoreError> {
        self.open_file(name, OFlags::RDONLY)
    }

    /// Opens a file to read and write it.
    pub fn write(&self, name: &str) -> Result<File, StoreError> {
        self.open_file(name, OFlags::RDWR)
    }

    /// Makes a new file (0600); it must not be there.
    pub fn create(&self, name: &str) -> Result<File, StoreError> {
        self.open_file(name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)
    }

    fn open_file(&self, name: &str, flags: OFlags) -> Result<File, StoreError> {
        // NONBLOCK: a fifo in the place of a file must not hang the daemon.
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|e| self.error(name, e))?;
        let stat = rustix::fs::fstat(&fd).map_err(|e| self.error(name, e))?;
        let path = self.path.join(name);
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(StoreError::Untrusted { path, why: "is not a regular file" });
        }
        check_owner(&path, stat.st_uid, stat.st_mode)?;
        Ok(fd.into())
    }

    /// The bytes of a small file; `None` if it is not there.
    pub fn read_small(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let file = match self.read(name) {
            Ok(file) => file,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(1 << 20).read_to_end(&mut bytes).map_err(|e| self.error(name, e))?;
        Ok(Some(bytes))
    }

    /// Puts `bytes` under `name`, whole and on disk, or not at all.
    pub fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let temporary = format!("{name}.new");
        self.remove(&temporary)?;
        let mut file = self.create(&temporary)?;
        file.write_all(bytes).map_err(|e| self.error(&temporary, e))?;
        file.sync_all().map_err(|e| self.error(&temporary, e))?;
        self.rename(&temporary, name)?;
        self.sync()
    }

    /// Renames inside the folder.
    pub fn rename(&self, from: &str, to: &str) -> Result<(), StoreError> {
        rustix::fs::renameat(&self.fd, from, &self.fd, to).map_err(|e| self.error(from, e))
    }

    /// Removes a file that may be there.
    pub fn remove(&self, name: &str) -> Result<(), StoreError> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(self.error(name, e)),
        }
    }

    /// Puts the folder's own list of names on disk.
    pub fn sync(&self) -> Result<(), StoreError> {
        rustix::fs::fsync(&self.fd).map_err(|e| StoreError::io(&self.path, e))
    }

    /// The names in the folder.
    pub fn names(&self) -> Result<Vec<String>, StoreError> {
        let io = |e: Errno| StoreError::io(&self.path, e);
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd).map_err(io)? {
            let entry = entry.map_err(io)?;
            if let Ok(name) = entry.file_name().to_str()
                && !matches!(name, "." | "..")
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn error(&self, name: &str, source: impl Into<std::io::Error>) -> StoreError {
        StoreError::io(self.path.join(name), source)
    }
}

fn open_directory(path: &Path) -> Result<OwnedFd, StoreError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|e| match e {
        Errno::LOOP | Errno::NOTDIR => {
            StoreError::Untrusted { path: path.to_owned(), why: "is not a folder (links are not followed)" }
        }
        e => StoreError::io(path, e),
    })
}

fn check_owner(path: &Path, uid: u32, mode: u32) -> Result<(), StoreError> {
    let untrusted = |why| Err(StoreError::Untrusted { path: path.to_owned(), why });
    if uid != rustix::process::geteuid().as_raw() {
        return untrusted("belongs to another user than the one this program runs as");
    }
    if mode & 0o077 != 0 {
        return untrusted("is open to group or others: its mode must give nothing to them");
    }
    Ok(())
}

/// Whether an error says that a file or folder is not there.
pub(crate) fn is_missing(error: &StoreError) -> bool {
    matches!(error, StoreError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn a_link_an_open_mode_and_a_fifo_are_not_trusted() {
        let place = tempfile::tempdir().unwrap();
        let real = place.path().join("real");
        let folder = Folder::open(&real, true).unwrap();
        symlink(&real, place.path().join("link")).unwrap();
        assert!(matches!(Folder::open(&place.path().join("link"), true), Err(StoreError::Untrusted { .. })));
        symlink("/etc/passwd", real.join("file")).unwrap();
        assert!(folder.read("file").is_err());
        std::fs::write(real.join("wide"), "").unwrap();
        std::fs::set_permissions(real.join("wide"), std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(folder.read("wide"), Err(StoreError::Untrusted { .. })));
        std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o750)).unwrap();
        assert!(matches!(Folder::open(&real, true), Err(StoreError::Untrusted { .. })));
    }

    #[test]
    fn one_lock_at_a_time() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(&place.path().join("f"), true).unwrap();
        assert!(!folder.is_locked().unwrap());
        let lock = folder.lock().unwrap();
        assert!(matches!(folder.lock(), Err(StoreError::Locked { .. })));
        assert!(folder.is_locked().unwrap());
        drop(lock);
        folder.lock().unwrap();
    }
}
