//! The options of `Jobs.Run`: what is refused, and what reaches the launcher and the ledger.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use deputy_core::job::{Enforcement, ExitRecord, JobEnd, Usage};
use deputy_core::limits::{JobBounds, ResourceLimits};
use deputy_core::message::{JobState, LauncherReply, LauncherRequest, RunRequest};
use deputy_core::size::{ByteSize, MilliCpus};
use deputy_core::stream::{Captured, Input, Output, Streams};
use rustix::fs::{Mode, OFlags, open};
use zbus::{Fd, Message, Variant};

use super::harness::{DEMO, Harness, code, linking, ok};
use crate::launcher::double::answer;

const DEMO_FILE: &str = "service_uid = 900\ntrust = \"application\"\nenvironment = [\"APP_*\"]\n\
    [limits]\npids = 100\n\
    [kinds.batch]\ncommands = [\"*\"]\ntime_limit_seconds = 60\nnice = 3\nlimits.memory = \"1G\"\n\
    [kinds.fixed]\ncommands = [\"/bin/true\"]\n\
    [kinds.portal]\ncommands = [\"*\"]\nservice = true\n";

type Runs = Arc<Mutex<Vec<(RunRequest, usize)>>>;

async fn harness() -> (Harness, Runs) {
    let runs = Runs::default();
    let seen = Arc::clone(&runs);
    let harness = Harness::new(linking(move |request, descriptors, socket| {
        let LauncherRequest::Run(run) = request else { return };
        let job = run.job.clone();
        seen.lock().unwrap().push((run, descriptors.len()));
        answer(&socket, &LauncherReply::Job(JobState::Running));
        answer(
            &socket,
            &LauncherReply::Job(JobState::Ended(ExitRecord {
                version: 1,
                job,
                end: JobEnd::Exited { code: 0 },
                usage: Usage::default(),
                cause: None,
                ended_us: 1_700_000_000_000_000,
                captured: Captured::default(),
                enforcement: Enforcement::Cgroup,
            })),
        );
    }));
    harness.files.lock().unwrap().insert("demo".into(), DEMO_FILE.into());
    harness.linked(DEMO, "alice").await;
    (harness, runs)
}

async fn run_with(harness: &Harness, options: Vec<(&'static str, Variant<'static>)>) -> Message {
    let options: BTreeMap<&str, Variant<'static>> = options.into_iter().collect();
    harness.call(DEMO, "Jobs.Run", &("alice", vec![b"/bin/true".to_vec()], options)).await
}

fn fd(path: &str, flags: OFlags) -> Variant<'static> {
    Variant::Fd(Fd::from(open(path, flags, Mode::empty()).unwrap()))
}

