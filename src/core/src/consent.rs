//! Consent: the root-owned record that allows a link to be used.
//!
//! The key is (application, account, OS uid). Only the launcher's children write records; they read one at each use.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::denial::{Code, Denial};
use crate::ids::OsUid;
use crate::job::OsIdentity;
use crate::names::{AccountName, ApplicationName};

/// By how many seconds a clock may be behind itself: somebody corrected it.
const CLOCK_TOLERANCE: u64 = 60;

/// Who gave a consent, and so who was entitled to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GivenBy {
    /// The OS account's owner: by PAM, or in his own login.
    Owner,
    /// Root.
    Root,
    /// A rule in the root-owned file of the application.
    Policy,
}

impl GivenBy {
    /// The word in records and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            GivenBy::Owner => "owner",
            GivenBy::Root => "root",
            GivenBy::Policy => "policy",
        }
    }
}

/// A consent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Consent {
    /// The version of the record's form.
    pub version: u32,
    /// The application that may use it.
    pub application: ApplicationName,
    /// The uid that spoke for the application when consent was given.
    pub service_uid: u32,
    /// The application's account.
    pub account: AccountName,
    /// The OS account, pinned.
    pub os_account: OsIdentity,
    /// Who gave it.
    pub given_by: GivenBy,
    /// The uid of the process that asked for the record to be written.
    pub by_uid: u32,
    /// Since when there is one without a break, seconds since 1970.
    pub made: u64,
    /// Until when, seconds since 1970.
    pub expires: Option<u64>,
}

/// A text is not a consent record.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConsentError {
    /// Not TOML of the schema.
    #[error("{0}")]
    Toml(String),
    /// Of a version that this program does not read.
    #[error("consent record of version {0}; this program reads version {known}", known = Consent::VERSION)]
    Version(u32),
    /// A record of another key under this name.
    #[error("the record does not belong under this name")]
    Misplaced,
}

impl Consent {
    /// The version that this program writes and reads.
    pub const VERSION: u32 = 1;

    /// The file name of the record of a key: the key's SHA-256 in hexadecimal, so that no name is ever a path.
    pub fn file_name(application: &ApplicationName, account: &AccountName, uid: OsUid) -> String {
        Self::hash([application.as_str(), account.as_str()], uid)
    }

    fn hash(parts: [&str; 2], uid: OsUid) -> String {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        hash.update(uid.raw().to_le_bytes());
        let mut name = String::with_capacity(64);
        for byte in hash.finalize() {
            // Writing to a String cannot fail.
            let _ = write!(name, "{byte:02x}");
        }
        name
    }

    /// The name of the list of those accounts of an application that have this OS uid.
    pub fn holders_name(application: &ApplicationName, uid: OsUid) -> String {
        // No account's name is empty, so this is no record's name.
        Self::hash([application.as_str(), ""], uid)
    }

    /// The file name of this record.
    pub fn own_file_name(&self) -> String {
        Self::file_name(&self.application, &self.account, self.os_account.uid)
    }

    /// The record as text for its file.
    pub fn to_text(&self) -> Result<String, ConsentError> {
        toml::to_string(self).map_err(|error| ConsentError::Toml(error.to_string()))
    }

    /// Reads the text of the file called `file_name`.
    pub fn parse(file_name: &str, text: &str) -> Result<Self, ConsentError> {
        let consent: Self = toml::from_str(text).map_err(|error| ConsentError::Toml(error.to_string()))?;
        if consent.version != Self::VERSION {
            return Err(ConsentError::Version(consent.version));
        }
        if consent.own_file_name() != file_name {
            return Err(ConsentError::Misplaced);
        }
        Ok(consent)
    }

    /// Whether the consent holds for this identity, now, for an application that this uid speaks for.
    pub fn check(&self, identity: &OsIdentity, service_uid: u32, now: u64) -> Result<(), Denial> {
        if self.expires.is_some_and(|expires| now >= expires) {
            return Err(Denial::new(Code::ConsentExpired, "consent", "the consent to this link has expired")
                .remedy("link the account again, or let root grant consent"));
        }
        // With a clock that is behind, what has expired would hold again.
        if self.expires.is_some() && self.made > now.saturating_add(CLOCK_TOLERANCE) {
            return Err(Denial::new(
                Code::ConsentExpired,
                "consent",
                "the machine's clock is behind the time at which this consent was given, so that nobody knows whether it \
                 has expired",
            )
            .remedy("set the machine's clock; if it was wrong before, take the consent back and give it again"));
        }
        if self.service_uid != service_uid {
            return Err(Denial::new(
                Code::NoConsent,
                "consent",
                "the consent was given to this application when another service user spoke for it",
            )
            .remedy("link the account again, or let root grant consent"));
        }
        if self.os_account != *identity {
            return Err(Denial::new(
                Code::LinkStale,
                "consent",
                format!("the consent is for {}, not for {identity}", self.os_account),
            )
            .remedy("if it is still the same person, link the account again"));
        }
        Ok(())
    }

