//! The folders that an application's roots mean for one account.

use std::path::PathBuf;

use deputy_core::application::Access;
use deputy_core::names::{AccountName, OsGroupName, OsUserName};

use crate::rules::{Rules, Target};

/// The folders of a root's pattern: one, or one for each of the OS account's groups that the application may act for
/// where the pattern has `{os_group}`.
pub fn folders(
    rules: &Rules,
    target: &Target,
    os_user: &OsUserName,
    account: &AccountName,
    pattern: &str,
) -> Vec<PathBuf> {
    let plain = pattern.replace("{os_user}", os_user.as_str()).replace("{account}", account.as_str());
    if !plain.contains("{os_group}") {
        return vec![plain.into()];
    }
    let allow = rules.application.os_accounts.allow_groups.as_ref();
    let allowed =
        |name: &str| allow.is_none_or(|groups: &Vec<OsGroupName>| groups.iter().any(|g| g.as_str() == name));
    let groups = target.groups.iter().filter(|group| allowed(&group.name));
    groups.map(|group| plain.replace("{os_group}", &group.name).into()).collect()
}

/// A folder of a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootFolder {
    /// Where it is.
    pub path: PathBuf,
    /// Whether what is below may be changed.
    pub writable: bool,
    /// Whether folders of projects may be made below.
    pub shared: bool,
}

/// The folders of all roots.
pub fn of_account(
    rules: &Rules,
    target: &Target,
    os_user: &OsUserName,
    account: &AccountName,
) -> Vec<RootFolder> {
    let roots = rules.application.roots.iter();
    roots
        .flat_map(|root| {
            let writable = root.access == Access::ReadWrite;
            let folders = folders(rules, target, os_user, account, &root.path).into_iter();
            folders.map(move |path| RootFolder { path, writable, shared: root.shared })
        })
        .collect()
}
