//! The second wall: Landlock.
//!
//! What the job's root has can be read and executed; written only are the folders that policy says, and those that
//! are the job's own. Rights that a kernel does not know yet are left to the first wall.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetStatus, Scope,
};

use super::Confinement;

/// The newest version whose rights are asked for; a kernel gives those that it has.
const NEWEST: ABI = ABI::V6;

/// Folders of the job's own, and devices: written by everybody, as far as the mounts let.
const OWN: [&str; 4] = ["/tmp", "/var/tmp", "/dev", "/proc"];

/// Whether the kernel has Landlock, and it is switched on.
pub fn supported() -> bool {
    const VERSION: u32 = 1;
    // SAFETY: with this flag the call takes no attributes and touches no memory; it answers with a version.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<libc::c_void>(), 0usize, VERSION)
    };
    version >= 1
}

/// Lays the rules down.
pub fn restrict(confinement: &Confinement) -> io::Result<()> {
    let all = AccessFs::from_all(NEWEST);
    let mut rules = nothing_allowed()?;
    rules = allow(rules, Path::new("/"), AccessFs::from_read(NEWEST))?;
    let writable =
        confinement.folders.iter().filter(|reach| reach.writable).map(|reach| reach.path.as_path());
    for path in writable.chain(confinement.empty_home.as_deref()).chain(OWN.map(Path::new)) {
        rules = allow(rules, path, all)?;
    }
    if !enforce(rules)? {
        return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
    }
    Ok(())
}

/// Rules under which nothing may be done, of all that the kernel can keep from a process.
fn nothing_allowed() -> io::Result<RulesetCreated> {
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|rules| rules.scope(Scope::from_all(NEWEST)))
        .and_then(Ruleset::create)
        .map_err(io::Error::other)
}

/// Lays rules down for good. False: the kernel has no Landlock, and nothing was done.
fn enforce(rules: RulesetCreated) -> io::Result<bool> {
    let status = rules.restrict_self().map_err(io::Error::other)?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

/// Leaves this process, which is a user's already and never gains privileges, nothing of the file system but what is
/// below these folders; to be changed only where that is said. False: the kernel has no Landlock, and nothing was done.
pub fn restrict_to(folders: &[(BorrowedFd<'_>, bool)]) -> io::Result<bool> {
    let all = AccessFs::from_all(NEWEST);
    let mut rules = nothing_allowed()?;
    for (folder, writable) in folders {
        let access = if *writable { all } else { AccessFs::from_read(NEWEST) };
        rules = rules.add_rule(PathBeneath::new(*folder, access)).map_err(io::Error::other)?;
    }
    enforce(rules)
}

/// A folder that is not there, or that the user cannot open, needs no rule.
fn allow(rules: RulesetCreated, path: &Path, access: BitFlags<AccessFs>) -> io::Result<RulesetCreated> {
    match PathFd::new(path) {
        Ok(folder) => rules.add_rule(PathBeneath::new(folder, access)).map_err(io::Error::other),
        Err(_) => Ok(rules),
    }
}
