//! The life of a job, with a launcher that does what each test says.

use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::harness::{DEMO, Harness, ann, code, linking, none, ok, option, text};
use crate::launcher::double::answer;
use crate::store::{AuditFilter, Change, LinkState, PageRequest};
use deputy_core::job::{Enforcement, ExitRecord, JobEnd, Step, Usage};
use deputy_core::message::{self, JobCommand, JobState, LauncherReply, LauncherRequest};
use deputy_core::stream::Captured;
use deputy_core::{Code, Denial, JobId};
use deputy_wire::receive;

fn record(job: &JobId, end: JobEnd) -> LauncherReply {
    let usage = Usage { wall_us: 5, ..Usage::default() };
    LauncherReply::Job(JobState::Ended(ExitRecord {
        version: 1,
        job: job.clone(),
        end,
        usage,
        cause: None,
        ended_us: 1_700_000_000_000_000,
        captured: Captured::default(),
        enforcement: Enforcement::default(),
    }))
}

fn denied(socket: &OwnedFd, code: Code) {
    answer(socket, &LauncherReply::Denied(Denial::new(code, "test", "refused")));
}

/// What the daemon asks without anybody's call.
fn is_housekeeping(request: &LauncherRequest) -> bool {
    matches!(request, LauncherRequest::Forget { .. } | LauncherRequest::Folders { .. })
}

