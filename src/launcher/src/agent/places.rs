//! Space and quotas of the roots, asked for as the OS account.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use deputy_core::ids::OsGid;
use deputy_core::message::FilePlace;
use deputy_core::quota::Whose;
use deputy_core::{space, storage};
use deputy_sys::{Credentials, quota};
use rustix::fs::{Mode, OFlags, fstat, fstatfs, fstatvfs, openat};
use rustix::io::Errno;

use super::CallError;
use super::resolve::{LOOK, Root, Roots};

/// Of each root that the OS account has a way to.
pub fn of_all(roots: &Roots, credentials: &Credentials) -> Result<Vec<FilePlace>, CallError> {
    let reached = roots.iter().filter_map(|root| Some((root, root.folder.as_ref().ok()?)));
    reached.map(|(root, folder)| of(folder, root.path.as_os_str().as_bytes(), root, credentials)).collect()
}

/// Of a folder beneath one, which may be on a file system of its own.
pub fn of_folder(roots: &Roots, credentials: &Credentials, path: &[u8]) -> Result<FilePlace, CallError> {
    let root = roots.of(path)?;
    let folder = roots.open_at(path, LOOK | OFlags::DIRECTORY, Mode::empty())?;
    of(&folder, path, root, credentials)
}

/// How much room there is, to be added to the words about an error; nothing where it was another one, or where it cannot
/// be told.
pub fn room_after(errno: i32, roots: &Roots, credentials: &Credentials) -> String {
    let full = [Errno::DQUOT, Errno::NOSPC].map(Errno::raw_os_error).contains(&errno);
    let places = full.then(|| of_all(roots, credentials).ok()).flatten();
    places.as_deref().map(space::words).unwrap_or_default()
}

fn of(folder: &OwnedFd, path: &[u8], root: &Root, credentials: &Credentials) -> Result<FilePlace, CallError> {
    let space = fstatvfs(folder)?;
    let own = fstat(folder)?;
    let mut quotas = Vec::new();
    // A folder that may be entered and not listed tells its space, and no quota.
    let readable = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    if let Ok(opened) = openat(folder, ".", readable, Mode::empty()) {
        let folders_group = OsGid::new(own.st_gid).filter(|gid| credentials.groups.contains(&gid.raw()));
        let mut groups = vec![credentials.gid];
        groups.extend(folders_group.filter(|gid| *gid != credentials.gid));
        let asked = [Whose::User(credentials.uid)]
            .into_iter()
            .chain(groups.into_iter().map(Whose::Group))
            .chain(quota::project(opened.as_fd()));
        for whose in asked {
            match quota::of(opened.as_fd(), whose) {
                Ok(usage) => quotas.extend(usage),
                // By the device it would have to be found in /proc, which is beneath no root.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(FilePlace {
        path: path.to_vec(),
        root: root.path.as_os_str().as_bytes().to_vec(),
        filesystem: storage::filesystem(filesystem_number(folder)?),
        device: own.st_dev,
        writable: root.writable,
        size: space.f_blocks.saturating_mul(space.f_frsize),
        free: space.f_bavail.saturating_mul(space.f_frsize),
        files: space.f_files,
        files_free: space.f_favail,
        quotas,
    })
}

/// What `statfs(2)` calls a file system. The numbers have 32 bits; the type that holds them may have a sign.
pub fn filesystem_number(folder: &OwnedFd) -> Result<u64, Errno> {
    Ok(u64::from_ne_bytes(fstatfs(folder)?.f_type.to_ne_bytes()) & 0xffff_ffff)
}
