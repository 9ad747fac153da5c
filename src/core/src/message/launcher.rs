//! Requests to the launcher's socket and the answers of its children.

use serde::{Deserialize, Serialize};

use crate::consent::{Consent, GivenBy};
use crate::denial::Denial;
use crate::finding::Finding;
use crate::ids::{JobId, LinkCode, OsGid, OsUid};
use crate::job::{EndCause, ExitRecord, OsIdentity};
use crate::limits::JobBounds;
use crate::names::{AccountName, ApplicationName, KindName, OsGroupName, OsUserName};
use crate::pool::{LeftOver, PoolRecord};
use crate::project::ProjectKey;
use crate::project_group::{GroupMember, GroupRecord};
use crate::queue::GpuIndex;
use crate::quota::QuotaUsage;
use crate::slurm::resources::Cluster;
use crate::slurm::{ClusterName, SlurmCommand, SlurmJobId, SlurmRequest, Standing};
use crate::stream::{CapturedStream, Streams};

use super::files::FilesRequest;
use super::rebind::{RebindReply, RebindRequest};

/// What a conversation is for. The client shows it to the person before the first answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// To prove who the person is, for a session. Writes nothing.
    Login,
    /// To consent to a link. Writes the owner's consent.
    Link,
}

impl Purpose {
    /// The word in frames and records.
    pub fn as_str(self) -> &'static str {
        match self {
            Purpose::Login => "login",
            Purpose::Link => "link",
        }
    }
}

/// A PAM conversation over the client's own socket, which comes as the one descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConverseRequest {
    /// What for.
    pub purpose: Purpose,
    /// For which application.
    pub application: ApplicationName,
    /// For which of its accounts.
    pub account: AccountName,
    /// Whose password.
    pub os_user: OsUserName,
}

/// A link that an application, or root, asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsentRequest {
    /// For which application.
    pub application: ApplicationName,
    /// For which of its accounts.
    pub account: AccountName,
    /// To which OS account.
    pub os_user: OsUserName,
    /// Until when the consent is to hold, seconds since 1970.
    pub expires: Option<u64>,
    /// What to do where there is no consent that holds.
    pub asking: Asking,
}

/// What a request for a link is to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Asking {
    /// Only look how it stands: what is missing is a denial.
    Look,
    /// Ask the owner where consent is missing.
    #[default]
    Link,
    /// Ask the owner even where a consent holds already, so that it holds longer.
    Renew,
}

/// A consent that is to be taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WithdrawRequest {
    /// Of which application.
    pub application: ApplicationName,
    /// Of which of its accounts.
    pub account: AccountName,
    /// To which OS account.
    pub os_account: OsIdentity,
    /// Whether what runs under it is ended too.
    pub end_jobs: bool,
}

/// One run of a command. Its descriptors are those of its streams, then the script, then the variables' one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRequest {
    /// The job's id, which is in the ledger already.
    pub job: JobId,
    /// For which application.
    pub application: ApplicationName,
    /// For which of its accounts.
    pub account: AccountName,
    /// As which OS account, pinned when the link was made.
    pub os_account: OsIdentity,
    /// The kind of job; none is the default kind.
    pub kind: Option<KindName>,
    /// The program and its arguments. With a script the first is only the name that it is called by.
    pub argv: Vec<Vec<u8>>,
    /// Whether a descriptor brings the program.
    pub script: bool,
    /// The working directory; none is the home directory.
    pub directory: Option<Vec<u8>>,
    /// Variables, each `NAME=VALUE`.
    pub environment: Vec<Vec<u8>>,
    /// Whether a descriptor brings more of them, which nobody writes down.
    pub environment_descriptor: bool,
    /// Permission bits that are taken away, beside those that the login takes.
    pub umask: Option<u32>,
    /// The group of new files: one of the OS account's own.
    pub os_group: Option<OsGroupName>,
    /// The group of the project that the job belongs to, where it has one and the account writes there.
    pub project_group: Option<OsGid>,
    /// Standard input, output and error.
    pub streams: Streams,
    /// What is asked for below what policy allows.
    pub bounds: JobBounds,
    /// The GPUs that it was leased.
    pub gpus: Vec<GpuIndex>,
    /// When the login as the OS account was on whose session it rests, seconds since 1970; none if it rests on none.
    pub login: Option<u64>,
}

