//! Consent: what a taken-over `deputyd` cannot make, and what a record must be to count. Refusals first.
#![forbid(unsafe_code)]

use std::fs;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use deputy_core::Code;
use deputy_core::consent::{Consent, GivenBy};
use deputy_core::message::{
    ConsentRequest, ExamineRequest, LauncherReply, LauncherRequest, LinkState, OwnerReply, OwnerRequest,
    Purpose,
};
use deputy_suite::acting::{identity, ids, made_up_identity};
use deputy_suite::machine::{CONSENT, add_person, consent_path};
use deputy_suite::requests::{
    account, app, consents, consents_of, grant, grant_in, link, nothing_taken_back, owner_code, run_as,
    taken_back, withdrawal,
};
use deputy_suite::talk::{log_in, wanted};
use deputy_suite::{Descriptor, Fake, job_id, need_the_sandbox};

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The files that are there for one account and OS account: the record, and what lies beside it.
fn files(application: &str, account_name: &str, uid: u32) -> Vec<String> {
    let record = consent_path(&app(application), &account(account_name), uid);
    let stem = record.file_name().unwrap().to_str().unwrap().to_owned();
    let entries = fs::read_dir(CONSENT).unwrap().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.contains(&stem))
        .collect()
}

fn runs(application: &str, account_name: &str, os_user: &str) -> Result<(), Code> {
    let mut request = run_as(identity(os_user), account_name, &["id", "-u"]);
    request.application = app(application);
    let answers = Fake::daemon().run(&request);
    let code = answers.code();
    assert!(code.is_some() || answers.output.trim() == ids(os_user).uid.to_string(), "{answers:?}");
    code.map_or(Ok(()), Err)
}

#[test]
fn root_alone_grants() {
    need_the_sandbox();
    let request = LauncherRequest::Grant(link("demo", "granted", "alice"));
    assert_eq!(Fake::daemon().ask(&request, &[]).code(), Some(Code::PeerNotAllowed));
    assert!(files("demo", "granted", ids("alice").uid).is_empty());
    assert_eq!(runs("demo", "granted", "alice"), Err(Code::NoConsent));
    grant("granted", "alice");
    let [consent] = &consents_of("granted")[..] else { panic!("{:?}", consents_of("granted")) };
    assert_eq!((consent.given_by, consent.by_uid), (GivenBy::Root, 0));
    assert_eq!(runs("demo", "granted", "alice"), Ok(()));
}

#[test]
fn no_message_of_the_daemons_makes_a_consent() {
    need_the_sandbox();
    let name = "everything";
    let alice = ids("alice").uid;
    let job = job_id();
    let mut own_id = run_as(identity("alice"), name, &["id"]);
    own_id.job = job.clone();
    let examine = ExamineRequest {
        application: app("demo"),
        account: account(name),
        os_user: "alice".parse().unwrap(),
        pinned: Some(identity("alice")),
    };
    let requests = [
        LauncherRequest::RequestLink(link("demo", name, "alice")),
        LauncherRequest::Grant(link("demo", name, "alice")),
        LauncherRequest::Run(own_id),
        LauncherRequest::Attach { job: job.clone() },
        LauncherRequest::Abandon { job: job.clone() },
        LauncherRequest::Forget { jobs: vec![job] },
        withdrawal("demo", name, "alice", false),
        LauncherRequest::Consents { application: Some(app("demo")), after: None },
        LauncherRequest::Examine(examine),
    ];
    for first in &requests {
        for second in &requests {
            for request in [first, second] {
                let stdio = [Descriptor::Null; 3];
                let descriptors = if matches!(request, LauncherRequest::Run(_)) { &stdio[..] } else { &[] };
                Fake::daemon().ask(request, descriptors);
            }
            assert!(files("demo", name, alice).is_empty(), "{first:?}, then {second:?}");
        }
    }
    // A right password in a login proves who somebody is, and is no consent.
    let outcome = log_in(&wanted(Purpose::Login, "demo", name, "alice"), "wonder");
    assert_eq!(outcome.code(), Some(Code::AuthenticationFailed));
    assert!(files("demo", name, alice).is_empty());
    assert_eq!(runs("demo", name, "alice"), Err(Code::NoConsent));
    let outcome = log_in(&wanted(Purpose::Link, "demo", name, "alice"), "wonder");
    assert!(outcome.is_success(), "{outcome:?}");
    assert_eq!(consents_of(name)[0].given_by, GivenBy::Owner);
    assert_eq!(runs("demo", name, "alice"), Ok(()));
}

