//! What a check finds: code, severity, message, remedy.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::denial::Denial;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nothing is wrong.
    Note,
    /// It works, but something that people expect will not.
    Warning,
    /// It does not work.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        })
    }
}

macro_rules! finding_codes {
    ($($(#[doc = $doc:literal])* $code:ident $text:literal,)*) => {
        /// The codes of findings that are not refusals. A refusal seen by a check has its own code, in kebab case.
        ///
        /// `docs/findings.md` explains each. Codes are added, never renamed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum FindingCode {
            $($(#[doc = $doc])* $code,)*
        }

        impl FindingCode {
            /// Every code, in the order of the documentation.
            pub const ALL: &'static [FindingCode] = &[$(FindingCode::$code,)*];

            /// The stable word.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(FindingCode::$code => $text,)*
                }
            }
        }
    };
}

finding_codes! {
    // The account.
    /// The application has no account of this name.
    AccountMissing "account-missing",
    // The OS account.
    /// The name service gives another name for this one, or another name for its uid.
    OsAccountAmbiguous "os-account-ambiguous",
    /// The password is locked.
    PasswordLocked "password-locked",
    /// The password's time is over.
    PasswordExpired "password-expired",
    /// The OS account's time is over.
    OsAccountExpired "os-account-expired",
    /// The login shell refuses logins.
    ShellRefusesLogins "shell-refuses-logins",
    /// The name service takes long to answer.
    NameServiceSlow "name-service-slow",
    // Consent.
    /// The link rule gives consent at the first use.
    ConsentByRule "consent-by-rule",
    /// The consent ends soon.
    ConsentEndsSoon "consent-ends-soon",
    // Files.
    /// The home directory is not there.
    HomeMissing "home-missing",
    /// The home directory cannot be entered.
    HomeUnreachable "home-unreachable",
    /// The OS account is in no group that the root's pattern could mean.
    RootWithoutGroup "root-without-group",
    /// A root's folder, or one on the way to it, is not there.
    RootMissing "root-missing",
    /// A root's folder cannot be entered.
    RootUnreachable "root-unreachable",
    /// A root that the application may change cannot be changed by the OS account.
    RootNotWritable "root-not-writable",
    /// A quota is used up on the file system of the home or of a root.
    QuotaExceeded "quota-exceeded",
    /// A quota's soft limit is passed there.
    QuotaAboveSoftLimit "quota-above-soft-limit",
    /// The file system of a root has no POSIX access control lists.
    FileSystemWithoutAcls "file-system-without-acls",
    /// The file system of a root asks for a Kerberos ticket.
    KerberosTicketNeeded "kerberos-ticket-needed",
    /// The file server of a root does not count groups of the OS account.
    GroupsNotCounted "groups-not-counted",
    /// The file server of a root may take root for nobody.
    RootMayBeSquashed "root-may-be-squashed",
    // The pool.
    /// Somebody else has the name or a number of an OS account of the pool; it is passed over.
    PoolNumberTaken "pool-number-taken",
    /// The quota of a pool account could not be set.
    PoolQuotaNotSet "pool-quota-not-set",
    // The application and the machine.
    /// The application's service user is a member of a group that it should not be in.
    ServiceUserInGroup "service-user-in-group",
    /// The application's service user can log in.
    ServiceUserCanLogIn "service-user-can-log-in",
    /// polkit does not know an action of Deputy's.
    PolkitActionMissing "polkit-action-missing",
    /// polkit does not answer.
    PolkitUnreachable "polkit-unreachable",
}

impl From<FindingCode> for String {
    fn from(code: FindingCode) -> String {
        code.as_str().to_owned()
    }
}

/// One result of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// A stable word in kebab case, listed in the documentation.
    pub code: String,
    /// How much it matters.
    pub severity: Severity,
    /// One sentence in words.
    pub message: String,
    /// What to do about it, or empty.
    pub remedy: String,
}

impl Finding {
    /// A finding without a remedy.
    pub fn new(code: impl Into<String>, severity: Severity, message: impl Into<String>) -> Self {
        Self { code: code.into(), severity, message: message.into(), remedy: String::new() }
    }

    /// Says what to do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }
}

/// A refusal seen by a check is an error finding; its code is the refusal's in kebab case.
impl From<Denial> for Finding {
    fn from(denial: Denial) -> Self {
        let mut code = String::new();
        for c in denial.code.as_str().chars() {
            if c.is_ascii_uppercase() && !code.is_empty() {
                code.push('-');
            }
            code.push(c.to_ascii_lowercase());
        }
        Self { code, severity: Severity::Error, message: denial.message, remedy: denial.remedy }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::denial::Code;

    #[test]
    fn a_refusal_becomes_an_error_finding_of_the_same_words() {
        let denial =
            Denial::new(Code::OsAccountOutOfRange, "min_uid", "uid 5 is below 1000").remedy("choose another");
        let finding = Finding::from(denial);
        assert_eq!(finding.code, "os-account-out-of-range");
        assert_eq!(finding.severity, Severity::Error);
        assert_eq!(finding.remedy, "choose another");
    }
}