impl RunRequest {
    /// How many descriptors come with it.
    pub fn descriptors(&self) -> usize {
        self.streams.descriptors() + usize::from(self.script) + usize::from(self.environment_descriptor)
    }
}

/// A check of a link that exists or is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExamineRequest {
    /// For which application.
    pub application: ApplicationName,
    /// For which of its accounts.
    pub account: AccountName,
    /// To which OS account.
    pub os_user: OsUserName,
    /// The identity that was pinned, if the link exists.
    pub pinned: Option<OsIdentity>,
}

/// What would be decided about a job, without doing anything: whatever [`RunRequest`] has but a job's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainRequest {
    /// For which application.
    pub application: ApplicationName,
    /// For which of its accounts.
    pub account: AccountName,
    /// As which OS account, pinned when the link was made.
    pub os_account: OsIdentity,
    /// The kind of job; none is the default kind.
    pub kind: Option<KindName>,
    /// The program and its arguments.
    pub argv: Vec<Vec<u8>>,
    /// The working directory; none is the home directory.
    pub directory: Option<Vec<u8>>,
    /// Variables, each `NAME=VALUE`.
    pub environment: Vec<Vec<u8>>,
    /// The group of new files: one of the OS account's own.
    pub os_group: Option<OsGroupName>,
    /// What is asked for below what policy allows.
    pub bounds: JobBounds,
    /// What is asked of Slurm; none is a job on this machine.
    pub slurm: Option<SlurmRequest>,
}

/// What is to be done with what a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathAccess {
    /// Read the file, or list the folder.
    Read,
    /// Change the file or what is in the folder, or make what is not there.
    Write,
}

/// What would be decided about a path, without doing anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainPathRequest {
    /// The agent that would be asked.
    pub agent: FilesRequest,
    /// The path, absolute.
    pub path: Vec<u8>,
    /// What is to be done.
    pub access: PathAccess,
}

/// What would be decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Explanation {
    /// It would be done. About a job PAM is asked only when it starts.
    Allowed {
        /// The command rule, or the root, that allows it.
        rule: String,
    },
    /// It would be refused.
    Refused(Denial),
    /// The kernel would refuse it.
    Kernel {
        /// Its error.
        errno: i32,
        /// Where on the path, and what is missing there; empty where that cannot be told.
        at: String,
    },
}

/// The most jobs that one [`LauncherRequest::Forget`] or [`LauncherReply::Folders`] names.
pub const MAX_FORGET: usize = 512;

