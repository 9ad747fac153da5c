//! The two sides that the module stands between, as traits: PAM with the person behind it, and the machine with
//! `deputyd` and what root wrote down. Tests script both.

use std::time::Duration;

use deputy_core::application::Application;
use deputy_core::job::OsIdentity;
use deputy_core::message::ConverseRequest;
use deputy_core::message::query::{Query, QueryReply};
use deputy_core::{AccountName, ApplicationName, Denial};
use zeroize::Zeroizing;

use crate::converse::Ended;

/// Why a call does not succeed; the shim has the number of PAM's for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The line in the service's file, the application's file, or the service is not one that is served.
    Service,
    /// Who tries is not let in. The same for every reason.
    NotAuthenticated,
    /// The daemon does not answer, or not as it should.
    Unavailable,
    /// The account may not be used here.
    NotPermitted,
    /// The account may be used, with a new password.
    NewPasswordNeeded,
    /// The program could not ask, or the person did not answer.
    Conversation,
    /// No other module has asked for a password.
    NoFirstPass,
    /// The new password was not taken.
    NewPasswordRefused,
    /// The old password is not right.
    OldPasswordWrong,
    /// The session could not be opened or closed.
    Session,
    /// PAM itself failed.
    System,
}

/// How loud a line in the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Somebody has to repair something.
    Error,
    /// A refusal.
    Notice,
    /// With `debug` only.
    Debug,
}

/// Which of PAM's two passwords.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretItem {
    /// `PAM_AUTHTOK`.
    Password,
    /// `PAM_OLDAUTHTOK`.
    OldPassword,
}

/// What one call leaves for the next on the same handle.
#[derive(Clone, PartialEq, Eq)]
pub struct Known {
    /// Who it is.
    pub account: AccountName,
    /// What `PAM_USER` is from then on.
    pub user: String,
    /// What opens the session.
    pub ticket: Zeroizing<String>,
}

/// What a conversation brings for the person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// A question whose answer is not shown.
    Hidden(String),
    /// A question whose answer may be shown.
    Shown(String),
    /// Something to know.
    Told(String),
    /// What is wrong.
    Complaint(String),
}

/// The handle, and the person behind it.
pub trait Pam {
    /// The service's name.
    fn service(&self) -> Option<String>;
    /// `PAM_USER`; asked for where it is not known yet.
    fn user(&mut self) -> Result<Vec<u8>, Refusal>;
    /// Changes `PAM_USER`.
    fn set_user(&mut self, name: &str) -> Result<(), Refusal>;
    /// `PAM_RHOST`.
    fn origin(&self) -> Option<String>;
    /// A password that is there already.
    fn secret(&self, item: SecretItem) -> Option<Zeroizing<Vec<u8>>>;
    /// Leaves a password for other modules and calls.
    fn keep_secret(&mut self, item: SecretItem, secret: &[u8]) -> Result<(), Refusal>;
    /// Asks for something that is not shown.
    fn ask(&mut self, question: &str) -> Result<Zeroizing<Vec<u8>>, Refusal>;
    /// Asks for something that may be shown.
    fn ask_shown(&mut self, question: &str) -> Result<Zeroizing<Vec<u8>>, Refusal>;
    /// Says something. That it cannot be said changes nothing.
    fn inform(&mut self, text: &str);
    /// Says what is wrong. That it cannot be said changes nothing.
    fn complain(&mut self, text: &str);
    /// What an earlier call left for this application.
    fn known(&self, application: &ApplicationName) -> Option<Known>;
    /// Leaves it for later calls.
    fn remember(&mut self, application: &ApplicationName, known: Known) -> Result<(), Refusal>;
    /// A variable of the session to come.
    fn variable(&self, name: &str) -> Option<String>;
    /// Sets one.
    fn set_variable(&mut self, name: &str, value: &str) -> Result<(), Refusal>;
    /// A line in the log: never a secret, nothing that the person typed unescaped.
    fn log(&self, level: Level, text: &str);
}

/// The machine.
pub trait World {
    /// Asks the daemon. Why there is no answer is for the log.
    fn ask(&self, query: &Query<'_>) -> Result<QueryReply, String>;
    /// Has a child of the launcher's hold a conversation with the person, who is asked by `turn`; only root can. Whose
    /// it was, if it ended well.
    fn converse(
        &self,
        request: &ConverseRequest,
        turn: &mut dyn FnMut(Turn) -> Result<Option<Zeroizing<Vec<u8>>>, Refusal>,
    ) -> Result<OsIdentity, Ended>;
    /// The application's file.
    fn application(&self, name: &ApplicationName) -> Result<Application, Denial>;
    /// Whether root's records and the name service let this account in as this OS account.
    fn may_log_in(
        &self,
        application: &ApplicationName,
        account: &AccountName,
        identity: &OsIdentity,
    ) -> Result<(), Denial>;
    /// Whether a name may be that of an account where no OS account is used: it may not be one of the system's.
    fn is_no_system_account(&self, application: &ApplicationName, name: &AccountName) -> Result<(), Denial>;
    /// Whether the name service knows an OS account of this name.
    fn is_os_account(&self, name: &str) -> Result<bool, Denial>;
    /// Waits.
    fn wait(&self, time: Duration);
}
