//! From a path in bytes to a descriptor beneath a root, by the kernel's own rules.
//!
//! The root is the longest one that is a prefix of the path, component by component. The rest is resolved by
//! `openat2(2)` beneath the root's descriptor: symbolic links inside work, and whatever leads out, `..` and absolute
//! links included, is refused, also while somebody renames what is on the way. Names that are made, removed or renamed
//! are the last component, and are never followed.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use deputy_core::denial::{Code, Denial};
use deputy_core::names::ApplicationName;
use deputy_sys::root_path;
use rustix::fs::{Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;

use super::CallError;
use crate::roots::RootFolder;

/// How often a path is resolved again that somebody changes meanwhile (`EAGAIN` of openat2(2)).
const TRIES: usize = 256;

/// What is open on the way only.
pub const LOOK: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// One root.
pub struct Root {
    /// Its path, as policy names it.
    pub path: PathBuf,
    /// Whether what is below may be changed.
    pub writable: bool,
    /// Whether folders of projects may be made below.
    pub shared: bool,
    /// The folder, or why the OS account has no way to it.
    pub folder: Result<OwnedFd, i32>,
    /// The read-only roots inside of this one, as paths beneath it.
    read_only_inside: Vec<Vec<u8>>,
}

/// All of them.
pub struct Roots {
    application: ApplicationName,
    roots: Vec<Root>,
}

/// Where something is: the folder, and the name in it.
pub struct Place {
    /// The folder.
    pub folder: OwnedFd,
    /// The name, one component.
    pub name: Vec<u8>,
}

impl Roots {
    /// Opens them with the rights of this process, which is the OS account's already.
    pub fn open(application: &ApplicationName, wanted: Vec<RootFolder>) -> Self {
        let mut roots: Vec<Root> = wanted
            .into_iter()
            .map(|RootFolder { path, writable, shared }| {
                let folder = root_path::open_folder(&path)
                    .map_err(|error| error.raw_os_error().unwrap_or(Errno::IO.raw_os_error()));
                Root { path, writable, shared, folder, read_only_inside: Vec::new() }
            })
            .collect();
        // The same folder twice: the narrower right.
        roots.sort_by(|a, b| (&a.path, a.writable, a.shared).cmp(&(&b.path, b.writable, b.shared)));
        roots.dedup_by(|later, earlier| later.path == earlier.path);
        let read_only: Vec<PathBuf> =
            roots.iter().filter(|root| !root.writable).map(|root| root.path.clone()).collect();
        for root in roots.iter_mut().filter(|root| root.writable) {
            let inside = read_only.iter().filter_map(|path| path.strip_prefix(&root.path).ok());
            root.read_only_inside = inside.map(|rest| rest.as_os_str().as_bytes().to_vec()).collect();
        }
        Self { application: application.clone(), roots }
    }

    /// The folders, and whether they may be changed.
    pub fn reach(&self) -> Vec<(BorrowedFd<'_>, bool)> {
        self.roots
            .iter()
            .filter_map(|root| Some((root.folder.as_ref().ok()?.as_fd(), root.writable)))
            .collect()
    }

    /// Each root.
    pub fn iter(&self) -> impl Iterator<Item = &Root> {
        self.roots.iter()
    }

    /// The root that a path is beneath.
    pub fn of(&self, path: &[u8]) -> Result<&Root, CallError> {
        self.find(path).map(|(root, _)| root)
    }

    fn outside(&self, why: &str) -> Denial {
        Denial::new(
            Code::PathOutside,
            format!("applications.d/{}.toml: roots", self.application),
            why.to_owned(),
        )
        .remedy(
            "name a path beneath one of the application's roots; links inside a root may not lead out of it",
        )
    }

    /// The root that a path is beneath, with the rest of the path, which is relative.
    pub fn find<'p>(&self, path: &'p [u8]) -> Result<(&Root, &'p [u8]), CallError> {
        if path.contains(&0) {
            return Err(Errno::INVAL.into());
        }
        let found = self
            .roots
            .iter()
            .filter_map(|root| Some((root, rest_beneath(path, root.path.as_os_str().as_bytes())?)))
            .min_by_key(|(_, rest)| rest.len());
        found.ok_or_else(|| self.outside("the path is beneath no root of the application's").into())
    }

    fn open_beneath(
        &self,
        root: &Root,
        rest: &[u8],
        flags: OFlags,
        mode: Mode,
        strictness: ResolveFlags,
    ) -> Result<OwnedFd, CallError> {
        let folder = root.folder.as_ref().map_err(|errno| CallError::Errno(*errno))?;
        let rest: &[u8] = if rest.is_empty() { b"." } else { rest };
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | strictness;
        for _ in 0..TRIES {
            match openat2(folder, rest, flags | OFlags::CLOEXEC, mode, how) {
                Err(Errno::AGAIN) => std::thread::yield_now(),
                Err(Errno::XDEV) => {
                    return Err(self.outside("a link or .. on the path leads out of its root").into());
                }
                other => return Ok(other?),
            }
        }
        Err(Errno::AGAIN.into())
    }

    /// Opens what a path leads to, with these flags of open(2).
    pub fn open_at(&self, path: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd, CallError> {
        let (root, rest) = self.find(path)?;
        self.open_beneath(root, rest, flags, mode, ResolveFlags::empty())
    }

    /// The same for changing it, which its root has to allow.
    pub fn open_to_change(&self, path: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd, CallError> {
        let (root, rest) = self.find_to_change(path)?;
        self.open_beneath(root, rest, flags, mode, root.strictness())
    }

    /// The folder and the name that a path means, for making, removing or renaming the name.
    pub fn place(&self, path: &[u8]) -> Result<Place, CallError> {
        let (root, rest) = self.find_to_change(path)?;
        self.place_beneath(root, rest, root.strictness())
    }

    /// The same for a project's folder, beneath a root that policy has for that.
    pub fn place_to_share(&self, path: &[u8]) -> Result<Place, CallError> {
        let (root, rest) = self.find_to_change(path)?;
        if !root.shared {
            let why = "folders of projects are not made beneath this root";
            return Err(self.outside(why).remedy("let root give a root shared = true").into());
        }
        self.place_beneath(root, rest, ResolveFlags::NO_SYMLINKS)
    }

    /// The same for looking only.
    pub fn place_to_look(&self, path: &[u8]) -> Result<Place, CallError> {
        let (root, rest) = self.find(path)?;
        self.place_beneath(root, rest, ResolveFlags::empty())
    }

    fn place_beneath(&self, root: &Root, rest: &[u8], strictness: ResolveFlags) -> Result<Place, CallError> {
        // The root itself is policy's: it has no name to be changed here.
        let (parent, name) = split(rest).ok_or(Errno::BUSY)?;
        if name == b"." || name == b".." {
            return Err(Errno::INVAL.into());
        }
        let flags = LOOK | OFlags::DIRECTORY;
        let folder = self.open_beneath(root, parent, flags, Mode::empty(), strictness)?;
        Ok(Place { folder, name: name.to_vec() })
    }

    /// How far a path leads: what the last part of it that can be looked at stands for, and that part.
    pub fn farthest<'p>(&self, root: &Root, rest: &'p [u8]) -> Result<(OwnedFd, &'p [u8]), CallError> {
        let look = |part| self.open_beneath(root, part, LOOK, Mode::empty(), ResolveFlags::empty());
        let mut farthest = (look(b"")?, &rest[..0]);
        for end in (0..=rest.len()).filter(|&end| rest.get(end).is_none_or(|&byte| byte == b'/')) {
            match look(&rest[..end]) {
                Ok(found) => farthest = (found, &rest[..end]),
                Err(_) => break,
            }
        }
        Ok(farthest)
    }

    /// The writable root that a path is beneath. Where read-only ones are inside of it the path has to be plain, so that
    /// it is where it says; and what they are in cannot be moved away.
    fn find_to_change<'p>(&self, path: &'p [u8]) -> Result<(&Root, &'p [u8]), CallError> {
        let (root, rest) = self.find(path)?;
        if !root.writable {
            return Err(self.read_only(root).into());
        }
        let plain = components(rest).all(|component| component != b"..");
        let on_the_way = |inner: &Vec<u8>| {
            let mut inner = components(inner);
            components(rest).all(|component| inner.next() == Some(component))
        };
        if !root.read_only_inside.is_empty() && (!plain || root.read_only_inside.iter().any(on_the_way)) {
            return Err(self.read_only(root).into());
        }
        Ok((root, rest))
    }

    fn read_only(&self, root: &Root) -> Denial {
        Denial::new(
            Code::RootReadOnly,
            format!("applications.d/{}.toml: roots", self.application),
            format!("{} is read-only for the application, or has a part that is", root.path.display()),
        )
        .remedy("let root give the root access = \"read-write\"")
    }
}

