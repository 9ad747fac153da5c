//! The table of methods: what each takes and gives, who may call it, and what answers it.
//!
//! The introspection data and the reference are made from this table, and every call is decided by its row.

use std::future::Future;

use deputy_core::application::PolkitQuestion;
use deputy_core::{Denial, Permission};
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use zbus::{Message, Signature, Type};

use crate::authority::{Call, Granted};
use crate::polkit::Action;
use crate::{
    accounts, alerts, applications, authentication, explain, files, groups, jobs, links, manager, metrics,
    projects, sessions,
};

/// Who may call a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    /// Everybody. The answer tells nothing that belongs to an application.
    Public,
    /// The service user of the application that it is about.
    Application,
    /// That, or an administrator by this polkit action.
    ApplicationOrAdministrator(Action),
    /// An administrator by this polkit action, and no application.
    Administrator(Action),
    /// The application, an administrator, or the owner of the OS account that it is about.
    OwnerOrApplicationOrAdministrator(Action),
}

/// What a method needs of the account that acts, which the option `by` names; and whether the application may call it
/// without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// It has no acting account: the application calls for itself, or for the subject of the call.
    Nothing,
    /// This permission. Without `by` the application reads for itself.
    Read(Permission),
    /// The same, but an account may always do it with what is its own.
    ReadOrOwn(Permission),
    /// This permission. Without `by` only an application whose word is enough.
    Change(Permission),
    /// The same, in the whole application: a role in a group is not enough.
    ChangeWhole(Permission),
    /// The same, but an account may always do it to itself.
    ChangeOrOwn(Permission),
}

/// Which sort of object has an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Object {
    /// The one at the root path.
    Root,
    /// A job.
    Job,
    /// A session.
    Session,
}

/// The types of a method.
#[derive(Debug, Clone, Copy)]
pub struct Signatures {
    /// Of its arguments, as a structure.
    pub input: &'static Signature,
    /// Of its results, as a structure.
    pub output: &'static Signature,
}

/// What answers a call: the reply's message, or the refusal.
type Handler = fn(Call) -> BoxFuture<'static, Result<Message, Denial>>;

/// One row.
pub struct Method {
    /// The interface, without [`super::INTERFACES`].
    pub interface: &'static str,
    /// The method.
    pub member: &'static str,
    /// The names of its arguments.
    pub inputs: &'static [&'static str],
    /// The names of its results.
    pub outputs: &'static [&'static str],
    /// The types of both.
    pub signatures: Signatures,
    /// Who may call it.
    pub authority: Authority,
    /// What it needs of the acting account.
    pub needs: Needs,
    /// About what polkit is asked too, where the application's file says so.
    pub asks: Option<(PolkitQuestion, Action)>,
    /// What it does, in words.
    pub documentation: &'static str,
    /// What answers it.
    pub handler: Handler,
}

impl Method {
    /// The name of interface and method in logs and records.
    pub fn name(&self) -> String {
        format!("{}.{}", self.interface, self.member)
    }

    /// The sort of object that has it.
    pub fn object(&self) -> Object {
        match self.interface {
            "Job" => Object::Job,
            "Session" => Object::Session,
            _ => Object::Root,
        }
    }
}

/// The row of a method.
pub fn find(interface: &str, member: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.interface == interface && method.member == member)
}

/// The types of a handler, found out by the compiler.
const fn signatures<I: Type, O: Type, F: Future<Output = Result<Granted<O>, Denial>>>(
    _: fn(Call, I) -> F,
) -> Signatures {
    Signatures { input: I::SIGNATURE, output: O::SIGNATURE }
}

/// Reads the arguments, has the call handled, writes the results.
async fn serve<I, O, F>(call: Call, handler: fn(Call, I) -> F) -> Result<Message, Denial>
where
    I: Type + DeserializeOwned,
    O: Type + Serialize,
    F: Future<Output = Result<Granted<O>, Denial>>,
{
    let message = call.message.clone();
    let input: I = arguments(&message)?;
    let output = handler(call, input).await?.into_inner();
    Message::method_return(&message.header())
        .build(&output)
        .map_err(|error| Denial::internal(format!("the answer could not be written: {error}")))
}

/// The arguments of a call, if they are of the row's types.
fn arguments<I: Type + DeserializeOwned>(message: &Message) -> Result<I, Denial> {
    let body = message.body();
    // A signature says how many arguments there are and of which types, so it is compared before any byte is read.
    let (expected, got) = (I::SIGNATURE.to_string_no_parens(), body.signature().to_string_no_parens());
    if expected != got {
        return Err(Denial::invalid(format!(
            "the arguments are of types {got:?}; this method takes {expected:?}"
        )));
    }
    body.deserialize_ignore_signature().map_err(|error| Denial::invalid(format!("arguments: {error}")))
}

