//! Quotas of file systems, as the kernel tells them to whom they count.
//!
//! An OS account may ask about its own uid and the groups that it is in; about projects only root may, so these are
//! taken from `statfs(2)`, which shows a tree with a project's number as large as its quota is. File systems that
//! keep their quotas elsewhere (NFS, most that are shared by many machines) say nothing here.

use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use deputy_core::quota::{Amount, QuotaUsage, Whose};
use rustix::fs::{fstat, fstatvfs, major, minor};

/// `Q_GETQUOTA` of quotactl(2).
const GET: libc::c_int = 0x0080_0007;
/// `Q_SETQUOTA`, and `QIF_BLIMITS`: only the limits on space are set.
const SET: libc::c_int = 0x0080_0008;
const BLOCK_LIMITS: u32 = 1;
/// The kinds of quota: `USRQUOTA`, `GRPQUOTA`.
const USER: libc::c_int = 0;
const GROUP: libc::c_int = 1;
/// Limits on space are counted in blocks of this many bytes.
const BLOCK: u64 = 1024;

/// `FS_IOC_FSGETXATTR` of `linux/fs.h`: reads 28 bytes.
const GET_ATTRIBUTES: libc::Ioctl = 0x801c_581f_u32 as libc::Ioctl;
/// `FS_XFLAG_PROJINHERIT`: what is made in the folder has its project.
const INHERITS_PROJECT: u32 = 0x0000_0200;

/// `struct fsxattr`.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    copy_on_write_extent_size: u32,
    padding: [u8; 8],
}

