//! Passwords that Deputy keeps, on a real bus, with `deputyctl`, and with a `deputyd` that is killed.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::OwnedFd as StdFd;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use deputy_suite::client::{on_bus, options};
use deputy_suite::machine::{install_application, run, service_pid, signal, wait_until};
use deputy_suite::memory::memory_contains;
use deputy_suite::people::{self, command_as, ok, refused};
use deputy_suite::{Output, as_user, deputyctl, need_the_sandbox};
use futures_util::future::join_all;

const GOOD: &str = "violet harbour seven kites";
const BETTER: &str = "oblique tundra marzipan bell";

/// One test kills the daemon, which the others would feel.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The application whose accounts have passwords of their own; it needs sessions.
fn keeper() {
    static MADE: Once = Once::new();
    need_the_sandbox();
    MADE.call_once(|| {
        run("useradd", &["--system", "--user-group", "--shell", "/usr/sbin/nologin", "keeper"]);
        install_application(
            "keeper",
            "service_user = \"keeper\"\nauthentication = [\"password\"]\n[kinds.batch]\ncommands = [\"*\"]\n",
        );
        // The daemon may have looked for the service user before it was there.
        wait_until("the application is known", || {
            deputyctl("keeper", &["account", "list", "keeper"]).status == 0
        });
    });
}

/// `deputyctl` with the answers to its questions, a line each.
fn answering(user: &str, arguments: &[&str], answers: &[&str]) -> Output {
    people::answering(
        command_as(user, &[&["deputyctl"], arguments, &["--answers-fd", "0"]].concat()),
        answers,
    )
}

fn account(name: &str, password: &str) {
    keeper();
    ok(&deputyctl("root", &["account", "add", "keeper", name]));
    ok(&answering("root", &["account", "password", "keeper", name], &[password]));
}

fn log_in(name: &str, answers: &[&str]) -> Output {
    answering("keeper", &["login", "keeper", name, "--method", "password"], answers)
}

fn kill_deputyd() {
    let before = service_pid("deputyd");
    signal(before, "KILL");
    wait_until("deputyd is there again", || {
        fs::read_to_string("/run/deputy-sandbox/deputyd.pid")
            .is_ok_and(|text| text.trim().parse::<i32>().is_ok_and(|pid| pid != before))
            && as_user("keeper", &["deputyctl", "status"]).status == 0
    });
}

#[test]
fn passwords_and_sessions_outlive_a_daemon_that_is_killed() {
    let _alone = alone();
    account("steady", GOOD);
    ok(&deputyctl("root", &["consent", "grant", "keeper", "steady", "alice"]));
    ok(&deputyctl("root", &["link", "request", "keeper", "steady", "alice"]));
    let session = ok(&log_in("steady", &[GOOD]));
    let whoami = |session: &str| {
        let options =
            ["run", "--app", "keeper", "--account", "steady", "--session", session, "--", "id", "-un"];
        deputyctl("keeper", &options)
    };
    assert_eq!(ok(&whoami(&session)), "alice");
    for _ in 0..3 {
        kill_deputyd();
        assert_eq!(ok(&whoami(&session)), "alice");
        ok(&log_in("steady", &[GOOD]));
        assert_eq!(refused(&log_in("steady", &[BETTER])), "AuthenticationFailed");
    }
    // Ended is ended, also for the next daemon.
    ok(&deputyctl("keeper", &["session", "close", &session]));
    ok(&answering("root", &["account", "password", "keeper", "steady"], &[BETTER]));
    kill_deputyd();
    assert_eq!(refused(&whoami(&session)), "NotFound");
    assert_eq!(refused(&log_in("steady", &[GOOD])), "AuthenticationFailed");
    let session = ok(&log_in("steady", &[BETTER]));
    ok(&deputyctl("keeper", &["session", "extend", &session]));
    assert!(ok(&deputyctl("keeper", &["session", "list", "keeper"])).contains(&session));
    // Another application neither uses nor sees it.
    assert_eq!(refused(&deputyctl("portal", &["session", "extend", &session])), "NotFound");
    assert_eq!(refused(&deputyctl("portal", &["session", "show", &session])), "NotFound");
}

#[test]
fn a_reset_shows_a_temporary_password_once_which_has_to_be_replaced() {
    let _alone = alone();
    account("forgetful", GOOD);
    let shown = ok(&deputyctl("root", &["account", "reset", "keeper", "forgetful", "--yes"]));
    let temporary = shown.rsplit(' ').next().expect("the password").to_owned();
    assert_eq!(refused(&log_in("forgetful", &[GOOD])), "AuthenticationFailed");
    // Without a new one there is no session; a weak one and the old one are not taken.
    assert_eq!(refused(&log_in("forgetful", &[&temporary])), "ConversationAborted");
    assert_eq!(refused(&log_in("forgetful", &[&temporary, "forgetful1"])), "PasswordWeak");
    assert_eq!(refused(&log_in("forgetful", &[&temporary, GOOD])), "PasswordWeak");
    ok(&log_in("forgetful", &[&temporary, BETTER]));
    ok(&log_in("forgetful", &[BETTER]));
    assert_eq!(refused(&log_in("forgetful", &[&temporary])), "AuthenticationFailed");
    // Resetting is for administrators, and for the application in the name of an account that may.
    assert_eq!(
        refused(&deputyctl("keeper", &["account", "reset", "keeper", "forgetful"])),
        "ActingAccountRequired"
    );
    assert_eq!(refused(&deputyctl("carol", &["account", "reset", "keeper", "forgetful"])), "NotAuthorized");
}

