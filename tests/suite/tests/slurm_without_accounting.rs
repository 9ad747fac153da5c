//! A real cluster without accounting: ends are the queue's word, exact for as long as it keeps them, and never guessed
//! afterwards. Refusals first.
//!
//! Deputy finds Slurm's programs in a folder where those of the accounting leave a mark and fail, so that a test sees that none
//! was run.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Child;
use std::sync::MutexGuard;

use deputy_core::Code;
use deputy_core::message::{ClusterPerson, ClusterRequest, LauncherReply, LauncherRequest, SubmitRequest};
use deputy_core::slurm::{ClusterName, SlurmRequest};
use deputy_suite::acting::identity;
use deputy_suite::deputyctl;
use deputy_suite::fake::Fake;
use deputy_suite::machine::{
    deputyd_stays_away, launcher_log, run as root, service_pid, shepherd_of, signal, wait_until,
};
use deputy_suite::people::{as_user, ok, refused, refused_with};
use deputy_suite::requests::{app, for_slurm, refusal_of};
use deputy_suite::slurm::{
    self, PORTAL, field, number, open_at_slurm, run, settings, show, sleeper, srun, submit, talk, wait_for,
};
use serde_json::Value;

/// Where Deputy finds Slurm's programs.
const PROGRAMS: &str = "/etc/slurm/programs";

/// What one of the accounting's leaves.
const MARK: &str = "/srv/slurm/asked";

/// The cluster's job completion.
const COMPLETION: &str = "/var/log/slurm/jobs.log";

const CONF: &str = "/etc/slurm/slurm.conf";

/// Puts a script in a program's place.
fn instead(name: &str, text: &str) {
    let (path, beside) = (format!("{PROGRAMS}/{name}"), format!("{PROGRAMS}/{name}.new"));
    fs::write(&beside, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(beside, path).unwrap();
}

fn set(more: &str) {
    settings(&format!(
        "operator = \"slurm\"\nends = \"queue\"\nperiod_seconds = 1\nprograms = \"{PROGRAMS}\"\n{more}"
    ));
}

/// The machine for one test; no program of the accounting may have run when it is over.
struct Machine {
    _alone: MutexGuard<'static, ()>,
}

impl Drop for Machine {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(!Path::new(MARK).exists(), "{}", fs::read_to_string(MARK).unwrap_or_default());
        }
    }
}

fn exclusively() -> Machine {
    let alone = slurm::exclusively();
    fs::create_dir_all(PROGRAMS).unwrap();
    for name in ["sbatch", "squeue", "scancel", "scontrol", "sinfo", "srun"] {
        fs::copy(format!("/usr/bin/{name}"), format!("{PROGRAMS}/{name}.new")).unwrap();
        fs::rename(format!("{PROGRAMS}/{name}.new"), format!("{PROGRAMS}/{name}")).unwrap();
    }
    for name in ["sacct", "sacctmgr"] {
        instead(name, &format!("echo {name} \"$@\" >> {MARK}; exit 1"));
    }
    set("");
    Machine { _alone: alone }
}

/// Sets for how long the queue keeps what has ended.
fn keep(seconds: u32) {
    let conf = fs::read_to_string(CONF).unwrap();
    let others: Vec<&str> = conf.lines().filter(|line| !line.starts_with("MinJobAge")).collect();
    fs::write(CONF, format!("{}\nMinJobAge={seconds}\n", others.join("\n"))).unwrap();
    root("scontrol", &["reconfigure"]);
    let wanted = format!("= {seconds} sec");
    wait_until("the controller has read it", || {
        let told = as_user("root", &["scontrol", "show", "config"]).stdout;
        told.lines().any(|line| line.starts_with("MinJobAge") && line.ends_with(&wanted))
    });
}

fn request(change: impl FnOnce(&mut SlurmRequest)) -> SubmitRequest {
    let mut slurm = SlurmRequest::default();
    change(&mut slurm);
    SubmitRequest { run: for_slurm("hpc", "cluster", "alice", "alice"), slurm }
}

#[test]
fn an_account_that_nobody_can_check_is_refused() {
    let _machine = exclusively();
    let named = run("alice", &["--slurm-account", "lab1"], &["true"]);
    refused_with(&named, "ExecutorNotAllowed", "has no accounting");
    let lab1 = |asked: &mut SlurmRequest| asked.account = "lab1".parse().ok();
    assert_eq!(refusal_of(request(lab1)), Some(Code::ExecutorNotAllowed));
    assert_eq!(refusal_of(request(|_| {})), None);
    // One of a list is policy's word.
    let listed = ["run", "--app", "hpc", "--account", "alice", "--kind", "listed", "--detach", "--", "true"];
    let job = ok(&deputyctl(PORTAL, &listed));
    wait_for(&job, "done");
    assert_eq!((field(&number(&job), "Account"), &show(&job)["status"]), ("lab1".into(), &0.into()));
}

