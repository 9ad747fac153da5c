//! Which component of a path is in the way of this process, and which permission is missing there.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use deputy_core::finding::FindingCode;
use deputy_sys::Credentials;
use rustix::fs::Access as Wanted;
use rustix::io::Errno;

/// What is in the way to a folder.
pub struct Obstacle {
    component: PathBuf,
    errno: Errno,
    /// Which permission is missing there, where that can be told.
    missing: Option<String>,
}

impl Obstacle {
    /// The finding: one of these, by whether something is not there, or cannot be entered.
    pub fn code(&self, missing: FindingCode, unreachable: FindingCode) -> FindingCode {
        if matches!(self.errno, Errno::NOENT | Errno::NOTDIR) { missing } else { unreachable }
    }
}

impl std::fmt::Display for Obstacle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let error = std::io::Error::from(self.errno);
        write!(f, "{}: {error}", self.component.display())?;
        self.missing.as_ref().map_or(Ok(()), |missing| write!(f, " ({missing})"))
    }
}

/// The first component of a path where this process does not have what it wants, and why.
pub fn obstacle(path: &Path, wanted: Wanted, credentials: &Credentials) -> Option<Obstacle> {
    let mut components: Vec<&Path> = path.ancestors().collect();
    components.reverse();
    components.into_iter().find_map(|component| {
        let errno = rustix::fs::access(component, wanted).err()?;
        let missing =
            (errno == Errno::ACCESS).then(|| std::fs::metadata(component).ok()).flatten().map(|found| {
                let mode = found.mode() & 0o7777;
                missing_permission(mode, found.uid(), found.gid(), credentials, "search permission, x")
            });
        Some(Obstacle { component: component.to_owned(), errno, missing })
    })
}

/// Whose permission is missing on a file or folder of this mode.
pub fn missing_permission(
    mode: u32,
    uid: u32,
    gid: u32,
    credentials: &Credentials,
    permission: &str,
) -> String {
    let class = if uid == credentials.uid.raw() {
        "its owner".to_owned()
    } else if gid == credentials.gid.raw() || credentials.groups.contains(&gid) {
        format!("the group with gid {gid}")
    } else {
        format!("others; it belongs to uid {uid}, gid {gid}")
    };
    format!("mode {mode:04o} has no {permission}, for {class}; or an ACL denies it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use deputy_core::ids::{OsGid, OsUid};

    #[test]
    fn the_missing_permission_is_that_of_the_accounts_own_class() {
        let credentials = Credentials {
            uid: OsUid::new(1001).unwrap(),
            gid: OsGid::new(1001).unwrap(),
            groups: vec![2001],
        };
        let of = |uid, gid| missing_permission(0o700, uid, gid, &credentials, "search permission, x");
        assert!(of(1001, 5).contains("for its owner"));
        assert!(of(0, 2001).contains("the group with gid 2001"));
        assert!(of(0, 1001).contains("the group with gid 1001"));
        assert!(of(0, 5).contains("others; it belongs to uid 0, gid 5"));
    }
}
