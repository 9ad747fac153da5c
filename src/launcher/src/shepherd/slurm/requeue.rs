//! Whether a job may run again, where somebody asks for it: decided by root's files, consent and the name service, now.
//!
//! What would run is the submission that was decided about, as the identity that PAM allowed then. So only what somebody may
//! have taken back since is looked at. Where it was not submitted as one that may run again, Slurm is not asked.

use deputy_core::application::DEFAULT_KIND;
use deputy_core::denial::Denial;
use deputy_core::ids::JobId;
use deputy_core::names::KindName;
use deputy_core::policy;
use deputy_core::settings::Settings;
use deputy_core::slurm::policy::runs_once;

use super::record::{self, RunsAgain};
use crate::rules::Rules;
use crate::shepherd::folder::JobIdentity;
use crate::{consents, pool};

/// A job that may run again.
pub struct Again {
    rests_on: RunsAgain,
    service_uid: u32,
}

/// Decides about the job of this identity.
pub fn allowed(settings: &Settings, job: &JobId, identity: &JobIdentity) -> Result<Again, Denial> {
    let rests_on = record::runs_again(job)?.ok_or_else(runs_once)?;
    let rules = Rules::under(settings.clone(), &identity.application)?;
    let kind = policy::check_kind(&rules.name, &rules.application, rests_on.kind.as_ref())?;
    let name = rests_on.kind.as_ref().map_or(DEFAULT_KIND, KindName::as_str);
    let rule = format!("applications.d/{}.toml: kinds.{name}", rules.name);
    kind.slurm.clone().unwrap_or_default().check_requeue(&rule)?;
    let again = Again { rests_on, service_uid: rules.service_uid };
    again.still_holds(identity)?;
    rules.pinned_target(&identity.os_account)?;
    Ok(again)
}

impl Again {
    /// Looks at what its owner or root may have taken back.
    pub fn still_holds(&self, identity: &JobIdentity) -> Result<(), Denial> {
        let JobIdentity { application, account, os_account, .. } = identity;
        consents::still_valid(application, account, os_account, self.service_uid, self.rests_on.login)?;
        match self.rests_on.project_group {
            Some(gid) => pool::still_has(application, gid, account, os_account),
            None => Ok(()),
        }
    }
}
