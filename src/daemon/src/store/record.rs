//! What the store answers: accounts, links and sessions as they are now.

use deputy_core::account::Status;
use deputy_core::consent::GivenBy;
use deputy_core::job::OsIdentity;
use deputy_core::queue::Ceilings;
use deputy_core::quota::Whose;
use deputy_core::{AccountName, ApplicationName, GroupName, LinkCode, SessionId};
use serde::{Deserialize, Serialize};

use super::argument::Argument;
use super::change::{Authentication, QuotaOf};
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
    /// Where it stands.
    pub status: Status,
    /// Why it is rejected or deactivated.
    pub reason: Option<String>,
    /// When it was created, or registered.
    pub created: Timestamp,
    /// When it came into its present status.
    pub changed: Timestamp,
    /// When its last session began.
    pub last_login: Option<Timestamp>,
    /// What its jobs may have at once, below what root's file gives.
    #[serde(default, skip_serializing_if = "Ceilings::is_none")]
    pub limits: Ceilings,
}

/// That a quota is used beyond a threshold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alert {
    /// The application.
    pub application: ApplicationName,
    /// The account whose quota was looked at.
    pub account: AccountName,
    /// As which OS account.
    pub os: OsIdentity,
    /// The root.
    pub place: Argument,
    /// Whose use is counted.
    pub whose: Whose,
    /// Of what.
    pub of: QuotaOf,
    /// The threshold that is reached, in percent.
    pub threshold: u8,
    /// How much was used when it was reached: bytes, or files.
    pub used: u64,
    /// Of how much.
    pub limit: u64,
    /// When it was reached.
    pub since: Timestamp,
}

/// A group of accounts of one application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Its application.
    pub application: ApplicationName,
    /// Its name.
    pub name: GroupName,
    /// What it is for.
    pub description: Option<String>,
    /// When it was created.
    pub created: Timestamp,
    /// How many members it has.
    pub members: u64,
}

/// That an account is in a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    /// The application.
    pub application: ApplicationName,
    /// The group.
    pub group: GroupName,
    /// The account.
    pub account: AccountName,
    /// Its role in this group, over those who are in it.
    pub role: Option<String>,
    /// Since when.
    pub since: Timestamp,
}

/// Something of an account that keeps it from being deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Remaining {
    /// The sort of thing: job, link, project, share (of another's project), session, group.
    pub what: &'static str,
    /// Which one.
    pub name: String,
}

/// What is counted of an application, so that it need not be searched for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Counts {
    /// All its accounts.
    pub accounts: u64,
    /// Those that are active superusers.
    pub superusers: u64,
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
    /// When it ends by itself, unless it is used before; the store keeps it until it is closed.
    pub expires: Timestamp,
    /// When it ends at the latest, whatever happens.
    pub ends: Timestamp,
    /// For how long a use keeps it alive; none: uses change nothing.
    pub idle_seconds: Option<u64>,
}

impl Session {
    /// When it would end by itself if it was used at this moment.
    pub fn expires_if_used(&self, at: Timestamp) -> Timestamp {
        let Some(seconds) = self.idle_seconds else { return self.expires };
        let idle = Timestamp(at.0.saturating_add(seconds.saturating_mul(1_000_000)));
        idle.min(self.ends).max(self.expires)
    }

    /// The account that acts for the session's, where it is one of those.
    pub fn acting(&self) -> Option<&AccountName> {
        match &self.how {
            Authentication::ActFor { by, .. } => Some(by),
            _ => None,
        }
    }
}

/// What the ledger knows of an account's password; the hash is elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PasswordFact {
    /// What it is called.
    pub generation: String,
    /// When it was set.
    pub set: Timestamp,
    /// Whether it has to be replaced at the next login.
    pub temporary: bool,
}
