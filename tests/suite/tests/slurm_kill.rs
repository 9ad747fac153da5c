//! `kill -9` of `deputyd`, the launcher and its children, and restarts of Slurm's controller, while jobs are submitted: each
//! job is submitted once or not at all, and the exact end of each that was is known.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deputy_suite::deputyctl;
use deputy_suite::machine::{children_of, service_pid, signal, wait_until};
use deputy_suite::people::as_user;
use deputy_suite::slurm::{PORTAL, exclusively, settings, show, submissions};

/// How many submit at once.
const CLIENTS: usize = 3;

/// How often something is killed.
const ROUNDS: usize = 8;

/// How many of the jobs have run at least: each kill leaves time for some.
const LEAST: usize = 10;

/// How many jobs the storm of arrays and chains has; `DEPUTY_SOAK=1` makes it a thousand.
fn storm() -> usize {
    if std::env::var_os("DEPUTY_SOAK").is_some() { 1000 } else { 60 }
}

/// The states after which nothing happens.
const ENDED: [&str; 3] = ["done", "abandoned", "lost"];

/// What the cluster's administrator does when a controller that was killed has given a number again that the node still has:
/// the node then takes no more jobs.
fn resume_the_node() {
    let node = as_user("root", &["sinfo", "--noheader", "--format=%n %t"]);
    for (name, state) in node.stdout.lines().filter_map(|line| line.split_once(' ')) {
        if state.starts_with("drain") || state.starts_with("drng") {
            as_user("root", &["scontrol", "update", &format!("nodename={name}"), "state=resume"]);
        }
    }
}

/// The open and ended jobs of the application, by id; none while `deputyd` is away.
fn jobs() -> Option<BTreeMap<String, serde_json::Value>> {
    let output = deputyctl(PORTAL, &["--json", "job", "list", "hpc"]);
    if output.status != 0 {
        return None;
    }
    let records: Vec<serde_json::Value> = serde_json::from_str(&output.stdout).expect("records");
    Some(
        records
            .into_iter()
            .map(|record| (record["id"].as_str().expect("an id").to_owned(), record))
            .collect(),
    )
}

/// Kills a service, and waits for the next one.
fn kill(name: &str) {
    end(name, "KILL");
}

fn end(name: &str, how: &str) {
    let pid = service_pid(name);
    signal(pid, how);
    wait_until(&format!("{name} is back"), || service_pid(name) != pid);
}

/// Has Slurm's controller started again, and waits until it answers. It is told to end: one that is killed forgets what it
/// took last, gives its numbers again, and has jobs run on that have long ended.
fn restart_the_controller() {
    end("slurmctld", "TERM");
    wait_until("the controller answers", || as_user("root", &["squeue", "--noheader"]).status == 0);
    resume_the_node();
}

#[test]
fn each_job_is_submitted_once_and_each_end_is_known_whoever_is_killed() {
    let _machine = exclusively();
    settings("operator = \"slurm\"\nperiod_seconds = 1\nlost_after_seconds = 20");
    let done = AtomicBool::new(false);
    let told: Vec<String> = std::thread::scope(|scope| {
        let submit = |client: usize| -> Vec<String> {
            let mut told = Vec::new();
            for job in 0.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                let status = ((client + job * CLIENTS) % 100).to_string();
                let begin = ["run", "--app", "hpc", "--account", "alice", "--kind", "cluster", "--detach"];
                let argv = ["--executor", "slurm", "--", "sh", "-c", "exit $1", "sh", &status];
                let output = deputyctl(PORTAL, &[&begin[..], &argv].concat());
                // What was told to be accepted has to be known afterwards; of the others nothing is known.
                if output.status == 0 {
                    told.push(output.stdout.trim().to_owned());
                }
                std::thread::sleep(Duration::from_millis(500));
            }
            told
        };
        let clients: Vec<_> = (0..CLIENTS).map(|client| scope.spawn(move || submit(client))).collect();
        for round in 0..ROUNDS {
            std::thread::sleep(Duration::from_secs(2));
            match round % 4 {
                0 => kill("deputyd"),
                1 => kill("deputy-launcher"),
                // A submission of which nobody hears.
                2 => children_of(service_pid("deputy-launcher")).into_iter().take(1).for_each(|pid| {
                    as_user("root", &["kill", "-9", &pid.to_string()]);
                }),
                _ => restart_the_controller(),
            }
        }
        done.store(true, Ordering::Relaxed);
        clients.into_iter().flat_map(|client| client.join().expect("a client")).collect()
    });
    let all = settled();
    assert!(!all.is_empty() && told.iter().all(|job| all.contains_key(job)), "{told:?}");
    let ran = check(&all, code_of);
    assert!(ran >= LEAST, "{ran} of {}: {all:?}", all.len());
}

/// All jobs of the application, when each has come to an end.
fn settled() -> BTreeMap<String, serde_json::Value> {
    // A submission of which nobody heard is asked about for a minute before it counts as never made.
    let mut all = BTreeMap::new();
    for _ in 0..1800 {
        std::thread::sleep(Duration::from_secs(1));
        resume_the_node();
        let Some(found) = jobs() else { continue };
        all = found;
        if all.values().all(|job| ENDED.contains(&job["state"].as_str().unwrap_or_default())) {
            break;
        }
    }
    all
}

