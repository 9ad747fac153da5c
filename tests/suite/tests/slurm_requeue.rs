//! Jobs at a real Slurm that run again: who may have them do so, and what is told of their runs. Refusals first.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;

use deputy_core::Code;
use deputy_core::message::{LauncherReply, LauncherRequest, SubmitRequest};
use deputy_core::slurm::{SlurmCommand, SlurmRequest};
use deputy_suite::client::on_bus;
use deputy_suite::fake::Fake;
use deputy_suite::machine::{
    add_service_user, deputyd_stays_away, install_application, launcher_log, run as root, wait_until,
    wait_until_or,
};
use deputy_suite::people::{as_user, command_as, ok, refused, refused_with};
use deputy_suite::requests::{for_slurm, refusal_of, withdrawal};
use deputy_suite::slurm::{
    PORTAL, exclusively, field, link, number, open_at_slurm, run, settings, show, submissions, submit,
    usual_settings, wait_for,
};
use deputy_suite::{Output, deputyctl, job_id};

/// Writes a line each time it runs, and sleeps the first time; the second time it exits with 7.
const RUNS: &str = "echo this is run ${SLURM_RESTART_COUNT:-0 of all that will be}; echo run $SLURM_RESTART_COUNT >> $1; if [ -n \"$SLURM_RESTART_COUNT\" ]; then exit 7; fi; sleep 600";

fn again(options: &[&str], command: &[&str]) -> Output {
    let begin = ["run", "--app", "hpc", "--account", "alice", "--kind", "again"];
    deputyctl(PORTAL, &[&begin[..], options, &["--"], command].concat())
}

/// A job that may run again and writes down that it runs, when it does.
fn runs(file: &str) -> String {
    let output = format!("{file}.out");
    let options = ["--requeue", "--detach", "--stdout", &output];
    let job = ok(&again(&options, &["sh", "-c", RUNS, "sh", file]));
    wait_for(&job, "running");
    wait_until("it has written", || written(file) == ["run"]);
    job
}

fn written(file: &str) -> Vec<String> {
    fs::read_to_string(file).unwrap_or_default().lines().map(|line| line.trim().to_owned()).collect()
}

fn requeue(user: &str, job: &str) -> Output {
    deputyctl(user, &["job", "requeue", job])
}

/// Slurm would have it wait for two minutes.
fn start_now(job: &str) {
    let argument = format!("jobid={}", number(job));
    root("scontrol", &["update", &argument, "StartTime=now"]);
}

fn put_back(job: &str, requeues: u64) {
    wait_until_or(
        "it waits to run again",
        || show(job).to_string(),
        || {
            let record = show(job);
            record["state"] == "queued" && record["requeues"] == requeues
        },
    );
}

/// How often the ledger has this change of a job.
fn recorded(change: &str, job: &str) -> usize {
    let mut ledger = Vec::new();
    for entry in fs::read_dir("/var/lib/deputy/ledger").expect("the ledger") {
        ledger.extend(fs::read(entry.expect("a file").path()).expect("its bytes"));
    }
    String::from_utf8_lossy(&ledger).matches(&format!("\"{change}\":{{\"id\":\"{job}\"")).count()
}

