//! Conversations with real PAM: every refusal looks the same, nothing but an honest client gets to the questions, and
//! nothing but the right answers to a consent. Refusals first.
#![forbid(unsafe_code)]

use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use deputy_core::Code;
use deputy_core::consent::GivenBy;
use deputy_core::ids::Nonce;
use deputy_core::message::conversation::{ClientFrame, ServerFrame};
use deputy_core::message::{Authenticated, ConverseRequest, LauncherReply, LauncherRequest, Purpose, encode};
use deputy_suite::acting::{acting_as, identity, ids};
use deputy_suite::line::Line;
use deputy_suite::machine::{add_person, change_person, install_application, run_with, wait_for_no_children};
use deputy_suite::requests::{consents_of, grant};
use deputy_suite::talk::{Outcome, Talk, converse, log_in, wanted};
use deputy_suite::{Descriptor, Fake, need_the_sandbox};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use zeroize::Zeroizing;

fn link(account_name: &str, os_user: &str) -> ConverseRequest {
    wanted(Purpose::Link, "demo", account_name, os_user)
}

fn login(account_name: &str, os_user: &str) -> ConverseRequest {
    wanted(Purpose::Login, "demo", account_name, os_user)
}

/// Several conversations at once: each refusal takes seconds.
fn all_at_once(conversations: &[(&'static str, ConverseRequest, &str)]) -> Vec<(&'static str, Outcome)> {
    std::thread::scope(|scope| {
        let running: Vec<_> = conversations
            .iter()
            .map(|(what, request, password)| (*what, scope.spawn(move || log_in(request, password))))
            .collect();
        running.into_iter().map(|(what, outcome)| (what, outcome.join().expect(what))).collect()
    })
}

#[test]
fn every_refusal_is_the_same_to_the_last_byte() {
    need_the_sandbox();
    for user in ["lockedman", "expiredman", "linkedman", "nologinman"] {
        add_person(user, "right", &["lab1"]);
        grant(user, user);
    }
    change_person("usermod", &["--lock", "lockedman"]);
    change_person("chage", &["--expiredate", "1", "expiredman"]);
    change_person("passwd", &["--delete", "nologinman"]);
    let outcomes = all_at_once(&[
        ("a wrong password", login("linkedman", "linkedman"), "wrong"),
        ("no password", login("linkedman", "linkedman"), ""),
        ("not linked, right password", login("somebody", "linkedman"), "right"),
        ("not linked, wrong password", login("somebody", "linkedman"), "wrong"),
        ("nobody", login("linkedman", "nosuchuser"), "right"),
        ("nobody, to link", link("linkedman", "nosuchuser"), "right"),
        ("privileged, right password", link("dave", "dave"), "dave"),
        ("root", link("root", "root"), "right"),
        ("a service user", link("portal", "portal"), "right"),
        ("locked, right password", login("lockedman", "lockedman"), "right"),
        ("expired, right password", login("expiredman", "expiredman"), "right"),
        ("without a password", login("nologinman", "nologinman"), ""),
        ("not in the application's groups", wanted(Purpose::Link, "other", "bob", "bob"), "builder"),
        ("linked in another application", wanted(Purpose::Login, "other", "linkedman", "linkedman"), "right"),
    ]);
    let (_, model) = &outcomes[0];
    assert_eq!(model.code(), Some(Code::AuthenticationFailed));
    assert_eq!(model.questions(), 1);
    for (what, outcome) in &outcomes {
        assert_eq!(outcome.packets, model.packets, "{what}");
        assert_eq!(encode(&outcome.reply), encode(&model.reply), "{what}");
    }
    assert!(
        consents_of("dave").is_empty()
            && consents_of("root").is_empty()
            && consents_of("somebody").is_empty()
    );
    assert!(log_in(&login("linkedman", "linkedman"), "right").is_success());
}

#[test]
fn the_owners_own_socket_tells_no_more() {
    need_the_sandbox();
    add_person("self", "right", &["lab1"]);
    add_person("selfadmin", "right", &["sudo"]);
    let begin = |maker: &str, request: &ConverseRequest| {
        let mut talk = Talk::begin_with_pair_of(maker, request);
        talk.greet();
        talk.answer_all(&[("", "right")])
    };
    let unlinked = begin("self", &login("self", "self"));
    let denied = begin("selfadmin", &link("selfadmin", "selfadmin"));
    assert_eq!(unlinked.code(), Some(Code::AuthenticationFailed));
    assert_eq!(unlinked.packets, denied.packets);
    assert_eq!(encode(&unlinked.reply), encode(&denied.reply));
    assert!(begin("self", &link("self", "self")).is_success());
    assert!(begin("self", &login("self", "self")).is_success());
}

#[test]
fn the_right_password_links_and_then_logs_in() {
    need_the_sandbox();
    add_person("honest", "open sesame", &["lab1"]);
    let refused = log_in(&login("honest", "honest"), "open sesame");
    assert_eq!(refused.code(), Some(Code::AuthenticationFailed), "not linked yet");
    assert!(consents_of("honest").is_empty());

    let outcome = log_in(&link("honest", "honest"), "open sesame");
    let expected = Authenticated { purpose: Purpose::Link, os_account: identity("honest"), expires: None };
    assert_eq!(outcome.reply, Some(LauncherReply::Authenticated(expected)));
    assert!(outcome.is_success());
    let before = consents_of("honest");
    assert_eq!((before[0].given_by, before[0].by_uid), (GivenBy::Owner, ids("honest").uid));

    let outcome = log_in(&login("honest", "honest"), "open sesame");
    let expected = Authenticated { purpose: Purpose::Login, os_account: identity("honest"), expires: None };
    assert_eq!(outcome.reply, Some(LauncherReply::Authenticated(expected)));
    assert_eq!(consents_of("honest"), before, "a login changes no consent");
}

#[test]
fn a_client_that_does_not_keep_to_the_order_is_not_asked_and_gives_nothing() {
    need_the_sandbox();
    let request = link("disorderly", "alice");
    let answer = |text: &[u8]| ClientFrame::Answer(Zeroizing::new(text.to_vec())).encode().to_vec();
    let nonce = |nonce: Nonce| ClientFrame::Nonce(nonce).encode().to_vec();
    let first = Talk::begin(&request).hello().nonce;
    let instead_of_the_nonce = [
        ("another nonce", nonce(Nonce::from_random([1; 20]))),
        ("the nonce of another conversation", nonce(first)),
        ("an answer", answer(b"wonder")),
        ("no letter that there is", b"X".to_vec()),
        ("a frame of the server's", b"S".to_vec()),
        ("no nonce", b"N".to_vec()),
        ("an oversized frame", vec![b'N'; 70_000]),
    ];
    for (what, packet) in instead_of_the_nonce {
        let mut talk = Talk::begin(&request);
        talk.hello();
        talk.send(&packet);
        talk.answer("wonder");
        let outcome = talk.end();
        assert!(
            matches!(outcome.code(), Some(Code::ConversationAborted | Code::BadMessage)),
            "{what}: {outcome:?}"
        );
        assert_eq!(outcome.questions(), 0, "{what}: PAM was asked");
        assert!(consents_of("disorderly").is_empty(), "{what}");
    }
    let instead_of_the_answer = [
        ("an answer that is too long", answer(&[b'x'; 512])),
        ("an answer with a NUL", answer(b"wonder\0x")),
        ("an answer that ends in a NUL", answer(b"wonder\0")),
        ("no letter that there is", b"Xwonder".to_vec()),
    ];
    // The nonce a second time, in the place of the answer, comes after these.
    let outcomes: Vec<(&str, Outcome)> = std::thread::scope(|scope| {
        let running: Vec<_> = instead_of_the_answer
            .iter()
            .map(Some)
            .chain([None])
            .map(|instead| {
                let request = &request;
                let nonce = &nonce;
                scope.spawn(move || {
                    let mut talk = Talk::begin(request);
                    let own = talk.hello().nonce;
                    talk.send(&nonce(own.clone()));
                    assert!(matches!(talk.frame(), Some(ServerFrame::Secret(_))));
                    let (what, packet) =
                        instead.map_or(("the nonce again", nonce(own)), |(w, p)| (*w, p.clone()));
                    talk.send(&packet);
                    talk.answer("wonder");
                    (what, talk.end())
                })
            })
            .collect();
        running.into_iter().map(|talk| talk.join().unwrap()).collect()
    });
    for (what, outcome) in outcomes {
        assert_eq!(outcome.code(), Some(Code::ConversationAborted), "{what}");
        assert!(consents_of("disorderly").is_empty(), "{what}");
    }
    assert!(log_in(&request, "wonder").is_success());
}

#[test]
fn a_client_that_goes_midway_has_said_nothing() {
    need_the_sandbox();
    let request = link("gone", "alice");
    let mut talks = vec![("at once", Talk::begin(&request))];
    let mut talk = Talk::begin(&request);
    talk.hello();
    talks.push(("after the hello", talk));
    let mut talk = Talk::begin(&request);
    talk.greet();
    talks.push(("after the nonce", talk));
    let mut talk = Talk::begin(&request);
    talk.greet();
    talk.frame();
    talks.push(("after the question", talk));
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> =
            talks.into_iter().map(|(when, talk)| (when, scope.spawn(move || talk.vanish()))).collect();
        running.into_iter().map(|(when, outcome)| (when, outcome.join().unwrap())).collect()
    });
    for (when, outcome) in outcomes {
        assert_eq!(outcome.code(), Some(Code::ConversationAborted), "{when}");
    }
    assert!(consents_of("gone").is_empty());
    assert!(log_in(&request, "wonder").is_success());
    wait_for_no_children();
}

