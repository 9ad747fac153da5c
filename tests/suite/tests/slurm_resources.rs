//! What there is for jobs, at a real Slurm and here. Refusals first.
#![forbid(unsafe_code)]

use deputy_core::Code;
use deputy_core::message::{ClusterPerson, ClusterRequest, LauncherReply, LauncherRequest};
use deputy_core::slurm::ClusterName;
use deputy_suite::acting::identity;
use deputy_suite::deputyctl;
use deputy_suite::fake::Fake;
use deputy_suite::machine::{run as root, wait_until};
use deputy_suite::people::{ok, refused};
use deputy_suite::requests::app;
use deputy_suite::slurm::{PORTAL, exclusively, settings, submit, usual_settings, wait_for};

fn of(os_user: &str, account: &str) -> ClusterRequest {
    let os_account = identity(os_user);
    ClusterRequest {
        cluster: ClusterName::default(),
        of: Some(ClusterPerson { application: app("hpc"), account: account.parse().unwrap(), os_account }),
    }
}

#[test]
fn nothing_is_asked_as_somebody_who_has_not_consented() {
    let _machine = exclusively();
    let asks = |request: ClusterRequest| {
        let answers = Fake::daemon().ask(&LauncherRequest::Cluster(request), &[]);
        match answers.replies.into_iter().next() {
            Some(LauncherReply::Denied(denial)) => Err(denial.code),
            Some(LauncherReply::Cluster(cluster)) => Ok(cluster),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(asks(of("bob", "alice")), Err(Code::NoConsent));
    assert_eq!(asks(of("dave", "dave")), Err(Code::NoConsent));
    // Somebody's own associations, and no others.
    let cluster = asks(of("bob", "bob")).unwrap();
    let accounts: Vec<_> = cluster.associations.iter().map(|of| of.account.as_str()).collect();
    assert_eq!(accounts, ["lab2"]);
    assert!(asks(ClusterRequest::default()).unwrap().associations.is_empty());
    // Without an operator nobody asks in nobody's name.
    settings("period_seconds = 1");
    assert_eq!(asks(ClusterRequest::default()), Err(Code::SlurmUnavailable));
    assert!(asks(of("bob", "bob")).is_ok());
    usual_settings();
    let stranger = ["--json", "resources", "--app", "hpc"];
    assert_eq!(refused(&deputyctl("bob", &stranger)), "NotAuthorized");
    assert_eq!(refused(&deputyctl(PORTAL, &["resources", "--account", "nobody"])), "NotLinked");
}

fn told(caller: &str, options: &[&str]) -> serde_json::Value {
    serde_json::from_str(&ok(&deputyctl(caller, &[&["--json", "resources"], options].concat()))).unwrap()
}

#[test]
fn nodes_and_partitions_are_told_with_what_is_free_beside_this_machine() {
    let _machine = exclusively();
    let node = |told: &serde_json::Value| {
        let hosts = told["hosts"].as_array().unwrap().clone();
        hosts.into_iter().find(|host| host["executor"] == "slurm").expect("a node")
    };
    wait_until("nothing runs", || node(&told(PORTAL, &[]))["cpus_free"] == 16.0);
    let job = submit("alice", &["--cpus", "4", "--gpus", "1", "--memory", "1G"], &["sleep", "600"]);
    wait_for(&job, "running");
    let found = told(PORTAL, &["--account", "alice"]);
    let one = node(&found);
    for (key, value) in [("cpus", 16.0), ("cpus_free", 12.0)] {
        assert_eq!(one[key], value, "{one}");
    }
    for (key, value) in [("memory", 8_u64 << 30), ("memory_free", 7 << 30), ("gpus", 2), ("gpus_free", 1)] {
        assert_eq!(one[key], value, "{one}");
    }
    assert_eq!(one["partitions"], serde_json::json!(["batch", "short"]));
    let partitions = found["partitions"].as_array().unwrap();
    assert_eq!(partitions.len(), 2, "{found}");
    assert_eq!((&partitions[0]["partition"], &partitions[0]["cpus_free"]), (&"batch".into(), &12.0.into()));
    assert_eq!(found["associations"][0]["account"], "lab1", "{found}");
    // What is used of this machine is told to administrators alone.
    let here = |told: &serde_json::Value| told["hosts"][0].clone();
    assert_eq!((here(&found)["executor"].as_str(), here(&found).get("cpus_free")), (Some("local"), None));
    assert_eq!(here(&told("root", &[]))["executor"], "local");
    // For people, with bars.
    let shown = ok(&deputyctl(PORTAL, &["resources"]));
    assert!(shown.contains("12 free of 16 [##........] 25 %"), "{shown}");
    ok(&deputyctl(PORTAL, &["job", "cancel", &job]));
    // A node that takes no jobs has nothing free; one Slurm that is away is told, and this machine too.
    let name = one["name"].as_str().unwrap().to_owned();
    root("scontrol", &["update", &format!("nodename={name}"), "state=drain", "reason=test"]);
    wait_until("the node takes no jobs", || node(&told(PORTAL, &[]))["cpus_free"] == 0.0);
    root("scontrol", &["update", &format!("nodename={name}"), "state=resume"]);
    settings("operator = \"slurm\"\nprograms = \"/nonexistent\"");
    let found = told(PORTAL, &[]);
    assert!(found["unavailable"].as_str().is_some_and(|why| why.contains("SlurmUnavailable")), "{found}");
    assert_eq!(found["hosts"].as_array().map(Vec::len), Some(1));
    usual_settings();
}
