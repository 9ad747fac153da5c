//! What a job writes to captured streams is kept, whole or up to its bound, for nobody but whom it is for.
#![forbid(unsafe_code)]

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Once;

use deputy_core::Code;
use deputy_core::ids::JobId;
use deputy_core::job::{JobEnd, Step};
use deputy_core::message::{JobCommand, JobState, LauncherReply, LauncherRequest, RunRequest};
use deputy_core::stream::{Captured, CapturedStream, Output, Streams};
use deputy_suite::acting::{acting_as, identity, ids};
use deputy_suite::fake::Answers;
use deputy_suite::line::Line;
use deputy_suite::machine::{install_application, launcher_pid, running, signal, wait_until};
use deputy_suite::requests::{app, grant_in, run_as};
use deputy_suite::streams::{
    CapturedFile, all_captured, captured_text, failed_at, record, run, start, streams,
};
use deputy_suite::{Fake, as_user, job_id, need_the_sandbox};

const BOUND: u64 = 1 << 20;

/// What the file says of the application, whose jobs keep 1 MiB of each stream; one kind keeps nothing.
const POLICY: &str = r#"
service_user = "portal"
[link]
shared = true
[kinds.batch]
commands = ["*"]
output = "1M"
[kinds.silent]
commands = ["*"]
output = 0
"#;

fn job(streams: Streams, argv: &[&str]) -> RunRequest {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        install_application("capturing", POLICY);
        grant_in("capturing", "capturing", "alice");
    });
    RunRequest { application: app("capturing"), streams, ..run_as(identity("alice"), "capturing", argv) }
}

fn shell(script: &str) -> RunRequest {
    job(all_captured(), &["sh", "-c", script])
}

fn of(job: &JobId, stream: CapturedStream) -> CapturedFile {
    CapturedFile::of(job, stream).expect("a captured stream")
}

fn folder(job: &JobId) -> PathBuf {
    Path::new("/var/lib/deputy/jobs").join(job.as_str())
}

/// Lines of 16 bytes, each with its number: what is at an offset says so.
fn numbered_lines(bytes: u64) -> String {
    format!("seq -f %015.0f 0 {}", bytes / 16 - 1)
}

fn numbered(from: u64, to: u64) -> Vec<u8> {
    let lines = (from / 16..to.div_ceil(16)).map(|line| format!("{line:015}\n"));
    let lines = lines.collect::<Vec<_>>().concat();
    let start = usize::try_from(from % 16).unwrap();
    lines.into_bytes()[start..start + usize::try_from(to - from).unwrap()].to_vec()
}

/// The most memory that the parent of this process ever had, KiB.
fn peak_of_shepherd_of(words: &str) -> u64 {
    wait_until(words, || running(words).len() == 1);
    let field = |pid: i32, name: &str| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let shepherd = i32::try_from(field(running(words)[0], "PPid:")).unwrap();
    field(shepherd, "VmHWM:")
}

fn end_of(line: Line) -> Answers {
    Answers { replies: line.rest(), output: String::new() }
}

#[test]
fn what_was_not_captured_is_not_found() {
    need_the_sandbox();
    let captured = |job: &JobId, stream| CapturedFile::of(job, stream).map(drop);
    assert_eq!(captured(&job_id(), CapturedStream::Output), Err(Code::NotFound));
    let only_errors = job(
        streams("/dev/null", Output::File { path: b"/dev/null".to_vec(), append: false }, Output::Captured),
        &["true"],
    );
    assert_eq!(run(&only_errors, &[]).status(), Some(0));
    assert_eq!(captured(&only_errors.job, CapturedStream::Output), Err(Code::NotFound));
    assert_eq!(captured_text(&only_errors.job, CapturedStream::Error), "");
    // Nobody but the daemon and root is heard at all.
    let request = LauncherRequest::Captured { job: only_errors.job.clone(), stream: CapturedStream::Error };
    assert!(acting_as(ids("alice"), || deputy_wire_connects().is_err()));
    assert_eq!(
        Fake::daemon().ask(&request, &[deputy_suite::Descriptor::Null]).code(),
        Some(Code::BadMessage)
    );
    assert_eq!(
        Fake::daemon().ask(&LauncherRequest::Forget { jobs: vec![only_errors.job.clone()] }, &[]).replies,
        [LauncherReply::Done]
    );
    assert_eq!(
        captured(&only_errors.job, CapturedStream::Error),
        Err(Code::NotFound),
        "it goes with the folder"
    );
}

