//! The main job, end to end: the portal runs a command with `deputyctl`, and it runs as its user's OS account.
//! Refusals first.
#![forbid(unsafe_code)]

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use deputy_suite::machine::{children_of, launcher_pid, running, signal, wait_until};
use deputy_suite::people::command_as;
use deputy_suite::{Output, as_user, deputyctl, need_the_sandbox};

/// Held by each test: some of them count what the whole machine has.
static MACHINE: Mutex<()> = Mutex::new(());

/// Links alice's account, and waits for the machine.
fn machine() -> MutexGuard<'static, ()> {
    static ONCE: Once = Once::new();
    let guard = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    ONCE.call_once(|| {
        need_the_sandbox();
        for account in ["alice", "unlinked"] {
            ok(&deputyctl("portal", &["account", "add", "demo", account]));
        }
        ok(&deputyctl("root", &["consent", "grant", "demo", "alice", "alice"]));
        ok(&deputyctl("portal", &["link", "request", "demo", "alice", "alice"]));
    });
    guard
}

fn ok(output: &Output) -> &str {
    assert_eq!(output.status, 0, "{output:?}");
    &output.stdout
}

const RUN: [&str; 6] = ["run", "--app", "demo", "--account", "alice", "--"];

/// Runs a command for alice's account, asked for by the portal.
fn run(command: &[&str]) -> Output {
    deputyctl("portal", &[&RUN, command].concat())
}

/// A shell script of the portal's in which `$run` runs a command for alice's account.
fn portal_script(script: &str) -> Command {
    command_as("portal", &["bash", "-c", &format!("run='deputyctl {}'\n{script}", RUN.join(" "))])
}

fn refused(output: &Output, code: &str) {
    assert_eq!((output.status, output.stdout.as_str()), (125, ""), "{output:?}");
    assert!(output.stderr.starts_with(&format!("deputyctl: {code}: ")), "{output:?}");
    assert!(output.stderr.contains("\nremedy: "), "{output:?}");
}

#[test]
fn what_is_denied_is_125_with_its_code_and_remedy() {
    let _machine = machine();
    let mut as_account = RUN;
    as_account[4] = "unlinked";
    refused(&deputyctl("portal", &[&as_account[..], &["id"]].concat()), "NotLinked");
    as_account[4] = "nobody-at-all";
    refused(&deputyctl("portal", &[&as_account[..], &["id"]].concat()), "NotFound");
    let strict = ["run", "--app", "demo", "--account", "alice", "--kind", "strict", "--"];
    refused(&deputyctl("portal", &[&strict[..], &["/usr/bin/id", "-g"]].concat()), "CommandNotAllowed");
    refused(&deputyctl("otherportal", &[&RUN[..], &["id"]].concat()), "NotFound");
    refused(&deputyctl("bob", &[&RUN[..], &["id"]].concat()), "NotAuthorized");
}

#[test]
fn a_program_that_is_not_there_is_127_and_one_that_cannot_be_executed_126() {
    let _machine = machine();
    fs::write("/srv/not-executable", "#!/bin/sh\nexit 0\n").unwrap();
    fs::write("/srv/roots-alone", "#!/bin/sh\nexit 0\n").unwrap();
    ok(&as_user("root", &["chmod", "0700", "/srv/roots-alone"]));
    for missing in ["/nonexistent/program", "no-such-program-anywhere", "/etc/passwd/x"] {
        assert_eq!(run(&[missing]).status, 127, "{missing}");
    }
    for not_executable in ["/srv/not-executable", "/srv/roots-alone", "/srv"] {
        assert_eq!(run(&[not_executable]).status, 126, "{not_executable}");
    }
}

#[test]
fn a_job_is_its_os_account_and_nobody_else() {
    let _machine = machine();
    assert_eq!(ok(&run(&["id"])), as_user("alice", &["id"]).stdout);
    assert_eq!(ok(&run(&["id", "-G"])), as_user("alice", &["id", "-G"]).stdout);
    // What the job makes is alice's, and what it may not read, the kernel keeps from it.
    assert_eq!(
        ok(&run(&["sh", "-c", "umask 022; echo made > ~/made && stat -c %U:%G:%a ~/made"])),
        "alice:alice:644\n"
    );
    let output = run(&["cat", "/home/bob/.bashrc"]);
    assert_eq!((output.status, output.stdout.as_str()), (1, ""), "{output:?}");
    assert!(output.stderr.contains("Permission denied"), "{output:?}");
}

