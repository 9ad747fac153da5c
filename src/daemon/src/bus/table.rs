//! The table of methods: what each takes and gives, who may call it, and what answers it.
//!
//! The introspection data and the reference are made from this table, and every call is decided by its row.

use std::future::Future;

use deputy_core::Denial;
use deputy_core::application::PolkitQuestion;
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use zbus::{Message, Signature, Type};

use crate::authority::{Call, Granted};
use crate::polkit::Action;
use crate::{accounts, applications, authentication, jobs, links, manager, sessions};

/// Who may call a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    /// Everybody. The answer tells nothing that belongs to an application.
    Public,
    /// The service user of the application that it is about.
    Application,
    /// That, or an administrator by this polkit action.
    ApplicationOrAdministrator(Action),
    /// That, or the owner of the OS account that it is about.
    OwnerOrApplicationOrAdministrator(Action),
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
            by $authority:expr $(, asks $question:expr, $action:expr)? => $handler:path;
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
                asks: methods!(@asks $($question, $action)?),
                documentation: concat!($($doc, "\n"),*),
                handler: |call| Box::pin(serve(call, $handler)),
            },
        )*];
    };
    (@asks) => { None };
    (@asks $question:expr, $action:expr) => { Some(($question, $action)) };
}

use Action::{ManageAccounts, ManageJobs, ManageLinks, View};
use Authority::{Application, ApplicationOrAdministrator, OwnerOrApplicationOrAdministrator, Public};

methods! {
    /// How Deputy does. Everybody is told the version; an application also what is wrong with its own file; root also
    /// what is wrong with any (findings, aa{sv}), whether the launcher answers, and where the ledger stands.
    Manager.Status() -> (status) by Public => manager::status;

    /// The applications that the caller may see: its own, or for an administrator all. Each has name, service_uid,
    /// trust, kinds, valid and, where its file is refused, the reason.
    Applications.List() -> (applications) by ApplicationOrAdministrator(View) => applications::list;
    /// One application.
    Applications.Get(name) -> (application) by ApplicationOrAdministrator(View) => applications::get;
    /// What is wrong with an application, each with its remedy; nothing, if it can be used.
    Applications.Check(name) -> (findings) by ApplicationOrAdministrator(View) => applications::check;

    /// Creates an account. Options: application (s), email (s), first_name (s), last_name (s), role (s, default user).
    Accounts.Create(account, options) -> () by ApplicationOrAdministrator(ManageAccounts) => accounts::create;
    /// One account. Options: application (s).
    Accounts.Get(account, options) -> (record) by ApplicationOrAdministrator(View) => accounts::get;
    /// The accounts, by name. Options: application (s), name_start (s), role (s), cursor (s), limit (u).
    Accounts.List(options) -> (accounts, next) by ApplicationOrAdministrator(View) => accounts::list;

    /// Everything that speaks against linking the account to the OS account, and what will not work as expected.
    /// Options: application (s).
    Links.Check(account, os_user, options) -> (findings)
        by ApplicationOrAdministrator(View) => links::check;
    /// Asks for a link. It is active at once where consent exists or a rule of root's gives it; otherwise it waits,
    /// and the OS account's owner consents in his own login with the code. Options: application (s).
    Links.Request(account, os_user, options) -> (state, code)
        by ApplicationOrAdministrator(ManageLinks), asks PolkitQuestion::Link, Action::Link => links::request;
    /// Takes the consent back and removes the link; jobs that run go on. Options: application (s).
    Links.Unlink(account, options) -> ()
        by OwnerOrApplicationOrAdministrator(ManageLinks) => links::unlink;
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
    /// Makes a session on the application's word, where its file trusts it. Options: application (s), issuer (s),
    /// subject (s), expiry (t, microseconds since 1970).
    Authentication.Vouch(account, options) -> (session) by Application => authentication::vouch;

    /// The session: path, application, account, os_user, how, opened and expires (microseconds since 1970).
    Session.Get() -> (session) by ApplicationOrAdministrator(View) => sessions::get;
    /// Ends the session.
    Session.Close() -> () by ApplicationOrAdministrator(ManageAccounts) => sessions::close;

    /// Runs a command as the OS account of an account. The subject is the path of a live session, or the account's
    /// name where the application's word is enough. Options: application (s), kind (s, default batch), directory (ay,
    /// default the home directory), environment (aay, each NAME=VALUE), stdin, stdout and stderr (h, default
    /// /dev/null).
    ///
    /// It answers when the program runs or is known not to: a refusal is an error of this call; a program that could
    /// not be executed is a job that has ended, with the failed step, errno and the status a shell would give (127
    /// not found, 126 otherwise).
    Jobs.Run(subject, argv, options) -> (job)
        by Application, asks PolkitQuestion::Run, Action::Run => jobs::run::run;
    /// The jobs, newest first: of the application, or those that ran as the caller's own OS account. Options:
    /// application (s), account (s), state (s), kind (s), cursor (s), limit (u).
    Jobs.List(options) -> (jobs, next) by OwnerOrApplicationOrAdministrator(View) => jobs::calls::list;

    /// The job: id, path, application, account, os_user, uid, gid, kind, argv, state (queued, running, done, lost,
    /// abandoned), times and, when it is done, how it ended and what it used.
    Job.Get() -> (job) by OwnerOrApplicationOrAdministrator(View) => jobs::calls::get;
    /// A pipe with one line of JSON for each state of the job, beginning with the present one; end of file follows
    /// the last. A reader that does not read loses lines, never the end of file.
    Job.Watch() -> (pipe) by OwnerOrApplicationOrAdministrator(View) => jobs::calls::watch;
    /// Ends the job: TERM to all its processes, and KILL after the grace. Options: grace_ms (u, default 10000).
    Job.Cancel(options) -> () by OwnerOrApplicationOrAdministrator(ManageJobs) => jobs::calls::cancel;
    /// Sends a signal to the job's first process.
    Job.Signal(signal) -> () by OwnerOrApplicationOrAdministrator(ManageJobs) => jobs::calls::signal;
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
