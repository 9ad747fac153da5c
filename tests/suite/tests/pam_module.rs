//! `pam_deputy.so` in real programs: pamtester, libpam-wrapper, su; with the real `deputyd`, none, and false ones.
#![forbid(unsafe_code)]

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread::JoinHandle;

use deputy_core::account::Status;
use deputy_core::message::query::{
    QUERY_SOCKET, QueryReply, Question, SOON, Standing, decode_query, encode_query, encode_reply,
};
use deputy_suite::acting::{acting_as, identity, ids};
use deputy_suite::machine::{
    self, Away, add_person, add_service_user, consent_path, deputyd_stays_away, install_application,
    service_pid, wait_until,
};
use deputy_suite::memory::memory_contains;
use deputy_suite::pam::{BETTER, FAILED, GOOD, MODULE, WRONG, install_module, service};
use deputy_suite::people::{answering, command_as, ok};
use deputy_suite::{Output, deputyctl, need_the_sandbox, pam};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept, bind, connect,
    listen, recv, send, socket_with,
};

const UNAVAILABLE: &str = "pamtester: Authentication service cannot retrieve authentication info";
const SERVICE: &str = "pamtester: Error in service module";
const DENIED: &str = "pamtester: Permission denied";
const RENEW: &str = "pamtester: Authentication token is no longer valid; new one required";

/// Some tests replace the daemon, which the others would feel.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    install();
    turn
}

/// The module, an application with its services, and people. `shell` and `mapped` are for OS accounts, `web` is not,
/// `other` is not listed.
fn install() {
    static DONE: Once = Once::new();
    need_the_sandbox();
    DONE.call_once(|| {
        install_module();
        add_service_user("keeper");
        install_application(
            "keeper",
            "service_user = \"keeper\"\nauthentication = [\"password\"]\n[link]\nshared = true\n\
             [kinds.batch]\ncommands = [\"*\"]\n\
             [pam]\nlogins = [\"shell\", \"mapped\", \"su\", \"roles\", \"wrong\"]\naccounts_only = [\"web\", \"first\", \"only\"]\n",
        );
        wait_until("the application is known", || {
            deputyctl("keeper", &["account", "list", "keeper"]).status == 0
        });
        service("shell", "application=keeper debug");
        service("mapped", "application=keeper map_user");
        service("web", "application=keeper");
        service("other", "application=keeper map_user");
        service("wrong", "application=keeper nullok");
        service("roles", "application=keeper map_user require_role=administrator,superuser");
        for (name, option) in [("first", "try_first_pass"), ("only", "use_first_pass")] {
            let asks = "auth [default=ignore] pam_unix.so nodelay\n";
            let own = format!("{MODULE} application=keeper {option}");
            let lines = format!("{asks}auth required {own}\naccount required {own}\n");
            fs::write(format!("/etc/pam.d/{name}"), lines).expect("a service");
        }
        fs::write(
            "/etc/pam.d/su",
            format!("auth required {MODULE} application=keeper map_user\naccount required {MODULE} application=keeper map_user\n\
                     session required {MODULE} application=keeper map_user\n"),
        )
        .expect("a service");
        person("alice", "alice", GOOD);
        person("ada@lab.example", "alice", GOOD);
    });
}

fn account(name: &str, password: &str) {
    pam::account("keeper", name, password);
}

/// An account with a password, linked to an OS account with root's consent.
fn person(name: &str, os_user: &str, password: &str) {
    pam::person("keeper", name, os_user, password);
}

/// pamtester as this user.
fn tester(user: &str, service: &str, name: &str, calls: &[&str], answers: &[&str]) -> Output {
    answering(command_as(user, &[&["pamtester", service, name], calls].concat()), answers)
}

/// What a login as root's program says: nothing where it is good, else the error.
fn log_in(service: &str, name: &str, password: &str) -> String {
    said(&tester("root", service, name, &["authenticate", "acct_mgmt"], &[password]))
}

fn said(output: &Output) -> String {
    // Questions are on the same stream, without an end of line.
    let error = output.stderr.rfind("pamtester: ").map(|at| output.stderr[at..].trim().to_owned());
    assert_eq!(output.status == 0, error.is_none(), "{output:?}");
    error.unwrap_or_default()
}

