//! Access control lists, as the kernel keeps them with a file.

use std::os::fd::OwnedFd;

use deputy_core::acl::Acl;
use rustix::fs::{XattrFlags, getxattr, removexattr, setxattr};
use rustix::io::Errno;

use super::resolve::own_link;

/// The most bytes of an attribute.
const MAX_ATTRIBUTE: usize = 64 * 1024;

/// As much as nearly every list has.
const USUAL: usize = 512;

fn attribute(default: bool) -> &'static str {
    if default { "system.posix_acl_default" } else { "system.posix_acl_access" }
}

/// The list of what a descriptor is open on, by `O_PATH` too; none where there is none.
pub fn get(found: &OwnedFd, default: bool) -> Result<Option<Acl>, Errno> {
    let (link, read) = (own_link(found), |bytes: &[u8]| Acl::from_bytes(bytes).map_err(|_| Errno::INVAL));
    let mut usual = [0u8; USUAL];
    let told = match getxattr(&link, attribute(default), &mut usual) {
        Err(Errno::RANGE) => {
            let mut bytes = vec![0u8; MAX_ATTRIBUTE];
            getxattr(&link, attribute(default), &mut bytes).and_then(|length| read(&bytes[..length]))
        }
        told => told.and_then(|length| read(&usual[..length])),
    };
    match told {
        Ok(acl) => Ok(Some(acl)),
        Err(Errno::NODATA) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Changes the list, or takes it away.
pub fn set(found: &OwnedFd, default: bool, acl: Option<&Acl>) -> Result<(), Errno> {
    match acl {
        Some(acl) => setxattr(own_link(found), attribute(default), &acl.to_bytes(), XattrFlags::empty()),
        None => match removexattr(own_link(found), attribute(default)) {
            Err(Errno::NODATA) => Ok(()),
            other => other,
        },
    }
}
