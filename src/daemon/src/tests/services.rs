//! Services and captured output: what goes on, and what is kept, with a launcher that does what each test says.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use deputy_core::job::{EndCause, Enforcement, ExitRecord, JobEnd, Usage};
use deputy_core::message::{JobState, LauncherReply, LauncherRequest, RunRequest};
use deputy_core::stream::{Captured, Output};
use deputy_core::{Code, Denial, JobId};
use zbus::Message;

use super::harness::{DEMO, Harness, code, linking, none, ok, option};
use crate::launcher::double::{answer, answer_with};
use crate::store::{Job, PageRequest, Timestamp};

fn ended(job: &JobId, end: JobEnd, cause: Option<EndCause>, written: u64) -> LauncherReply {
    LauncherReply::Job(JobState::Ended(ExitRecord {
        version: 1,
        job: job.clone(),
        end,
        usage: Usage::default(),
        cause,
        // Some seconds before its time is over.
        ended_us: Timestamp::now().0 - 7 * 86_400_000_000 + 4_000_000,
        captured: Captured { output: written, error: 0 },
        enforcement: Enforcement::default(),
    }))
}

const FILE: &str = "service_uid = 900\ntrust = \"application\"\n[kinds.batch]\ncommands = [\"*\"]\n\
    [kinds.portal]\ncommands = [\"*\"]\nservice = true\nrestart = \"on-failure\"\n";

async fn prepared(harness: &Harness) {
    harness.files.lock().unwrap().insert("demo".into(), FILE.into());
    harness.linked(DEMO, "alice").await;
}

fn path(message: &Message) -> String {
    ok(message);
    message.body().deserialize::<(zbus::OwnedObjectPath,)>().unwrap().0.to_string()
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..500 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not come");
}