#[test]
fn a_right_password_opens_a_login_and_a_session() {
    let _alone = alone();
    let calls = ["authenticate", "acct_mgmt", "setcred", "open_session", "close_session"];
    for (service, name) in
        [("shell", "alice"), ("mapped", "ada@lab.example"), ("mapped", "alice"), ("web", "alice")]
    {
        assert_eq!(said(&tester("root", service, name, &calls, &[GOOD])), "", "{service} {name}");
    }
    // Without map_user the account has to be called as the OS account is.
    assert_eq!(log_in("shell", "ada@lab.example", GOOD), FAILED);
    // Without a password of ours (a key of sshd's) the other three work as well.
    assert_eq!(said(&tester("root", "shell", "alice", &calls[1..], &[])), "");
}

#[test]
fn whoever_is_not_let_in_is_told_the_same() {
    let _alone = alone();
    account("unlinked", GOOD);
    account("out-of-use", GOOD);
    ok(&deputyctl("root", &["account", "deactivate", "keeper", "out-of-use"]));
    person("withdrawn", "bob", GOOD);
    fs::remove_file(consent_path(&"keeper".parse().unwrap(), &"withdrawn".parse().unwrap(), ids("bob").uid))
        .unwrap();
    let long = "x".repeat(10 * 1024);
    let tried = [
        ("alice", WRONG),
        ("nobody-here", GOOD),
        ("unlinked", GOOD),
        ("out-of-use", GOOD),
        ("withdrawn", GOOD),
        ("a/b", GOOD),
        ("root", "root"),
        ("portal", GOOD),
        ("alice", ""),
        ("alice", "wonder"),
        ("alice", &long),
    ];
    let outputs = std::thread::scope(|scope| {
        let running: Vec<_> = tried
            .iter()
            .map(|(name, password)| {
                scope.spawn(|| tester("root", "mapped", name, &["authenticate"], &[password]))
            })
            .collect();
        running.into_iter().map(|one| one.join().expect("it ran")).collect::<Vec<_>>()
    });
    for (output, (name, _)) in outputs.iter().zip(tried) {
        assert_eq!(output, &outputs[0], "{name}");
    }
    assert_eq!(said(&outputs[0]), FAILED);
    // Where something else authenticates, the account phase says no.
    for name in ["nobody-here", "unlinked", "out-of-use", "withdrawn", "a/b", "root"] {
        assert_eq!(said(&tester("root", "mapped", name, &["acct_mgmt"], &[])), DENIED, "{name}");
    }
    assert_eq!(log_in("mapped", "alice", GOOD), "");
}

#[test]
fn a_person_who_waits_for_approval_is_nobody_yet() {
    let _alone = alone();
    ok(&deputyctl("keeper", &["account", "register", "keeper", "early"]));
    assert_eq!(log_in("web", "early", GOOD), FAILED);
    assert_eq!(said(&tester("root", "web", "early", &["acct_mgmt"], &[])), DENIED);
}

#[test]
fn accounts_called_like_the_systems_open_nothing_even_with_their_password() {
    let _alone = alone();
    for name in ["root", "portal", "deputy", "daemon"] {
        account(name, GOOD);
        std::thread::scope(|scope| {
            for service in ["shell", "mapped", "web", "roles"] {
                scope.spawn(move || assert_eq!(log_in(service, name, GOOD), FAILED, "{service} {name}"));
            }
        });
    }
    // One that is linked to a person and called like an OS account is not let in as either.
    person("carol", "alice", GOOD);
    for service in ["shell", "mapped"] {
        assert_eq!(log_in(service, "carol", GOOD), FAILED, "{service}");
    }
}

#[test]
fn an_unlisted_service_an_unknown_option_and_another_application_fail_closed() {
    let _alone = alone();
    for calls in [["authenticate"], ["acct_mgmt"], ["open_session"], ["close_session"], ["chauthtok"]] {
        for service in ["other", "wrong"] {
            assert_eq!(
                said(&tester("root", service, "alice", &calls, &[GOOD])),
                SERVICE,
                "{service} {calls:?}"
            );
        }
    }
    service("other", "application=demo");
    assert_eq!(log_in("other", "alice", GOOD), SERVICE);
    service("other", "application=keeper map_user");
    // An application's file that is not root's alone is none.
    let file = "/etc/deputy/applications.d/keeper.toml";
    fs::set_permissions(file, fs::Permissions::from_mode(0o666)).unwrap();
    let answer = log_in("shell", "alice", GOOD);
    fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(answer, SERVICE);
}

