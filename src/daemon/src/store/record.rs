//! What the store answers: accounts, links, sessions and jobs as they are now.

use deputy_core::consent::GivenBy;
use deputy_core::job::{JobEnd, OsIdentity, Usage};
use deputy_core::{AccountName, ApplicationName, JobId, KindName, LinkCode, ProjectName, SessionId};
use serde::{Deserialize, Serialize};

use super::argument::Argument;
use super::change::Authentication;
use super::clock::Timestamp;

/// A user of one application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// Its application.
    pub application: ApplicationName,
    /// Its name.
    pub name: AccountName,
    /// An address for mail.
    pub email: Option<String>,
    /// The person's first name.
    pub first_name: Option<String>,
    /// The person's last name.
    pub last_name: Option<String>,
    /// Its role in the whole application.
    pub role: String,
    /// When it was created.
    pub created: Timestamp,
}

/// Where a link stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkState {
    /// Asked for, without consent.
    Waiting,
    /// Usable, as far as the store knows: the launcher's children look at the consent itself.
    Active,
    /// The OS account is no longer what was linked.
    Stale,
    /// Its time is over.
    Expired,
    /// The consent was taken back.
    Revoked,
}

impl LinkState {
    /// The state as the interfaces name it.
    pub fn as_str(self) -> &'static str {
        match self {
            LinkState::Waiting => "waiting",
            LinkState::Active => "active",
            LinkState::Stale => "stale",
            LinkState::Expired => "expired",
            LinkState::Revoked => "revoked",
        }
    }
}

/// The link of an account to an OS account. An account has at most one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// The application.
    pub application: ApplicationName,
    /// The account.
    pub account: AccountName,
    /// The OS account, pinned.
    pub os: OsIdentity,
    /// Where it stands.
    pub state: LinkState,
    /// Why it is stale.
    pub reason: Option<String>,
    /// On whose word it became active.
    pub given_by: Option<GivenBy>,
    /// The code with which the owner may consent, while it waits.
    pub code: Option<LinkCode>,
    /// When it was asked for.
    pub requested: Timestamp,
    /// When it came into its present state.
    pub changed: Timestamp,
    /// When the request or the consent lapses.
    pub expires: Option<Timestamp>,
}

/// A live session: authenticated, for a limited time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// The application.
    pub application: ApplicationName,
    /// The account.
    pub account: AccountName,
    /// The only uid that may use it.
    pub service_uid: u32,
    /// How the account was authenticated.
    pub how: Authentication,
    /// When it began.
    pub opened: Timestamp,
    /// When it ends by itself; the store keeps it until it is closed.
    pub expires: Timestamp,
}

/// Where a job stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum JobState {
    /// Accepted; whether its shepherd was started is not recorded yet.
    Queued {},
    /// Its program runs.
    Running {},
    /// It ended.
    Ended {
        /// How.
        end: JobEnd,
        /// What it used.
        usage: Usage,
    },
    /// Its shepherd or machine died: its end will never be known.
    Lost {
        /// Why.
        cause: String,
    },
    /// It was given up before it started.
    Abandoned {
        /// Why.
        cause: String,
    },
}

impl JobState {
    /// The state as the interfaces name it.
    pub fn as_str(&self) -> &'static str {
        match self {
            JobState::Queued {} => "queued",
            JobState::Running {} => "running",
            JobState::Ended { .. } => "ended",
            JobState::Lost { .. } => "lost",
            JobState::Abandoned { .. } => "abandoned",
        }
    }

    /// Whether something may still happen to it.
    pub fn is_open(&self) -> bool {
        matches!(self, JobState::Queued {} | JobState::Running {})
    }
}

/// One run of a command as an OS account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// The number of the record that queued it: jobs are listed in this order, newest first.
    pub number: u64,
    /// The application.
    pub application: ApplicationName,
    /// The account that asked.
    pub account: AccountName,
    /// The OS account as which it runs.
    pub os: OsIdentity,
    /// Its label.
    pub kind: KindName,
    /// The program and its arguments.
    pub argv: Vec<Argument>,
    /// The working directory, where one was named.
    pub cwd: Option<Argument>,
    /// The project that it belongs to.
    pub project: Option<ProjectName>,
    /// The session that asked.
    pub session: Option<SessionId>,
    /// Where it stands.
    pub state: JobState,
    /// When it was accepted.
    pub queued: Timestamp,
    /// When its start was recorded.
    pub started: Option<Timestamp>,
    /// When it ended (by its shepherd), or was recorded as lost or abandoned.
    pub ended: Option<Timestamp>,
}