/// The quota of `whose` on the file system that holds an open folder. None: there is none, or this process may not
/// know it. An error is one of the file system's.
pub fn of(folder: BorrowedFd<'_>, whose: Whose) -> io::Result<Option<QuotaUsage>> {
    let (kind, id) = match whose {
        Whose::User(uid) => (USER, uid.raw()),
        Whose::Group(gid) => (GROUP, gid.raw()),
        Whose::Project(_) => return of_tree(folder, whose).map(Some),
    };
    let told = match of_descriptor(folder, kind, id) {
        // Linux before 5.14 lacks the call; so do, by the same error, file systems that know no quotas.
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => match device(folder)? {
            Some(device) => of_device(&device, kind, id),
            None => return Ok(None),
        },
        told => told,
    };
    match told {
        Ok(told) => Ok(Some(usage(whose, &told))),
        Err(error) if is_no_quota(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sets the limits on the space of a uid on the file system that holds an open folder, in bytes. Whether it has quotas
/// that this process can set; files are not limited.
pub fn set(folder: BorrowedFd<'_>, uid: u32, soft: u64, hard: u64) -> io::Result<bool> {
    // SAFETY: it is made of numbers.
    let mut limits: libc::dqblk = unsafe { std::mem::zeroed() };
    limits.dqb_bsoftlimit = soft.div_ceil(BLOCK);
    limits.dqb_bhardlimit = hard.div_ceil(BLOCK);
    limits.dqb_valid = BLOCK_LIMITS;
    let command = (SET << 8) | USER;
    // SAFETY: quotactl_fd(2) with Q_SETQUOTA reads one `struct dqblk` and keeps no pointer.
    let mut done =
        unsafe { libc::syscall(libc::SYS_quotactl_fd, folder.as_raw_fd(), command, uid, &raw mut limits) }
            == 0;
    let mut error = io::Error::last_os_error();
    // Linux before 5.14 lacks the call; so do, by the same error, file systems that know no quotas.
    if !done && error.raw_os_error() == Some(libc::ENOSYS) {
        let Some(device) = device(folder)? else { return Ok(false) };
        let id = libc::c_int::from_ne_bytes(uid.to_ne_bytes());
        // SAFETY: the name ends with NUL; quotactl(2) with Q_SETQUOTA reads one `struct dqblk` and keeps no pointer.
        done = unsafe { libc::quotactl(command, device.as_ptr(), id, (&raw mut limits).cast()) } == 0;
        error = io::Error::last_os_error();
    }
    match done {
        true => Ok(true),
        false if is_no_quota(&error) => Ok(false),
        false => Err(error),
    }
}

/// The project that an open folder and what is made in it count for, where there is one. The folder has to be open for
/// reading, not by `O_PATH` only.
pub fn project(folder: BorrowedFd<'_>) -> Option<Whose> {
    let mut attributes = Attributes::default();
    // SAFETY: the call writes one `struct fsxattr`, which `Attributes` is laid out as, and keeps no pointer.
    let done = unsafe { libc::ioctl(folder.as_raw_fd(), GET_ATTRIBUTES, &raw mut attributes) };
    (done == 0 && attributes.project != 0 && attributes.flags & INHERITS_PROJECT != 0)
        .then_some(Whose::Project(attributes.project))
}

/// Quotas are off, unknown to the file system, kept elsewhere, or not for this process.
fn is_no_quota(error: &io::Error) -> bool {
    let known = [
        libc::ESRCH,
        libc::ENOSYS,
        libc::EOPNOTSUPP,
        libc::EINVAL,
        libc::ENOTBLK,
        libc::ENODEV,
        libc::ENOENT,
        libc::EPERM,
        libc::EACCES,
    ];
    error.raw_os_error().is_some_and(|errno| known.contains(&errno))
}

fn command(kind: libc::c_int) -> libc::c_int {
    (GET << 8) | kind
}

fn of_descriptor(folder: BorrowedFd<'_>, kind: libc::c_int, id: u32) -> io::Result<libc::dqblk> {
    let mut told = MaybeUninit::<libc::dqblk>::zeroed();
    // SAFETY: quotactl_fd(2) with Q_GETQUOTA writes one `struct dqblk` and keeps no pointer.
    let done = unsafe {
        libc::syscall(libc::SYS_quotactl_fd, folder.as_raw_fd(), command(kind), id, told.as_mut_ptr())
    };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is made of numbers, and was zeroed before it was written.
    Ok(unsafe { told.assume_init() })
}

fn of_device(device: &std::ffi::CStr, kind: libc::c_int, id: u32) -> io::Result<libc::dqblk> {
    let mut told = MaybeUninit::<libc::dqblk>::zeroed();
    // A uid is passed as an int, whatever its highest bit.
    let id = libc::c_int::from_ne_bytes(id.to_ne_bytes());
    // SAFETY: the name ends with NUL; quotactl(2) with Q_GETQUOTA writes one `struct dqblk` and keeps no pointer.
    let done = unsafe { libc::quotactl(command(kind), device.as_ptr(), id, told.as_mut_ptr().cast()) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is made of numbers, and was zeroed before it was written.
    Ok(unsafe { told.assume_init() })
}

/// The block device of the file system that holds a folder, where it has one.
fn device(folder: BorrowedFd<'_>) -> io::Result<Option<std::ffi::CString>> {
    let number = fstat(folder.as_fd())?.st_dev;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let Some(path) = source(&mounts, major(number), minor(number)) else { return Ok(None) };
    Ok(std::ffi::CString::new(path.into_os_string().into_vec()).ok())
}

/// The source of a mount of this device, in the form of proc(5), if it is a path.
fn source(mounts: &str, major: u32, minor: u32) -> Option<PathBuf> {
    let number = format!("{major}:{minor}");
    let line = mounts.lines().find(|line| line.split(' ').nth(2) == Some(number.as_str()))?;
    let (_, behind) = line.split_once(" - ")?;
    let path = behind.split(' ').nth(1)?;
    // Names with blanks are written with escapes; no block device has such a one.
    (path.starts_with('/') && !path.contains('\\')).then(|| path.into())
}

fn limit(value: u64) -> Option<u64> {
    (value != 0).then_some(value)
}

fn usage(whose: Whose, told: &libc::dqblk) -> QuotaUsage {
    QuotaUsage {
        whose,
        space: Amount {
            used: told.dqb_curspace,
            soft: limit(told.dqb_bsoftlimit.saturating_mul(BLOCK)),
            hard: limit(told.dqb_bhardlimit.saturating_mul(BLOCK)),
            grace_ends: limit(told.dqb_btime),
        },
        files: Amount {
            used: told.dqb_curinodes,
            soft: limit(told.dqb_isoftlimit),
            hard: limit(told.dqb_ihardlimit),
            grace_ends: limit(told.dqb_itime),
        },
    }
}

/// How full a tree is, which is shown as large as its project's quota lets it become.
fn of_tree(folder: BorrowedFd<'_>, whose: Whose) -> io::Result<QuotaUsage> {
    let shown = fstatvfs(folder)?;
    let amount = |all: u64, free: u64, unit: u64| Amount {
        used: all.saturating_sub(free).saturating_mul(unit),
        hard: limit(all.saturating_mul(unit)),
        ..Amount::default()
    };
    Ok(QuotaUsage {
        whose,
        space: amount(shown.f_blocks, shown.f_bavail, shown.f_frsize),
        files: amount(shown.f_files, shown.f_favail, 1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use deputy_core::ids::{OsGid, OsUid};

    #[test]
    fn what_the_kernel_tells_is_taken_in_its_units() {
        // SAFETY: it is made of numbers.
        let mut told: libc::dqblk = unsafe { std::mem::zeroed() };
        told.dqb_curspace = 5000;
        told.dqb_bhardlimit = 10;
        told.dqb_isoftlimit = 7;
        told.dqb_curinodes = 8;
        told.dqb_itime = 99;
        let whose = Whose::User(OsUid::new(1001).unwrap());
        let usage = usage(whose, &told);
        assert_eq!(usage.space, Amount { used: 5000, soft: None, hard: Some(10_240), grace_ends: None });
        assert_eq!(usage.files, Amount { used: 8, soft: Some(7), hard: None, grace_ends: Some(99) });
    }

    #[test]
    fn a_device_is_found_by_its_number() {
        let mounts = "22 1 8:17 / / rw shared:1 - ext4 /dev/sdb1 rw\n\
                      23 22 0:21 / /proc rw - proc proc rw\n\
                      24 22 8:1 /sub /home rw,relatime shared:2 master:3 - xfs /dev/sda1 rw,usrquota\n\
                      25 22 8:2 / /odd rw - ext4 /dev/od\\040d rw\n";
        assert_eq!(source(mounts, 8, 1), Some("/dev/sda1".into()));
        assert_eq!(source(mounts, 8, 17), Some("/dev/sdb1".into()));
        for (major, minor) in [(0, 21), (8, 2), (9, 9)] {
            assert_eq!(source(mounts, major, minor), None);
        }
    }

    #[test]
    fn a_file_system_without_quotas_has_none() {
        for path in ["/proc", "/dev"] {
            let folder = fs::File::open(path).unwrap();
            for whose in [Whose::User(OsUid::new(1001).unwrap()), Whose::Group(OsGid::new(1001).unwrap())] {
                assert_eq!(of(folder.as_fd(), whose).unwrap(), None, "{path}");
            }
            assert_eq!(project(folder.as_fd()), None, "{path}");
            assert!(!set(folder.as_fd(), 70_000, 1, 1).unwrap(), "{path}");
        }
    }

    #[test]
    fn a_tree_is_as_large_as_it_is_shown() {
        let folder = fs::File::open("/").unwrap();
        let usage = of(folder.as_fd(), Whose::Project(1)).unwrap().unwrap();
        assert!(usage.space.used > 0 && usage.space.hard >= Some(usage.space.used), "{usage:?}");
        assert_eq!(std::mem::size_of::<Attributes>(), 28);
    }
}
