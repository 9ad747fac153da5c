//! The requests of most tests, short to write.

use deputy_core::Code;
use deputy_core::consent::Consent;
use deputy_core::job::OsIdentity;
use deputy_core::limits::JobBounds;
use deputy_core::message::{
    Asking, ConsentRequest, LauncherReply, LauncherRequest, LinkState, OwnerReply, RunRequest, SubmitRequest,
    WithdrawRequest, Withdrawn,
};
use deputy_core::names::{AccountName, ApplicationName};
use deputy_core::stream::{Input, Output, Streams};

use crate::acting::identity;
use crate::fake::Fake;
use crate::job_id;

/// The name of an application.
pub fn app(name: &str) -> ApplicationName {
    name.parse().expect("the name of an application")
}

/// The name of an account.
pub fn account(name: &str) -> AccountName {
    name.parse().expect("the name of an account")
}

/// A job of `demo`'s default kind.
pub fn run_as(os_account: OsIdentity, account_name: &str, argv: &[&str]) -> RunRequest {
    RunRequest {
        job: job_id(),
        application: app("demo"),
        account: account(account_name),
        os_account,
        kind: None,
        argv: argv.iter().map(|argument| argument.as_bytes().to_vec()).collect(),
        script: false,
        directory: None,
        environment: Vec::new(),
        environment_descriptor: false,
        umask: None,
        os_group: None,
        project_group: None,
        streams: Streams::default(),
        bounds: JobBounds::default(),
        gpus: Vec::new(),
        login: None,
    }
}

/// Streams of a job at Slurm of which nobody wants anything.
pub fn null_files() -> Streams {
    let nothing = || Output::File { path: b"/dev/null".to_vec(), append: true };
    Streams { input: Input::File(b"/dev/null".to_vec()), output: nothing(), error: nothing() }
}

/// A job that Slurm could take, of this kind of an application.
pub fn for_slurm(application: &str, kind: &str, os_user: &str, account_name: &str) -> RunRequest {
    RunRequest {
        application: app(application),
        kind: kind.parse().ok(),
        streams: null_files(),
        ..run_as(identity(os_user), account_name, &["/bin/true"])
    }
}

/// What the launcher has against a submission; none where Slurm has it.
pub fn refusal_of(request: SubmitRequest) -> Option<Code> {
    let answers = Fake::daemon().ask(&LauncherRequest::Submit(request), &[]);
    match &answers.replies[..] {
        [LauncherReply::Denied(denial)] => Some(denial.code),
        [LauncherReply::Submitted { .. }] => None,
        other => panic!("{other:?}"),
    }
}

/// A link, or consent to one.
pub fn link(application: &str, account_name: &str, os_user: &str) -> ConsentRequest {
    ConsentRequest {
        application: app(application),
        account: account(account_name),
        os_user: os_user.parse().expect("the name of an OS account"),
        expires: None,
        asking: Asking::Link,
    }
}

/// Root's consent, given.
pub fn grant_in(application: &str, account_name: &str, os_user: &str) {
    let request = LauncherRequest::Grant(link(application, account_name, os_user));
    let answers = Fake::as_user("root").ask(&request, &[]);
    assert!(
        matches!(answers.replies[..], [LauncherReply::Link { state: LinkState::Active { .. }, .. }]),
        "{answers:?}"
    );
}

/// Root's consent to a link of `demo`, given.
pub fn grant(account_name: &str, os_user: &str) {
    grant_in("demo", account_name, os_user);
}

/// A request to take a consent back, and to end what runs under it if that is wanted.
pub fn withdrawal(application: &str, account_name: &str, os_user: &str, end_jobs: bool) -> LauncherRequest {
    LauncherRequest::Withdraw(WithdrawRequest {
        application: app(application),
        account: account(account_name),
        os_account: identity(os_user),
        end_jobs,
    })
}

/// That there was a consent, which is taken back, and that so many jobs were told to end.
pub fn taken_back(ended: u32) -> Withdrawn {
    Withdrawn { removed: true, ended, left: 0 }
}

/// That there was none.
pub fn nothing_taken_back() -> Withdrawn {
    Withdrawn::default()
}

/// All consents on this machine, as a taken-over daemon can list them.
pub fn consents() -> Vec<Consent> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let request = LauncherRequest::Consents { application: None, after };
        let answers = Fake::daemon().ask(&request, &[]);
        let [LauncherReply::Consents(page)] = &answers.replies[..] else { panic!("{answers:?}") };
        all.extend(page.consents.iter().cloned());
        match &page.next {
            Some(next) => after = Some(next.clone()),
            None => return all,
        }
    }
}

/// The consents to the links of one account.
pub fn consents_of(account_name: &str) -> Vec<Consent> {
    consents().into_iter().filter(|consent| consent.account.as_str() == account_name).collect()
}

/// The code of an owner's refusal.
pub fn owner_code(reply: &OwnerReply) -> Option<Code> {
    match reply {
        OwnerReply::Denied(denial) => Some(denial.code),
        _ => None,
    }
}