#[test]
fn a_role_can_be_asked_for() {
    let _alone = alone();
    person("head@lab.example", "alice", GOOD);
    assert_eq!(log_in("roles", "head@lab.example", GOOD), FAILED);
    ok(&deputyctl("root", &["role", "set", "keeper", "head@lab.example", "superuser"]));
    assert_eq!(log_in("roles", "head@lab.example", GOOD), "");
}

#[test]
fn the_password_of_another_module_is_tried_or_the_only_one() {
    let _alone = alone();
    account("stacked", GOOD);
    let auth = |service: &str, answers: &[&str]| {
        said(&tester("root", service, "stacked", &["authenticate"], answers))
    };
    assert_eq!(auth("only", &[GOOD]), "");
    assert_eq!(auth("only", &[WRONG, GOOD]), FAILED);
    assert_eq!(auth("first", &[GOOD]), "");
    assert_eq!(auth("first", &[WRONG, GOOD]), "");
    assert_eq!(auth("first", &[WRONG, WRONG]), FAILED);
    // The person goes away in the middle.
    assert_eq!(auth("first", &[WRONG]), "pamtester: Conversation error");
    assert_eq!(
        said(&tester("root", "web", "stacked", &["authenticate"], &[])),
        "pamtester: Conversation error"
    );
}

#[test]
fn a_temporary_password_lets_in_only_with_a_new_one() {
    let _alone = alone();
    person("fresh@lab.example", "alice", GOOD);
    let shown = ok(&deputyctl("root", &["account", "reset", "keeper", "fresh@lab.example", "--yes"]));
    let temporary = shown.rsplit(' ').next().expect("the password").to_owned();
    assert_eq!(log_in("mapped", "fresh@lab.example", &temporary), RENEW);
    // A program that does not mind gets no session by that password.
    let calls = ["authenticate", "open_session"];
    assert_ne!(said(&tester("root", "mapped", "fresh@lab.example", &calls, &[&temporary])), "");
    let change = |answers: &[&str]| {
        tester("root", "mapped", "fresh@lab.example", &["chauthtok(PAM_CHANGE_EXPIRED_AUTHTOK)"], answers)
    };
    // A wrong old one, one that ends in the middle, weak ones, the old one again, two that differ.
    for answers in [
        &[WRONG, BETTER, BETTER][..],
        &[&temporary, BETTER],
        &[&temporary, "short", "short", GOOD, GOOD, BETTER, WRONG],
        &[&temporary, "", "", "", "", "", ""],
    ] {
        assert_ne!(said(&change(answers)), "", "{answers:?}");
        assert_eq!(log_in("mapped", "fresh@lab.example", BETTER), FAILED);
    }
    let changed = change(&[&temporary, "short", "short", BETTER, BETTER]);
    assert_eq!(said(&changed), "");
    assert!(changed.stderr.contains("password"), "the reason is said: {changed:?}");
    assert_eq!(log_in("mapped", "fresh@lab.example", BETTER), "");
    assert_eq!(log_in("mapped", "fresh@lab.example", &temporary), FAILED);
    // Nothing is expired now: nothing is asked, nothing changes.
    assert_eq!(said(&change(&[])), "");
    assert_eq!(log_in("mapped", "fresh@lab.example", BETTER), "");
}

#[test]
fn who_guesses_waits_and_learns_nothing_more() {
    let _alone = alone();
    account("target", GOOD);
    let wrong = tester("root", "web", "target", &["authenticate"], &[WRONG]);
    for _ in 0..2 {
        // More than may wait at once.
        let outputs = std::thread::scope(|scope| {
            let running: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| tester("root", "web", "target", &["authenticate"], &[WRONG])))
                .collect();
            running.into_iter().map(|one| one.join().expect("it ran")).collect::<Vec<_>>()
        });
        assert!(outputs.iter().all(|output| *output == wrong), "{outputs:?}");
    }
    // Who knows it gets in, after the wait; from elsewhere at once.
    let elsewhere = ["pamtester", "-I", "rhost=192.0.2.7", "web", "target", "authenticate"];
    assert_eq!(said(&answering(command_as("root", &elsewhere), &[GOOD])), "");
    assert_eq!(log_in("web", "target", GOOD), "");
}

