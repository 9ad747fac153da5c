//! What jobs write, what they are given beside descriptors, and services: end to end with `deputyctl`. Refusals first.
#![forbid(unsafe_code)]

use std::fs;
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use deputy_suite::machine::{
    add_service_user, install_application, running, service_pid, signal, wait_until,
};
use deputy_suite::people::{command_as, refused};
use deputy_suite::{Output, deputyctl, need_the_sandbox};

const PORTAL: &str = "outputportal";

/// Held by each test: some of them kill the daemon that the others need.
fn machine() -> MutexGuard<'static, ()> {
    static ONCE: Once = Once::new();
    static MACHINE: Mutex<()> = Mutex::new(());
    let guard = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    ONCE.call_once(|| {
        need_the_sandbox();
        add_service_user(PORTAL);
        install_application(
            "outputs",
            "service_user = \"outputportal\"\ntrust = \"application\"\nenvironment = [\"APP_*\"]\n\
             [kinds.batch]\ncommands = [\"*\"]\n\
             [kinds.fixed]\ncommands = [\"/usr/bin/true\"]\n\
             [kinds.small]\ncommands = [\"*\"]\noutput = \"64K\"\n\
             [kinds.portal]\ncommands = [\"*\"]\nservice = true\n",
        );
        ok(&deputyctl(PORTAL, &["account", "add", "outputs", "ann"]));
        ok(&deputyctl("root", &["consent", "grant", "outputs", "ann", "alice"]));
        ok(&deputyctl(PORTAL, &["link", "request", "outputs", "ann", "alice"]));
    });
    wait_until("deputyd answers", || deputyctl(PORTAL, &["status"]).status == 0);
    guard
}

/// The output of what worked, byte by byte.
fn ok(output: &Output) -> String {
    assert_eq!(output.status, 0, "{output:?}");
    output.stdout.clone()
}

fn run(options: &[&str], command: &[&str]) -> Output {
    let line = [&["run", "--app", "outputs", "--account", "ann"], options, &["--"], command].concat();
    deputyctl(PORTAL, &line)
}

/// Runs a job in the background and gives its id.
fn detached(options: &[&str], script: &str) -> String {
    ok(&run(&[&["--detach"], options].concat(), &["sh", "-c", script])).trim().to_owned()
}

fn logs(options: &[&str], job: &str) -> Output {
    deputyctl(PORTAL, &[&["job", "logs"], options, &[job]].concat())
}

#[test]
fn output_that_is_not_captured_or_not_ones_own_cannot_be_read() {
    let _machine = machine();
    let job = detached(&[], "echo nothing");
    assert!(refused(&logs(&[], &job)).contains("NotFound"));
    let job = detached(&["--capture"], "echo secret");
    deputyctl(PORTAL, &["job", "wait", &job]);
    for stranger in ["otherportal", "bob"] {
        let output = deputyctl(stranger, &["job", "logs", &job]);
        assert_ne!(output.status, 0, "{stranger}");
        assert!(!output.stdout.contains("secret"), "{stranger}");
    }
    // The owner of the OS account reads what ran as his own.
    assert_eq!(ok(&deputyctl("alice", &["job", "logs", &job])), "secret\n");
    let script = "/tmp/outputs-script";
    fs::write(script, "#!/bin/sh\n").unwrap();
    let output = run(&["--kind", "fixed", "--script", script], &[]);
    assert!(output.stderr.contains("CommandNotAllowed"), "{output:?}");
}

#[test]
fn captured_output_is_kept_with_both_streams_apart_and_in_bounds() {
    let _machine = machine();
    let job = detached(&["--capture"], "echo out; echo err >&2; exit 3");
    assert_eq!(deputyctl(PORTAL, &["job", "wait", &job]).status, 3);
    assert_eq!(ok(&logs(&[], &job)), "out\n");
    assert_eq!(ok(&logs(&["--stderr"], &job)), "err\n");
    assert_eq!(ok(&logs(&["-f", "--offset", "1"], &job)), "ut\n");
    let job = detached(&["--kind", "small", "--capture", "--merge"], "seq 1 200000");
    deputyctl(PORTAL, &["job", "wait", &job]);
    let text = ok(&logs(&[], &job));
    assert!(text.starts_with("1\n2\n3\n") && text.ends_with("\n199999\n200000\n"));
    assert!(text.contains("[deputy: ") && text.len() < 100_000, "{} bytes", text.len());
}

