//! What the link's own records say: the pinned identity and the consent.

use deputy_core::consent::Consent;
use deputy_core::finding::{Finding, FindingCode, Severity};
use deputy_core::job::OsIdentity;
use deputy_core::message::ExamineRequest;

use crate::rules::{self, Rules};
use crate::{consents, holders};

/// A consent that ends within this time is worth a word.
const SOON_SECONDS: u64 = 7 * 24 * 60 * 60;

/// Whether the name service still says what was pinned when the link was made.
pub fn stale(pinned: &OsIdentity) -> Option<Finding> {
    rules::is_still(pinned).err().map(Finding::from)
}

/// How the consent stands.
pub struct Stands {
    /// Whether it can be used now.
    pub holds: bool,
    /// What to say about it.
    pub findings: Option<Finding>,
}

/// How the consent to this link stands.
pub fn consent(rules: &Rules, request: &ExamineRequest, identity: &OsIdentity) -> Stands {
    let not = |finding: Finding| Stands { holds: false, findings: Some(finding) };
    let found = match consents::find(&rules.name, &request.account, identity.uid) {
        Ok(found) => found,
        Err(denial) => return not(denial.into()),
    };
    if let Some(consent) = found {
        let now = consents::now();
        return match consent.check(identity, rules.service_uid, now) {
            Ok(()) => Stands { holds: true, findings: ends_soon(&consent, now) },
            Err(denial) => not(denial.into()),
        };
    }
    if let Err(denial) = holders::check(rules, &request.account, identity.uid) {
        return not(denial.into());
    }
    if consents::rule_gives(rules, &request.account, identity) {
        let message = "the application's link rule gives consent at the first use";
        return not(Finding::new(FindingCode::ConsentByRule, Severity::Note, message));
    }
    not(Consent::missing().into())
}

fn ends_soon(consent: &Consent, now: u64) -> Option<Finding> {
    let left = consent.expires?.saturating_sub(now);
    (left < SOON_SECONDS).then(|| {
        let message = format!("the consent ends in {} hours", left / 3600);
        Finding::new(FindingCode::ConsentEndsSoon, Severity::Note, message).remedy(format!(
            "its owner renews it: deputyctl consent renew {} {}",
            consent.application, consent.account
        ))
    })
}
