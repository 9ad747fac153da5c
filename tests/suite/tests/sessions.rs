//! Logins by the operating system that are more than a password, and the application for one person.
#![forbid(unsafe_code)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use deputy_suite::machine::{add_person, change_person, install_application, run, wait_until};
use deputy_suite::people::{command_as, ok, refused};
use deputy_suite::{as_user, deputyctl, need_the_sandbox};

/// A client that only speaks D-Bus and the documented frames.
const CLIENT: &str = include_str!("../clients/login.py");

/// An application with a service user of its own.
fn application(name: &str, more: &str) {
    need_the_sandbox();
    run("useradd", &["--system", "--user-group", "--shell", "/usr/sbin/nologin", name]);
    install_application(
        name,
        &format!(
            "service_user = \"{name}\"\nauthentication = [\"os\"]\n{more}\n[kinds.batch]\ncommands = [\"*\"]\n"
        ),
    );
    wait_until("the application is known", || deputyctl(name, &["account", "list", name]).status == 0);
}

/// An account that is linked, with root's consent.
fn linked(application: &str, account: &str, os_user: &str) {
    ok(&deputyctl("root", &["account", "add", application, account]));
    ok(&deputyctl("root", &["consent", "grant", application, account, os_user]));
    ok(&deputyctl("root", &["link", "request", application, account, os_user]));
}

