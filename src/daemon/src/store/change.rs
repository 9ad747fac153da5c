//! What can change, who changed it, and the form of both in the ledger.

use std::collections::BTreeMap;

use deputy_core::consent::GivenBy;
use deputy_core::job::{EndCause, Enforcement, JobEnd, OsIdentity, Usage};
use deputy_core::project::ProjectKey;
use deputy_core::queue::{Ceilings, GpuIndex};
use deputy_core::quota::Whose;
use deputy_core::slurm::SlurmJobId;
use deputy_core::stream::Captured;
use deputy_core::{
    AccountName, ApplicationName, Code, GroupName, JobId, KindName, LinkCode, OsUserName, SessionId,
};
use serde::{Deserialize, Serialize};

use super::argument::Argument;
use super::clock::Timestamp;
use super::job::JobSpec;
use super::projects::ProjectEvent;

/// The version of the body of a record that this program writes.
pub const VERSION: u16 = 1;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

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
    /// By a password of the account's own.
    Password {
        /// Which one: what it was called when it was set.
        generation: String,
    },
    /// Not at all: another account of the application acts for it.
    ActFor {
        /// The account that acts.
        by: AccountName,
        /// Why.
        reason: String,
    },
}

/// When a job came into the states before its end, as far as that is not recorded otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JobTimes {
    /// When the launcher was asked to start it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub starting: Option<Timestamp>,
    /// When its program began to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// When its ending began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ending: Option<Timestamp>,
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
        /// The group that it is in from the beginning.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        group: Option<GroupName>,
        /// Only if the application has no account yet.
        #[serde(default, skip_serializing_if = "is_false")]
        first: bool,
    },
    /// A person asked for an account, or again for one that was rejected.
    AccountRegistered {
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
        /// Its role in the whole application, once it is approved.
        role: String,
        /// The group that it will be in.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        group: Option<GroupName>,
    },
    /// A registration was granted.
    AccountApproved {
        /// The application.
        application: ApplicationName,
        /// The account.
        account: AccountName,
    },
    /// A registration was refused.
    AccountRejected {
        /// The application.
        application: ApplicationName,
        /// The account.
        account: AccountName,
        /// Why.
        reason: String,
    },
    /// What is known of the person changed. What is not named stays; an empty text removes.
    AccountEdited {
        /// The application.
        application: ApplicationName,
        /// The account.
        account: AccountName,
        /// An address for mail.
        email: Option<String>,
        /// The person's first name.
        first_name: Option<String>,
        /// The person's last name.
        last_name: Option<String>,
    },
    /// An account has another role, in the whole application or in one group of it.
    RoleChanged {
        /// The application.
        application: ApplicationName,
        /// The account.
        account: AccountName,
        /// The group; none for the whole application.
        group: Option<GroupName>,
        /// The role before. Another one is a conflict: who decided did not know it.
        from: Option<String>,
        /// The role now; none only in a group.
        to: Option<String>,
    },
    /// What an account's jobs may have at once is another now; what is absent is only root's to say.
    AccountLimited {
        /// The application.
        application: ApplicationName,
        /// The account.
        account: AccountName,
        /// All of its limits.
        limits: Ceilings,
    },
    /// An account was put out of use. Its sessions end with it.
    AccountDeactivated {
        /// The application.
        application: ApplicationName,
        /// The account.
        account: AccountName,
        /// Why.
        reason: String,
    },
    /// An account was put into use again.
    AccountReactivated {
        /// The application.
        application: ApplicationName,
        /// The account.
        account: AccountName,
    },
    /// An account of which nothing remained was removed.
    AccountDeleted {
        /// The application.
        application: ApplicationName,
        /// The account.
        account: AccountName,
    },
    /// A group was made.
    GroupCreated {
        /// The application.
        application: ApplicationName,
        /// The group.
        group: GroupName,
        /// What it is for.
        description: Option<String>,
    },
    /// A group without members was removed.
    GroupDeleted {
        /// The application.
        application: ApplicationName,
        /// The group.
        group: GroupName,
    },
    /// An account came into a group.
    MemberAdded {
        /// The application.
        application: ApplicationName,
        /// The group.
        group: GroupName,
        /// The account.
        account: AccountName,
        /// Its role there.
        role: Option<String>,
    },
    /// An account left a group.
    MemberRemoved {
        /// The application.
        application: ApplicationName,
        /// The group.
        group: GroupName,
        /// The account.
        account: AccountName,
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
    /// The consent to a link that is active was given anew, or on another word.
    LinkRenewed {
        /// The application.
        application: ApplicationName,
        /// The account.
        account: AccountName,
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
        /// How many of its jobs were told to end with it.
        #[serde(default)]
        jobs_ended: u32,
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
        /// When it ends by itself, unless it is used before.
        expires: Timestamp,
        /// When it ends at the latest, whatever happens; absent: when it expires.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ends: Option<Timestamp>,
        /// For how long a use keeps it alive; absent: uses change nothing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        idle_seconds: Option<u64>,
    },
    /// All sessions of an account ended.
    SessionsEnded {
        /// The application.
        application: ApplicationName,
        /// The account.
        account: AccountName,
        /// Why.
        reason: String,
    },
    /// An account has a new password, and its sessions ended. The hash is elsewhere, under the generation.
    PasswordSet {
        /// The application.
        application: ApplicationName,
        /// The account.
        account: AccountName,
        /// What this password is called.
        generation: String,
        /// Whether it has to be replaced at the next login.
        temporary: bool,
        /// The password that has to be in force still: who sets this one knew it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replaces: Option<String>,
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
    /// Something happened to a project.
    Project {
        /// The application.
        application: ApplicationName,
        /// Which project, as it was called before.
        project: ProjectKey,
        /// What.
        event: ProjectEvent,
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
        project: Option<ProjectKey>,
        /// The session that asked.
        session: Option<SessionId>,
        /// What else was asked for.
        #[serde(default)]
        spec: Box<JobSpec>,
    },
    /// A job was leased GPUs. This is recorded before it starts, so that nobody else is given them after a restart.
    JobLeased {
        /// Its id.
        id: JobId,
        /// The GPUs.
        gpus: Vec<GpuIndex>,
    },
    /// Slurm took a job.
    JobSubmitted {
        /// Its id.
        id: JobId,
        /// The number that Slurm gave it.
        slurm_job: SlurmJobId,
    },
    /// Slurm put a job back into its queue, which is to run again.
    JobRequeued {
        /// Its id.
        id: JobId,
        /// How often that has happened to it.
        requeues: u32,
    },
    /// A job's shepherd reported that the program runs.
    JobStarted {
        /// Its id.
        id: JobId,
        /// When the launcher was asked to start it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        starting: Option<Timestamp>,
        /// When its program began to run; absent: when this was recorded.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        started: Option<Timestamp>,
    },
    /// A job ended, by its shepherd's exit record.
    JobEnded {
        /// Its id.
        id: JobId,
        /// How.
        end: JobEnd,
        /// Why it was ended, where it did not end by itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cause: Option<EndCause>,
        /// What it used.
        usage: Usage,
        /// What it wrote to captured streams.
        #[serde(default)]
        captured: Captured,
        /// By what its ceilings were held.
        #[serde(default)]
        enforcement: Enforcement,
        /// When, by the shepherd's clock.
        ended: Timestamp,
        /// When it came into the states before.
        #[serde(default)]
        times: JobTimes,
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
    /// The folders of ended jobs, and with them what these wrote, were removed.
    JobsForgotten {
        /// The jobs.
        ids: Vec<JobId>,
    },
    /// A service is not started again after this job of its.
    ServiceStopped {
        /// The job.
        id: JobId,
        /// Why.
        reason: String,
    },
    /// The use of a quota crossed a threshold.
    QuotaAlert {
        /// The application.
        application: ApplicationName,
        /// Whose quota was looked at.
        account: AccountName,
        /// As which OS account.
        os: OsIdentity,
        /// The root.
        place: Argument,
        /// Whose use is counted.
        whose: Whose,
        /// Of what.
        of: QuotaOf,
        /// The threshold that is reached, in percent; 0: none any more.
        threshold: u8,
        /// How much is used: bytes, or files.
        used: u64,
        /// Of how much.
        limit: u64,
    },
    /// What was done with files in one minute, through one application as one account.
    FilesUsed {
        /// The application.
        application: ApplicationName,
        /// The account.
        account: AccountName,
        /// The OS account, where it came so far.
        os_user: Option<OsUserName>,
        /// When the counting began.
        since: Timestamp,
        /// How many calls were done, by method.
        calls: BTreeMap<String, u64>,
        /// How many the kernel refused, by method.
        refused: BTreeMap<String, u64>,
        /// The first changes, each with its path; of more only the number is above.
        changes: Vec<FileChange>,
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

/// What of a quota is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QuotaOf {
    /// Bytes.
    Space,
    /// Files and folders.
    Files,
}

impl QuotaOf {
    /// The word on the interface.
    pub fn as_str(self) -> &'static str {
        match self {
            QuotaOf::Space => "space",
            QuotaOf::Files => "files",
        }
    }
}

/// A change that was made through `.Files`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileChange {
    /// The method.
    pub method: String,
    /// The path; of what has two, the one that changed first.
    pub path: Argument,
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
    /// The account that acts through its application, where one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Acting>,
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
            by: None,
            action: action.into(),
            rule: None,
        }
    }
}

