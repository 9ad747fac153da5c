//! G8 at the launcher: an OS account that is no longer the one that was linked is nobody's. Refusals first.
#![forbid(unsafe_code)]

use deputy_core::Code;
use deputy_core::job::OsIdentity;
use deputy_core::message::{ExamineRequest, LauncherReply, LauncherRequest, Purpose};
use deputy_suite::acting::{identity, ids, made_up_identity};
use deputy_suite::machine::{add_person, change_person};
use deputy_suite::requests::{account, app, grant, link, run_as};
use deputy_suite::talk::{log_in, wanted};
use deputy_suite::{Fake, need_the_sandbox};

/// A person of the test's own, linked by root, whose job has run once.
fn linked(name: &str) -> OsIdentity {
    add_person(name, name, &["lab1"]);
    let pinned = identity(name);
    grant(name, name);
    assert_eq!(code(&pinned, name), None, "before the change");
    pinned
}

/// The code with which a job as what was pinned is refused.
fn code(pinned: &OsIdentity, account_name: &str) -> Option<Code> {
    let answers = Fake::daemon().run(&run_as(pinned.clone(), account_name, &["id", "-u"]));
    let code = answers.code();
    assert!(code.is_some() || answers.output.trim() == pinned.uid.to_string(), "{answers:?}");
    code
}

/// The job with what is in passwd now, which nobody consented to, is refused as well.
fn refused_as_is(name: &str, account_name: &str) {
    let now = code(&identity(name), account_name);
    assert!(matches!(now, Some(Code::NoConsent | Code::LinkStale)), "{now:?}");
}

#[test]
fn a_uid_that_changed() {
    need_the_sandbox();
    let pinned = linked("moved");
    change_person("usermod", &["--uid", "1000", "moved"]);
    assert_eq!(code(&pinned, "moved"), Some(Code::LinkStale));
    refused_as_is("moved", "moved");
    // Linked again, it is a new consent.
    grant("moved", "moved");
    assert_eq!(code(&identity("moved"), "moved"), None);
    assert_eq!(code(&pinned, "moved"), Some(Code::LinkStale));
}

#[test]
fn a_gid_that_changed() {
    need_the_sandbox();
    let pinned = linked("regrouped");
    change_person("usermod", &["--gid", "lab2", "regrouped"]);
    assert_eq!(code(&pinned, "regrouped"), Some(Code::LinkStale));
    refused_as_is("regrouped", "regrouped");
    change_person("usermod", &["--gid", "regrouped", "regrouped"]);
    assert_eq!(code(&pinned, "regrouped"), None);
}

#[test]
fn a_name_that_changed() {
    need_the_sandbox();
    let pinned = linked("renamed");
    change_person("usermod", &["--login", "othername", "renamed"]);
    assert_eq!(code(&pinned, "renamed"), Some(Code::LinkStale));
    refused_as_is("othername", "renamed");
    change_person("usermod", &["--login", "renamed", "othername"]);
    assert_eq!(code(&pinned, "renamed"), None);
}

#[test]
fn a_uid_that_went_to_somebody_else() {
    need_the_sandbox();
    let pinned = linked("leaver");
    // Somebody later, so that no other test is given the uid that becomes free.
    add_person("later", "later", &["lab1"]);
    change_person("userdel", &["leaver"]);
    assert_eq!(code(&pinned, "leaver"), Some(Code::LinkStale));
    change_person("useradd", &["--uid", &pinned.uid.to_string(), "--gid", "lab1", "heir"]);
    assert_eq!(code(&pinned, "leaver"), Some(Code::LinkStale));
    let heir = made_up_identity("heir", pinned.uid.raw(), ids("heir").gid);
    assert_eq!(code(&heir, "leaver"), Some(Code::LinkStale), "the heir has not consented");
    grant("leaver", "heir");
    assert_eq!(code(&identity("heir"), "leaver"), None);
}

#[test]
fn an_account_that_was_made_again_with_another_uid() {
    need_the_sandbox();
    let pinned = linked("returned");
    change_person("userdel", &["--force", "--remove", "returned"]);
    change_person("useradd", &["--uid", "59000", "--user-group", "returned"]);
    assert_eq!(code(&pinned, "returned"), Some(Code::LinkStale));
    refused_as_is("returned", "returned");
}

#[test]
fn a_uid_with_two_names() {
    need_the_sandbox();
    let pinned = linked("first");
    // The name service finds the one that comes first, which is then the only one.
    change_person("useradd", &["--non-unique", "--uid", &pinned.uid.to_string(), "--gid", "lab1", "second"]);
    let second = made_up_identity("second", pinned.uid.raw(), ids("second").gid);
    assert_eq!(code(&second, "first"), Some(Code::LinkStale));
    let by_root = LauncherRequest::Grant(link("demo", "second", "second"));
    assert_eq!(Fake::as_user("root").ask(&by_root, &[]).code(), Some(Code::LinkStale));
    assert_eq!(code(&pinned, "first"), None);
}

#[test]
fn a_stale_link_is_reported_and_no_login() {
    need_the_sandbox();
    let pinned = linked("reported");
    let login = wanted(Purpose::Login, "demo", "reported", "reported");
    assert!(log_in(&login, "reported").is_success());
    change_person("usermod", &["--gid", "lab2", "reported"]);
    assert_eq!(log_in(&login, "reported").code(), Some(Code::AuthenticationFailed));
    let request = LauncherRequest::Examine(ExamineRequest {
        application: app("demo"),
        account: account("reported"),
        os_user: "reported".parse().unwrap(),
        pinned: Some(pinned),
    });
    let answers = Fake::daemon().ask(&request, &[]);
    let [LauncherReply::Findings(findings)] = &answers.replies[..] else { panic!("{answers:?}") };
    assert!(findings.iter().any(|finding| finding.code == "link-stale"), "{findings:?}");
}

#[test]
fn who_becomes_privileged_or_locked_out_is_refused_from_then_on() {
    need_the_sandbox();
    let pinned = linked("promoted");
    change_person("usermod", &["--append", "--groups", "sudo", "promoted"]);
    assert_eq!(code(&pinned, "promoted"), Some(Code::OsAccountPrivileged));
    change_person("gpasswd", &["--delete", "promoted", "sudo"]);
    assert_eq!(code(&pinned, "promoted"), None);
    change_person("chage", &["--expiredate", "1", "promoted"]);
    assert_eq!(code(&pinned, "promoted"), Some(Code::PamAccountRefused));
    change_person("chage", &["--expiredate", "-1", "promoted"]);
    assert_eq!(code(&pinned, "promoted"), None);
}