fn deputy_wire_connects() -> std::io::Result<()> {
    deputy_wire::connect(deputy_wire::LAUNCHER_SOCKET).map(drop).map_err(std::io::Error::other)
}

#[test]
fn captured_output_is_roots_and_can_only_be_read() {
    need_the_sandbox();
    let request = shell("echo secret-words; sleep 2001");
    let line = start(&request, &[]);
    assert_eq!(line.reply(), LauncherReply::Job(JobState::Running));
    wait_until("it was written", || of(&request.job, CapturedStream::Output).size() > 0);
    for user in ["alice", "bob", "deputy", "portal"] {
        for name in ["stdout", "stdout.left-out", "."] {
            let path = folder(&request.job).join(name);
            let opened = acting_as(ids(user), || fs::File::open(&path).map(drop));
            assert_eq!(opened.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied, "{user} {name}");
        }
    }
    for name in ["stdout", "stderr", "stdout.left-out", "stderr.left-out"] {
        let metadata = fs::metadata(folder(&request.job).join(name)).unwrap();
        assert_eq!((metadata.uid(), metadata.gid(), metadata.permissions().mode() & 0o7777), (0, 0, 0o600));
    }
    let captured = of(&request.job, CapturedStream::Output);
    assert_eq!(captured.text(), "secret-words\n");
    assert!((&captured.bytes).write(b"x").is_err(), "the descriptor can be written to");
    assert!(captured.bytes.set_len(0).is_err());
    let path = format!("/proc/self/fd/{}", captured.bytes.as_raw_fd());
    for write in [
        OpenOptions::new().write(true),
        OpenOptions::new().append(true),
        OpenOptions::new().read(true).write(true),
    ] {
        let again = acting_as(ids("deputy"), || write.open(&path).map(drop));
        assert_eq!(again.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
    }
    line.command(JobCommand::Cancel { grace_ms: 0 });
    end_of(line);
    assert_eq!(of(&request.job, CapturedStream::Output).text(), "secret-words\n");
}

#[test]
fn output_and_errors_are_kept_apart_and_counted() {
    need_the_sandbox();
    let request = shell("echo out; echo error >&2; (sleep .1; echo late) & exit 3");
    let end = record(&run(&request, &[]));
    assert_eq!(end.end, JobEnd::Exited { code: 3 });
    let (output, error) = (
        captured_text(&request.job, CapturedStream::Output),
        captured_text(&request.job, CapturedStream::Error),
    );
    assert!(output == "out\n" || output == "out\nlate\n", "{output}");
    assert_eq!(error, "error\n");
    assert_eq!(end.captured, Captured { output: output.len() as u64, error: error.len() as u64 });
    let silent = RunRequest { kind: Some("silent".parse().unwrap()), ..shell("seq 10000; echo error >&2") };
    let end = record(&run(&silent, &[]));
    assert_eq!(end.captured, Captured { output: 48_894, error: 6 });
    let left_out = of(&silent.job, CapturedStream::Output).left_out();
    // But for a block, which costs nothing.
    assert_eq!((left_out.start, left_out.end), (0, 45_056));
}

#[test]
fn nothing_is_captured_of_a_job_that_did_not_start() {
    need_the_sandbox();
    let nowhere = RunRequest { directory: Some(b"/root".to_vec()), ..shell("echo") };
    let answers = run(&nowhere, &[]);
    assert_eq!(failed_at(&answers).0, Step::Chdir);
    assert_eq!(record(&answers).captured, Captured::default());
    assert_eq!(captured_text(&nowhere.job, CapturedStream::Output), "");
}

fn is_on_xfs(file: &fs::File) -> bool {
    rustix::fs::fstatfs(file).unwrap().f_type == 0x5846_5342
}

#[test]
fn much_output_costs_little_memory_and_disk_and_does_not_stop_the_job() {
    need_the_sandbox();
    // Another job of the same form says what a shepherd has without capturing.
    let null = || Output::File { path: b"/dev/null".to_vec(), append: false };
    let plain =
        start(&job(streams("/dev/null", null(), null()), &["sh", "-c", "seq 10; exec sleep 2002"]), &[]);
    let usual = peak_of_shepherd_of("sleep 2002");
    plain.command(JobCommand::Cancel { grace_ms: 0 });

    let total: u64 = if std::env::var_os("DEPUTY_SOAK").is_some() { 1 << 30 } else { 64 << 20 };
    let request = shell(&format!("{} && exec sleep 2003", numbered_lines(total)));
    let line = start(&request, &[]);
    assert_eq!(line.reply(), LauncherReply::Job(JobState::Running));
    let captured = of(&request.job, CapturedStream::Output);
    let mut most_blocks = 0;
    let mut looked = 0;
    wait_until("all was written", || {
        most_blocks = most_blocks.max(captured.bytes.metadata().unwrap().blocks());
        // Followed live: what is read and not left out afterwards is the job's.
        let size = captured.size();
        let from = size.saturating_sub(4096);
        let read = captured.read(from, size);
        if !captured.left_out().has(from) {
            assert_eq!(read, numbered(from, size), "at {from}");
            looked += 1;
        }
        size == total
    });
    assert!(looked > 0);
    let peak = peak_of_shepherd_of("sleep 2003");
    assert!(peak <= usual + 1024, "{peak} KiB, {usual} KiB without capturing");
    // XFS takes room beyond the end of a file that grows, as much as it has, and gives it back when it is closed.
    let ahead = if is_on_xfs(&captured.bytes) { BOUND } else { 0 };
    assert!(most_blocks * 512 <= BOUND + ahead + 128 * 1024, "{most_blocks} blocks");
    let left_out = captured.left_out();
    assert!(left_out.start >= BOUND / 2 && left_out.end <= total - BOUND / 2, "{left_out:?}");
    assert!(total - left_out.count() <= BOUND + 3 * 4096, "{left_out:?}");
    assert_eq!(captured.read(0, left_out.start), numbered(0, left_out.start));
    assert_eq!(captured.read(left_out.end, total), numbered(left_out.end, total));
    line.command(JobCommand::Cancel { grace_ms: 0 });
    assert_eq!(record(&end_of(line)).captured, Captured { output: total, error: 0 });
    let again = of(&request.job, CapturedStream::Output);
    assert_eq!((again.left_out(), again.size()), (left_out, total));
}

#[test]
fn who_has_the_pipe_but_is_not_of_the_job_does_not_keep_it_from_its_end() {
    need_the_sandbox();
    // A process of the same user's that the job did not start opens the job's standard output by its name in /proc.
    let request = shell("echo begun; exec sleep 2004");
    let line = start(&request, &[]);
    assert_eq!(line.reply(), LauncherReply::Job(JobState::Running));
    wait_until("it sleeps", || running("sleep 2004").len() == 1);
    let path = format!("/proc/{}/fd/1", running("sleep 2004")[0]);
    let mut outside = acting_as(ids("alice"), || OpenOptions::new().write(true).open(path)).unwrap();
    outside.write_all(b"from outside\n").unwrap();
    line.command(JobCommand::Cancel { grace_ms: 0 });
    let end = record(&end_of(line));
    assert_eq!(end.captured.output, 19);
    assert_eq!(captured_text(&request.job, CapturedStream::Output), "begun\nfrom outside\n");
}

#[test]
fn what_was_captured_is_there_when_the_shepherd_was_killed() {
    need_the_sandbox();
    let request = shell("echo before; exec sleep 2005");
    let line = start(&request, &[]);
    assert_eq!(line.reply(), LauncherReply::Job(JobState::Running));
    wait_until("it was written", || of(&request.job, CapturedStream::Output).size() == 7);
    wait_until("it sleeps", || running("sleep 2005").len() == 1);
    let status = fs::read_to_string(format!("/proc/{}/status", running("sleep 2005")[0])).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
    assert_ne!(parent, launcher_pid());
    signal(parent, "KILL");
    assert_eq!(line.next::<LauncherReply>(), None);
    assert_eq!(captured_text(&request.job, CapturedStream::Output), "before\n");
    assert_eq!(as_user("alice", &["cat", folder(&request.job).join("stdout").to_str().unwrap()]).status, 1);
}
