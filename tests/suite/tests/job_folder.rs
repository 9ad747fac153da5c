//! G6 and G7 at the launcher: a job id is used once, and how its job ended is known as long as it is asked for.
#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;

use deputy_core::Code;
use deputy_core::ids::JobId;
use deputy_core::job::{ExitRecord, JobEnd};
use deputy_core::message::{JobCommand, JobState, LauncherReply, LauncherRequest, RunRequest, encode};
use deputy_suite::acting::{identity, ids};
use deputy_suite::fake::Answers;
use deputy_suite::line::Line;
use deputy_suite::machine::{children_of, running, signal, wait_for_no_children, wait_until};
use deputy_suite::requests::{grant, run_as};
use deputy_suite::{Fake, job_id, need_the_sandbox};

fn ask(request: &LauncherRequest) -> Answers {
    Fake::daemon().ask(request, &[])
}

fn attach(job: &JobId) -> Line {
    let line = Line::to_launcher(ids("deputy")).unwrap();
    line.send(&encode(&LauncherRequest::Attach { job: job.clone() }).unwrap(), &[]);
    line
}

/// The end of a job, as whoever attaches now hears it.
fn end_of(job: &JobId) -> LauncherReply {
    let replies: Vec<LauncherReply> = attach(job).rest();
    replies.last().cloned().expect("an answer")
}

fn is_refused(reply: &LauncherReply, code: Code) -> bool {
    matches!(reply, LauncherReply::Job(JobState::Refused(denial)) if denial.code == code)
}

/// The one process that was started with these words.
fn the_process(words: &str) -> i32 {
    let mut found = Vec::new();
    wait_until(words, || {
        found = running(words);
        !found.is_empty()
    });
    assert_eq!(found.len(), 1, "{words}");
    found[0]
}

fn parent_of(pid: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    line.trim().parse().unwrap()
}

/// A job that adds a line to a file in alice's home.
fn counted(account_name: &str) -> (RunRequest, String) {
    grant(account_name, "alice");
    let file = format!("/home/alice/{account_name}");
    let request = run_as(identity("alice"), account_name, &["sh", "-c", "echo ran >> \"$0\"", &file]);
    (request, file)
}

fn runs(file: &str) -> usize {
    fs::read_to_string(file).map_or(0, |text| text.lines().count())
}

#[test]
fn an_id_runs_once() {
    need_the_sandbox();
    let (request, file) = counted("once");
    assert_eq!(Fake::daemon().run(&request).status(), Some(0));
    assert_eq!(Fake::daemon().run(&request).code(), Some(Code::JobExists));
    // Not with another command or for another account either.
    let mut other = request.clone();
    other.argv = vec![b"true".to_vec()];
    assert_eq!(Fake::daemon().run(&other).code(), Some(Code::JobExists));
    assert_eq!(runs(&file), 1);
    let mut fresh = request;
    fresh.job = job_id();
    assert_eq!(Fake::daemon().run(&fresh).status(), Some(0));
    assert_eq!(runs(&file), 2);
}

#[test]
fn an_id_runs_once_however_many_ask_at_once() {
    need_the_sandbox();
    for round in 0..5 {
        let (request, file) = counted(&format!("race-{round}"));
        let answers: Vec<Answers> = std::thread::scope(|scope| {
            let asking: Vec<_> = (0..8).map(|_| scope.spawn(|| Fake::daemon().run(&request))).collect();
            asking.into_iter().map(|answers| answers.join().unwrap()).collect()
        });
        assert_eq!(answers.iter().filter(|answers| answers.status() == Some(0)).count(), 1, "{answers:?}");
        assert_eq!(
            answers.iter().filter(|answers| answers.code() == Some(Code::JobExists)).count(),
            7,
            "{answers:?}"
        );
        assert_eq!(runs(&file), 1);
    }
}

