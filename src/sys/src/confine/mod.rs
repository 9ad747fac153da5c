//! Confinement: a job that reaches nothing but the folders that policy names.
//!
//! Two walls, each enough for most of it. The first is a mount namespace with a root of its own, in which the rest of
//! the machine is not there to be named (`mounts.rs`). The second is Landlock (`landlock(7)`, `rules.rs`), which also
//! keeps the job from reading other processes of the same user by ptrace and `/proc`, from mounting, and, on newer
//! kernels, from abstract sockets and signals to processes outside.

mod mounts;
mod rules;

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use nix::errno::Errno;

pub use self::rules::restrict_to;
use crate::drop::{Credentials, as_user};
use crate::root_path::open_folder;

/// A folder of the machine's that a confined job reaches, at its own path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// Its absolute path, as policy names it.
    pub path: PathBuf,
    /// Whether the job may change what is below.
    pub writable: bool,
}

/// What a confined job has of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confinement {
    /// The folders that it reaches. Those that the user cannot reach by himself are left out.
    pub folders: Vec<Reach>,
    /// The home directory, where the job has an empty one in its place.
    pub empty_home: Option<PathBuf>,
    /// The device files of the GPUs that it was leased.
    pub devices: Vec<PathBuf>,
}

/// A folder that was opened as the user.
struct Opened {
    path: PathBuf,
    writable: bool,
    folder: OwnedFd,
}

/// What this kernel lacks for a confinement, if anything.
pub fn missing() -> Option<&'static str> {
    if !mounts::supported() {
        return Some("open_tree and mount_setattr (Linux 5.12)");
    }
    (!rules::supported()).then_some("Landlock, in the kernel and in its list of security modules")
}

impl Confinement {
    /// Gives this process, which is root's and soon the user's, a root directory of its own.
    pub fn enter(&self, credentials: &Credentials) -> Result<(), Errno> {
        mounts::part().map_err(|error| errno(&error))?;
        let folders = as_user(credentials, || self.open())
            .map_err(|error| error.errno)?
            .map_err(|error| errno(&error))?;
        mounts::enter(self, &folders, credentials).map_err(|error| errno(&error))
    }

    /// Lays down the Landlock rules, for this process and all that it will ever start. It is the user's already, and
    /// cannot gain privileges.
    pub fn restrict(&self) -> Result<(), Errno> {
        rules::restrict(self).map_err(|error| errno(&error))
    }

    /// Opens the folders, the outer ones first. One that the user has no way to, or that is not there, is one that the
    /// job would not reach without confinement either.
    fn open(&self) -> io::Result<Vec<Opened>> {
        let mut folders = Vec::new();
        for Reach { path, writable } in self.outer_first() {
            match open_folder(&path) {
                Ok(folder) => folders.push(Opened { path, writable, folder }),
                Err(error) if is_not_for_the_user(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(folders)
    }

    /// The folders, each after those that it lies in, without those that an outer one gives anyway.
    fn outer_first(&self) -> Vec<Reach> {
        let mut sorted = self.folders.clone();
        sorted.sort_by(|a, b| a.path.cmp(&b.path).then(b.writable.cmp(&a.writable)));
        let mut kept: Vec<Reach> = Vec::new();
        for reach in sorted {
            let around = kept.iter().rev().find(|outer| reach.path.starts_with(&outer.path));
            if around.is_none_or(|outer| outer.path != reach.path && outer.writable != reach.writable) {
                kept.push(reach);
            }
        }
        kept
    }
}

fn is_not_for_the_user(error: &io::Error) -> bool {
    let not_his = [libc::ENOENT, libc::ENOTDIR, libc::EACCES, libc::EPERM, libc::ELOOP];
    error.raw_os_error().is_some_and(|errno| not_his.contains(&errno))
}

fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EPERM, Errno::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(path: &str, writable: bool) -> Reach {
        Reach { path: path.into(), writable }
    }

    fn kept(folders: &[(&str, bool)]) -> Vec<(String, bool)> {
        let folders = folders.iter().map(|(path, writable)| reach(path, *writable)).collect();
        let confinement = Confinement { folders, empty_home: None, devices: Vec::new() };
        let shown = |reach: Reach| (reach.path.display().to_string(), reach.writable);
        confinement.outer_first().into_iter().map(shown).collect()
    }

    #[test]
    fn a_folder_inside_another_counts_only_where_it_gives_something_else() {
        let of =
            |folders: &[(&str, bool)]| kept(folders).iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
        assert_eq!(of(&[("/d/a/b", true), ("/d/a", true)]), ["/d/a"]);
        assert_eq!(of(&[("/d/a/b", true), ("/d/a", false)]), ["/d/a", "/d/a/b"]);
        assert_eq!(of(&[("/d/a", true), ("/d/ab", true)]), ["/d/a", "/d/ab"]);
        // The same folder twice: the wider right.
        assert_eq!(kept(&[("/d", false), ("/d", true)]), [("/d".to_owned(), true)]);
        // Read-only inside read-write inside read-only.
        assert_eq!(
            of(&[("/d", false), ("/d/a", true), ("/d/a/b", false), ("/d/a/b/c", false)]),
            ["/d", "/d/a", "/d/a/b"]
        );
    }
}
