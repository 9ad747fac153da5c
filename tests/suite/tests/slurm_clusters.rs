//! Two real clusters with one accounting: each job is at its own, and stays there. Refusals first.
#![forbid(unsafe_code)]

use std::fs;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use deputy_core::Code;
use deputy_core::message::{ClusterRequest, LauncherReply, LauncherRequest, SubmitRequest};
use deputy_core::slurm::{Dependency, SlurmRequest, When};
use deputy_suite::fake::Fake;
use deputy_suite::machine::{
    add_service_user, install_application, launcher_log, processes, service_pid, signal, wait_until,
};
use deputy_suite::people::{as_user, ok, refused, refused_with};
use deputy_suite::requests::{for_slurm, refusal_of, withdrawal};
use deputy_suite::slurm::{self, link, settings};
use deputy_suite::{Output, deputyctl, job_id, need_the_sandbox};
use serde_json::Value;

const PORTAL: &str = "multiportal";

const APPLICATION: &str = r#"
service_user = "multiportal"
trust = "application"
link = { shared = true }
executor = "slurm"
[kinds.one]
commands = ["*"]
[kinds.one.slurm]
partitions = ["batch"]
accounts = "associations"
[kinds.both]
commands = ["*"]
[kinds.both.slurm]
partitions = ["batch", "short"]
accounts = "associations"
clusters = ["second", "default"]
array = 4
interactive = true
[kinds.gone]
commands = ["*"]
[kinds.gone.slurm]
partitions = ["batch"]
accounts = "associations"
clusters = ["third"]
"#;

const SECOND: &str = "/etc/slurm-second/slurm.conf";

/// Both clusters, each asked by its own operator every second.
fn usual_settings() {
    settings(&format!(
        "operator = \"slurm\"\nperiod_seconds = 1\n[executor.slurm.clusters.second]\nconf = \"{SECOND}\"\n\
         operator = \"slurm\"\nperiod_seconds = 1"
    ));
}

fn exclusively() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::new(());
    static ONCE: Once = Once::new();
    let guard = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    ONCE.call_once(|| {
        need_the_sandbox();
        usual_settings();
        add_service_user(PORTAL);
        install_application("multi", APPLICATION);
        for name in ["alice", "bob"] {
            link("multi", PORTAL, name, name);
        }
    });
    for user in ["alice", "bob"] {
        as_user("root", &["scancel", "--user", user]);
        at_second(&["scancel", "--user", user]);
    }
    guard
}

/// What one of Slurm's programs says, as root, of the second cluster.
fn at_second(argv: &[&str]) -> Output {
    let conf = format!("SLURM_CONF={SECOND}");
    as_user("root", &[&["env", &conf], argv].concat())
}

fn run(kind: &str, options: &[&str], command: &[&str]) -> Output {
    let begin = ["run", "--app", "multi", "--account", "alice", "--kind", kind, "--detach"];
    deputyctl(PORTAL, &[&begin[..], options, &["--"], command].concat())
}

fn submit(cluster: &str, options: &[&str], command: &[&str]) -> String {
    ok(&run("both", &[&["--cluster", cluster], options].concat(), command))
}

fn show(job: &str) -> Value {
    slurm::shown_to(PORTAL, job)
}

fn wait_for(job: &str, state: &str) {
    slurm::wait_until_shown(PORTAL, job, state);
}

fn number(job: &str) -> u64 {
    slurm::number_shown(PORTAL, job)
}

/// The names and states of a cluster's jobs that have not ended.
fn queue(second: bool) -> String {
    let argv = ["squeue", "--noheader", "--format=%j %T"];
    ok(&if second { at_second(&argv) } else { as_user("root", &argv) })
}