#[test]
fn an_id_that_was_given_up_never_runs() {
    need_the_sandbox();
    let (request, file) = counted("given-up");
    let abandon = LauncherRequest::Abandon { job: request.job.clone() };
    assert_eq!(ask(&abandon).replies, [LauncherReply::Done]);
    assert_eq!(Fake::daemon().run(&request).code(), Some(Code::JobExists));
    assert_eq!(ask(&abandon).code(), Some(Code::JobExists));
    assert!(is_refused(&end_of(&request.job), Code::JobExists));
    assert_eq!(runs(&file), 0);
}

#[test]
fn an_id_that_ran_or_runs_cannot_be_given_up() {
    need_the_sandbox();
    let (request, file) = counted("ran");
    assert_eq!(Fake::daemon().run(&request).status(), Some(0));
    assert_eq!(ask(&LauncherRequest::Abandon { job: request.job.clone() }).code(), Some(Code::JobExists));
    assert_eq!(runs(&file), 1);
    grant("runs-now", "alice");
    let request = run_as(identity("alice"), "runs-now", &["sleep", "1001"]);
    let pending = Fake::daemon().begin(&request);
    assert_eq!(pending.line.reply(), LauncherReply::Job(JobState::Running));
    assert_eq!(ask(&LauncherRequest::Abandon { job: request.job.clone() }).code(), Some(Code::JobExists));
    assert_eq!(running("sleep 1001").len(), 1);
    pending.line.command(JobCommand::Cancel { grace_ms: 0 });
    assert!(pending.answers().status().is_some());
}

#[test]
fn giving_up_and_running_at_once_is_one_of_the_two() {
    need_the_sandbox();
    for round in 0..20 {
        let (request, file) = counted(&format!("either-{round}"));
        let abandon = LauncherRequest::Abandon { job: request.job.clone() };
        let (ran, given_up) = std::thread::scope(|scope| {
            let ran = scope.spawn(|| Fake::daemon().run(&request));
            let given_up = scope.spawn(|| ask(&abandon));
            (ran.join().unwrap(), given_up.join().unwrap())
        });
        let ran = ran.status() == Some(0);
        assert_eq!(given_up.replies == [LauncherReply::Done], !ran, "{given_up:?}");
        assert_eq!(runs(&file), usize::from(ran));
    }
}

#[test]
fn only_what_is_over_is_forgotten() {
    need_the_sandbox();
    grant("forgotten", "alice");
    let request = run_as(identity("alice"), "forgotten", &["sleep", "1002"]);
    let pending = Fake::daemon().begin(&request);
    assert_eq!(pending.line.reply(), LauncherReply::Job(JobState::Running));
    let forget = LauncherRequest::Forget { jobs: vec![request.job.clone(), job_id()] };
    assert_eq!(ask(&forget).replies, [LauncherReply::Done]);
    assert_eq!(
        attach(&request.job).reply(),
        LauncherReply::Job(JobState::Running),
        "it was forgotten while it ran"
    );
    pending.line.command(JobCommand::Cancel { grace_ms: 0 });
    pending.answers();
    wait_until("the shepherd has gone", || {
        !Path::new("/run/deputy/jobs").join(request.job.as_str()).exists()
    });
    assert!(matches!(end_of(&request.job), LauncherReply::Job(JobState::Ended(_))));
    assert_eq!(ask(&forget).replies, [LauncherReply::Done]);
    assert!(matches!(end_of(&request.job), LauncherReply::Denied(denial) if denial.code == Code::NotFound));
    assert!(!Path::new("/var/lib/deputy/jobs").join(request.job.as_str()).exists());
}