#[test]
fn only_root_and_service_users_may_ask_and_those_about_their_own() {
    let _alone = alone();
    // A program that runs as the application: accounts only.
    assert_eq!(said(&tester("keeper", "web", "alice", &["authenticate", "acct_mgmt"], &[GOOD])), "");
    let calls = ["authenticate", "open_session", "close_session"];
    assert_eq!(said(&tester("keeper", "web", "alice", &calls, &[GOOD])), "");
    // It cannot read root's consents: no OS account.
    assert_eq!(said(&tester("keeper", "shell", "alice", &["authenticate"], &[GOOD])), FAILED);
    assert_eq!(said(&tester("keeper", "mapped", "alice", &["acct_mgmt"], &[])), DENIED);
    // Nor is its word enough for a session of somebody who proved nothing.
    assert_ne!(said(&tester("keeper", "web", "alice", &["open_session"], &[])), "");
    // Other people, and other applications.
    assert_eq!(said(&tester("carol", "web", "alice", &["authenticate"], &[GOOD])), UNAVAILABLE);
    for user in ["portal", "otherportal"] {
        assert_eq!(said(&tester(user, "web", "alice", &["authenticate"], &[GOOD])), FAILED, "{user}");
    }
    // Strangers that stay connected, or say nothing, keep nobody out.
    let held: Vec<OwnedFd> = acting_as(ids("carol"), || (0..300).filter_map(|_| connected().ok()).collect());
    assert_eq!(log_in("web", "alice", GOOD), "");
    drop(held);
    let silent: Vec<OwnedFd> =
        acting_as(ids("keeper"), || (0..100).filter_map(|_| connected().ok()).collect());
    assert_eq!(log_in("web", "alice", GOOD), "");
    drop(silent);
}

fn connected() -> rustix::io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    connect(&socket, &SocketAddrUnix::new(QUERY_SOCKET)?)?;
    Ok(socket)
}

#[test]
fn what_is_no_question_is_refused_and_the_daemon_goes_on() {
    let _alone = alone();
    let pid = service_pid("deputyd");
    let long = vec![b'x'; 20_000];
    for bytes in
        [&b""[..], b"GET / HTTP/1.1", b"DPTQ", b"DPTQ\x02\0", b"DPTQ\x01\0\xff\xff\xff\xff\xff\xff", &long]
    {
        let socket = connected().unwrap();
        let mut reply = [0; 4096];
        let (_, length) = recv(&socket, &mut reply, RecvFlags::empty()).unwrap();
        assert!(length > 0);
        send(&socket, bytes, SendFlags::NOSIGNAL).unwrap();
        let (_, length) = recv(&socket, &mut reply, RecvFlags::empty()).unwrap();
        let answer = deputy_core::message::query::decode_reply(&reply[..length]);
        assert!(bytes.is_empty() || matches!(answer, Ok(QueryReply::Denied(_))), "{answer:?}");
    }
    assert_eq!(service_pid("deputyd"), pid);
    assert_eq!(log_in("web", "alice", GOOD), "");
}

#[test]
fn su_becomes_the_os_account_that_the_account_is_linked_to() {
    let _alone = alone();
    let su = |name: &str, password: &str| {
        answering(command_as("carol", &["su", name, "-c", "id -un; printenv DEPUTY_ACCOUNT"]), &[password])
    };
    // util-linux's su looks its target up before PAM, so it is an OS account's name already.
    let output = su("alice", GOOD);
    assert_eq!((output.status, output.stdout.as_str()), (0, "alice\nalice\n"), "{output:?}");
    for (name, password) in
        [("alice", WRONG), ("alice", "wonder"), ("root", GOOD), ("bob", GOOD), ("portal", GOOD)]
    {
        let output = su(name, password);
        assert!(output.status != 0 && output.stdout.is_empty(), "{name}: {output:?}");
    }
}

