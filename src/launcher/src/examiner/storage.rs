//! The file systems of the roots, looked at as the OS account.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use deputy_core::finding::Finding;
use deputy_core::storage::{self, Lists, Seen};
use deputy_sys::Credentials;
use rustix::fs::{Access, access, getxattr};
use rustix::io::Errno;

/// What is said about the file systems of these folders; of each once.
pub fn findings(folders: &[PathBuf], credentials: &Credentials) -> Vec<Finding> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounts = mounts_of(&mounts);
    let mut told = BTreeSet::new();
    let mut findings = Vec::new();
    for folder in folders {
        let Some(mount) = mounts
            .iter()
            .filter(|mount| folder.starts_with(&mount.at))
            .max_by_key(|m| m.at.as_os_str().len())
        else {
            continue;
        };
        if told.insert(&mount.at) {
            findings
                .extend(storage::findings(&folder.display().to_string(), &seen(mount, folder, credentials)));
        }
    }
    findings
}

/// A line of `/proc/self/mountinfo`.
struct Mount {
    at: PathBuf,
    filesystem: String,
    options: String,
}

/// The mounts; of several at one place the last one, which covers the others.
fn mounts_of(text: &str) -> Vec<Mount> {
    let mut found: Vec<Mount> = Vec::new();
    for line in text.lines() {
        let Some((mount, source)) = line.split_once(" - ") else { continue };
        let (before, behind): (Vec<&str>, Vec<&str>) =
            (mount.split(' ').collect(), source.split(' ').collect());
        let (Some(at), Some(own), Some(filesystem)) = (before.get(4), before.get(5), behind.first()) else {
            continue;
        };
        let at = PathBuf::from(unescaped(at));
        let options = format!("{own},{}", behind.get(2).copied().unwrap_or_default());
        found.retain(|other| other.at != at);
        found.push(Mount { at, filesystem: (*filesystem).to_owned(), options });
    }
    found
}

/// A path in which a blank, a tab, a line feed and a backslash are written in octal (proc(5)).
fn unescaped(text: &str) -> OsString {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        let octal =
            behind.get(..3).and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok());
        if let (b'\\', Some(byte)) = (first, octal) {
            bytes.push(byte);
            rest = &behind[3..];
        } else {
            bytes.push(first);
            rest = behind;
        }
    }
    OsString::from_vec(bytes)
}

fn seen(mount: &Mount, folder: &Path, credentials: &Credentials) -> Seen {
    // The first component on this file system that cannot be entered.
    let mut on_it: Vec<&Path> = folder.ancestors().take_while(|path| path.starts_with(&mount.at)).collect();
    on_it.reverse();
    let closed = on_it
        .into_iter()
        .find(|path| access(*path, Access::EXEC_OK).is_err_and(|errno| errno != Errno::NOENT));
    let mut groups = credentials.groups.clone();
    groups.push(credentials.gid.raw());
    groups.sort_unstable();
    groups.dedup();
    let group_would_do = closed.and_then(|path| std::fs::metadata(path).ok()).is_some_and(|found| {
        found.uid() != credentials.uid.raw() && groups.contains(&found.gid()) && found.mode() & 0o010 != 0
    });
    Seen {
        filesystem: mount.filesystem.clone(),
        options: mount.options.clone(),
        lists: lists(folder),
        groups: groups.len(),
        refused: closed.is_some(),
        group_would_do,
    }
}

/// Which access control lists a folder could have.
fn lists(folder: &Path) -> Lists {
    let has = |name: &str| {
        let mut none: [u8; 0] = [];
        match getxattr(folder, name, &mut none) {
            Ok(_) | Err(Errno::NODATA | Errno::RANGE) => Some(true),
            Err(Errno::OPNOTSUPP) => Some(false),
            Err(_) => None,
        }
    };
    match has("system.posix_acl_access") {
        Some(true) => Lists::Posix,
        Some(false) if has("system.nfs4_acl") == Some(true) => Lists::Nfs4,
        Some(false) => Lists::None,
        None => Lists::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_with_their_options_and_odd_names() {
        let text = "22 1 8:17 / / rw shared:1 - ext4 /dev/sdb1 rw,errors=remount-ro\n\
                    24 22 0:50 / /data\\040x rw,nosuid shared:2 master:3 - nfs4 server:/x rw,sec=krb5\n\
                    25 24 0:51 / /data\\040x ro - tmpfs none rw\n\
                    nothing\n";
        let mounts = mounts_of(text);
        let at: Vec<_> =
            mounts.iter().map(|mount| (mount.at.to_str().unwrap(), mount.filesystem.as_str())).collect();
        assert_eq!(at, [("/", "ext4"), ("/data x", "tmpfs")]);
        assert_eq!(mounts[0].options, "rw,rw,errors=remount-ro");
        assert_eq!(mounts[1].options, "ro,rw");
        assert_eq!(unescaped("a\\134\\9"), "a\\\\9");
    }

    #[test]
    fn the_lists_of_a_real_file_system_are_known() {
        assert_eq!(lists(Path::new("/proc")), Lists::None);
        assert_eq!(lists(Path::new("/nonexistent")), Lists::Unknown);
    }
}