impl Root {
    /// How strictly a path is resolved that is to be changed.
    fn strictness(&self) -> ResolveFlags {
        if self.read_only_inside.is_empty() { ResolveFlags::empty() } else { ResolveFlags::NO_SYMLINKS }
    }
}

/// The components of a relative path that count.
fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&b| b == b'/').filter(|component| !component.is_empty() && *component != b".")
}

/// Device and inode.
pub fn identity(descriptor: &OwnedFd) -> Option<(u64, u64)> {
    fstat(descriptor).ok().map(|found| (found.st_dev, found.st_ino))
}

/// The path by which a process comes to what one of its own descriptors is open on, without any other name.
pub fn own_link(descriptor: &OwnedFd) -> String {
    use std::os::fd::AsRawFd as _;
    format!("/proc/self/fd/{}", descriptor.as_raw_fd())
}

/// What is left of a path behind a root that is a prefix of it, component by component. Empty components and `.` do not
/// count in front; what is left is as it was, because a slash at the end means something.
fn rest_beneath<'p>(path: &'p [u8], root: &[u8]) -> Option<&'p [u8]> {
    let mut left = path.strip_prefix(b"/")?;
    for wanted in root.split(|&b| b == b'/').filter(|component| !component.is_empty()) {
        left = without_dots(left);
        let end = left.iter().position(|&b| b == b'/').unwrap_or(left.len());
        if &left[..end] != wanted {
            return None;
        }
        left = &left[end..];
    }
    Some(without_dots(left))
}

