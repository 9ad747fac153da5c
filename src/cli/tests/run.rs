//! `deputyctl run` against a stand-in for `deputyd`.

mod fake;

use std::io::{Read as _, Write as _};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use fake::Bus;
use rustix::process::{Pid, Signal, kill_process};

const RUN: [&str; 6] = ["run", "--app", "portal", "--account", "alice", "--"];

fn run(bus: &Bus, words: &[&str]) -> (i32, String, String) {
    bus.run(&[&RUN[..], words].concat())
}

#[test]
fn the_exit_status_is_the_jobs_own() {
    let bus = Bus::new();
    for status in ["0", "7", "143", "255"] {
        assert_eq!(run(&bus, &["exit", status]), (status.parse().unwrap(), String::new(), String::new()));
    }
}

#[test]
fn what_never_ran_is_126_or_127_with_the_reason() {
    let bus = Bus::new();
    let (status, out, err) = run(&bus, &["missing"]);
    assert_eq!((status, out.as_str()), (127, ""));
    assert!(
        err.starts_with("deputyctl: LaunchFailed: missing: exec failed: No such file or directory"),
        "{err}"
    );
    let (status, _, err) = run(&bus, &["cannot"]);
    assert_eq!(status, 126);
    assert!(err.contains("Permission denied") && err.contains("\nremedy: "), "{err}");
}

#[test]
fn deputys_own_failures_are_125() {
    let bus = Bus::new();
    let (status, out, err) = run(&bus, &["denied"]);
    assert_eq!((status, out.as_str()), (125, ""));
    assert_eq!(err, "deputyctl: NoConsent: nobody\\x1bc consented\nremedy: link it\n");
    let (status, _, err) = run(&bus, &["lost"]);
    assert_eq!(status, 125);
    assert!(err.starts_with("deputyctl: JobLost: ") && err.contains("the machine died"), "{err}");
    assert!(err.contains("deputyctl job show abcdefghijklmnop"), "{err}");
}

#[test]
fn the_jobs_descriptors_are_the_callers_own() {
    let bus = Bus::new();
    let folder = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251).to_le_bytes()[0]).collect();
    std::fs::write(folder.path().join("in"), &content).unwrap();
    let open = |name| {
        std::fs::File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(folder.path().join(name))
            .unwrap()
    };
    let status = bus
        .deputyctl(&[&RUN[..], &["echo"]].concat())
        .stdin(open("in"))
        .stdout(open("out"))
        .stderr(open("err"))
        .status()
        .unwrap();
    assert!(status.success());
    assert!(std::fs::read(folder.path().join("out")).unwrap() == content);
    assert_eq!(std::fs::read_to_string(folder.path().join("err")).unwrap(), "to standard error\n");
    assert_eq!(bus.jobs.terminals(), [false; 3]);
    // One call that runs, and brings what is watched: nothing else is in the way of a launch.
    let calls: Vec<_> = bus.calls.lock().unwrap().iter().map(|(method, _)| method.clone()).collect();
    assert_eq!(calls, ["Jobs.Run"]);
}

#[test]
fn a_terminal_for_the_job_needs_one_of_the_persons() {
    let bus = Bus::new();
    let (status, out, err) =
        bus.run(&[&RUN[..5], &["--interactive", "--terminal", "--", "exit", "0"]].concat());
    assert_eq!((status, out.as_str()), (125, ""));
    assert!(err.starts_with("deputyctl: InvalidArgument: --terminal needs a terminal"), "{err}");
    for words in
        [&["--terminal"][..], &["--interactive", "--detach"], &["--interactive", "--terminal", "--merge"]]
    {
        let (status, _, err) = bus.run(&[&RUN[..5], words, &["--", "exit", "0"]].concat());
        assert_eq!(status, 125, "{words:?}");
        assert!(err.starts_with("error: the "), "{err}");
    }
    assert!(bus.calls.lock().unwrap().is_empty());
}

#[test]
fn pipes_carry_both_ways_and_end() {
    let bus = Bus::new();
    let mut child = bus
        .deputyctl(&[&RUN[..], &["echo"]].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"to and fro").unwrap();
    assert_eq!(
        fake::outcome(child.wait_with_output().unwrap()),
        (0, "to and fro".into(), "to standard error\n".into())
    );
}

#[test]
fn what_was_asked_for_arrives() {
    let bus = Bus::new();
    let words = [
        "run",
        "--app",
        "portal",
        "--account",
        "alice",
        "--session",
        "/org/deputy/Deputy1/session/abc",
        "--kind",
        "notebook",
        "--cwd",
        "/data",
        "--env",
        "A=1",
        "--env",
        "B=x=y",
        "--",
        "exit",
        "0",
    ];
    assert_eq!(bus.run(&words).0, 0);
    let options = bus.jobs.options();
    assert_eq!(options["subject"], "/org/deputy/Deputy1/session/abc");
    for (name, value) in [("application", "portal"), ("kind", "notebook")] {
        assert!(options[name].contains(value), "{options:?}");
    }
    assert!(options.contains_key("directory") && options.contains_key("environment"), "{options:?}");
}

