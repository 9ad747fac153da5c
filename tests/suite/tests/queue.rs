//! The queue: which jobs start, in which order, and with which GPUs. Refusals first.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use deputy_suite::client::{Client, Dictionary, Failed, Options, on_bus, text};
use deputy_suite::machine::{add_service_user, install_application, service_pid, signal, wait_until};
use deputy_suite::people::ok;
use deputy_suite::{deputyctl, need_the_sandbox};
use zbus::{OwnedObjectPath, Variant};

const SETTINGS: &str = "/etc/deputy/deputy.toml";

/// Held by each test: there is one deputy.toml.
static MACHINE: Mutex<()> = Mutex::new(());

/// The settings as the sandbox wrote them, once all accounts of these tests are there.
fn machine() -> (MutexGuard<'static, ()>, String) {
    static ONCE: Once = Once::new();
    static WRITTEN: Mutex<String> = Mutex::new(String::new());
    let guard = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    ONCE.call_once(|| {
        need_the_sandbox();
        *WRITTEN.lock().unwrap() = fs::read_to_string(SETTINGS).unwrap();
        for portal in ["queueportal", "gpuportal"] {
            add_service_user(portal);
        }
        application("queue", "");
        application("gpus", "");
        for (app, account, os_user) in [
            ("queue", "ann", "alice"),
            ("queue", "ben", "bob"),
            ("queue", "share-a", "alice"),
            ("queue", "share-b", "bob"),
            ("queue", "leaver", "carol"),
            ("queue", "unlinker", "carol"),
            ("gpus", "ann", "alice"),
            ("gpus", "ben", "bob"),
        ] {
            let portal = if app == "queue" { "queueportal" } else { "gpuportal" };
            ok(&deputyctl(portal, &["account", "add", app, account]));
            ok(&deputyctl("root", &["consent", "grant", app, account, os_user]));
            ok(&deputyctl(portal, &["link", "request", app, account, os_user]));
        }
    });
    let written = WRITTEN.lock().unwrap().clone();
    (guard, written)
}

fn application(name: &str, queue: &str) {
    let portal = if name == "queue" { "queueportal" } else { "gpuportal" };
    let text = format!(
        "service_user = \"{portal}\"\ntrust = \"application\"\n[link]\nshared = true\n[queue]\n{queue}\n\
         [kinds.batch]\ncommands = [\"*\"]\n"
    );
    install_application(name, &text);
}

fn capacity(written: &str, capacity: &str) {
    let beside = Path::new("/etc/deputy/deputy.toml.new");
    fs::write(beside, format!("{written}\n[executor.local.capacity]\n{capacity}\n")).unwrap();
    fs::set_permissions(beside, fs::Permissions::from_mode(0o644)).unwrap();
    fs::rename(beside, SETTINGS).unwrap();
}

