//! A job whose shepherd is of another release: it outlives upgrades and downgrades of the launcher and the daemon.
//!
//! The other releases are `clients/old_shepherd.py`, which has the protocol from its description.
#![forbid(unsafe_code)]

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::os::fd::AsFd as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use deputy_core::Code;
use deputy_core::ids::JobId;
use deputy_core::job::JobEnd;
use deputy_core::message::job::{JOB_VERSION, decode_reply, encode_command};
use deputy_core::message::{
    JobCommand, JobState, LauncherReply, LauncherRequest, WithdrawRequest, Withdrawn, encode,
};
use deputy_suite::acting::{identity, ids};
use deputy_suite::line::Line;
use deputy_suite::requests::grant;
use deputy_suite::{Fake, job_id, need_the_sandbox};

const USAGE: &str = "[usage]|user_us = 1|system_us = 2|max_rss_kib = 3|wall_us = 4|";

/// A shepherd of another release.
struct Shepherd {
    job: JobId,
    process: Child,
    input: ChildStdin,
    heard: Lines<BufReader<ChildStdout>>,
}

impl Shepherd {
    fn that_speaks(versions: &str, account: &str) -> Self {
        let (job, alice) = (job_id(), identity("alice"));
        let mut process = Command::new("python3")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/clients/old_shepherd.py"))
            .args([job.as_str(), "demo", account, "alice"])
            .args([alice.uid.raw().to_string(), alice.gid.raw().to_string(), versions.to_owned()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = process.stdin.take().unwrap();
        let heard = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut shepherd = Self { job, process, input, heard };
        assert_eq!(shepherd.hears(), "ready");
        shepherd
    }

    /// The next thing that it heard, greetings aside.
    fn hears(&mut self) -> String {
        loop {
            let line = self.heard.next().expect("the shepherd says something").unwrap();
            if !line.starts_with("greeted") {
                return line;
            }
        }
    }

    fn ends_with(mut self, record: &str) -> JobId {
        writeln!(self.input, "end {record}").unwrap();
        assert!(self.process.wait().unwrap().success());
        self.job
    }
}

fn attach(job: &JobId) -> Line {
    let line = Line::to_launcher(ids("deputy")).unwrap();
    line.send(&encode(&LauncherRequest::Attach { job: job.clone() }).unwrap(), &[]);
    line
}

/// The next answer about a job, and the version that it is in.
fn answer(line: &Line) -> (LauncherReply, u16) {
    let packet = deputy_wire::receive(line.as_fd()).unwrap().expect("an answer");
    decode_reply(&packet.bytes).unwrap()
}

#[test]
fn the_oldest_shepherd_is_attached_to_and_commanded_and_its_end_is_known() {
    need_the_sandbox();
    let mut shepherd = Shepherd::that_speaks("unnamed", "oldest");
    let line = attach(&shepherd.job);
    assert_eq!(answer(&line), (LauncherReply::Job(JobState::Running), 1));
    line.send(&encode_command(JobCommand::Signal { signal: 12 }, 1).unwrap(), &[]);
    assert_eq!(shepherd.hears(), "signal 12 in 1");
    line.send(&encode_command(JobCommand::Cancel { grace_ms: 300 }, 1).unwrap(), &[]);
    assert_eq!(shepherd.hears(), "cancel 300 in 1");
    let job = shepherd.ends_with(&format!("version = 1|[end.signaled]|signal = 15|core = false|{USAGE}"));
    let LauncherReply::Job(JobState::Ended(record)) = attach(&job).reply() else { panic!("no end") };
    assert_eq!((record.end, record.usage.wall_us), (JobEnd::Signaled { signal: 15, core: false }, 4));
}

#[test]
fn a_consent_that_is_taken_back_ends_the_jobs_of_every_shepherd_that_can_be_spoken_to() {
    need_the_sandbox();
    for (versions, told) in
        [("unnamed", "cancel 10000 in 1"), ("1-9", "unknown 2 in 2"), ("1-1", "cancel 10000 in 1")]
    {
        let account = format!("taken-back-{versions}");
        grant(&account, "alice");
        let mut shepherd = Shepherd::that_speaks(versions, &account);
        let withdraw = LauncherRequest::Withdraw(WithdrawRequest {
            application: "demo".parse().unwrap(),
            account: account.parse().unwrap(),
            os_account: identity("alice"),
            end_jobs: true,
        });
        let answers = Fake::as_user("root").ask(&withdraw, &[]);
        let done = Withdrawn { removed: true, ended: 1, left: 0 };
        assert_eq!(answers.replies, [LauncherReply::Withdrawn(done)], "{versions}");
        // Kind 2 is the command that the record names the cause by; version 1 has none such.
        assert_eq!(shepherd.hears(), told, "{versions}");
        shepherd.ends_with(&format!("version = 1|[end.exited]|code = 0|{USAGE}"));
    }
}

#[test]
fn a_later_shepherd_that_still_speaks_ours_is_spoken_to_in_ours() {
    need_the_sandbox();
    let mut shepherd = Shepherd::that_speaks("1-9", "later");
    let line = attach(&shepherd.job);
    assert_eq!(answer(&line), (LauncherReply::Job(JobState::Running), JOB_VERSION));
    line.command(JobCommand::Cancel { grace_ms: 5 });
    assert_eq!(shepherd.hears(), format!("cancel 5 in {JOB_VERSION}"));
    // What its record says beyond what is known is passed over.
    let record =
        format!("version = 7|cause = \"preempted\"|energy = 3|[end.exited]|code = 4|{USAGE}joules = 5|");
    let job = shepherd.ends_with(&record);
    let LauncherReply::Job(JobState::Ended(record)) = attach(&job).reply() else { panic!("no end") };
    assert_eq!((record.end, record.cause, record.version), (JobEnd::Exited { code: 4 }, None, 7));
}

#[test]
fn a_shepherd_without_a_common_version_is_named_and_its_end_is_known_all_the_same() {
    need_the_sandbox();
    let shepherd = Shepherd::that_speaks("8-9", "foreign");
    let LauncherReply::Denied(denial) = attach(&shepherd.job).reply() else { panic!("it was attached to") };
    assert_eq!(denial.code, Code::UnsupportedVersion);
    assert!(denial.message.contains("versions 8 to 9"), "{denial:?}");
    assert!(!denial.remedy.is_empty());
    let job = shepherd.ends_with(&format!("version = 1|[end.exited]|code = 6|{USAGE}"));
    let LauncherReply::Job(JobState::Ended(record)) = attach(&job).reply() else { panic!("no end") };
    assert_eq!(record.end, JobEnd::Exited { code: 6 });
    // An end that this release has no word for is not made into another one.
    let shepherd = Shepherd::that_speaks("8-9", "foreign-end");
    let job = shepherd.ends_with("version = 7|[end.migrated]|to = \"elsewhere\"|");
    let LauncherReply::Denied(denial) = attach(&job).reply() else { panic!("an end was made up") };
    assert_eq!(denial.code, Code::UnsupportedVersion);
    assert!(denial.message.contains("version 7"), "{denial:?}");
}