#[test]
fn followers_see_the_same_bytes_across_a_killed_daemon() {
    let _machine = machine();
    let job = detached(&["--capture"], "for i in $(seq 1 40); do echo line $i; sleep .1; done");
    let follow = || {
        command_as(PORTAL, &["deputyctl", "job", "logs", "-f", &job]).stdout(Stdio::piped()).spawn().unwrap()
    };
    let followers = [follow(), follow()];
    std::thread::sleep(std::time::Duration::from_secs(1));
    signal(service_pid("deputyd"), "KILL");
    let seen = followers.map(|follower| {
        let output = follower.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    });
    let expected: String = (1..=40).fold(String::new(), |text, number| text + &format!("line {number}\n"));
    assert_eq!(seen, [expected.clone(), expected.clone()]);
    assert_eq!(ok(&logs(&[], &job)), expected);
}

#[test]
fn files_scripts_and_secret_variables_reach_the_job_and_nothing_else() {
    let _machine = machine();
    let (script, variables) = ("/tmp/outputs-job.sh", "/tmp/outputs-env");
    fs::write(script, "#!/bin/sh\necho \"$APP_TOKEN $1\"; id -un >&2\n").unwrap();
    fs::write(variables, "APP_TOKEN=s3cret-of-outputs\n").unwrap();
    let options = [
        "--script",
        script,
        "--env-file",
        variables,
        "--stdout",
        "outputs.txt",
        "--stderr",
        "outputs.txt",
        "--append",
        "--umask",
        "077",
        "--name",
        "nightly",
    ];
    for _ in 0..2 {
        let output = run(&options, &["argument"]);
        assert_eq!((output.status, output.stderr.as_str()), (0, ""), "{output:?}");
    }
    let written = fs::read_to_string("/home/alice/outputs.txt").unwrap();
    assert_eq!(written, "s3cret-of-outputs argument\nalice\n".repeat(2));
    let ledger = fs::read_dir("/var/lib/deputy/ledger").unwrap().flatten();
    for segment in ledger.filter(|entry| entry.path().extension().is_some_and(|kind| kind == "ledger")) {
        let bytes = fs::read(segment.path()).unwrap();
        assert!(!bytes.windows(17).any(|window| window == b"s3cret-of-outputs"));
    }
    let missing = run(&["--stdout", "/nonexistent/file"], &["true"]);
    assert_eq!(missing.status, 126, "{missing:?}");
    assert!(missing.stderr.contains("open stdout"), "{missing:?}");
}

#[test]
fn a_service_goes_on_after_a_failure_and_a_killed_daemon_and_ends_when_cancelled() {
    let _machine = machine();
    let first = detached(&["--kind", "portal"], "exec sleep 4321");
    wait_until("the service runs", || running("sleep 4321").len() == 1);
    signal(running("sleep 4321")[0], "KILL");
    wait_until("its end is seen", || running("sleep 4321").is_empty());
    signal(service_pid("deputyd"), "KILL");
    wait_until("it runs again", || running("sleep 4321").len() == 1);
    let json = |id: &str| {
        serde_json::from_str::<serde_json::Value>(&ok(&deputyctl(PORTAL, &["--json", "job", "show", id])))
            .unwrap()
    };
    wait_until("deputyd answers", || deputyctl(PORTAL, &["job", "show", &first]).status == 0);
    assert_eq!(json(&first)["signal"], 9);
    let list = ok(&deputyctl(PORTAL, &["--json", "job", "list", "outputs", "--state", "running"]));
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    let second = list.as_array().unwrap().iter().find(|job| job["kind"] == "portal").unwrap();
    let second = second["id"].as_str().unwrap();
    assert_eq!(json(second)["predecessor"], first.as_str());
    ok(&deputyctl(PORTAL, &["job", "cancel", second]));
    wait_until("it has ended", || running("sleep 4321").is_empty());
    wait_until("its cause is told", || json(second)["cause"] == "cancelled");
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert!(running("sleep 4321").is_empty(), "it was started again");
}