/// One request; a connection carries one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LauncherRequest {
    /// Have a conversation. Answered by [`LauncherReply::Authenticated`] or a denial when it has ended.
    Converse(ConverseRequest),
    /// Run a job. Answered by [`LauncherReply::Job`] for each state; the connection then takes [`JobCommand`]s.
    Run(RunRequest),
    /// Hear of a job that runs or has ended, as if this connection had started it.
    Attach {
        /// The job.
        job: JobId,
    },
    /// Make sure that a job never starts. Answered by [`LauncherReply::Done`], or by a denial if it has started.
    Abandon {
        /// The job.
        job: JobId,
    },
    /// Remove the folders of jobs whose end is in the ledger.
    Forget {
        /// At most [`MAX_FORGET`] jobs.
        jobs: Vec<JobId>,
    },
    /// List the jobs that have a folder, by id. Answered by [`LauncherReply::Folders`].
    Folders {
        /// The last id of the page before.
        after: Option<JobId>,
    },
    /// Ask for a link: it is active at once if consent exists or a rule of root's gives it, and otherwise waits for
    /// the owner with a code. Answered by [`LauncherReply::Link`].
    RequestLink(ConsentRequest),
    /// Consent by root. Accepted from uid 0 alone.
    Grant(ConsentRequest),
    /// Take a consent back. Answered by [`LauncherReply::Withdrawn`].
    Withdraw(WithdrawRequest),
    /// List consents, from after the file name given. Answered by [`LauncherReply::Consents`].
    Consents {
        /// Only those of this application.
        application: Option<ApplicationName>,
        /// The last file name of the page before.
        after: Option<String>,
    },
    /// Check a link. Answered by [`LauncherReply::Findings`].
    Examine(ExamineRequest),
    /// Say what would be decided about a job. Answered by [`LauncherReply::Explained`].
    Explain(ExplainRequest),
    /// What was captured of a job so far. Answered by [`LauncherReply::Captured`].
    Captured {
        /// The job.
        job: JobId,
        /// Which stream.
        stream: CapturedStream,
    },
    /// How many GPUs can be leased: those of the settings, or those that are found. Answered by
    /// [`LauncherReply::Gpus`].
    Gpus,
    /// Become a file agent. Answered by [`LauncherReply::Done`] when it is one; the connection then takes
    /// [`FileRequest`](super::FileRequest)s.
    Files(FilesRequest),
    /// What the program that `deputy.toml` names for it says about a root's quotas. Answered by
    /// [`LauncherReply::Quotas`].
    TellQuota(QuotaRequest),
    /// Lease an OS account of the pool to an account, or say which one it has. The application's file has to allow it;
    /// the consent is policy's. Answered by [`LauncherReply::Leased`].
    LeasePool {
        /// Of which application.
        application: ApplicationName,
        /// For which of its accounts.
        account: AccountName,
    },
    /// Take an account's lease back, once nothing of it is left. Accepted from uid 0 alone. Answered by
    /// [`LauncherReply::Returned`].
    ReturnPool {
        /// Of which application.
        application: ApplicationName,
        /// Whose.
        account: AccountName,
    },
    /// List the pool's records, from after this uid. Accepted from uid 0 alone. Answered by [`LauncherReply::Pool`].
    ListPool {
        /// The last uid of the page before.
        after: Option<OsUid>,
    },
    /// Submit a job to Slurm, as the OS account. Answered by [`LauncherReply::Submitted`].
    Submit(SubmitRequest),
    /// Run an interactive job at Slurm, by a shepherd of its own, whose streams are those of the request. Answered as
    /// [`LauncherRequest::Run`].
    Interact(SubmitRequest),
    /// Say a word about a job to Slurm, as the OS account. Answered by [`LauncherReply::Done`] when Slurm took it.
    CommandAtSlurm {
        /// The job.
        job: JobId,
        /// The word.
        command: SlurmCommand,
    },
    /// Where jobs at Slurm stand. Answered by [`LauncherReply::AtSlurm`], without those that are not at Slurm. Jobs of
    /// one cluster at a time, so that one that does not answer keeps no others waiting.
    AskSlurm {
        /// At most [`MAX_ASKED`] jobs.
        jobs: Vec<JobId>,
    },
    /// What a cluster has. Answered by [`LauncherReply::Cluster`].
    Cluster(ClusterRequest),
    /// Take over leases of another host. Accepted from uid 0 alone. Answered by [`LauncherReply::Done`].
    ImportPool {
        /// At most [`MAX_IMPORT`] records.
        records: Vec<PoolRecord>,
    },
    /// Move a tree to another OS account. Accepted from uid 0 alone. Answered by [`LauncherReply::Rebind`], more than
    /// once.
    Rebind(RebindRequest),
    /// Say what would be decided about a path. Answered by [`LauncherReply::Explained`].
    ExplainPath(ExplainPathRequest),
    /// A group for a project, without members. The application's file has to allow it. Answered by
    /// [`LauncherReply::Group`].
    MakeGroup {
        /// Of which application.
        application: ApplicationName,
        /// The project.
        project: ProjectKey,
    },
    /// A project's group as it is. Answered by [`LauncherReply::Group`].
    Group {
        /// Of which application.
        application: ApplicationName,
        /// Which one.
        gid: OsGid,
    },
    /// Say who is in a project's group. Answered by [`LauncherReply::Group`].
    SetGroup(SetGroupRequest),
    /// List the groups of projects, from after this gid. Accepted from uid 0 alone. Answered by
    /// [`LauncherReply::Groups`].
    ListGroups {
        /// The last gid of the page before.
        after: Option<OsGid>,
    },
    /// Take over numbers of groups of another host, without members. Accepted from uid 0 alone. Answered by
    /// [`LauncherReply::Done`].
    ImportGroups {
        /// At most [`MAX_IMPORT`] records.
        groups: Vec<GroupRecord>,
    },
}

