//! `kill -9` of `deputyd`, the launcher, its children and Slurm's controller while jobs are submitted: each job is
//! submitted once or not at all, and the exact end of each that was is known.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deputy_suite::deputyctl;
use deputy_suite::machine::{children_of, service_pid, signal, wait_until};
use deputy_suite::slurm::{PORTAL, machine, show, submissions};

/// Clients, and how many jobs each submits.
const CLIENTS: usize = 4;
const JOBS: usize = 10;

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

#[test]
fn each_job_is_submitted_once_and_each_end_is_known_whoever_is_killed() {
    machine();
    let done = AtomicBool::new(false);
    let told = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                scope.spawn(move || {
                    let mut told = Vec::new();
                    for job in 0..JOBS {
                        let status = (client * JOBS + job).to_string();
                        let begin =
                            ["run", "--app", "hpc", "--account", "alice", "--kind", "cluster", "--detach"];
                        let argv = ["--executor", "slurm", "--", "sh", "-c", "exit $1", "sh", &status];
                        let output = deputyctl(PORTAL, &[&begin[..], &argv].concat());
                        // What was told to be accepted has to be known afterwards; of the others nothing is known.
                        if output.status == 0 {
                            told.push(output.stdout.trim().to_owned());
                        }
                    }
                    told
                })
            })
            .collect();
        scope.spawn(|| {
            let mut round = 0;
            while !done.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(700));
                match round % 4 {
                    0 => kill("deputyd"),
                    1 => kill("slurmctld"),
                    2 => kill("deputy-launcher"),
                    // A submission of which nobody hears.
                    _ => children_of(service_pid("deputy-launcher")).into_iter().take(1).for_each(|pid| {
                        let _ = deputy_suite::as_user("root", &["kill", "-9", &pid.to_string()]);
                    }),
                }
                round += 1;
            }
        });
        let told: Vec<String> =
            clients.into_iter().flat_map(|client| client.join().expect("a client")).collect();
        done.store(true, Ordering::Relaxed);
        told
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
            Some("abandoned" | "lost") => assert!(submitted.is_empty(), "{record}: {submitted:?}"),
            other => panic!("{other:?}"),
        }
    }
    assert!(ran > CLIENTS * JOBS / 4, "{ran} of {} ran", all.len());
}