#[test]
fn what_policy_does_not_let_run_again_is_refused_before_slurm_hears_of_it() {
    let _machine = exclusively();
    refused_with(&run("alice", &["--requeue", "--detach"], &["true"]), "ExecutorNotAllowed", "not run again");
    let explain = ["--json", "explain", "hpc", "alice", "--kind", "cluster", "--requeue", "--", "true"];
    let said: serde_json::Value = serde_json::from_str(&deputyctl(PORTAL, &explain).stdout).unwrap();
    assert_eq!((&said["code"], &said["allowed"]), (&"ExecutorNotAllowed".into(), &false.into()), "{said}");
    let here = ["run", "--app", "hpc", "--account", "alice", "--kind", "batch", "--requeue", "--", "true"];
    refused_with(&deputyctl(PORTAL, &here), "InvalidArgument", "requeue");
    // Somebody waits for an interactive one.
    assert_ne!(again(&["--requeue", "--interactive"], &["true"]).status, 0);
    // A script's directive is a request like any other.
    let script = "/srv/slurm/requeue.sh";
    let submits = |kind: &str| {
        deputyctl(
            PORTAL,
            &["submit", "--app", "hpc", "--account", "alice", "--kind", kind, "--parsable", script],
        )
    };
    fs::write(script, "#!/bin/sh\n#SBATCH --requeue\ntrue\n").unwrap();
    assert_eq!(refused(&submits("cluster")), "ExecutorNotAllowed");
    assert_eq!(open_at_slurm(), "");
    assert_eq!(field(&ok(&submits("again")), "Requeue"), "1");
    fs::write(script, "#!/bin/sh\n#SBATCH --no-requeue\ntrue\n").unwrap();
    for kind in ["cluster", "again"] {
        assert_eq!(field(&ok(&submits(kind)), "Requeue"), "0");
    }
    // A daemon that was taken over has the launcher's child against it.
    let run = for_slurm("hpc", "cluster", "alice", "alice");
    let slurm = SlurmRequest { requeue: true, ..SlurmRequest::default() };
    assert_eq!(refusal_of(SubmitRequest { run, slurm }), Some(Code::ExecutorNotAllowed));
}

#[test]
fn nobody_but_those_who_may_cancel_it_has_a_job_run_again_and_only_while_it_runs() {
    let _machine = exclusively();
    let file = "/srv/slurm/requeue.whose";
    let job = runs(file);
    add_service_user("againportal");
    let text = "service_user = \"againportal\"\ntrust = \"application\"\n[kinds.batch]\ncommands = [\"*\"]";
    install_application("otheragain", text);
    let nobodys = job_id().to_string();
    for stranger in ["bob", "againportal"] {
        let (theirs, none) = (requeue(stranger, &job), requeue(stranger, &nobodys));
        assert_eq!((refused(&theirs), refused(&none)), ("NotFound".into(), "NotFound".into()));
        assert_eq!(theirs.stderr.replace(&job, ""), none.stderr.replace(&nobodys, ""));
    }
    // One that did not ask for it, by the daemon's word and by the launcher's child's.
    let once = ok(&again(&["--detach"], &["sleep", "600"]));
    wait_for(&once, "running");
    assert_eq!(field(&number(&once), "Requeue"), "0");
    refused_with(&requeue(PORTAL, &once), "Conflict", "not submitted as one that may run again");
    let command = |job: &str| {
        let request =
            LauncherRequest::CommandAtSlurm { job: job.parse().unwrap(), command: SlurmCommand::Requeue };
        Fake::daemon().ask(&request, &[]).code()
    };
    assert_eq!((command(&once), command(&nobodys)), (Some(Code::Conflict), Some(Code::NotFound)));
    // One that waits, one of this machine's, and one that has ended.
    let held = ok(&again(&["--requeue", "--hold", "--detach"], &["true"]));
    number(&held);
    refused_with(&requeue(PORTAL, &held), "Conflict", "does not run");
    let here = ["run", "--app", "hpc", "--account", "alice", "--detach", "--", "sleep", "600"];
    let here = ok(&deputyctl(PORTAL, &here));
    refused_with(&requeue(PORTAL, &here), "InvalidArgument", "at Slurm");
    for job in [&here, &once, &held, &job] {
        ok(&deputyctl(PORTAL, &["job", "cancel", job]));
    }
    wait_for(&job, "done");
    refused_with(&requeue(PORTAL, &job), "Conflict", "has ended");
    assert_eq!(open_at_slurm(), "");
    assert_eq!(written(file), ["run"]);
    assert_eq!((show(&job)["requeues"].as_u64(), show(&once)["requeues"].as_u64()), (Some(0), None));
}

