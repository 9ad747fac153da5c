//! Jobs at a real Slurm that wait: for others, for nodes with features, until they are released; and arrays. Refusals first.
#![forbid(unsafe_code)]

use std::fs;

use deputy_core::Code;
use deputy_core::message::{LauncherReply, LauncherRequest, SubmitRequest};
use deputy_core::slurm::{Dependency, SlurmRequest, When};
use deputy_suite::fake::Fake;
use deputy_suite::machine::{add_service_user, install_application, run as root, wait_until};
use deputy_suite::people::{as_user, ok, refused, refused_with};
use deputy_suite::requests::for_slurm;
use deputy_suite::slurm::{
    PORTAL, exclusively, field, link, number, run, show, submissions, submit, wait_for,
};
use deputy_suite::{Output, deputyctl, job_id};

fn after(when: &str, job: &str) -> String {
    format!("--dependency={when}:{job}")
}

#[test]
fn what_is_no_own_job_at_slurm_is_not_waited_for() {
    let _machine = exclusively();
    let (hers, his) = (submit("alice", &[], &["true"]), submit("bob", &[], &["true"]));
    number(&hers);
    number(&his);
    let nobodys = job_id().to_string();
    for stranger in [&his, &nobodys] {
        assert_eq!(refused(&run("alice", &[&after("afterany", stranger)], &["true"])), "NotFound");
    }
    // Another application of the same OS account.
    add_service_user("orderportal");
    let text = "service_user = \"orderportal\"\ntrust = \"application\"\nlink = { shared = true }\n[kinds.batch]\ncommands = [\"*\"]\n[kinds.batch.slurm]\npartitions = [\"batch\"]\naccounts = \"associations\"";
    install_application("order", text);
    link("order", "orderportal", "alice", "alice");
    let begin = ["run", "--app", "order", "--account", "alice", "--executor", "slurm", "--detach"];
    let waits = after("afterany", &hers);
    assert_eq!(
        refused(&deputyctl("orderportal", &[&begin[..], &[&waits, "--", "true"]].concat())),
        "NotFound"
    );
    let local = ["run", "--app", "hpc", "--account", "alice", "--detach", "--"];
    let local_job = ok(&deputyctl(PORTAL, &[&local[..], &["true"]].concat()));
    refused_with(
        &run("alice", &[&after("after", &local_job)], &["true"]),
        "InvalidArgument",
        "at Slurm alone",
    );
    let waits = ["run", "--app", "hpc", "--account", "alice", &after("after", &hers), "--", "true"];
    refused_with(&deputyctl(PORTAL, &waits), "InvalidArgument", "this one runs here");
    // Words that are Slurm's, and not Deputy's.
    for words in ["singleton", "afterok:5", "expand:5", "afterok:5?after:6"] {
        let output = run("alice", &["--dependency", words], &["true"]);
        assert!(output.status != 0 && output.stderr.contains("a dependency is"), "{words}: {output:?}");
    }
    wait_for(&hers, "done");
    refused_with(&run("alice", &[&after("afternotok", &hers)], &["true"]), "Conflict", "cannot hold");
}

fn request(account: &str, waits_for: &str) -> SubmitRequest {
    let run = for_slurm("hpc", "cluster", account, account);
    let job = waits_for.parse().unwrap();
    SubmitRequest {
        run,
        slurm: SlurmRequest {
            dependencies: vec![Dependency { when: When::AfterAny, job }],
            ..SlurmRequest::default()
        },
    }
}

#[test]
fn a_daemon_that_was_taken_over_has_nobody_wait_for_anothers_job() {
    let _machine = exclusively();
    let his = submit("bob", &[], &["sleep", "600"]);
    number(&his);
    let asks = |request: SubmitRequest| Fake::daemon().ask(&LauncherRequest::Submit(request), &[]).replies;
    for (waits_for, code) in [(his.as_str(), Code::NotFound), (job_id().as_str(), Code::Busy)] {
        let replies = asks(request("alice", waits_for));
        assert!(
            matches!(&replies[..], [LauncherReply::Denied(denial)] if denial.code == code),
            "{replies:?}"
        );
    }
    // The refusal has used nothing up: it is bob's own, and the same id can be submitted.
    let own = request("bob", &his);
    let mut other = own.clone();
    other.slurm.dependencies[0].job = job_id();
    assert!(matches!(&asks(other)[..], [LauncherReply::Denied(_)]));
    let id = own.run.job.clone();
    assert!(matches!(&asks(own)[..], [LauncherReply::Submitted { .. }]));
    let name = format!("--name=deputy-{id}");
    let queue = ok(&as_user("root", &["squeue", "--noheader", "--format=%i", &name]));
    assert_eq!(queue.lines().count(), 1, "{queue}");
}

