//! `kill -9` of `deputyd`, the launcher, its children and Slurm's controller while jobs are submitted: each job is
//! submitted once or not at all, and the exact end of each that was is known.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deputy_suite::deputyctl;
use deputy_suite::machine::{children_of, service_pid, signal, wait_until};
use deputy_suite::people::as_user;
use deputy_suite::slurm::{PORTAL, machine, settings, show, submissions};

/// How many submit at once.
const CLIENTS: usize = 3;

/// How often something is killed.
const ROUNDS: usize = 8;

/// How many of the jobs have run at least: each kill leaves time for some.
const LEAST: usize = 10;

/// The states after which nothing happens.
const ENDED: [&str; 3] = ["done", "abandoned", "lost"];

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
    let pid = service_pid(name);
    signal(pid, "KILL");
    wait_until(&format!("{name} is back"), || service_pid(name) != pid);
}

/// Kills Slurm's controller, and waits until the next one answers.
fn kill_the_controller() {
    kill("slurmctld");
    wait_until("the controller answers", || as_user("root", &["squeue", "--noheader"]).status == 0);
}

#[test]
fn each_job_is_submitted_once_and_each_end_is_known_whoever_is_killed() {
    machine();
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
                _ => kill_the_controller(),
            }
        }
        done.store(true, Ordering::Relaxed);
        clients.into_iter().flat_map(|client| client.join().expect("a client")).collect()
    });
    // A submission of which nobody heard is asked about for a minute before it counts as never made.
    let mut all = BTreeMap::new();
    for _ in 0..300 {
        std::thread::sleep(Duration::from_secs(1));
        let Some(found) = jobs() else { continue };
        all = found;
        if all.values().all(|job| ENDED.contains(&job["state"].as_str().unwrap_or_default())) {
            break;
        }
    }
    assert!(!all.is_empty() && told.iter().all(|job| all.contains_key(job)), "{told:?}");
    let mut ran = 0;
    for (id, job) in &all {
        let record = show(id);
        let submitted = submissions(id);
        match job["state"].as_str() {
            Some("done") => {
                let wanted =
                    record["argv"].as_array().and_then(|argv| argv.last()).and_then(|word| word.as_str());
                assert_eq!(record["exit_code"].to_string(), wanted.unwrap_or_default(), "{record}");
                assert_eq!(submitted.len(), 1, "{record}");
                ran += 1;
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
    assert!(ran >= LEAST, "{ran} of {}: {all:?}", all.len());
}
