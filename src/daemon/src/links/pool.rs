//! Leases of the pool: the link of an account whose person has no OS account.

use deputy_core::consent::GivenBy;
use deputy_core::job::OsIdentity;
use deputy_core::message::{LauncherReply, LauncherRequest, LinkState as Asked};
use deputy_core::{AccountName, ApplicationName, Denial};

use super::may_link;
use crate::daemon::Daemon;
use crate::launcher::{ANSWER, LauncherError};
use crate::store::LinkState;

/// Asks the launcher for the account's lease, which is a consent of policy's at the same time.
pub async fn lease(
    daemon: &Daemon,
    application: &ApplicationName,
    account: &AccountName,
    relink: bool,
) -> Result<(OsIdentity, Asked), Denial> {
    let link = daemon.store.link(application, account)?.filter(|_| !relink);
    // No lease is begun for an account that has another OS account: no lease is anybody's but by policy.
    if let Some(link) = &link
        && (link.state == LinkState::Waiting || link.given_by != Some(GivenBy::Policy))
        && matches!(link.state, LinkState::Active | LinkState::Waiting)
    {
        return Err(Denial::new(
            deputy_core::Code::Conflict,
            "link",
            "the account has a link to an OS account",
        )
        .remedy("remove that link first, or link it anew (option relink)"));
    }
    let request = LauncherRequest::LeasePool { application: application.clone(), account: account.clone() };
    let LauncherReply::Leased(leased) = daemon.launcher.ask(&request, &[], ANSWER).await? else {
        return Err(LauncherError::Foreign.into());
    };
    for finding in &leased.findings {
        tracing::warn!(code = %finding.code, message = %finding.message, "a finding about the pool");
    }
    if !relink {
        may_link(daemon, application, account, &leased.os_account.name)?;
    }
    Ok((leased.os_account, Asked::Active { given_by: GivenBy::Policy, expires: None, renewal: None }))
}
