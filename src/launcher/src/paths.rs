//! Where the launcher's files are. All of these folders are root's alone.

use std::path::{Path, PathBuf};

use deputy_core::ids::JobId;

/// Consent records.
pub const CONSENT: &str = "/var/lib/deputy/consent";
/// For each OS uid that accounts of an application have: whose consents those are.
pub const HOLDERS: &str = "/var/lib/deputy/consent/holders";
/// Held by whoever gives a consent.
pub const GIVING: &str = "/run/deputy/giving";
/// Links that wait for their owner.
pub const OFFERS: &str = "/var/lib/deputy/requests";
/// One folder for each job.
pub const JOBS: &str = "/var/lib/deputy/jobs";
/// The control sockets of jobs.
pub const CONTROL: &str = "/run/deputy/jobs";
/// How often who tried.
pub const TRIES: &str = "/run/deputy/tries";
/// One record for each uid of the pool that was ever leased.
pub const POOL: &str = "/var/lib/deputy/pool";
/// For each account that has a lease: which uid.
pub const POOL_ACCOUNTS: &str = "/var/lib/deputy/pool/accounts";
/// One record for each gid that a project was ever given.
pub const POOL_GROUPS: &str = "/var/lib/deputy/pool/groups";
/// Held by whoever changes the groups' records.
pub const GROUPING: &str = "/run/deputy/grouping";
/// Held by whoever changes the pool's records.
pub const LEASING: &str = "/run/deputy/leasing";
/// Held by whoever writes the name service's map.
pub const MAPPING: &str = "/run/deputy/mapping";
/// One folder for each plan to move a tree to another OS account.
pub const REBIND: &str = "/var/lib/deputy/rebind";
/// Held by whoever makes or carries out such a plan.
pub const REBINDING: &str = "/run/deputy/rebinding";
/// Which children live.
pub const SLOTS: &str = "/run/deputy/slots";

/// The folder of one job. A job id is base 32, so it is never more than a name.
pub fn job_folder(job: &JobId) -> PathBuf {
    Path::new(JOBS).join(job.as_str())
}

/// The control socket of one job.
pub fn control_socket(job: &JobId) -> PathBuf {
    Path::new(CONTROL).join(job.as_str())
}
