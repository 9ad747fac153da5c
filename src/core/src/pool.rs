//! Pool accounts: OS accounts that Deputy leases to accounts of applications whose people have none.
//!
//! Each uid of the pool's range has one record, or was never used. The uid is also the number in the account's name
//! and the gid of the account's own group, so that no change of the settings ever gives two accounts the same.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ids::{OsGid, OsUid};
use crate::job::OsIdentity;
use crate::names::{AccountName, ApplicationName, OsGroupName, OsUserName};
use crate::policy::DYNAMIC_UIDS;
use crate::root_record::RootRecord;
use crate::size::ByteSize;

/// The least uid and gid of a pool: what is below belongs to the system.
const LEAST: u32 = 1000;

/// `[pool]` of `deputy.toml`. Without it there is no pool.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolSettings {
    /// The first uid of the range.
    pub uid_min: u32,
    /// The last uid.
    pub uid_max: u32,
    /// The first gid; the range has all uids of the pool in it, since an account's own group has its number.
    pub gid_min: u32,
    /// The last gid.
    pub gid_max: u32,
    /// An account's name, with `{number}` where its uid goes.
    #[serde(default = "default_name")]
    pub name: String,
    /// The name of a project's group, with `{number}` where its gid goes.
    #[serde(default = "default_group")]
    pub group: String,
    /// An account's home, with `{name}` for its last component. The folder above has to be root's all the way.
    #[serde(default = "default_home")]
    pub home: String,
    /// The login shell.
    #[serde(default = "default_shell")]
    pub shell: String,
    /// What a new home begins with; it is copied as its owner. Absent: nothing.
    #[serde(default)]
    pub skeleton: Option<PathBuf>,
    /// The soft limit on the space of an account on the file system of its home.
    #[serde(default)]
    pub quota_soft: Option<ByteSize>,
    /// The hard limit.
    #[serde(default)]
    pub quota_hard: Option<ByteSize>,
    /// Seconds between the return of an account and the first time that its uid can be another's.
    #[serde(default = "default_quarantine")]
    pub quarantine_seconds: u64,
}

fn default_name() -> String {
    "dp{number}".into()
}

fn default_group() -> String {
    "dg{number}".into()
}

fn default_home() -> String {
    "/home/pool/{name}".into()
}

fn default_shell() -> String {
    "/bin/bash".into()
}

fn default_quarantine() -> u64 {
    30 * 24 * 3600
}

impl PoolSettings {
    /// Why these are no settings of a pool, if they are none.
    pub fn check(&self) -> Result<(), &'static str> {
        for (first, last) in [(self.uid_min, self.uid_max), (self.gid_min, self.gid_max)] {
            if first < LEAST || last < first || last == u32::MAX {
                return Err("pool: each range begins at 1000 or above and ends below 4294967295");
            }
            if first <= *DYNAMIC_UIDS.end() && last >= *DYNAMIC_UIDS.start() {
                return Err("pool: no range has ids of 61184 to 65535, which are systemd's and nobody's");
            }
        }
        if self.gid_min > self.uid_min || self.gid_max < self.uid_max {
            return Err(
                "pool: gid_min to gid_max has all of uid_min to uid_max in it: an account's own group has \
                        its uid for a gid; groups of projects have the gids that are left",
            );
        }
        if self.name.matches("{number}").count() != 1 || self.os_user(self.uid_min).is_none() {
            return Err("pool.name is letters, digits, - and _, a letter first, with {number} once");
        }
        if self.group.matches("{number}").count() != 1 || numbered(&self.group, self.gid_max).is_none() {
            return Err("pool.group is letters, digits, - and _, a letter first, with {number} once");
        }
        let parent = self.home.strip_suffix("/{name}");
        if !parent.is_some_and(|parent| is_plain_path(parent) && parent != "/") {
            return Err("pool.home is an absolute path of plain names that ends with /{name}");
        }
        if !is_plain_path(&self.shell) {
            return Err("pool.shell is an absolute path");
        }
        if self.skeleton.as_ref().is_some_and(|path| !path.to_str().is_some_and(is_plain_path)) {
            return Err("pool.skeleton is an absolute path");
        }
        if let (Some(soft), Some(hard)) = (self.quota_soft, self.quota_hard)
            && soft.0 > hard.0
        {
            return Err("pool.quota_soft is not above pool.quota_hard");
        }
        Ok(())
    }

    /// The name of the account with this uid; none where the pattern makes no name.
    fn os_user(&self, uid: u32) -> Option<OsUserName> {
        numbered(&self.name, uid).and_then(|name| OsUserName::new(name).ok())
    }

    /// The gids that groups of projects can have: those of the range that are not the accounts' own.
    pub fn group_gids(&self) -> impl Iterator<Item = u32> {
        let own = self.uid_min..=self.uid_max;
        (self.gid_min..=self.gid_max).filter(move |gid| !own.contains(gid))
    }

    /// The name of the project group with this gid; none where no project group can have it.
    pub fn group_name(&self, gid: u32) -> Option<OsGroupName> {
        let is_own = (self.uid_min..=self.uid_max).contains(&gid);
        if is_own || !(self.gid_min..=self.gid_max).contains(&gid) {
            return None;
        }
        numbered(&self.group, gid).and_then(|name| OsGroupName::new(name).ok())
    }

    /// The identity that this uid of the range has, and nobody else; none outside the range.
    pub fn identity(&self, uid: u32) -> Option<OsIdentity> {
        if !(self.uid_min..=self.uid_max).contains(&uid) {
            return None;
        }
        Some(OsIdentity { name: self.os_user(uid)?, uid: OsUid::new(uid)?, gid: OsGid::new(uid)? })
    }

    /// The folder that holds all homes.
    pub fn homes(&self) -> &Path {
        Path::new(self.home.strip_suffix("/{name}").unwrap_or(&self.home))
    }
}

