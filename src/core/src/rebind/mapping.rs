//! What becomes of an owner, a group and an access list.

use std::collections::{BTreeMap, BTreeSet};

use crate::acl::{Acl, AclEntry, AclWho};

/// What is changed of an entry of a tree: its owner, group and access lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    /// The uid.
    pub uid: u32,
    /// The gid.
    pub gid: u32,
    /// The access list; none where there is none.
    pub access: Option<Acl>,
    /// The list that what is made in a folder begins with.
    pub default: Option<Acl>,
}

/// Source accounts, the destination, and groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    from: BTreeSet<u32>,
    to: u32,
    groups: BTreeMap<u32, u32>,
}

impl Mapping {
    /// From these uids to this one, and these groups to those.
    pub fn new(
        from: impl IntoIterator<Item = u32>,
        to: u32,
        groups: impl IntoIterator<Item = (u32, u32)>,
    ) -> Self {
        Self { from: from.into_iter().collect(), to, groups: groups.into_iter().collect() }
    }

    /// Whether this is one of the source accounts: only what one of them owns is changed at all.
    pub fn is_source(&self, uid: u32) -> bool {
        self.from.contains(&uid)
    }

    /// The uid that things have afterwards.
    pub fn to(&self) -> u32 {
        self.to
    }

    /// The group that things of this one have afterwards.
    pub fn group(&self, gid: u32) -> u32 {
        self.groups.get(&gid).copied().unwrap_or(gid)
    }

    /// What becomes of something that a source account owns.
    pub fn apply(&self, before: &Owned) -> Owned {
        Owned {
            uid: self.to,
            gid: self.group(before.gid),
            access: before.access.as_ref().map(|acl| self.acl(acl)),
            default: before.default.as_ref().map(|acl| self.acl(acl)),
        }
    }

    /// What becomes of an access list. Two entries that become one have the rights of both.
    pub fn acl(&self, acl: &Acl) -> Acl {
        let mut entries: BTreeMap<AclWho, u8> = BTreeMap::new();
        for AclEntry { who, permissions } in &acl.0 {
            let who = match *who {
                AclWho::User(uid) if self.is_source(uid) => AclWho::User(self.to),
                AclWho::Group(gid) => AclWho::Group(self.group(gid)),
                who => who,
            };
            *entries.entry(who).or_default() |= permissions;
        }
        Acl(entries.into_iter().map(|(who, permissions)| AclEntry { who, permissions }).collect())
    }
}

/// Whether two lists say the same, in whatever order.
pub fn same(a: Option<&Acl>, b: Option<&Acl>) -> bool {
    a.map(Acl::to_bytes) == b.map(Acl::to_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(text: &str) -> Acl {
        text.parse().unwrap()
    }

    #[test]
    fn owner_group_and_entries_go_over_and_what_is_others_stays() {
        let mapping = Mapping::new([1001, 990], 2002, [(1001, 2002), (50, 60)]);
        let before = Owned {
            uid: 990,
            gid: 50,
            access: Some(acl(
                "user::rwx,user:1001:rw-,user:7:r--,group::r-x,group:1001:r--,mask::rwx,other::---",
            )),
            default: None,
        };
        let after = mapping.apply(&before);
        assert_eq!((after.uid, after.gid, &after.default), (2002, 60, &None));
        let expected = "user::rwx,user:7:r--,user:2002:rw-,group::r-x,group:2002:r--,mask::rwx,other::---";
        assert_eq!(after.access.unwrap().to_string(), expected);
        assert!(mapping.is_source(1001) && !mapping.is_source(2002) && !mapping.is_source(0));
        assert_eq!(mapping.group(7), 7);
    }

    #[test]
    fn entries_that_become_one_have_the_rights_of_both() {
        let mapping = Mapping::new([1, 2], 3, []);
        let before = acl("user::rwx,user:1:r--,user:2:-w-,user:3:--x,group::---,mask::rwx,other::---");
        assert_eq!(mapping.acl(&before).to_string(), "user::rwx,user:3:rwx,group::---,mask::rwx,other::---");
    }
}
