//! Quotas of the file systems of home and roots, asked for as the OS account.

use std::collections::BTreeSet;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use deputy_core::denial::Denial;
use deputy_core::finding::Finding;
use deputy_core::ids::OsGid;
use deputy_core::quota::Whose;
use deputy_sys::Credentials;
use rustix::fs::{Mode, OFlags, fstat, open};

use crate::consents;

/// What is said about the quotas that these folders are under; each of a file system once. A folder that cannot be
/// opened is a finding of its own already.
pub fn findings(folders: &[PathBuf], credentials: &Credentials) -> Vec<Finding> {
    let (mut asked, mut findings) = (BTreeSet::new(), Vec::new());
    for folder in folders {
        findings.extend(of_folder(folder, credentials, &mut asked).unwrap_or_else(|error| {
            vec![Denial::internal(format!("the quota of {}: {error}", folder.display())).into()]
        }));
    }
    findings
}

fn of_folder(
    folder: &Path,
    credentials: &Credentials,
    asked: &mut BTreeSet<(u64, Whose)>,
) -> std::io::Result<Vec<Finding>> {
    // A folder that may be entered and not listed has quotas too, but tells no project.
    let readable = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let entered = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(opened) = open(folder, readable, Mode::empty()).or_else(|_| open(folder, entered, Mode::empty()))
    else {
        return Ok(Vec::new());
    };
    let found = fstat(&opened)?;
    let own_group = Some(credentials.gid);
    // New files are of the folder's group, where it says so.
    let folders_group = OsGid::new(found.st_gid).filter(|gid| credentials.groups.contains(&gid.raw()));
    let groups = [own_group, folders_group].into_iter().flatten().map(Whose::Group);
    let project = deputy_sys::quota::project(opened.as_fd());
    let mut findings = Vec::new();
    for whose in [Whose::User(credentials.uid)].into_iter().chain(groups).chain(project) {
        if asked.insert((found.st_dev, whose))
            && let Some(usage) = deputy_sys::quota::of(opened.as_fd(), whose)?
        {
            findings.extend(usage.findings(&folder.display().to_string(), consents::now()));
        }
    }
    Ok(findings)
}