/// A pattern's name for a number; none where that is no plain name.
fn numbered(pattern: &str, number: u32) -> Option<String> {
    let name = pattern.replace("{number}", &number.to_string());
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic());
    (plain && first && name.len() <= 32).then_some(name)
}

/// Absolute, without `.`, `..`, doubled slashes, and what a passwd line or a pattern would take for its own.
fn is_plain_path(path: &str) -> bool {
    path.strip_prefix('/').is_some_and(|rest| {
        rest.split('/').all(|component| {
            !matches!(component, "" | "." | "..")
                && !component.chars().any(|c| c.is_control() || matches!(c, ':' | '{' | '}'))
        })
    })
}

/// `[pool]` of an application's file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PoolPolicy {
    /// Whether accounts of the application that have no OS account are leased one.
    pub lease: bool,
    /// Whether projects of the application that are shared have an OS group of their own.
    pub project_groups: bool,
}

/// What a uid of the pool is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PoolState {
    /// It is the OS account of the account in the record.
    Leased,
    /// It was returned, and is nobody's for a while.
    Quarantined,
    /// Nothing of it was left after that; it can be leased again, after one more search.
    Free,
}

impl PoolState {
    /// The word in records and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            PoolState::Leased => "leased",
            PoolState::Quarantined => "quarantined",
            PoolState::Free => "free",
        }
    }
}

impl fmt::Display for PoolState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The record of one uid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolRecord {
    /// The version of the record's form.
    pub version: u32,
    /// Who it is.
    pub os_account: OsIdentity,
    /// The home.
    pub home: String,
    /// Whether the home is complete; nothing runs as the account before.
    pub home_made: bool,
    /// The application to which it is, or was last, leased.
    pub application: ApplicationName,
    /// The account of that application.
    pub account: AccountName,
    /// What it is doing.
    pub state: PoolState,
    /// Since when, seconds since 1970.
    pub since: u64,
}

impl PoolRecord {
    /// A new lease. None where the identity is not the pool's.
    pub fn lease(
        settings: &PoolSettings,
        uid: u32,
        application: &ApplicationName,
        account: &AccountName,
        now: u64,
    ) -> Option<Self> {
        let os_account = settings.identity(uid)?;
        Some(Self {
            version: Self::VERSION,
            home: settings.home.replace("{name}", os_account.name.as_str()),
            os_account,
            home_made: false,
            application: application.clone(),
            account: account.clone(),
            state: PoolState::Leased,
            since: now,
        })
    }

    /// Whether it is leased to this account.
    pub fn is_leased_to(&self, application: &ApplicationName, account: &AccountName) -> bool {
        self.state == PoolState::Leased && self.application == *application && self.account == *account
    }

    /// The file name of the record.
    pub fn file_name(uid: OsUid) -> String {
        uid.to_string()
    }

