//! The PAM session of a job, in the shepherd's own process.
//!
//! The order matters. `initgroups` comes first, because PAM's modules may add groups when credentials are established
//! and `initgroups` afterwards would take them away (`pam_setcred(3)`). The list that `getgroups` gives at the end is
//! the job's.

use std::os::unix::ffi::OsStrExt as _;

use deputy_core::denial::{Code, Denial};
use deputy_core::job::OsIdentity;
use deputy_sys::limits::Limits;
use deputy_sys::process;
use pam_client::{Context, Flag, SessionToken};

use super::decide::Decision;
use crate::pam::{Nobody, check_account, check_user};

/// The umask of a job where no PAM module sets one.
const DEFAULT_UMASK: u32 = 0o022;

/// The umask of the shepherd's own files.
const OWN_UMASK: u32 = 0o077;

/// An open session.
pub struct JobSession {
    context: Context<Nobody>,
    token: SessionToken,
    /// The final list of supplementary groups.
    pub groups: Vec<u32>,
    /// What the modules set, each `NAME=VALUE`.
    pub environment: Vec<Vec<u8>>,
    /// The umask that the modules left.
    pub umask: u32,
    /// The resource limits that the modules left.
    pub limits: Limits,
}

/// Asks PAM whether the account may be used now, and opens the session.
pub fn open(decision: &Decision, user: &str, identity: &OsIdentity) -> Result<JobSession, Denial> {
    let service = &decision.pam_service;
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        Denial::new(Code::PamSessionFailed, format!("/etc/pam.d/{service}: {what}"), format!("PAM: {error}"))
            .remedy("the journal has what the PAM modules said: journalctl -t deputy-launcher")
    };
    let mut context = Context::new(service, Some(user), Nobody).map_err(|error| failed("start", &error))?;
    context.set_ruser(Some(&decision.application)).map_err(|error| failed("PAM_RUSER", &error))?;
    context.set_tty(Some("deputy")).map_err(|error| failed("PAM_TTY", &error))?;
    check_account(&mut context, service, user)?;

    process::init_groups(user, identity.gid.raw()).map_err(|error| failed("initgroups", &error))?;
    process::set_umask(DEFAULT_UMASK);
    let own_limits = Limits::current().map_err(|error| failed("limits", &error))?;
    let session = context.open_session(Flag::SILENT).map_err(|error| failed("session", &error))?;
    let environment = session
        .envlist()
        .iter_tuples()
        .map(|(name, value)| join(name.as_bytes(), value.as_bytes()))
        .collect();
    // The token keeps the session open without borrowing the context; `close` takes it back.
    let token = session.leak();
    let umask = process::set_umask(OWN_UMASK);
    let mut opened =
        JobSession { context, token, groups: Vec::new(), environment, umask, limits: own_limits.clone() };
    match opened.take_over(user, &own_limits) {
        Ok(()) => Ok(opened),
        Err(denial) => {
            opened.close();
            Err(denial)
        }
    }
}

fn join(name: &[u8], value: &[u8]) -> Vec<u8> {
    [name, b"=", value].concat()
}

impl JobSession {
    /// Takes what the modules made of this process for the job. The shepherd itself goes on with the limits that it
    /// had: one on the size of files, say, must not keep it from writing the exit record.
    fn take_over(&mut self, user: &str, own_limits: &Limits) -> Result<(), Denial> {
        check_user(&self.context, user)?;
        let failed = |what: &str, error: &dyn std::fmt::Display| Denial::internal(format!("{what}: {error}"));
        self.groups = process::current_groups().map_err(|error| failed("getgroups", &error))?;
        self.limits = Limits::current().map_err(|error| failed("the job's limits", &error))?;
        own_limits
            .apply_as_far_as_allowed(&self.limits)
            .map_err(|error| failed("the shepherd's own limits", &error))
    }

    /// Closes the session and deletes the credentials. The job has ended and its record is written: what fails here
    /// is for the journal.
    pub fn close(mut self) {
        let session = self.context.unleak_session(self.token);
        if let Err(error) = session.close(Flag::SILENT) {
            tracing::warn!(event = "pam_close_failed", error = %error);
        }
    }
}
