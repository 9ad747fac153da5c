//! `pam_deputy.so` where the operating system authenticates an application's accounts: every question of the stack of a
//! site comes to the person, and neither `deputyd` nor another module hears of the answers.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::chown;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use deputy_suite::machine::{
    add_person, add_service_user, deputyd_stays_away, install_application, service_pid, wait_until,
};
use deputy_suite::memory::memory_contains;
use deputy_suite::pam::{FAILED, install_module, service};
use deputy_suite::people::{answering, command_as, ok};
use deputy_suite::{Output, as_user, deputyctl, need_the_sandbox};

/// The key of the person's one-time codes.
const KEY: &str = "3132333435363738393031323334353637383930";
const PASSWORD: &str = "plain old os password";

/// A counter of codes that nobody used yet; each test has its turn.
struct Codes(u32);

impl Codes {
    fn next(&mut self) -> String {
        self.0 += 1;
        let counter = (self.0 - 1).to_string();
        let output = std::process::Command::new("oathtool").args(["--counter", &counter, KEY]).output();
        let output = output.expect("oathtool: tests/packages.sh installs it");
        String::from_utf8(output.stdout).expect("a code").trim().to_owned()
    }
}

fn turn() -> MutexGuard<'static, Codes> {
    static TURN: Mutex<Codes> = Mutex::new(Codes(0));
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    install();
    // The tests have one person, and tries onto one are counted.
    ok(&as_user("root", &["sh", "-c", "rm -rf /run/deputy/tries/*"]));
    turn
}

/// The application `campus`, whose logins ask for a one-time code and then for a password, and one person.
fn install() {
    static DONE: Once = Once::new();
    need_the_sandbox();
    DONE.call_once(|| {
        install_module();
        add_person("twofold", PASSWORD, &[]);
        let stack = fs::read_to_string("/etc/pam.d/deputy-login").expect("the stack");
        let line = stack.lines().find(|line| line.starts_with("auth") && line.contains("pam_unix"));
        let line = line.expect("a line for passwords");
        let oath = "auth required pam_oath.so usersfile=/etc/users.oath window=20 digits=6";
        fs::write("/etc/pam.d/campus-login", stack.replace(line, &format!("{oath}\n{line}")))
            .expect("a stack");
        fs::write("/etc/users.oath", format!("HOTP twofold - {KEY}\n")).expect("the keys");
        chown("/etc/users.oath", Some(0), Some(0)).expect("root's");
        add_service_user("campus");
        install_application(
            "campus",
            "service_user = \"campus\"\nauthentication = [\"os\"]\n[link]\nshared = true\n\
             [pam]\nlogin = \"campus-login\"\nlogins = [\"shell\", \"once\"]\naccounts_only = [\"web\"]\n",
        );
        wait_until("the application is known", || {
            deputyctl("campus", &["account", "list", "campus"]).status == 0
        });
        service("shell", "application=campus map_user");
        service("once", "application=campus map_user use_first_pass");
        service("web", "application=campus");
        for name in ["tim@lab.example", "unlinked@lab.example", "gone@lab.example", "root"] {
            ok(&deputyctl("root", &["account", "add", "campus", name]));
        }
        for name in ["tim@lab.example", "gone@lab.example"] {
            ok(&deputyctl("root", &["consent", "grant", "campus", name, "twofold"]));
            ok(&deputyctl("root", &["link", "request", "campus", name, "twofold"]));
        }
        ok(&deputyctl("root", &["account", "deactivate", "campus", "gone@lab.example"]));
    });
}

fn tester(user: &str, service: &str, name: &str, calls: &[&str], answers: &[&str]) -> Output {
    answering(command_as(user, &[&["pamtester", service, name], calls].concat()), answers)
}

/// The error, if there was one. Questions are on the same stream.
fn said(output: &Output) -> String {
    let error = output.stderr.rfind("pamtester: ").map(|at| output.stderr[at..].trim().to_owned());
    assert_eq!(output.status == 0, error.is_none(), "{output:?}");
    error.unwrap_or_default()
}

fn log_in(name: &str, answers: &[&str]) -> String {
    said(&tester("root", "shell", name, &["authenticate", "acct_mgmt"], answers))
}

