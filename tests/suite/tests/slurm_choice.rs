//! Where a job runs that may run at either place, what is said about it beforehand, and an array that is cancelled as a
//! whole. With a real Slurm. Refusals first.
#![forbid(unsafe_code)]

use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use deputy_core::Code;
use deputy_core::message::{LauncherReply, LauncherRequest, RunRequest, SubmitRequest};
use deputy_core::slurm::SlurmRequest;
use deputy_suite::fake::Fake;
use deputy_suite::machine::{add_service_user, install_application, service_pid, signal, wait_until};
use deputy_suite::people::{as_user, ok, refused};
use deputy_suite::requests::for_slurm;
use deputy_suite::slurm::{self, link, settings};
use deputy_suite::{Output, deputyctl, job_id, need_the_sandbox};
use serde_json::Value;

const PORTAL: &str = "choiceportal";

const APPLICATION: &str = r#"
service_user = "choiceportal"
trust = "application"
link = { shared = true }
executor = "auto"
[kinds.batch]
commands = ["*"]
limits = { memory = "64M", cpus = 1 }
[kinds.batch.slurm]
partitions = ["batch", "short"]
accounts = ["lab1"]
qos = ["normal"]
tasks = 2
array = 8
[kinds.here]
commands = ["*"]
executor = "local"
[kinds.there]
commands = ["*"]
executor = "slurm"
[kinds.there.slurm]
partitions = ["batch"]
accounts = "associations"
[kinds.gone]
commands = ["*"]
[kinds.gone.slurm]
partitions = ["batch"]
accounts = "associations"
clusters = ["nowhere"]
"#;

/// Slurm, and room for so many jobs here.
fn room(jobs: u32) {
    settings(&format!(
        "operator = \"slurm\"\nperiod_seconds = 1\n[executor.local.capacity]\njobs = {jobs}\ngpus = []"
    ));
}

fn exclusively() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::new(());
    static ONCE: Once = Once::new();
    let guard = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    ONCE.call_once(|| {
        need_the_sandbox();
        room(8);
        add_service_user(PORTAL);
        install_application("choice", APPLICATION);
        link("choice", PORTAL, "alice", "alice");
    });
    for state in ["running", "queued"] {
        let open = ok(&deputyctl(PORTAL, &["--json", "job", "list", "choice", "--state", state]));
        let open: Vec<Value> = serde_json::from_str(&open).unwrap();
        for job in open {
            // It may end by itself.
            let id = job["id"].as_str().unwrap().to_owned();
            deputyctl(PORTAL, &["job", "cancel", "--grace", "0", &id]);
            wait_until("nothing is left", || show(&id).get("ended").is_some());
        }
    }
    guard
}

fn run(options: &[&str], command: &[&str]) -> Output {
    let begin = ["run", "--app", "choice", "--account", "alice", "--detach"];
    deputyctl(PORTAL, &[&begin[..], options, &["--"], command].concat())
}

fn show(job: &str) -> Value {
    slurm::shown_to(PORTAL, job)
}

fn wait_for(job: &str, state: &str) {
    slurm::wait_until_shown(PORTAL, job, state);
}

