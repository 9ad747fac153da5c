//! Dropping root's identity: the one place in the tree that calls `setgroups` and `set*id`.

use std::fmt;

use deputy_core::ids::{OsGid, OsUid};
use deputy_core::job::Step;
use nix::errno::Errno;
use nix::unistd::{Gid, Uid, getgroups, getresgid, getresuid, setgroups, setresgid, setresuid};

/// Who to become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The uid.
    pub uid: OsUid,
    /// The primary gid.
    pub gid: OsGid,
    /// The final list of supplementary groups, as `getgroups` gave it after PAM.
    pub groups: Vec<u32>,
}

/// A step of the drop that failed. The process must not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DropError {
    /// The step.
    pub step: Step,
    /// Why.
    pub errno: Errno,
}

impl fmt::Display for DropError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, self.errno)
    }
}

impl std::error::Error for DropError {}

/// Becomes the OS account for good: groups, then gid, then uid, each with real, effective and saved id, because after
/// the uid nothing else can be set. Then all of them are read back, the way back to root is tried and has to fail,
/// and what capabilities an exec could inherit is dropped.
///
/// After an error the process is in between and must leave. Meant for a process with one thread.
pub fn become_user(credentials: &Credentials) -> Result<(), DropError> {
    let at = |step| move |errno| DropError { step, errno };
    let uid = Uid::from_raw(credentials.uid.raw());
    let gid = Gid::from_raw(credentials.gid.raw());
    let groups: Vec<Gid> = credentials.groups.iter().copied().map(Gid::from_raw).collect();

    setgroups(&groups).map_err(at(Step::Setgroups))?;
    setresgid(gid, gid, gid).map_err(at(Step::Setresgid))?;
    setresuid(uid, uid, uid).map_err(at(Step::Setresuid))?;
    verify(uid, gid, &groups)?;
    drop_capabilities().map_err(at(Step::Capabilities))
}

/// Does something with the user's rights on files, and comes back: the effective ids and the groups are the user's
/// meanwhile, and with the effective uid the capabilities go and return (`capabilities(7)`). For opening what policy
/// names before the drop; the groups stay, because what follows is the drop.
///
/// After an error the process is in between and must leave.
pub fn as_user<T>(credentials: &Credentials, action: impl FnOnce() -> T) -> Result<T, DropError> {
    let at = |step| move |errno| DropError { step, errno };
    let root = (Uid::from_raw(0), Gid::from_raw(0));
    let (uid, gid) = (Uid::from_raw(credentials.uid.raw()), Gid::from_raw(credentials.gid.raw()));
    let groups: Vec<Gid> = credentials.groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups).map_err(at(Step::Setgroups))?;
    setresgid(root.1, gid, root.1).map_err(at(Step::Setresgid))?;
    setresuid(root.0, uid, root.0).map_err(at(Step::Setresuid))?;
    let done = action();
    setresuid(root.0, root.0, root.0).map_err(at(Step::Setresuid))?;
    setresgid(root.1, root.1, root.1).map_err(at(Step::Setresgid))?;
    Ok(done)
}

fn verify(uid: Uid, gid: Gid, groups: &[Gid]) -> Result<(), DropError> {
    let at = |errno| DropError { step: Step::Verify, errno };
    let uids = getresuid().map_err(at)?;
    let gids = getresgid().map_err(at)?;
    let sorted = |groups: &[Gid]| {
        let mut raw: Vec<u32> = groups.iter().map(|gid| gid.as_raw()).collect();
        raw.sort_unstable();
        raw.dedup();
        raw
    };
    let same = [uids.real, uids.effective, uids.saved] == [uid; 3]
        && [gids.real, gids.effective, gids.saved] == [gid; 3]
        && sorted(&getgroups().map_err(at)?) == sorted(groups);
    if !same {
        return Err(at(Errno::EPERM));
    }
    // If root can be had again, it was not dropped.
    let root = Uid::from_raw(0);
    if setresuid(root, root, root).is_ok()
        || setresgid(Gid::from_raw(0), Gid::from_raw(0), Gid::from_raw(0)).is_ok()
    {
        return Err(at(Errno::EPERM));
    }
    Ok(())
}

/// The kernel clears the effective and permitted sets with the uid; the inheritable and ambient ones would pass an
/// exec on. The ambient set is not read back: it never has what the inheritable one lacks (`capabilities(7)`), and to
/// ask for each capability by itself takes eighty system calls.
fn drop_capabilities() -> Result<(), Errno> {
    use caps::CapSet;
    let failed = |_| Errno::EPERM;
    caps::clear(None, CapSet::Ambient).map_err(failed)?;
    caps::clear(None, CapSet::Inheritable).map_err(failed)?;
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        if !caps::read(None, set).map_err(failed)?.is_empty() {
            return Err(Errno::EPERM);
        }
    }
    Ok(())
}
