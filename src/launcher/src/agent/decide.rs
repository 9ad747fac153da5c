//! May there be a file agent? Decided from root-owned files, consent, the name service and PAM, in this process, now.

use deputy_core::denial::{Code, Denial};
use deputy_core::message::FilesRequest;
use deputy_core::policy::PasswdEntry;
use deputy_core::settings::Settings;
use deputy_sys::slots::Slot;
use deputy_sys::{Credentials, accounts};
use pam_client::Context;

use super::watched::Watched;
use crate::pam::{self, Nobody};
use crate::request::{share, share_of_os_account, slot};
use crate::roots::RootFolder;
use crate::rules::Rules;
use crate::{consents, pool, roots};

/// How many agents one OS account has at most: whoever has it can stop its processes, and keep their places.
const MAX_AGENTS_OF_OS_ACCOUNT: u16 = 16;

/// An agent that may be.
pub struct Decision {
    /// Whom it becomes.
    pub credentials: Credentials,
    /// Its passwd entry.
    pub entry: PasswdEntry,
    /// Its roots.
    pub roots: Vec<RootFolder>,
    /// What has to stay as it is.
    pub watched: Watched,
    /// Its places.
    pub slots: Vec<Slot>,
}

/// Decides about a request. `by_uid` is who asks for an agent; without one it is only said what would be decided, and
/// nothing is written.
pub fn decide(settings: &Settings, request: &FilesRequest, by_uid: Option<u32>) -> Result<Decision, Denial> {
    let of_all = slot("agents", settings.launcher.max_agents)?;
    // Before anything is read: what changes while it is decided is seen at the first call.
    let mut watched = Watched::policy(&request.application)?;
    let rules = Rules::read(&request.application)?;
    let of_application = share("agents", settings.launcher.max_agents, rules.service_uid)?;
    if rules.application.roots.is_empty() {
        return Err(Denial::new(
            Code::PathOutside,
            format!("applications.d/{}.toml: roots", rules.name),
            "the application has no root, so it touches no file",
        )
        .remedy("let root name a folder in [[roots]]"));
    }
    match by_uid {
        Some(by_uid) => {
            let consent = consents::valid(&rules, &request.account, &request.os_account, by_uid)?;
            watched.add_consent(&consent)?;
            // An agent serves all sessions of its account; which of them asks is deputyd's word (PRIVSEP.md).
            consents::still_valid(
                &rules.name,
                &request.account,
                &request.os_account,
                rules.service_uid,
                None,
            )?;
        }
        None => consents::would_be_valid(&rules, &request.account, &request.os_account)?,
    }
    let target = rules.pinned_target(&request.os_account)?;
    let of_os_account = share_of_os_account("agents", MAX_AGENTS_OF_OS_ACCOUNT, request.os_account.uid)?;
    let mut groups = accounts::gids(&target.entry)
        .map_err(|error| Denial::internal(format!("the name service failed: {error}")))?;
    if let Some(gid) = request.project_group {
        // Looked at before it is read: who leaves meanwhile is seen at the first call.
        watched.add_group(gid)?;
        let gid = pool::group_of_member(&rules, gid, &request.account, &request.os_account)?.raw();
        if !groups.contains(&gid) {
            groups.push(gid);
        }
    }
    let roots = roots::of_account(&rules, &target, &request.os_account.name, &request.account);
    account_phase(&rules, &target.entry.name)?;
    // PAM may have taken its time. What is only said gives nothing to anybody.
    if by_uid.is_some() {
        watched.check()?;
    }
    Ok(Decision {
        credentials: Credentials { uid: request.os_account.uid, gid: request.os_account.gid, groups },
        entry: target.entry,
        roots,
        watched,
        slots: vec![of_all, of_application, of_os_account],
    })
}

/// Asks PAM whether the account may be used now. There is no session: nothing is started that would be part of it.
fn account_phase(rules: &Rules, user: &str) -> Result<(), Denial> {
    let service = &rules.application.pam.job;
    pam::check_service(service)?;
    let failed = |error: pam_client::Error| pam::account_refused(service, user, &error);
    let mut context = Context::new(service, Some(user), Nobody).map_err(failed)?;
    context.set_ruser(Some(rules.name.as_str())).map_err(failed)?;
    context.set_tty(Some("deputy")).map_err(failed)?;
    pam::check_account(&mut context, service, user)
}
