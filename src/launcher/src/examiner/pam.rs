//! What PAM says: whether its services are there, and whether its account phase lets the OS account in.

use std::ffi::{CStr, CString};
use std::sync::{Arc, Mutex, PoisonError};

use deputy_core::denial::Denial;
use deputy_core::finding::Finding;
use pam_client::{Context, ConversationHandler, ErrorCode, Flag};

use super::who;
use crate::pam::{account_refused, check_service, check_user};
use crate::rules::{Rules, Target};

/// The most characters of PAM's text that a finding repeats.
const MAX_TEXT: usize = 400;

/// The services that have no file.
pub fn services(rules: &Rules) -> Vec<Finding> {
    let services = &rules.application.pam;
    [&services.login, &services.job]
        .into_iter()
        .filter_map(|service| check_service(service).err().map(Finding::from))
        .collect()
}

/// Keeps what the modules say; nobody answers what they ask.
#[derive(Clone, Default)]
struct Listener(Arc<Mutex<Vec<String>>>);

impl Listener {
    fn hear(&self, text: &CStr) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(text.to_string_lossy().trim().to_owned());
    }

    fn heard(&self) -> String {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner).join(" ");
        heard.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect()
    }
}

impl ConversationHandler for Listener {
    fn prompt_echo_on(&mut self, _: &CStr) -> Result<CString, ErrorCode> {
        Err(ErrorCode::CONV_ERR)
    }

    fn prompt_echo_off(&mut self, _: &CStr) -> Result<CString, ErrorCode> {
        Err(ErrorCode::CONV_ERR)
    }

    fn text_info(&mut self, text: &CStr) {
        self.hear(text);
    }

    fn error_msg(&mut self, text: &CStr) {
        self.hear(text);
    }
}

/// What the account phase of a job would say, in PAM's own words.
pub fn account_phase(rules: &Rules, target: &Target) -> Option<Finding> {
    let (service, user) = (&rules.application.pam.job, who(target));
    let listener = Listener::default();
    let checked = Context::new(service, Some(user), listener.clone())
        .map_err(|error| Denial::internal(format!("PAM could not be started: {error}")))
        .and_then(|mut context| {
            // Not silent: what the modules have to say is what is asked for.
            let asked = context.acct_mgmt(Flag::DISALLOW_NULL_AUTHTOK);
            asked.map_err(|error| account_refused(service, user, &error))?;
            check_user(&context, user)
        });
    let mut denial = checked.err()?;
    let heard = listener.heard();
    if !heard.is_empty() {
        denial.message = format!("{}: {heard}", denial.message);
    }
    Some(denial.into())
}