fn read(message: &zbus::Message) -> String {
    let body = message.body();
    let (pipe,): (zbus::OwnedFd,) = body.deserialize().unwrap();
    let mut text = String::new();
    std::fs::File::from(OwnedFd::from(pipe)).read_to_string(&mut text).unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_runs_is_watched_ends_and_is_forgotten_after_its_record() {
    let harness = Harness::new(linking(|request, descriptors, socket| match request {
        LauncherRequest::Run(run) => {
            assert_eq!(descriptors.len(), 3);
            assert_eq!(run.os_account, ann());
            answer(&socket, &LauncherReply::Job(JobState::Running));
            std::thread::sleep(Duration::from_millis(300));
            answer(&socket, &record(&run.job, JobEnd::Exited { code: 7 }));
        }
        other => panic!("{other:?}"),
    }));
    harness.linked(DEMO, "alice").await;
    let job = harness.run(DEMO, "alice", &["/bin/sh", "-c", "exit 7"]).await.unwrap();
    assert_eq!(text(&harness.call_at(DEMO, &job, "Job.Get", &()).await, "state").unwrap(), "running");
    let watch = harness.call_at(DEMO, &job, "Job.Watch", &()).await;
    let lines = tokio::task::spawn_blocking(move || read(&watch)).await.unwrap();
    let states: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(states[0]["state"], "running");
    assert_eq!((&states[1]["state"], &states[1]["status"]), (&"done".into(), &7.into()));
    assert_eq!(states.len(), 2);
    harness.job_state(&job, &["ended"]).await;
    let late = harness.call_at(DEMO, &job, "Job.Watch", &()).await;
    assert_eq!(read(&late).lines().count(), 1);
    let id: JobId = job.rsplit('/').next().unwrap().parse().unwrap();
    let forgotten = LauncherRequest::Forget { jobs: vec![id] };
    // In a quiet moment, which is some seconds.
    for _ in 0..3000 {
        if harness.requests.lock().unwrap().contains(&forgotten) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(harness.requests.lock().unwrap().contains(&forgotten));
    assert_eq!(harness.daemon.tracker.live(), 0);
    assert_eq!(code(&harness.call_at(DEMO, &job, "Job.Cancel", &(none(),)).await), "Conflict");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_executed_is_a_job_that_ended() {
    let harness = Harness::new(linking(|request, _, socket| {
        if let LauncherRequest::Run(run) = request {
            answer(&socket, &record(&run.job, JobEnd::LaunchFailed { step: Step::Exec, errno: 2 }));
        }
    }));
    harness.linked(DEMO, "alice").await;
    let job = harness.run(DEMO, "alice", &["/bin/missing"]).await.unwrap();
    // The end may be told just after the watching began.
    let told = read(&harness.call_at(DEMO, &job, "Job.Watch", &()).await);
    let line: serde_json::Value = serde_json::from_str(told.lines().last().unwrap()).unwrap();
    assert_eq!((&line["status"], &line["errno"]), (&127.into(), &2.into()));
    harness.job_state(&job, &["ended"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_launch_is_an_error_and_moves_the_link() {
    let harness = Harness::new(linking(|_, _, socket| denied(&socket, Code::NoConsent)));
    harness.linked(DEMO, "alice").await;
    assert_eq!(harness.run(DEMO, "alice", &["/bin/true"]).await, Err("NoConsent".into()));
    let link =
        harness.daemon.store.link(&"demo".parse().unwrap(), &"alice".parse().unwrap()).unwrap().unwrap();
    assert_eq!(link.state, LinkState::Revoked);
    assert_eq!(harness.daemon.tracker.live(), 0);
    // The next is refused without the launcher, until the link is asked for again.
    let asked = harness.requests.lock().unwrap().len();
    assert_eq!(harness.run(DEMO, "alice", &["/bin/true"]).await, Err("NoConsent".into()));
    let relevant =
        |requests: &[LauncherRequest]| requests.iter().filter(|request| !is_housekeeping(request)).count();
    assert_eq!(relevant(&harness.requests.lock().unwrap()), asked);
    let linked = harness.call(DEMO, "Links.Request", &("alice", "ann", none())).await;
    ok(&linked);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_asked_about_and_the_job_given_up_for_good() {
    let harness = Harness::new(linking(|request, _, socket| match request {
        LauncherRequest::Attach { .. } => denied(&socket, Code::NotFound),
        LauncherRequest::Abandon { .. } => answer(&socket, &LauncherReply::Done),
        _ => drop(socket),
    }));
    harness.linked(DEMO, "alice").await;
    assert_eq!(harness.run(DEMO, "alice", &["/bin/true"]).await, Err("LauncherUnavailable".into()));
    let requests = harness.requests.lock().unwrap().clone();
    assert!(requests.iter().any(|request| matches!(request, LauncherRequest::Abandon { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_of_a_job_that_runs_is_found_again() {
    let harness = Harness::new(linking(|request, _, socket| match request {
        LauncherRequest::Attach { job } => {
            answer(&socket, &LauncherReply::Job(JobState::Running));
            std::thread::sleep(Duration::from_millis(50));
            answer(&socket, &record(&job, JobEnd::Exited { code: 0 }));
        }
        _ => drop(socket),
    }));
    harness.linked(DEMO, "alice").await;
    let job = harness.run(DEMO, "alice", &["/bin/true"]).await.unwrap();
    harness.job_state(&job, &["ended"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_each_open_job_is_taken_up_and_its_end_recorded_once() {
    let times = Arc::new(AtomicUsize::new(0));
    let attached = Arc::clone(&times);
    let mut harness = Harness::new(linking(move |request, _, socket| match request {
        LauncherRequest::Run(_) => {
            answer(&socket, &LauncherReply::Job(JobState::Running));
            std::thread::sleep(Duration::from_secs(3));
        }
        LauncherRequest::Attach { job } => {
            attached.fetch_add(1, Ordering::SeqCst);
            answer(&socket, &record(&job, JobEnd::Signaled { signal: 15, core: false }));
        }
        other => panic!("{other:?}"),
    }));
    harness.linked(DEMO, "alice").await;
    let job = harness.run(DEMO, "alice", &["/bin/sleep", "9"]).await.unwrap();
    harness.job_state(&job, &["running"]).await;
    harness.restart().await;
    harness.job_state(&job, &["ended"]).await;
    harness.restart().await;
    harness.job_state(&job, &["ended"]).await;
    assert_eq!(times.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_reach_the_shepherd_of_the_job() {
    let harness = Harness::new(linking(|request, _, socket| {
        let LauncherRequest::Run(run) = request else { return };
        answer(&socket, &LauncherReply::Job(JobState::Running));
        let mut seen = Vec::new();
        while seen.len() < 2 {
            let packet = receive(&socket).unwrap().unwrap();
            seen.push(message::job::decode_command(&packet.bytes).unwrap());
        }
        assert_eq!(seen, [JobCommand::Signal { signal: 10 }, JobCommand::Cancel { grace_ms: 5 }]);
        answer(&socket, &record(&run.job, JobEnd::Signaled { signal: 15, core: false }));
    }));
    harness.linked(DEMO, "alice").await;
    let job = harness.run(DEMO, "alice", &["/bin/sleep", "9"]).await.unwrap();
    // Before its start is in the store, which is a moment later.
    for (state, count) in [("running", 1), ("queued", 0), ("done", 0)] {
        assert_eq!(listed(&harness, state).await.len(), count, "{state}");
    }
    assert_eq!(code(&harness.call_at(DEMO, &job, "Job.Signal", &(65, none())).await), "InvalidArgument");
    ok(&harness.call_at(DEMO, &job, "Job.Signal", &(10, none())).await);
    ok(&harness.call_at(DEMO, &job, "Job.Cancel", &(option("grace_ms", 5u32),)).await);
    harness.job_state(&job, &["ended"]).await;
    let id: JobId = job.rsplit('/').next().unwrap().parse().unwrap();
    let filter = AuditFilter { job: Some(id), ..AuditFilter::default() };
    let entries = harness.daemon.store.audit(1, &filter, &PageRequest::default()).unwrap().items;
    let commands = entries.iter().filter(|entry| matches!(entry.change, Change::JobCommanded { .. }));
    assert!(commands.clone().all(|entry| entry.actor.caller_uid == DEMO));
    assert_eq!(commands.count(), 2);
    let jobs = listed(&harness, "done").await;
    assert_eq!(jobs.len(), 1);
    assert_eq!(i32::try_from(&jobs[0]["status"]).unwrap(), 143);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_shepherd_is_commanded_in_its_own_version() {
    let harness = Harness::new(linking(|request, _, socket| {
        let LauncherRequest::Run(run) = request else { return };
        let running = message::job::encode_state(JobState::Running, 1).unwrap();
        deputy_wire::send(&socket, &running, &[]).unwrap();
        let packet = receive(&socket).unwrap().unwrap();
        assert_eq!(packet.bytes[4..6], 1u16.to_le_bytes());
        assert_eq!(message::job::decode_command(&packet.bytes), Ok(JobCommand::Signal { signal: 10 }));
        answer(&socket, &record(&run.job, JobEnd::Signaled { signal: 10, core: false }));
    }));
    harness.linked(DEMO, "alice").await;
    let job = harness.run(DEMO, "alice", &["/bin/sleep", "9"]).await.unwrap();
    ok(&harness.call_at(DEMO, &job, "Job.Signal", &(10, none())).await);
    harness.job_state(&job, &["ended"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shepherd_that_cannot_be_spoken_to_is_named_and_its_job_is_neither_lost_nor_given_up() {
    let over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_over = Arc::clone(&over);
    let harness = Harness::new(linking(move |request, _, socket| match request {
        LauncherRequest::Attach { job } if is_over.load(Ordering::SeqCst) => {
            answer(&socket, &record(&job, JobEnd::Exited { code: 3 }));
        }
        LauncherRequest::Attach { .. } => denied(&socket, Code::UnsupportedVersion),
        LauncherRequest::Run(_) => answer(&socket, &LauncherReply::Job(JobState::Running)),
        other => panic!("{other:?}"),
    }));
    harness.linked(DEMO, "alice").await;
    let job = harness.run(DEMO, "alice", &["/bin/sleep", "9"]).await.unwrap();
    // The command before the shepherd has been asked is taken, and waits for it.
    let mut told = harness.call_at(DEMO, &job, "Job.Signal", &(10, none())).await;
    for _ in 0..6000 {
        if told.message_type() == zbus::message::Type::Error && code(&told) != "Busy" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        told = harness.call_at(DEMO, &job, "Job.Signal", &(10, none())).await;
    }
    assert_eq!(code(&told), "UnsupportedVersion");
    assert_eq!(listed(&harness, "running").await.len(), 1);
    over.store(true, Ordering::SeqCst);
    harness.job_state(&job, &["ended"]).await;
}

/// The jobs that are listed in a state.
async fn listed(
    harness: &Harness,
    state: &'static str,
) -> Vec<std::collections::BTreeMap<String, zbus::OwnedVariant>> {
    let list = harness.call(DEMO, "Jobs.List", &(option("state", state),)).await;
    let (jobs, _): (Vec<_>, String) = list.body().deserialize().unwrap();
    jobs
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_each_come_to_their_own_end() {
    let harness = Arc::new(Harness::new(linking(|request, _, socket| {
        if let LauncherRequest::Run(run) = request {
            answer(&socket, &LauncherReply::Job(JobState::Running));
            answer(&socket, &record(&run.job, JobEnd::Exited { code: 0 }));
        }
    })));
    harness.linked(DEMO, "alice").await;
    let runs = (0..100).map(|_| {
        let harness = Arc::clone(&harness);
        tokio::spawn(async move { harness.run(DEMO, "alice", &["/bin/true"]).await.unwrap() })
    });
    for run in runs.collect::<Vec<_>>() {
        let job = run.await.unwrap();
        harness.job_state(&job, &["ended"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_was_refused_or_given_up_before_the_daemon_heard_is_not_asked_about_for_ever() {
    let told = Denial::new(Code::NoConsent, "consent", "there is none");
    let harness = Harness::new(linking(move |request, _, socket| match request {
        LauncherRequest::Attach { .. } => {
            answer(&socket, &LauncherReply::Job(JobState::Refused(told.clone())));
        }
        _ => drop(socket),
    }));
    harness.linked(DEMO, "alice").await;
    assert_eq!(harness.run(DEMO, "alice", &["/bin/true"]).await, Err("LauncherUnavailable".into()));
    let jobs = listed(&harness, "abandoned").await;
    assert_eq!(jobs.len(), 1);
    assert_eq!(String::try_from(jobs[0]["cause"].try_clone().unwrap()).unwrap(), "NoConsent: there is none");
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_that_a_killed_daemon_left_go_and_no_others() {
    let there: Arc<std::sync::Mutex<Vec<JobId>>> = Arc::default();
    let folders = Arc::clone(&there);
    let unknown = JobId::from_random([7; JobId::BYTES]);
    let more = unknown.clone();
    let inner = linking(|request, _, socket| {
        let LauncherRequest::Run(run) = request else { return };
        answer(&socket, &LauncherReply::Job(JobState::Running));
        if run.argv[0] == b"/bin/true" {
            answer(&socket, &record(&run.job, JobEnd::Exited { code: 0 }));
        } else {
            std::thread::sleep(Duration::from_secs(3));
        }
    });
    let mut harness = Harness::new(move |request, descriptors, socket| match request {
        LauncherRequest::Folders { after } => {
            let mut jobs = folders.lock().unwrap().clone();
            jobs.push(more.clone());
            jobs.sort();
            jobs.retain(|job| after.as_ref().is_none_or(|after| job > after));
            answer(&socket, &LauncherReply::Folders { jobs });
        }
        // It dies before it has forgotten anything.
        LauncherRequest::Forget { .. } if folders.lock().unwrap().is_empty() => {}
        other => inner(other, descriptors, socket),
    });
    harness.linked(DEMO, "alice").await;
    let mut ids: Vec<JobId> = Vec::new();
    for (program, state) in [("/bin/true", "ended"), ("/bin/sleep", "running")] {
        let job = harness.run(DEMO, "alice", &[program]).await.unwrap();
        harness.job_state(&job, &[state]).await;
        ids.push(job.rsplit('/').next().unwrap().parse().unwrap());
    }
    *there.lock().unwrap() = ids.clone();
    harness.requests.lock().unwrap().clear();
    harness.restart().await;
    let forgotten = LauncherRequest::Forget { jobs: vec![ids[0].clone()] };
    for _ in 0..500 {
        if harness.requests.lock().unwrap().contains(&forgotten) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let requests = harness.requests.lock().unwrap();
    let named = requests.iter().filter_map(|request| match request {
        LauncherRequest::Forget { jobs } => Some(jobs.clone()),
        _ => None,
    });
    // The one that runs, and one of which the ledger has never heard, stay.
    assert!(named.flatten().all(|job| job == ids[0]));
    assert!(requests.contains(&forgotten));
}
