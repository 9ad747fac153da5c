//! G2 and G9 at the launcher's socket: what a taken-over `deputyd` cannot do. Refusals first.
#![forbid(unsafe_code)]

use deputy_core::Code;
use deputy_core::consent::GivenBy;
use deputy_core::ids::{OsGid, OsUid};
use deputy_core::job::{JobEnd, OsIdentity};
use deputy_core::message::{
    ConsentRequest, JobState, LauncherReply, LauncherRequest, LinkState, MAGIC, RunRequest, encode,
};
use deputy_core::names::{AccountName, ApplicationName, OsUserName};
use deputy_suite::{Descriptor, Fake, as_user, job_id, need_the_sandbox};

fn app(name: &str) -> ApplicationName {
    name.parse().unwrap()
}

fn account(name: &str) -> AccountName {
    name.parse().unwrap()
}

fn identity(name: &str) -> OsIdentity {
    let number = |flag: &str| as_user("root", &["id", flag, name]).stdout.trim().parse::<u32>().unwrap();
    OsIdentity {
        name: OsUserName::new(name).unwrap(),
        uid: OsUid::new(number("-u")).unwrap(),
        gid: OsGid::new(number("-g")).unwrap(),
    }
}

fn run_as(os_account: OsIdentity, account_name: &str, argv: &[&str]) -> RunRequest {
    RunRequest {
        job: job_id(),
        application: app("demo"),
        account: account(account_name),
        os_account,
        kind: None,
        argv: argv.iter().map(|argument| argument.as_bytes().to_vec()).collect(),
        directory: None,
        environment: Vec::new(),
    }
}

fn stdio() -> [Descriptor; 3] {
    [Descriptor::Null, Descriptor::Output, Descriptor::Null]
}

fn grant(account_name: &str, os_user: &str) {
    let answers = Fake::as_user("root").ask(
        &LauncherRequest::Grant(ConsentRequest {
            application: app("demo"),
            account: account(account_name),
            os_user: os_user.parse().unwrap(),
            expires: None,
        }),
        &[],
    );
    assert!(matches!(answers.replies[..], [LauncherReply::Link { state: LinkState::Active, .. }]), "{answers:?}");
}

#[test]
fn without_consent_nothing_runs() {
    need_the_sandbox();
    let request = LauncherRequest::Run(run_as(identity("bob"), "nobody-consented", &["/bin/id"]));
    assert_eq!(Fake::daemon().ask(&request, &stdio()).code(), Some(Code::NoConsent));
}

#[test]
fn with_consent_the_job_is_the_os_account() {
    need_the_sandbox();
    grant("alice", "alice");
    let request = LauncherRequest::Run(run_as(identity("alice"), "alice", &["id"]));
    let answers = Fake::daemon().ask(&request, &stdio());
    assert!(matches!(&answers.replies[..], [
        LauncherReply::Job(JobState::Running),
        LauncherReply::Job(JobState::Ended(record)),
    ] if record.end == JobEnd::Exited { code: 0 }), "{answers:?}");
    let expected = as_user("alice", &["id"]).stdout;
    assert_eq!(answers.output, expected);
}