fn explained(options: &[&str], command: &[&str]) -> Value {
    let begin = ["--json", "explain", "choice", "alice"];
    let output = deputyctl(PORTAL, &[&begin[..], options, &["--"], command].concat());
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Where a job runs and why, as its record and an explanation both say.
fn place(of: &Value) -> (&str, &str) {
    (of["executor"].as_str().unwrap_or("none"), of["chosen"].as_str().unwrap_or("none"))
}

#[test]
fn auto_is_for_kinds_that_may_run_at_both_places() {
    let _machine = exclusively();
    for kind in ["here", "there"] {
        let output = run(&["--kind", kind, "--executor", "auto"], &["true"]);
        assert_eq!(refused(&output), "ExecutorNotAllowed", "{kind}");
    }
    // What only Slurm has, and policy does not list, is refused there, whatever is free here.
    for options in [
        &["--partition", "long"][..],
        &["--slurm-account", "lab2"],
        &["--cluster", "second"],
        &["--qos", "x"],
    ] {
        assert_eq!(refused(&run(options, &["true"])), "ExecutorNotAllowed", "{options:?}");
    }
    assert_eq!(refused(&run(&["--tasks", "3"], &["true"])), "LimitNotAllowed");
    assert_ne!(run(&["--executor", "anywhere"], &["true"]).status, 0);
}

fn request(kind: &str) -> RunRequest {
    for_slurm("choice", kind, "alice", "alice")
}

#[test]
fn a_daemon_that_was_taken_over_chooses_nothing_that_policy_does_not_allow() {
    let _machine = exclusively();
    let denied = |request: &LauncherRequest| match Fake::daemon().ask(request, &[]).replies.first() {
        Some(LauncherReply::Denied(denial)) => Some(denial.code),
        _ => None,
    };
    let slurm = SlurmRequest::default;
    let submit = |kind| LauncherRequest::Submit(SubmitRequest { run: request(kind), slurm: slurm() });
    assert_eq!(denied(&LauncherRequest::Run(request("there"))), Some(Code::ExecutorNotAllowed));
    assert_eq!(denied(&submit("here")), Some(Code::ExecutorNotAllowed));
    assert_eq!(denied(&LauncherRequest::Run(request("batch"))), None);
    assert_eq!(denied(&submit("batch")), None);
}

#[test]
fn what_both_can_take_runs_here_while_there_is_room_and_at_slurm_after_that() {
    let _machine = exclusively();
    room(2);
    let sleep = ["sleep", "600"];
    for _ in 0..2 {
        assert_eq!(place(&explained(&[], &sleep)), ("local", "room"));
        let job = ok(&run(&[], &sleep));
        wait_for(&job, "running");
        assert_eq!(place(&show(&job)), ("local", "room"));
    }
    let said = explained(&[], &sleep);
    assert_eq!((place(&said), said["cluster"].as_str()), (("slurm", "no-room"), Some("default")), "{said}");
    let moved = ok(&run(&[], &["sh", "-c", "exit 7"]));
    wait_for(&moved, "done");
    let record = show(&moved);
    assert_eq!((place(&record), record["exit_code"].as_u64()), (("slurm", "no-room"), Some(7)), "{record}");
    assert!(record["slurm_job"].is_u64(), "{record}");
    // What only this machine has waits for it.
    assert_eq!(place(&explained(&["--cpus", "0.5"], &["true"])), ("local", "only-here"));
    for options in [&["--capture"][..], &["--pids", "50"], &["--cpus", "0.5"]] {
        let record = show(&ok(&run(options, &["true"])));
        assert_eq!((place(&record), record["state"].as_str()), (("local", "only-here"), Some("queued")));
    }
    // And so does what Slurm cannot be asked for: a cluster that is not there.
    let job = ok(&run(&["--kind", "gone"], &["true"]));
    assert_eq!((place(&show(&job)), show(&job)["state"].as_str()), (("local", "only-here"), Some("queued")));
}

#[test]
fn what_only_slurm_has_goes_there_whatever_is_free() {
    let _machine = exclusively();
    room(8);
    for options in [&["--partition", "short"][..], &["--tasks", "2"], &["--hold"], &["--cluster", "default"]]
    {
        let job = ok(&run(options, &["true"]));
        assert_eq!(place(&show(&job)), ("slurm", "only-slurm"), "{options:?}");
    }
    assert_eq!(place(&explained(&["--partition", "short"], &["true"])), ("slurm", "only-slurm"));
    // Who says where it runs has left nothing to choose.
    let job = ok(&run(&["--executor", "slurm"], &["true"]));
    assert_eq!(place(&show(&job)), ("slurm", "none"));
    let job = ok(&run(&["--executor", "local"], &["true"]));
    assert_eq!(place(&show(&job)), ("local", "none"));
}

#[test]
fn of_many_at_once_no_more_run_here_than_there_is_room_for_and_none_waits() {
    let _machine = exclusively();
    room(3);
    let jobs: Vec<String> = std::thread::scope(|scope| {
        let begun: Vec<_> =
            (0..8).map(|_| scope.spawn(|| ok(&run(&["--executor", "auto"], &["sleep", "600"])))).collect();
        begun.into_iter().map(|one| one.join().expect("a job")).collect()
    });
    for job in &jobs {
        wait_for(job, "running");
    }
    let here = jobs.iter().filter(|job| place(&show(job)) == ("local", "room")).count();
    let there = jobs.iter().filter(|job| place(&show(job)) == ("slurm", "no-room")).count();
    assert_eq!((here, there), (3, 5));
    // It was chosen once: a new daemon finds each where it is.
    let daemon = service_pid("deputyd");
    signal(daemon, "KILL");
    wait_until("deputyd is back", || {
        service_pid("deputyd") != daemon && deputyctl(PORTAL, &["job", "show", &jobs[0]]).status == 0
    });
    assert_eq!(jobs.iter().filter(|job| show(job)["executor"] == "local").count(), 3);
}

#[test]
fn it_is_said_beforehand_what_slurms_part_of_policy_refuses() {
    let _machine = exclusively();
    for options in [
        &["--kind", "there", "--partition", "long"][..],
        &["--kind", "there", "--cluster", "second"],
        &["--kind", "there", "--executor", "local"],
        &["--kind", "here", "--executor", "slurm"],
        &["--kind", "batch", "--executor", "slurm", "--slurm-account", "lab2"],
        &["--kind", "batch", "--executor", "slurm", "--qos", "high"],
        &["--kind", "batch", "--executor", "slurm", "--tasks", "3"],
        &["--kind", "batch", "--executor", "slurm", "--nodes", "2"],
        &["--kind", "batch", "--executor", "slurm", "--gpus", "1"],
        &["--kind", "batch", "--executor", "slurm", "--memory", "1G"],
        &["--kind", "batch", "--executor", "slurm", "--cpus", "0.5"],
        &["--kind", "gone", "--executor", "slurm"],
        &["--kind", "here", "--partition", "batch"],
    ] {
        let said = explained(options, &["true"]);
        let output = run(options, &["true"]);
        assert_eq!(said["allowed"], false, "{options:?}: {said}");
        assert_eq!(said["code"].as_str(), Some(refused(&output).as_str()), "{options:?}: {said}");
    }
    let said = explained(&["--kind", "there", "--partition", "batch"], &["true"]);
    assert_eq!((said["allowed"].as_bool(), place(&said)), (Some(true), ("slurm", "none")), "{said}");
    // The launcher's child looks too: a consent that is gone.
    ok(&deputyctl("root", &["consent", "grant", "choice", "bob", "bob"]));
    ok(&deputyctl(PORTAL, &["account", "add", "choice", "bob"]));
    ok(&deputyctl(PORTAL, &["link", "request", "choice", "bob", "bob"]));
    ok(&deputyctl("bob", &["--yes", "consent", "revoke", "choice", "bob"]));
    let of_bob = ["--json", "explain", "choice", "bob", "--kind", "there", "--", "true"];
    let said: Value = serde_json::from_str(&deputyctl(PORTAL, &of_bob).stdout).unwrap();
    assert_eq!(said["code"], "NoConsent", "{said}");
}

fn array(options: &[&str], command: &[&str]) -> (String, Vec<String>) {
    let jobs = ok(&run(&[&["--array", "0-7"], options].concat(), command));
    let jobs: Vec<String> = jobs.lines().map(str::to_owned).collect();
    (show(&jobs[0])["array"].as_str().expect("an array's id").to_owned(), jobs)
}

#[test]
fn an_array_is_cancelled_by_those_who_may_cancel_its_jobs_and_is_not_there_for_others() {
    let _machine = exclusively();
    room(8);
    let (id, jobs) = array(&[], &["sleep", "600"]);
    let cancel = |user: &str, id: &str| deputyctl(user, &["job", "cancel", "--array", id]);
    add_service_user("otherchoice");
    install_application(
        "otherchoice",
        "service_user = \"otherchoice\"\ntrust = \"application\"\n[kinds.batch]\ncommands = [\"*\"]",
    );
    let nobodys = job_id().to_string();
    let mut answers = Vec::new();
    for (user, id) in [
        ("otherchoice", id.as_str()),
        ("bob", &id),
        ("bob", &nobodys),
        (PORTAL, &nobodys),
        // A job's id is no array's.
        (PORTAL, &jobs[0]),
    ] {
        let output = cancel(user, id);
        assert_eq!(refused(&output), "NotFound", "{user} {id}");
        answers.push(output.stderr);
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_ne!(deputyctl(PORTAL, &["job", "cancel", &jobs[0], "--array", &id]).status, 0);
    assert_ne!(deputyctl(PORTAL, &["job", "cancel"]).status, 0);
    // One that has ended is left as it is, the others end: those that run, and those that are on their way.
    wait_for(&jobs[0], "running");
    ok(&deputyctl(PORTAL, &["job", "cancel", &jobs[0]]));
    wait_for(&jobs[0], "done");
    let told = ok(&deputyctl("alice", &["--json", "job", "cancel", "--array", &id]));
    let told: Vec<Value> = serde_json::from_str(&told).unwrap();
    assert_eq!(
        told.iter().filter_map(|job| job["index"].as_u64()).collect::<Vec<_>>(),
        (1..8).collect::<Vec<_>>()
    );
    for job in &jobs[1..] {
        wait_until("it has ended", || ["done", "abandoned"].contains(&show(job)["state"].as_str().unwrap()));
        let cause = show(job)["cause"].as_str().unwrap_or_default().to_lowercase();
        assert!(cause.contains("cancelled"), "{cause}");
    }
    assert_eq!(ok(&as_user("root", &["squeue", "--noheader", "--user=alice"])), "");
    assert_eq!(refused(&cancel(PORTAL, &id)), "NotFound");
}

#[test]
fn an_array_at_a_cluster_that_does_not_answer_is_not_told_to_be_cancelled() {
    let _machine = exclusively();
    let (id, jobs) = array(&[], &["sleep", "600"]);
    for job in &jobs {
        wait_for(job, "running");
    }
    let controller = service_pid("slurmctld");
    signal(controller, "STOP");
    let output = deputyctl(PORTAL, &["--json", "job", "cancel", "--array", &id]);
    signal(controller, "CONT");
    assert_eq!(output.status, 125, "{output:?}");
    let told: Vec<Value> = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(told.iter().filter(|job| job["code"] == "SlurmUnavailable").count(), 8, "{told:?}");
    // So it is said again, and then it is done.
    wait_until("Slurm takes it", || deputyctl(PORTAL, &["job", "cancel", "--array", &id]).status == 0);
    for job in &jobs {
        wait_for(job, "done");
    }
}