async fn submit(
    bus: &Client,
    account: &str,
    script: &str,
    more: &[(&'static str, u32)],
) -> Result<String, Failed> {
    let options: Options = more.iter().map(|(name, value)| (*name, Variant::from(*value))).collect();
    let argv: Vec<Vec<u8>> = ["/bin/sh", "-c", script].map(|word| word.as_bytes().to_vec()).into();
    let path: OwnedObjectPath = bus.call("Jobs.Run", &(account, argv, options)).await?;
    Ok(path.to_string())
}

async fn run(bus: &Client, account: &str, script: &str) -> String {
    submit(bus, account, script, &[]).await.expect("a job")
}

async fn look(bus: &Client, job: &str) -> Dictionary {
    patiently(async || bus.call_at(job, "Job.Get", &()).await).await
}

/// Asks again while there is no answer, because the daemon was killed.
async fn patiently<R>(ask: impl AsyncFn() -> Result<R, Failed>) -> R {
    for _ in 0..1000 {
        match ask().await {
            Ok(answer) => return answer,
            Err(Failed::Unknown(_)) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(refused) => panic!("{refused:?}"),
        }
    }
    panic!("the daemon does not answer");
}

async fn state(bus: &Client, job: &str) -> String {
    text(&look(bus, job).await, "state").expect("a state")
}

fn number(record: &Dictionary, name: &str) -> u64 {
    let value = record.get(name).unwrap_or_else(|| panic!("{name} in {record:?}"));
    match &**value {
        Variant::U64(number) => *number,
        Variant::U32(number) => u64::from(*number),
        Variant::I32(number) => u64::try_from(*number).expect("not below 0"),
        other => panic!("{name}: {other:?}"),
    }
}

async fn until(bus: &Client, job: &str, wanted: &[&str]) -> Dictionary {
    for _ in 0..6000 {
        let now = look(bus, job).await;
        if wanted.contains(&text(&now, "state").expect("a state").as_str()) {
            return now;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{job} is still {}", state(bus, job).await);
}

/// A job that holds a place until the file is there.
fn holding(name: &str) -> (String, String) {
    let file = format!("/tmp/queue-{name}");
    (format!("until [ -e {file} ]; do sleep 0.05; done"), file)
}

async fn queue(bus: &Client) -> Dictionary {
    patiently(async || bus.call("Manager.Queue", &(Options::new(),)).await).await
}

fn text_of(queue: &Dictionary, key: &str) -> String {
    format!("{:?}", queue.get(key))
}

#[test]
fn what_never_fits_and_more_than_may_wait_are_refused_and_nothing_is_recorded() {
    let (_machine, written) = machine();
    capacity(&written, "jobs = 1\ngpus = [\"/dev/zero\"]");
    application("queue", "waiting = 1\ntotal = { cpus = 4 }");
    on_bus("queueportal", async |bus| {
        let refused = |result: Result<String, Failed>| result.unwrap_err().code().to_owned();
        assert_eq!(refused(submit(&bus, "ann", "true", &[("gpus", 2)]).await), "NeverFits");
        let options = Options::from([("cpus", Variant::from(5.0))]);
        let argv = vec![b"/bin/true".to_vec()];
        let never: Result<OwnedObjectPath, Failed> = bus.call("Jobs.Run", &("ann", argv, options)).await;
        assert_eq!(never.unwrap_err().code(), "NeverFits");
        let (jobs, _): (Vec<Dictionary>, String) =
            bus.call("Jobs.List", &(Options::new(),)).await.expect("a list");
        let of_ann = jobs.iter().filter(|job| text(job, "account").as_deref() == Some("ann")).count();

        let (script, file) = holding("full");
        let first = run(&bus, "ann", &script).await;
        let second = run(&bus, "ann", "true").await;
        assert_eq!(state(&bus, &second).await, "queued");
        assert_eq!(refused(submit(&bus, "ben", "true", &[]).await), "QueueFull");
        fs::write(file, "").unwrap();
        for job in [&first, &second] {
            assert_eq!(number(&until(&bus, job, &["done"]).await, "exit_code"), 0);
        }
        let (jobs, _): (Vec<Dictionary>, String) =
            bus.call("Jobs.List", &(Options::new(),)).await.expect("a list");
        let now = jobs.iter().filter(|job| text(job, "account").as_deref() == Some("ann")).count();
        assert_eq!(now, of_ann + 2, "what was refused is no job");
    });
}

#[test]
fn an_application_sees_its_own_jobs_and_the_machines_free_gpus_and_nothing_else() {
    let (_machine, written) = machine();
    capacity(&written, "jobs = 2\ngpus = [\"/dev/zero\", \"/dev/full\"]");
    application("queue", "");
    let (script, file) = holding("seen");
    let (holds, waits) = on_bus("queueportal", async |bus| {
        let holds = submit(&bus, "ann", &script, &[("gpus", 1)]).await.unwrap();
        submit(&bus, "ann", &script, &[]).await.unwrap();
        (holds, run(&bus, "ben", &script).await)
    });
    on_bus("queueportal", async |bus| {
        let own = queue(&bus).await;
        assert!(text_of(&own, "jobs").contains("machine: jobs"), "{own:?}");
        assert!(text_of(&own, "jobs").contains(&waits), "{own:?}");
        assert!(!own.contains_key("machine_used"), "{own:?}");
    });
    on_bus("gpuportal", async |bus| {
        let others = queue(&bus).await;
        assert_eq!(number(&others, "free_gpus"), 1);
        let all = format!("{others:?}");
        for secret in ["queue\"", "ann", "ben", &holds, &waits, "machine_used", "machine_waiting"] {
            assert!(!all.contains(secret), "{secret} in {all}");
        }
        let mut asked = Options::new();
        asked.insert("application", Variant::from("queue".to_owned()));
        let foreign: Result<Dictionary, Failed> = bus.call("Manager.Queue", &(asked,)).await;
        assert_eq!(foreign.unwrap_err().code(), "NotFound");
    });
    on_bus("alice", async |bus| {
        let nobody: Result<Dictionary, Failed> = bus.call("Manager.Queue", &(Options::new(),)).await;
        assert_eq!(nobody.unwrap_err().code(), "NotAuthorized");
    });
    on_bus("root", async |bus| {
        let all = queue(&bus).await;
        assert_eq!(number(&all, "machine_waiting"), 1);
        assert!(text_of(&all, "jobs").contains(&waits), "{all:?}");
    });
    fs::write(file, "").unwrap();
    on_bus("queueportal", async |bus| until(&bus, &waits, &["done"]).await);
}

#[test]
fn a_waiting_job_is_cancelled_or_loses_its_ground_without_having_run() {
    let (_machine, written) = machine();
    capacity(&written, "jobs = 1");
    application("queue", "");
    let (script, file) = holding("ground");
    let trace = |name: &str| format!("/tmp/queue-ran-{name}");
    let (holds, jobs) = on_bus("queueportal", async |bus| {
        let holds = run(&bus, "ann", &script).await;
        let mut jobs = BTreeMap::new();
        for account in ["ben", "leaver", "unlinker", "ann"] {
            jobs.insert(account, run(&bus, account, &format!("echo > {}", trace(account))).await);
        }
        let cancelled: Result<(), Failed> = bus.call_at(&jobs["ben"], "Job.Cancel", &(Options::new(),)).await;
        cancelled.expect("cancelled");
        let ended = until(&bus, &jobs["ben"], &["abandoned"]).await;
        assert_eq!(text(&ended, "cause").as_deref(), Some("cancelled before it started"));
        (holds, jobs)
    });
    ok(&deputyctl("queueportal", &["account", "deactivate", "queue", "leaver", "--yes"]));
    ok(&deputyctl("carol", &["consent", "revoke", "queue", "unlinker", "--yes"]));
    fs::write(file, "").unwrap();
    on_bus("queueportal", async |bus| {
        until(&bus, &holds, &["done"]).await;
        until(&bus, &jobs["ann"], &["done"]).await;
        for account in ["leaver", "unlinker"] {
            let ended = until(&bus, &jobs[account], &["abandoned"]).await;
            let cause = text(&ended, "cause").unwrap_or_default();
            assert!(!cause.is_empty() && !cause.starts_with("cancelled"), "{account}: {cause}");
        }
    });
    assert!(Path::new(&trace("ann")).exists());
    for account in ["ben", "leaver", "unlinker"] {
        assert!(!Path::new(&trace(account)).exists(), "{account}'s job ran");
    }
}

#[test]
fn ceilings_hold_until_root_raises_them() {
    let (_machine, written) = machine();
    capacity(&written, "jobs = 8");
    application("queue", "account = { jobs = 1 }");
    let (script, file) = holding("ceiling");
    let (first, second) = on_bus("queueportal", async |bus| {
        let first = run(&bus, "ann", &script).await;
        let second = run(&bus, "ann", &script).await;
        let other = run(&bus, "ben", "true").await;
        until(&bus, &other, &["done"]).await;
        assert_eq!(state(&bus, &second).await, "queued");
        assert!(text_of(&queue(&bus).await, "jobs").contains("ceiling: account.jobs"));
        (first, second)
    });
    // Nothing else happens than that root writes.
    application("queue", "account = { jobs = 2 }");
    on_bus("queueportal", async |bus| {
        until(&bus, &second, &["running"]).await;
        fs::write(&file, "").unwrap();
        for job in [&first, &second] {
            until(&bus, job, &["done"]).await;
        }
    });
}

#[test]
fn two_accounts_with_unequal_backlogs_get_equal_cpu_time() {
    let (_machine, written) = machine();
    capacity(&written, "jobs = 2");
    application("queue", "");
    let factor = if std::env::var_os("DEPUTY_SOAK").is_some() { 10 } else { 1 };
    let burn = |loops: u32| format!("i=0; while [ $i -lt {loops} ]; do i=$((i+1)); done");
    on_bus("queueportal", async |bus| {
        let mut jobs = Vec::new();
        // Ann's are three times as many, Ben's twice as long.
        for _ in 0..90 * factor {
            jobs.push(("a", run(&bus, "share-a", &burn(60_000)).await));
        }
        for _ in 0..30 * factor {
            jobs.push(("b", run(&bus, "share-b", &burn(120_000)).await));
        }
        let mut ends = Vec::new();
        for (account, job) in &jobs {
            let ended = until(&bus, job, &["done"]).await;
            assert_eq!(number(&ended, "exit_code"), 0);
            let cpu = number(&ended, "user_us") + number(&ended, "system_us");
            ends.push((*account, number(&ended, "started"), number(&ended, "ended"), cpu));
        }
        // While both had jobs that waited: from the first of Ben's to the start of Ben's last.
        let of = |account: &'static str| ends.iter().filter(move |end| end.0 == account);
        let from = of("b").map(|end| end.1).min().unwrap();
        let to = of("b").map(|end| end.1).max().unwrap().min(of("a").map(|end| end.1).max().unwrap());
        let used =
            |account| of(account).filter(|end| end.1 >= from && end.2 <= to).map(|end| end.3).sum::<u64>();
        let all_of_a = of("a").filter(|end| end.2 <= to).map(|end| end.3).sum::<u64>();
        let (a, b) = (u32::try_from(all_of_a).unwrap(), u32::try_from(used("b")).unwrap());
        let ratio = f64::from(a) / f64::from(b);
        println!("CPU: {a} us and {b} us, ratio {ratio:.3}");
        assert!((0.9..=1.1).contains(&ratio), "{a} us and {b} us");
    });
}

#[test]
fn gpus_are_of_one_job_at_a_time_while_the_daemon_is_killed() {
    let (_machine, written) = machine();
    capacity(&written, "jobs = 16\ngpus = [\"/dev/zero\", \"/dev/full\", \"/dev/random\"]");
    let folder = "/tmp/gpu-leases";
    fs::create_dir_all(folder).unwrap();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
    // Each GPU is a folder that only one can make. What a job was leased it makes, and takes away at its end.
    let script = |number: u32, wanted: u32| {
        format!(
            "cd {folder} || exit 1; n=0; for g in $(echo $CUDA_VISIBLE_DEVICES | tr , ' '); do \
             mkdir gpu$g || {{ echo {number} >> overlap; exit 9; }}; n=$((n+1)); done; \
             [ $n = {wanted} ] || {{ echo {number} had $n >> overlap; exit 8; }}; sleep 0.3; \
             for g in $(echo $CUDA_VISIBLE_DEVICES | tr , ' '); do rmdir gpu$g; done; echo {number} >> ran-{number}"
        )
    };
    let over = AtomicBool::new(false);
    let kills = std::thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let mut kills = 0_u64;
            while !over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(150 + kills * 37 % 400));
                let pid = service_pid("deputyd");
                signal(pid, "KILL");
                kills += 1;
                wait_until("deputyd is started again", || service_pid("deputyd") != pid);
            }
            kills
        });
        let jobs = std::panic::catch_unwind(|| {
            on_bus("gpuportal", async |bus| {
                let mut jobs = Vec::new();
                for number in 0..40_u32 {
                    let wanted = number % 3 + 1;
                    let account = if number % 2 == 0 { "ann" } else { "ben" };
                    for _ in 0..200 {
                        let options = [("gpus", wanted)];
                        match submit(&bus, account, &script(number, wanted), &options).await {
                            Ok(job) => {
                                jobs.push((number, job));
                                break;
                            }
                            Err(Failed::Unknown(_)) => tokio::time::sleep(Duration::from_millis(30)).await,
                            Err(refused) => panic!("{refused:?}"),
                        }
                    }
                }
                assert_eq!(jobs.len(), 40);
                for (number, job) in &jobs {
                    let ended = until(&bus, job, &["done", "lost", "abandoned"]).await;
                    assert_eq!(text(&ended, "state").as_deref(), Some("done"), "{number}: {ended:?}");
                    assert_eq!(self::number(&ended, "exit_code"), 0, "{number}");
                    let ran = fs::read_to_string(format!("{folder}/ran-{number}")).unwrap();
                    assert!(!ran.is_empty());
                }
            });
        });
        over.store(true, Ordering::Relaxed);
        let kills = killer.join().expect("the killer");
        jobs.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        kills
    });
    // A call that was not answered may have been a job, too.
    on_bus("gpuportal", async |bus| {
        let mut free = 0;
        for _ in 0..1000 {
            free = number(&queue(&bus).await, "free_gpus");
            if free == 3 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(free, 3, "every lease came back");
    });
    println!("{kills} kills");
    assert!(kills >= 3);
    let overlap = fs::read_to_string(format!("{folder}/overlap")).unwrap_or_default();
    assert_eq!(overlap, "", "jobs that found a GPU taken, or not as many as they were leased");
}
