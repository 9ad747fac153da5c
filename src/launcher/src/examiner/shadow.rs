//! What the shadow file says about the OS account. Accounts of a directory service have no line there; what speaks
//! against them is found by PAM's account phase.

use std::fs;

use deputy_core::finding::{Finding, FindingCode, Severity};

use super::who;
use crate::rules::Target;

const SHADOW: &str = "/etc/shadow";

const DAY_SECONDS: u64 = 24 * 60 * 60;

/// What speaks against the account's password and time.
pub fn findings(target: &Target, now: u64) -> Vec<Finding> {
    let text = fs::read_to_string(SHADOW).unwrap_or_default();
    let line = text.lines().find(|line| line.split(':').next() == Some(who(target)));
    line.map(|line| of_line(line, i64::try_from(now / DAY_SECONDS).unwrap_or(i64::MAX))).unwrap_or_default()
}

/// See shadow(5): name, password, day of the last change, minimum, maximum, warning, inactivity, end.
fn of_line(line: &str, today: i64) -> Vec<Finding> {
    let fields: Vec<&str> = line.split(':').collect();
    let day =
        |index: usize| fields.get(index).and_then(|field| field.parse::<i64>().ok()).filter(|&day| day >= 0);
    let name = fields[0];
    let mut findings = Vec::new();
    if fields.get(1).is_some_and(|password| password.starts_with('!')) {
        let message = format!("the password of {name} is locked");
        findings.push(
            Finding::new(FindingCode::PasswordLocked, Severity::Warning, message).remedy(
                "jobs run; to consent the owner needs another login and a code, or 'passwd -u' by the administrator",
            ),
        );
    }
    if day(7).is_some_and(|end| today >= end) {
        let message = format!("the OS account {name} has expired");
        findings.push(
            Finding::new(FindingCode::OsAccountExpired, Severity::Error, message)
                .remedy(format!("if the person is still to have it: chage -E -1 {name}")),
        );
    }
    let changed = day(2);
    let is_over = changed == Some(0)
        || matches!((changed, day(4)), (Some(changed), Some(maximum)) if today > changed.saturating_add(maximum));
    if is_over {
        let message = format!("the password of {name} has to be changed");
        findings.push(
            Finding::new(FindingCode::PasswordExpired, Severity::Error, message)
                .remedy("its owner changes it at the next login; PAM refuses jobs until then"),
        );
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locked_expired_and_to_be_changed_are_told_apart() {
        let codes = |line: &str| -> Vec<String> {
            of_line(line, 20_000).into_iter().map(|finding| finding.code).collect()
        };
        assert!(codes("ann:$y$x:19990:0:99999:7:::").is_empty());
        assert!(codes("ann:*:19990:0:99999:7:::").is_empty());
        assert!(codes("ann:$y$x:19990::::::").is_empty());
        assert!(codes("ann:$y$x").is_empty());
        assert_eq!(codes("ann:!$y$x:19990:0:99999:7:::"), ["password-locked"]);
        assert_eq!(codes("ann:$y$x:19990:0:99999:7::20000:"), ["os-account-expired"]);
        assert!(codes("ann:$y$x:19990:0:99999:7::20001:").is_empty());
        assert_eq!(codes("ann:$y$x:0:0:99999:7:::"), ["password-expired"]);
        assert_eq!(codes("ann:$y$x:19900:0:90:7:::"), ["password-expired"]);
    }
}