    /// Whether a login of that time, seconds since 1970, rests on this consent. One from before it rested on another,
    /// which was taken back. What a rule of root's gives at the first use is always younger than the login, and a rule
    /// gives nothing again that was taken back.
    pub fn check_login(&self, login: u64) -> Result<(), Denial> {
        if self.made <= login || self.given_by == GivenBy::Policy {
            return Ok(());
        }
        Err(Denial::new(
            Code::SessionRequired,
            "consent",
            "the session rests on a login under an earlier consent, which was taken back",
        )
        .remedy("log in again"))
    }

    /// The answer where there is no record.
    pub fn missing() -> Denial {
        Denial::new(Code::NoConsent, "consent", "nobody entitled to has consented to this link").remedy(
            "link the account (deputyctl link add), let its owner give consent (deputyctl consent give), or root grant it",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::OsGid;
    use crate::names::OsUserName;

    fn identity(uid: u32) -> OsIdentity {
        OsIdentity {
            name: OsUserName::new("ann").unwrap(),
            uid: OsUid::new(uid).unwrap(),
            gid: OsGid::new(1001).unwrap(),
        }
    }

    fn consent() -> Consent {
        Consent {
            version: Consent::VERSION,
            application: ApplicationName::new("demo").unwrap(),
            service_uid: 990,
            account: AccountName::new("alice").unwrap(),
            os_account: identity(1001),
            given_by: GivenBy::Owner,
            by_uid: 1001,
            made: 100,
            expires: Some(200),
        }
    }

    #[test]
    fn it_holds_only_for_the_same_identity_service_and_time() {
        let consent = consent();
        let code =
            |identity, service, now| consent.check(&identity, service, now).map_err(|denial| denial.code);
        assert_eq!(code(identity(1001), 990, 199), Ok(()));
        assert_eq!(code(identity(1001), 990, 200), Err(Code::ConsentExpired));
        assert_eq!(code(identity(1001), 991, 150), Err(Code::NoConsent));
        assert_eq!(code(identity(1002), 990, 150), Err(Code::LinkStale));
    }

    #[test]
    fn with_a_clock_that_is_behind_one_that_can_expire_does_not_hold() {
        let consent = consent();
        let holds =
            |consent: &Consent, now| consent.check(&identity(1001), 990, now).map_err(|denial| denial.code);
        assert_eq!(holds(&consent, 40), Ok(()));
        assert_eq!(holds(&consent, 39), Err(Code::ConsentExpired));
        assert_eq!(holds(&consent, 0), Err(Code::ConsentExpired));
        // One that never expires does not ask what time it is.
        assert_eq!(holds(&Consent { expires: None, ..consent }, 0), Ok(()));
    }

    #[test]
    fn a_login_from_before_the_consent_does_not_rest_on_it() {
        let consent = consent();
        for (login, code) in
            [(0, Err(Code::SessionRequired)), (99, Err(Code::SessionRequired)), (100, Ok(())), (150, Ok(()))]
        {
            assert_eq!(consent.check_login(login).map_err(|denial| denial.code), code, "{login}");
        }
        let by_rule = Consent { given_by: GivenBy::Policy, ..consent };
        assert_eq!(by_rule.check_login(99), Ok(()));
    }

    #[test]
    fn a_record_is_read_only_under_its_own_name_and_version() {
        let consent = consent();
        let text = consent.to_text().unwrap();
        assert_eq!(Consent::parse(&consent.own_file_name(), &text), Ok(consent.clone()));
        assert_eq!(Consent::parse("other", &text), Err(ConsentError::Misplaced));
        let later = text.replace("version = 1", "version = 2");
        assert_eq!(Consent::parse(&consent.own_file_name(), &later), Err(ConsentError::Version(2)));
        let root = text.replace("uid = 1001", "uid = 0");
        assert!(matches!(Consent::parse(&consent.own_file_name(), &root), Err(ConsentError::Toml(_))));
    }

    #[test]
    fn keys_that_differ_only_in_where_the_border_lies_have_different_names() {
        let name = |application: &str, account: &str| {
            Consent::file_name(
                &ApplicationName::new(application).unwrap(),
                &AccountName::new(account).unwrap(),
                OsUid::new(1001).unwrap(),
            )
        };
        assert_ne!(name("ab", "c"), name("a", "bc"));
    }
}
