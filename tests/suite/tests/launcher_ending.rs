//! How jobs end: by themselves, by a signal, by whoever may end them, and by the loss of their shepherd. An end is told
//! when nothing of the job is left, and not before.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::Once;

use deputy_core::ids::JobId;
use deputy_core::job::{EndCause, ExitRecord, JobEnd, Step};
use deputy_core::limits::{JobBounds, ResourceLimits};
use deputy_core::message::{JobCommand, JobState, LauncherReply, LauncherRequest, RunRequest, encode};
use deputy_suite::acting::{identity, ids};
use deputy_suite::fake::{Answers, Pending};
use deputy_suite::line::Line;
use deputy_suite::machine::{
    add_person, install_application, jobs_cgroup, run, running, shepherd_of, signal, wait_until,
};
use deputy_suite::requests::{app, grant_in, run_as, taken_back, withdrawal};
use deputy_suite::{Fake, need_the_sandbox};

const POLICY: &str = r#"
service_user = "portal"
[link]
shared = true
[kinds.ends]
commands = ["*"]
grace_seconds = 3600
[kinds.waits]
commands = ["*"]
leftovers = "wait"
[kinds.short]
commands = ["*"]
grace_seconds = 0
time_limit_seconds = 1
"#;

fn ending(kind: &str, script: &str) -> RunRequest {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        install_application("ending", POLICY);
        grant_in("ending", "ending", "alice");
    });
    let mut request = run_as(identity("alice"), "ending", &["sh", "-c", script]);
    request.application = app("ending");
    request.kind = Some(kind.parse().unwrap());
    request
}

/// Starts a job and waits until it runs.
fn started(request: &RunRequest) -> Pending {
    let pending = Fake::daemon().begin(request);
    assert_eq!(pending.line.reply(), LauncherReply::Job(JobState::Running));
    pending
}

fn record(answers: &Answers) -> ExitRecord {
    answers.record().unwrap_or_else(|| panic!("no end: {answers:?}")).clone()
}

fn end_of(kind: &str, script: &str) -> JobEnd {
    record(&Fake::daemon().run(&ending(kind, script))).end
}

/// How many processes a job's cgroup has; none once the cgroup has gone.
fn left_in_cgroup(job: &JobId) -> usize {
    let processes = jobs_cgroup().join(job.as_str()).join("cgroup.procs");
    fs::read_to_string(processes).map_or(0, |text| text.lines().count())
}

fn cancel_with_no_grace(pending: &Pending) {
    pending.line.command(JobCommand::Cancel { grace_ms: 0 });
}

