//! What the passwd database says about the OS account, and how long it takes to say it.

use std::time::{Duration, Instant};

use deputy_core::finding::{Finding, FindingCode, Severity};
use deputy_core::names::OsUserName;
use deputy_core::policy::PasswdEntry;
use deputy_sys::accounts;

use super::who;
use crate::rules::{self, Target};

/// A look-up that takes longer makes each job wait.
const SLOW: Duration = Duration::from_secs(1);

/// Looks the OS account up; what is wrong with the look-up itself.
pub fn look_up(user: &OsUserName) -> (Option<Target>, Vec<Finding>) {
    let began = Instant::now();
    let found = rules::look_up(user);
    let mut findings: Vec<Finding> = slow(began.elapsed()).into_iter().collect();
    match found {
        Ok(target) => {
            let by_uid = accounts::by_uid(target.entry.uid).ok().flatten();
            findings.extend(ambiguous(user, &target.entry, by_uid.as_ref()));
            (Some(target), findings)
        }
        Err(denial) => {
            findings.push(denial.into());
            (None, findings)
        }
    }
}

fn slow(took: Duration) -> Option<Finding> {
    (took > SLOW).then(|| {
        let message = format!("the name service took {:.1} s to look the OS account up", took.as_secs_f64());
        Finding::new(FindingCode::NameServiceSlow, Severity::Warning, message)
            .remedy("look at SSSD or LDAP, and let a cache answer: each job looks its OS account up")
    })
}

/// The name that was asked for, the one that the entry has, and the one that the uid has, are to be the same: a job
/// compares them.
fn ambiguous(asked: &OsUserName, by_name: &PasswdEntry, by_uid: Option<&PasswdEntry>) -> Option<Finding> {
    let other = [Some(by_name), by_uid].into_iter().find_map(|entry| match entry {
        Some(entry) if entry.name != asked.as_str() => Some(entry.name.clone()),
        None => Some("nobody".to_owned()),
        Some(_) => None,
    })?;
    let message = format!("{asked} has uid {}, which the name service calls {other}", by_name.uid);
    Some(Finding::new(FindingCode::OsAccountAmbiguous, Severity::Error, message).remedy(format!(
        "link the name that 'getent passwd {}' prints, or give each name its own uid",
        by_name.uid
    )))
}

/// What anybody can see of the account.
pub fn findings(target: &Target) -> Option<Finding> {
    let shell = String::from_utf8_lossy(&target.entry.shell);
    refuses_logins(&shell).then(|| {
        let message = format!("the login shell of {} is {shell}", who(target));
        Finding::new(FindingCode::ShellRefusesLogins, Severity::Warning, message)
            .remedy("jobs start without a shell and work; a person cannot log in to give or revoke consent")
    })
}

/// Whether nobody can work in this shell.
pub fn refuses_logins(shell: &str) -> bool {
    shell.ends_with("/nologin") || shell.ends_with("/false")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, uid: u32) -> PasswdEntry {
        PasswdEntry { name: name.into(), uid, gid: uid, home: Vec::new(), shell: Vec::new() }
    }

    #[test]
    fn a_name_that_leads_to_another_name_is_found() {
        let asked = OsUserName::new("Ann").unwrap();
        let (upper, lower) = (entry("Ann", 1001), entry("ann", 1001));
        assert_eq!(ambiguous(&asked, &upper, Some(&upper)), None);
        for (by_name, by_uid) in [(&lower, Some(&lower)), (&upper, Some(&lower)), (&upper, None)] {
            let finding = ambiguous(&asked, by_name, by_uid).unwrap();
            assert_eq!((finding.code.as_str(), finding.severity), ("os-account-ambiguous", Severity::Error));
        }
    }

    #[test]
    fn a_look_up_is_slow_from_one_second_on() {
        assert_eq!(slow(Duration::from_millis(999)), None);
        assert!(slow(Duration::from_millis(2500)).unwrap().message.contains("2.5 s"));
    }
}