/// The account that acts through its application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acting {
    /// The account.
    pub account: AccountName,
    /// Its role in the whole application when the call was allowed: a change is committed only while it is the same.
    pub role: String,
    /// The group whose role of the account's gave the permission, and that role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<(GroupName, String)>,
    /// The session through which it acts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
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
            | Change::AccountRegistered { application, .. }
            | Change::AccountApproved { application, .. }
            | Change::AccountRejected { application, .. }
            | Change::AccountEdited { application, .. }
            | Change::AccountLimited { application, .. }
            | Change::RoleChanged { application, .. }
            | Change::AccountDeactivated { application, .. }
            | Change::AccountReactivated { application, .. }
            | Change::AccountDeleted { application, .. }
            | Change::GroupCreated { application, .. }
            | Change::GroupDeleted { application, .. }
            | Change::MemberAdded { application, .. }
            | Change::MemberRemoved { application, .. }
            | Change::LinkRequested { application, .. }
            | Change::LinkActivated { application, .. }
            | Change::LinkRenewed { application, .. }
            | Change::LinkStale { application, .. }
            | Change::LinkExpired { application, .. }
            | Change::LinkRevoked { application, .. }
            | Change::LinkRemoved { application, .. }
            | Change::SessionOpened { application, .. }
            | Change::SessionsEnded { application, .. }
            | Change::PasswordSet { application, .. }
            | Change::Project { application, .. }
            | Change::QuotaAlert { application, .. }
            | Change::FilesUsed { application, .. }
            | Change::JobQueued { application, .. } => Some(application),
            Change::Denied { application, .. } => application.as_ref(),
            _ => None,
        }
    }

    /// The account that this concerns, where the change itself names it.
    pub fn account(&self) -> Option<&AccountName> {
        match self {
            Change::AccountCreated { account, .. }
            | Change::AccountRegistered { account, .. }
            | Change::AccountApproved { account, .. }
            | Change::AccountRejected { account, .. }
            | Change::AccountEdited { account, .. }
            | Change::AccountLimited { account, .. }
            | Change::RoleChanged { account, .. }
            | Change::AccountDeactivated { account, .. }
            | Change::AccountReactivated { account, .. }
            | Change::AccountDeleted { account, .. }
            | Change::MemberAdded { account, .. }
            | Change::MemberRemoved { account, .. }
            | Change::LinkRequested { account, .. }
            | Change::LinkActivated { account, .. }
            | Change::LinkRenewed { account, .. }
            | Change::LinkStale { account, .. }
            | Change::LinkExpired { account, .. }
            | Change::LinkRevoked { account, .. }
            | Change::LinkRemoved { account, .. }
            | Change::SessionOpened { account, .. }
            | Change::SessionsEnded { account, .. }
            | Change::PasswordSet { account, .. }
            | Change::QuotaAlert { account, .. }
            | Change::FilesUsed { account, .. }
            | Change::JobQueued { account, .. } => Some(account),
            Change::Project { project, .. } => Some(&project.owner),
            Change::Denied { account, .. } => account.as_ref(),
            _ => None,
        }
    }

    /// The job that this concerns.
    pub fn job(&self) -> Option<&JobId> {
        match self {
            Change::JobQueued { id, .. }
            | Change::JobLeased { id, .. }
            | Change::JobSubmitted { id, .. }
            | Change::JobRequeued { id, .. }
            | Change::JobStarted { id, .. }
            | Change::JobEnded { id, .. }
            | Change::JobLost { id, .. }
            | Change::JobAbandoned { id, .. }
            | Change::JobCommanded { id, .. }
            | Change::ServiceStopped { id, .. } => Some(id),
            _ => None,
        }
    }
}