#[test]
fn whoever_attaches_hears_what_the_first_heard() {
    need_the_sandbox();
    grant("attached", "alice");
    let unknown = job_id();
    assert!(matches!(end_of(&unknown), LauncherReply::Denied(denial) if denial.code == Code::NotFound));

    let request = run_as(identity("alice"), "attached", &["sleep", "1003"]);
    let first = Fake::daemon().begin(&request);
    assert_eq!(first.line.reply(), LauncherReply::Job(JobState::Running));
    let second = attach(&request.job);
    assert_eq!(second.reply(), LauncherReply::Job(JobState::Running));
    // Who asked first may go: the job goes on, and obeys the other.
    drop(first);
    second.command(JobCommand::Signal { signal: 12 });
    let LauncherReply::Job(JobState::Ended(record)) = second.reply() else { panic!("no end") };
    assert_eq!(record.end, JobEnd::Signaled { signal: 12, core: false });
    assert_eq!(second.next::<LauncherReply>(), None, "one end is enough");
    // Asked again, it is the same record, to the last microsecond.
    assert_eq!(end_of(&request.job), LauncherReply::Job(JobState::Ended(record.clone())));
    let path = Path::new("/var/lib/deputy/jobs").join(request.job.as_str()).join("exit");
    assert!(path.is_file(), "the record is on disk");
    assert_eq!((record.version, record.job), (ExitRecord::VERSION, request.job));
}

#[test]
fn a_record_that_lost_its_name_in_a_power_cut_counts_and_one_that_was_not_filled_does_not() {
    need_the_sandbox();
    grant("power-cut", "alice");
    let request = run_as(identity("alice"), "power-cut", &["sh", "-c", "exit 9"]);
    let answers = Fake::daemon().run(&request);
    let last = answers.replies.last().expect("an end").clone();
    wait_for_no_children();
    let folder = Path::new("/var/lib/deputy/jobs").join(request.job.as_str());
    fs::rename(folder.join("exit"), folder.join("exit.prepared")).unwrap();
    assert_eq!(end_of(&request.job), last);
    fs::write(folder.join("exit.prepared"), "\n".repeat(512)).unwrap();
    assert_eq!(end_of(&request.job), LauncherReply::Job(JobState::Lost));
}

#[test]
fn a_refused_job_says_so_to_whoever_attaches() {
    need_the_sandbox();
    let request = run_as(identity("alice"), "refused-job", &["true"]);
    let answers = Fake::daemon().run(&request);
    assert_eq!(answers.code(), Some(Code::NoConsent));
    let LauncherReply::Denied(denial) = answers.replies[0].clone() else { panic!("{answers:?}") };
    assert_eq!(end_of(&request.job), LauncherReply::Job(JobState::Refused(denial)));
}

#[test]
fn a_socket_that_a_killed_shepherd_left_goes_with_the_folder_or_the_tombstone() {
    need_the_sandbox();
    grant("socket", "alice");
    let socket = |job: &JobId| Path::new("/run/deputy/jobs").join(job.as_str());
    let request = run_as(identity("alice"), "socket", &["sleep", "1007"]);
    let pending = Fake::daemon().begin(&request);
    assert_eq!(pending.line.reply(), LauncherReply::Job(JobState::Running));
    signal(parent_of(the_process("sleep 1007")), "KILL");
    assert_eq!(pending.line.next::<LauncherReply>(), None);
    assert!(socket(&request.job).exists());
    let forget = LauncherRequest::Forget { jobs: vec![request.job.clone()] };
    assert_eq!(ask(&forget).replies, [LauncherReply::Done]);
    assert!(!socket(&request.job).exists());
    // One that was killed before it made the folder.
    let job = job_id();
    drop(std::os::unix::net::UnixListener::bind(socket(&job)).unwrap());
    assert_eq!(ask(&LauncherRequest::Abandon { job: job.clone() }).replies, [LauncherReply::Done]);
    assert!(!socket(&job).exists());
}

#[test]
fn the_folders_that_there_are_can_be_listed_page_by_page() {
    need_the_sandbox();
    let mut wanted: Vec<JobId> = (0..=deputy_core::message::MAX_FORGET).map(|_| job_id()).collect();
    for job in &wanted {
        fs::create_dir(Path::new("/var/lib/deputy/jobs").join(job.as_str())).unwrap();
    }
    let mut listed: Vec<JobId> = Vec::new();
    let mut pages = 0;
    loop {
        let request = LauncherRequest::Folders { after: listed.last().cloned() };
        let [LauncherReply::Folders { jobs }] = &ask(&request).replies[..] else { panic!("no page") };
        if jobs.is_empty() {
            break;
        }
        listed.extend(jobs.iter().cloned());
        pages += 1;
    }
    assert!(pages >= 2 && listed.is_sorted());
    // Other tests have jobs of their own.
    listed.retain(|job| wanted.contains(job));
    wanted.sort();
    assert_eq!(listed, wanted);
    for job in &wanted {
        fs::remove_dir(Path::new("/var/lib/deputy/jobs").join(job.as_str())).unwrap();
    }
}