#[test]
fn the_environment_says_which_session_and_its_application_can_use_it() {
    let _alone = alone();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/pam_session.py");
    let output =
        answering(command_as("root", &["/usr/bin/python3", script, "mapped", "ada@lab.example", GOOD]), &[]);
    assert_eq!(output.status, 0, "{output:?}");
    let variable = |name: &str| {
        let line = output.stdout.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("{name}: {output:?}")).to_owned()
    };
    assert_eq!(variable("DEPUTY_APPLICATION"), "keeper");
    assert_eq!(variable("DEPUTY_ACCOUNT"), "ada@lab.example");
    let session = variable("DEPUTY_SESSION");
    let run =
        ["run", "--app", "keeper", "--account", "ada@lab.example", "--session", &session, "--", "id", "-un"];
    assert_eq!(ok(&deputyctl("keeper", &run)), "alice");
    // Nobody else can, the person it is about included.
    for user in ["alice", "portal"] {
        assert_ne!(deputyctl(user, &["session", "extend", &session]).status, 0, "{user}");
    }
    ok(&deputyctl("keeper", &["session", "close", &session]));
}

#[test]
fn libpam_wrapper_gets_the_numbers_that_pam_has() {
    let _alone = alone();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/pam_numbers.py");
    account("counted", GOOD);
    let mut command = command_as("root", &["/usr/bin/python3", script, GOOD, WRONG, BETTER]);
    command
        .env("LD_PRELOAD", "libpam_wrapper.so")
        .env("PAM_WRAPPER", "1")
        .env("PAM_WRAPPER_SERVICE_DIR", "/etc/pam.d");
    let output = answering(command, &[]);
    assert_eq!((output.status, output.stdout.as_str()), (0, "14 cases\n"), "{output:?}");
}

#[test]
fn a_consent_counts_as_long_as_it_is_there_root_s_and_of_this_identity() {
    let _alone = alone();
    add_person("erin", "erin", &[]);
    person("erin", "erin", GOOD);
    let path = consent_path(&"keeper".parse().unwrap(), &"erin".parse().unwrap(), ids("erin").uid);
    let text = fs::read(&path).unwrap();
    let login = || log_in("shell", "erin", GOOD);
    assert_eq!(login(), "");
    // Not root's, writable by others, a link to somebody's file, cut, of another key.
    chown(&path, Some(ids("deputy").uid), None).unwrap();
    assert_eq!(login(), FAILED);
    chown(&path, Some(0), None).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o662)).unwrap();
    assert_eq!(login(), FAILED);
    fs::remove_file(&path).unwrap();
    fs::write("/tmp/consent", &text).unwrap();
    symlink("/tmp/consent", &path).unwrap();
    assert_eq!(login(), FAILED);
    fs::remove_file(&path).unwrap();
    for changed in [&text[..text.len() / 2], b""] {
        fs::write(&path, changed).unwrap();
        assert_eq!(login(), FAILED);
    }
    let other = consent_path(&"keeper".parse().unwrap(), &"alice".parse().unwrap(), ids("alice").uid);
    fs::copy(other, &path).unwrap();
    assert_eq!(login(), FAILED);
    fs::write(&path, &text).unwrap();
    assert_eq!(login(), "");
    // The OS account comes into a group that is never a target, and out of it again.
    machine::change_person("usermod", &["-aG", "sudo", "erin"]);
    assert_eq!(login(), FAILED);
    machine::change_person("gpasswd", &["-d", "erin", "sudo"]);
    assert_eq!(login(), "");
    // It becomes another person's.
    machine::change_person("usermod", &["-u", "4321", "erin"]);
    assert_eq!(login(), FAILED);
}

/// A `deputyd` that was taken over, until it is dropped. Nothing of the real one runs meanwhile.
struct False {
    away: Option<Away>,
    thread: Option<JoinHandle<()>>,
    heard: std::sync::Arc<Mutex<Vec<Vec<u8>>>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Manner {
    /// Says yes to everything; everybody is linked to whom they are called.
    Lying,
    /// Does not accept.
    Hanging,
    /// Accepts, and ends.
    Dying,
    /// Answers with something else.
    Babbling,
    /// Says yes, too late.
    Late,
}

impl False {
    fn start(uid_of: &str, manner: Manner) -> Self {
        let away = Some(deputyd_stays_away());
        let _ = fs::remove_file(QUERY_SOCKET);
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .expect("a socket");
        bind(&socket, &SocketAddrUnix::new(QUERY_SOCKET).unwrap()).expect("its place");
        fs::set_permissions(QUERY_SOCKET, fs::Permissions::from_mode(0o666)).expect("its mode");
        // The peer is who listens.
        acting_as(ids(uid_of), || listen(&socket, 16)).expect("it listens");
        let heard = std::sync::Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let ears = heard.clone();
        let thread = std::thread::spawn(move || {
            while !Path::new("/tmp/false-ends").exists() {
                let Ok(connection) = accept(&socket) else { return };
                if manner != Manner::Hanging {
                    serve(&connection, manner, &ears);
                } else if !Path::new("/tmp/false-ends").exists() {
                    // Held until the other side gives up.
                    let _ = recv(&connection, &mut [0; 16], RecvFlags::empty());
                }
            }
        });
        Self { away, thread: Some(thread), heard }
    }