#[test]
fn exit_statuses_are_the_jobs_own() {
    let _machine = machine();
    for (script, status) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("kill -TERM $$", 143),
        ("kill -KILL $$", 137),
        ("kill -SEGV $$", 139),
    ] {
        assert_eq!(run(&["sh", "-c", script]).status, status, "{script}");
    }
}

#[test]
fn arguments_arrive_byte_by_byte() {
    let _machine = machine();
    let odd = ["", " ", "a b", "$HOME", "`id`", "--", "-c", "*", "\u{1}\n\t", "ä€😀", "'\""];
    let mut command = vec!["printf", "%s\\0"];
    command.extend(odd);
    assert_eq!(ok(&run(&command)), odd.map(|argument| format!("{argument}\0")).concat());
}

#[test]
fn standard_input_that_is_closed_or_empty_is_empty() {
    let _machine = machine();
    for input in ["<&-", "</dev/null", "< <(:)"] {
        let script = format!("$run sh -c 'cat; readlink /proc/self/fd/0 >&2; echo done' {input}");
        assert_eq!(ok(&deputy_suite::people::run(portal_script(&script))), "done\n", "{input}");
    }
}

#[test]
fn a_gibibyte_goes_through_unchanged_and_is_kept_nowhere() {
    const KIB: u64 = 1024;
    let _machine = machine();
    let daemons = [daemon_pid(), launcher_pid()];
    let before = daemons.map(peak_kib);
    let script = "\
        set -e -o pipefail\n\
        cd \"$(mktemp -d)\"\n\
        mkfifo copy\n\
        sha256sum < copy > sent &\n\
        head -c 1GiB /dev/urandom | tee copy | $run cat | tee >(wc -c > count) | sha256sum > received\n\
        wait\n\
        cmp sent received\n\
        until [ -s count ]; do sleep .01; done\n\
        cat count";
    let mut child = portal_script(script).stdout(Stdio::piped()).spawn().unwrap();
    // The client and the shepherd, while they live.
    let mut largest = 0;
    while child.try_wait().unwrap().is_none() {
        let shepherds = children_of(launcher_pid());
        let clients = running(&format!("deputyctl {} cat", RUN.join(" ")));
        largest = shepherds.into_iter().chain(clients).map(peak_kib).fold(largest, u64::max);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let mut count = String::new();
    child.stdout.take().unwrap().read_to_string(&mut count).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(count.trim(), (KIB * KIB * KIB).to_string());
    assert!((1..64 * KIB).contains(&largest), "client or shepherd had {largest} KiB");
    for (pid, before) in daemons.into_iter().zip(before) {
        let grown = peak_kib(pid) - before;
        assert!(grown < 16 * KIB, "{pid} grew by {grown} KiB");
    }
}

#[test]
fn a_client_that_is_killed_leaves_a_job_that_can_be_cancelled() {
    let _machine = machine();
    let mut client = portal_script("exec $run sleep 1000").stdout(Stdio::null()).spawn().unwrap();
    wait_until("the job runs", || !running("sleep 1000").is_empty());
    let clients = running(&format!("deputyctl {} sleep 1000", RUN.join(" ")));
    assert_eq!(clients.len(), 1);
    signal(clients[0], "KILL");
    client.wait().unwrap();
    let jobs: Vec<String> = running("sleep 1000").into_iter().map(owner_of).collect();
    assert_eq!(jobs, ["alice"], "the job goes on without its client");
    let id = running_job(ok(&deputyctl("portal", &["--json", "job", "list", "demo"])));
    ok(&deputyctl("portal", &["job", "cancel", &id]));
    wait_until("the job is gone", || running("sleep 1000").is_empty());
    wait_until("its end is recorded", || {
        ok(&deputyctl("portal", &["--json", "job", "show", &id])).contains("\"done\"")
    });
    wait_until_nothing_is_left();
}

#[test]
fn a_client_that_is_told_to_end_cancels_its_job() {
    let _machine = machine();
    let mut client = portal_script("exec $run sleep 2000").stdout(Stdio::null()).spawn().unwrap();
    wait_until("the job runs", || !running("sleep 2000").is_empty());
    let clients = running(&format!("deputyctl {} sleep 2000", RUN.join(" ")));
    signal(clients[0], "TERM");
    assert_eq!(client.wait().unwrap().code(), Some(143));
    assert_eq!(running("sleep 2000"), [0; 0]);
}

#[test]
fn a_thousand_jobs_leave_nothing_behind() {
    const MIB: u64 = 1024;
    let _machine = machine();
    let many = |count: u32| {
        let script = format!("for i in $(seq {count}); do $run true </dev/null || exit 1; done");
        ok(&deputy_suite::people::run(portal_script(&script)));
        wait_until_nothing_is_left();
    };
    // The first ones make what is made once: caches, pools, the view's pages.
    many(20);
    let descriptors = || [daemon_pid(), launcher_pid()].map(descriptors_of);
    let before = descriptors();
    many(180);
    let after_200 = resident_kib(daemon_pid());
    let launcher_after_200 = resident_kib(launcher_pid());
    many(800);
    assert_eq!(descriptors(), before);
    let grown = resident_kib(daemon_pid()).saturating_sub(after_200);
    assert!(grown < 24 * MIB, "deputyd grew by {grown} KiB over 800 jobs");
    let grown = resident_kib(launcher_pid()).saturating_sub(launcher_after_200);
    assert!(grown < MIB, "the launcher grew by {grown} KiB over 800 jobs");
}

/// What jobs can leave behind.
#[derive(Debug, Default, PartialEq, Eq)]
struct Left {
    shepherds: usize,
    processes_of_alice: usize,
    folders: Vec<String>,
    control_sockets: Vec<String>,
    cgroups: Vec<String>,
}

fn wait_until_nothing_is_left() {
    // deputyd lets the launcher forget many jobs at a time, a moment after their ends are in the ledger.
    wait_until("nothing is left of the jobs", || left() == Left::default());
}

fn left() -> Left {
    let cgroup = fs::read_to_string("/etc/deputy/deputy.toml").unwrap();
    let cgroup = cgroup.lines().find_map(|line| line.strip_prefix("cgroup = \"")?.strip_suffix('"'));
    let folders_in = |path: &str| {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        let folders = entries.filter(|entry| entry.path().is_dir());
        folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    Left {
        shepherds: children_of(launcher_pid()).len(),
        processes_of_alice: as_user("root", &["pgrep", "-u", "alice"]).stdout.lines().count(),
        folders: folders_in("/var/lib/deputy/jobs"),
        control_sockets: fs::read_dir("/run/deputy/jobs")
            .unwrap()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect(),
        cgroups: cgroup.map(folders_in).unwrap_or_default(),
    }
}

fn daemon_pid() -> i32 {
    fs::read_to_string("/run/deputy-sandbox/deputyd.pid").unwrap().trim().parse().unwrap()
}

fn descriptors_of(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// A line of `/proc/PID/status` in KiB; 0 for a process that has gone.
fn status_kib(pid: i32, name: &str) -> u64 {
    let status =
        fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_suffix(" kB"));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

fn resident_kib(pid: i32) -> u64 {
    status_kib(pid, "VmRSS:")
}

fn peak_kib(pid: i32) -> u64 {
    status_kib(pid, "VmHWM:")
}

fn owner_of(pid: i32) -> String {
    ok(&as_user("root", &["ps", "-o", "user=", "-p", &pid.to_string()])).trim().to_owned()
}

/// The id of the one job in a list that runs.
fn running_job(json: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(json).expect("JSON");
    let mut jobs = value.as_array().expect("a list of jobs").clone();
    jobs.retain(|job| job["state"] == "running");
    assert_eq!(jobs.len(), 1, "{json}");
    jobs[0]["id"].as_str().expect("an id").to_owned()
}