fn pipe() -> (Variant<'static>, Variant<'static>) {
    let (reader, writer) = std::io::pipe().unwrap();
    (Variant::Fd(Fd::from(OwnedFd::from(reader))), Variant::Fd(Fd::from(OwnedFd::from(writer))))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_out_of_range_or_not_known_reaches_nobody() {
    let (harness, runs) = harness().await;
    let bytes = |text: &str| Variant::from(text.as_bytes().to_vec());
    let refused: Vec<(&'static str, Variant<'static>)> = vec![
        ("colour", "red".into()),
        ("name", "".into()),
        ("name", "a/b".into()),
        ("name", "n".repeat(65).into()),
        ("name", 5u32.into()),
        ("directory", bytes("relative")),
        ("directory", bytes("/a\0b")),
        ("directory", bytes(&format!("/{}", "x".repeat(4095)))),
        ("umask", "1000".into()),
        ("umask", "0o22".into()),
        ("umask", 18u32.into()),
        ("os_group", "a:b".into()),
        ("environment", vec![b"APP_A".to_vec()].into()),
        ("stdin", "capture".into()),
        ("stdin", "stdout".into()),
        ("stdin", bytes("")),
        ("stdout", "stdout".into()),
        ("stdout", "append".into()),
        ("stdout", bytes("a\0b")),
        ("stdout", 1u32.into()),
        ("stderr", "".into()),
        ("stdout_append", true.into()),
        ("stderr_append", 1u32.into()),
        ("memory", 0u64.into()),
        ("memory", 5u32.into()),
        ("memory", "1G".into()),
        ("cpus", 0.0f64.into()),
        ("cpus", (-1.0f64).into()),
        ("cpus", f64::NAN.into()),
        ("cpus", f64::INFINITY.into()),
        ("cpus", 1u32.into()),
        ("pids", 0u32.into()),
        ("files", 0u32.into()),
        ("files", 5u64.into()),
        ("core", 5u32.into()),
        ("time_limit_seconds", 0u32.into()),
        ("grace_seconds", 3601u32.into()),
        ("nice", 20u32.into()),
        ("nice", (-5i32).into()),
        ("gpus", 70_000u32.into()),
        ("watch", fd("/dev/null", OFlags::WRONLY)),
        ("watch", fd("/proc/self/status", OFlags::RDONLY)),
        ("watch", pipe().0),
        ("script", fd("/tmp", OFlags::RDONLY)),
        ("script", fd("/dev/zero", OFlags::RDONLY)),
        ("script", fd("/proc/self/status", OFlags::PATH)),
        ("script", pipe().1),
        ("environment_fd", fd("/tmp", OFlags::RDONLY)),
        ("environment_fd", pipe().1),
        ("stdin", fd("/tmp", OFlags::RDONLY)),
        ("stdin", fd("/dev/null", OFlags::PATH)),
        ("stdin", pipe().1),
        ("stdout", fd("/dev/ptmx", OFlags::RDWR | OFlags::NOCTTY)),
        ("stdout", pipe().0),
    ];
    for (key, value) in refused {
        let shown = format!("{key}: {value:?}");
        assert_eq!(code(&run_with(&harness, vec![(key, value)]).await), "InvalidArgument", "{shown}");
    }
    // What policy does not allow has a code and a rule of its own.
    for (key, value) in [
        ("memory", Variant::from((1u64 << 30) + 1)),
        ("pids", 101u32.into()),
        ("time_limit_seconds", 61u32.into()),
        ("grace_seconds", 11u32.into()),
        ("nice", 2u32.into()),
    ] {
        assert_eq!(code(&run_with(&harness, vec![(key, value)]).await), "LimitNotAllowed", "{key}");
    }
    let (reader, _) = pipe();
    let fixed = run_with(&harness, vec![("kind", "fixed".into()), ("script", reader)]).await;
    assert_eq!(code(&fixed), "CommandNotAllowed");
    assert!(runs.lock().unwrap().is_empty());
    assert_eq!(harness.daemon.limits.watches.taken(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_that_change_programs_are_refused_whatever_their_form() {
    let (harness, runs) = harness().await;
    for variable in [
        "LD_PRELOAD=/tmp/x.so",
        "LD_LIBRARY_PATH=/tmp",
        "BASH_FUNC_ls%%=() { id; }",
        "TZ=/etc/shadow",
        "PATH=/tmp",
        "IFS=x",
        "=x",
        "APP_A=x\0y",
        "APP=x",
        "XAPP_A=1",
    ] {
        let environment = vec![variable.as_bytes().to_vec()];
        let refused = run_with(&harness, vec![("environment", environment.into())]).await;
        assert!(
            ["EnvironmentNotAllowed", "InvalidArgument"].contains(&code(&refused).as_str()),
            "{variable}"
        );
    }
    let long = [b"APP_LONG=".to_vec(), vec![b'x'; 1 << 20]].concat();
    assert_eq!(code(&run_with(&harness, vec![("environment", vec![long].into())]).await), "InvalidArgument");
    assert!(runs.lock().unwrap().is_empty());
    ok(&run_with(&harness, vec![("environment", vec![b"APP_A=b=c".to_vec()].into())]).await);
    assert_eq!(runs.lock().unwrap()[0].0.environment, [b"APP_A=b=c".to_vec()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_was_asked_for_reaches_the_launcher_and_the_ledger() {
    let (harness, runs) = harness().await;
    let (script, _keep) = pipe();
    let (variables, _keep_too) = pipe();
    let options = vec![
        ("name", Variant::from("nightly")),
        ("umask", "027".into()),
        ("os_group", "lab1".into()),
        ("stdin", b"in.txt".to_vec().into()),
        ("stdout", b"out.txt".to_vec().into()),
        ("stdout_append", true.into()),
        ("stderr", "capture".into()),
        ("script", script),
        ("environment_fd", variables),
        ("memory", (512u64 << 20).into()),
        ("cpus", 1.5f64.into()),
        ("pids", 7u32.into()),
        ("files", 64u32.into()),
        ("core", 0u64.into()),
        ("time_limit_seconds", 30u32.into()),
        ("grace_seconds", 0u32.into()),
        ("nice", 19u32.into()),
        ("gpus", 0u32.into()),
    ];
    let answer = run_with(&harness, options).await;
    ok(&answer);
    let (run, descriptors) = runs.lock().unwrap()[0].clone();
    assert_eq!(descriptors, 2);
    assert!(run.script && run.environment_descriptor);
    let streams = Streams {
        input: Input::File(b"in.txt".to_vec()),
        output: Output::File { path: b"out.txt".to_vec(), append: true },
        error: Output::Captured,
    };
    assert_eq!(run.streams, streams);
    let bounds = JobBounds {
        limits: ResourceLimits {
            memory: Some(ByteSize(512 << 20)),
            cpus: Some(MilliCpus(1500)),
            pids: Some(7),
            files: Some(64),
            core: Some(ByteSize(0)),
        },
        time_limit_seconds: Some(30),
        grace_seconds: Some(0),
        nice: Some(19),
    };
    assert_eq!((run.bounds, run.umask), (bounds, Some(0o027)));
    assert_eq!(run.os_group.as_ref().unwrap().as_str(), "lab1");
    let job = harness.daemon.store.job(&run.job).unwrap().unwrap();
    assert_eq!((&job.spec.streams, job.spec.bounds), (&streams, bounds));
    assert_eq!(job.spec.name.unwrap().as_str(), "nightly");
    assert!(!job.spec.service && job.spec.boot == harness.daemon.store.boot());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_takes_nothing_that_could_not_be_given_again() {
    let (harness, runs) = harness().await;
    let (reader, writer) = pipe();
    for (key, value) in [("stdin", reader), ("stdout", writer), ("time_limit_seconds", 5u32.into())] {
        let refused = run_with(&harness, vec![("kind", "portal".into()), (key, value)]).await;
        assert_eq!(code(&refused), "InvalidArgument", "{key}");
    }
    for key in ["environment_fd", "script"] {
        let refused = run_with(&harness, vec![("kind", "portal".into()), (key, pipe().0)]).await;
        assert_eq!(code(&refused), "InvalidArgument", "{key}");
    }
    assert!(runs.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_by_his_own_descriptor_hears_all_states_and_holds_up_nobody() {
    let (harness, _) = harness().await;
    let (mut reader, writer) = std::io::pipe().unwrap();
    let watch = Variant::Fd(Fd::from(OwnedFd::from(writer)));
    ok(&run_with(&harness, vec![("watch", watch)]).await);
    let lines = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    });
    let lines = lines.await.unwrap();
    let states: Vec<String> = lines
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["state"].as_str().unwrap().into()
        })
        .collect();
    assert_eq!(states, ["starting", "running", "done"]);
    // One that is full, one that nobody reads any more, and one whose reader never reads.
    let (full, writer) = std::io::pipe().unwrap();
    rustix::fs::fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
    while rustix::io::write(&writer, &[0; 4096]).is_ok() {}
    rustix::fs::fcntl_setfl(&writer, OFlags::empty()).unwrap();
    let (gone, without_reader) = std::io::pipe().unwrap();
    drop(gone);
    let (silent, unread) = std::os::unix::net::UnixStream::pair().unwrap();
    for descriptor in [OwnedFd::from(writer), without_reader.into(), unread.into()] {
        let watch = Variant::Fd(Fd::from(descriptor));
        let answer = run_with(&harness, vec![("watch", watch)]).await;
        ok(&answer);
        let path: zbus::OwnedObjectPath = answer.body().deserialize::<(zbus::OwnedObjectPath,)>().unwrap().0;
        harness.job_state(path.as_str(), &["ended"]).await;
    }
    drop((full, silent));
    for _ in 0..100 {
        if harness.daemon.limits.watches.taken() == 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("places of watchers are still taken");
}