#[test]
fn settings_that_do_not_fit_the_cluster_are_told_and_no_end_is_made_up() {
    let _machine = exclusively();
    for word in ["completion", "", "Queue"] {
        settings(&format!("ends = \"{word}\""));
        assert_eq!(refused(&run("alice", &[], &["true"])), "SlurmUnavailable", "{word:?}");
        assert_eq!(refusal_of(request(|_| {})), Some(Code::SettingsInvalid), "{word:?}");
    }
    // As if there were accounting: Slurm's own word is told, with what is to be done.
    settings("operator = \"slurm\"\nperiod_seconds = 1\nlost_after_seconds = 1");
    let job = submit("alice", &[], &["true"]);
    let slurm = number(&job);
    wait_until("Slurm has ended it", || field(&slurm, "JobState") == "COMPLETED");
    let told = ok(&deputyctl(PORTAL, &["--json", "resources", "--account", "alice"]));
    assert!(told.contains("SlurmUnavailable") && told.contains("accounting_storage"), "{told}");
    let log = || fs::read_to_string("/var/log/deputy-sandbox/deputyd.log").unwrap_or_default();
    wait_until("it is in the log", || log().contains("accounting storage is disabled"));
    assert_ne!(show(&job)["state"], "done");
    set("");
    wait_for(&job, "done");
    assert_eq!(show(&job)["status"], 0);
}

#[test]
fn a_job_that_the_queue_forgot_is_lost_whatever_its_job_completion_says() {
    let _machine = exclusively();
    set("lost_after_seconds = 4");
    keep(2);
    let waits = |name: &str| format!("until [ -e /srv/slurm/{name} ]; do sleep 0.1; done");
    let job = submit("alice", &[], &["sh", "-c", &waits("forgotten")]);
    let failed = submit("alice", &[], &["sh", "-c", &format!("{}; exit 3", waits("forgotten"))]);
    let numbers = [&job, &failed].map(|job| number(job));
    for job in [&job, &failed] {
        wait_for(job, "running");
    }
    let away = deputyd_stays_away();
    fs::write("/srv/slurm/forgotten", "").unwrap();
    for slurm in &numbers {
        wait_until("the queue has forgotten it", || {
            let shown = as_user("root", &["scontrol", "show", "job", slurm]);
            shown.status != 0
        });
    }
    // It says how they ended, and what anybody makes it say: a name of several lines is several lines there.
    let line = format!(
        "JobId={} UserId=alice(1001) GroupId=alice(1001) Name=deputy-{failed} JobState=COMPLETED",
        numbers[1]
    );
    let forged = format!("--job-name=x\n{line}");
    let wrap = ["sbatch", "--chdir=/", "--output=/dev/null", "--wrap=true", &forged];
    ok(&as_user("bob", &wrap));
    let written = || fs::read_to_string(COMPLETION).unwrap();
    wait_until("it has what bob wrote", || written().lines().any(|one| one.starts_with(&line)));
    let own = format!("JobId={} ", numbers[0]);
    assert!(written().lines().any(|line| line.starts_with(&own) && line.contains("JobState=COMPLETED")));
    away.back();
    for job in [&job, &failed] {
        wait_for(job, "lost");
        let cause = "Slurm's queue no longer has it, and the cluster has no accounting";
        assert_eq!(show(job)["cause"], cause);
    }
    keep(300);
}

#[test]
fn a_submission_whose_answer_is_lost_is_looked_for_in_the_queue_and_made_once() {
    let _machine = exclusively();
    let no_answer = "echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2; exit 1";
    // Slurm took it, and nobody heard.
    instead("sbatch", &format!("/usr/bin/sbatch \"$@\" > /dev/null; {no_answer}"));
    let job = submit("alice", &[], &["sh", "-c", "exit 5"]);
    wait_for(&job, "done");
    assert_eq!(show(&job)["exit_code"], 5);
    let name = format!("--name=deputy-{job}");
    let known = ok(&as_user("root", &["squeue", "--noheader", "--states=all", "--format=%i", &name]));
    assert_eq!(known, number(&job));
    // Slurm never heard of it, and would still have it.
    instead("sbatch", no_answer);
    refused_with(&run("alice", &[], &["true"]), "SlurmUnavailable", "does not have the job");
    // A queue that keeps nothing says nothing: it may have run.
    keep(2);
    let job = submit("alice", &[], &["true"]);
    wait_until("it is asked about again", || {
        let made = fs::metadata(format!("/var/lib/deputy/jobs/{job}/slurm.submitting")).unwrap();
        made.modified().unwrap().elapsed().unwrap_or_default().as_secs() > 45
    });
    wait_for(&job, "lost");
    keep(300);
}