#[test]
fn every_option_becomes_one_of_the_call() {
    let bus = Bus::new();
    let folder = tempfile::tempdir().unwrap();
    let (script, variables) = (folder.path().join("job.sh"), folder.path().join("env"));
    std::fs::write(&script, "#!/bin/sh\n").unwrap();
    std::fs::write(&variables, "TOKEN=s3cret\n").unwrap();
    let line = format!(
        "run --app portal --account alice --detach --name nightly --umask 027 --group lab1 --memory 1G --cpus 1.5 --gpus 2 \
         --pids 9 --files 64 --core 0 --time-limit 2h --grace 5 --nice 10 --stdin in --stdout out --append --merge \
         --script {} --env-file {} -- a b",
        script.display(),
        variables.display()
    );
    let (status, out, err) = bus.run(&line.split_whitespace().collect::<Vec<_>>());
    assert_eq!((status, out.as_str(), err.as_str()), (0, "abcdefghijklmnop\n", ""));
    let options = bus.jobs.options();
    for (name, value) in [
        ("name", "nightly"),
        ("umask", "027"),
        ("os_group", "lab1"),
        ("memory", "1073741824"),
        ("cpus", "1.5"),
        ("gpus", "2"),
        ("pids", "9"),
        ("files", "64"),
        ("core", "0"),
        ("time_limit_seconds", "7200"),
        ("grace_seconds", "5"),
        ("nice", "10"),
        ("stderr", "stdout"),
        ("stdout_append", "true"),
    ] {
        assert!(options[name].contains(value), "{name}: {options:?}");
    }
    for name in ["stdin", "stdout", "script", "environment_fd"] {
        assert!(options.contains_key(name), "{name}: {options:?}");
    }
    assert!(!options.contains_key("watch") && !options.contains_key("stderr_append"), "{options:?}");
    assert_eq!(bus.jobs.secret(), b"TOKEN=s3cret\0");
    assert!(!format!("{options:?}").contains("s3cret"));
    let (_, out, _) =
        bus.run(&["--json", "run", "--app", "portal", "--account", "alice", "-d", "--capture", "exit", "0"]);
    assert!(out.contains("\"id\":\"abcdefghijklmnop\""), "{out}");
    assert!(bus.jobs.options()["stderr"].contains("capture"));
}

#[test]
fn what_no_job_can_have_is_refused_before_anything_is_asked() {
    let bus = Bus::new();
    for wrong in [
        &["--memory", "1.5G"][..],
        &["--cpus", "0"],
        &["--pids", "0"],
        &["--time-limit", "0"],
        &["--grace", "3601"],
        &["--nice", "20"],
        &["--nice", "-1"],
        &["--gpus", "65536"],
        &["--name", "a/b"],
        &["--capture", "--stdout", "x"],
        &["--merge", "--stderr", "x"],
        &["--script", "/nonexistent/script"],
        &["--env-file", "/nonexistent/file"],
    ] {
        let line = [&["run", "--app", "portal", "--account", "alice"], wrong, &["--", "exit", "0"]].concat();
        let (status, out, err) = bus.run(&line);
        assert_eq!((status, out.as_str()), (125, ""), "{wrong:?}: {err}");
    }
    assert_eq!(bus.run(&["run", "--app", "portal", "--account", "alice"]).0, 125);
    assert!(bus.calls.lock().unwrap().is_empty());
}

#[test]
fn output_is_followed_across_a_restart_of_the_daemon_and_nothing_comes_twice() {
    let bus = Bus::new();
    let gap = "\n[deputy: 90 bytes left out]\n";
    let (status, out, err) = bus.run(&["job", "logs", "abcdefghijklmnop"]);
    assert_eq!((status, out, err), (0, format!("one\n{gap}two\n"), String::new()));
    let bus = Bus::new();
    let (status, out, err) = bus.run(&["job", "logs", "-f", "abcdefghijklmnop"]);
    assert_eq!((status, out, err), (0, format!("one\n{gap}two\nthree\n"), String::new()));
}

#[test]
fn a_job_is_followed_across_a_restart_of_the_daemon() {
    let bus = Bus::new();
    assert_eq!(run(&bus, &["restarted"]), (5, String::new(), String::new()));
}

fn started(bus: &Bus, words: &[&str]) -> Child {
    let child = bus.deputyctl(&[&RUN[..], words].concat()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while !bus.calls.lock().unwrap().iter().any(|(method, _)| method == "Jobs.Run") {
        assert!(begun.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(10));
    }
    child
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), signal).unwrap();
}

#[test]
fn the_first_signal_cancels_the_job() {
    for sent in [Signal::INT, Signal::TERM, Signal::HUP] {
        let bus = Bus::new();
        let mut child = started(&bus, &["wait"]);
        signal(&child, sent);
        assert_eq!(child.wait().unwrap().code(), Some(143));
        assert!(bus.calls.lock().unwrap().iter().any(|(method, _)| method == "Job.Cancel"));
    }
}

#[test]
fn the_second_signal_ends_deputyctl() {
    let bus = Bus::new();
    let mut child = started(&bus, &["stubborn"]);
    signal(&child, Signal::INT);
    std::thread::sleep(Duration::from_millis(200));
    assert!(child.try_wait().unwrap().is_none());
    signal(&child, Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
    let mut err = String::new();
    child.stderr.unwrap().read_to_string(&mut err).unwrap();
    assert!(err.contains("deputyctl job show abcdefghijklmnop"), "{err}");
}
