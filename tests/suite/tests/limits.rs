//! What `pam_limits` sets is the job's: the kernel enforces it there, and the shepherd that waits is not hit by it.
#![forbid(unsafe_code)]

use deputy_suite::machine::service_pid;
use deputy_suite::{deputyctl, need_the_sandbox, skip};

#[test]
fn a_limit_on_the_size_of_files_holds_for_the_job_and_not_for_its_exit_record() {
    need_the_sandbox();
    std::fs::write("/etc/security/limits.d/suite.conf", "carol hard fsize 0\ncarol hard nofile 64\n")
        .unwrap();
    for (arguments, wanted) in [
        (&["account", "add", "demo", "limited"][..], 0),
        (&["account", "add", "demo", "unlimited"], 0),
        (&["link", "request", "demo", "limited", "carol"], 0),
        (&["link", "request", "demo", "unlimited", "alice"], 0),
    ] {
        assert_eq!(deputyctl("portal", arguments).status, wanted, "{arguments:?}");
    }
    for (account, os_user) in [("limited", "carol"), ("unlimited", "alice")] {
        let granted = deputyctl("root", &["consent", "grant", "demo", account, os_user]);
        assert_eq!(granted.status, 0, "{}", granted.stderr);
    }
    let run = |account: &str, script: &str| {
        deputyctl("portal", &["run", "--app", "demo", "--account", account, "--", "sh", "-c", script])
    };
    let output = run("unlimited", "ulimit -f; echo more > file-within-the-limit");
    assert_eq!((output.stdout.as_str(), output.status), ("unlimited\n", 0), "{}", output.stderr);
    if !launcher_can_raise_limits() {
        skip(
            "a_limit_on_the_size_of_files: root here has no CAP_SYS_RESOURCE, so the shepherd keeps the limit",
        );
        return;
    }
    // SIGXFSZ is 25.
    let output = run("limited", "ulimit -f; ulimit -n; echo more > file-over-the-limit");
    assert_eq!((output.stdout.as_str(), output.status), ("0\n64\n", 128 + 25), "{}", output.stderr);
}

fn launcher_can_raise_limits() -> bool {
    const CAP_SYS_RESOURCE: u32 = 24;
    let status = std::fs::read_to_string(format!("/proc/{}/status", service_pid("deputy-launcher"))).unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim();
    u64::from_str_radix(effective, 16).unwrap() >> CAP_SYS_RESOURCE & 1 == 1
}

#[test]
fn limits_that_a_login_has_are_the_jobs() {
    need_the_sandbox();
    std::fs::write("/etc/security/limits.d/suite-nofile.conf", "bob hard nofile 77\nbob soft core 0\n")
        .unwrap();
    deputyctl("portal", &["account", "add", "demo", "counted"]);
    deputyctl("portal", &["link", "request", "demo", "counted", "bob"]);
    assert_eq!(deputyctl("root", &["consent", "grant", "demo", "counted", "bob"]).status, 0);
    let argv = ["run", "--app", "demo", "--account", "counted", "--", "sh", "-c", "ulimit -Hn; ulimit -Sn"];
    let output = deputyctl("portal", &argv);
    assert_eq!((output.stdout.as_str(), output.status), ("77\n77\n", 0), "{}", output.stderr);
}