#[test]
fn without_consent_or_policy_no_further_run_begins_whatever_the_daemon_says() {
    let _machine = exclusively();
    let policy = |requeue: bool| {
        format!(
            "service_user = \"runagain\"\ntrust = \"application\"\nlink = {{ shared = true }}\n[kinds.batch]\ncommands = [\"*\"]\n\
             executor = \"slurm\"\n[kinds.batch.slurm]\npartitions = [\"batch\"]\naccounts = \"associations\"\nrequeue = {requeue}"
        )
    };
    add_service_user("runagain");
    install_application("runagain", &policy(true));
    link("runagain", "runagain", "alice", "alice");
    let begin =
        ["run", "--app", "runagain", "--account", "alice", "--requeue", "--detach", "--", "sleep", "600"];
    let job = ok(&deputyctl("runagain", &begin));
    let told = |state: &str| {
        let shown = ok(&deputyctl("runagain", &["--json", "job", "show", &job]));
        serde_json::from_str::<serde_json::Value>(&shown).unwrap()["state"] == state
    };
    wait_until("it runs", || told("running"));
    let command = || {
        let request =
            LauncherRequest::CommandAtSlurm { job: job.parse().unwrap(), command: SlurmCommand::Requeue };
        Fake::daemon().ask(&request, &[]).replies
    };
    let is = |code: Code| matches!(&command()[..], [LauncherReply::Denied(denial)] if denial.code == code);
    install_application("runagain", &policy(false));
    assert!(is(Code::ExecutorNotAllowed));
    assert_eq!(refused(&requeue("runagain", &job)), "ExecutorNotAllowed");
    install_application("runagain", &policy(true));
    // What somebody takes back ends what runs, and Slurm would run what it ended again for whoever owns it.
    let away = deputyd_stays_away();
    Fake::as_user("root").ask(&withdrawal("runagain", "alice", "alice", true), &[]);
    wait_until("it is ended", || open_at_slurm().is_empty());
    assert!(is(Code::NoConsent));
    assert_eq!(open_at_slurm(), "");
    away.back();
    wait_until("its end is known", || told("done"));
}

