//! What a job of a confined kind reaches of the machine.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use deputy_core::denial::{Code, Denial};
use deputy_core::kind::{HomeAccess, Kind};
use deputy_core::message::RunRequest;
use deputy_sys::confine::{self, Confinement, Reach};

use crate::roots;
use crate::rules::{Rules, Target};

/// The confinement of a job, where its kind has one.
pub fn confinement(
    rules: &Rules,
    kind: &Kind,
    target: &Target,
    request: &RunRequest,
    devices: Vec<PathBuf>,
) -> Result<Option<Confinement>, Denial> {
    if !kind.confine {
        return Ok(None);
    }
    if let Some(missing) = confine::missing() {
        return Err(Denial::new(
            Code::ConfinementUnavailable,
            format!("applications.d/{}.toml: confine", rules.name),
            format!("this kernel lacks {missing}"),
        )
        .remedy("run a kernel that has it, or decide that this kind needs no confinement"));
    }
    let roots = roots::of_account(rules, target, &request.os_account.name, &request.account);
    let roots = roots.into_iter().map(|root| Reach { path: root.path, writable: root.writable });
    let home = PathBuf::from(OsStr::from_bytes(&target.entry.home));
    let access = kind.home.unwrap_or_default();
    let own = (access != HomeAccess::None)
        .then(|| Reach { path: home.clone(), writable: access == HomeAccess::ReadWrite });
    Ok(Some(Confinement {
        folders: roots.chain(own).collect(),
        empty_home: (access == HomeAccess::None).then_some(home),
        devices,
    }))
}
