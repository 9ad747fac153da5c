//! The launcher may die at any moment: jobs and conversations are its children's, and go on.
#![forbid(unsafe_code)]

use std::fs;

use deputy_core::job::JobEnd;
use deputy_core::message::{JobState, LauncherReply, LauncherRequest, Purpose, encode};
use deputy_core::stream::{Captured, CapturedStream};
use deputy_suite::acting::{identity, ids};
use deputy_suite::line::Line;
use deputy_suite::machine::{command_line, launcher_pid, running, shepherd_of, signal, wait_until};
use deputy_suite::requests::{consents_of, grant, run_as};
use deputy_suite::streams::{self, all_captured, captured_text, start};
use deputy_suite::talk::{Talk, wanted};
use deputy_suite::{Fake, need_the_sandbox};

/// Kills the launcher and waits for its successor.
fn kill_the_launcher() {
    let before = launcher_pid();
    signal(before, "KILL");
    let next = || launcher_pid() != before && Line::to_launcher(ids("deputy")).is_ok();
    wait_until("there is a launcher again", next);
}

// One test: there is one launcher.
#[test]
fn what_its_children_do_survives_the_launcher() {
    need_the_sandbox();
    grant("survivor", "alice");
    let wait_for = |file: &str| format!("until test -e {file}; do sleep .01; done; exit 7");
    let request = run_as(identity("alice"), "survivor", &["sh", "-c", &wait_for("/home/alice/go-on")]);
    let pending = Fake::daemon().begin(&request);
    assert_eq!(pending.line.reply(), LauncherReply::Job(JobState::Running));
    let wish = wanted(Purpose::Link, "demo", "survived", "alice");
    let mut talk = Talk::begin(&wish);
    talk.greet();
    talk.frame();

    kill_the_launcher();
    let attached = Line::to_launcher(ids("deputy")).unwrap();
    attached.send(&encode(&LauncherRequest::Attach { job: request.job.clone() }).unwrap(), &[]);
    assert_eq!(attached.reply(), LauncherReply::Job(JobState::Running));
    kill_the_launcher();
    talk.answer("wonder");
    assert!(talk.end().is_success());
    assert_eq!(consents_of("survived").len(), 1);

    fs::write("/home/alice/go-on", "").unwrap();
    let LauncherReply::Job(JobState::Ended(record)) = attached.reply() else { panic!("no end") };
    assert_eq!(record.end, JobEnd::Exited { code: 7 });
    assert_eq!(pending.line.reply(), LauncherReply::Job(JobState::Ended(record.clone())));
    let again = Line::to_launcher(ids("deputy")).unwrap();
    again.send(&encode(&LauncherRequest::Attach { job: request.job.clone() }).unwrap(), &[]);
    assert_eq!(again.reply(), LauncherReply::Job(JobState::Ended(record)));
    let once_more = Fake::daemon().run(&request);
    assert_eq!(once_more.code(), Some(deputy_core::Code::JobExists), "the id is used");
    // No end of a job that nobody heard of: it ends while there is no launcher at all.
    let unheard = run_as(identity("alice"), "survivor", &["sh", "-c", &wait_for("/home/alice/go-on-too")]);
    let pending = Fake::daemon().begin(&unheard);
    assert_eq!(pending.line.reply(), LauncherReply::Job(JobState::Running));
    drop(pending);
    // What it writes meanwhile is captured all the same.
    let loud = wait_for("/home/alice/go-on-too").replace("exit 7", "echo after; exit 7");
    let mut captured = run_as(identity("alice"), "survivor", &["sh", "-c", &format!("echo before; {loud}")]);
    captured.streams = all_captured();
    let line = start(&captured, &[]);
    assert_eq!(line.reply(), LauncherReply::Job(JobState::Running));
    drop(line);
    signal(launcher_pid(), "KILL");
    fs::write("/home/alice/go-on-too", "").unwrap();
    let exit = std::path::Path::new("/var/lib/deputy/jobs").join(unheard.job.as_str()).join("exit");
    wait_until("the end is on disk", || exit.is_file());
    wait_until("there is a launcher again", || Line::to_launcher(ids("deputy")).is_ok());
    let late = Fake::daemon().ask(&LauncherRequest::Attach { job: unheard.job }, &[]);
    assert_eq!(late.status(), Some(7), "{late:?}");
    let late = Fake::daemon().ask(&LauncherRequest::Attach { job: captured.job.clone() }, &[]);
    assert_eq!(streams::record(&late).captured, Captured { output: 13, error: 0 });
    assert_eq!(captured_text(&captured.job, CapturedStream::Output), "before\nafter\n");

    // A shepherd that dies when the launcher is not its parent any more: whoever asks, or the next launcher, ends it.
    for ask in [true, false] {
        let argv = ["sh", "-c", "(setsid sleep 73001 &) ; sleep 73001; :"];
        let request = run_as(identity("alice"), "survivor", &argv);
        let pending = Fake::daemon().begin(&request);
        assert_eq!(pending.line.reply(), LauncherReply::Job(JobState::Running));
        wait_until("all of it runs", || running("sleep 73001").len() == 2);
        let of_job = |pid: i32| command_line(shepherd_of(pid)).starts_with("sh -c (setsid");
        let inner = running("sleep 73001").into_iter().find(|&pid| of_job(pid)).expect("the inner one");
        let shepherd = shepherd_of(shepherd_of(inner));
        kill_the_launcher();
        signal(shepherd, "KILL");
        let attach = LauncherRequest::Attach { job: request.job };
        if ask {
            assert_eq!(Fake::daemon().ask(&attach, &[]).replies, [LauncherReply::Job(JobState::Lost)]);
            assert!(running("sleep 73001").is_empty(), "it was told to be lost, and ran");
        } else {
            wait_until("the shepherd has gone", || {
                !std::path::Path::new(&format!("/proc/{shepherd}")).exists()
            });
            // The launcher that is there now may have seen it; the next one does.
            kill_the_launcher();
            wait_until("nothing of it runs", || running("sleep 73001").is_empty());
            assert_eq!(Fake::daemon().ask(&attach, &[]).replies, [LauncherReply::Job(JobState::Lost)]);
        }
    }
}
