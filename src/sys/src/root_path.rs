//! Opening a folder that root's policy names, as the user who asks: component by component, so that nobody but root
//! decides where it leads.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat};
use rustix::io::Errno;

/// The most links that are followed on one way, as the kernel has it (`path_resolution(7)`).
const MAX_LINKS: usize = 40;

const LOOK: OFlags = OFlags::PATH.union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// Opens the folder with `O_PATH`. A symbolic link on the way is followed only where it is root's, in a folder that
/// only root can write; whoever can write elsewhere could otherwise lead a root of policy to where he likes.
///
/// The caller has the user's identity for files already: a component that the user may not search is an error.
pub fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    let mut rest: VecDeque<OsString> = components(path)?.into();
    let mut folder = top()?;
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        // The folder is the user's to look into or not: the kernel says so here, by the search permission.
        let found = statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(found.st_mode) != FileType::Symlink {
            let next = openat(&folder, &name, LOOK | OFlags::DIRECTORY, Mode::empty())?;
            folder = next;
            continue;
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(Errno::LOOP.into());
        }
        let link = openat(&folder, &name, LOOK, Mode::empty())?;
        if !only_roots(&fstat(&link)?, &fstat(&folder)?) {
            return Err(Errno::LOOP.into());
        }
        let target = PathBuf::from(OsString::from_vec(readlinkat(&link, "", Vec::new())?.into_bytes()));
        if target.is_absolute() {
            folder = top()?;
        }
        for name in components(&target)?.into_iter().rev() {
            rest.push_front(name);
        }
    }
    Ok(folder)
}

fn top() -> io::Result<OwnedFd> {
    Ok(openat(CWD, "/", LOOK | OFlags::DIRECTORY, Mode::empty())?)
}

/// The names of a path, `..` among them: only links of root's have any, and those mean it.
fn components(path: &Path) -> io::Result<Vec<OsString>> {
    path.components()
        .filter_map(|component| match component {
            Component::RootDir | Component::CurDir => None,
            Component::Normal(name) => Some(Ok(name.to_owned())),
            Component::ParentDir => Some(Ok("..".into())),
            Component::Prefix(_) => Some(Err(Errno::INVAL.into())),
        })
        .collect()
}

/// Whether nobody but root can have made the link, or can put another in its place.
fn only_roots(link: &Stat, folder: &Stat) -> bool {
    const OTHERS_WRITE: u32 = 0o022;
    link.st_uid == 0 && folder.st_uid == 0 && folder.st_mode & OTHERS_WRITE == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    /// A folder that only root can write, all the way down; the temporary folder is none.
    fn roots_folder(name: &str) -> PathBuf {
        let folder = PathBuf::from("/run").join(format!("deputy-test-{name}-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        folder
    }

    fn inode(folder: &OwnedFd) -> u64 {
        fstat(folder).unwrap().st_ino
    }

    #[test]
    fn what_is_no_folder_is_refused() {
        for path in ["/etc/passwd", "/does/not/exist", "/etc/passwd/x"] {
            assert!(open_folder(Path::new(path)).is_err(), "{path}");
        }
        assert!(open_folder(Path::new("/usr/bin")).is_ok());
    }

    #[test]
    fn a_link_that_others_could_have_made_is_not_followed() {
        let outer = tempfile::tempdir().unwrap();
        symlink("/usr", outer.path().join("link")).unwrap();
        // Ours, but in a folder whose parents others may write does not matter; in one that others may write it does.
        fs::set_permissions(outer.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let refused = open_folder(&outer.path().join("link")).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ELOOP));
        assert!(open_folder(&outer.path().join("link/bin")).is_err());
    }

    #[test]
    fn links_of_roots_are_followed_and_loops_end() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!(
                "SKIPPED links_of_roots_are_followed_and_loops_end: it needs root to make links of root's"
            );
            return;
        }
        let folder = roots_folder("links");
        let wanted = fs::metadata("/usr/bin").unwrap().ino();
        symlink("/usr", folder.join("absolute")).unwrap();
        symlink("../../usr", folder.join("relative")).unwrap();
        symlink("absolute/../usr", folder.join("chain")).unwrap();
        symlink("loop", folder.join("loop")).unwrap();
        for name in ["absolute/bin", "relative/bin", "chain/bin"] {
            assert_eq!(inode(&open_folder(&folder.join(name)).unwrap()), wanted, "{name}");
        }
        let error = open_folder(&folder.join("loop")).unwrap_err();
        // Somebody else's link in root's folder is not root's.
        std::os::unix::fs::lchown(folder.join("absolute"), Some(65_534), None).unwrap();
        let foreign = open_folder(&folder.join("absolute/bin"));
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
        assert_eq!(foreign.unwrap_err().raw_os_error(), Some(libc::ELOOP));
    }
}