#[test]
fn a_cluster_that_policy_does_not_list_or_the_machine_does_not_have_is_refused() {
    let _machine = exclusively();
    refused_with(&run("one", &["--cluster", "second"], &["true"]), "ExecutorNotAllowed", "cluster second");
    refused_with(&run("both", &["--cluster", "third"], &["true"]), "ExecutorNotAllowed", "cluster third");
    refused_with(&run("gone", &[], &["true"]), "SlurmUnavailable", "cluster third");
    for odd in ["../etc", "-M", "a b", "second,default", "/etc/slurm/slurm.conf", ""] {
        assert_ne!(run("both", &[&format!("--cluster={odd}")], &["true"]).status, 0, "{odd:?}");
    }
    let check = deputyctl("root", &["application", "check", "multi"]);
    assert_eq!(check.status, 1, "{check:?}");
    assert!(check.stdout.contains("kinds.gone.slurm.clusters"), "{check:?}");
    // Words for a cluster are not for a job that runs here.
    let begin = ["run", "--app", "multi", "--account", "alice", "--kind", "both", "--executor", "local"];
    assert_eq!(refused(&deputyctl(PORTAL, &[&begin[..], &["--", "true"]].concat())), "ExecutorNotAllowed");
}

#[test]
fn settings_that_name_a_cluster_badly_are_refused() {
    let _machine = exclusively();
    for table in [
        "[executor.slurm.clusters.second]\noperator = \"slurm\"",
        "[executor.slurm.clusters.default]\nconf = \"/etc/slurm/slurm.conf\"",
    ] {
        settings(table);
        assert_eq!(refused(&run("one", &[], &["true"])), "SlurmUnavailable", "{table}");
        assert_eq!(refusal_of(request("one", None)), Some(Code::SettingsInvalid), "{table}");
    }
    usual_settings();
}

fn request(kind: &str, cluster: Option<&str>) -> SubmitRequest {
    let run = for_slurm("multi", kind, "alice", "alice");
    let cluster = cluster.map(|cluster| cluster.parse().unwrap());
    SubmitRequest { run, slurm: SlurmRequest { cluster, ..SlurmRequest::default() } }
}

#[test]
fn a_daemon_that_was_taken_over_reaches_no_other_cluster() {
    let _machine = exclusively();
    assert_eq!(refusal_of(request("one", Some("second"))), Some(Code::ExecutorNotAllowed));
    assert_eq!(refusal_of(request("both", Some("third"))), Some(Code::ExecutorNotAllowed));
    assert_eq!(refusal_of(request("gone", Some("third"))), Some(Code::SlurmUnavailable));
    // What is not named is the default one, and not what the list begins with.
    assert_eq!(refusal_of(request("gone", None)), Some(Code::ExecutorNotAllowed));
    assert_eq!(refusal_of(request("both", None)), None);
    // A job waits for none of another cluster.
    let there = submit("second", &["--hold"], &["true"]);
    number(&there);
    let mut waits = request("both", None);
    waits.slurm.dependencies = vec![Dependency { when: When::AfterAny, job: there.parse().unwrap() }];
    assert_eq!(refusal_of(waits.clone()), Some(Code::InvalidArgument));
    waits.slurm.cluster = "second".parse().ok();
    assert_eq!(refusal_of(waits), None);
    let unknown = ClusterRequest { cluster: "third".parse().unwrap(), of: None };
    let answers = Fake::daemon().ask(&LauncherRequest::Cluster(unknown), &[]);
    assert!(
        matches!(&answers.replies[..], [LauncherReply::Denied(denial)] if denial.code == Code::SlurmUnavailable)
    );
}

