//! Accounts in programs that know nothing of Deputy: a hub of notebooks with its own PAM authenticator, and `login`.
#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use deputy_suite::machine::{add_service_user, deputyd_stays_away, install_application, wait_until};
use deputy_suite::pam::{BETTER, GOOD, MODULE, WRONG, account, install_module, person, service};
use deputy_suite::people::{answering, command_as, ok};
use deputy_suite::{Output, as_user, deputyctl, need_the_sandbox, skip};

/// Where `tests/suite/jupyterhub.sh` puts it.
const JUPYTERHUB: &str = "/var/cache/deputy-suite/jupyterhub-6.1.1";

/// One after the other: a test replaces the store.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    install();
    turn
}

/// Two applications, whose accounts have passwords: `hub` for all programs, `aged` for the test that replaces the store.
fn install() {
    static DONE: Once = Once::new();
    need_the_sandbox();
    DONE.call_once(|| {
        install_module();
        for (name, more) in [("hub", ""), ("aged", "[passwords]\nexpire_days = 365\n")] {
            add_service_user(name);
            install_application(
                name,
                &format!(
                    "service_user = \"{name}\"\nauthentication = [\"password\"]\n{more}[link]\nshared = true\n\
                     [pam]\nlogins = [\"jupyterhub\", \"login\", \"{name}\"]\n"
                ),
            );
            wait_until("the application is known", || {
                deputyctl(name, &["account", "list", name]).status == 0
            });
        }
    });
}

/// As docs/pam.md has the service's file.
fn hub_service() {
    let line = |sort: &str| format!("{sort} required {MODULE} application=hub\n");
    fs::write("/etc/pam.d/jupyterhub", ["auth", "account"].map(line).concat()).expect("a service");
}

#[test]
fn jupyterhubs_own_authenticator_lets_in_whom_it_should_and_nobody_else() {
    let _turn = turn();
    if !Path::new(JUPYTERHUB).is_dir() {
        return skip(
            "jupyterhubs_own_authenticator: it is not there (tests/suite/jupyterhub.sh fetches it from PyPI)",
        );
    }
    hub_service();
    person("hub", "alice", "alice", GOOD);
    account("hub", "carol", GOOD);
    account("hub", "root", GOOD);
    // Linked, but called otherwise than the OS account that the hub would start a server as.
    person("hub", "ada@lab.example", "alice", GOOD);
    person("hub", "bob", "alice", GOOD);
    person("hub", "dora", "alice", GOOD);
    ok(&deputyctl("root", &["account", "reset", "hub", "dora", "--yes"]));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/hub_login.py");
    let tried = [
        ("alice", GOOD, "alice"),
        ("alice", WRONG, "refused"),
        ("alice", "wonder", "refused"),
        ("alice", "", "refused"),
        ("carol", GOOD, "refused"),
        ("bob", GOOD, "refused"),
        ("dora", GOOD, "refused"),
        ("ada@lab.example", GOOD, "refused"),
        ("root", GOOD, "refused"),
        ("nobody-here", GOOD, "refused"),
        ("alice", GOOD, "alice"),
    ];
    let words = tried.iter().flat_map(|(name, password, _)| [*name, *password]);
    let argv: Vec<&str> = ["/usr/bin/python3", script, JUPYTERHUB].into_iter().chain(words).collect();
    let output = as_user("root", &argv);
    assert_eq!(output.status, 0, "{output:?}");
    let expected: Vec<&str> = tried.iter().map(|(_, _, said)| *said).collect();
    assert_eq!(output.stdout.lines().collect::<Vec<_>>(), expected, "{}", output.stderr);
    // Without consent no longer.
    ok(&deputyctl("root", &["--yes", "consent", "revoke", "hub", "alice"]));
    let output = as_user("root", &["/usr/bin/python3", script, JUPYTERHUB, "alice", GOOD]);
    assert_eq!((output.status, output.stdout.as_str()), (0, "refused\n"), "{output:?}");
}

/// A person at a terminal, who is asked for a password and gets a shell.
fn at_a_terminal(name: &str, password: &str) -> Output {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/terminal.py");
    let line = "echo [$(id -un):$(pwd):$DEPUTY_ACCOUNT]";
    as_user("root", &["/usr/bin/python3", script, password, line, "Login incorrect", "login", name])
}

#[test]
fn login_maps_an_account_to_its_os_account() {
    let _turn = turn();
    service("login", "application=hub map_user");
    person("hub", "ellen@lab.example", "alice", GOOD);
    account("hub", "unlinked@lab.example", GOOD);
    let output = at_a_terminal("ellen@lab.example", GOOD);
    assert!(output.stdout.contains("[alice:/home/alice:ellen@lab.example]"), "{output:?}");
    for (name, password) in [
        ("ellen@lab.example", WRONG),
        ("unlinked@lab.example", GOOD),
        ("nobody@lab.example", GOOD),
        ("alice", "wonder"),
        ("root", "root"),
    ] {
        let output = at_a_terminal(name, password);
        assert!(output.status == 1 && output.stdout.contains("Login incorrect"), "{name}: {output:?}");
        assert!(!output.stdout.contains('['), "{name}: {output:?}");
    }
}

/// All that was recorded becomes two years older, by an export that is taken in again.
fn make_the_store_older() {
    let folder = "/run/deputy-sandbox/older";
    fs::create_dir(folder).expect("a folder");
    let (whole, older) = (format!("{folder}/whole"), format!("{folder}/older"));
    ok(&deputyctl("root", &["--yes", "store", "export", "--with-passwords", &whole]));
    let two_years = 2 * 365 * 24 * 3600 * 1_000_000_u64;
    let age = format!(
        "import re, sys; text = open('{whole}').read(); \
         print(re.sub(r'\"(at|set)\":(\\d{{15,}})', lambda m: '\"%s\":%d' % (m[1], int(m[2]) - {two_years}), text), \
         end='', file=open('{older}', 'w'))"
    );
    ok(&as_user("root", &["/usr/bin/python3", "-c", &age]));
    let away = deputyd_stays_away();
    let state = "cd /var/lib/deputy && rm -rf ledger/* view/* secrets/*";
    ok(&as_user("root", &["sh", "-c", state]));
    let import = format!("deputyctl --yes store import <{older}");
    ok(&as_user("root", &["sh", "-c", &import]));
    away.back();
}

#[test]
fn a_password_that_has_expired_lets_in_only_with_a_new_one() {
    let _turn = turn();
    service("aged", "application=aged map_user");
    person("aged", "erwin@lab.example", "alice", GOOD);
    make_the_store_older();
    let tester = |calls: &[&str], answers: &[&str]| {
        let argv = [&["pamtester", "aged", "erwin@lab.example"], calls].concat();
        answering(command_as("root", &argv), answers)
    };
    let login = |password: &str| tester(&["authenticate", "acct_mgmt"], &[password]);
    // Told only to who knows it.
    assert!(login(WRONG).stderr.contains("pamtester: Authentication failure"));
    let expired = login(GOOD);
    assert!(expired.status != 0 && expired.stderr.contains("new one required"), "{expired:?}");
    assert_ne!(tester(&["authenticate", "open_session"], &[GOOD]).status, 0);
    let change = tester(&["chauthtok(PAM_CHANGE_EXPIRED_AUTHTOK)"], &[GOOD, BETTER, BETTER]);
    assert_eq!(change.status, 0, "{change:?}");
    assert_eq!(login(BETTER).status, 0);
    assert_ne!(login(GOOD).status, 0);
}
