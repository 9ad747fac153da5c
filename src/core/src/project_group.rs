//! Groups of projects: OS groups whose members are the OS accounts of a project's accounts.
//!
//! Each gid has one record of root's and is one project's for ever: no other project gets it, also when the first one
//! is gone. What the record says is never wider than what was consented to: the launcher's children write it.

use serde::{Deserialize, Serialize};

use crate::ids::OsGid;
use crate::job::OsIdentity;
use crate::names::{AccountName, ApplicationName, OsGroupName};
use crate::pool::PoolSettings;
use crate::project::ProjectKey;
use crate::root_record::RootRecord;

/// The most members of a group: the owner and as many as a project has.
pub const MAX_GROUP_MEMBERS: usize = 1001;

/// An account in a project's group, with the OS account that the project pinned for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupMember {
    /// The account.
    pub account: AccountName,
    /// Its OS account.
    pub os_account: OsIdentity,
}

/// The record of one gid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupRecord {
    /// The version of the record's form.
    pub version: u32,
    /// The gid.
    pub gid: OsGid,
    /// The group's name.
    pub name: OsGroupName,
    /// The application, which never changes.
    pub application: ApplicationName,
    /// The project, as it was called when the record was last written: a word for people, and decides nothing.
    pub project: ProjectKey,
    /// Whether a project of this machine has it. One that was imported waits for the project of its name.
    pub claimed: bool,
    /// Counts the changes. A change names the one that it has seen, so that a late request undoes no newer one.
    pub revision: u64,
    /// Since when the gid is taken, seconds since 1970.
    pub since: u64,
    /// Who is in it.
    pub members: Vec<GroupMember>,
}

impl GroupRecord {
    /// A new group without members. None where the gid is not one of project groups.
    pub fn new(
        settings: &PoolSettings,
        gid: u32,
        application: &ApplicationName,
        project: &ProjectKey,
        now: u64,
    ) -> Option<Self> {
        Some(Self {
            version: Self::VERSION,
            gid: OsGid::new(gid)?,
            name: settings.group_name(gid)?,
            application: application.clone(),
            project: project.clone(),
            claimed: true,
            revision: 0,
            since: now,
            members: Vec::new(),
        })
    }

    /// Whether this account is in it as this OS account.
    pub fn has(&self, account: &AccountName, os_account: &OsIdentity) -> bool {
        self.members.iter().any(|member| member.account == *account && member.os_account == *os_account)
    }

    /// The file name of the record.
    pub fn file_name(gid: OsGid) -> String {
        gid.to_string()
    }
}

impl RootRecord for GroupRecord {
    const VERSION: u32 = 1;

    fn version(&self) -> u32 {
        self.version
    }

    fn own_file_name(&self) -> String {
        Self::file_name(self.gid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> PoolSettings {
        toml::from_str("uid_min = 70000\nuid_max = 70009\ngid_min = 69998\ngid_max = 70011\n").unwrap()
    }

    fn new(gid: u32) -> Option<GroupRecord> {
        GroupRecord::new(&settings(), gid, &"demo".parse().unwrap(), &"ada/x".parse().unwrap(), 7)
    }

    #[test]
    fn only_gids_of_the_range_that_are_no_accounts_own_are_groups_of_projects() {
        for gid in [0, 1000, 69_997, 70_000, 70_009, 70_012, u32::MAX] {
            assert_eq!(new(gid), None, "{gid}");
        }
        assert_eq!(settings().group_gids().collect::<Vec<_>>(), [69_998, 69_999, 70_010, 70_011]);
        let group = new(69_998).unwrap();
        assert_eq!((group.name.as_str(), group.members.len(), group.revision), ("dg69998", 0, 0));
    }

    #[test]
    fn a_record_under_another_name_of_another_version_or_with_more_is_none() {
        let identity: OsIdentity = OsIdentity {
            name: "alice".parse().unwrap(),
            uid: crate::ids::OsUid::new(1001).unwrap(),
            gid: OsGid::new(1001).unwrap(),
        };
        let member = GroupMember { account: "ada".parse().unwrap(), os_account: identity.clone() };
        let record = GroupRecord { members: vec![member], ..new(69_998).unwrap() };
        let text = record.to_text().unwrap();
        assert_eq!(GroupRecord::parse("69998", &text), Ok(record.clone()));
        assert!(GroupRecord::parse("69999", &text).is_err());
        assert!(GroupRecord::parse("69998", &text.replace("version = 1", "version = 2")).is_err());
        assert!(GroupRecord::parse("69998", &format!("more = 1\n{text}")).is_err());
        assert!(record.has(&"ada".parse().unwrap(), &identity));
        assert!(!record.has(&"eve".parse().unwrap(), &identity));
        let other = OsIdentity { uid: crate::ids::OsUid::new(1002).unwrap(), ..identity };
        assert!(!record.has(&"ada".parse().unwrap(), &other));
    }
}
