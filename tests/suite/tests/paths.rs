//! G1: `deputyd` has no power of its own and opens no path outside its own folders. G11: root code opens no path that
//! a user can influence. Both are watched with strace while people use Deputy.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Stdio;

use deputy_suite::machine::service_pid;
use deputy_suite::people::{command_as, run};
use deputy_suite::trace::{Opened, Trace};
use deputy_suite::{as_user, deputyctl, need_the_sandbox};

fn ok(user: &str, arguments: &[&str]) {
    let output = deputyctl(user, arguments);
    assert_eq!(output.status, 0, "{arguments:?}: {}{}", output.stdout, output.stderr);
}

/// What people do with Deputy, with names, folders and programs of their own choice.
fn use_deputy(account: &str) {
    ok("portal", &["account", "add", "demo", account]);
    let mut link =
        command_as("portal", &["deputyctl", "link", "add", "demo", account, "alice", "--answers-fd", "0"]);
    let mut child = link.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "wonder").unwrap();
    assert!(child.wait().unwrap().success());
    ok("portal", &["link", "list", "demo"]);
    // A finding is no failure here; what matters is that the examiner looked.
    deputyctl("root", &["link", "check", "demo", account, "alice"]);
    as_user(
        "alice",
        &[
            "sh",
            "-c",
            "mkdir -p ~/bin ~/.config && echo 'X=1' > ~/.pam_environment && printf '#!/bin/sh\\necho mine\\n' > ~/bin/tool && chmod +x ~/bin/tool",
        ],
    );
    let run_it = [
        "run",
        "--app",
        "demo",
        "--account",
        account,
        "--cwd",
        "/home/alice/bin",
        "--",
        "/home/alice/bin/tool",
    ];
    let output = deputyctl("portal", &run_it);
    assert_eq!(output.stdout, "mine\n", "{}", output.stderr);
    ok("portal", &["job", "list", "demo"]);
    ok("alice", &["consent", "list"]);
    ok("alice", &["--yes", "consent", "revoke", "demo", account]);
}

#[test]
fn deputyd_has_no_power_of_its_own() {
    need_the_sandbox();
    let pid = service_pid("deputyd");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = |name: &str| {
        let line =
            status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}"));
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let daemon = as_user("root", &["id", "-u", "deputy"]).stdout.trim().to_owned();
    assert_eq!(line("Uid:"), vec![daemon; 4]);
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(line(set), ["0000000000000000"], "{set}");
    }
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    assert!(maps.contains("deputyd") && !maps.contains("libpam"), "{maps}");
    // The launcher, for comparison, is what has them.
    let launcher = fs::read_to_string(format!("/proc/{}/maps", service_pid("deputy-launcher"))).unwrap();
    assert!(launcher.contains("libpam"));
}

/// What `deputyd` may open: its own folders, what root wrote down for Deputy, the name service's files, and what the
/// C library and the runtime look at of the process itself.
const OF_DEPUTYD: [&str; 13] = [
    "/var/lib/deputy/ledger",
    "/var/lib/deputy/view",
    "/var/lib/deputy/secrets",
    "/run/deputyd",
    "/etc/deputy",
    "/etc/passwd",
    "/etc/group",
    "/etc/nsswitch.conf",
    "/etc/ld.so.cache",
    "/lib/",
    "/usr/lib/",
    "/proc/self/",
    "/dev/null",
];

#[test]
fn deputyd_opens_only_its_own_folders_and_what_root_wrote_down() {
    need_the_sandbox();
    let trace = Trace::of_service("deputyd");
    use_deputy("watched-daemon");
    let opened = trace.finish();
    let strange: BTreeSet<_> = opened
        .iter()
        .map(|opened| opened.path.as_str())
        // Each file of `/etc/deputy` is reached from the root directory, one component at a time.
        .filter(|path| !matches!(*path, "/" | "/etc"))
        .filter(|path| !OF_DEPUTYD.iter().any(|allowed| path.starts_with(allowed)))
        .collect();
    assert!(strange.is_empty(), "{strange:?}");
    assert!(
        opened.iter().any(|opened| opened.path.starts_with("/etc/deputy")),
        "the trace saw it work: {opened:?}"
    );
}

/// Whether anybody but root could have decided what is at this path: a component that exists and is not root's, or
/// that others can write.
fn can_be_influenced(path: &str) -> bool {
    // `/proc/self` and `/proc/PID` of root's own processes, and devices, are the kernel's.
    if path.starts_with("/proc/") || path.starts_with("/dev/") || path.starts_with("/sys/fs/cgroup/") {
        return false;
    }
    Path::new(path).ancestors().any(|component| match fs::symlink_metadata(component) {
        Ok(metadata) => {
            let writable = metadata.mode() & 0o022 != 0 && !metadata.file_type().is_symlink();
            metadata.uid() != 0 || writable
        }
        Err(_) => false,
    })
}

fn by_root(opened: &[Opened]) -> impl Iterator<Item = &Opened> {
    opened.iter().filter(|opened| !opened.after_the_drop)
}

#[test]
fn root_code_opens_no_path_that_a_user_can_influence() {
    need_the_sandbox();
    let trace = Trace::of_service("deputy-launcher");
    use_deputy("watched-launcher");
    let opened = trace.finish();
    let influenced: BTreeSet<_> =
        by_root(&opened).map(|opened| opened.path.as_str()).filter(|path| can_be_influenced(path)).collect();
    assert!(influenced.is_empty(), "{influenced:?}");
    // The trace saw the jobs, and the check would have seen a user's file.
    assert!(by_root(&opened).any(|opened| opened.path.ends_with("/demo.toml")), "{opened:?}");
    assert!(
        opened.iter().any(|opened| opened.after_the_drop && opened.path.contains("/home/alice")),
        "{opened:?}"
    );
    assert!(can_be_influenced("/home/alice/bin/tool") && can_be_influenced("/tmp/x"));
    let _ = run(command_as("alice", &["rm", "-f", "/home/alice/.pam_environment"]));
}
