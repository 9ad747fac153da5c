//! What is wrong with the application's own service user.

use deputy_core::application::Mode;
use deputy_core::finding::{Finding, FindingCode, Severity};
use deputy_core::names::OsGroupName;
use deputy_core::policy::{Group, PasswdEntry};
use deputy_sys::accounts;

use super::account::refuses_logins;
use crate::rules::Rules;

/// What speaks against the service user. That it exists and is not root has been found before.
pub fn findings(rules: &Rules) -> Vec<Finding> {
    if rules.application.mode == Mode::SingleUser {
        // It is a person, with a login and groups of his own.
        return Vec::new();
    }
    let Ok(Some(entry)) = accounts::by_uid(rules.service_uid) else { return Vec::new() };
    let groups = accounts::groups(&entry).unwrap_or_default();
    let allowed = rules.application.os_accounts.allow_groups.as_deref().unwrap_or_default();
    let mut findings = in_groups(&entry, &groups, &rules.settings.os_accounts.privileged_groups, allowed);
    let shell = String::from_utf8_lossy(&entry.shell);
    if entry.uid >= rules.settings.os_accounts.min_uid && !refuses_logins(&shell) {
        let message = format!("the service user {} has uid {} and the shell {shell}", entry.name, entry.uid);
        findings.push(
            Finding::new(FindingCode::ServiceUserCanLogIn, Severity::Note, message)
                .remedy("give the application a system user without a login shell"),
        );
    }
    findings
}

fn in_groups(
    entry: &PasswdEntry,
    groups: &[Group],
    privileged: &[String],
    allowed: &[OsGroupName],
) -> Vec<Finding> {
    let finding = |group: &Group, severity: Severity, why: &str| {
        let message = format!("the service user {} is a member of {}, {why}", entry.name, group.name);
        Finding::new(FindingCode::ServiceUserInGroup, severity, message)
            .remedy(format!("take it out: gpasswd -d {} {}", entry.name, group.name))
    };
    groups
        .iter()
        .filter_map(|group| {
            if privileged.contains(&group.name) {
                return Some(finding(group, Severity::Warning, "which amounts to root's power"));
            }
            let reaches = allowed.iter().any(|name| name.as_str() == group.name);
            let why = "whose files the application is to reach only as one of its members";
            reaches.then(|| finding(group, Severity::Warning, why))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_user_is_in_no_group_of_power_or_of_its_users() {
        let entry =
            PasswdEntry { name: "portal".into(), uid: 990, gid: 990, home: Vec::new(), shell: Vec::new() };
        let group = |name: &str, gid| Group { name: name.into(), gid };
        let allowed = [OsGroupName::new("lab1").unwrap()];
        let of = |groups: &[Group]| in_groups(&entry, groups, &["sudo".into()], &allowed).len();
        assert_eq!(of(&[group("portal", 990), group("mail", 8)]), 0);
        assert_eq!(of(&[group("portal", 990), group("sudo", 27), group("lab1", 2001)]), 2);
    }
}
