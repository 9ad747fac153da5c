//! Opening files that only root can have put where they are.
//!
//! The way of sudo's policy files: each component is opened by itself and looked at once, through the descriptor
//! that is then used, so nothing can change between the look and the use.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, open, openat, readlinkat};
use thiserror::Error;

/// How many symbolic links a path may have, as many as the kernel follows.
const MAX_LINKS: usize = 40;

/// Why a path is refused.
#[derive(Debug, Error)]
pub enum RootOwnedError {
    /// The path is not absolute, or has `..` in it.
    #[error("{0}: not an absolute path without '..'")]
    NotAbsolute(PathBuf),
    /// A component belongs to somebody else.
    #[error("{path}: belongs to uid {uid}, not to root")]
    NotRoots {
        /// The component.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// A component can be written by others than root.
    #[error("{path}: can be written by others than root (mode {mode:04o})")]
    Writable {
        /// The component.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The last component is not a regular file.
    #[error("{0}: not a regular file")]
    NotRegular(PathBuf),
    /// The file is larger than expected.
    #[error("{path}: larger than {limit} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// The file is not UTF-8.
    #[error("{0}: not UTF-8 text")]
    NotText(PathBuf),
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// The component.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl RootOwnedError {
    /// Whether the file, or a folder on its path, is simply not there.
    pub fn is_absent(&self) -> bool {
        matches!(self, RootOwnedError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// What root can do about it.
    pub fn remedy(&self) -> String {
        match self {
            RootOwnedError::NotRoots { path, .. } => format!("chown root:root {}", path.display()),
            RootOwnedError::Writable { path, .. } => format!("chmod go-w {}", path.display()),
            RootOwnedError::Io { path, .. } => {
                format!("check that {} exists and can be read", path.display())
            }
            _ => "put a plain text file there, owned by root".into(),
        }
    }

    fn io(path: &Path, errno: rustix::io::Errno) -> Self {
        RootOwnedError::Io { path: path.to_owned(), source: errno.into() }
    }
}

fn check(path: &Path, stat: &Stat) -> Result<(), RootOwnedError> {
    if stat.st_uid != 0 {
        return Err(RootOwnedError::NotRoots { path: path.to_owned(), uid: stat.st_uid });
    }
    let mode = stat.st_mode & 0o7777;
    // A link's own mode means nothing; the folder that holds it has been checked.
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink && mode & 0o022 != 0 {
        return Err(RootOwnedError::Writable { path: path.to_owned(), mode });
    }
    Ok(())
}

/// Opens the regular file at an absolute path for reading, if it and every folder on the way are root's and can be
/// written by nobody else. Symbolic links are followed where they are root's, in folders that are.
pub fn open_file(path: &Path) -> Result<File, RootOwnedError> {
    let mut links = 0;
    let mut rest: VecDeque<OsString> = components(path, path)?;
    let mut here = PathBuf::from("/");
    let mut folder = open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| RootOwnedError::io(&here, errno))?;
    check(&here, &fstat(&folder).map_err(|errno| RootOwnedError::io(&here, errno))?)?;

    while let Some(name) = rest.pop_front() {
        let at = here.join(&name);
        let (entry, stat) = open_entry(&folder, &name, &at)?;
        check(&at, &stat)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(RootOwnedError::io(&at, rustix::io::Errno::LOOP));
                }
                let target =
                    readlinkat(&folder, &name, Vec::new()).map_err(|errno| RootOwnedError::io(&at, errno))?;
                let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                let absolute = if target.is_absolute() { target } else { here.join(target) };
                // Beginning again at the root checks each component of the target too.
                let mut all = components(&normalized(&absolute), path)?;
                all.append(&mut rest);
                rest = all;
                here = PathBuf::from("/");
                folder = open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                    .map_err(|errno| RootOwnedError::io(&here, errno))?;
            }
            FileType::Directory if !rest.is_empty() => {
                folder = entry;
                here = at;
            }
            FileType::RegularFile if rest.is_empty() => return reopen(&folder, &name, &at, &stat),
            _ if rest.is_empty() => return Err(RootOwnedError::NotRegular(at)),
            _ => return Err(RootOwnedError::io(&at, rustix::io::Errno::NOTDIR)),
        }
    }
    Err(RootOwnedError::NotRegular(here))
}