#[test]
fn exits_and_signals_are_exact_and_the_time_is_told() {
    let _machine = exclusively();
    let jobs = [
        ("exit 0", 0),
        ("exit 3", 3),
        ("exit 127", 127),
        ("exit 128", 128),
        ("exit 255", 255),
        ("kill -TERM $$", 143),
        ("kill -KILL $$", 137),
        ("kill -USR1 $$", 138),
    ]
    .map(|(script, status)| (submit("alice", &[], &["sh", "-c", script]), status));
    for (job, status) in jobs {
        wait_for(&job, "done");
        let record = show(&job);
        assert_eq!((&record["status"], &record["cause"]), (&status.into(), &Value::Null), "{record}");
    }
    let job = submit("alice", &[], &["sh", "-c", "sleep 2.5; exit 4"]);
    assert_eq!(deputyctl(PORTAL, &["job", "wait", &job]).status, 4);
    let record = show(&job);
    assert!(record["wall_us"].as_u64() >= Some(2_000_000), "{record}");
    // By each OS account for itself, where there is no operator.
    settings(&format!("ends = \"queue\"\nperiod_seconds = 1\nprograms = \"{PROGRAMS}\""));
    let (hers, his) = (submit("alice", &[], &["sh", "-c", "exit 200"]), submit("bob", &[], &["true"]));
    for (job, status) in [(&hers, 200), (&his, 0)] {
        wait_for(job, "done");
        assert_eq!(show(job)["status"], status);
    }
}

#[test]
fn a_cancel_is_verified_and_a_signal_arrives() {
    let _machine = exclusively();
    let running = submit("alice", &[], &["sleep", "600"]);
    let trap = "trap 'exit 42' USR1; touch /srv/slurm/trap; while :; do sleep 0.1; done";
    let listens = submit("alice", &[], &["bash", "-c", trap]);
    let waiting = submit("alice", &["--hold"], &["true"]);
    wait_for(&running, "running");
    wait_until("it is held", || show(&waiting)["reason"] == "JobHeldUser");
    wait_until("the job listens", || Path::new("/srv/slurm/trap").exists());
    for job in [&running, &waiting] {
        ok(&deputyctl(PORTAL, &["job", "cancel", job]));
    }
    ok(&deputyctl(PORTAL, &["job", "signal", &listens, "USR1"]));
    wait_for(&running, "done");
    let record = show(&running);
    assert_eq!((&record["cause"], &record["signal"]), (&"cancelled".into(), &15.into()), "{record}");
    wait_for(&waiting, "abandoned");
    assert_eq!(show(&waiting)["cause"], "Slurm: CANCELLED before it ran");
    wait_for(&listens, "done");
    assert_eq!(show(&listens)["exit_code"], 42);
}

#[test]
fn what_ended_while_deputyd_or_the_controller_was_away_is_known_exactly() {
    let _machine = exclusively();
    let script = |code: u8| format!("until [ -e /srv/slurm/away ]; do sleep 0.1; done; exit {code}");
    let jobs: Vec<(String, u8)> = [0, 1, 255]
        .into_iter()
        .map(|code| (submit("alice", &[], &["sh", "-c", &script(code)]), code))
        .collect();
    for (job, _) in &jobs {
        wait_for(job, "running");
    }
    let numbers: Vec<String> = jobs.iter().map(|(job, _)| number(job)).collect();
    let away = deputyd_stays_away();
    fs::write("/srv/slurm/away", "").unwrap();
    for slurm in &numbers {
        wait_until("it has ended", || ["COMPLETED", "FAILED"].contains(&field(slurm, "JobState").as_str()));
    }
    let controller = service_pid("slurmctld");
    signal(controller, "TERM");
    wait_until("the controller is back", || {
        service_pid("slurmctld") != controller && as_user("root", &["squeue", "--noheader"]).status == 0
    });
    away.back();
    for (job, code) in jobs {
        wait_for(&job, "done");
        assert_eq!(show(&job)["exit_code"], code);
    }
}