    fn passwords(&self) -> Vec<Vec<u8>> {
        self.heard.lock().unwrap().clone()
    }
}

impl Drop for False {
    fn drop(&mut self) {
        fs::write("/tmp/false-ends", "").expect("the sign");
        drop(connected());
        let _ = self.thread.take().expect("a thread").join();
        fs::remove_file("/tmp/false-ends").expect("the sign");
        self.away.take().expect("the hold").back();
    }
}

/// Who asked may have gone.
fn told(connection: &OwnedFd, bytes: &[u8]) {
    let _ = send(connection, bytes, SendFlags::NOSIGNAL);
}

fn serve(connection: &OwnedFd, manner: Manner, heard: &Mutex<Vec<Vec<u8>>>) {
    let tell = |reply: &QueryReply| told(connection, &encode_reply(reply).unwrap());
    tell(&QueryReply::Accepted);
    let mut bytes = vec![0; 16 * 1024];
    let Ok((_, length)) = recv(connection, bytes.as_mut_slice(), RecvFlags::empty()) else { return };
    let Ok(query) = decode_query(&bytes[..length]) else { return };
    if manner == Manner::Late {
        // For whatever was asked: a verdict may take longer than a look at the account.
        std::thread::sleep(query.question.patience() + SOON);
    }
    if let Question::Authenticate { password } = query.question {
        heard.lock().unwrap().push(password.to_vec());
    }
    match (manner, query.question) {
        (Manner::Dying | Manner::Hanging, _) => {}
        (Manner::Babbling, Question::Standing) => told(connection, b"DPTQ\x01\0babble"),
        (Manner::Babbling, _) | (Manner::Lying | Manner::Late, Question::CloseSession { .. }) => {
            tell(&QueryReply::Done);
        }
        (Manner::Lying | Manner::Late, Question::Standing) => tell(&QueryReply::Standing(Standing {
            status: Status::Active,
            role: "superuser".into(),
            must_change: false,
            // Nobody has uid 0 in a message; what else there is to claim is claimed.
            link: Some(if query.account == "alice" || query.account == "bob" {
                identity(query.account)
            } else {
                identity("bob")
            }),
        })),
        (Manner::Lying | Manner::Late, Question::OpenSession { .. }) => {
            tell(&QueryReply::Opened { session: "/x".into() });
        }
        (Manner::Lying | Manner::Late, _) => tell(&QueryReply::Right { ticket: "t".into() }),
    }
}

#[test]
fn a_daemon_that_was_taken_over_lets_nobody_in_without_consent() {
    let _alone = alone();
    let daemon = False::start("deputy", Manner::Lying);
    for name in
        ["root", "portal", "keeper", "bob", "dave", "deputy", "nobody", "ada@lab.example", "new@lab.example"]
    {
        std::thread::scope(|scope| {
            for service in ["shell", "mapped", "roles"] {
                scope.spawn(move || {
                    assert_eq!(log_in(service, name, "any"), FAILED, "{service} {name}");
                    let account = tester("root", service, name, &["acct_mgmt"], &[]);
                    assert_eq!(said(&account), DENIED, "{service} {name}");
                    assert_ne!(said(&tester("root", service, name, &["open_session"], &[])), "", "{name}");
                });
            }
        });
        for service in ["other", "wrong"] {
            assert_eq!(log_in(service, name, "any"), SERVICE, "{service} {name}");
        }
    }
    for name in ["root", "portal", "keeper", "deputy"] {
        assert_eq!(log_in("web", name, "any"), FAILED, "{name}");
    }
    let output = answering(command_as("carol", &["su", "root", "-c", "id -un"]), &["any"]);
    assert!(output.status != 0 && output.stdout.is_empty(), "{output:?}");
    // What they typed was not told to it.
    assert!(daemon.passwords().iter().all(|password| password.iter().all(|byte| *byte == 0)));
    // With a consent of root's it can say that a wrong password is right: PRIVSEP.md says so.
    assert_eq!(log_in("shell", "alice", "any"), "");
}

#[test]
fn a_daemon_that_is_absent_late_hangs_dies_or_is_somebody_elses_lets_nobody_in() {
    let _alone = alone();
    let all = || {
        std::thread::scope(|scope| {
            for service in ["shell", "mapped", "web"] {
                for call in ["acct_mgmt", "chauthtok", "open_session"] {
                    scope.spawn(move || {
                        let output = tester("root", service, "alice", &[call], &[GOOD, BETTER, BETTER]);
                        assert_ne!(said(&output), "", "{service} {call}");
                    });
                }
                scope.spawn(move || {
                    let output = tester("root", service, "alice", &["authenticate"], &[GOOD]);
                    assert_eq!(said(&output), UNAVAILABLE, "{service}");
                });
            }
        });
    };
    for manner in [Manner::Hanging, Manner::Dying, Manner::Babbling, Manner::Late] {
        let daemon = False::start("deputy", manner);
        all();
        drop(daemon);
    }
    let daemon = False::start("portal", Manner::Lying);
    all();
    assert!(daemon.passwords().is_empty(), "nothing was told to a stranger");
    drop(daemon);
    let away = deputyd_stays_away();
    all();
    fs::remove_file(QUERY_SOCKET).unwrap();
    all();
    away.back();
    assert_eq!(log_in("shell", "alice", GOOD), "");
}

#[test]
fn a_password_is_wiped_in_the_daemon_and_on_no_disk() {
    let _alone = alone();
    let (right, wrong) = ("ninety umbrella fern quartz", "quartz fern umbrella ninety");
    account("whispering", right);
    // What looked at the strength of the new one keeps copies of it; this is about what every login does.
    deputyd_stays_away().back();
    for _ in 0..2 {
        assert_eq!(log_in("web", "whispering", right), "");
        assert_eq!(log_in("web", "whispering", wrong), FAILED);
    }
    let pid = service_pid("deputyd").to_string();
    let found =
        deputy_suite::as_user("root", &["find", "/var/lib/deputy", "/var/log", "/run/deputyd", "-type", "f"]);
    for secret in [right, wrong] {
        assert!(!memory_contains(&pid, secret), "deputyd still has {secret}");
        for file in found.stdout.lines().map(PathBuf::from) {
            let bytes = fs::read(&file).unwrap_or_default();
            assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()), "{}", file.display());
        }
    }
}

