//! Access control lists, as the kernel keeps them with a file.

use std::os::fd::OwnedFd;

use deputy_core::acl::Acl;
use rustix::fs::{XattrFlags, getxattr, removexattr, setxattr};
use rustix::io::Errno;

use super::CallError;
use super::resolve::own_link;

/// The most bytes of an attribute.
const MAX_ATTRIBUTE: usize = 64 * 1024;

fn attribute(default: bool) -> &'static str {
    if default { "system.posix_acl_default" } else { "system.posix_acl_access" }
}

/// The list of what a descriptor is open on, by `O_PATH` too; none where there is none.
pub fn get(found: &OwnedFd, default: bool) -> Result<Option<Acl>, CallError> {
    let mut bytes = vec![0u8; MAX_ATTRIBUTE];
    match getxattr(own_link(found), attribute(default), &mut bytes) {
        Ok(length) => {
            let acl = Acl::from_bytes(&bytes[..length]).map_err(|_| CallError::from(Errno::INVAL))?;
            Ok(Some(acl))
        }
        Err(Errno::NODATA) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Changes the list, or takes it away.
pub fn set(found: &OwnedFd, default: bool, acl: Option<&Acl>) -> Result<(), CallError> {
    let done = match acl {
        Some(acl) => setxattr(own_link(found), attribute(default), &acl.to_bytes(), XattrFlags::empty()),
        None => match removexattr(own_link(found), attribute(default)) {
            Err(Errno::NODATA) => Ok(()),
            other => other,
        },
    };
    Ok(done?)
}