fn services(harness: &Harness) -> Vec<Job> {
    harness.daemon.store.services(&PageRequest::default()).unwrap().items
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_started_again_when_it_failed_and_not_when_it_ended_well() {
    let runs: Arc<Mutex<Vec<RunRequest>>> = Arc::default();
    let seen = Arc::clone(&runs);
    let harness = Harness::new(linking(move |request, _, socket| {
        let LauncherRequest::Run(run) = request else { return };
        let mut runs = seen.lock().unwrap();
        runs.push(run.clone());
        let number = u8::try_from(runs.len()).unwrap();
        drop(runs);
        answer(&socket, &LauncherReply::Job(JobState::Running));
        // Twice it fails, then it ends well.
        answer(&socket, &ended(&run.job, JobEnd::Exited { code: u8::from(number < 3) }, None, 0));
    }));
    prepared(&harness).await;
    let options = option("kind", "portal");
    path(&harness.call(DEMO, "Jobs.Run", &("alice", vec![b"/bin/true".to_vec()], options)).await);
    until("the end of the service", || runs.lock().unwrap().len() == 3 && services(&harness).is_empty())
        .await;
    let ids: Vec<JobId> = runs.lock().unwrap().iter().map(|run| run.job.clone()).collect();
    let job = |id: &JobId| harness.daemon.store.job(id).unwrap().unwrap();
    assert_eq!(job(&ids[0]).spec.predecessor, None);
    assert_eq!(job(&ids[1]).spec.predecessor.as_ref(), Some(&ids[0]));
    assert_eq!(job(&ids[2]).spec.predecessor.as_ref(), Some(&ids[1]));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(runs.lock().unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_service_stays_down_even_between_two_of_its_jobs() {
    let runs: Arc<Mutex<Vec<JobId>>> = Arc::default();
    let seen = Arc::clone(&runs);
    let mut harness = Harness::new(linking(move |request, _, socket| match request {
        LauncherRequest::Run(run) => {
            seen.lock().unwrap().push(run.job.clone());
            let cause = (run.argv[0] == b"/bin/cancelled").then_some(EndCause::Cancelled);
            answer(&socket, &ended(&run.job, JobEnd::Exited { code: 1 }, cause, 0));
        }
        _ => answer(&socket, &LauncherReply::Denied(Denial::new(Code::NotFound, "test", "no"))),
    }));
    prepared(&harness).await;
    let run = |program: &str| ("alice", vec![program.as_bytes().to_vec()], option("kind", "portal"));
    let job = path(&harness.call(DEMO, "Jobs.Run", &run("/bin/cancelled")).await);
    harness.job_state(&job, &["ended"]).await;
    until("the end of the service", || services(&harness).is_empty()).await;
    assert_eq!(runs.lock().unwrap().len(), 1);
    // One that fails has a pause before its next job, and is cancelled in it.
    let job = path(&harness.call(DEMO, "Jobs.Run", &run("/bin/fails")).await);
    harness.job_state(&job, &["ended"]).await;
    ok(&harness.call_at(DEMO, &job, "Job.Cancel", &(none(),)).await);
    assert_eq!(code(&harness.call_at(DEMO, &job, "Job.Cancel", &(none(),)).await), "Conflict");
    harness.restart().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(runs.lock().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_another_boot_a_job_is_lost_with_that_cause_and_a_service_is_started_once() {
    let runs: Arc<Mutex<Vec<JobId>>> = Arc::default();
    let seen = Arc::clone(&runs);
    let mut harness = Harness::new(linking(move |request, _, socket| match request {
        LauncherRequest::Run(run) => {
            seen.lock().unwrap().push(run.job);
            answer(&socket, &LauncherReply::Job(JobState::Running));
            std::thread::sleep(Duration::from_secs(3));
        }
        LauncherRequest::Attach { .. } => answer(&socket, &LauncherReply::Job(JobState::Lost)),
        other => panic!("{other:?}"),
    }));
    prepared(&harness).await;
    let run = |kind: &'static str| ("alice", vec![b"/bin/true".to_vec()], option("kind", kind));
    let plain = path(&harness.call(DEMO, "Jobs.Run", &run("batch")).await);
    let service = path(&harness.call(DEMO, "Jobs.Run", &run("portal")).await);
    for job in [&plain, &service] {
        harness.job_state(job, &["running"]).await;
    }
    harness.boot_again().await;
    for job in [&plain, &service] {
        harness.job_state(job, &["lost"]).await;
        let cause = super::harness::text(&harness.call_at(DEMO, job, "Job.Get", &()).await, "cause").unwrap();
        assert_eq!(cause, "the machine was started again while it ran");
    }
    until("the service", || runs.lock().unwrap().len() == 3).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let runs = runs.lock().unwrap();
    assert_eq!(runs.len(), 3, "only the service, and once");
    let next = harness.daemon.store.job(&runs[2]).unwrap().unwrap();
    assert_eq!(next.spec.predecessor, Some(service.rsplit('/').next().unwrap().parse().unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn output_is_followed_while_the_job_runs_read_afterwards_and_kept_for_its_time() {
    let (bytes, left_out) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    let (writing, gap) = (bytes.try_clone().unwrap(), left_out);
    let (end, wait) = std::sync::mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let mut harness = Harness::new(linking(move |request, _, socket| match request {
        LauncherRequest::Run(run) => {
            assert_eq!((&run.streams.output, run.streams.descriptors()), (&Output::Captured, 2));
            answer(&socket, &LauncherReply::Job(JobState::Running));
            wait.lock().unwrap().recv().unwrap();
            answer(&socket, &ended(&run.job, JobEnd::Exited { code: 0 }, None, 8));
        }
        LauncherRequest::Captured { .. } => {
            answer_with(&socket, &LauncherReply::Captured, &[bytes.as_fd(), gap.as_fd()]);
        }
        other => panic!("{other:?}"),
    }));
    prepared(&harness).await;
    let options = option("stdout", "capture");
    let job = path(&harness.call(DEMO, "Jobs.Run", &("alice", vec![b"/bin/true".to_vec()], options)).await);
    // Refusals first.
    for (stream, expected) in [("stderr", "NotFound"), ("stdin", "InvalidArgument"), ("", "InvalidArgument")]
    {
        assert_eq!(code(&harness.call_at(DEMO, &job, "Job.Output", &(stream, none())).await), expected);
    }
    let wrong = option("offset", 5u32);
    assert_eq!(code(&harness.call_at(DEMO, &job, "Job.Output", &("stdout", wrong)).await), "InvalidArgument");
    let stranger = harness.call_at(super::harness::STRICT, &job, "Job.Output", &("stdout", none())).await;
    assert_eq!(code(&stranger), "NotFound");
    let mut readers = Vec::new();
    for _ in 0..2 {
        let opened = harness.call_at(DEMO, &job, "Job.Output", &("stdout", option("follow", true))).await;
        readers.push(tokio::task::spawn_blocking(move || read(&opened)));
    }
    writing.write_all_at(b"one\n", 0).unwrap();
    let now = harness.call_at(DEMO, &job, "Job.Output", &("stdout", none())).await;
    assert_eq!(read(&now), "one\n");
    writing.write_all_at(b"two\n", 4).unwrap();
    end.send(()).unwrap();
    for reader in readers {
        assert_eq!(reader.await.unwrap(), "one\ntwo\n");
    }
    harness.job_state(&job, &["ended"]).await;
    harness.restart().await;
    let later = harness.call_at(DEMO, &job, "Job.Output", &("stdout", option("offset", 4u64))).await;
    assert_eq!(read(&later), "two\n");
    let id: JobId = job.rsplit('/').next().unwrap().parse().unwrap();
    // Its time will be over, and it goes once.
    for _ in 0..100 {
        harness.daemon.tracker.remove_old_output().await;
        if harness.daemon.store.job(&id).unwrap().unwrap().forgotten.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let again = harness.call_at(DEMO, &job, "Job.Output", &("stdout", none())).await;
    assert_eq!(code(&again), "NotFound");
    let forgotten = LauncherRequest::Forget { jobs: vec![id.clone()] };
    let count = harness.requests.lock().unwrap().iter().filter(|request| **request == forgotten).count();
    assert_eq!(count, 1);
    assert!(harness.daemon.store.job(&id).unwrap().unwrap().forgotten.is_some());
}

fn read(message: &Message) -> String {
    ok(message);
    let (pipe,): (zbus::OwnedFd,) = message.body().deserialize().unwrap();
    let mut text = String::new();
    File::from(OwnedFd::from(pipe)).read_to_string(&mut text).unwrap();
    text
}
