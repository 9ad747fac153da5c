//! Refusals: a stable code, the rule that fired, and the remedy.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

macro_rules! codes {
    ($($(#[$doc:meta])* $code:ident,)*) => {
        /// The closed list of reasons for which Deputy refuses or fails.
        ///
        /// The text of a code is its name; on D-Bus it follows `org.deputy.Deputy1.Error.`. Codes are added, never
        /// renamed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Code {
            $($(#[$doc])* $code,)*
        }

        impl Code {
            /// Every code, in the order of the documentation.
            pub const ALL: &'static [Code] = &[$(Code::$code,)*];

            /// The stable text of the code.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Code::$code => stringify!($code),)*
                }
            }
        }
    };
}

codes! {
    // Who asks.
    /// The machine's policy (polkit) does not let the caller do this.
    NotAuthorized,
    /// There is no such thing, or it is not the caller's; which of the two is not told.
    NotFound,
    /// The socket's peer is not one that may ask.
    PeerNotAllowed,
    /// A process inside a job of Deputy's may not give or revoke consent.
    InsideJob,
    /// The account has no live session, and the application does not vouch for its users.
    SessionRequired,
    /// The acting account's role does not have the permission that this needs.
    PermissionMissing,
    /// The application itself may not do this: one of its accounts, by a live session, has to be the one who acts.
    ActingAccountRequired,
    // What is asked.
    /// A name, path, option or value is not one.
    InvalidArgument,
    /// A thing of that name exists already, or has changed meanwhile.
    Conflict,
    /// A message is not of the protocol: truncated, too long, trailing bytes, wrong descriptors.
    BadMessage,
    /// A message is of a protocol version that this program does not speak.
    UnsupportedVersion,
    // Accounts.
    /// The account is pending, rejected or deactivated.
    AccountNotActive,
    /// It would leave the application without an active superuser.
    LastSuperuser,
    /// Something of it remains, so it cannot be deleted.
    NotEmpty,
    // Policy.
    /// The application's file is missing, invalid, or not root's alone.
    ApplicationInvalid,
    /// The machine's `deputy.toml` is invalid, or not root's alone.
    SettingsInvalid,
    /// The application has no such kind of job.
    KindNotAllowed,
    /// No command rule of the kind allows this program with these arguments.
    CommandNotAllowed,
    /// The application's allow-list does not name this variable, or its value is not allowed.
    EnvironmentNotAllowed,
    /// A limit that is higher than policy allows was asked for.
    LimitNotAllowed,
    /// The job asks for more than this machine, or a ceiling of its application, could ever give.
    NeverFits,
    /// As many jobs wait as may.
    QueueFull,
    /// Policy asks for a confinement that this kernel cannot give.
    ConfinementUnavailable,
    /// The application's file does not list this method of authentication.
    MethodNotAllowed,
    // Files.
    /// The path is beneath no root of the application's, or a link or `..` on it leads out of its root.
    PathOutside,
    /// The root is read-only for the application.
    RootReadOnly,
    /// The kernel refused; the message begins with the name of its error.
    FileError,
    /// A tree cannot go to another OS account now: something in it, a quota, or what runs, is in the way.
    RebindBlocked,
    /// The file agent ended or did not answer in time: whether the call was done is not known.
    FileAgentLost,
    /// There is less room, by the quotas or in the file system, than the job needs.
    NotEnoughSpace,
    /// The program that tells a file system's quotas failed, took too long, or wrote something else.
    QuotaCommandFailed,
    // Slurm.
    /// The kind has no such executor, or root's policy lists no such partition, account or quality of service.
    ExecutorNotAllowed,
    /// Slurm refused, in the words of the message.
    SlurmRefused,
    /// Slurm's programs are not set up here, or its controller does not answer.
    SlurmUnavailable,
    // The OS account.
    /// The name service does not know the OS account.
    OsAccountUnknown,
    /// Root and ids that mean "nobody" or "do not change" are never a target.
    OsAccountReserved,
    /// The uid is outside what the machine or the application allows.
    OsAccountOutOfRange,
    /// The OS account is Deputy's own, an application's service user, or in the group of one.
    OsAccountIsService,
    /// The application's file denies the OS account by name.
    OsAccountDenied,
    /// The OS account is in none of the groups that the application's file allows, or not in its project's group.
    OsAccountNotInGroup,
    /// The OS account is in a group that amounts to root's power.
    OsAccountPrivileged,
    // Links and consent.
    /// Nobody entitled to has consented to this link.
    NoConsent,
    /// The consent has expired.
    ConsentExpired,
    /// Name, uid or gid of the OS account are no longer those that were linked.
    LinkStale,
    /// The account is linked to no OS account.
    NotLinked,
    /// Another account of the application has the OS account, and its file does not let them share it.
    OsAccountTaken,
    /// The code is not one that was issued for this OS account, or it has expired.
    LinkCodeUnknown,
    // The pool.
    /// This machine has no pool, or the application's file does not let its accounts or projects have anything of it.
    PoolNotAllowed,
    /// Every OS account of the pool is leased, waits out its quarantine, or still has something left.
    PoolExhausted,
    // Authentication.
    /// The answers did not prove who the person is; why is told to nobody.
    AuthenticationFailed,
    /// Too many tries for now.
    TooManyTries,
    /// The password was right, and has to be replaced by a new one first.
    PasswordMustChange,
    /// The new password is too easy to guess, was used before, or cannot be a password.
    PasswordWeak,
    /// The conversation ended before its end: time, a vanished peer, a frame out of order.
    ConversationAborted,
    // PAM.
    /// The PAM service's file is missing, so that PAM's fallback would decide.
    PamServiceMissing,
    /// PAM's account phase refused: locked, expired, outside the allowed hours, nologin.
    PamAccountRefused,
    /// PAM could not establish credentials or open the session.
    PamSessionFailed,
    // Launching.
    /// A step between fork and exec failed.
    LaunchFailed,
    /// The job id was used or given up before.
    JobExists,
    /// As many children of this sort as are allowed run already.
    Busy,
    // Deputy itself.
    /// The disk did not take the change: full, over quota, or failing.
    Disk,
    /// The launcher cannot be reached.
    LauncherUnavailable,
    /// A fault in Deputy; the journal has the details.
    Internal,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal that a person can act on.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[error("{message}")]
pub struct Denial {
    /// The stable code.
    pub code: Code,
    /// The rule that fired: a key of a root-owned file, or a name from the documentation.
    pub rule: String,
    /// One sentence in words.
    pub message: String,
    /// What would have to change, and by whom; empty where nothing can be done.
    pub remedy: String,
}

impl Denial {
    /// A refusal with a code, the rule that fired and a sentence; add the remedy with [`Denial::remedy`].
    pub fn new(code: Code, rule: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code, rule: rule.into(), message: message.into(), remedy: String::new() }
    }

    /// Says what would have to change.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }

    /// The one answer for what is not there and for what is not the caller's.
    pub fn not_found() -> Self {
        Self::new(Code::NotFound, "visibility", "there is no such object")
            .remedy("list what this application has; names are case-sensitive")
    }

    /// The one answer to every failed authentication.
    pub fn authentication_failed() -> Self {
        Self::new(Code::AuthenticationFailed, "authentication", "authentication failed").remedy(
            "check the account, its link and the password; the administrator finds the cause in the journal",
        )
    }

    /// A value that is not one.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, "arguments", message)
    }

    /// A fault in Deputy itself.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, "internal", message)
            .remedy("the journal has the details: journalctl -u 'deputy*'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_fit_a_d_bus_error_name() {
        let mut names: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert!(names.iter().all(|name| name.bytes().all(|b| b.is_ascii_alphanumeric())));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Code::ALL.len());
    }
}