#[test]
fn a_rule_gives_what_it_says_and_to_nobody_else() {
    need_the_sandbox();
    add_person("ruled", "ruled", &["lab1"]);
    add_person("unruled", "unruled", &["lab1"]);
    add_person("outside", "outside", &["lab2"]);
    let (ruled, unruled) = (ids("ruled"), ids("unruled"));
    let ask = |application: &str, name: &str, os_user: &str| {
        Fake::daemon().ask(&LauncherRequest::RequestLink(link(application, name, os_user)), &[]).replies
    };
    // An application without a rule.
    assert!(matches!(
        ask("demo", "ruled", "ruled")[..],
        [LauncherReply::Link { state: LinkState::Waiting { .. }, .. }]
    ));
    assert_eq!(runs("demo", "ruled", "ruled"), Err(Code::NoConsent));
    // The rule names another.
    assert!(matches!(
        ask("other", "ruled", "unruled")[..],
        [LauncherReply::Link { state: LinkState::Waiting { .. }, .. }]
    ));
    assert_eq!(runs("other", "ruled", "unruled"), Err(Code::NoConsent));
    // Whom the application may not act as, no rule gives it.
    assert!(matches!(&ask("other", "outside", "outside")[..], [LauncherReply::Denied(denial)]
        if denial.code == Code::OsAccountNotInGroup));
    assert_eq!(runs("other", "outside", "outside"), Err(Code::OsAccountNotInGroup));
    // The name that the rule gives with another's ids is nobody's.
    for (uid, gid) in [(unruled.uid, ruled.gid), (unruled.uid, unruled.gid), (ruled.uid, unruled.gid)] {
        let mut forged = run_as(made_up_identity("ruled", uid, gid), "ruled", &["id"]);
        forged.application = app("other");
        assert_eq!(Fake::daemon().run(&forged).code(), Some(Code::LinkStale), "{uid} {gid}");
    }
    assert!(files("other", "outside", ids("outside").uid).is_empty());
    assert!(files("other", "ruled", unruled.uid).is_empty());
    assert!(files("other", "ruled", ruled.uid).is_empty());

    assert_eq!(runs("other", "ruled", "ruled"), Ok(()));
    let [consent] = &consents_of("ruled")[..] else { panic!("{:?}", consents_of("ruled")) };
    assert_eq!((consent.given_by, consent.by_uid), (GivenBy::Policy, ids("deputy").uid));
    assert!(matches!(
        ask("other", "unruled", "unruled")[..],
        [LauncherReply::Link { state: LinkState::Active { .. }, .. }]
    ));
    assert_eq!(consents_of("unruled")[0].given_by, GivenBy::Policy);
}

#[test]
fn what_the_owner_took_back_the_rule_does_not_give_again() {
    need_the_sandbox();
    add_person("taker", "taker", &["lab1"]);
    let revoke =
        OwnerRequest::Revoke { application: app("other"), account: account("taker"), end_jobs: false };
    assert_eq!(runs("other", "taker", "taker"), Ok(()));
    assert_eq!(Fake::as_user("taker").ask_as_owner(&revoke), OwnerReply::Withdrawn(taken_back(0)));
    for _ in 0..2 {
        assert_eq!(runs("other", "taker", "taker"), Err(Code::NoConsent));
        let asked = Fake::daemon().ask(&LauncherRequest::RequestLink(link("other", "taker", "taker")), &[]);
        assert!(
            matches!(asked.replies[..], [LauncherReply::Link { state: LinkState::Waiting { .. }, .. }]),
            "{asked:?}"
        );
        Fake::daemon().ask(&withdrawal("other", "taker", "taker", false), &[]);
    }
    // Who could give it before can give it again; then it is his word, not the rule's.
    let outcome = log_in(&wanted(Purpose::Link, "other", "taker", "taker"), "taker");
    assert!(outcome.is_success(), "{outcome:?}");
    assert_eq!(consents_of("taker")[0].given_by, GivenBy::Owner);
    assert_eq!(runs("other", "taker", "taker"), Ok(()));
}

#[test]
fn an_owner_can_refuse_a_rule_before_its_first_use() {
    need_the_sandbox();
    add_person("early", "early", &["lab1"]);
    let revoke =
        OwnerRequest::Revoke { application: app("other"), account: account("early"), end_jobs: false };
    assert_eq!(Fake::as_user("early").ask_as_owner(&revoke), OwnerReply::Withdrawn(nothing_taken_back()));
    assert_eq!(runs("other", "early", "early"), Err(Code::NoConsent));
    assert_eq!(owner_code(&Fake::as_user("early").ask_as_owner(&revoke)), Some(Code::NotFound));
}

