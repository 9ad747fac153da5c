//! A machine where no hierarchy of cgroup v2 is mounted: jobs end by descent, and their ceilings are each process's.
#![forbid(unsafe_code)]

use deputy_core::job::{EndCause, Enforcement, JobEnd};
use deputy_core::limits::{JobBounds, ResourceLimits};
use deputy_core::message::{JobCommand, JobState, LauncherReply, LauncherRequest};
use deputy_suite::acting::identity;
use deputy_suite::machine::{jobs_cgroup, run, running, shepherd_of, signal, wait_until};
use deputy_suite::requests::{grant, run_as};
use deputy_suite::{Fake, need_the_sandbox};

// One test: there is one machine.
#[test]
fn jobs_without_a_cgroup() {
    need_the_sandbox();
    grant("uncounted", "alice");
    while jobs_cgroup().join("cgroup.procs").exists() {
        // Where it is mounted: the folder's first parent that is no cgroup's.
        let folder = jobs_cgroup();
        let top = folder.ancestors().take_while(|path| path.join("cgroup.procs").exists()).last().unwrap();
        run("umount", &["--lazy", top.to_str().unwrap()]);
    }

    // Whatever a job does, it ends as a whole.
    let script = "trap '' TERM; (setsid sh -c 'sleep 71001 & sleep 71001' &) ; sleep 71001 & wait";
    let request = run_as(identity("alice"), "uncounted", &["sh", "-c", script]);
    let pending = Fake::daemon().begin(&request);
    assert_eq!(pending.line.reply(), LauncherReply::Job(JobState::Running));
    wait_until("all of it runs", || running("sleep 71001").len() == 3);
    signal(running("sleep 71001")[0], "STOP");
    pending.line.command(JobCommand::Cancel { grace_ms: 0 });
    let answers = pending.answers();
    assert!(running("sleep 71001").is_empty());
    let record = answers.record().expect("an end");
    assert_eq!(record.cause, Some(EndCause::Cancelled));
    assert_eq!(record.enforcement, Enforcement::ProcessLimits);

    // A fork bomb within the limit on processes.
    let mut bomb = run_as(identity("bob"), "uncounted", &["sh", "-c", "b() { b | b & }; b; sleep 71002"]);
    grant("uncounted", "bob");
    bomb.bounds = JobBounds {
        limits: ResourceLimits { pids: Some(60), ..ResourceLimits::default() },
        ..JobBounds::default()
    };
    let pending = Fake::daemon().begin(&bomb);
    assert_eq!(pending.line.reply(), LauncherReply::Job(JobState::Running));
    pending.line.command(JobCommand::Cancel { grace_ms: 0 });
    assert!(pending.answers().status().is_some());

    // The first process ends with its shepherd. What it started is nobody's then: docs/PRIVSEP.md says so.
    let request = run_as(identity("alice"), "uncounted", &["sleep", "71003"]);
    let pending = Fake::daemon().begin(&request);
    assert_eq!(pending.line.reply(), LauncherReply::Job(JobState::Running));
    wait_until("it runs", || !running("sleep 71003").is_empty());
    signal(shepherd_of(running("sleep 71003")[0]), "KILL");
    wait_until("it has ended", || running("sleep 71003").is_empty());
    let answers = Fake::daemon().ask(&LauncherRequest::Attach { job: request.job }, &[]);
    assert_eq!(answers.replies, [LauncherReply::Job(JobState::Lost)]);

    let request = run_as(identity("alice"), "uncounted", &["sh", "-c", "cat /proc/self/cgroup; exit 9"]);
    let answers = Fake::daemon().run(&request);
    assert_eq!(answers.record().expect("an end").end, JobEnd::Exited { code: 9 });
    assert!(!answers.output.contains(request.job.as_str()), "it had a cgroup: {}", answers.output);
}