/// Slurm's programs as they are, but for `scontrol`, before which something happens.
fn something_before_scontrol(happens: &str) {
    fs::create_dir_all("/etc/slurm/again").unwrap();
    for name in ["sbatch", "scancel", "sacct", "squeue", "scontrol"] {
        let before = if name == "scontrol" { happens } else { "" };
        let path = format!("/etc/slurm/again/{name}");
        fs::write(&path, format!("#!/bin/sh\n{before}\nexec /usr/bin/{name} \"$@\"\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    settings("operator = \"slurm\"\nperiod_seconds = 1\nprograms = \"/etc/slurm/again\"");
}

#[test]
fn a_consent_that_is_taken_back_in_that_moment_ends_the_further_run() {
    let _machine = exclusively();
    let file = "/srv/slurm/requeue.moment";
    let job = runs(file);
    let at_slurm = number(&job);
    let deputyctl_is = ok(&as_user("alice", &["sh", "-c", "command -v deputyctl"]));
    something_before_scontrol(&format!(
        "{} --yes consent revoke hpc alice >/dev/null 2>&1",
        deputyctl_is.trim()
    ));
    let output = requeue(PORTAL, &job);
    usual_settings();
    ok(&deputyctl("root", &["consent", "grant", "hpc", "alice", "alice"]));
    assert_eq!(refused(&output), "NoConsent");
    // Slurm had taken it.
    assert_eq!(field(&at_slurm, "Restarts"), "1");
    assert!(launcher_log().contains("requeue_taken_back"));
    wait_for(&job, "done");
    assert_eq!((&show(&job)["cause"], open_at_slurm().as_str()), (&"cancelled".into(), ""));
    assert_eq!(written(file), ["run"]);
}

#[test]
fn what_did_not_ask_for_it_never_goes_back_whatever_becomes_of_it_at_slurm() {
    let _machine = exclusively();
    let job = submit("alice", &[], &["sleep", "600"]);
    wait_for(&job, "running");
    let at_slurm = number(&job);
    root("scontrol", &["update", &format!("jobid={at_slurm}"), "Requeue=1"]);
    root("scontrol", &["requeue", &at_slurm]);
    wait_until("Slurm has it wait", || open_at_slurm().ends_with(" PD"));
    wait_until("that is heard", || show(&job)["reason"] == "BeginTime");
    let record = show(&job);
    assert_eq!((record["state"].as_str(), record["requeues"].as_u64()), (Some("running"), None), "{record}");
    ok(&deputyctl(PORTAL, &["job", "cancel", &job]));
    wait_for(&job, "done");
    assert_eq!(show(&job)["cause"], "cancelled");
    assert_eq!((recorded("job-requeued", &job), recorded("job-ended", &job)), (0, 1));
}

#[test]
fn a_job_that_runs_again_is_told_of_in_order_and_its_end_is_that_of_its_last_run() {
    let _machine = exclusively();
    let file = "/srv/slurm/requeue.twice";
    let job = runs(file);
    let path = format!("/org/deputy/Deputy1/job/{job}");
    let pipe: OwnedFd = on_bus(PORTAL, async |client| {
        client.call_at::<_, zbus::OwnedFd>(&path, "Job.Watch", &()).await.expect("a pipe").into()
    });
    let mut waits = command_as(PORTAL, &["deputyctl", "job", "wait", &job]).spawn().expect("deputyctl");
    let log = "/srv/slurm/requeue.log";
    let mut follows = command_as("alice", &["deputyctl", "job", "logs", "-f", &job])
        .stdout(File::create(log).unwrap())
        .spawn()
        .expect("deputyctl");
    let read = || fs::read_to_string(log).unwrap();
    wait_until("the first run is read", || read() == "this is run 0 of all that will be\n");
    let first = show(&job)["started"].as_u64().expect("a start");
    // Its owner, in his own name.
    ok(&requeue("alice", &job));
    put_back(&job, 1);
    assert!(show(&job).get("started").is_none());
    refused_with(&requeue(PORTAL, &job), "Conflict", "does not run");
    wait_until("it says for what it waits", || show(&job)["reason"] == "BeginTime");
    start_now(&job);
    wait_for(&job, "done");
    assert_eq!(waits.wait().expect("its end").code(), Some(7));
    assert!(follows.wait().expect("its end").success());
    assert_eq!(read(), "this is run 0 of all that will be\nthis is run 1\n");
    let record = show(&job);
    assert_eq!((record["exit_code"].as_u64(), record["requeues"].as_u64()), (Some(7), Some(1)), "{record}");
    assert!(record["started"].as_u64() > Some(first), "{record}");
    assert_eq!(written(file), ["run", "run 1"]);
    let mut lines = String::new();
    File::from(pipe).read_to_string(&mut lines).unwrap();
    let mut states: Vec<String> = lines
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["state"].as_str().unwrap().to_owned()
        })
        .collect();
    // Whether its short last run is seen is chance.
    states.retain(|state| state != "running");
    assert_eq!(states, ["queued", "done"], "{lines}");
    assert!(lines.starts_with('{') && lines.lines().next().unwrap().contains("\"running\""), "{lines}");
    for once in ["job-queued", "job-submitted", "job-requeued", "job-ended", "job-commanded"] {
        assert_eq!(recorded(once, &job), 1, "{once}");
    }
    assert_eq!(submissions(&job).len(), 1);
}