#[test]
fn the_owners_defaults_do_not_choose_the_cluster() {
    let _machine = exclusively();
    let conf = fs::read_to_string("/etc/slurm/slurm.conf").unwrap();
    fs::write("/etc/slurm/slurm.conf", format!("{conf}CliFilterPlugins=cli_filter/user_defaults\n")).unwrap();
    fs::create_dir_all("/home/alice/.slurm").unwrap();
    let defaults = "/home/alice/.slurm/defaults";
    fs::write(defaults, "clusters=second\n").unwrap();
    refused_with(&run("one", &[], &["sleep", "600"]), "SlurmRefused", "the cluster second");
    wait_until("it is cancelled there", || queue(true).is_empty());
    assert_eq!(queue(false), "");
    // What Slurm itself calls the cluster that is meant is no other one.
    fs::write(defaults, "clusters=sandbox\n").unwrap();
    let job = ok(&run("one", &[], &["true"]));
    wait_for(&job, "done");
    fs::remove_file(defaults).unwrap();
    fs::write("/etc/slurm/slurm.conf", conf).unwrap();
}

#[test]
fn a_job_waits_for_jobs_of_its_own_cluster_alone() {
    let _machine = exclusively();
    let first = submit("default", &["--hold"], &["true"]);
    number(&first);
    let waits = format!("--dependency=afterok:{first}");
    refused_with(&run("both", &[&waits], &["true"]), "InvalidArgument", "its own cluster alone");
    let behind = submit("default", &[&waits], &["true"]);
    ok(&deputyctl(PORTAL, &["job", "release", &first]));
    wait_for(&behind, "done");
    // Of one that has ended it is the same.
    refused_with(&run("both", &[&waits], &["true"]), "InvalidArgument", "its own cluster alone");
}

#[test]
fn of_two_jobs_with_one_number_each_is_told_of_and_commanded_at_its_own_cluster() {
    let _machine = exclusively();
    let (mut here, mut there) =
        (submit("default", &[], &["sleep", "600"]), submit("second", &[], &["sleep", "600"]));
    // The clusters count for themselves: the one that is behind catches up.
    loop {
        let (one, other) = (number(&here), number(&there));
        if one == other {
            break;
        }
        let (behind, cluster) = if one < other { (&mut here, "default") } else { (&mut there, "second") };
        ok(&deputyctl(PORTAL, &["job", "cancel", behind]));
        *behind = submit(cluster, &[], &["sleep", "600"]);
    }
    for (job, cluster) in [(&here, "default"), (&there, "second")] {
        wait_for(job, "running");
        assert_eq!(show(job)["cluster"], cluster);
    }
    let (running_here, runs_there) = (format!("deputy-{here} RUNNING"), format!("deputy-{there} RUNNING"));
    assert!(queue(false).contains(&running_here) && !queue(false).contains(&there));
    assert!(queue(true).contains(&runs_there) && !queue(true).contains(&here));
    // Found by its number and cluster; the number alone is of both.
    let slurm = number(&here).to_string();
    let listed =
        |options: &[&str]| ok(&deputyctl(PORTAL, &[&["--json", "job", "list", "multi"], options].concat()));
    let second: Vec<Value> =
        serde_json::from_str(&listed(&["--cluster", "second", "--state", "running"])).unwrap();
    assert_eq!(second.iter().map(|job| job["id"].as_str()).collect::<Vec<_>>(), [Some(there.as_str())]);
    let both = ["submit", "--app", "multi", "--cancel", &slurm];
    refused_with(&deputyctl(PORTAL, &both), "InvalidArgument", "2 clusters");
    let query =
        ok(&deputyctl(PORTAL, &["submit", "--app", "multi", "--cluster", "second", "--query", &slurm]));
    assert!(query.starts_with("RUNNING"), "{query}");
    // A new daemon knows by its ledger, and the launcher's children by the jobs' folders.
    let daemon = service_pid("deputyd");
    signal(daemon, "KILL");
    wait_until("deputyd is back", || {
        service_pid("deputyd") != daemon && deputyctl(PORTAL, &["job", "show", &here]).status == 0
    });
    ok(&deputyctl(PORTAL, &["job", "cancel", &there]));
    wait_for(&there, "done");
    assert_eq!(show(&there)["cause"], "cancelled");
    assert!(queue(false).contains(&running_here));
    assert_eq!(show(&here)["state"], "running");
    // A folder of the default cluster, as all of the time when there was one, names none.
    assert!(!fs::exists(format!("/var/lib/deputy/jobs/{here}/slurm.cluster")).unwrap());
    ok(&deputyctl(PORTAL, &["job", "cancel", &here]));
    wait_for(&here, "done");
    // One whose record cannot be read is at no cluster.
    let broken = submit("second", &[], &["sleep", "600"]);
    wait_for(&broken, "running");
    let record = format!("/var/lib/deputy/jobs/{broken}/slurm.cluster");
    let written = fs::read(&record).unwrap();
    fs::write(&record, "cluster = \"/etc\"").unwrap();
    assert_ne!(deputyctl(PORTAL, &["job", "cancel", &broken]).status, 0);
    assert!(queue(true).contains(&broken));
    fs::write(&record, written).unwrap();
    ok(&deputyctl(PORTAL, &["job", "cancel", &broken]));
    wait_for(&broken, "done");
}