/// Who is to be in a project's group. Whoever is not named leaves it; who is named has to have a consent that holds, and
/// to be a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetGroupRequest {
    /// Of which application.
    pub application: ApplicationName,
    /// Which one.
    pub gid: OsGid,
    /// How the project is called now.
    pub project: ProjectKey,
    /// The revision of the record that this was decided on.
    pub revision: u64,
    /// Those in it.
    pub members: Vec<GroupMember>,
}

/// An account that is not in a group in which it was to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotInGroup {
    /// The account.
    pub account: AccountName,
    /// Why.
    pub denial: Denial,
}

/// One page of the records of groups, in the order of gids.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupPage {
    /// The records.
    pub groups: Vec<GroupRecord>,
    /// What to ask for to have the next page; none after the last.
    pub next: Option<OsGid>,
}

/// The quotas of one root, asked of the program that `deputy.toml` names for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaRequest {
    /// Of whom, as for a file agent.
    pub of: FilesRequest,
    /// The root's path.
    pub root: Vec<u8>,
    /// What sort of file system it is on, as a file agent said.
    pub filesystem: String,
}

/// A job for Slurm. What it brings by descriptor is its script and variables; an interactive one has its streams, too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmitRequest {
    /// What every job has.
    pub run: RunRequest,
    /// What is asked of Slurm. The cluster that it does not name is the default one.
    pub slurm: SlurmRequest,
}

/// A question what a cluster has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRequest {
    /// Which one.
    pub cluster: ClusterName,
    /// Whose associations are wanted; they need a consent as for a job.
    pub of: Option<ClusterPerson>,
}

/// Somebody at the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterPerson {
    /// For which application.
    pub application: ApplicationName,
    /// For which of its accounts.
    pub account: AccountName,
    /// Who he is.
    pub os_account: OsIdentity,
}

/// The most jobs that one [`LauncherRequest::AskSlurm`] names: the answer fits into one packet.
pub const MAX_ASKED: usize = 400;

/// The most records that one [`LauncherRequest::ImportPool`] has: few enough for one packet, whatever the names.
pub const MAX_IMPORT: usize = 40;

/// A lease of the pool's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leased {
    /// The OS account.
    pub os_account: OsIdentity,
    /// What the administrator should know: candidates that somebody else has, a quota that could not be set.
    pub findings: Vec<Finding>,
}

/// What became of a lease that was to be returned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Returned {
    /// The record as it is now.
    pub record: PoolRecord,
    /// What is left of it, so that it stays as it was; empty if it went on.
    pub left: Vec<LeftOver>,
    /// Whether there is more than is listed.
    pub more: bool,
}

/// One page of the pool's records, in the order of uids.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolPage {
    /// The records.
    pub records: Vec<PoolRecord>,
    /// What to ask for to have the next page; none after the last.
    pub next: Option<OsUid>,
}

/// Where a link stands when it has been asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkState {
    /// It can be used.
    Active {
        /// On whose word.
        given_by: GivenBy,
        /// Until when the consent holds, seconds since 1970.
        expires: Option<u64>,
        /// The code with which the owner renews it, where that was asked for.
        renewal: Option<LinkCode>,
    },
    /// It waits for the owner, who gives consent with the code.
    Waiting {
        /// The code.
        code: LinkCode,
        /// Until when the code is good, seconds since 1970.
        expires: u64,
    },
}