#[test]
fn one_who_is_being_guessed_at_does_not_keep_others_waiting() {
    let _alone = alone();
    account("target", GOOD);
    account("neighbour", GOOD);
    on_bus("keeper", async |client| {
        let guess = |number: usize| {
            let client = client.clone();
            async move {
                let (reader, mut writer) = std::io::pipe().expect("a pipe");
                write!(writer, "guess {number}").expect("the guess");
                drop(writer);
                let body = (
                    "target",
                    zbus::OwnedFd::from(StdFd::from(reader)),
                    options(&[("origin", "198.51.100.7")]),
                );
                client.call::<_, (zbus::OwnedObjectPath,)>("Authentication.Password", &body).await
            }
        };
        // Until the next try from there has to wait for seconds.
        for round in 0..3 {
            let answers = join_all((0..4).map(|number| guess(round * 4 + number))).await;
            assert!(
                answers.iter().all(|answer| answer.as_ref().unwrap_err().code() == "AuthenticationFailed")
            );
        }
        // As many as may wait do; more are sent away.
        let waiting = tokio::spawn(join_all((0..4).map(guess)));
        let mut codes = BTreeSet::new();
        while !codes.contains("TooManyTries") {
            assert!(!waiting.is_finished(), "{codes:?}");
            // One that is not sent away at once has a place to wait in before the other four had.
            let one = tokio::time::timeout(Duration::from_millis(500), guess(99)).await;
            codes.extend(one.ok().and_then(Result::err).map(|failed| failed.code().to_owned()));
        }
        // The neighbour gets in, and so does the person herself, from elsewhere, while those still wait.
        let log_in = |name: &'static str| {
            let client = client.clone();
            async move {
                let (reader, mut writer) = std::io::pipe().expect("a pipe");
                write!(writer, "{GOOD}").expect("the password");
                drop(writer);
                let body =
                    (name, zbus::OwnedFd::from(StdFd::from(reader)), options(&[("origin", "192.0.2.1")]));
                client.call::<_, (zbus::OwnedObjectPath,)>("Authentication.Password", &body).await
            }
        };
        log_in("neighbour").await.expect("a session");
        log_in("target").await.expect("a session");
        assert!(!waiting.is_finished());
    });
}

#[test]
fn a_password_is_not_on_the_bus_nor_in_logs_nor_in_the_ledger() {
    let _alone = alone();
    keeper();
    let traffic = "/tmp/deputy-suite-password-traffic";
    let mut monitor = Command::new("dbus-monitor")
        .args(["--system", "--monitor"])
        .stdout(File::create(traffic).expect("a file"))
        .spawn()
        .expect("dbus-monitor");
    let has = |haystack: &[u8], needle: &str| haystack.windows(needle.len()).any(|w| w == needle.as_bytes());
    wait_until("the monitor listens", || has(&fs::read(traffic).expect("the traffic"), "NameAcquired"));
    let (old, new) = ("ninety umbrella fern quartz", "saddle comet biscuit rowing");
    account("whispering", old);
    ok(&log_in("whispering", &[old]));
    assert_eq!(refused(&log_in("whispering", &[new])), "AuthenticationFailed");
    let shown = ok(&deputyctl("root", &["account", "reset", "keeper", "whispering", "--yes"]));
    let temporary = shown.rsplit(' ').next().expect("the password").to_owned();
    ok(&log_in("whispering", &[&temporary, new]));
    ok(&deputyctl("keeper", &["session", "list", "keeper"]));
    monitor.kill().expect("the monitor ends");
    monitor.wait().expect("its end");
    let files =
        as_user("root", &["find", "/var/lib/deputy", "/var/log/deputy-sandbox", traffic, "-type", "f"]);
    for file in files.stdout.lines() {
        let bytes = fs::read(file).unwrap_or_default();
        for secret in [old, new, &temporary] {
            assert!(!has(&bytes, secret), "{file} has a password");
        }
        let hash = has(&bytes, "$argon2id$");
        assert_eq!(hash, file == "/var/lib/deputy/secrets/passwords", "{file}");
    }
    assert!(has(&fs::read(traffic).expect("the traffic"), "whispering"), "the monitor saw the calls");
}

#[test]
fn a_password_that_was_compared_is_wiped() {
    let _alone = alone();
    let password = "umbrella quartz ninety ferns";
    account("fleeting", password);
    // What looked at the strength of the new one keeps copies of it; this is about what every login does.
    kill_deputyd();
    for _ in 0..3 {
        ok(&log_in("fleeting", &[password]));
        assert_eq!(refused(&log_in("fleeting", &["umbrella quartz ninety crows"])), "AuthenticationFailed");
    }
    let pid = service_pid("deputyd").to_string();
    assert!(!memory_contains(&pid, password), "deputyd still has the right password");
    assert!(!memory_contains(&pid, "umbrella quartz ninety crows"), "deputyd still has the wrong password");
}
