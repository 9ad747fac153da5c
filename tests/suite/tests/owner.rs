//! The owner's own word, at the owners' socket: about nobody else's account, from nobody's job. Refusals first.
#![forbid(unsafe_code)]

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use deputy_core::Code;
use deputy_core::consent::GivenBy;
use deputy_core::ids::LinkCode;
use deputy_core::message::{
    ConsentPage, LauncherReply, LauncherRequest, LinkState, OwnerReply, OwnerRequest, VERSION, encode,
};
use deputy_suite::acting::{identity, ids};
use deputy_suite::line::Line;
use deputy_suite::machine::{add_person, change_person, consent_path, wait_for_no_children};
use deputy_suite::requests::{
    account, app, consents_of, grant, grant_in, link, owner_code, run_as, taken_back,
};
use deputy_suite::{Fake, need_the_sandbox};

/// Has the daemon ask for a link and returns the code, which it sees.
fn code_for(application: &str, account_name: &str, os_user: &str) -> LinkCode {
    let request = LauncherRequest::RequestLink(link(application, account_name, os_user));
    let answers = Fake::daemon().ask(&request, &[]);
    match &answers.replies[..] {
        [LauncherReply::Link { state: LinkState::Waiting { code, .. }, .. }] => code.clone(),
        _ => panic!("{answers:?}"),
    }
}

fn say(user: &str, request: &OwnerRequest) -> OwnerReply {
    Fake::as_user(user).ask_as_owner(request)
}

fn give(user: &str, code: &LinkCode) -> OwnerReply {
    say(user, &OwnerRequest::Give { code: code.clone() })
}

fn describe(user: &str, code: &LinkCode) -> OwnerReply {
    say(user, &OwnerRequest::Describe { code: code.clone() })
}

fn revoke(user: &str, application: &str, account_name: &str) -> OwnerReply {
    say(
        user,
        &OwnerRequest::Revoke {
            application: app(application),
            account: account(account_name),
            end_jobs: false,
        },
    )
}

