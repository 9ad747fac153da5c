//! The machine dies and is started again: what ran is lost, what waited never starts, what had ended has its exact end.
//!
//! A boot is another `boot_id`, here one that is bound over the kernel's in the sandbox's own mounts, and an empty
//! `/run/deputy/jobs`, with every process gone at once.
#![forbid(unsafe_code)]

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use deputy_suite::client::{Client, Dictionary, Failed, Options, on_bus, text};
use deputy_suite::machine::{
    add_service_user, install_application, processes, run, running, service_pid, signal, wait_until,
};
use deputy_suite::people::ok;
use deputy_suite::{as_user, deputyctl, need_the_sandbox};
use zbus::{Fd, OwnedObjectPath, Variant};

const PORTAL: &str = "bootportal";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

async fn submit(bus: &Client, script: &str, options: Options) -> String {
    let argv: Vec<Vec<u8>> = ["/bin/sh", "-c", script].map(|word| word.as_bytes().to_vec()).into();
    let path: OwnedObjectPath = bus.call("Jobs.Run", &("ann", argv, options)).await.expect("a job");
    path.to_string()
}

async fn state(bus: &Client, job: &str) -> (String, Option<String>, Dictionary) {
    for _ in 0..1000 {
        match bus.call_at::<_, Dictionary>(job, "Job.Get", &()).await {
            Ok(record) => return (text(&record, "state").expect("a state"), text(&record, "cause"), record),
            Err(Failed::Unknown(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(refused) => panic!("{refused:?}"),
        }
    }
    panic!("the daemon does not answer");
}

async fn until(bus: &Client, job: &str, wanted: &str) -> (Option<String>, Dictionary) {
    let mut last = None;
    for _ in 0..1000 {
        let (state, cause, record) = state(bus, job).await;
        if state == wanted {
            return (cause, record);
        }
        last = Some((state, cause));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{job} does not become {wanted}: {last:?}");
}

fn hold(service: &str) {
    fs::write(format!("/run/deputy-sandbox/{service}.hold"), "").unwrap();
    signal(service_pid(service), "KILL");
}

fn let_go(service: &str) {
    let before = service_pid(service);
    fs::remove_file(format!("/run/deputy-sandbox/{service}.hold")).unwrap();
    wait_until("it is started again", || service_pid(service) != before);
}

/// Ends every process of the launcher's and of alice's at once.
fn kill_the_rest() {
    let ours = |pid: &i32| {
        fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.ends_with("deputy-launcher"))
    };
    // Shepherds first: none of them may see its job end.
    for pid in processes().into_iter().filter(ours) {
        as_user("root", &["kill", "-KILL", &pid.to_string()]);
    }
    as_user("root", &["pkill", "-KILL", "-u", "alice"]);
    wait_until("nothing of it is left", || !processes().iter().any(ours));
}

fn folder_of(job: &str) -> PathBuf {
    Path::new("/var/lib/deputy/jobs").join(job.rsplit('/').next().expect("an id"))
}

// One test: there is one machine.
#[test]
fn what_was_acknowledged_is_reported_after_the_machine_died() {
    need_the_sandbox();
    add_service_user(PORTAL);
    install_application(
        "boots",
        &format!("service_user = \"{PORTAL}\"\ntrust = \"application\"\n[kinds.batch]\ncommands = [\"*\"]\n"),
    );
    ok(&deputyctl(PORTAL, &["account", "add", "boots", "ann"]));
    ok(&deputyctl("root", &["consent", "grant", "boots", "ann", "alice"]));
    ok(&deputyctl(PORTAL, &["link", "request", "boots", "ann", "alice"]));
    let mut settings = fs::read_to_string("/etc/deputy/deputy.toml").unwrap();
    settings.push_str("\n[executor.local.capacity]\njobs = 2\n");
    fs::write("/etc/deputy/deputy.toml", settings).unwrap();

    let none = Options::new;
    let [runs, ends, waits, waits_with] = on_bus(PORTAL, async |bus| {
        let captured = Options::from([("stdout", Variant::from("capture".to_owned()))]);
        let runs = submit(&bus, "echo begun; exec sleep 4001", captured).await;
        let ends = submit(&bus, "until [ -e /tmp/boot-go ]; do sleep 0.02; done; exit 7", none()).await;
        let waits = submit(&bus, "echo ran >> ~/boot-ran", none()).await;
        let (_, input) = std::io::pipe().unwrap();
        let descriptor = Options::from([("stdout", Variant::Fd(Fd::from(OwnedFd::from(input))))]);
        let waits_with = submit(&bus, "echo ran >> ~/boot-ran", descriptor).await;
        until(&bus, &runs, "running").await;
        until(&bus, &ends, "running").await;
        for job in [&waits, &waits_with] {
            assert_eq!(state(&bus, job).await.0, "queued");
        }
        [runs, ends, waits, waits_with]
    });
    wait_until("the captured job runs", || running("sleep 4001").len() == 1);
    wait_until("its output is there", || {
        fs::read(folder_of(&runs).join("stdout")).is_ok_and(|b| b == b"begun\n")
    });
    // One ends with nobody there to hear of it.
    hold("deputyd");
    fs::write("/tmp/boot-go", "").unwrap();
    wait_until("its record is on disk", || folder_of(&ends).join("exit").exists());
    hold("deputy-launcher");
    kill_the_rest();
    for entry in fs::read_dir("/run/deputy/jobs").unwrap().flatten() {
        fs::remove_file(entry.path()).unwrap();
    }
    fs::write("/tmp/boot-id", "01234567-89ab-4cde-8f01-23456789abcd\n").unwrap();
    run("mount", &["--bind", "/tmp/boot-id", BOOT_ID]);
    let_go("deputy-launcher");
    let_go("deputyd");

    on_bus(PORTAL, async |bus| {
        let (cause, _) = until(&bus, &runs, "lost").await;
        assert_eq!(cause.as_deref(), Some("the machine was started again while it ran"));
        for job in [&waits, &waits_with] {
            let (cause, _) = until(&bus, job, "abandoned").await;
            assert_eq!(cause.as_deref(), Some("the machine was started again before it started"));
        }
        let (cause, record) = until(&bus, &ends, "done").await;
        assert_eq!((cause, &*record["exit_code"]), (None, &Variant::I32(7)));
        // The machine takes new jobs, and those of this boot wait and start as ever.
        let next = submit(&bus, "exit 3", none()).await;
        assert_eq!(&*until(&bus, &next, "done").await.1["exit_code"], &Variant::I32(3));
    });
    assert!(!Path::new("/home/alice/boot-ran").exists(), "what was reported as abandoned ran");
    let id = runs.rsplit('/').next().expect("an id");
    assert_eq!(ok(&deputyctl(PORTAL, &["job", "logs", id])), "begun");
    wait_until("folders that nobody needs are gone", || !folder_of(&ends).exists());
    // The same boot: a daemon that is killed is no machine that died.
    let (holders, waits) = on_bus(PORTAL, async |bus| {
        let holds = "exec sleep 4002";
        let holders = [submit(&bus, holds, none()).await, submit(&bus, holds, none()).await];
        (holders, submit(&bus, "echo again >> ~/boot-ran", none()).await)
    });
    let before = service_pid("deputyd");
    signal(before, "KILL");
    wait_until("it is started again", || service_pid("deputyd") != before);
    on_bus(PORTAL, async |bus| {
        assert_eq!(state(&bus, &waits).await.0, "queued");
        for job in &holders {
            let cancelled: Result<(), Failed> = bus.call_at(job, "Job.Cancel", &(none(),)).await;
            cancelled.expect("it is cancelled");
        }
        until(&bus, &waits, "done").await;
    });
    assert_eq!(fs::read_to_string("/home/alice/boot-ran").unwrap(), "again\n");
}
