//! The PAM services as they are shipped, with the real libpam.

mod common;

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use common::good;

// Results of PAM, from security/_pam_types.h.
const AUTH_ERR: i32 = 7;
const NEW_AUTHTOK_REQD: i32 = 12;

/// Compiles the probe once.
fn probe() -> String {
    static PROBE: OnceLock<PathBuf> = OnceLock::new();
    let path = PROBE.get_or_init(|| {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("pam_probe");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pam_probe.c");
        let status =
            Command::new("gcc").args(["-Wall", "-Werror", "-o"]).arg(&path).args([source, "-lpam"]).status();
        let status = status.expect("gcc: install it (tests/packages.sh does)");
        assert!(
            status.success(),
            "the probe does not compile: install libpam0g-dev (tests/packages.sh does)"
        );
        path
    });
    path.to_str().unwrap().to_owned()
}

fn with_probe(script: &str) -> String {
    let script = format!("p={}; {script}", probe());
    good(&["--user", "alice:right:lab1", "--user", "bob:right", "--keep", &probe()], &script)
}

#[test]
fn a_job_gets_credentials_and_a_session_but_never_an_authentication() {
    let out = with_probe(
        "groupadd instruments; echo 'deputy-job;*;alice;Al0000-2400;instruments' >> /etc/security/group.conf
         echo 'alice hard nofile 900' >> /etc/security/limits.conf; echo FROM_ETC=yes >> /etc/environment
         echo LEAK=yes > /home/alice/.pam_environment; chown alice /home/alice/.pam_environment
         $p deputy-job alice right authenticate authenticate-null
         $p deputy-job alice - account initgroups establish open close delete",
    );
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[..2], [format!("authenticate: {AUTH_ERR}"), format!("authenticate-null: {AUTH_ERR}")]);
    assert_eq!(
        lines[2..5],
        ["account: 0", "initgroups: alice lab1 0", "establish: alice lab1 instruments 0"]
    );
    assert!(lines[5].starts_with("open: loginuid=1001 nofile=900 umask=022"), "{out}");
    assert!(
        lines[5].ends_with(" 0") && lines[5].contains("FROM_ETC=yes") && !lines[5].contains("LEAK"),
        "{out}"
    );
    assert_eq!(lines[6..], ["close: 0", "delete: 0"]);
}

#[test]
fn a_job_is_refused_for_accounts_that_may_not_log_in() {
    let out = with_probe(
        "chage -d 0 bob; $p deputy-job bob - account; usermod -e 1 bob; $p deputy-job bob - account
         touch /etc/nologin; $p deputy-job alice - account",
    );
    assert_eq!(out, format!("account: {NEW_AUTHTOK_REQD}\naccount: {AUTH_ERR}\naccount: {AUTH_ERR}\n"));
}

#[test]
fn without_its_first_line_the_job_service_still_lets_nobody_in() {
    let out =
        with_probe("sed -i '/cred_err/d' /etc/pam.d/deputy-job; $p deputy-job alice wrong authenticate");
    assert_eq!(out, format!("authenticate: {AUTH_ERR}\n"));
}

#[test]
fn a_login_takes_the_right_password_only() {
    let out = with_probe(
        "useradd nobody-s; passwd -d nobody-s >/dev/null 2>&1; useradd locked
         $p deputy-login alice right authenticate account; $p deputy-login alice wrong authenticate
         $p deputy-login nobody-s '' authenticate authenticate-null; $p deputy-login locked '' authenticate-null
         $p deputy-login root '' authenticate; $p deputy-login root - authenticate",
    );
    let no = format!("authenticate: {AUTH_ERR}\n");
    let null = format!("authenticate-null: {AUTH_ERR}\n");
    assert_eq!(out, format!("authenticate: 0\naccount: 0\n{no}{no}{null}{null}{no}{no}"));
}

#[test]
fn an_expired_password_is_noticed_after_it_was_right() {
    let out = with_probe("chage -d 0 bob; $p deputy-login bob right authenticate account");
    assert_eq!(out, format!("authenticate: 0\naccount: {NEW_AUTHTOK_REQD}\n"));
}

#[test]
fn nothing_says_yes_to_root_or_to_all() {
    for (name, text) in [
        ("deputy-login", include_str!("../../../pam/deputy-login")),
        ("deputy-job", include_str!("../../../pam/deputy-job")),
    ] {
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            for module in
                ["pam_rootok", "pam_permit", "pam_systemd", "nullok", "user_readenv=1", "common-auth"]
            {
                assert!(!line.contains(module), "{name}: {line}");
            }
        }
    }
}
