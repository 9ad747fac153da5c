//! Asking polkit.
//!
//! The subject is always the caller's unique name on the bus: a process could be another program by the time it is
//! looked at, a connection cannot. No answer is a no.

use std::collections::HashMap;
use std::time::Duration;

use deputy_core::{Finding, FindingCode, Severity};
use futures_util::future::BoxFuture;
use zbus::proxy::CacheProperties;
use zbus::{Connection, Message};
use zbus_polkit::policykit1::{AuthorityProxy, CheckAuthorizationFlags, Subject};

/// How long polkit may take to answer out of its rules.
const ANSWER: Duration = Duration::from_secs(10);

/// How long a person may take at a dialog.
const DIALOG: Duration = Duration::from_secs(150);

/// The actions of `org.deputy.Deputy1.policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// See what belongs to any application.
    View,
    /// Change accounts.
    ManageAccounts,
    /// Ask for and remove links.
    ManageLinks,
    /// Cancel and signal jobs.
    ManageJobs,
    /// Run a job, where the application's file says that polkit is asked too.
    Run,
    /// Touch files, where the application's file says that polkit is asked too.
    Files,
    /// Ask for a link, where the application's file says that polkit is asked too.
    Link,
}

impl Action {
    /// Every action.
    pub const ALL: &'static [Action] = &[
        Action::View,
        Action::ManageAccounts,
        Action::ManageLinks,
        Action::ManageJobs,
        Action::Run,
        Action::Files,
        Action::Link,
    ];

    /// The action's id.
    pub fn id(self) -> &'static str {
        match self {
            Action::View => "org.deputy.Deputy1.view",
            Action::ManageAccounts => "org.deputy.Deputy1.manage-accounts",
            Action::ManageLinks => "org.deputy.Deputy1.manage-links",
            Action::ManageJobs => "org.deputy.Deputy1.manage-jobs",
            Action::Run => "org.deputy.Deputy1.run",
            Action::Files => "org.deputy.Deputy1.files",
            Action::Link => "org.deputy.Deputy1.link",
        }
    }
}

/// What a rule of the site's can decide on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Details {
    /// The application.
    pub application: Option<String>,
    /// Its account.
    pub account: Option<String>,
    /// The OS account.
    pub os_user: Option<String>,
    /// The kind of job.
    pub kind: Option<String>,
    /// The program and its arguments, for people to read.
    pub command: Option<String>,
}

impl Details {
    fn pairs(&self) -> HashMap<&str, &str> {
        [
            ("application", &self.application),
            ("account", &self.account),
            ("os_user", &self.os_user),
            ("kind", &self.kind),
            ("command", &self.command),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value.as_deref()?)))
        .collect()
    }
}

/// What polkit says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Yes.
    Yes,
    /// No.
    No,
    /// Only after an authentication that the caller did not allow, or had no agent for.
    Challenge,
    /// It cannot be asked.
    Unreachable,
}

/// Who decides what is left to the machine's administrator; polkit, or a double in tests.
pub trait Authorizer: Send + Sync {
    /// Whether the sender of `call` is authorized.
    fn check<'a>(
        &'a self,
        call: &'a Message,
        action: Action,
        details: &'a Details,
        interactive: bool,
    ) -> BoxFuture<'a, Answer>;

    /// What is wrong with it, for checks.
    fn findings(&self) -> BoxFuture<'_, Vec<Finding>>;
}

/// polkit on the bus.
pub struct Polkit {
    connection: Connection,
}

impl Polkit {
    /// Over this connection.
    pub fn new(connection: Connection) -> Self {
        Self { connection }
    }

    async fn ask(
        &self,
        call: &Message,
        action: Action,
        details: &Details,
        interactive: bool,
    ) -> Result<Answer, String> {
        let header = call.header();
        let subject = Subject::new_for_message_header(&header).map_err(|error| error.to_string())?;
        let proxy = AuthorityProxy::builder(&self.connection)
            .cache_properties(CacheProperties::No)
            .build()
            .await
            .map_err(|error| error.to_string())?;
        let (flags, wait) = if interactive {
            (CheckAuthorizationFlags::ALLOW_USER_INTERACTION, DIALOG)
        } else {
            (CheckAuthorizationFlags::empty(), ANSWER)
        };
        let pairs = details.pairs();
        let asked = proxy.check_authorization(&subject, action.id(), &pairs, flags, "");
        let result = tokio::time::timeout(wait, asked)
            .await
            .map_err(|_| "no answer in time".to_owned())?
            .map_err(|error| error.to_string())?;
        Ok(match (result.is_authorized, result.is_challenge) {
            (true, _) => Answer::Yes,
            (false, true) => Answer::Challenge,
            (false, false) => Answer::No,
        })
    }
}

impl Polkit {
    /// The actions that polkit knows.
    async fn known(&self) -> Result<Vec<String>, String> {
        let proxy = AuthorityProxy::builder(&self.connection)
            .cache_properties(CacheProperties::No)
            .build()
            .await
            .map_err(|error| error.to_string())?;
        let known = tokio::time::timeout(ANSWER, proxy.enumerate_actions(""))
            .await
            .map_err(|_| "no answer in time".to_owned())?
            .map_err(|error| error.to_string())?;
        Ok(known.into_iter().map(|action| action.action_id).collect())
    }
}

/// Which of the actions are missing among those that polkit knows.
fn missing(known: &[String]) -> Vec<Finding> {
    Action::ALL
        .iter()
        .filter(|action| !known.iter().any(|known| known == action.id()))
        .map(|action| {
            let message = format!("polkit does not know the action {}", action.id());
            Finding::new(FindingCode::PolkitActionMissing, Severity::Warning, message)
                .remedy("install org.deputy.Deputy1.policy in /usr/share/polkit-1/actions")
        })
        .collect()
}

impl Authorizer for Polkit {
    fn findings(&self) -> BoxFuture<'_, Vec<Finding>> {
        Box::pin(async move {
            match self.known().await {
                Ok(known) => missing(&known),
                Err(error) => {
                    let message = format!("polkit does not answer: {error}");
                    vec![
                        Finding::new(FindingCode::PolkitUnreachable, Severity::Warning, message)
                            .remedy("look at polkit.service; until then root alone administers"),
                    ]
                }
            }
        })
    }

    fn check<'a>(
        &'a self,
        call: &'a Message,
        action: Action,
        details: &'a Details,
        interactive: bool,
    ) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            self.ask(call, action, details, interactive).await.unwrap_or_else(|error| {
                tracing::warn!(action = action.id(), %error, "polkit cannot be asked");
                Answer::Unreachable
            })
        })
    }
}