/// Without slashes and `.` components at the beginning.
fn without_dots(mut path: &[u8]) -> &[u8] {
    loop {
        path = match path {
            [b'/', rest @ ..] | [b'.', b'/', rest @ ..] => rest,
            b"." => b"",
            _ => return path,
        }
    }
}

/// The folder's part of a relative path and its last component, without slashes at the end; none where there is no
/// component.
fn split(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = rest.iter().rposition(|&b| b != b'/')? + 1;
    let rest = &rest[..end];
    Some(match rest.iter().rposition(|&b| b == b'/') {
        Some(slash) => (&rest[..slash], &rest[slash + 1..]),
        None => (b"", rest),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_a_prefix_by_components() {
        let of = |path: &str, root: &str| {
            rest_beneath(path.as_bytes(), root.as_bytes())
                .map(|rest| String::from_utf8(rest.to_vec()).unwrap())
        };
        for (path, root, expected) in [
            ("/data/lab1", "/data/lab1", Some("")),
            ("/data/lab1/", "/data/lab1", Some("")),
            ("//data/./lab1//x/y/", "/data/lab1", Some("x/y/")),
            ("/data/lab1/../lab2", "/data/lab1", Some("../lab2")),
            ("/data/lab10/x", "/data/lab1", None),
            ("/data/../data/lab1", "/data/lab1", None),
            ("data/lab1/x", "/data/lab1", None),
            ("", "/", None),
            ("/x", "/", Some("x")),
            ("/data", "/data/lab1", None),
        ] {
            assert_eq!(of(path, root).as_deref(), expected, "{path} {root}");
        }
    }

    #[test]
    fn the_last_component_is_a_name() {
        let of = |rest: &'static str| {
            split(rest.as_bytes())
                .map(|(parent, name)| (str::from_utf8(parent).unwrap(), str::from_utf8(name).unwrap()))
        };
        assert_eq!(of("a"), Some(("", "a")));
        assert_eq!(of("a/b/c//"), Some(("a/b", "c")));
        assert_eq!(of("a/.."), Some(("a", "..")));
        assert_eq!(of(""), None);
        assert_eq!(of("///"), None);
    }
}