#[test]
fn exits_are_exact() {
    need_the_sandbox();
    grant("exact", "alice");
    let end = |argv: &[&str]| {
        let request = run_as(identity("alice"), "exact", argv);
        match Fake::daemon().run(&request).replies.pop() {
            Some(LauncherReply::Job(JobState::Ended(record))) => record.end,
            other => panic!("{other:?}"),
        }
    };
    for code in [0, 1, 7, 127, 255] {
        assert_eq!(end(&["sh", "-c", &format!("exit {code}")]), JobEnd::Exited { code });
    }
    for signal in [1, 9, 15, 34, 64] {
        assert_eq!(
            end(&["sh", "-c", &format!("kill -{signal} $$")]),
            JobEnd::Signaled { signal, core: false }
        );
    }
    assert_eq!(end(&["no-such-program-anywhere"]).shell_status(), 127);
    assert_eq!(end(&["/etc/passwd"]).shell_status(), 126);
    assert_eq!(end(&["/root/secret"]).shell_status(), 126);
    // What a job leaves in the background belongs to it; the exit is its first process's.
    assert_eq!(end(&["sh", "-c", "setsid sleep .2 & exit 3"]), JobEnd::Exited { code: 3 });
}

#[test]
fn a_killed_shepherd_is_a_lost_job_and_nothing_of_it_runs_on() {
    need_the_sandbox();
    grant("lost", "alice");
    // The job leaves its session and its parent, as daemons do.
    let script = "setsid --fork sleep 1004; exec sleep 1005";
    let request = run_as(identity("alice"), "lost", &["sh", "-c", script]);
    let pending = Fake::daemon().begin(&request);
    assert_eq!(pending.line.reply(), LauncherReply::Job(JobState::Running));
    the_process("sleep 1004");
    let shepherd = parent_of(the_process("sleep 1005"));
    assert_eq!(parent_of(shepherd), deputy_suite::machine::launcher_pid());
    assert_eq!(children_of(shepherd).len(), 2);
    signal(shepherd, "KILL");
    assert_eq!(pending.line.next::<LauncherReply>(), None, "an end was made up");
    assert_eq!(end_of(&request.job), LauncherReply::Job(JobState::Lost));
    wait_until("nothing of the job runs", || {
        running("sleep 1004").is_empty() && running("sleep 1005").is_empty()
    });
    // Lost is lost, and used is used.
    assert_eq!(end_of(&request.job), LauncherReply::Job(JobState::Lost));
    assert_eq!(Fake::daemon().run(&request).code(), Some(Code::JobExists));
    let forget = LauncherRequest::Forget { jobs: vec![request.job.clone()] };
    assert_eq!(ask(&forget).replies, [LauncherReply::Done]);
    assert!(matches!(end_of(&request.job), LauncherReply::Denied(denial) if denial.code == Code::NotFound));
    wait_for_no_children();
}

#[test]
fn forgetting_a_lost_job_ends_it_too() {
    need_the_sandbox();
    grant("lost-and-forgotten", "alice");
    let request = run_as(identity("alice"), "lost-and-forgotten", &["sleep", "1006"]);
    let pending = Fake::daemon().begin(&request);
    assert_eq!(pending.line.reply(), LauncherReply::Job(JobState::Running));
    signal(parent_of(the_process("sleep 1006")), "KILL");
    wait_until("the shepherd is gone", || pending.line.next::<LauncherReply>().is_none());
    assert_eq!(ask(&LauncherRequest::Forget { jobs: vec![request.job] }).replies, [LauncherReply::Done]);
    wait_until("nothing of the job runs", || running("sleep 1006").is_empty());
}