#[test]
fn chains_and_arrays_run() {
    let _machine = exclusively();
    let jobs = ok(&run("alice", &["--detach", "--array", "0-3"], &["sh", "-c", "exit $SLURM_ARRAY_TASK_ID"]));
    let jobs: Vec<&str> = jobs.lines().collect();
    for (job, code) in jobs.iter().zip(0_u64..) {
        wait_for(job, "done");
        assert_eq!(show(job)["exit_code"], code);
    }
    let after = |job: &str| format!("--dependency=afterok:{job}");
    refused_with(&run("alice", &[&after(jobs[3])], &["true"]), "Conflict", "");
    let first = submit("alice", &["--hold"], &["true"]);
    number(&first);
    let second = submit("alice", &[&after(&first), &after(jobs[0])], &["true"]);
    ok(&deputyctl(PORTAL, &["job", "release", &first]));
    wait_for(&second, "done");
    assert_eq!(show(&first)["status"], 0);
}

#[test]
fn an_interactive_job_is_over_when_slurm_has_nothing_more_of_it() {
    let _machine = exclusively();
    let output = deputy_suite::people::run(talk(&[], &["sh", "-c", "sleep 1.2; echo said; exit 7"]));
    assert_eq!((output.status, output.stdout.as_str()), (7, "said\n"), "{output:?}");
    let listed = ok(&deputyctl(PORTAL, &["--json", "job", "list", "hpc"]));
    let jobs: Vec<Value> = serde_json::from_str(&listed).unwrap();
    let record = show(jobs[0]["id"].as_str().unwrap());
    assert_eq!((&record["exit_code"], &record["cause"]), (&7.into(), &Value::Null), "{record}");
    assert!(record["wall_us"].as_u64() >= Some(1_000_000), "{record}");
    assert_eq!(open_at_slurm(), "");
    // One that is cancelled, and one whose shepherd is killed.
    let (child, job) = sleeper();
    ok(&deputyctl(PORTAL, &["job", "cancel", &job]));
    over(child, &job, "done");
    assert_eq!(show(&job)["cause"], "cancelled");
    let (child, job) = sleeper();
    signal(shepherd_of(srun()), "KILL");
    over(child, &job, "lost");
}

fn over(mut child: Child, job: &str, state: &str) {
    wait_for(job, state);
    assert_eq!(open_at_slurm(), "");
    child.wait().unwrap();
}

#[test]
fn a_time_limit_is_slurms_word() {
    let _machine = exclusively();
    let job = submit("alice", &["--time-limit", "60"], &["sleep", "600"]);
    let talked = deputy_suite::people::run(talk(&["--time-limit", "60"], &["sleep", "600"]));
    assert_ne!(talked.status, 0, "{talked:?}");
    wait_for(&job, "done");
    let record = show(&job);
    assert_eq!((&record["cause"], &record["signal"]), (&"time-limit".into(), &15.into()), "{record}");
    let listed = ok(&deputyctl(PORTAL, &["--json", "job", "list", "hpc"]));
    let jobs: Vec<Value> = serde_json::from_str(&listed).unwrap();
    assert_eq!(show(jobs[0]["id"].as_str().unwrap())["cause"], "time-limit");
}

#[test]
fn what_there_is_is_told_and_that_there_are_no_associations() {
    let _machine = exclusively();
    let of = |os_user: &str, account: &str| {
        let person = ClusterPerson {
            application: app("hpc"),
            account: account.parse().unwrap(),
            os_account: identity(os_user),
        };
        let request = ClusterRequest { cluster: ClusterName::default(), of: Some(person) };
        let answers = Fake::daemon().ask(&LauncherRequest::Cluster(request), &[]);
        match answers.replies.into_iter().next() {
            Some(LauncherReply::Denied(denial)) => Err(denial.code),
            Some(LauncherReply::Cluster(cluster)) => Ok(cluster),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(of("bob", "alice").map(drop), Err(Code::NoConsent));
    assert!(
        of("alice", "alice").is_ok_and(|cluster| cluster.associations.is_empty() && cluster.nodes.len() == 1)
    );
    let told = |options: &[&str]| -> Value {
        serde_json::from_str(&ok(&deputyctl(PORTAL, &[&["--json", "resources"], options].concat()))).unwrap()
    };
    let found = told(&["--account", "alice"]);
    assert_eq!(found["without_accounting"], serde_json::json!(["default"]), "{found}");
    assert_eq!(found["associations"].as_array().map_or(0, Vec::len), 0, "{found}");
    assert_eq!(found["partitions"].as_array().map(Vec::len), Some(2), "{found}");
    assert_eq!((&found["unavailable"], &told(&[])["without_accounting"]), (&Value::Null, &Value::Null));
    let shown = deputyctl(PORTAL, &["resources", "--account", "alice"]);
    assert!(format!("{shown:?}").contains("no accounting"), "{shown:?}");
    assert!(!launcher_log().contains("slurm_strange"));
}