#[test]
fn a_job_that_waits_to_run_again_survives_the_daemon_and_can_be_cancelled() {
    let _machine = exclusively();
    let file = "/srv/slurm/requeue.restart";
    let (job, other) = (runs(file), runs("/srv/slurm/requeue.cancelled"));
    ok(&requeue(PORTAL, &job));
    ok(&requeue(PORTAL, &other));
    // Whether it has heard what became of that or not.
    let away = deputyd_stays_away();
    away.back();
    put_back(&job, 1);
    put_back(&other, 1);
    ok(&deputyctl(PORTAL, &["job", "cancel", &other]));
    wait_for(&other, "done");
    let record = show(&other);
    assert_eq!((&record["cause"], &record["requeues"]), (&"cancelled".into(), &1.into()), "{record}");
    assert_eq!(written("/srv/slurm/requeue.cancelled"), ["run"]);
    // One that is cancelled before it has gone back.
    let hasty = runs("/srv/slurm/requeue.hasty");
    ok(&requeue(PORTAL, &hasty));
    ok(&deputyctl(PORTAL, &["job", "cancel", &hasty]));
    wait_for(&hasty, "done");
    assert_eq!(show(&hasty)["cause"], "cancelled");
    assert_eq!(written("/srv/slurm/requeue.hasty"), ["run"]);
    // Its last run begins and ends while nobody listens.
    let away = deputyd_stays_away();
    let name = format!("--name=deputy-{job}");
    let at_slurm = ok(&as_user("root", &["squeue", "--noheader", "--format=%i", &name]));
    root("scontrol", &["update", &format!("jobid={}", at_slurm.trim()), "StartTime=now"]);
    wait_until("it has run again", || written(file) == ["run", "run 1"] && open_at_slurm().is_empty());
    away.back();
    wait_for(&job, "done");
    let record = show(&job);
    assert_eq!((record["exit_code"].as_u64(), record["requeues"].as_u64()), (Some(7), Some(1)), "{record}");
    for job in [&job, &other] {
        assert_eq!((recorded("job-requeued", job), recorded("job-ended", job)), (1, 1));
    }
}

#[test]
fn runs_that_begin_and_end_while_nobody_listens_are_told_of_afterwards() {
    let _machine = exclusively();
    let (file, cancelled) = ("/srv/slurm/requeue.unseen", "/srv/slurm/requeue.unseen.cancelled");
    let (job, other) = (runs(file), runs(cancelled));
    let (at_slurm, other_there) = (number(&job), number(&other));
    let away = deputyd_stays_away();
    // Their owner needs nobody for that.
    for number in [&at_slurm, &other_there] {
        ok(&as_user("alice", &["scontrol", "requeue", number]));
    }
    wait_until("both wait", || open_at_slurm().lines().filter(|line| line.ends_with(" PD")).count() == 2);
    ok(&as_user("alice", &["scancel", &other_there]));
    root("scontrol", &["update", &format!("jobid={at_slurm}"), "StartTime=now"]);
    wait_until("it has run again", || written(file) == ["run", "run 1"] && open_at_slurm().is_empty());
    away.back();
    wait_for(&job, "done");
    wait_for(&other, "done");
    assert_eq!((&show(&job)["exit_code"], &show(&other)["cause"]), (&7.into(), &"cancelled".into()));
    for job in [&job, &other] {
        assert_eq!(show(job)["requeues"], 1);
        assert_eq!((recorded("job-requeued", job), recorded("job-ended", job)), (1, 1));
    }
    assert_eq!(written(cancelled), ["run"]);
}

#[test]
fn what_slurm_itself_puts_back_is_followed_and_what_ran_once_is_lost() {
    let _machine = exclusively();
    let file = "/srv/slurm/requeue.node";
    let job = runs(file);
    let once = submit("alice", &[], &["sleep", "600"]);
    wait_for(&once, "running");
    let node = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let node = format!("nodename={}", node.trim().split('.').next().unwrap());
    root("scontrol", &["update", &node, "state=down", "reason=test"]);
    put_back(&job, 1);
    wait_for(&once, "lost");
    wait_until("the node is back", || {
        // It may come back by itself.
        as_user("root", &["scontrol", "update", &node, "state=resume"]);
        ok(&as_user("root", &["sinfo", "--noheader", "--format=%T"])).lines().all(|state| state == "idle")
    });
    start_now(&job);
    wait_for(&job, "done");
    let record = show(&job);
    assert_eq!((record["exit_code"].as_u64(), record["requeues"].as_u64()), (Some(7), Some(1)), "{record}");
    assert_eq!(written(file), ["run", "run 1"]);
}