#[test]
fn revoking_what_never_was_leaves_nothing_on_the_disk() {
    need_the_sandbox();
    for name in ["never-1", "never-2", "never-3"] {
        for application in ["demo", "other", "no-such-application"] {
            let revoke = OwnerRequest::Revoke {
                application: app(application),
                account: account(name),
                end_jobs: false,
            };
            assert_eq!(owner_code(&Fake::as_user("carol").ask_as_owner(&revoke)), Some(Code::NotFound));
            assert!(files(application, name, ids("carol").uid).is_empty(), "{application} {name}");
        }
    }
}

#[test]
fn the_daemon_can_only_take_away() {
    need_the_sandbox();
    for name in ["taken", "kept"] {
        grant(name, "alice");
    }
    grant_in("other", "taken", "alice");
    assert_eq!(
        Fake::daemon().ask(&withdrawal("demo", "taken", "alice", false), &[]).replies,
        [LauncherReply::Withdrawn(taken_back(0))]
    );
    assert_eq!(runs("demo", "taken", "alice"), Err(Code::NoConsent));
    // Nobody else's and nothing else.
    assert_eq!(runs("other", "taken", "alice"), Ok(()));
    assert_eq!(runs("demo", "kept", "alice"), Ok(()));
    assert!(files("demo", "taken", ids("alice").uid).is_empty());
    // What is not there is taken away as well as can be.
    assert_eq!(
        Fake::daemon().ask(&withdrawal("demo", "taken", "alice", false), &[]).replies,
        [LauncherReply::Withdrawn(nothing_taken_back())]
    );
    grant("taken", "alice");
    assert_eq!(runs("demo", "taken", "alice"), Ok(()));
}

#[test]
fn consents_are_listed_whole_page_by_page() {
    need_the_sandbox();
    let names: Vec<String> = (0..95).map(|number| format!("listed-{number}")).collect();
    for name in &names {
        grant(name, "bob");
    }
    let mut found: Vec<_> = consents()
        .into_iter()
        .map(|c| c.account.to_string())
        .filter(|name| name.starts_with("listed-"))
        .collect();
    found.sort();
    let mut expected = names;
    expected.sort();
    assert_eq!(found, expected);
    let request = LauncherRequest::Consents { application: Some(app("other")), after: None };
    let answers = Fake::daemon().ask(&request, &[]);
    let [LauncherReply::Consents(page)] = &answers.replies[..] else { panic!("{answers:?}") };
    assert!(page.consents.iter().all(|consent| consent.application == app("other")), "{page:?}");
}

/// A job that rests on a login of that time.
fn runs_by_a_login(account_name: &str, os_user: &str, login: u64) -> Result<(), Code> {
    let mut request = run_as(identity(os_user), account_name, &["id", "-u"]);
    request.login = Some(login);
    match Fake::daemon().run(&request).code() {
        Some(code) => Err(code),
        None => Ok(()),
    }
}