/// Everything that the shepherd says until the record, at which moment nothing of the job may be left.
fn told_until_nothing_is_left(pending: &Pending, job: &JobId, words: &str) -> (Vec<JobState>, ExitRecord) {
    let mut told = Vec::new();
    loop {
        match pending.line.reply() {
            LauncherReply::Job(JobState::Ended(record)) => {
                assert_eq!(running(words), [0_i32; 0], "told while {words} ran");
                assert_eq!(left_in_cgroup(job), 0, "told while something was in its cgroup");
                return (told, record);
            }
            LauncherReply::Job(state) => told.push(state),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_job_that_ignores_the_request_to_end_is_killed_after_its_grace() {
    need_the_sandbox();
    let request = ending("ends", "trap '' TERM; touch /home/alice/deaf; while :; do sleep 72001; done");
    let pending = started(&request);
    wait_until("it is deaf", || Path::new("/home/alice/deaf").exists() && !running("sleep 72001").is_empty());
    // Its grace is an hour, of which the cancel leaves a little.
    pending.line.command(JobCommand::Cancel { grace_ms: 50 });
    let (told, record) = told_until_nothing_is_left(&pending, &request.job, "sleep 72001");
    assert_eq!(told, [JobState::Ending(EndCause::Cancelled)]);
    assert_eq!(record.end, JobEnd::Signaled { signal: 9, core: false });
    assert_eq!(record.cause, Some(EndCause::Cancelled));
}

#[test]
fn a_job_may_end_in_peace_and_says_how() {
    need_the_sandbox();
    let request = ending("ends", "trap 'kill %1; exit 42' TERM; sleep 72002 & touch /home/alice/ready; wait");
    let pending = started(&request);
    wait_until("it listens", || {
        Path::new("/home/alice/ready").exists() && !running("sleep 72002").is_empty()
    });
    pending.line.command(JobCommand::Cancel { grace_ms: 3_600_000 });
    let (told, record) = told_until_nothing_is_left(&pending, &request.job, "sleep 72002");
    assert_eq!(told, [JobState::Ending(EndCause::Cancelled)]);
    assert_eq!((record.end, record.cause), (JobEnd::Exited { code: 42 }, Some(EndCause::Cancelled)));
}

#[test]
fn a_second_cancel_shortens_the_grace_and_none_makes_it_longer() {
    need_the_sandbox();
    let request = ending("ends", "trap '' TERM; sleep 72003 & touch /home/alice/again; wait; wait");
    let pending = started(&request);
    wait_until("it runs", || Path::new("/home/alice/again").exists() && !running("sleep 72003").is_empty());
    pending.line.command(JobCommand::Cancel { grace_ms: 3_600_000 });
    assert_eq!(pending.line.reply(), LauncherReply::Job(JobState::Ending(EndCause::Cancelled)));
    // Whoever attaches hears where it stands.
    let late = Line::to_launcher(ids("deputy")).unwrap();
    late.send(&encode(&LauncherRequest::Attach { job: request.job.clone() }).unwrap(), &[]);
    assert_eq!(late.reply(), LauncherReply::Job(JobState::Ending(EndCause::Cancelled)));
    late.command(JobCommand::Cancel { grace_ms: 0 });
    late.command(JobCommand::Cancel { grace_ms: u32::MAX });
    let (_, record) = told_until_nothing_is_left(&pending, &request.job, "sleep 72003");
    assert_eq!(record.end, JobEnd::Signaled { signal: 9, core: false });

    // Policy's grace is nothing: what is asked for is only ever less.
    let request = ending("short", "trap '' TERM; sleep 72004 & wait; wait");
    let pending = started(&request);
    pending.line.command(JobCommand::Cancel { grace_ms: u32::MAX });
    let (_, record) = told_until_nothing_is_left(&pending, &request.job, "sleep 72004");
    assert!(record.cause.is_some());
}

#[test]
fn what_left_its_parents_session_and_folder_ends_with_the_job() {
    need_the_sandbox();
    let escape =
        "cd /; (setsid sh -c 'trap \"\" HUP TERM; (sleep 72005 &) ; sleep 72005; :' &) ; sleep 72005";
    let request = ending("ends", escape);
    let pending = started(&request);
    wait_until("all of it runs", || running("sleep 72005").len() == 3);
    signal(running("sleep 72005")[1], "STOP");
    cancel_with_no_grace(&pending);
    let (_, record) = told_until_nothing_is_left(&pending, &request.job, "sleep 72005");
    assert_eq!(record.cause, Some(EndCause::Cancelled));
}

#[test]
fn a_stopped_job_ends_too() {
    need_the_sandbox();
    let request = ending("ends", "sleep 72006; exit 3");
    let pending = started(&request);
    wait_until("it runs", || !running("sleep 72006").is_empty());
    for pid in running("sleep 72006").into_iter().chain([shepherds_child("sleep 72006")]) {
        signal(pid, "STOP");
    }
    // Asked politely, it ends by what it is asked: it goes on to hear of it.
    pending.line.command(JobCommand::Cancel { grace_ms: 3_600_000 });
    let (_, record) = told_until_nothing_is_left(&pending, &request.job, "sleep 72006");
    assert_eq!(record.end, JobEnd::Signaled { signal: 15, core: false });
}

/// The first process of the job that the one process with these words belongs to, which is its parent.
fn shepherds_child(words: &str) -> i32 {
    shepherd_of(running(words)[0])
}

#[test]
fn a_fork_bomb_ends_with_nothing_left() {
    need_the_sandbox();
    // Somebody of its own: without a cgroup's controller the limit is on all processes of the OS account.
    add_person("bomber", "bomber", &["lab1"]);
    // The first process forks once: a shell that cannot fork any more ends, and its job with it.
    let mut request = ending("ends", "trap '' TERM; b() { b | b & sleep 72007; }; b & exec sleep 72007");
    grant_in("ending", "bomber", "bomber");
    request.account = "bomber".parse().unwrap();
    request.os_account = identity("bomber");
    request.bounds = JobBounds {
        limits: ResourceLimits { pids: Some(80), ..ResourceLimits::default() },
        ..JobBounds::default()
    };
    let pending = started(&request);
    wait_until("it has grown", || left_in_cgroup(&request.job) > 40);
    cancel_with_no_grace(&pending);
    let (_, record) = told_until_nothing_is_left(&pending, &request.job, "sleep 72007");
    assert_eq!(record.cause, Some(EndCause::Cancelled));
    let bomber = ids("bomber").uid;
    let of_bomber = fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
        use std::os::unix::fs::MetadataExt as _;
        let is_process = entry.file_name().to_string_lossy().parse::<i32>().is_ok();
        is_process && entry.metadata().is_ok_and(|metadata| metadata.uid() == bomber)
    });
    assert_eq!(of_bomber.count(), 0);
}

#[test]
fn what_is_left_when_the_first_process_has_ended_goes_or_is_waited_for() {
    need_the_sandbox();
    let request = ending("ends", "(setsid sleep 72008 &) ; exit 5");
    let record = record(&Fake::daemon().run(&request));
    assert_eq!((record.end, record.cause), (JobEnd::Exited { code: 5 }, None));
    assert!(running("sleep 72008").is_empty());

    let wait = "until test -e /home/alice/leave; do sleep .01; done; echo left";
    let request = ending("waits", &format!("(setsid sh -c '{wait}' &) ; exit 6"));
    let pending = started(&request);
    let first_has_ended = || left_in_cgroup(&request.job) > 0 && running(&format!("sh -c {wait}")).len() == 1;
    wait_until("only what is waited for is there", first_has_ended);
    fs::write("/home/alice/leave", "").unwrap();
    let answers = pending.answers();
    assert_eq!(answers.output, "left\n", "it was ended");
    assert_eq!(answers.record().unwrap().end, JobEnd::Exited { code: 6 });
}

#[test]
fn time_is_up() {
    need_the_sandbox();
    let request = ending("short", "trap '' TERM; while :; do sleep 72009; done");
    let pending = started(&request);
    let (told, record) = told_until_nothing_is_left(&pending, &request.job, "sleep 72009");
    assert_eq!(told, [JobState::Ending(EndCause::TimeLimit)]);
    assert_eq!(record.cause, Some(EndCause::TimeLimit));
    assert_eq!(record.end, JobEnd::Signaled { signal: 9, core: false });
    // One that is asked for holds too, and what ends before it has no cause.
    let mut request = ending("ends", "sleep 72010");
    request.bounds.time_limit_seconds = Some(1);
    assert_eq!(self::record(&Fake::daemon().run(&request)).cause, Some(EndCause::TimeLimit));
    assert_eq!(self::record(&Fake::daemon().run(&ending("short", "exit 0"))).cause, None);
}

#[test]
fn consent_taken_back_is_the_cause() {
    need_the_sandbox();
    let mut request = ending("ends", "sleep 72011");
    grant_in("ending", "revoked", "alice");
    request.account = "revoked".parse().unwrap();
    let pending = started(&request);
    let answer = Fake::as_user("root").ask(&withdrawal("ending", "revoked", "alice", true), &[]);
    assert_eq!(answer.replies, [LauncherReply::Withdrawn(taken_back(1))]);
    let (told, record) = told_until_nothing_is_left(&pending, &request.job, "sleep 72011");
    assert_eq!(told, [JobState::Ending(EndCause::ConsentRevoked)]);
    assert_eq!(record.cause, Some(EndCause::ConsentRevoked));
}

#[test]
fn every_exit_code_is_told() {
    need_the_sandbox();
    for code in 0..=255_u8 {
        assert_eq!(end_of("ends", &format!("exit {code}")), JobEnd::Exited { code });
    }
}

#[test]
fn what_cannot_be_executed_is_told_with_its_errno() {
    need_the_sandbox();
    let folder = Path::new("/home/alice/programs");
    fs::create_dir_all(folder.join("folder")).unwrap();
    let program = |name: &str, bytes: &[u8], mode: u32| {
        let path = folder.join(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    program("not-executable", b"#!/bin/sh\n", 0o644);
    program("roots-alone", b"#!/bin/sh\n", 0o700);
    program("of-no-format", b"exit 0\n", 0o755);
    program("half-an-elf", b"\x7fELF\x02\x01\x01", 0o755);
    program("no-interpreter", b"#!/nonexistent/sh\n", 0o755);
    let _busy = File::options().append(true).open(program("busy", b"#!/bin/sh\n", 0o755)).unwrap();
    symlink("loop", folder.join("loop")).unwrap();
    let too_long = "x".repeat(300);
    for (name, errno, status) in [
        ("absent", 2, 127),
        ("not-executable/below", 2, 127),
        ("no-interpreter", 2, 127),
        ("of-no-format", 8, 126),
        ("half-an-elf", 8, 126),
        ("not-executable", 13, 126),
        ("roots-alone", 13, 126),
        ("folder", 13, 126),
        ("busy", 26, 126),
        (&too_long, 36, 126),
        ("loop", 40, 126),
    ] {
        let mut request = ending("ends", "");
        request.argv = vec![folder.join(name).into_os_string().into_encoded_bytes()];
        let end = record(&Fake::daemon().run(&request)).end;
        assert_eq!(end, JobEnd::LaunchFailed { step: Step::Exec, errno }, "{name}");
        assert_eq!(end.shell_status(), status, "{name}");
    }
}

#[test]
fn every_signal_that_ends_a_process_is_told_with_its_core() {
    need_the_sandbox();
    // CHLD, CONT, URG and WINCH do nothing by default; STOP, TSTP, TTIN and TTOU stop. The C library keeps 32 and 33.
    let nothing = [17, 18, 23, 28];
    let stop = [19, 20, 21, 22];
    let with_core = [3, 4, 5, 6, 7, 8, 11, 24, 25, 31];
    // Where the kernel gives core dumps to a program, what comes of them is that program's.
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let to_file = !pattern.starts_with('|');
    fs::create_dir_all("/home/alice/cores").unwrap();
    run("chown", &["alice", "/home/alice/cores"]);
    for signal in (1..=64).filter(|signal| !nothing.contains(signal) && !stop.contains(signal)) {
        let script = format!("cd /home/alice/cores; ulimit -Sc unlimited; kill -{signal} $$; exit 77");
        let JobEnd::Signaled { signal: told, core } = end_of("ends", &script) else {
            panic!("signal {signal} did not end it");
        };
        assert_eq!(told, signal);
        if to_file {
            assert_eq!(core, with_core.contains(&signal), "core of signal {signal}");
        }
        assert!(matches!(
            end_of("ends", &format!("ulimit -c 0; kill -{signal} $$")),
            JobEnd::Signaled { core: false, .. }
        ));
    }
    for signal in nothing {
        assert_eq!(end_of("ends", &format!("kill -{signal} $$; exit 77")), JobEnd::Exited { code: 77 });
    }
}

#[test]
fn a_signal_by_number_goes_to_the_first_process() {
    need_the_sandbox();
    let request =
        ending("ends", "trap 'exit 33' USR2; touch /home/alice/signalled; while :; do sleep .01; done");
    let pending = started(&request);
    wait_until("it listens", || Path::new("/home/alice/signalled").exists());
    for nonsense in [0, -1, -9, 65, i32::MIN, i32::MAX] {
        pending.line.command(JobCommand::Signal { signal: nonsense });
    }
    pending.line.command(JobCommand::Signal { signal: 12 });
    let record = record(&pending.answers());
    assert_eq!((record.end, record.cause), (JobEnd::Exited { code: 33 }, None));
}

#[test]
fn the_time_of_a_job_is_from_its_fork_on() {
    need_the_sandbox();
    // What it uses it uses in its time. The shepherd is busy with the disk while a short job runs.
    for _ in 0..20 {
        let answers = Fake::daemon().run(&ending("ends", "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done"));
        let usage = answers.record().expect("an end").usage.clone();
        let used = usage.user_us + usage.system_us;
        // Two clocks, which need not agree to the last tenth where a machine is one of several on a host.
        let wall_us = usage.wall_us;
        assert!(wall_us + wall_us / 2 >= used, "{used} microseconds of CPU time in {wall_us} on the clock");
    }
}

#[test]
fn what_grandchildren_use_is_counted() {
    need_the_sandbox();
    // About a second of CPU time, in processes that are waited for and in one that nobody waits for.
    let burn = "perl -e '1 while (times)[0] < 0.5'";
    let record =
        record(&Fake::daemon().run(&ending("waits", &format!("sh -c \"{burn}; :\"; (setsid {burn} &)"))));
    let used = record.usage.user_us + record.usage.system_us;
    assert!(used >= 900_000, "{:?}", record.usage);
    assert!(record.usage.max_rss_kib > 0 && record.usage.wall_us > 0, "{:?}", record.usage);

    // A parent that ignores its children's end is told nothing of what they used; their cgroup is.
    let ignored = "perl -e '$SIG{CHLD} = \"IGNORE\"; unless (fork) { 1 while (times)[0] < 0.5; exit } wait'";
    let usage = self::record(&Fake::daemon().run(&ending("ends", ignored))).usage;
    assert!(usage.user_us + usage.system_us >= 450_000, "{usage:?}");
}

#[test]
fn what_is_written_to_a_disk_is_counted() {
    need_the_sandbox();
    // The target folder is on a disk of the host's; the sandbox's own files are in memory.
    let disk = std::env::var_os("DEPUTY_SUITE_DISK").unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into());
    let path = Path::new(&disk).join("written");
    let file = File::create(&path).unwrap();
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    let line = Line::to_launcher(ids("deputy")).unwrap();
    let request = ending("ends", "head -c 8388608 /dev/zero");
    let packet = encode(&LauncherRequest::Run(request)).unwrap();
    line.send(&packet, &[null.as_fd(), file.as_fd(), null.as_fd()]);
    let answers = Answers { replies: line.rest(), ..Answers::default() };
    let usage = record(&answers).usage;
    fs::remove_file(&path).unwrap();
    assert!(usage.written_bytes >= 8 << 20, "{usage:?}");
}

#[test]
fn nothing_of_a_job_runs_on_without_its_shepherd() {
    need_the_sandbox();
    let script = "trap '' TERM HUP; (setsid sh -c 'sleep 72012 & sleep 72012; :' &) ; sleep 72012; :";
    let request = ending("ends", script);
    let pending = started(&request);
    wait_until("all of it runs", || running("sleep 72012").len() == 3);
    let shepherd: i32 = {
        let mut at = running("sleep 72012")[0];
        while !fs::read_to_string(format!("/proc/{at}/comm")).unwrap().starts_with("deputy-launcher") {
            at = shepherd_of(at);
        }
        at
    };
    assert_ne!(shepherd, deputy_suite::machine::launcher_pid());
    signal(shepherd, "KILL");
    // Nobody has asked: the launcher sees to it by itself.
    wait_until("nothing of it runs", || running("sleep 72012").is_empty());
    wait_until("its cgroup has gone", || !jobs_cgroup().join(request.job.as_str()).exists());
    assert!(pending.answers().record().is_none());
    let answers = Fake::daemon().ask(&LauncherRequest::Attach { job: request.job.clone() }, &[]);
    assert_eq!(answers.replies, [LauncherReply::Job(JobState::Lost)]);
    // Lost it stays, and its id is used.
    assert_eq!(Fake::daemon().run(&request).code(), Some(deputy_core::Code::JobExists));
}

#[test]
fn the_cgroup_goes_with_every_job() {
    need_the_sandbox();
    let mut refused = ending("ends", "true");
    refused.gpus = vec![deputy_core::queue::GpuIndex(u16::MAX)];
    assert!(Fake::daemon().run(&refused).code().is_some());
    let mut fails = ending("ends", "true");
    fails.argv = vec![b"/there/is/no/such/program".to_vec()];
    assert_eq!(Fake::daemon().run(&fails).status(), Some(127));
    let works = ending("ends", "true");
    assert_eq!(Fake::daemon().run(&works).status(), Some(0));
    for job in [refused.job, fails.job, works.job] {
        wait_until("its cgroup has gone", || !jobs_cgroup().join(job.as_str()).exists());
    }
}