macro_rules! methods {
    ($(
        $(#[doc = $doc:literal])*
        $interface:ident.$member:ident($($input:ident),*) -> ($($output:ident),*)
            by $authority:expr $(, needs $needs:expr)? $(, asks $question:expr, $action:expr)? => $handler:path;
    )*) => {
        /// Every method.
        pub static METHODS: &[Method] = &[$(
            Method {
                interface: stringify!($interface),
                member: stringify!($member),
                inputs: &[$(stringify!($input)),*],
                outputs: &[$(stringify!($output)),*],
                signatures: signatures($handler),
                authority: $authority,
                needs: methods!(@needs $($needs)?),
                asks: methods!(@asks $($question, $action)?),
                documentation: concat!($($doc, "\n"),*),
                handler: |call| Box::pin(serve(call, $handler)),
            },
        )*];
    };
    (@needs) => { Needs::Nothing };
    (@needs $needs:expr) => { $needs };
    (@asks) => { None };
    (@asks $question:expr, $action:expr) => { Some(($question, $action)) };
}

use Action::{ManageAccounts, ManageJobs, ManageLinks, View};
use Authority::{
    Administrator, Application, ApplicationOrAdministrator, OwnerOrApplicationOrAdministrator, Public,
};

methods! {
    /// How Deputy does. Everybody is told the version; an application also what is wrong with its own file; root also
    /// what is wrong with any (findings, aa{sv}), whether the launcher answers, and where the ledger stands.
    Manager.Status() -> (status) by Public => manager::status;

    /// What would be decided about a job, without running it, or about a path, without touching it, as if the account asked
    /// with a live session. The answer has allowed (b), rule and, for a refusal, code, message and remedy. About a job PAM
    /// is asked only when it runs. An application is told about itself, at a limited rate. Options: application (s), account
    /// (s, needed), project (s); path (ay) and access (s: read or write, default read); or kind (s), argv (aay), directory
    /// (ay), environment (aay), and the limits, gpus, executor and words for Slurm of Jobs.Run. Of a job that is allowed, the
    /// answer also says where it would run: executor, and cluster and chosen as in Job.Get.
    Manager.Explain(options) -> (explanation) by ApplicationOrAdministrator(View) => explain::explain;

    /// What the machine has for jobs, and who waits for it. The answer has capacity and free_gpus (u); an entry for each
    /// application that the caller may see (applications, aa{sv}: application, used, ceilings, waiting) and the first
    /// 1000 jobs that wait (jobs, aa{sv}: id, path, application, account, place in its account's line, reason, cpus,
    /// memory, gpus). An administrator is also told what all use together: machine_used, machine_free, machine_waiting.
    /// Resources are a{sv} with jobs (t), cpus (d), memory (t) and gpus (t), without those that are not counted. Options:
    /// application (s).
    Manager.Queue(options) -> (queue) by ApplicationOrAdministrator(View) => jobs::queue::shown::queue;

    /// What there is for jobs, here and at Slurm. The answer has hosts (aa{sv}: executor, cluster (of Slurm's), name, state, partitions, cpus and
    /// cpus_free (d), memory, memory_free, gpus and gpus_free (t), without those that are not counted; at most 200 nodes of
    /// Slurm's, and of this machine what is free to administrators alone, but for GPUs), partitions (aa{sv}: the sums of all nodes) and, of
    /// an account, associations (aa{sv}: account, partition, qos, limits (as), in Slurm's words), each with its cluster.
    /// without_accounting (as) names the clusters of which no associations can be told, since there are none. unavailable (s) says
    /// which clusters could not be asked, and why. At a limited rate. Options: application (s), account (s).
    Manager.Resources(options) -> (resources) by ApplicationOrAdministrator(View) => jobs::resources::resources;

    /// Figures for whoever watches the machine, each with name (s), labels (a{ss}) and value (t); `deputyctl metrics`
    /// prints them as OpenMetrics. Accounts and sessions are counted for the answer.
    Manager.Metrics() -> (metrics) by Administrator(View) => metrics::metrics;

    /// The applications that the caller may see: its own, or for an administrator all. Each has name, service_uid,
    /// trust, kinds, valid and, where its file is refused, the reason.
    Applications.List() -> (applications) by ApplicationOrAdministrator(View) => applications::list;
    /// One application.
    Applications.Get(name) -> (application) by ApplicationOrAdministrator(View) => applications::get;
    /// What is wrong with an application, each with its remedy; nothing, if it can be used.
    Applications.Check(name) -> (findings) by ApplicationOrAdministrator(View) => applications::check;

    /// Creates an account, which is active at once. Options: application (s), by (s), email (s), first_name (s),
    /// last_name (s), role (s, default user), group (s, which it is in from the beginning).
    ///
    /// In every method the option by (s) names on whose behalf an application calls: the path of a live session, or an
    /// account where the application's word is enough. That account has to be active, and its role to have the
    /// method's permission, in the whole application or in a group that holds the account which the call is about. An
    /// application whose word is not enough changes nothing without it.
    Accounts.Create(account, options) -> () by ApplicationOrAdministrator(ManageAccounts),
        needs Needs::Change(Permission::ManageAccounts) => accounts::create;
    /// A person asks for an account, or again for one that was rejected; it is pending. Options: application (s),
    /// email (s), first_name (s), last_name (s), group (s).
    Accounts.Register(account, options) -> () by ApplicationOrAdministrator(ManageAccounts)
        => accounts::register;
    /// Grants a registration. Options: application (s), by (s).
    Accounts.Approve(account, options) -> () by ApplicationOrAdministrator(ManageAccounts),
        needs Needs::Change(Permission::ManageAccounts) => accounts::approve;
    /// Refuses a registration. Options: application (s), by (s).
    Accounts.Reject(account, reason, options) -> () by ApplicationOrAdministrator(ManageAccounts),
        needs Needs::Change(Permission::ManageAccounts) => accounts::reject;
    /// Changes what is known of the person; an empty text removes. Options: application (s), by (s), email (s),
    /// first_name (s), last_name (s).
    Accounts.Edit(account, options) -> () by ApplicationOrAdministrator(ManageAccounts),
        needs Needs::ChangeOrOwn(Permission::ManageAccounts) => accounts::edit;
    /// Gives the account another role, in the whole application or in one group (where an empty one takes it). Nobody
    /// gives what he does not have; the last active superuser stays one. Options: application (s), by (s), group (s).
    Accounts.SetRole(account, role, options) -> () by ApplicationOrAdministrator(ManageAccounts),
        needs Needs::Change(Permission::ManageRoles) => accounts::set_role;
    /// Sets what the account's jobs may have at once, below what root's file gives; what is not named has no limit of the
    /// account's own. What runs goes on. Options: application (s), by (s), jobs (u), cpus (d), memory (t), gpus (u).
    Accounts.SetLimits(account, options) -> () by ApplicationOrAdministrator(ManageAccounts),
        needs Needs::Change(Permission::ManageLimits) => accounts::set_limits;
    /// Puts the account out of use: its sessions end, it starts no job, what is its own stays. Options:
    /// application (s), by (s), reason (s), cancel_jobs (b).
    Accounts.Deactivate(account, options) -> () by ApplicationOrAdministrator(ManageAccounts),
        needs Needs::Change(Permission::ManageAccounts) => accounts::deactivate;
    /// Puts the account into use again. Options: application (s), by (s).
    Accounts.Reactivate(account, options) -> () by ApplicationOrAdministrator(ManageAccounts),
        needs Needs::Change(Permission::ManageAccounts) => accounts::reactivate;
    /// Removes an account of which nothing remains. Options: application (s), by (s).
    Accounts.Delete(account, options) -> () by ApplicationOrAdministrator(ManageAccounts),
        needs Needs::Change(Permission::ManageAccounts) => accounts::delete;
    /// What keeps the account from being deleted, each with what (job, link, session, group) and name. Options:
    /// application (s), by (s).
    Accounts.DeletionReport(account, options) -> (remains) by ApplicationOrAdministrator(View),
        needs Needs::Read(Permission::ViewAccounts) => accounts::deletion_report;
    /// Makes a short session in which the account that the option by names acts for this one, where the application's
    /// file allows it (act_for). Both names are recorded, and the reason. Options: application (s), by (s).
    Accounts.ActFor(account, reason, options) -> (session) by Application,
        needs Needs::Change(Permission::ActFor) => accounts::act_for;
    /// Gives the account a password, and ends its sessions. It comes through a pipe, or in a memfd with all seals: 1 to
    /// 1024 bytes of text, a line feed at the end not counted. Options: application (s), by (s), temporary (b: it has to
    /// be replaced at the next login).
    Accounts.SetPassword(account, password, options) -> () by ApplicationOrAdministrator(ManageAccounts),
        needs Needs::Change(Permission::ResetPasswords) => accounts::set_password;
    /// Gives the account a temporary password, and ends its sessions. The password can be read from the pipe, once; it
    /// has to be replaced at the next login. Options: application (s), by (s).
    Accounts.ResetPassword(account, options) -> (pipe) by ApplicationOrAdministrator(ManageAccounts),
        needs Needs::Change(Permission::ResetPasswords) => accounts::reset_password;
    /// Makes the first account of an application, a superuser, while it has none. Where its accounts have passwords of
    /// their own: with the given one, or with a temporary one that can be read from the pipe, once. Otherwise the pipe is
    /// at its end. Options: application (s), password (h), email (s), first_name (s), last_name (s).
    Accounts.Setup(account, options) -> (pipe) by Authority::Administrator(ManageAccounts) => accounts::setup;
    /// One account, with its groups and all its permissions (as). Options: application (s), by (s).
    Accounts.Get(account, options) -> (record) by ApplicationOrAdministrator(View),
        needs Needs::Read(Permission::ViewAccounts) => accounts::get;
    /// The accounts. Options: application (s), by (s), name_start (s), status (s), role (s), group (s), text (s, in the
    /// names and the address), unused_days (u, neither created nor used for so long), sort (s: name, created or
    /// last_login), descending (b), cursor (s), limit (u).
    Accounts.List(options) -> (accounts, next) by ApplicationOrAdministrator(View),
        needs Needs::Read(Permission::ViewAccounts) => accounts::list;

    /// Makes a group of accounts. Options: application (s), by (s), description (s).
    Groups.Create(group, options) -> () by ApplicationOrAdministrator(ManageAccounts),
        needs Needs::ChangeWhole(Permission::ManageGroups) => groups::create;
    /// Removes a group without members. Options: application (s), by (s).
    Groups.Delete(group, options) -> () by ApplicationOrAdministrator(ManageAccounts),
        needs Needs::ChangeWhole(Permission::ManageGroups) => groups::delete;
    /// The groups, by name. Options: application (s), by (s), cursor (s), limit (u).
    Groups.List(options) -> (groups, next) by ApplicationOrAdministrator(View),
        needs Needs::Read(Permission::ViewAccounts) => groups::list;
    /// Who is in a group, by name, each with its role there. Options: application (s), by (s), cursor (s), limit (u).
    Groups.Members(group, options) -> (members, next) by ApplicationOrAdministrator(View),
        needs Needs::Read(Permission::ViewAccounts) => groups::members;
    /// Takes an account into a group. Who may so only in groups takes none from outside them. Options:
    /// application (s), by (s), role (s, over those who are in the group).
    Groups.Add(group, account, options) -> () by ApplicationOrAdministrator(ManageAccounts),
        needs Needs::Change(Permission::ManageGroups) => groups::add;
    /// Takes an account out of a group. Options: application (s), by (s).
    Groups.Remove(group, account, options) -> () by ApplicationOrAdministrator(ManageAccounts),
        needs Needs::Change(Permission::ManageGroups) => groups::remove;

    /// Everything that speaks against linking the account to the OS account, and what will not work as expected.
    /// Options: application (s), by (s).
    Links.Check(account, os_user, options) -> (findings)
        by ApplicationOrAdministrator(View), needs Needs::Read(Permission::ManageLinks) => links::check;
    /// Asks for a link. It is active at once where consent exists or a rule of root's gives it; otherwise it waits,
    /// and the OS account's owner consents in his own login with the code. Options: application (s), by (s); renew
    /// (b), to have a code for a consent that still holds, so that it holds longer; relink (b), to replace a link to
    /// another OS account, whose consent stays for the projects that pinned it; pool (b), with an empty os_user, to have
    /// the account leased an OS account of the pool, where the application's file allows that.
    Links.Request(account, os_user, options) -> (state, code)
        by ApplicationOrAdministrator(ManageLinks), needs Needs::ChangeOrOwn(Permission::ManageLinks), asks PolkitQuestion::Link, Action::Link => links::request;
    /// Takes the consent back and removes the link. Options: application (s), by (s), end_jobs (b: what runs is ended
    /// too).
    Links.Unlink(account, options) -> () by OwnerOrApplicationOrAdministrator(ManageLinks),
        needs Needs::ChangeOrOwn(Permission::ManageLinks) => links::unlink;
    /// Checks all links of an application, and records what that says about them. Each finding has also account and
    /// os_user. Options: application (s), by (s), cursor (s), limit (u).
    Links.CheckAll(options) -> (findings, next)
        by ApplicationOrAdministrator(ManageLinks), needs Needs::Read(Permission::ManageLinks) => links::check_all;
    /// Asks for many links, each row with account (s) and os_user (s). Each answer has account, os_user, state (active,
    /// waiting, refused) and, with it, code or error, message and remedy. Options: application (s), by (s), dry_run (b:
    /// nothing is asked for, only checked).
    Links.Import(rows, options) -> (results)
        by ApplicationOrAdministrator(ManageLinks), needs Needs::Change(Permission::ManageLinks),
        asks PolkitQuestion::Link, Action::Link => links::import;
    /// The links: of the application, or those onto the caller's own OS account. Options: application (s),
    /// account (s), os_user (s), state (s), cursor (s), limit (u).
    Links.List(options) -> (links, next) by OwnerOrApplicationOrAdministrator(View) => links::list;

    /// Begins a conversation in which a person proves to be the owner of the OS account. The descriptor is one end of
    /// an unnamed AF_UNIX SOCK_SEQPACKET pair; no answer typed there is seen by this service. The purpose is login
    /// (of a linked account) or link. Options: application (s), os_user (s; needed to link).
    Authentication.Begin(account, purpose, conversation, options) -> (id)
        by Application, asks PolkitQuestion::Link, Action::Link => authentication::begin;
    /// What came of a conversation that has ended: purpose, account, os_user and, for a login, the session (o). Waits
    /// for two seconds at most. An outcome is told once, and only to who began the conversation.
    Authentication.Finish(id) -> (outcome) by Application => authentication::finish;
    /// Makes a session of an account that proves itself by a password of its own. The password, and the new one with
    /// which it is to be replaced, come through pipes, or in memfds with all seals. A temporary or expired password makes
    /// a session only with a new one. Options: application (s), new_password (h), origin (s: from where the person comes,
    /// such as an address; wrong tries from one origin do not slow down others).
    Authentication.Password(account, password, options) -> (session)
        by Application => authentication::password::password;
    /// The sessions, as in Session.Get without os_user. Options: application (s), by (s; the path is then shown of its
    /// own only), account (s), cursor (s), limit (u).
    Authentication.Sessions(options) -> (sessions, next) by ApplicationOrAdministrator(View),
        needs Needs::Read(Permission::ViewAccounts) => sessions::list;
    /// Makes a session on the application's word, where its file trusts it. Options: application (s), issuer (s),
    /// subject (s), expiry (t, microseconds since 1970).
    Authentication.Vouch(account, options) -> (session) by Application => authentication::vouch;

    /// The session: path, application, account, os_user, how (os, password, vouched, act-for), opened, expires (if it is
    /// not used before) and ends (whatever happens; microseconds since 1970), idle_seconds; of one that was vouched for,
    /// issuer and subject; of one in which another account acts, by and reason.
    Session.Get() -> (session) by ApplicationOrAdministrator(View) => sessions::get;
    /// Keeps the session alive, as any use does; never beyond its end.
    Session.Extend() -> () by Application => sessions::extend;
    /// Ends the session.
    Session.Close() -> () by ApplicationOrAdministrator(ManageAccounts) => sessions::close;

    /// Creates a project. The subject, a live session's path or an account where the application's word is enough, owns
    /// it; its OS account is pinned, and a later relink changes new projects only. The answer is how it is written from
    /// now on: OWNER/NAME. Options: application (s), public (b), umask (s, octal: what it takes away beside the login's
    /// own), os_group (s: the group of new files, one of the OS account's own).
    Projects.Create(subject, project, options) -> (project_key)
        by Application => projects::create;
    /// One project: application, project, owner, name, public, created, changed and, for who has a part in it, os_user,
    /// uid, gid, members (aa{sv}), open_jobs, umask, os_group, and where it has them group (s) and group_gid (u), its OS
    /// group, and folder (ay). Options: application (s), by (s), subject (s: as this account sees it).
    Projects.Get(project, options) -> (record)
        by ApplicationOrAdministrator(View), needs Needs::Read(Permission::ManageProjects) => projects::get;
    /// The projects, by owner and name. Options: application (s), by (s), subject (s: those that this account owns or is a
    /// member of), owner (s), public (b: those that every account sees), cursor (s), limit (u).
    Projects.List(options) -> (projects, next)
        by ApplicationOrAdministrator(View), needs Needs::Read(Permission::ManageProjects) => projects::list;
    /// Makes an account a member, or changes what it may do: read (see the records) or write (run jobs too). Its own OS
    /// account is pinned. The answer has a finding for whatever is not in step with the members now: who is not in the
    /// project's OS group, a folder whose list its owner's agent could not change. Options: application (s), by (s).
    Projects.Share(project, account, access, options) -> (findings)
        by ApplicationOrAdministrator(ManageAccounts), needs Needs::ChangeOrOwn(Permission::ManageProjects)
        => projects::share;
    /// Ends a membership. What runs goes on. The findings are as those of Share. Options: application (s), by (s).
    Projects.Unshare(project, account, options) -> (findings)
        by ApplicationOrAdministrator(ManageAccounts), needs Needs::ChangeOrOwn(Permission::ManageProjects)
        => projects::unshare;
    /// Makes the folder that the members of a project share, beneath a root that the application's file has for that, as
    /// the owner, who has to be the subject; or, with the same path or an empty one, brings folder and group into step
    /// with the members. The answer has a finding for each member who is not in the project's OS group. Options:
    /// application (s), deadline_seconds (u).
    Projects.ShareFolder(subject, project, path, options) -> (findings)
        by Application, asks PolkitQuestion::Files, Action::Files => projects::share_folder;
    /// Lets every account of the application see that the project is there, or no longer. Options: application (s),
    /// by (s).
    Projects.Publish(project, public, options) -> ()
        by ApplicationOrAdministrator(ManageAccounts), needs Needs::ChangeOrOwn(Permission::ManageProjects)
        => projects::publish;
    /// Changes what its jobs begin with. Options: application (s), by (s), umask (s), os_group (s).
    Projects.Edit(project, options) -> ()
        by ApplicationOrAdministrator(ManageAccounts), needs Needs::ChangeOrOwn(Permission::ManageProjects)
        => projects::edit;
    /// Gives the project to another account, with that one's own OS account. The answer is how it is written from now
    /// on, and findings as those of Share: its folder, which stays the former owner's until root gives it away. Options:
    /// application (s), by (s).
    Projects.HandOver(project, account, options) -> (project_key, findings)
        by ApplicationOrAdministrator(ManageAccounts), needs Needs::ChangeOrOwn(Permission::ManageProjects)
        => projects::hand_over;
    /// Deletes the project's record. No file is touched; while jobs of it run it stays. Options: application (s), by (s).
    Projects.Delete(project, options) -> ()
        by ApplicationOrAdministrator(ManageAccounts), needs Needs::ChangeOrOwn(Permission::ManageProjects)
        => projects::delete;

    /// Runs a command as the OS account of an account. The subject is the path of a live session, or the account's
    /// name where the application's word is enough. Options:
    ///
    /// application (s), project (s, OWNER/NAME: as the OS account that was pinned there for whoever asks), kind (s,
    /// default batch), name (s, what the job is called), directory (ay, default the home directory), umask (s, octal) and
    /// os_group (s), environment (aay, each NAME=VALUE), environment_fd (h: more of them, with NUL between, which nobody
    /// writes down), script (h: the program itself, where the kind allows any; argv then begins with its name);
    ///
    /// stdin, stdout and stderr, each by type: h is a descriptor (file, pipe or socket), ay a file's path, opened as the
    /// OS account, s a word: null (which is the default), for the outputs capture (kept in the job's folder, see
    /// Job.Output), and for stderr stdout; stdout_append and stderr_append (b: the file is not cut off);
    ///
    /// memory and core (t, bytes), cpus (d), pids and files (u), time_limit_seconds, grace_seconds and nice (u), each
    /// below what policy allows; gpus (u, how many);
    ///
    /// executor (s: local, slurm or auto; where it is absent, the kind's), and for Slurm cluster, partition, slurm_account and qos (s),
    /// nodes and tasks (u), constraint (s: features that each node has to have, with commas between), dependency (s: after,
    /// afterok, afternotok or afterany, a colon and the id of a job of the same account at Slurm; several with commas, of
    /// which each has to hold), hold (b: it waits for Job.Release) and requeue (b: where policy allows it, the job is run again
    /// under the same id after a node failed, say, or by Job.Requeue); cpus is then for each task, memory and gpus for each
    /// node, and stdin, stdout and stderr are files. With interactive (b), where policy allows it, they are as for any job
    /// of this machine, or terminal (h: the slave of a pseudo-terminal that nothing else has) takes their place;
    ///
    /// watch (h: a pipe's writing end, or a socket: it gets the lines of Job.Watch, and is closed after the last);
    ///
    /// needs (t, bytes): the job is refused (NotEnoughSpace) where less can be written, by the quotas and the file system, in
    /// directory, or in the folder needs_path (ay). Either is beneath a root. It is looked at when the job is accepted.
    ///
    /// It answers when the program runs or is known not to, or when the job has to wait: a refusal is an error of this
    /// call; a program that could not be executed is a job that has ended, with the failed step, errno and the status a
    /// shell would give (127 not found, 126 otherwise).
    Jobs.Run(subject, argv, options) -> (job)
        by Application, asks PolkitQuestion::Run, Action::Run => jobs::run::run;
    /// Runs a command at Slurm once for each of several indices (numbers and ranges with commas between: 0-9, 1,3,5-7,
    /// 0-100:10), as many as policy allows. Each is a job of its own. Options as for Jobs.Run, without descriptors; in the
    /// names of stdin, stdout and stderr %a is the index, which the job has as SLURM_ARRAY_TASK_ID, too. It answers when all of
    /// them are recorded, with the array's id and the jobs in the order of indices; whether Slurm takes each of them, its
    /// state tells.
    Jobs.RunArray(subject, argv, indices, options) -> (array, jobs)
        by Application, asks PolkitQuestion::Run, Action::Run => jobs::run::run_array;
    /// The jobs, newest first: of the application, or those that ran as the caller's own OS account. Options:
    /// application (s), by (s), account (s), state (s), kind (s), array (s), cluster (s: those at this one of Slurm's), slurm_job
    /// (u: the open job that has this number at Slurm; each cluster has its own), cursor (s), limit (u).
    Jobs.List(options) -> (jobs, next) by OwnerOrApplicationOrAdministrator(View),
        needs Needs::ReadOrOwn(Permission::ViewJobs) => jobs::calls::list;
    /// Ends each job of an array that has not ended, as Job.Cancel does. The answer has an entry for each of them: id, index
    /// and, where Slurm did not take it, code and message. An array of which none is open, or none is the caller's, is not
    /// there. Options: by (s).
    Jobs.CancelArray(array, options) -> (jobs) by OwnerOrApplicationOrAdministrator(ManageJobs),
        needs Needs::ReadOrOwn(Permission::ManageJobs) => jobs::calls::cancel_array;
    /// Has the signal StateChanged sent to this connection, until it leaves the bus: of all jobs of the application, or of
    /// those that run as the caller's own OS account. There are no options yet.
    Jobs.Subscribe(options) -> () by OwnerOrApplicationOrAdministrator(View) => jobs::signals::subscribe;
    /// Has it sent no more. There are no options yet.
    Jobs.Unsubscribe(options) -> () by OwnerOrApplicationOrAdministrator(View) => jobs::signals::unsubscribe;

    /// The job: id, path, application, account, os_user, uid, gid, kind, name, argv, state (queued, starting, running,
    /// ending, done, lost, abandoned) with the time of each and, when it is done, how it ended (cause, where it did not
    /// by itself), what it used, by what its limits were held (limits_by), and how much it wrote to captured streams; executor, where
    /// that was left to Deputy with why (chosen: only-slurm, only-here, room, no-room), and of one at Slurm cluster and
    /// slurm_job (u, the number there), of one that may run again requeues (u, how often that has happened; started is the time
    /// of the latest run), while it waits Slurm's reason, while it runs host, and of one of an array array (s) and index (u);
    /// stdout and stderr (ay), where they are files.
    Job.Get() -> (job) by OwnerOrApplicationOrAdministrator(View) => jobs::calls::get;
    /// A pipe with one line of JSON for each state of the job, beginning with the present one; end of file follows
    /// the last. Only a job with requeues goes from running back to queued. A reader that does not read loses lines, never the end of file.
    Job.Watch() -> (pipe) by OwnerOrApplicationOrAdministrator(View) => jobs::calls::watch;
    /// A pipe with what the job wrote to stdout or stderr, where that is captured: as much as there is now, or with follow
    /// everything until the job has ended. Where bytes are not kept, or were not read in time, a line that says how many
    /// stands in their place. Options: by (s), follow (b), offset (t, where to begin).
    Job.Output(stream, options) -> (pipe) by OwnerOrApplicationOrAdministrator(ManageJobs),
        needs Needs::ReadOrOwn(Permission::ManageJobs) => jobs::output::output;
    /// Ends the job: TERM to all its processes, and KILL after the grace. Options: by (s), grace_ms (u, default 10000).
    Job.Cancel(options) -> () by OwnerOrApplicationOrAdministrator(ManageJobs),
        needs Needs::ReadOrOwn(Permission::ManageJobs) => jobs::calls::cancel;
    /// Has a job that waits at Slurm wait until it is released. Options: by (s).
    Job.Hold(options) -> () by OwnerOrApplicationOrAdministrator(ManageJobs),
        needs Needs::ReadOrOwn(Permission::ManageJobs) => jobs::calls::hold;
    /// Lets it go on. Options: by (s).
    Job.Release(options) -> () by OwnerOrApplicationOrAdministrator(ManageJobs),
        needs Needs::ReadOrOwn(Permission::ManageJobs) => jobs::calls::release;
    /// Ends the run of a job at Slurm that is on and has it run again, where it was submitted with requeue. Options: by (s).
    Job.Requeue(options) -> () by OwnerOrApplicationOrAdministrator(ManageJobs),
        needs Needs::ReadOrOwn(Permission::ManageJobs) => jobs::calls::requeue;
    /// Sends a signal to the job's first process. Options: by (s).
    Job.Signal(signal, options) -> () by OwnerOrApplicationOrAdministrator(ManageJobs),
        needs Needs::ReadOrOwn(Permission::ManageJobs) => jobs::calls::signal;

    /// Opens a regular file as the OS account of an account, beneath a root of the application's. The descriptor is that of
    /// the file itself; folders, devices and pipes are not handed out. The subject is the path of a live session, or the
    /// account's name where the application's word is enough; paths are bytes, absolute. Options: read (b, the default),
    /// write, create, exclusive, append, truncate (b), mode (s, octal, default 666), keep (b: the handle is for
    /// Files.Commit).
    ///
    /// Every method of files also has the options application (s), project (s, OWNER/NAME: as the OS account that was
    /// pinned there for whoever asks) and deadline_seconds (u, default 20). What the kernel refuses is the error FileError,
    /// whose message begins with the name of the kernel's error.
    Files.Open(subject, path, options) -> (file, handle)
        by Application, asks PolkitQuestion::Files, Action::Files => files::open;
    /// Opens up to 16 files in the same way, for who has many: one call instead of one for each. The descriptors are those of
    /// the files that were opened, in the order of the paths; of each path there is a result, which is empty, or has error
    /// (a code) and message. Options: those of Open but keep.
    Files.OpenMany(subject, paths, options) -> (files, results)
        by Application, asks PolkitQuestion::Files, Action::Files => files::open_many;
    /// A socket (SEQPACKET) through which files are opened in the same way, up to 128 by a packet, for who has very many. Each
    /// request is decided as a call of OpenMany; after a refusal, or a minute without a request, the socket is closed.
    /// docs/files.md has what is sent and received. Options: those of Open but keep.
    Files.Channel(subject, options) -> (socket)
        by Application, asks PolkitQuestion::Files, Action::Files => files::channel;
    /// Writes a file that Open kept to the disk, and answers when it is there; the first error that there was, of any write,
    /// is the answer. The file is kept no longer. Options: discard (b: it is only that, for a file that nobody wants any more;
    /// what is kept counts for quotas even when its name has been removed).
    Files.Commit(subject, handle, options) -> ()
        by Application, asks PolkitQuestion::Files, Action::Files => files::commit;
    /// What a name stands for: kind (file, folder, symlink, pipe, socket, block, character), mode, uid, gid, size,
    /// allocated, links, inode, device, and the times accessed, modified and changed (x, microseconds since 1970). Options:
    /// follow (b: a symbolic link at the end).
    Files.Stat(subject, path, options) -> (stat)
        by Application, asks PolkitQuestion::Files, Action::Files => files::stat;
    /// A folder's entries in the order of their bytes, each with name (ay) and what Stat gives; and whether there are more.
    /// Each page reads the whole folder: ListStream is for large ones. Options: after (ay, the last name of the page before),
    /// limit (u).
    Files.List(subject, path, options) -> (entries, more)
        by Application, asks PolkitQuestion::Files, Action::Files => files::list;
    /// A pipe with a folder's entries as the file system has them, a line of JSON each; the last line has the result.
    Files.ListStream(subject, path, options) -> (pipe)
        by Application, asks PolkitQuestion::Files, Action::Files => files::list_stream;
    /// Makes a folder. Options: mode (s, octal, default 777), parents (b: those above it too, and one that is there is well).
    Files.MakeDirectory(subject, path, options) -> ()
        by Application, asks PolkitQuestion::Files, Action::Files => files::make_directory;
    /// Removes a file, a link, or an empty folder. Options: missing_ok (b).
    Files.Remove(subject, path, options) -> ()
        by Application, asks PolkitQuestion::Files, Action::Files => files::remove;
    /// Removes a folder with everything in it. The pipe has lines of JSON: how far it is, and the result at the end; to close
    /// it is to stop. Options: missing_ok (b).
    Files.RemoveTree(subject, path, options) -> (pipe)
        by Application, asks PolkitQuestion::Files, Action::Files => files::remove_tree;
    /// Renames. Options: no_replace (b), exchange (b).
    Files.Rename(subject, from, to, options) -> ()
        by Application, asks PolkitQuestion::Files, Action::Files => files::rename;
    /// Makes a symbolic link that says this.
    Files.Symlink(subject, target, path, options) -> ()
        by Application, asks PolkitQuestion::Files, Action::Files => files::symlink;
    /// What a symbolic link says.
    Files.ReadLink(subject, path, options) -> (target)
        by Application, asks PolkitQuestion::Files, Action::Files => files::read_link;
    /// Gives a file one more name.
    Files.Link(subject, from, to, options) -> ()
        by Application, asks PolkitQuestion::Files, Action::Files => files::link;
    /// Changes the permission bits, in octal.
    Files.SetMode(subject, path, mode, options) -> ()
        by Application, asks PolkitQuestion::Files, Action::Files => files::set_mode;
    /// Changes the group, to one that the OS account is in.
    Files.SetGroup(subject, path, gid, options) -> ()
        by Application, asks PolkitQuestion::Files, Action::Files => files::set_group;
    /// Changes the times. Options: accessed (t), modified (t); what is not given stays.
    Files.SetTimes(subject, path, options) -> ()
        by Application, asks PolkitQuestion::Files, Action::Files => files::set_times;
    /// The access control list, in the short form of acl(5) with numbers for names; empty where there is none. Options:
    /// default (b: the one that new entries of a folder get).
    Files.GetAcl(subject, path, options) -> (acl)
        by Application, asks PolkitQuestion::Files, Action::Files => files::get_acl;
    /// Changes the access control list; an empty one takes it away. Options: default (b).
    Files.SetAcl(subject, path, acl, options) -> ()
        by Application, asks PolkitQuestion::Files, Action::Files => files::set_acl;
    /// Copies a file, or a folder with everything in it, as the OS account. The pipe is as that of RemoveTree; what is
    /// neither file, folder nor link is left out, and told. Options: resume (b: go on with a copy that was broken off).
    Files.CopyTree(subject, from, to, options) -> (pipe)
        by Application, asks PolkitQuestion::Files, Action::Files => files::copy_tree;
    /// How much a folder takes of the disk. The pipe is as that of RemoveTree.
    Files.DiskUsage(subject, path, options) -> (pipe)
        by Application, asks PolkitQuestion::Files, Action::Files => files::disk_usage;
    /// Of each root: path (ay), os_user, filesystem (its sort), writable (b), size and free (t, bytes), files and files_free
    /// (t), quotas (aa{sv}: whose, space_used, space_soft, space_hard, space_grace_ends, and the same of files) and, where
    /// the program that deputy.toml names for it failed, missing (s, why).
    Files.Quota(subject, options) -> (places)
        by Application, asks PolkitQuestion::Files, Action::Files => files::quotas;

    /// The quotas that are used beyond a threshold ([quota] of deputy.toml), each with application, account, os_user, place
    /// (ay, the root), whose, of (space or files), threshold (u, percent), used and limit (t, bytes or files, when it was
    /// reached), and since. Options: application (s), by (s), account (s), cursor (s), limit (u).
    Alerts.List(options) -> (alerts, next) by ApplicationOrAdministrator(View),
        needs Needs::Read(Permission::ViewUsage) => alerts::list;
    /// Has the signal Changed sent to this connection, until it leaves the bus: of all alerts of the application, or of those
    /// about the caller's own OS account. There are no options yet.
    Alerts.Subscribe(options) -> () by OwnerOrApplicationOrAdministrator(View) => alerts::subscribe;
    /// Has it sent no more. There are no options yet.
    Alerts.Unsubscribe(options) -> () by OwnerOrApplicationOrAdministrator(View) => alerts::unsubscribe;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The arguments of a message, one signature each.
    pub fn fields(signature: &Signature) -> Vec<String> {
        match signature {
            Signature::Unit => Vec::new(),
            Signature::Structure(fields) => fields.iter().map(ToString::to_string).collect(),
            other => panic!("{other} is not a tuple"),
        }
    }

    #[test]
    fn every_argument_has_a_name_and_every_method_words() {
        for method in METHODS {
            assert_eq!(fields(method.signatures.input).len(), method.inputs.len(), "{}", method.name());
            assert_eq!(fields(method.signatures.output).len(), method.outputs.len(), "{}", method.name());
            assert!(!method.documentation.trim().is_empty(), "{}", method.name());
        }
    }

    #[test]
    fn no_method_is_there_twice() {
        let mut names: Vec<_> = METHODS.iter().map(Method::name).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn what_changes_something_is_nobodys_by_default() {
        for method in METHODS.iter().filter(|method| method.authority == Authority::Public) {
            assert_eq!(method.name(), "Manager.Status");
        }
    }
}