#[test]
fn every_question_is_asked_and_only_right_answers_let_in() {
    let mut codes = turn();
    let calls = ["authenticate", "acct_mgmt", "setcred", "open_session", "close_session"];
    let output = tester("root", "shell", "tim@lab.example", &calls, &[&codes.next(), PASSWORD]);
    assert_eq!(said(&output), "");
    assert!(output.stderr.contains("One-time password") && output.stderr.contains("Password:"), "{output:?}");
    let long = "x".repeat(10 * 1024);
    let used = codes.next();
    assert_eq!(log_in("tim@lab.example", &[&used, PASSWORD]), "");
    for (code, password) in
        [("000000", PASSWORD), (&codes.next(), "wrong"), (&used, PASSWORD), ("", ""), (&codes.next(), &long)]
    {
        assert_eq!(log_in("tim@lab.example", &[code, password]), FAILED, "{code}");
    }
    // Who goes away in the middle is let in no more than who did not come.
    for answers in [&[codes.next()][..], &[]] {
        let answers: Vec<&str> = answers.iter().map(String::as_str).collect();
        assert_eq!(log_in("tim@lab.example", &answers), "pamtester: Conversation error");
    }
}

#[test]
fn whoever_is_not_let_in_is_asked_for_a_password_and_told_the_same() {
    let mut codes = turn();
    for name in ["unlinked@lab.example", "gone@lab.example", "nobody@lab.example", "root", "twofold", "a/b"] {
        let output = tester("root", "shell", name, &["authenticate"], &[&codes.next(), PASSWORD]);
        assert_eq!(said(&output), FAILED, "{name}");
        // pam_oath asks those who have no key for no code.
        assert!(output.stderr.contains("Password:"), "{output:?}");
        assert_ne!(said(&tester("root", "shell", name, &["acct_mgmt"], &[])), "", "{name}");
    }
    assert_eq!(log_in("tim@lab.example", &[&codes.next(), PASSWORD]), "");
}

#[test]
fn only_roots_program_has_a_conversation_and_only_for_a_login() {
    let mut codes = turn();
    let answers = [codes.next(), PASSWORD.to_owned()];
    let answers: Vec<&str> = answers.iter().map(String::as_str).collect();
    // The application's own user reads no consent of root's, and cannot reach the launcher.
    for user in ["campus", "alice"] {
        assert_ne!(
            said(&tester(user, "shell", "tim@lab.example", &["authenticate"], &answers)),
            "",
            "{user}"
        );
    }
    // There is no password that Deputy keeps.
    assert_ne!(said(&tester("root", "web", "tim@lab.example", &["authenticate"], &[PASSWORD])), "");
    assert_ne!(said(&tester("root", "once", "tim@lab.example", &["authenticate"], &answers)), "");
    // Without the daemon nobody knows to whom the account is linked.
    let away = deputyd_stays_away();
    assert_eq!(
        log_in("tim@lab.example", &answers),
        "pamtester: Authentication service cannot retrieve authentication info"
    );
    away.back();
}

#[test]
fn the_daemon_hears_of_no_answer() {
    let mut codes = turn();
    deputyd_stays_away().back();
    let code = codes.next();
    assert_eq!(log_in("tim@lab.example", &[&code, PASSWORD]), "");
    assert_eq!(log_in("tim@lab.example", &[&code, "another wrong password"]), FAILED);
    let pid = service_pid("deputyd").to_string();
    assert!(!memory_contains(&pid, PASSWORD), "deputyd has it");
}

#[test]
fn valgrind_finds_nothing_in_a_conversation() {
    let mut codes = turn();
    for (password, status) in [(PASSWORD, 0), ("wrong", 1)] {
        let valgrind = [
            "valgrind",
            "-q",
            "--error-exitcode=99",
            "--leak-check=full",
            "--errors-for-leak-kinds=definite",
            "pamtester",
            "shell",
            "tim@lab.example",
            "authenticate",
        ];
        let output = answering(command_as("root", &valgrind), &[&codes.next(), password]);
        assert!(output.status == status && !output.stderr.contains("=="), "{}", output.stderr);
    }
}