/// Everything that the socket lists for this user.
fn list(user: &str) -> Vec<deputy_core::consent::Consent> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        match say(user, &OwnerRequest::List { after }) {
            OwnerReply::Consents(ConsentPage { consents, next }) => {
                all.extend(consents);
                match next {
                    Some(next) => after = Some(next),
                    None => return all,
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_code_is_for_one_owner_and_for_once() {
    need_the_sandbox();
    let code = code_for("demo", "coded", "alice");
    assert_eq!(code_for("demo", "coded", "alice"), code, "asking twice is asking once");
    let made_up = LinkCode::from_random([7; 6]);
    for stranger in ["bob", "carol", "portal", "deputy"] {
        for reply in [give(stranger, &code), describe(stranger, &code)] {
            assert_eq!(owner_code(&reply), Some(Code::LinkCodeUnknown), "{stranger}");
        }
        // Somebody else's code and none at all are the same to the last byte.
        assert_eq!(encode(&give(stranger, &code)), encode(&give(stranger, &made_up)));
        assert_eq!(encode(&describe(stranger, &code)), encode(&describe(stranger, &made_up)));
    }
    for reply in [give("root", &code), describe("root", &code)] {
        assert_eq!(owner_code(&reply), Some(Code::OsAccountReserved));
    }
    assert!(consents_of("coded").is_empty());

    let OwnerReply::Offer(offer) = describe("alice", &code) else { panic!("{:?}", describe("alice", &code)) };
    assert_eq!((offer.application, offer.account), (app("demo"), account("coded")));
    assert!(consents_of("coded").is_empty(), "to look is not to give");
    assert_eq!(give("alice", &code), OwnerReply::Done);
    let [consent] = &consents_of("coded")[..] else { panic!("{:?}", consents_of("coded")) };
    assert_eq!((consent.given_by, consent.by_uid), (GivenBy::Owner, ids("alice").uid));
    assert_eq!(consent.os_account, identity("alice"));

    assert_eq!(owner_code(&give("alice", &code)), Some(Code::LinkCodeUnknown));
    assert_eq!(revoke("alice", "demo", "coded"), OwnerReply::Withdrawn(taken_back(0)));
    assert_eq!(owner_code(&give("alice", &code)), Some(Code::LinkCodeUnknown), "used is used");
    assert!(consents_of("coded").is_empty());
    assert_ne!(code_for("demo", "coded", "alice"), code);
}

#[test]
fn a_code_expires() {
    need_the_sandbox();
    let code = code_for("demo", "late", "alice");
    let uid = ids("alice").uid;
    let record = consent_path(&app("demo"), &account("late"), uid);
    let offer = std::path::Path::new("/var/lib/deputy/requests").join(record.file_name().unwrap());
    let text = fs::read_to_string(&offer).unwrap();
    let line = text.lines().find(|line| line.starts_with("expires = ")).unwrap().to_owned();
    let until: u64 = line.rsplit(' ').next().unwrap().parse().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!(until > now && until <= now + 24 * 3600, "{line}");
    fs::write(&offer, text.replace(&line, "expires = 1")).unwrap();
    assert_eq!(owner_code(&describe("alice", &code)), Some(Code::LinkCodeUnknown));
    assert_eq!(owner_code(&give("alice", &code)), Some(Code::LinkCodeUnknown));
    assert!(consents_of("late").is_empty());
    let fresh = code_for("demo", "late", "alice");
    assert_ne!(fresh, code);
    assert_eq!(give("alice", &fresh), OwnerReply::Done);
}

#[test]
fn a_code_for_an_account_that_changed_is_no_consent() {
    need_the_sandbox();
    add_person("changed", "changed", &["lab1"]);
    let code = code_for("demo", "changed", "changed");
    change_person("usermod", &["--gid", "lab2", "changed"]);
    assert_eq!(owner_code(&give("changed", &code)), Some(Code::LinkStale));
    change_person("usermod", &["--gid", "changed", "changed"]);
    change_person("usermod", &["--append", "--groups", "sudo", "changed"]);
    assert_eq!(owner_code(&give("changed", &code)), Some(Code::OsAccountPrivileged));
    assert!(consents_of("changed").is_empty());
    change_person("gpasswd", &["--delete", "changed", "sudo"]);
    assert_eq!(give("changed", &code), OwnerReply::Done);
}

#[test]
fn nobody_asks_for_links_onto_whom_the_application_may_not_act_as() {
    need_the_sandbox();
    for (application, user, code) in [
        ("demo", "root", Code::OsAccountReserved),
        ("demo", "deputy", Code::OsAccountOutOfRange),
        ("demo", "portal", Code::OsAccountOutOfRange),
        ("demo", "dave", Code::OsAccountPrivileged),
        ("demo", "nosuchuser", Code::OsAccountUnknown),
        ("other", "bob", Code::OsAccountNotInGroup),
    ] {
        let request = LauncherRequest::RequestLink(link(application, "wished", user));
        assert_eq!(Fake::daemon().ask(&request, &[]).code(), Some(code), "{application} {user}");
    }
    code_for("demo", "wished", "bob");
}

#[test]
fn everybody_sees_his_own_consents_alone() {
    need_the_sandbox();
    add_person("seer", "seer", &["lab1"]);
    assert_eq!(list("seer"), []);
    for number in 0..45 {
        grant(&format!("seen-{number}"), "seer");
    }
    grant_in("other", "seen-elsewhere", "seer");
    grant("unseen", "alice");
    let listed = list("seer");
    assert_eq!(listed.len(), 46);
    assert!(listed.iter().all(|consent| consent.os_account == identity("seer")), "{listed:?}");
    assert!(list("alice").iter().all(|consent| consent.os_account == identity("alice")));
    // A page that begins after somebody else's record tells nothing about it.
    let beyond = OwnerRequest::List { after: Some("../../../../etc/passwd".into()) };
    assert!(
        matches!(say("bob", &beyond), OwnerReply::Consents(page) if page.consents.iter().all(|c| c.os_account == identity("bob")))
    );
    assert_eq!(owner_code(&say("root", &OwnerRequest::List { after: None })), Some(Code::OsAccountReserved));
}

#[test]
fn nobody_takes_back_what_is_not_his_and_none_can_tell_that_it_is_there() {
    need_the_sandbox();
    grant("hers", "alice");
    let not_his = revoke("bob", "demo", "hers");
    assert_eq!(owner_code(&not_his), Some(Code::NotFound));
    assert_eq!(encode(&not_his), encode(&revoke("bob", "demo", "nobody-has-this")));
    assert_eq!(encode(&not_his), encode(&revoke("bob", "no-such-application", "hers")));
    assert_eq!(encode(&not_his), encode(&revoke("portal", "demo", "hers")));
    assert_eq!(consents_of("hers").len(), 1);
    let run = || Fake::daemon().run(&run_as(identity("alice"), "hers", &["true"]));
    assert_eq!(run().status(), Some(0));
    assert_eq!(revoke("alice", "demo", "hers"), OwnerReply::Withdrawn(taken_back(0)));
    assert!(consents_of("hers").is_empty());
    assert_eq!(run().code(), Some(Code::NoConsent));
    assert_eq!(encode(&revoke("alice", "demo", "hers")), encode(&not_his));
}

#[test]
fn a_job_has_no_word_in_it() {
    need_the_sandbox();
    grant("inside", "carol");
    let code = code_for("demo", "wished-from-inside", "carol");
    let requests = [
        OwnerRequest::List { after: None },
        OwnerRequest::Describe { code: code.clone() },
        OwnerRequest::Give { code: code.clone() },
        OwnerRequest::Revoke { application: app("demo"), account: account("inside"), end_jobs: false },
    ];
    let orphan = "(sh -c 'deputy-fake-owner \"$0\"; touch ~/said' \"$0\" &); \
                  until test -e ~/said; do sleep .01; done; rm ~/said";
    for request in &requests {
        let text = serde_json::to_string(request).unwrap();
        for argv in [
            vec!["deputy-fake-owner", &text],
            // Not from a session of its own either, nor as an orphan.
            vec!["setsid", "--fork", "--wait", "deputy-fake-owner", &text],
            vec!["sh", "-c", orphan, &text],
        ] {
            let answers = Fake::daemon().run(&run_as(identity("carol"), "inside", &argv));
            let reply: OwnerReply = serde_json::from_str(answers.output.trim())
                .unwrap_or_else(|error| panic!("{error}: {answers:?}"));
            assert_eq!(owner_code(&reply), Some(Code::InsideJob), "{argv:?}");
        }
    }
    assert!(consents_of("wished-from-inside").is_empty());
    assert_eq!(consents_of("inside").len(), 1);
    // The same program in her own login.
    let text = serde_json::to_string(&OwnerRequest::Give { code }).unwrap();
    let login = deputy_suite::as_user("carol", &["deputy-fake-owner", &text]);
    assert_eq!(
        serde_json::from_str::<OwnerReply>(login.stdout.trim()).unwrap(),
        OwnerReply::Done,
        "{login:?}"
    );
}

#[test]
fn what_is_no_request_of_an_owner_is_refused() {
    need_the_sandbox();
    let send = |bytes: &[u8], descriptors: &[std::os::fd::BorrowedFd<'_>]| -> OwnerReply {
        let line = Line::to_owner_socket(ids("alice")).unwrap();
        line.send(bytes, descriptors);
        line.next().expect("an answer")
    };
    let whole =
        encode(&OwnerRequest::Revoke { application: app("demo"), account: account("x"), end_jobs: false })
            .unwrap();
    for length in 1..whole.len() {
        assert_eq!(owner_code(&send(&whole[..length], &[])), Some(Code::BadMessage), "{length} bytes");
    }
    let mut longer = whole.clone();
    longer.push(0);
    assert_eq!(owner_code(&send(&longer, &[])), Some(Code::BadMessage));
    let mut later = whole.clone();
    later[4..6].copy_from_slice(&(VERSION + 1).to_le_bytes());
    assert_eq!(owner_code(&send(&later, &[])), Some(Code::UnsupportedVersion));
    let mut huge = whole.clone();
    huge.resize(65_537, 0);
    assert_eq!(owner_code(&send(&huge, &[])), Some(Code::BadMessage));
    // The launcher's own requests are none here, whoever sends them.
    let grant = encode(&LauncherRequest::Grant(link("demo", "smuggled", "alice"))).unwrap();
    for user in ["alice", "root", "deputy"] {
        let line = Line::to_owner_socket(ids(user)).unwrap();
        line.send(&grant, &[]);
        assert_eq!(owner_code(&line.next().unwrap()), Some(Code::BadMessage), "{user}");
    }
    assert!(consents_of("smuggled").is_empty());
    let null = fs::File::open("/dev/null").unwrap();
    let descriptor = std::os::fd::AsFd::as_fd(&null);
    assert_eq!(owner_code(&send(&whole, &[descriptor])), Some(Code::BadMessage));
    assert_eq!(owner_code(&send(&whole, &[])), Some(Code::NotFound));
}

#[test]
fn one_person_who_asks_without_end_does_not_keep_others_out() {
    need_the_sandbox();
    add_person("pest", "pest", &["lab1"]);
    // Connections that say nothing hold a child each.
    let held: Vec<Line> = (0..4).map(|_| Line::to_owner_socket(ids("pest")).unwrap()).collect();
    let fifth = Line::to_owner_socket(ids("pest")).unwrap();
    let reply: OwnerReply = fifth.next().expect("an answer");
    assert_eq!(owner_code(&reply), Some(Code::Busy));
    assert!(matches!(say("bob", &OwnerRequest::List { after: None }), OwnerReply::Consents(_)));
    drop(held);
    wait_for_no_children();
    assert!(matches!(say("pest", &OwnerRequest::List { after: None }), OwnerReply::Consents(_)));
}