#[test]
fn a_job_begins_when_what_it_waits_for_has_come_and_is_given_up_when_that_cannot_come() {
    let _machine = exclusively();
    let begin = "until test -e /srv/slurm/go; do sleep 0.1; done";
    let good = submit("alice", &[], &["sh", "-c", begin]);
    let bad = submit("alice", &[], &["sh", "-c", &format!("{begin}; exit 3")]);
    wait_for(&good, "running");
    wait_for(&bad, "running");
    let waits = |conditions: &[(&str, &str)]| {
        let options: Vec<String> = conditions.iter().map(|(when, job)| after(when, job)).collect();
        submit("alice", &options.iter().map(String::as_str).collect::<Vec<_>>(), &["true"])
    };
    let run = [
        waits(&[("afterok", &good)]),
        waits(&[("afternotok", &bad)]),
        waits(&[("afterany", &bad), ("afterok", &good)]),
    ];
    let never = [
        waits(&[("afterok", &bad)]),
        waits(&[("afternotok", &good)]),
        waits(&[("afterok", &good), ("afterok", &bad)]),
    ];
    let behind = waits(&[("afterok", &run[0])]);
    let started = waits(&[("after", &good)]);
    wait_for(&started, "done");
    for job in run.iter().chain(&never).chain([&behind]) {
        wait_until("it says for what it waits", || show(job)["reason"] == "Dependency");
        assert_eq!(show(job)["state"], "queued");
    }
    fs::write("/srv/slurm/go", "").unwrap();
    for job in run.iter().chain([&behind, &good]) {
        wait_for(job, "done");
        assert_eq!(show(job)["status"], 0);
    }
    for job in &never {
        wait_for(job, "abandoned");
    }
    fs::remove_file("/srv/slurm/go").unwrap();
    // Of jobs that have ended and are forgotten by the launcher the ledger knows the end.
    let more = [waits(&[("afterok", &good)]), waits(&[("afternotok", &bad), ("afterany", &good)])];
    for job in &more {
        wait_for(job, "done");
    }
    refused_with(&self::run("alice", &[&after("afterok", &bad)], &["true"]), "Conflict", "cannot hold");
}

#[test]
fn features_are_those_that_policy_lists_and_the_cluster_has() {
    let _machine = exclusively();
    refused_with(&run("alice", &["--constraint", "h100"], &["true"]), "ExecutorNotAllowed", "feature h100");
    for odd in ["a100&h100", "[a100*2]", "a100|fast", "(a100)", "-a"] {
        assert_ne!(run("alice", &[&format!("--constraint={odd}")], &["true"]).status, 0, "{odd}");
    }
    refused_with(&run("alice", &["--constraint", "a100"], &["true"]), "SlurmRefused", "Invalid feature");
    let node = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let node = format!("nodename={}", node.trim().split('.').next().unwrap());
    root("scontrol", &["update", &node, "availablefeatures=a100,fast", "activefeatures=a100,fast"]);
    let job = submit("alice", &["--constraint", "a100", "--constraint", "fast"], &["true"]);
    assert_eq!(field(&number(&job), "Features"), "a100&fast");
    wait_for(&job, "done");
}

#[test]
fn a_job_is_held_and_released_by_its_own_and_nobody_else() {
    let _machine = exclusively();
    let job = submit("alice", &["--hold"], &["true"]);
    number(&job);
    wait_until("it says for what it waits", || show(&job)["reason"] == "JobHeldUser");
    for verb in ["hold", "release"] {
        assert_eq!(refused(&deputyctl("bob", &["job", verb, &job])), "NotFound");
    }
    ok(&deputyctl(PORTAL, &["job", "release", &job]));
    wait_for(&job, "done");
    assert_eq!(refused(&deputyctl(PORTAL, &["job", "hold", &job])), "Conflict");
    // One that waits for another one.
    let first = submit("alice", &[], &["sleep", "600"]);
    wait_for(&first, "running");
    assert_eq!(refused(&deputyctl(PORTAL, &["job", "hold", &first])), "Conflict");
    let second = submit("alice", &[&after("afterany", &first)], &["true"]);
    wait_until("it waits", || show(&second)["reason"] == "Dependency");
    // Its owner, in his own name.
    ok(&deputyctl("alice", &["job", "hold", &second]));
    ok(&deputyctl(PORTAL, &["job", "cancel", &first]));
    wait_for(&first, "done");
    wait_until("it is held", || show(&second)["reason"] == "JobHeldUser");
    ok(&deputyctl("alice", &["job", "release", &second]));
    wait_for(&second, "done");
    let here = ["run", "--app", "hpc", "--account", "alice", "--detach", "--", "sleep", "600"];
    let here = ok(&deputyctl(PORTAL, &here));
    refused_with(&deputyctl(PORTAL, &["job", "hold", &here]), "InvalidArgument", "at Slurm");
    ok(&deputyctl(PORTAL, &["job", "cancel", &here]));
}