/// Each was submitted once or not at all, and has the exit code that it has to have. How many ran.
fn check(all: &BTreeMap<String, serde_json::Value>, wanted: impl Fn(&serde_json::Value) -> String) -> usize {
    let mut ran = 0;
    for (id, job) in all {
        let record = show(id);
        let submitted = submissions(id);
        match job["state"].as_str() {
            // A controller that was killed gives numbers again that a node still has, ends the job by itself and calls it
            // cancelled, until it knows better. Then no exit is made up, and it was not submitted again.
            Some("done") if record["cause"] == "cancelled" => {
                assert_eq!(record["exit_code"], serde_json::Value::Null, "{record}");
                assert!(submitted.len() <= 1, "{record}: {submitted:?}");
            }
            Some("done") => {
                assert_eq!(record["exit_code"].to_string(), wanted(&record), "{record}");
                assert_eq!(submitted.len(), 1, "{record}");
                ran += 1;
            }
            // What it waited for cannot come any more: it was submitted, and never ran.
            Some("abandoned")
                if record["cause"].as_str().is_some_and(|cause| cause.starts_with("Slurm: ")) =>
            {
                assert!(submitted.len() <= 1, "{record}: {submitted:?}");
            }
            // The id was given up, or Slurm did not take it: then it has nothing of it.
            Some("abandoned") => assert!(submitted.is_empty(), "{record}: {submitted:?}"),
            // A controller that is killed forgets what it took in its last seconds, or how it ended. Then nothing of it
            // waits or runs, and it was not submitted again.
            Some("lost") => {
                let name = format!("--name=deputy-{id}");
                let queue = as_user("root", &["squeue", "--noheader", &name]);
                assert_eq!((queue.status, queue.stdout.as_str()), (0, ""), "{record}");
                assert!(submitted.len() <= 1, "{record}: {submitted:?}");
            }
            other => panic!("{other:?}"),
        }
    }
    ran
}

/// What the last word of a job says, or its index, or nothing: the exit code that it has to have.
fn code_of(record: &serde_json::Value) -> String {
    if let Some(index) = record["index"].as_u64() {
        return index.to_string();
    }
    let argv = record["argv"].as_array().expect("a command");
    argv.last().and_then(|word| word.as_str()).unwrap_or_default().to_owned()
}

#[test]
fn arrays_and_chains_end_exactly_and_none_is_submitted_twice_whoever_is_killed() {
    let _machine = exclusively();
    settings("operator = \"slurm\"\nperiod_seconds = 1\nlost_after_seconds = 20");
    let before = jobs().expect("deputyd").into_keys().collect::<Vec<_>>();
    let done = AtomicBool::new(false);
    let begin =
        ["run", "--app", "hpc", "--account", "alice", "--kind", "storm", "--detach", "--executor", "slurm"];
    let half = storm() / 2;
    let told: Vec<String> = std::thread::scope(|scope| {
        // Arrays of twenty.
        let arrays = scope.spawn(|| {
            let mut told = Vec::new();
            while told.len() < half {
                let command = ["--array", "1-20", "--", "sh", "-c", "exit $SLURM_ARRAY_TASK_ID"];
                let output = deputyctl(PORTAL, &[&begin[..], &command].concat());
                if output.status == 0 {
                    told.extend(output.stdout.lines().map(str::to_owned));
                }
                std::thread::sleep(Duration::from_secs(1));
            }
            told
        });
        // Chains of four: each waits for the one before, which ends as it has to.
        let chains = scope.spawn(|| {
            let mut told: Vec<String> = Vec::new();
            let mut before: Option<(String, usize)> = None;
            while told.len() < half {
                let code = told.len() % 4;
                let waits = before.as_ref().filter(|_| code > 0).map(|(job, code)| {
                    format!("--dependency={}:{job}", if *code == 0 { "afterok" } else { "afternotok" })
                });
                let code_word = code.to_string();
                let command = ["--", "sh", "-c", "exit $1", "sh", &code_word];
                let waits: Vec<&str> = waits.iter().map(String::as_str).collect();
                let output = deputyctl(PORTAL, &[&begin[..], &waits, &command].concat());
                if output.status == 0 {
                    let job = output.stdout.trim().to_owned();
                    told.push(job.clone());
                    before = Some((job, code));
                } else if code > 0 && !output.stderr.contains("not answer") && !output.stderr.contains("Busy")
                {
                    // What it would wait for may be lost, or never have run: another chain.
                    before = None;
                    let skipped = 4 - code;
                    told.extend((0..skipped).map(|_| String::new()));
                }
                std::thread::sleep(Duration::from_millis(200));
            }
            told.retain(|job| !job.is_empty());
            told
        });
        let killer = scope.spawn(|| {
            for round in 0.. {
                std::thread::sleep(Duration::from_secs(3));
                if done.load(Ordering::Relaxed) {
                    break;
                }
                match round % 3 {
                    0 => kill("deputyd"),
                    1 => kill("deputy-launcher"),
                    _ => restart_the_controller(),
                }
            }
        });
        let mut told = arrays.join().expect("the arrays");
        told.extend(chains.join().expect("the chains"));
        done.store(true, Ordering::Relaxed);
        killer.join().expect("the killer");
        told
    });
    let mut all = settled();
    all.retain(|id, _| !before.contains(id));
    assert!(told.iter().all(|job| all.contains_key(job)), "{told:?}");
    let ran = check(&all, code_of);
    println!("{ran} of {} ran", all.len());
    assert!(ran * 2 > told.len(), "{ran} of {}: {all:?}", all.len());
}