/// Opens the folder at an absolute path with `O_PATH`, if it and every folder on the way are root's and can be written
/// by nobody else. No symbolic link is followed.
pub fn open_folder(path: &Path) -> Result<OwnedFd, RootOwnedError> {
    let mut here = PathBuf::from("/");
    let look = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut folder = open("/", look, Mode::empty()).map_err(|errno| RootOwnedError::io(&here, errno))?;
    check(&here, &fstat(&folder).map_err(|errno| RootOwnedError::io(&here, errno))?)?;
    for name in components(path, path)? {
        here.push(&name);
        folder =
            openat(&folder, &name, look, Mode::empty()).map_err(|errno| RootOwnedError::io(&here, errno))?;
        check(&here, &fstat(&folder).map_err(|errno| RootOwnedError::io(&here, errno))?)?;
    }
    Ok(folder)
}

/// Opens one name without following it and without waiting for anything.
fn open_entry(folder: &OwnedFd, name: &OsStr, at: &Path) -> Result<(OwnedFd, Stat), RootOwnedError> {
    let entry = openat(folder, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| RootOwnedError::io(at, errno))?;
    let stat = fstat(&entry).map_err(|errno| RootOwnedError::io(at, errno))?;
    Ok((entry, stat))
}

/// Opens for reading what was looked at: only root could have changed the name meanwhile, and a change is noticed.
fn reopen(folder: &OwnedFd, name: &OsStr, at: &Path, seen: &Stat) -> Result<File, RootOwnedError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(folder, name, flags, Mode::empty()).map_err(|errno| RootOwnedError::io(at, errno))?;
    let stat = fstat(&file).map_err(|errno| RootOwnedError::io(at, errno))?;
    if (stat.st_dev, stat.st_ino) != (seen.st_dev, seen.st_ino) {
        return Err(RootOwnedError::io(at, rustix::io::Errno::AGAIN));
    }
    Ok(File::from(file))
}

fn components(path: &Path, asked: &Path) -> Result<VecDeque<OsString>, RootOwnedError> {
    let bytes = path.as_os_str().as_bytes();
    if !bytes.starts_with(b"/") || bytes.split(|&b| b == b'/').any(|component| component == b"..") {
        return Err(RootOwnedError::NotAbsolute(asked.to_owned()));
    }
    Ok(bytes
        .split(|&b| b == b'/')
        .filter(|component| !component.is_empty() && *component != b".")
        .map(|component| OsStr::from_bytes(component).to_owned())
        .collect())
}

/// Takes `..` out of a link's target. The folders before it are real folders, since the walk came through them, and
/// those that the target itself names are root's, so taking away by name is what the kernel would do as long as the
/// target's own folders are not links; if one is, the walk ends elsewhere in root's tree, or nowhere.
fn normalized(path: &Path) -> PathBuf {
    let mut result = PathBuf::from("/");
    for component in path.components() {
        match component {
            std::path::Component::ParentDir => {
                result.pop();
            }
            std::path::Component::Normal(name) => result.push(name),
            _ => {}
        }
    }
    result
}

