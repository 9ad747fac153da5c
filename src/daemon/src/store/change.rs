//! What can change, who changed it, and the form of both in the ledger.

use std::collections::BTreeMap;

use deputy_core::consent::GivenBy;
use deputy_core::job::{JobEnd, OsIdentity, Usage};
use deputy_core::{
    AccountName, ApplicationName, Code, JobId, KindName, LinkCode, OsUserName, ProjectName, SessionId,
};
use serde::{Deserialize, Serialize};

use super::argument::Argument;
use super::clock::Timestamp;

/// The version of the body of a record that this program writes.
pub const VERSION: u16 = 1;

/// How the account of a session was authenticated.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Authentication {
    /// By PAM, in a conversation.
    Os {},
    /// By the application, which vouches for its users.
    Vouched {
        /// Who authenticated the person, in the application's words.
        issuer: String,
        /// The person, in the issuer's words.
        subject: String,
    },
}

/// One change of the state, or one event worth a record.
///
/// Each kind of change is checked against the state when it is committed; see [`super::Store::commit`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Change {
    /// An account was created.
    AccountCreated {
        /// Its application.
        application: ApplicationName,
        /// Its name.
        account: AccountName,
        /// An address for mail.
        email: Option<String>,
        /// The person's first name.
        first_name: Option<String>,
        /// The person's last name.
        last_name: Option<String>,
        /// Its role in the whole application.
        role: String,
    },
    /// A link was asked for and waits for consent.
    LinkRequested {
        /// The application.
        application: ApplicationName,
        /// The account.
        account: AccountName,
        /// The OS account as it was then.
        os: OsIdentity,
        /// The code with which the owner consents. It gives nobody else anything.
        code: Option<LinkCode>,
        /// When the request lapses.
        expires: Option<Timestamp>,
    },
    /// There is consent: the link is active.
    LinkActivated {
        /// The application.
        application: ApplicationName,
        /// The account.
        account: AccountName,
        /// The OS account as the consent pins it.
        os: OsIdentity,
        /// On whose word.
        given_by: GivenBy,
        /// When the consent ends.
        expires: Option<Timestamp>,
    },
    /// The OS account is no longer what was linked.
    LinkStale {
        /// The application.
        application: ApplicationName,
        /// The account.
        account: AccountName,
        /// What changed.
        reason: String,
    },
    /// The consent's or the request's time is over.
    LinkExpired {
        /// The application.
        application: ApplicationName,
        /// The account.
        account: AccountName,
    },
    /// The owner of the OS account, or root, took the consent back.
    LinkRevoked {
        /// The application.
        application: ApplicationName,
        /// The account.
        account: AccountName,
    },
    /// The account has no link any more.
    LinkRemoved {
        /// The application.
        application: ApplicationName,
        /// The account.
        account: AccountName,
    },
    /// An authenticated session began.
    SessionOpened {
        /// Its id.
        id: SessionId,
        /// The application.
        application: ApplicationName,
        /// The account.
        account: AccountName,
        /// The only uid that may use it.
        service_uid: u32,
        /// How the account was authenticated.
        how: Authentication,
        /// When it ends by itself.
        expires: Timestamp,
    },
    /// A session's end was moved.
    SessionExtended {
        /// Its id.
        id: SessionId,
        /// When it ends by itself.
        expires: Timestamp,
    },
    /// A session ended.
    SessionClosed {
        /// Its id.
        id: SessionId,
        /// Why: closed by the application, expired, account deactivated.
        reason: String,
    },
    /// A job was accepted; nothing of it has run.
    JobQueued {
        /// Its id.
        id: JobId,
        /// The application.
        application: ApplicationName,
        /// The account that asked.
        account: AccountName,
        /// The OS account as which it will run.
        os: OsIdentity,
        /// Its label, on which policy decides.
        kind: KindName,
        /// The program and its arguments.
        argv: Vec<Argument>,
        /// The working directory, where one was named.
        cwd: Option<Argument>,
        /// The project that it belongs to.
        project: Option<ProjectName>,
        /// The session that asked.
        session: Option<SessionId>,
    },
    /// A job's shepherd reported that the program runs.
    JobStarted {
        /// Its id.
        id: JobId,
    },
    /// A job ended, by its shepherd's exit record.
    JobEnded {
        /// Its id.
        id: JobId,
        /// How.
        end: JobEnd,
        /// What it used.
        usage: Usage,
        /// When, by the shepherd's clock.
        ended: Timestamp,
    },
    /// A job's shepherd or machine died: its end will never be known.
    JobLost {
        /// Its id.
        id: JobId,
        /// Why.
        cause: String,
    },
    /// A job that was never started was given up.
    JobAbandoned {
        /// Its id.
        id: JobId,
        /// Why.
        cause: String,
    },
    /// Somebody had a job cancelled or signalled. What became of that is in the job's end.
    JobCommanded {
        /// The job's id.
        id: JobId,
        /// What was sent to it, in words.
        command: String,
    },
    /// A request was refused.
    Denied {
        /// The stable code.
        code: Code,
        /// The rule that fired.
        rule: String,
        /// The method that was called.
        method: String,
        /// The application.
        application: Option<ApplicationName>,
        /// The account.
        account: Option<AccountName>,
        /// The OS account.
        os_user: Option<OsUserName>,
        /// The command, for a job.
        argv: Vec<Argument>,
    },
    /// Refusals to callers that are nobody's service user: counted, not told one by one.
    StrangersDenied {
        /// When the counting began.
        since: Timestamp,
        /// How many refusals, by code.
        codes: BTreeMap<Code, u64>,
    },
    /// The store found an unfinished, never acknowledged end of the ledger and put it aside.
    TailCut {
        /// How many bytes.
        bytes: u64,
        /// The file in the ledger's folder that keeps them.
        kept: String,
    },
    /// All records before this one came from another store's export.
    Imported {
        /// How many they are.
        records: u64,
        /// The other ledger's identity.
        identity: String,
        /// The hash of its last record.
        hash: String,
    },
}

