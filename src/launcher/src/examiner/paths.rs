//! Home and roots, looked at as the OS account: which component cannot be entered, and which permission is missing.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use deputy_core::application::{Access, Root};
use deputy_core::denial::Denial;
use deputy_core::finding::{Finding, FindingCode, Severity};
use deputy_core::job::OsIdentity;
use deputy_core::message::ExamineRequest;
use deputy_sys::Credentials;
use rustix::fs::Access as Wanted;

use super::{quota, storage};
use crate::obstacle::obstacle;
use crate::roots;
use crate::rules::{Rules, Target};

/// Becomes the OS account and tries its home and the application's roots. The process ends with this request, so
/// there is no way back to take.
pub fn findings(
    rules: &Rules,
    target: &Target,
    identity: &OsIdentity,
    request: &ExamineRequest,
) -> Vec<Finding> {
    let groups = match deputy_sys::accounts::gids(&target.entry) {
        Ok(groups) => groups,
        Err(error) => return vec![Denial::internal(error.to_string()).into()],
    };
    let credentials = Credentials { uid: identity.uid, gid: identity.gid, groups };
    if let Err(error) = deputy_sys::become_user(&credentials) {
        return vec![Denial::internal(format!("could not become {identity}: {error}")).into()];
    }
    let mut findings: Vec<Finding> = home(target, &credentials).into_iter().collect();
    let roots = &rules.application.roots;
    findings.extend(roots.iter().filter_map(|r| root(rules, target, &credentials, request, r)));
    let mut folders = vec![PathBuf::from(OsStr::from_bytes(&target.entry.home))];
    let of_roots = roots::of_account(rules, target, &request.os_user, &request.account);
    folders.extend(of_roots.into_iter().map(|root| root.path));
    findings.extend(quota::findings(&folders, &credentials));
    findings.extend(storage::findings(&folders[1..], &credentials));
    findings
}

fn home(target: &Target, credentials: &Credentials) -> Option<Finding> {
    let home = String::from_utf8_lossy(&target.entry.home).into_owned();
    let obstacle = obstacle(Path::new(&home), Wanted::EXEC_OK, credentials)?;
    let code = obstacle.code(FindingCode::HomeMissing, FindingCode::HomeUnreachable);
    Some(
        Finding::new(code, Severity::Warning, format!("the home directory {home}: {obstacle}")).remedy(
            "jobs start in / instead; create the home, or give the account search permission on the way",
        ),
    )
}

fn root(
    rules: &Rules,
    target: &Target,
    credentials: &Credentials,
    request: &ExamineRequest,
    root: &Root,
) -> Option<Finding> {
    let candidates = roots::folders(rules, target, &request.os_user, &request.account, &root.path);
    let Some(first) = candidates.first() else {
        let message = format!("{}: the account is in no group that the root's pattern could mean", root.path);
        return Some(
            Finding::new(FindingCode::RootWithoutGroup, Severity::Warning, message)
                .remedy("add the account to one of the groups that the application allows"),
        );
    };
    let reachable = candidates.iter().find(|path| obstacle(path, Wanted::EXEC_OK, credentials).is_none());
    let Some(reachable) = reachable else {
        let obstacle = obstacle(first, Wanted::EXEC_OK, credentials)?;
        let code = obstacle.code(FindingCode::RootMissing, FindingCode::RootUnreachable);
        return Some(
            Finding::new(code, Severity::Warning, format!("{}: {obstacle}", root.path))
                .remedy("create the folder, or give the account or its group search permission there"),
        );
    };
    if root.access == Access::ReadOnly || rustix::fs::access(reachable, Wanted::WRITE_OK).is_ok() {
        return None;
    }
    let message = format!("{}: the account may not write in {}", root.path, reachable.display());
    Some(
        Finding::new(FindingCode::RootNotWritable, Severity::Warning, message)
            .remedy("give the account or its group write permission there, or set access = \"read-only\""),
    )
}