/// The text of such a file, of at most `limit` bytes.
pub fn read_text(path: &Path, limit: u64) -> Result<String, RootOwnedError> {
    let file = open_file(path)?;
    // Read at once, not in growing pieces; a size that is not so costs a few reads more.
    let size = file.metadata().map_or(0, |found| found.len()).min(limit);
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1);
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| RootOwnedError::Io { path: path.to_owned(), source })?;
    if bytes.len() as u64 > limit {
        return Err(RootOwnedError::TooLarge { path: path.to_owned(), limit });
    }
    String::from_utf8(bytes).map_err(|_| RootOwnedError::NotText(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    /// A folder below one that only root can write; the tests of this module need root.
    fn folder() -> tempfile::TempDir {
        assert!(rustix::process::getuid().is_root(), "these tests make files of root's: run them as root");
        tempfile::Builder::new().prefix("deputy-etc").tempdir_in("/var/lib").unwrap()
    }

    #[test]
    fn a_folder_is_opened_only_where_all_of_the_way_is_roots() {
        let folder = folder();
        let inner = folder.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        assert!(open_folder(&inner).is_ok());
        symlink("a", folder.path().join("link")).unwrap();
        assert!(open_folder(&folder.path().join("link/b")).is_err());
        fs::set_permissions(inner.parent().unwrap(), fs::Permissions::from_mode(0o775)).unwrap();
        assert!(matches!(open_folder(&inner), Err(RootOwnedError::Writable { mode: 0o775, .. })));
        fs::set_permissions(inner.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::chown(&inner, Some(65_534), None).unwrap();
        assert!(matches!(open_folder(&inner), Err(RootOwnedError::NotRoots { uid: 65_534, .. })));
    }

    #[test]
    fn others_files_and_writable_ones_are_refused_with_the_component() {
        let folder = folder();
        let file = folder.path().join("a.toml");
        fs::write(&file, "x").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o664)).unwrap();
        assert!(
            matches!(open_file(&file), Err(RootOwnedError::Writable { path, mode: 0o664 }) if path == file)
        );
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(read_text(&file, 10).unwrap(), "x");
        std::os::unix::fs::chown(&file, Some(12345), None).unwrap();
        assert!(matches!(open_file(&file), Err(RootOwnedError::NotRoots { uid: 12345, .. })));
        std::os::unix::fs::chown(&file, Some(0), None).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = open_file(&file).unwrap_err();
        assert!(matches!(&error, RootOwnedError::Writable { path, .. } if path == folder.path()), "{error}");
    }

    #[test]
    fn a_folder_that_everybody_writes_is_refused_even_when_it_is_sticky() {
        let file = tempfile::NamedTempFile::new_in("/tmp").unwrap();
        assert!(
            matches!(open_file(file.path()), Err(RootOwnedError::Writable { path, .. }) if path == Path::new("/tmp"))
        );
    }

    #[test]
    fn links_are_followed_only_where_they_are_roots() {
        let folder = folder();
        let target = folder.path().join("target");
        fs::write(&target, "x").unwrap();
        let link = folder.path().join("link");
        symlink("./target", &link).unwrap();
        assert_eq!(read_text(&link, 10).unwrap(), "x");
        std::os::unix::fs::lchown(&link, Some(12345), None).unwrap();
        assert!(matches!(open_file(&link), Err(RootOwnedError::NotRoots { .. })));
        let round = folder.path().join("round");
        symlink(&round, &round).unwrap();
        assert!(matches!(open_file(&round), Err(RootOwnedError::Io { .. })));
        let elsewhere = folder.path().join("elsewhere");
        symlink("/tmp/x", &elsewhere).unwrap();
        assert!(matches!(open_file(&elsewhere), Err(RootOwnedError::Writable { .. })));
    }

    #[test]
    fn what_is_no_regular_file_is_refused_without_waiting() {
        let folder = folder();
        let fifo = folder.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        assert!(matches!(open_file(&fifo), Err(RootOwnedError::NotRegular(_))));
        assert!(matches!(open_file(folder.path()), Err(RootOwnedError::NotRegular(_))));
        assert!(matches!(
            open_file(Path::new("/dev/null")),
            Err(RootOwnedError::Writable { .. } | RootOwnedError::NotRegular(_))
        ));
        for path in ["relative", "/var/lib/../lib/x", ""] {
            assert!(matches!(open_file(Path::new(path)), Err(RootOwnedError::NotAbsolute(_))), "{path}");
        }
    }

    #[test]
    fn a_file_has_a_size_limit_and_is_text() {
        let folder = folder();
        let file = folder.path().join("a");
        fs::write(&file, "12345").unwrap();
        assert!(matches!(read_text(&file, 4), Err(RootOwnedError::TooLarge { .. })));
        assert_eq!(read_text(&file, 5).unwrap(), "12345");
        fs::write(&file, b"\xff").unwrap();
        assert!(matches!(read_text(&file, 4), Err(RootOwnedError::NotText(_))));
        assert!(open_file(&folder.path().join("absent")).unwrap_err().is_absent());
    }

    #[test]
    fn programs_of_the_system_are_roots() {
        assert!(open_file(Path::new("/bin/true")).is_ok());
    }
}