/// Who made a change, and on what ground.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Actor {
    /// The caller's uid, by the kernel's or the bus's word.
    pub caller_uid: u32,
    /// The caller's unique name on the bus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bus_name: Option<String>,
    /// The application whose service user the caller is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application: Option<ApplicationName>,
    /// What was called: a method, or the daemon's own business.
    pub action: String,
    /// The rule that allowed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

impl Actor {
    /// The daemon itself, for what it does without being asked.
    pub fn daemon(action: impl Into<String>) -> Self {
        Self {
            caller_uid: rustix::process::geteuid().as_raw(),
            bus_name: None,
            application: None,
            action: action.into(),
            rule: None,
        }
    }
}

/// The body of one record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Body {
    pub at: Timestamp,
    pub actor: Actor,
    pub change: Change,
}

/// One record of the ledger, as the audit log shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its number, from 1 without gaps.
    pub number: u64,
    /// When it was written.
    pub at: Timestamp,
    /// Who asked.
    pub actor: Actor,
    /// What changed or happened.
    pub change: Change,
}

impl Change {
    /// The application that this concerns, where the change itself names it.
    pub fn application(&self) -> Option<&ApplicationName> {
        match self {
            Change::AccountCreated { application, .. }
            | Change::LinkRequested { application, .. }
            | Change::LinkActivated { application, .. }
            | Change::LinkStale { application, .. }
            | Change::LinkExpired { application, .. }
            | Change::LinkRevoked { application, .. }
            | Change::LinkRemoved { application, .. }
            | Change::SessionOpened { application, .. }
            | Change::JobQueued { application, .. } => Some(application),
            Change::Denied { application, .. } => application.as_ref(),
            _ => None,
        }
    }

    /// The account that this concerns, where the change itself names it.
    pub fn account(&self) -> Option<&AccountName> {
        match self {
            Change::AccountCreated { account, .. }
            | Change::LinkRequested { account, .. }
            | Change::LinkActivated { account, .. }
            | Change::LinkStale { account, .. }
            | Change::LinkExpired { account, .. }
            | Change::LinkRevoked { account, .. }
            | Change::LinkRemoved { account, .. }
            | Change::SessionOpened { account, .. }
            | Change::JobQueued { account, .. } => Some(account),
            Change::Denied { account, .. } => account.as_ref(),
            _ => None,
        }
    }

    /// The job that this concerns.
    pub fn job(&self) -> Option<&JobId> {
        match self {
            Change::JobQueued { id, .. }
            | Change::JobStarted { id }
            | Change::JobEnded { id, .. }
            | Change::JobLost { id, .. }
            | Change::JobAbandoned { id, .. }
            | Change::JobCommanded { id, .. } => Some(id),
            _ => None,
        }
    }
}