/// Who was authenticated, for what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authenticated {
    /// What for.
    pub purpose: Purpose,
    /// The OS account whose owner answered.
    pub os_account: OsIdentity,
    /// Until when a consent that this conversation wrote holds, seconds since 1970.
    pub expires: Option<u64>,
}

/// That a consent was taken back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawn {
    /// Whether there was one.
    pub removed: bool,
    /// How many jobs were told to end.
    pub ended: u32,
    /// How many could not be told in time; they are in the launcher's journal.
    pub left: u32,
}

/// One page of consents, ordered by file name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsentPage {
    /// The consents.
    pub consents: Vec<Consent>,
    /// What to ask for to have the next page; none after the last.
    pub next: Option<String>,
}

/// Where a job stands, as its shepherd says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobState {
    /// `execve` worked.
    Running,
    /// It is being ended, and something of it still runs.
    Ending(EndCause),
    /// It ended, and the record is on disk.
    Ended(ExitRecord),
    /// The shepherd is gone without a record: it or the machine died.
    Lost,
    /// It did not start, and never will: it was refused, or given up. For who attaches; who asked for the job is
    /// answered with the denial.
    Refused(Denial),
}

/// What can be asked of a job's shepherd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobCommand {
    /// TERM now, KILL after the grace, to the whole tree.
    Cancel {
        /// Milliseconds between the two; at most the job's own grace counts.
        grace_ms: u32,
    },
    /// A signal to the job's first process.
    Signal {
        /// The signal's number.
        signal: i32,
    },
    /// As [`JobCommand::Cancel`], because the consent under which it runs was taken back.
    EndForConsent,
}

impl JobCommand {
    /// The longest grace of a job whose consent was taken back, in milliseconds.
    pub const CONSENT_GRACE_MS: u32 = 10_000;
}

/// An answer of one of the launcher's children.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LauncherReply {
    /// Refused, with the reason.
    Denied(Denial),
    /// Done.
    Done,
    /// A conversation ended well.
    Authenticated(Authenticated),
    /// The link that was asked for.
    Link {
        /// The OS account that is now pinned.
        os_account: OsIdentity,
        /// Where it stands.
        state: LinkState,
    },
    /// A consent was taken back.
    Withdrawn(Withdrawn),
    /// A page of consents.
    Consents(ConsentPage),
    /// What a check found.
    Findings(Vec<Finding>),
    /// What would be decided.
    Explained(Explanation),
    /// Where a job stands.
    Job(JobState),
    /// A captured stream, in two descriptors that can only be read: its bytes, and what is left out of them
    /// ([`LeftOut`](crate::stream::LeftOut)). Both go on to change while the job runs.
    Captured,
    /// Jobs that have a folder, in order.
    Folders {
        /// At most [`MAX_FORGET`]; none after the last page.
        jobs: Vec<JobId>,
    },
    /// How many GPUs can be leased.
    Gpus {
        /// Their indices are 0 to one less.
        count: u16,
    },
    /// A lease of the pool's.
    Leased(Leased),
    /// What became of a lease that was to be returned.
    Returned(Returned),
    /// A page of the pool's records.
    Pool(PoolPage),
    /// The group of a project.
    Group {
        /// Its record as it is now.
        record: GroupRecord,
        /// Those who were named and are not in it.
        left_out: Vec<NotInGroup>,
    },
    /// A page of the records of groups.
    Groups(GroupPage),
    /// What a program said about quotas.
    Quotas(Vec<QuotaUsage>),
    /// What there is to say about a tree that goes to another OS account.
    Rebind(RebindReply),
    /// Slurm has the job, and its number is in the job's folder.
    Submitted {
        /// The number.
        slurm: SlurmJobId,
    },
    /// What the cluster has.
    Cluster(Cluster),
    /// Where jobs at Slurm stand.
    AtSlurm(Vec<(JobId, Standing)>),
}