/// Logs in with the Python client; gives the exit status and what it printed.
fn python(user: &str, account: &str, answers: &[&str]) -> (Option<i32>, String) {
    let argv = [&["/usr/bin/python3", "-", account], answers].concat();
    let mut child = command_as(user, &argv)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("python3");
    child.stdin.take().expect("a pipe").write_all(CLIENT.as_bytes()).expect("the program");
    let output = child.wait_with_output().expect("its output");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A person at a terminal.
struct Typist {
    child: Child,
    output: Receiver<u8>,
    seen: String,
}

impl Typist {
    fn new(line: &str) -> Self {
        let mut child = Command::new("script")
            .args(["-qec", line, "/dev/null"])
            .env("SHELL", "/bin/sh")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script");
        let (sender, output) = channel();
        let mut stdout = child.stdout.take().expect("a pipe");
        std::thread::spawn(move || {
            let mut byte = [0];
            while stdout.read(&mut byte).is_ok_and(|length| length == 1) {
                if sender.send(byte[0]).is_err() {
                    return;
                }
            }
        });
        Self { child, output, seen: String::new() }
    }

    /// Waits for a question behind what was seen already, and answers it.
    fn answers(&mut self, question: &str, answer: &str) {
        let begin = self.seen.len();
        while !self.seen[begin..].contains(question) {
            let Ok(byte) = self.output.recv_timeout(Duration::from_secs(60)) else {
                panic!("{question:?} did not come: {:?}", self.seen)
            };
            self.seen.push(byte.into());
        }
        self.child
            .stdin
            .as_mut()
            .expect("a pipe")
            .write_all(format!("{answer}\n").as_bytes())
            .expect("typed");
    }

    fn end(mut self) -> (Option<i32>, String) {
        while let Ok(byte) = self.output.recv_timeout(Duration::from_secs(60)) {
            self.seen.push(byte.into());
        }
        (self.child.wait().expect("its end").code(), self.seen)
    }
}

fn code_of(counter: u32) -> String {
    let counter = counter.to_string();
    let output = as_user("root", &["oathtool", "-c", &counter, "3132333435363738393031323334353637383930"]);
    ok(&output)
}

#[test]
fn a_one_time_code_is_asked_for_behind_the_password() {
    need_the_sandbox();
    let login = fs::read_to_string("/etc/pam.d/deputy-login").expect("the shipped service");
    let line = "auth      required    pam_unix.so\n";
    assert!(login.contains(line));
    let both =
        format!("{line}auth      required    pam_oath.so usersfile=/etc/users.oath window=5 digits=6\n");
    fs::write("/etc/pam.d/deputy-codes", login.replace(line, &both)).expect("a service with codes");
    fs::write("/etc/users.oath", "HOTP otto - 3132333435363738393031323334353637383930\n").expect("the keys");
    run("chmod", &["600", "/etc/users.oath"]);
    add_person("otto", "counter", &["lab1"]);
    application("codes", "[pam]\nlogin = \"deputy-codes\"\n");
    linked("codes", "holder", "otto");

    let mut typist = Typist::new("runuser -u codes -- deputyctl login codes holder");
    typist.answers("Password", "counter");
    typist.answers("One-time password", &code_of(0));
    let (status, seen) = typist.end();
    assert_eq!(status, Some(0), "{seen}");
    assert!(seen.contains("/org/deputy/Deputy1/session/") && !seen.contains("counter"), "{seen}");

    // A code is good once; neither the code nor the password alone is.
    for answers in [["counter", &code_of(0)], ["wrong", &code_of(1)], ["counter", "000000"]] {
        let (status, told) = python("codes", "holder", &answers);
        assert_eq!(status, Some(1), "{told}");
        assert!(told.contains("refused: AuthenticationFailed"), "{told}");
    }
    let (status, told) = python("codes", "holder", &["counter", &code_of(3)]);
    assert_eq!(status, Some(0), "{told}");
    assert!(told.contains("hello: codes holder otto"), "{told}");
    let session = told.lines().find_map(|line| line.strip_prefix("session: ")).expect("a session");
    let run = ["run", "--app", "codes", "--account", "holder", "--session", session, "--", "id", "-un"];
    assert_eq!(ok(&deputyctl("codes", &run)), "otto");
}

#[test]
fn an_expired_os_password_is_changed_on_the_way() {
    application("aged", "");
    for (person, account) in [("stella", "at-terminal"), ("pytha", "by-program")] {
        add_person(person, "before-it-expired", &["lab1"]);
        linked("aged", account, person);
        change_person("chage", &["-d", "0", person]);
    }
    let new = "Tundra-7-marzipan";

    let mut typist = Typist::new("runuser -u aged -- deputyctl login aged at-terminal");
    typist.answers("Password", "before-it-expired");
    typist.answers("Current password", "before-it-expired");
    typist.answers("New password", new);
    typist.answers("Retype new password", new);
    let (status, seen) = typist.end();
    assert_eq!(status, Some(0), "{seen}");
    assert!(seen.contains("/org/deputy/Deputy1/session/"), "{seen}");
    assert!(!seen.contains(new) && !seen.contains("before-it-expired"), "{seen}");

    // Who does not know the old one changes nothing.
    let (status, told) = python("aged", "by-program", &["wrong", "wrong", new, new]);
    assert_eq!(status, Some(1), "{told}");
    let answers = ["before-it-expired", "before-it-expired", new, new];
    let (status, told) = python("aged", "by-program", &answers);
    assert_eq!(status, Some(0), "{told}");
    assert!(told.contains("asked: New password"), "{told}");

    // The new one is the password from now on, and the old one is none.
    for account in ["at-terminal", "by-program"] {
        let (status, told) = python("aged", account, &[new]);
        assert_eq!(status, Some(0), "{told}");
        assert_eq!(told.matches("asked:").count(), 1, "{told}");
        assert_eq!(python("aged", account, &["before-it-expired"]).0, Some(1));
    }
}

#[test]
fn an_application_for_one_person_acts_as_that_person_and_nobody_else() {
    need_the_sandbox();
    add_person("solo", "alone", &["lab1"]);
    let text = "service_user = \"solo\"\nmode = \"single-user\"\nauthentication = [\"os\"]\n[kinds.batch]\n\
                commands = [\"*\"]\n";
    install_application("desk", text);
    wait_until("the application is known", || deputyctl("solo", &["account", "list", "desk"]).status == 0);
    ok(&deputyctl("solo", &["account", "add", "desk", "me"]));
    let run_job = |user: &str, app: &str, account: &str| {
        deputyctl(user, &["run", "--app", app, "--account", account, "--", "id", "-un"])
    };
    assert_eq!(refused(&run_job("solo", "desk", "me")), "NotLinked");
    // Being that person is no consent.
    for target in ["bob", "portal", "deputy", "root"] {
        let grant = deputyctl("root", &["consent", "grant", "desk", "me", target]);
        assert_eq!(grant.status, 125, "{target}: {}", grant.stdout);
        let request = deputyctl("solo", &["link", "request", "desk", "me", target]);
        assert_eq!(request.status, 125, "{target}: {}", request.stdout);
    }
    let asked: serde_json::Value =
        serde_json::from_str(&ok(&deputyctl("solo", &["--json", "link", "request", "desk", "me", "solo"])))
            .expect("JSON");
    assert_eq!(asked["state"], "waiting");
    assert_ne!(run_job("solo", "desk", "me").status, 0);
    ok(&deputyctl("solo", &["consent", "give", asked["code"].as_str().expect("a code"), "--yes"]));
    wait_until("the link is active", || run_job("solo", "desk", "me").status == 0);
    assert_eq!(ok(&run_job("solo", "desk", "me")), "solo");
    // Nobody else speaks for it, and there is no login.
    assert_ne!(run_job("carol", "desk", "me").status, 0);
    assert_ne!(run_job("portal", "desk", "me").status, 0);
    let mut login = command_as("solo", &["deputyctl", "login", "desk", "me", "--answers-fd", "0"]);
    login.stdin(Stdio::null());
    assert_eq!(refused(&deputy_suite::people::run(login)), "MethodNotAllowed");
    // To every other application the person is a service user, and never a target.
    ok(&deputyctl("portal", &["account", "add", "demo", "grabber"]));
    let grant = deputyctl("root", &["consent", "grant", "demo", "grabber", "solo"]);
    assert_eq!(refused(&grant), "OsAccountIsService");
    // A second application of the same person makes it impossible for both to tell who is meant.
    install_application("desk2", text);
    assert_ne!(run_job("solo", "desk", "me").status, 0);
    fs::remove_file("/etc/deputy/applications.d/desk2.toml").expect("the second one goes");
    wait_until("it is alone again", || run_job("solo", "desk", "me").status == 0);
}