#[test]
fn a_login_from_before_a_consent_rests_on_another_and_a_renewal_is_no_other() {
    need_the_sandbox();
    grant("earlier", "alice");
    let made = consents_of("earlier")[0].made;
    assert_eq!(runs_by_a_login("earlier", "alice", made - 1), Err(Code::SessionRequired));
    assert_eq!(runs_by_a_login("earlier", "alice", 0), Err(Code::SessionRequired));
    assert_eq!(runs_by_a_login("earlier", "alice", made), Ok(()));
    // Consent says seconds.
    while now() == made {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    grant("earlier", "alice");
    assert_eq!(consents_of("earlier")[0].made, made);
    assert_eq!(runs_by_a_login("earlier", "alice", made), Ok(()));
    // Taken back and given again it is another.
    let taken = Fake::daemon().ask(&withdrawal("demo", "earlier", "alice", false), &[]);
    assert_eq!(taken.replies, [LauncherReply::Withdrawn(taken_back(0))]);
    grant("earlier", "alice");
    assert_eq!(runs_by_a_login("earlier", "alice", made), Err(Code::SessionRequired));
    assert_eq!(runs_by_a_login("earlier", "alice", now()), Ok(()));
}

#[test]
fn an_expired_consent_is_none() {
    need_the_sandbox();
    let grant_until = |name: &str, expires: u64| {
        let request = ConsentRequest { expires: Some(expires), ..link("demo", name, "alice") };
        let answers = Fake::as_user("root").ask(&LauncherRequest::Grant(request), &[]);
        assert!(matches!(answers.replies[..], [LauncherReply::Link { .. }]), "{answers:?}");
    };
    grant_until("expiring", 1);
    assert_eq!(runs("demo", "expiring", "alice"), Err(Code::ConsentExpired));
    grant_until("expiring", now() - 1);
    assert_eq!(runs("demo", "expiring", "alice"), Err(Code::ConsentExpired));
    grant_until("expiring", now() + 3600);
    assert_eq!(runs("demo", "expiring", "alice"), Ok(()));
    // Not even a rule prolongs one.
    add_person("expired", "expired", &["lab1"]);
    let request = ConsentRequest { expires: Some(1), ..link("other", "expired", "expired") };
    Fake::as_user("root").ask(&LauncherRequest::Grant(request), &[]);
    assert_eq!(runs("other", "expired", "expired"), Err(Code::ConsentExpired));
}

/// The path and text of the record of a consent that root has just given.
fn record(application: &str, name: &str, os_user: &str) -> (PathBuf, String) {
    grant_in(application, name, os_user);
    let path = consent_path(&app(application), &account(name), ids(os_user).uid);
    let text = fs::read_to_string(&path).unwrap();
    (path, text)
}

#[test]
fn a_record_that_is_not_exactly_one_of_this_key_does_not_count() {
    need_the_sandbox();
    let (path, text) = record("demo", "tampered", "alice");
    let alice = ids("alice");
    let changes: Vec<(&str, String, Code)> = vec![
        ("empty", String::new(), Code::NoConsent),
        ("no toml", "[[[".into(), Code::NoConsent),
        ("cut", text[..text.len() / 2].into(), Code::NoConsent),
        ("version", text.replace("version = 1", "version = 2"), Code::NoConsent),
        ("more", format!("root = true\n{text}"), Code::NoConsent),
        ("account", text.replace("\"tampered\"", "\"somebody\""), Code::NoConsent),
        ("application", text.replace("\"demo\"", "\"other\""), Code::NoConsent),
        ("uid", text.replace(&format!("uid = {}", alice.uid), "uid = 4711"), Code::NoConsent),
        ("root", text.replace(&format!("uid = {}", alice.uid), "uid = 0"), Code::NoConsent),
        ("name", text.replace("\"alice\"", "\"carol\""), Code::LinkStale),
        ("gid", text.replace(&format!("\ngid = {}", alice.gid), "\ngid = 4711"), Code::LinkStale),
        (
            "service",
            text.replace(&format!("service_uid = {}", ids("portal").uid), "service_uid = 4711"),
            Code::NoConsent,
        ),
        ("large", format!("{text}# {}\n", "x".repeat(20_000)), Code::NoConsent),
    ];
    for (what, changed, code) in changes {
        assert_ne!(changed, text, "{what}: nothing was changed");
        fs::write(&path, &changed).unwrap();
        assert_eq!(runs("demo", "tampered", "alice"), Err(code), "{what}");
        assert_eq!(fs::read_to_string(&path).unwrap(), changed, "{what}: the record was repaired");
    }
    fs::write(&path, b"\xff\xfe").unwrap();
    assert_eq!(runs("demo", "tampered", "alice"), Err(Code::NoConsent));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(runs("demo", "tampered", "alice"), Err(Code::NoConsent));
    fs::remove_dir(&path).unwrap();
    fs::write(&path, &text).unwrap();
    assert_eq!(runs("demo", "tampered", "alice"), Ok(()));
}

#[test]
fn a_record_in_anothers_place_does_not_count() {
    need_the_sandbox();
    let (from, text) = record("demo", "placed", "alice");
    for (application, name, os_user) in
        [("demo", "displaced", "alice"), ("other", "placed", "alice"), ("demo", "placed", "bob")]
    {
        let to = consent_path(&app(application), &account(name), ids(os_user).uid);
        fs::write(&to, &text).unwrap();
        assert_eq!(runs(application, name, os_user), Err(Code::NoConsent), "{application} {name} {os_user}");
        assert!(!consents().iter().any(|consent| consent.account == account("displaced")));
        fs::remove_file(&to).unwrap();
    }
    assert_eq!(
        Consent::parse(from.file_name().unwrap().to_str().unwrap(), &text).unwrap().account,
        account("placed")
    );
    assert_eq!(runs("demo", "placed", "alice"), Ok(()));
}

#[test]
fn a_rule_does_not_repair_a_broken_record() {
    need_the_sandbox();
    add_person("unrepaired", "unrepaired", &["lab1"]);
    let (path, _) = record("other", "unrepaired", "unrepaired");
    fs::write(&path, "broken").unwrap();
    assert_eq!(runs("other", "unrepaired", "unrepaired"), Err(Code::NoConsent));
    assert_eq!(fs::read_to_string(&path).unwrap(), "broken");
    fs::remove_file(&path).unwrap();
    assert_eq!(runs("other", "unrepaired", "unrepaired"), Ok(()));
}
