//! The examiner: what speaks for and against a link, found without changing anything.
//!
//! Without consent it tells what the passwd database and policy say, which anybody can know; what PAM, the shadow
//! file and paths say is told only with consent, or to root. The paths are looked at last, as the OS account.

mod account;
mod link;
mod pam;
mod paths;
mod quota;
mod service;
mod shadow;
mod storage;

use deputy_core::denial::Denial;
use deputy_core::finding::{Finding, Severity};
use deputy_core::message::ExamineRequest;
use deputy_core::policy;
use deputy_wire::Peer;

use crate::consents;
use crate::rules::{Rules, Target};

/// Everything that can be found about this link.
pub fn examine(request: &ExamineRequest, peer: Peer) -> Result<Vec<Finding>, Denial> {
    let rules = Rules::read(&request.application)?;
    let mut findings = service::findings(&rules);
    findings.extend(pam::services(&rules));
    let (target, about_it) = account::look_up(&request.os_user);
    findings.extend(about_it);
    let Some(target) = target else {
        // A name that is gone is also the end of a link that pinned it.
        findings.extend(request.pinned.as_ref().and_then(link::stale));
        return Ok(findings);
    };
    findings.extend(rules.denials(&target).into_iter().map(Finding::from));
    findings.extend(account::findings(&target));

    let Ok(identity) = policy::identity(&target.entry) else { return Ok(findings) };
    findings.extend(request.pinned.as_ref().and_then(link::stale));
    let stands = link::consent(&rules, request, &identity);
    findings.extend(stands.findings);
    if !stands.holds && peer.uid != 0 {
        return Ok(findings);
    }
    findings.extend(shadow::findings(&target, consents::now()));
    // What PAM and paths say about somebody whom no job can be run as would only be noise.
    if findings.iter().any(|finding| finding.severity == Severity::Error && !leaves_more_to_find(finding)) {
        return Ok(findings);
    }
    findings.extend(pam::account_phase(&rules, &target));
    findings.extend(paths::findings(&rules, &target, &identity, request));
    Ok(findings)
}

fn leaves_more_to_find(finding: &Finding) -> bool {
    matches!(
        finding.code.as_str(),
        "no-consent" | "consent-expired" | "password-expired" | "os-account-expired"
    )
}

/// The OS account's name, as messages show it.
fn who(target: &Target) -> &str {
    &target.entry.name
}
