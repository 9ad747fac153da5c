//! What is told when something was refused or failed: code, message, rule, remedy.

use std::fmt;
use std::io;

use deputy_core::denial::{Code, Denial};
use deputy_wire::WireError;
use deputy_wire::conversation::ConversationError;

use crate::escape;

/// The exit status of Deputy's own failures.
pub const FAILED: u8 = 125;

/// The prefix of the names of Deputy's D-Bus errors.
const ERROR_PREFIX: &str = "org.deputy.Deputy1.Error.";

/// A refusal or failure, from whatever part of Deputy or from `deputyctl` itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The stable code: one of core's, or `DaemonUnavailable`, `JobLost`, `Interrupted`.
    pub code: String,
    /// One sentence in words.
    pub message: String,
    /// The rule that fired, if any.
    pub rule: String,
    /// What would have to change, if anything could.
    pub remedy: String,
    /// The exit status.
    pub status: u8,
}

impl Failure {
    /// A failure with a code of core's.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self::with_code(code.as_str(), message)
    }

    /// `deputyd` or the bus cannot be reached.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::with_code("DaemonUnavailable", message)
            .remedy("see whether Deputy runs: systemctl status deputyd; start it: systemctl start deputyd")
    }

    /// The job's end is not known.
    pub fn job_lost(message: impl Into<String>) -> Self {
        Self::with_code("JobLost", message)
    }

    /// A signal ended the command.
    pub fn interrupted(signal: i32) -> Self {
        let status = u8::try_from(128 + signal).unwrap_or(FAILED);
        Self { status, ..Self::with_code("Interrupted", "ended by a signal") }
    }

    fn with_code(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
            rule: String::new(),
            remedy: String::new(),
            status: FAILED,
        }
    }

    /// Says what would have to change.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }

    /// The lines for standard error, escaped; the rule only on request.
    pub fn report(&self, with_rule: bool) -> String {
        let mut lines =
            vec![format!("deputyctl: {}: {}", escape::text(&self.code), escape::text(&self.message))];
        if with_rule && !self.rule.is_empty() {
            lines.push(format!("rule: {}", escape::text(&self.rule)));
        }
        if !self.remedy.is_empty() {
            lines.push(format!("remedy: {}", escape::text(&self.remedy)));
        }
        lines.push(String::new());
        lines.join("\n")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl From<Denial> for Failure {
    fn from(denial: Denial) -> Self {
        Self {
            code: denial.code.as_str().to_owned(),
            message: denial.message,
            rule: denial.rule,
            remedy: denial.remedy,
            status: FAILED,
        }
    }
}

impl From<WireError> for Failure {
    fn from(error: WireError) -> Self {
        Denial::from(error).into()
    }
}

impl From<ConversationError> for Failure {
    fn from(error: ConversationError) -> Self {
        match error {
            ConversationError::Denied(denial) => denial.into(),
            ConversationError::Wire(error) if error.would_block() => {
                Self::new(Code::ConversationAborted, "the other end of the conversation says nothing")
                    .remedy("try again; the launcher's journal has the cause: journalctl -u deputy-launcher")
            }
            ConversationError::Wire(error) => {
                Self::new(Code::ConversationAborted, format!("the conversation's socket failed: {error}"))
            }
            ConversationError::Frame(error) => Self::new(Code::BadMessage, error.to_string()),
            error @ ConversationError::Forged(_) => Self::new(Code::PeerNotAllowed, error.to_string())
                .remedy("tell the administrator: something else answers in Deputy's place"),
            error => Self::new(Code::ConversationAborted, error.to_string()),
        }
    }
}

impl From<zbus::Error> for Failure {
    fn from(error: zbus::Error) -> Self {
        match error {
            zbus::Error::MethodError(name, description, message) => match name.strip_prefix(ERROR_PREFIX) {
                Some(code) => from_deputy(code, description.unwrap_or_default(), &message),
                None => from_bus(&name, &description.unwrap_or_default()),
            },
            zbus::Error::FDO(error) => from_standard(*error),
            zbus::Error::InputOutput(error) => {
                Self::unavailable(format!("the connection to the system bus failed: {error}"))
            }
            zbus::Error::Connection(error, address) => {
                bus_unreachable(format!("cannot connect to the system bus at {address}: {error}"))
            }
            zbus::Error::Handshake(message) => {
                bus_unreachable(format!("the system bus refused the connection: {message}"))
            }
            zbus::Error::Address(message) => {
                bus_unreachable(format!("the system bus's address is not one: {message}"))
                    .remedy("correct the variable DBUS_SYSTEM_BUS_ADDRESS, or unset it")
            }
            other => Self::new(Code::Internal, format!("an answer of deputyd's could not be read: {other}"))
                .remedy("use a deputyctl of the same release as deputyd"),
        }
    }
}

fn bus_unreachable(message: String) -> Failure {
    Failure::unavailable(message)
        .remedy("see whether the system bus runs: systemctl status dbus; then: systemctl status deputyd")
}

/// An error of Deputy's: its body is message, rule, remedy.
fn from_deputy(code: &str, description: String, message: &zbus::Message) -> Failure {
    let body = message.body();
    let (message, rule, remedy) = body
        .deserialize::<(String, String, String)>()
        .unwrap_or_else(|_| (description, String::new(), String::new()));
    Failure { code: code.to_owned(), message, rule, remedy, status: FAILED }
}

/// An error of the bus's own, or of the D-Bus library in `deputyd`.
fn from_standard(error: zbus::fdo::Error) -> Failure {
    use zbus::fdo::Error;
    match error {
        Error::ServiceUnknown(_) | Error::NameHasNoOwner(_) => {
            Failure::unavailable("deputyd is not running: nobody has its name on the system bus")
        }
        Error::NoReply(_) | Error::TimedOut(_) | Error::Timeout(_) | Error::Disconnected(_) => {
            Failure::unavailable("deputyd went away before it answered")
        }
        Error::AccessDenied(message) => Failure::new(Code::NotAuthorized, message).remedy(
            "the system bus's policy forbids it: see /usr/share/dbus-1/system.d/org.deputy.Deputy1.conf",
        ),
        Error::InteractiveAuthorizationRequired(_) => {
            Failure::new(Code::NotAuthorized, "this needs an administrator's authorization")
                .remedy("run it on a terminal with a polkit agent (pkttyagent), or as root")
        }
        // A job or session that is not there and one that is somebody else's are the same.
        Error::UnknownObject(_) => Denial::not_found().into(),
        Error::UnknownMethod(message) | Error::UnknownInterface(message) => {
            Failure::new(Code::UnsupportedVersion, format!("deputyd does not know this call: {message}"))
                .remedy("use a deputyctl of the same release as deputyd")
        }
        Error::InvalidArgs(message) => Failure::new(Code::InvalidArgument, message),
        Error::LimitsExceeded(message) => Failure::new(Code::Busy, message),
        Error::SpawnFailed(message) | Error::SpawnChildExited(message) | Error::SpawnExecFailed(message) => {
            Failure::unavailable(format!("deputyd could not be started: {message}"))
        }
        other => Failure::new(Code::Internal, other.to_string()),
    }
}

fn from_bus(name: &str, description: &str) -> Failure {
    match name {
        "org.freedesktop.systemd1.NoSuchUnit" | "org.freedesktop.systemd1.UnitMasked" => {
            Failure::unavailable(format!("deputyd could not be started: {description}"))
        }
        _ => Failure::new(Code::Internal, format!("{name}: {description}")),
    }
}

/// A failure of `deputyctl`'s own input or output.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(Code::Internal, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_the_code_the_message_and_the_remedy_each_on_its_line() {
        let failure = Failure::from(
            Denial::new(Code::NoConsent, "consent", "no\x1b[2Jbody\nremedy: none").remedy("ask"),
        );
        assert_eq!(
            failure.report(false),
            "deputyctl: NoConsent: no\\x1b[2Jbody\\nremedy: none\nremedy: ask\n"
        );
        assert!(failure.report(true).contains("\nrule: consent\n"));
        assert_eq!(failure.status, 125);
    }

    #[test]
    fn a_service_that_is_not_there_names_what_to_start() {
        let failure = Failure::from(zbus::Error::from(zbus::fdo::Error::ServiceUnknown("x".into())));
        assert_eq!(failure.code, "DaemonUnavailable");
        assert!(failure.remedy.contains("systemctl"));
    }
}
