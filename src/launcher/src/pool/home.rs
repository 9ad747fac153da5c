//! A pool account's home: an empty folder made by root in a folder of root's, and filled by its owner.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use deputy_core::denial::{Code, Denial};
use deputy_core::finding::{Finding, FindingCode, Severity};
use deputy_core::job::OsIdentity;
use deputy_core::pool::{PoolRecord, PoolSettings};
use deputy_etc::root_owned;
use deputy_sys::{Credentials, process, quota};
use rustix::fs::{AtFlags, Dir, Gid, Mode, OFlags, Uid, fchown, fstat, mkdirat, openat, statat};
use rustix::io::Errno;

/// How long copying may take; homes may be on another machine.
const PATIENCE_SECONDS: u32 = 60;

/// How deep a skeleton is.
const MAX_DEPTH: u32 = 16;

/// Whether there is anything in the place of a home that was never made.
pub fn is_occupied(pool: &PoolSettings, identity: &OsIdentity) -> Result<bool, Denial> {
    match statat(parent(pool)?, identity.name.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(failed(pool, errno.into())),
    }
}

/// Makes the home of a record, or goes on where a process that died has left off. Nothing runs as the account yet.
pub fn make(pool: &PoolSettings, record: &PoolRecord) -> Result<Option<Finding>, Denial> {
    let home = make_folder(pool, record)?;
    let finding = set_quota(pool, record, &home);
    if let Some(skeleton) = &pool.skeleton {
        let OsIdentity { uid, gid, .. } = record.os_account;
        let credentials = Credentials { uid, gid, groups: vec![gid.raw()] };
        // A path of the descriptor: whatever becomes of the name, the copy goes into the folder that was made.
        let done = process::do_as_user(&credentials, PATIENCE_SECONDS, || {
            let copied = rustix::process::fchdir(&home).map_err(io::Error::from).and_then(|()| {
                process::set_umask(0o022);
                copy(skeleton, Path::new("."), MAX_DEPTH)
            });
            if let Err(error) = &copied {
                tracing::error!(event = "skeleton_failed", error = %error);
            }
            copied.is_ok()
        });
        if !done.map_err(|error| failed(pool, error))? {
            return Err(Denial::new(
                Code::Disk,
                "deputy.toml: pool.skeleton",
                format!("{} could not be copied to {} as its owner", skeleton.display(), record.home),
            )
            .remedy("see the journal of deputy-launcher; everybody has to be able to read the skeleton"));
        }
    }
    File::from(home).sync_all().map_err(|error| failed(pool, error))?;
    Ok(finding)
}

/// The folder of all homes, if nobody but root decides what is in it.
fn parent(pool: &PoolSettings) -> Result<OwnedFd, Denial> {
    root_owned::open_folder(pool.homes()).map_err(|error| {
        let remedy = if error.is_absent() {
            format!("mkdir -p -m 0755 {}", pool.homes().display())
        } else {
            error.remedy()
        };
        Denial::new(Code::SettingsInvalid, "deputy.toml: pool.home", error.to_string()).remedy(remedy)
    })
}

fn failed(pool: &PoolSettings, error: io::Error) -> Denial {
    let homes = pool.homes().display();
    Denial::new(Code::Disk, "deputy.toml: pool.home", format!("no home could be made in {homes}: {error}"))
        .remedy("make room there, or correct what the error says; the lease goes on at the next request")
}

fn make_folder(pool: &PoolSettings, record: &PoolRecord) -> Result<OwnedFd, Denial> {
    let OsIdentity { name, uid, gid } = &record.os_account;
    let parent = parent(pool)?;
    match mkdirat(&parent, name.as_str(), Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(failed(pool, errno.into())),
    }
    let open = || -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let home = openat(&parent, name.as_str(), flags, Mode::empty())?;
        let found = fstat(&home)?;
        if found.st_uid == 0 {
            // Ours, and not given away yet: then nobody but root can have put something into it.
            if !is_empty(&home)? {
                return Err(io::Error::other(format!("{}: is root's and not empty", record.home)));
            }
            fchown(&home, Some(Uid::from_raw(uid.raw())), Some(Gid::from_raw(gid.raw())))?;
        } else if found.st_uid != uid.raw() {
            return Err(io::Error::other(format!("{}: belongs to uid {}", record.home, found.st_uid)));
        }
        File::from(openat(&parent, ".", flags, Mode::empty())?).sync_all()?;
        Ok(home)
    };
    open().map_err(|error| failed(pool, error))
}

fn is_empty(folder: &OwnedFd) -> io::Result<bool> {
    for entry in Dir::read_from(folder)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Copies what is in a folder, as the owner of the new one. What is there already is left as it is.
fn copy(from: &Path, to: &Path, depth: u32) -> io::Result<()> {
    if depth == 0 {
        return Err(io::Error::other("the skeleton is too deep"));
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, place) = (entry.path(), to.join(entry.file_name()));
        let sort = entry.file_type()?;
        if sort.is_dir() {
            unless_there(fs::create_dir(&place))?;
            copy(&source, &place, depth - 1)?;
        } else if sort.is_symlink() {
            unless_there(symlink(fs::read_link(&source)?, &place))?;
        } else if sort.is_file() && place.symlink_metadata().is_err() {
            copy_file(&source, &place)?;
        }
    }
    Ok(())
}

fn unless_there(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        done => done,
    }
}

/// Copies one file: under its name it is whole.
fn copy_file(source: &Path, place: &Path) -> io::Result<()> {
    let mut from = File::open(source)?;
    let mode = from.metadata()?.permissions().mode() & 0o777;
    let beside = place.with_file_name(OsStr::from_bytes(b".deputy-new"));
    let mut to = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&beside)?;
    io::copy(&mut from, &mut to)?;
    to.sync_all()?;
    fs::rename(&beside, place)
}

/// Sets the quota that the settings want, or says why it could not be.
fn set_quota(pool: &PoolSettings, record: &PoolRecord, home: &OwnedFd) -> Option<Finding> {
    let (soft, hard) = match (pool.quota_soft, pool.quota_hard) {
        (None, None) => return None,
        (soft, hard) => (soft.map_or(0, |size| size.0), hard.map_or(0, |size| size.0)),
    };
    let why = match quota::set(home.as_fd(), record.os_account.uid.raw(), soft, hard) {
        Ok(true) => return None,
        Ok(false) => "its file system has no quotas that can be set here".to_owned(),
        Err(error) => error.to_string(),
    };
    tracing::warn!(event = "pool_quota_not_set", os_user = %record.os_account.name, error = %why);
    let message = format!("the quota of {} on {} was not set: {why}", record.os_account.name, record.home);
    Some(Finding::new(FindingCode::PoolQuotaNotSet, Severity::Warning, message).remedy(
        "turn quotas on where homes are (quotaon), set it by hand, or take quota_soft and quota_hard out",
    ))
}
