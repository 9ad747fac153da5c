//! Users and groups, as the name service (files, LDAP, SSSD, ...) gives them.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;

use deputy_core::policy::{Group, PasswdEntry};
use nix::unistd::{self, Gid, Uid, User};

fn entry(user: User) -> PasswdEntry {
    PasswdEntry {
        name: user.name,
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
        home: user.dir.as_os_str().as_bytes().to_vec(),
        shell: user.shell.as_os_str().as_bytes().to_vec(),
    }
}

/// The passwd entry of a name. An error is the name service's, and is not "no such user".
pub fn by_name(name: &str) -> io::Result<Option<PasswdEntry>> {
    Ok(User::from_name(name)?.map(entry))
}

/// The passwd entry of a uid.
pub fn by_uid(uid: u32) -> io::Result<Option<PasswdEntry>> {
    Ok(User::from_uid(Uid::from_raw(uid))?.map(entry))
}

/// The gids of an OS account: its primary one and those of the group database.
pub fn gids(entry: &PasswdEntry) -> io::Result<Vec<u32>> {
    let name = CString::new(entry.name.as_str())?;
    Ok(unistd::getgrouplist(&name, Gid::from_raw(entry.gid))?.into_iter().map(Gid::as_raw).collect())
}

/// The groups of an OS account by name. A gid that has no name is left out: no rule can name it.
pub fn groups(entry: &PasswdEntry) -> io::Result<Vec<Group>> {
    let mut groups = Vec::new();
    for gid in gids(entry)? {
        if let Some(group) = unistd::Group::from_gid(Gid::from_raw(gid))? {
            groups.push(Group { name: group.name, gid });
        }
    }
    Ok(groups)
}

/// The group of this name.
pub fn group_by_name(name: &str) -> io::Result<Option<Group>> {
    Ok(unistd::Group::from_name(name)?.map(|group| Group { name: group.name, gid: group.gid.as_raw() }))
}

/// The group of this gid.
pub fn group_by_gid(gid: u32) -> io::Result<Option<Group>> {
    let group = unistd::Group::from_gid(Gid::from_raw(gid))?;
    Ok(group.map(|group| Group { name: group.name, gid: group.gid.as_raw() }))
}

/// Whether the group database has a group of this name or of this gid.
pub fn has_group(name: &str, gid: u32) -> io::Result<bool> {
    Ok(unistd::Group::from_name(name)?.is_some() || unistd::Group::from_gid(Gid::from_raw(gid))?.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_known_by_name_and_by_uid_and_nobody_else_is_made_up() {
        let root = by_name("root").unwrap().unwrap();
        assert_eq!(by_uid(0).unwrap().unwrap(), root);
        assert_eq!(root.home, b"/root");
        assert!(groups(&root).unwrap().iter().any(|group| group.gid == 0));
        assert_eq!(by_name("no-such-user-of-deputy").unwrap(), None);
        assert!(
            has_group("root", 4_123_456_789).unwrap() && has_group("no-such-group-of-deputy", 0).unwrap()
        );
        assert!(!has_group("no-such-group-of-deputy", 4_123_456_789).unwrap());
        assert_eq!(group_by_name("root").unwrap(), group_by_gid(0).unwrap());
        assert_eq!(group_by_gid(4_123_456_789).unwrap(), None);
    }
}