#[test]
fn holds_arrays_and_withdrawn_consents_reach_the_second_cluster() {
    let _machine = exclusively();
    let held = submit("second", &["--hold"], &["true"]);
    wait_until("it is held", || show(&held)["reason"] == "JobHeldUser");
    ok(&deputyctl(PORTAL, &["job", "release", &held]));
    wait_for(&held, "done");
    // The kind's first cluster is that of a job that names none.
    let jobs = ok(&run("both", &["--array", "0-3"], &["sh", "-c", "exit $SLURM_ARRAY_TASK_ID"]));
    for (job, code) in jobs.lines().zip(0_u64..) {
        wait_for(job, "done");
        assert_eq!(
            (show(job)["exit_code"].as_u64(), show(job)["cluster"].as_str()),
            (Some(code), Some("second"))
        );
    }
    link("multi", PORTAL, "bobs", "bob");
    let begin = ["run", "--app", "multi", "--account", "bobs", "--kind", "both", "--detach"];
    let job = ok(&deputyctl(PORTAL, &[&begin[..], &["--", "sleep", "600"]].concat()));
    wait_for(&job, "running");
    let answers = Fake::as_user("root").ask(&withdrawal("multi", "bobs", "bob", true), &[]);
    assert!(
        matches!(answers.replies[..], [LauncherReply::Withdrawn(withdrawn)] if withdrawn.removed && withdrawn.left == 0),
        "{answers:?}"
    );
    wait_for(&job, "done");
}

#[test]
fn an_interactive_job_is_at_its_cluster_and_leaves_nothing_there() {
    let _machine = exclusively();
    let begin =
        ["run", "--app", "multi", "--account", "alice", "--kind", "both", "--interactive", "--cluster"];
    for (cluster, own) in [("second", "second\n"), ("default", "sandbox\n")] {
        let argv = [cluster, "--", "sh", "-c", "echo $SLURM_CLUSTER_NAME"];
        assert_eq!(ok(&deputyctl(PORTAL, &[&begin[..], &argv].concat())), own.trim());
    }
    assert_eq!((queue(false), queue(true)), (String::new(), String::new()));
    let told = || {
        let wanted = |line: &str| line.contains("slurm_elsewhere") && line.contains("cluster=default");
        launcher_log().lines().any(wanted)
    };
    assert!(!told());
    // Where the person's own defaults send it elsewhere, that is in the journal.
    let conf = fs::read_to_string("/etc/slurm/slurm.conf").unwrap();
    fs::write("/etc/slurm/slurm.conf", format!("{conf}CliFilterPlugins=cli_filter/user_defaults\n")).unwrap();
    fs::create_dir_all("/home/alice/.slurm").unwrap();
    fs::write("/home/alice/.slurm/defaults", "srun:*:clusters=second\n").unwrap();
    let argv = ["default", "--", "sh", "-c", "echo $SLURM_CLUSTER_NAME"];
    assert_eq!(ok(&deputyctl(PORTAL, &[&begin[..], &argv].concat())), "second");
    assert!(told(), "{}", launcher_log());
    fs::remove_file("/home/alice/.slurm/defaults").unwrap();
    fs::write("/etc/slurm/slurm.conf", conf).unwrap();
}