fn array(indices: &str, options: &[&str], command: &[&str]) -> Output {
    run("alice", &[&["--detach", "--array", indices], options].concat(), command)
}

#[test]
fn an_array_is_bounded_by_policy_and_each_index_is_a_job_with_an_end_of_its_own() {
    let _machine = exclusively();
    refused_with(&array("0-8", &[], &["true"]), "LimitNotAllowed", "array 9");
    for odd in ["", "1,1", "3-1", "0-3%2", "a", "0-3:0"] {
        refused_with(&array(odd, &[], &["true"]), "InvalidArgument", "indices");
    }
    let listed = ["run", "--app", "hpc", "--account", "alice", "--kind", "listed", "--detach", "--array"];
    refused_with(
        &deputyctl(PORTAL, &[&listed[..], &["0-1", "--", "true"]].concat()),
        "LimitNotAllowed",
        "array",
    );
    let local = ["run", "--app", "hpc", "--account", "alice", "--kind", "batch", "--detach", "--array"];
    refused_with(
        &deputyctl(PORTAL, &[&local[..], &["0-1", "--", "true"]].concat()),
        "InvalidArgument",
        "for Slurm",
    );
    assert!(!ok(&deputyctl(PORTAL, &["job", "list", "hpc", "--state", "queued"])).contains("array"));

    let script = "echo $SLURM_ARRAY_TASK_ID of $SLURM_ARRAY_TASK_MIN to $SLURM_ARRAY_TASK_MAX, $SLURM_ARRAY_TASK_COUNT; exit $SLURM_ARRAY_TASK_ID";
    let options = ["--stdout", "/srv/slurm/array.%a"];
    let jobs = ok(&array("1,3,5-9:2", &options, &["sh", "-c", script]));
    let jobs: Vec<&str> = jobs.lines().collect();
    assert_eq!(jobs.len(), 5);
    let id = show(jobs[0])["array"].as_str().expect("an array's id").to_owned();
    for (job, index) in jobs.iter().zip([1_u64, 3, 5, 7, 9]) {
        wait_for(job, "done");
        let record = show(job);
        assert_eq!(
            (record["exit_code"].as_u64(), record["index"].as_u64()),
            (Some(index), Some(index)),
            "{record}"
        );
        assert_eq!(record["array"], id.as_str());
        let told = fs::read_to_string(format!("/srv/slurm/array.{index}")).unwrap();
        assert_eq!(told, format!("{index} of 1 to 9, 5\n"));
        assert_eq!(submissions(job).len(), 1);
    }
    let listed = ok(&deputyctl(PORTAL, &["--json", "job", "list", "hpc", "--array", &id]));
    let listed: Vec<serde_json::Value> = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed.len(), 5);
    // A job may wait for one of them.
    let behind = submit("alice", &[&after("afternotok", jobs[0])], &["true"]);
    wait_for(&behind, "done");
}

#[test]
fn one_job_of_an_array_is_cancelled_and_the_others_run() {
    let _machine = exclusively();
    let jobs = ok(&array("0-3", &["--hold"], &["true"]));
    let jobs: Vec<&str> = jobs.lines().collect();
    // Whether it has gone to Slurm already or not.
    ok(&deputyctl(PORTAL, &["job", "cancel", jobs[2]]));
    wait_for(jobs[2], "abandoned");
    for job in [jobs[0], jobs[1], jobs[3]] {
        number(job);
        ok(&deputyctl(PORTAL, &["job", "release", job]));
        wait_for(job, "done");
    }
    assert_eq!(ok(&as_user("root", &["squeue", "--noheader", "--user=alice"])), "");
}
