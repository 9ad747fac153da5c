//! What the launcher's children need of PAM beyond `pam-client`: nobody to talk to, a service that exists, and a user
//! who stays the same.

use std::ffi::{CStr, CString};
use std::path::Path;

use deputy_core::denial::{Code, Denial};
use pam_client::{Context, ConversationHandler, ErrorCode, Flag};

/// A conversation with nobody: a module that asks gets no answer, and what it says goes to the journal.
pub struct Nobody;

impl ConversationHandler for Nobody {
    fn prompt_echo_on(&mut self, _: &CStr) -> Result<CString, ErrorCode> {
        Err(ErrorCode::CONV_ERR)
    }

    fn prompt_echo_off(&mut self, _: &CStr) -> Result<CString, ErrorCode> {
        Err(ErrorCode::CONV_ERR)
    }

    fn text_info(&mut self, text: &CStr) {
        tracing::info!(event = "pam_says", text = %text.to_string_lossy());
    }

    fn error_msg(&mut self, text: &CStr) {
        tracing::warn!(event = "pam_says", text = %text.to_string_lossy());
    }
}

/// Makes sure that a PAM service has a file of its own. For one that has none, PAM takes `/etc/pam.d/other`, which on
/// Debian accepts passwords.
pub fn check_service(service: &str) -> Result<(), Denial> {
    if ["/etc/pam.d", "/usr/lib/pam.d"].iter().any(|folder| Path::new(folder).join(service).is_file()) {
        return Ok(());
    }
    Err(Denial::new(Code::PamServiceMissing, format!("/etc/pam.d/{service}"), "the PAM service has no file")
        .remedy(format!("install /etc/pam.d/{service}; the package deputy brings one")))
}

/// Refuses when a module has made the transaction about somebody else.
pub fn check_user<C: ConversationHandler>(context: &Context<C>, user: &str) -> Result<(), Denial> {
    match context.user() {
        Ok(now) if now == user => Ok(()),
        _ => Err(Denial::new(Code::PamAccountRefused, "PAM_USER", "a PAM module changed the user")
            .remedy("take the module that maps users out of this PAM service")),
    }
}

/// The account phase: locked, expired, outside the hours, nologin.
pub fn check_account<C: ConversationHandler>(
    context: &mut Context<C>,
    service: &str,
    user: &str,
) -> Result<(), Denial> {
    context
        .acct_mgmt(Flag::DISALLOW_NULL_AUTHTOK | Flag::SILENT)
        .map_err(|error| account_refused(service, user, &error))?;
    check_user(context, user)
}

/// The refusal of PAM's account phase.
pub fn account_refused(service: &str, user: &str, error: &dyn std::fmt::Display) -> Denial {
    Denial::new(
        Code::PamAccountRefused,
        format!("/etc/pam.d/{service}: account"),
        format!("PAM does not let {user} in: {error}"),
    )
    .remedy("ask the administrator: the account may be locked, expired, or outside its hours or hosts")
}