/// The process that asks the second cluster where its jobs stand, if there is one now.
fn question_to_second() -> Option<i32> {
    processes().into_iter().find(|pid| {
        let read = |what: &str| fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
        let conf = format!("SLURM_CONF={SECOND}");
        read("comm") == b"squeue\n"
            && read("environ").split(|byte| *byte == 0).any(|one| one == conf.as_bytes())
    })
}

#[test]
fn a_cluster_that_does_not_answer_keeps_the_other_from_nothing() {
    let _machine = exclusively();
    let there = submit("second", &[], &["sleep", "600"]);
    wait_for(&there, "running");
    let controller = service_pid("slurmctld-second");
    signal(controller, "STOP");
    // A job of the other ends, and that is known, while one and the same question still waits for the silent one.
    wait_until("nobody waits for the silent one", || {
        let Some(question) = question_to_second() else { return false };
        let here = submit("default", &[], &["sh", "-c", "exit 3"]);
        wait_for(&here, "done");
        assert_eq!(show(&here)["exit_code"], 3);
        question_to_second() == Some(question)
    });
    // Many that wait for the one that is silent, and then one for the other.
    let silent = ok(&run("both", &["--array", "0-3"], &["true"]));
    let one = submit("default", &[], &["true"]);
    wait_for(&one, "done");
    assert_eq!(show(&there)["state"], "running");
    let told: Value = serde_json::from_str(&ok(&deputyctl(PORTAL, &["--json", "resources"]))).unwrap();
    let clusters: Vec<_> =
        told["hosts"].as_array().unwrap().iter().filter_map(|host| host["cluster"].as_str()).collect();
    assert_eq!(clusters, ["default"], "{told}");
    assert!(told["unavailable"].as_str().unwrap().starts_with("second: SlurmUnavailable"), "{told}");
    signal(controller, "CONT");
    for job in silent.lines() {
        wait_for(job, "done");
    }
    ok(&deputyctl(PORTAL, &["job", "cancel", &there]));
    wait_for(&there, "done");
}

#[test]
fn nodes_partitions_and_associations_are_told_with_their_cluster() {
    let _machine = exclusively();
    // What is granted at one cluster alone is told of that one.
    let added = ["sacctmgr", "--immediate", "add", "account", "guests", "cluster=second"];
    ok(&as_user("root", &added));
    ok(&as_user(
        "root",
        &["sacctmgr", "--immediate", "add", "user", "alice", "account=guests", "cluster=second"],
    ));
    let told: Value =
        serde_json::from_str(&ok(&deputyctl(PORTAL, &["--json", "resources", "--account", "alice"])))
            .unwrap();
    let of = |key: &str, word: &str| -> Vec<(String, String)> {
        let rows = told[key].as_array().unwrap();
        let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
        rows.iter()
            .map(|row| (text(row, "cluster"), text(row, word)))
            .filter(|(cluster, _)| !cluster.is_empty())
            .collect()
    };
    let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(cluster, name)| ((*cluster).to_owned(), (*name).to_owned())).collect()
    };
    let clusters: Vec<String> = of("hosts", "executor").into_iter().map(|(cluster, _)| cluster).collect();
    assert_eq!(clusters, ["default", "second"], "{told}");
    let each = [("default", "batch"), ("default", "short"), ("second", "batch"), ("second", "short")];
    assert_eq!(of("partitions", "partition"), pairs(&each), "{told}");
    let mut accounts = of("associations", "account");
    accounts.sort();
    assert_eq!(accounts, pairs(&[("default", "lab1"), ("second", "guests"), ("second", "lab1")]), "{told}");
    assert_eq!(refused(&deputyctl(PORTAL, &["job", "show", job_id().as_str()])), "NotFound");
}