    /// The name of the file that says which uid an account has: the SHA-256 of both names, so that no name is a path.
    pub fn account_file_name(application: &ApplicationName, account: &AccountName) -> String {
        use fmt::Write as _;
        let mut hash = Sha256::new();
        for part in [application.as_str(), account.as_str()] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        hash.finalize().iter().fold(String::with_capacity(64), |mut name, byte| {
            // Writing to a String cannot fail.
            let _ = write!(name, "{byte:02x}");
            name
        })
    }
}

impl RootRecord for PoolRecord {
    const VERSION: u32 = 1;

    fn version(&self) -> u32 {
        self.version
    }

    fn own_file_name(&self) -> String {
        Self::file_name(self.os_account.uid)
    }
}

/// Something that still belongs to a uid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOver {
    /// What sort: `process`, `file`, `crontab`, `linger`, `shared-memory`, `semaphore`, `message-queue`, `slurm-job`,
    /// or `unknown` for what could not be looked at.
    pub sort: String,
    /// Which one.
    pub what: String,
}

impl LeftOver {
    /// One of a sort.
    pub fn new(sort: &str, what: impl Into<String>) -> Self {
        Self { sort: sort.to_owned(), what: what.into() }
    }
}

impl fmt::Display for LeftOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.sort, self.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(more: &str) -> PoolSettings {
        let least = "uid_min = 70000\nuid_max = 70009\ngid_min = 69000\ngid_max = 70009\n";
        toml::from_str(&format!("{least}{more}")).unwrap()
    }

    #[test]
    fn settings_that_would_reach_into_others_ids_are_refused() {
        assert_eq!(settings("").check(), Ok(()));
        for change in [
            (70_000, 69_999, 69_000, 70_009),
            (999, 70_009, 999, 70_009),
            (60_000, 70_009, 60_000, 70_009),
            (65_535, 70_009, 65_535, 70_009),
            (70_000, 70_009, 70_001, 70_009),
            (70_000, 70_009, 70_000, 70_008),
            (70_000, u32::MAX, 70_000, u32::MAX),
        ] {
            let (uid_min, uid_max, gid_min, gid_max) = change;
            let settings = PoolSettings { uid_min, uid_max, gid_min, gid_max, ..settings("") };
            assert!(settings.check().is_err(), "{change:?}");
        }
        for bad in [
            "name = \"dp\"",
            "name = \"{number}\"",
            "name = \"d/{number}\"",
            "name = \"{number}{number}\"",
            "group = \"dg\"",
            "group = \"{number}\"",
            "group = \"d:{number}\"",
            "home = \"/home/{name}/x\"",
            "home = \"/home/../{name}\"",
            "home = \"home/{name}\"",
            "home = \"/{name}\"",
            "shell = \"/bin/sh:x\"",
            "skeleton = \"etc/skel\"",
            "quota_soft = \"2M\"\nquota_hard = \"1M\"",
        ] {
            assert!(settings(bad).check().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_uid_outside_the_range_has_no_identity_and_each_inside_its_own() {
        let settings = settings("");
        assert_eq!(settings.identity(69_999), None);
        assert_eq!(settings.identity(70_010), None);
        let identity = settings.identity(70_003).unwrap();
        assert_eq!(
            (identity.name.as_str(), identity.uid.raw(), identity.gid.raw()),
            ("dp70003", 70_003, 70_003)
        );
    }

    #[test]
    fn a_record_under_another_name_or_of_another_version_is_none() {
        let (application, account) = ("demo".parse().unwrap(), "ada".parse().unwrap());
        let record = PoolRecord::lease(&settings(""), 70_001, &application, &account, 7).unwrap();
        let text = record.to_text().unwrap();
        assert_eq!(PoolRecord::parse("70001", &text), Ok(record.clone()));
        assert!(PoolRecord::parse("70002", &text).is_err());
        assert!(PoolRecord::parse("70001", &text.replace("version = 1", "version = 2")).is_err());
        assert!(PoolRecord::parse("70001", &format!("more = 1\n{text}")).is_err());
        assert_eq!(record.home, "/home/pool/dp70001");
        let file = PoolRecord::account_file_name;
        assert_ne!(file(&application, &account), file(&"demoa".parse().unwrap(), &"da".parse().unwrap()));
        assert!(PoolRecord::lease(&settings(""), 70_010, &application, &account, 7).is_none());
    }
}