#[test]
fn valgrind_finds_nothing_in_any_call() {
    let _alone = alone();
    account("watched", GOOD);
    let watch = |service: &str, name: &str, calls: &[&str], answers: &[&str]| {
        let valgrind = [
            "valgrind",
            "-q",
            "--error-exitcode=99",
            "--leak-check=full",
            "--errors-for-leak-kinds=definite",
            "pamtester",
        ];
        let output =
            answering(command_as("root", &[&valgrind[..], &[service, name], calls].concat()), answers);
        assert!(output.status < 2 && !output.stderr.contains("=="), "{calls:?}: {}", output.stderr);
    };
    let calls = ["authenticate", "acct_mgmt", "setcred", "open_session", "close_session"];
    watch("mapped", "ada@lab.example", &calls, &[GOOD]);
    watch("shell", "alice", &["authenticate"], &[WRONG]);
    watch("web", "watched", &["chauthtok"], &[GOOD, "short", "short", BETTER, BETTER]);
    watch("web", "nobody-here", &["acct_mgmt"], &[]);
    watch("wrong", "alice", &["authenticate"], &[GOOD]);
    watch("first", "watched", &["authenticate"], &[WRONG]);
}

#[test]
fn a_question_is_small_whatever_is_in_it() {
    let long = vec![b'x'; 1025];
    let name = "x".repeat(64);
    let text = "x".repeat(256);
    let question = Question::ChangePassword { old: &long, new: &long };
    let query = deputy_core::message::query::Query {
        application: &name,
        account: &name,
        service: &text,
        origin: &text,
        question,
    };
    assert!(encode_query(&query).is_ok_and(|packet| packet.len() < 4096));
}
