//! Space and quotas of the roots, asked for as the OS account.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;

use deputy_core::ids::OsGid;
use deputy_core::message::FilePlace;
use deputy_core::quota::Whose;
use deputy_sys::{Credentials, quota};
use rustix::fs::{Mode, OFlags, fstat, fstatvfs, openat};

use super::CallError;
use super::resolve::{Root, Roots};

/// Of each root that the OS account has a way to.
pub fn of_all(roots: &Roots, credentials: &Credentials) -> Result<Vec<FilePlace>, CallError> {
    roots.iter().filter(|root| root.folder.is_ok()).map(|root| of(root, credentials)).collect()
}

fn of(root: &Root, credentials: &Credentials) -> Result<FilePlace, CallError> {
    let folder = root.folder.as_ref().map_err(|errno| CallError::Errno(*errno))?;
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
        path: root.path.as_os_str().as_bytes().to_vec(),
        writable: root.writable,
        size: space.f_blocks.saturating_mul(space.f_frsize),
        free: space.f_bavail.saturating_mul(space.f_frsize),
        files: space.f_files,
        files_free: space.f_favail,
        quotas,
    })
}
