//! The examiner: what speaks for and against a link, found without changing anything.
//!
//! Without consent it tells what the passwd database and policy say, which anybody can know; what PAM, the shadow
//! file and paths say is told only with consent, or to root. The paths are looked at last, as the OS account.

use std::path::Path;

use deputy_core::denial::Denial;
use deputy_core::finding::{Finding, Severity};
use deputy_core::job::OsIdentity;
use deputy_core::message::ExamineRequest;
use deputy_core::names::OsGroupName;
use deputy_core::policy;
use deputy_sys::Credentials;
use deputy_wire::Peer;
use pam_client::Context;

use crate::rules::{self, Rules, Target};
use crate::{consents, pam};

/// Everything that can be found about this link.
pub fn examine(request: &ExamineRequest, peer: Peer) -> Result<Vec<Finding>, Denial> {
    let rules = Rules::read(&request.application)?;
    let target = match rules::look_up(&request.os_user) {
        Ok(target) => target,
        Err(denial) => return Ok(vec![denial.into()]),
    };
    let mut findings: Vec<Finding> = rules.denials(&target).into_iter().map(Finding::from).collect();
    findings.extend(pam::check_service(&rules.application.pam.login).err().map(Finding::from));
    findings.extend(pam::check_service(&rules.application.pam.job).err().map(Finding::from));
    findings.extend(shell(&target));

    let Ok(identity) = policy::identity(&target.entry) else { return Ok(findings) };
    let now_stale = request.pinned.as_ref().filter(|pinned| **pinned != identity);
    if let Some(pinned) = now_stale {
        let (name, uid) = (Some(&target.entry), Some(&target.entry));
        findings.extend(policy::check_pinned(pinned, name, uid).err().map(Finding::from));
    }
    let consented = consent(&rules, request, &identity, &mut findings);
    if findings.iter().any(|finding| finding.severity == Severity::Error && finding.code != "no-consent") {
        return Ok(findings);
    }
    if consented || peer.uid == 0 {
        findings.extend(account_phase(&rules, &target));
        findings.extend(paths(&rules, &target, &identity, request));
    }
    Ok(findings)
}

fn shell(target: &Target) -> Option<Finding> {
    let shell = String::from_utf8_lossy(&target.entry.shell);
    let refuses = shell.ends_with("/nologin") || shell.ends_with("/false");
    refuses.then(|| {
        Finding::new("shell-refuses-logins", Severity::Warning, format!("the login shell is {shell}"))
            .remedy("jobs start without a shell and work; a person cannot log in to give or revoke consent")
    })
}

fn consent(
    rules: &Rules,
    request: &ExamineRequest,
    identity: &OsIdentity,
    findings: &mut Vec<Finding>,
) -> bool {
    let found = consents::find(&rules.name, &request.account, identity.uid);
    match found.map(|consent| consent.map(|c| c.check(identity, rules.service_uid, consents::now()))) {
        Ok(Some(Ok(()))) => true,
        Ok(Some(Err(denial))) | Err(denial) => {
            findings.push(denial.into());
            false
        }
        Ok(None) if consents::rule_gives(rules, &request.account, identity) => {
            findings.push(Finding::new(
                "consent-by-rule",
                Severity::Note,
                "the application's link rule gives consent at the first use",
            ));
            false
        }
        Ok(None) => {
            findings.push(deputy_core::consent::Consent::missing().into());
            false
        }
    }
}

fn account_phase(rules: &Rules, target: &Target) -> Option<Finding> {
    let service = &rules.application.pam.job;
    let user = &target.entry.name;
    let checked = Context::new(service, Some(user), pam::Nobody)
        .map_err(|error| Denial::internal(format!("PAM could not be started: {error}")))
        .and_then(|mut context| pam::check_account(&mut context, service, user));
    checked.err().map(Finding::from)
}

/// Becomes the OS account and tries its home and the application's roots. The process ends with this request, so
/// there is no way back to take.
fn paths(rules: &Rules, target: &Target, identity: &OsIdentity, request: &ExamineRequest) -> Vec<Finding> {
    let groups = match deputy_sys::accounts::gids(&target.entry) {
        Ok(groups) => groups,
        Err(error) => return vec![Denial::internal(error.to_string()).into()],
    };
    let credentials = Credentials { uid: identity.uid, gid: identity.gid, groups };
    if let Err(error) = deputy_sys::become_user(&credentials) {
        return vec![Denial::internal(format!("could not become {identity}: {error}")).into()];
    }
    let mut findings = Vec::new();
    let home = String::from_utf8_lossy(&target.entry.home).into_owned();
    if let Some((component, error)) = first_refusal(Path::new(&home)) {
        findings.push(
            Finding::new("home-unreachable", Severity::Warning, format!("{component}: {error}")).remedy(
                "jobs start in / instead; create the home, or give the account search permission on the way",
            ),
        );
    }
    for root in &rules.application.roots {
        findings.extend(root_finding(rules, target, request, &root.path));
    }
    findings
}

fn root_finding(rules: &Rules, target: &Target, request: &ExamineRequest, pattern: &str) -> Option<Finding> {
    let plain =
        pattern.replace("{os_user}", request.os_user.as_str()).replace("{account}", request.account.as_str());
    let allowed = |name: &str| {
        rules
            .application
            .os_accounts
            .allow_groups
            .as_ref()
            .is_none_or(|groups: &Vec<OsGroupName>| groups.iter().any(|group| group.as_str() == name))
    };
    let candidates: Vec<String> = if plain.contains("{os_group}") {
        let groups = target.groups.iter().filter(|group| allowed(&group.name));
        groups.map(|group| plain.replace("{os_group}", &group.name)).collect()
    } else {
        vec![plain]
    };
    let refusals: Vec<_> = candidates.iter().map(|path| first_refusal(Path::new(path))).collect();
    if refusals.iter().any(Option::is_none) {
        return None;
    }
    let why = refusals.into_iter().flatten().next().map_or_else(
        || "the account is in no group that the root's pattern could mean".to_owned(),
        |(component, error)| format!("{component}: {error}"),
    );
    Some(
        Finding::new("root-unreachable", Severity::Warning, format!("{pattern}: {why}"))
            .remedy("create the folder, or give the account or its group search permission there"),
    )
}

/// The first component of a path that this process cannot search, and why.
fn first_refusal(path: &Path) -> Option<(String, std::io::Error)> {
    let mut components: Vec<&Path> = path.ancestors().collect();
    components.reverse();
    components.into_iter().find_map(|component| {
        rustix::fs::access(component, rustix::fs::Access::EXEC_OK)
            .err()
            .map(|errno| (component.display().to_string(), errno.into()))
    })
}