/// What comes of a conversation over this descriptor.
fn over(descriptors: &[BorrowedFd<'_>], request: &ConverseRequest) -> Option<Code> {
    let line = Line::to_launcher(ids("deputy")).unwrap();
    line.send(&encode(&LauncherRequest::Converse(request.clone())).unwrap(), descriptors);
    match line.reply() {
        LauncherReply::Denied(denial) => Some(denial.code),
        _ => None,
    }
}

#[test]
fn only_an_unnamed_pair_of_those_concerned_is_spoken_to() {
    need_the_sandbox();
    let request = link("sockets", "alice");
    let refused = Some(Code::BadMessage);
    // Of the wrong sort.
    for sort in [SocketType::STREAM, SocketType::DGRAM] {
        let make = || socketpair(AddressFamily::UNIX, sort, SocketFlags::CLOEXEC, None).unwrap();
        let (_ours, theirs) = acting_as(ids("portal"), make);
        assert_eq!(over(&[theirs.as_fd()], &request), refused, "{sort:?}");
    }
    for descriptor in
        [Descriptor::Null, Descriptor::Folder, Descriptor::Path, Descriptor::Output, Descriptor::Pidfd]
    {
        let wish = LauncherRequest::Converse(request.clone());
        assert_eq!(Fake::daemon().ask(&wish, &[descriptor]).code(), refused, "{descriptor:?}");
    }
    // Made by somebody whom it does not concern, and handed through.
    for stranger in ["bob", "deputy", "otherportal", "nobody"] {
        let (_ours, theirs) = acting_as(ids(stranger), deputy_wire::pair).unwrap();
        assert_eq!(over(&[theirs.as_fd()], &request), refused, "{stranger}");
    }
    // One of two, or none.
    let (_ours, theirs) = acting_as(ids("portal"), deputy_wire::pair).unwrap();
    assert_eq!(over(&[], &request), refused);
    assert_eq!(over(&[theirs.as_fd(), theirs.as_fd()], &request), refused);
    assert!(consents_of("sockets").is_empty());
    for maker in ["portal", "alice", "root"] {
        let mut talk = Talk::begin_with_pair_of(maker, &request);
        talk.greet();
        assert!(talk.answer_all(&[("", "wonder")]).is_success(), "{maker}");
    }
}

#[test]
fn a_connection_to_somebodys_service_is_no_conversation() {
    use rustix::net::{SocketAddrUnix, accept, bind, connect, listen, socket_with};
    need_the_sandbox();
    let request = link("services", "alice");
    let path = "/tmp/service.sock";
    let seqpacket =
        || socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let named = SocketAddrUnix::new(path).unwrap();
    let listening = || -> OwnedFd {
        let socket = seqpacket();
        bind(&socket, &named).unwrap();
        listen(&socket, 4).unwrap();
        socket
    };
    let listener = acting_as(ids("portal"), listening);
    let connected: OwnedFd = acting_as(ids("portal"), || {
        let socket = seqpacket();
        connect(&socket, &named).unwrap();
        socket
    });
    let accepted = accept(&listener).unwrap();
    let unconnected = seqpacket();
    for (what, socket) in [
        ("connected", &connected),
        ("accepted", &accepted),
        ("listening", &listener),
        ("unconnected", &unconnected),
    ] {
        assert_eq!(over(&[socket.as_fd()], &request), Some(Code::BadMessage), "{what}");
    }
    fs::remove_file(path).unwrap();
    assert!(consents_of("services").is_empty());
}

#[test]
fn too_many_tries_concern_one_target_of_one_application() {
    need_the_sandbox();
    add_person("tried", "right", &["lab1"]);
    add_person("untried", "right", &["lab1"]);
    for user in ["tried", "untried"] {
        assert!(log_in(&link(user, user), "right").is_success());
    }
    let wrong: Vec<_> = (0..9).map(|_| ("wrong", login("tried", "tried"), "wrong")).collect();
    for (_, outcome) in all_at_once(&wrong) {
        assert_eq!(outcome.code(), Some(Code::AuthenticationFailed));
    }
    // The tenth may still be right, and then the nine before are forgiven.
    assert!(log_in(&login("tried", "tried"), "right").is_success());
    let wrong: Vec<_> = (0..10).map(|_| ("wrong", login("tried", "tried"), "wrong")).collect();
    for (_, outcome) in all_at_once(&wrong) {
        assert_eq!(outcome.code(), Some(Code::AuthenticationFailed));
    }
    for (request, password) in [
        (login("tried", "tried"), "right"),
        (login("tried", "tried"), "wrong"),
        (link("tried", "tried"), "right"),
        (login("another-account", "tried"), "right"),
    ] {
        let mut talk = Talk::begin(&request);
        talk.greet();
        let outcome = talk.answer_all(&[("", password)]);
        assert_eq!(outcome.code(), Some(Code::TooManyTries), "{request:?}");
        assert_eq!(outcome.questions(), 0, "PAM was asked");
    }
    assert!(log_in(&login("untried", "untried"), "right").is_success());
    assert!(log_in(&wanted(Purpose::Link, "other", "tried", "tried"), "right").is_success());
    // The count is Deputy's own: it locks nobody out of anything else.
    let check = "import sys, crypt, spwd; h = spwd.getspnam('tried').sp_pwdp; sys.exit(h.startswith('!'))";
    run_with("python3", &["-W", "ignore", "-c", check], "");
}

#[test]
fn names_that_do_not_exist_are_counted_as_well() {
    need_the_sandbox();
    let wrong: Vec<_> = (0..10).map(|_| ("wrong", login("x", "nobodyknows"), "wrong")).collect();
    for (_, outcome) in all_at_once(&wrong) {
        assert_eq!(outcome.code(), Some(Code::AuthenticationFailed));
    }
    assert_eq!(log_in(&login("x", "nobodyknows"), "wrong").code(), Some(Code::TooManyTries));
}

#[test]
fn an_expired_password_is_changed_in_the_same_conversation_or_nothing_is() {
    need_the_sandbox();
    add_person("forgetful", "Old-secret-12", &["lab1"]);
    let request = link("forgetful", "forgetful");
    change_person("chage", &["--lastday", "0", "forgetful"]);
    let renew = |current: &str, new: &str, again: &str| {
        converse(&request, &[("Current", current), ("New", new), ("Retype", again), ("", "Old-secret-12")])
    };
    // Not without the old one, not with two different new ones.
    assert_eq!(renew("wrong", "New-secret-34", "New-secret-34").code(), Some(Code::AuthenticationFailed));
    assert!(consents_of("forgetful").is_empty());
    let wrong_first =
        converse(&request, &[("Current", "wrong"), ("New", "x"), ("Retype", "x"), ("", "wrong")]);
    assert_eq!(wrong_first.code(), Some(Code::AuthenticationFailed));
    assert_eq!(wrong_first.questions(), 1, "a new password is asked for only after the old one");

    let outcome = renew("Old-secret-12", "New-secret-34", "New-secret-34");
    assert!(outcome.is_success(), "{outcome:?}");
    assert!(outcome.questions() >= 3, "{outcome:?}");
    assert_eq!(log_in(&request, "Old-secret-12").code(), Some(Code::AuthenticationFailed));
    assert!(log_in(&request, "New-secret-34").is_success());
}

/// An application whose logins ask for a one-time code before the password.
fn install_two_factors() {
    let stack = fs::read_to_string("/etc/pam.d/deputy-login").unwrap();
    let line = stack.lines().find(|line| line.starts_with("auth") && line.contains("pam_unix")).unwrap();
    let oath = "auth required pam_oath.so usersfile=/etc/users.oath window=2 digits=6";
    fs::write("/etc/pam.d/two-factors", stack.replace(line, &format!("{oath}\n{line}"))).unwrap();
    install_application(
        "factors",
        "service_user = \"portal\"\nauthentication = [\"os\"]\n[pam]\nlogin = \"two-factors\"\n\
         [kinds.batch]\ncommands = [\"*\"]\n",
    );
}

#[test]
fn a_one_time_code_and_a_password_are_both_needed() {
    const KEY: &str = "3132333435363738393031323334353637383930";
    need_the_sandbox();
    add_person("twofold", "right", &["lab1"]);
    install_two_factors();
    fs::write("/etc/users.oath", format!("HOTP twofold - {KEY}\n")).unwrap();
    std::os::unix::fs::chown("/etc/users.oath", Some(0), Some(0)).unwrap();
    let code = |counter: u32| {
        let output =
            std::process::Command::new("oathtool").args(["--counter", &counter.to_string(), KEY]).output();
        let output = output.expect("oathtool: tests/packages.sh installs it");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let request = wanted(Purpose::Link, "factors", "twofold", "twofold");
    let answers =
        |code: &str, password: &str| converse(&request, &[("One-time", code), ("Password", password)]);
    let wrong_code = answers("000000", "right");
    assert_eq!((wrong_code.code(), wrong_code.questions()), (Some(Code::AuthenticationFailed), 2));
    let wrong_password = answers(&code(0), "wrong");
    assert_eq!(wrong_password.code(), Some(Code::AuthenticationFailed));
    assert_eq!(wrong_password.packets, wrong_code.packets, "which of the two was wrong is not told");
    let used = answers(&code(0), "right");
    assert_eq!(used.code(), Some(Code::AuthenticationFailed), "a code is good for once");
    assert!(consents_of("twofold").is_empty());
    let outcome = answers(&code(1), "right");
    assert!(outcome.is_success(), "{outcome:?}");
    assert_eq!(outcome.questions(), 2);
    assert_eq!(consents_of("twofold").len(), 1);
}
