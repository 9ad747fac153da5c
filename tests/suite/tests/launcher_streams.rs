//! A job's standard input, output and error, as a taken-over `deputyd` can ask for them. Refusals first.
#![forbid(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, pipe};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use deputy_core::Code;
use deputy_core::job::{JobEnd, Step};
use deputy_core::message::{JobState, LauncherReply, LauncherRequest, RunRequest, encode};
use deputy_core::stream::{Input, Output, Streams};
use deputy_suite::acting::{identity, ids};
use deputy_suite::machine::run as run_as_root;
use deputy_suite::requests::{grant, run_as};
use deputy_suite::streams::{all_captured, captured_text, failed_at, file, record, run, start, streams};
use deputy_suite::{Descriptor, Fake, as_user, need_the_sandbox};

use deputy_core::stream::CapturedStream;

const ENOENT: i32 = 2;
const ENXIO: i32 = 6;
const EACCES: i32 = 13;
const EISDIR: i32 = 21;
const EINVAL: i32 = 22;
const ELOOP: i32 = 40;

fn job(streams: Streams, argv: &[&str]) -> RunRequest {
    grant("streams", "alice");
    RunRequest { streams, ..run_as(identity("alice"), "streams", argv) }
}

/// A job that says something on both.
fn speaking(streams: Streams) -> RunRequest {
    job(streams, &["sh", "-c", "echo out; echo err >&2"])
}

/// A folder of alice's for one test.
fn folder(name: &str) -> String {
    let path = format!("/home/alice/{name}");
    fs::create_dir(&path).unwrap();
    chown(&path, Some(ids("alice").uid), Some(ids("alice").gid)).unwrap();
    path
}

fn send(request: &RunRequest, descriptors: &[Descriptor]) -> Option<Code> {
    Fake::daemon().ask(&LauncherRequest::Run(request.clone()), descriptors).code()
}

#[test]
fn a_request_brings_exactly_the_descriptors_that_it_says() {
    need_the_sandbox();
    let null = Descriptor::Null;
    let given = streams("/dev/null", Output::Descriptor, Output::SameAsOutput);
    for (streams, right) in [(all_captured(), 0), (given, 1), (Streams::default(), 3)] {
        for count in (0..5).filter(|&count| count != right) {
            let code = send(&speaking(streams.clone()), &vec![null; count]);
            assert_eq!(code, Some(Code::BadMessage), "{streams:?} with {count}");
        }
        let good = speaking(streams);
        assert_eq!(send(&good, &vec![null; right]), None);
        for (script, environment_descriptor) in [(true, false), (false, true), (true, true)] {
            let more = RunRequest { script, environment_descriptor, ..speaking(good.streams.clone()) };
            assert_eq!(send(&more, &vec![null; right]), Some(Code::BadMessage));
        }
    }
    let circle = streams("/dev/null", Output::SameAsOutput, Output::Captured);
    assert_eq!(send(&speaking(circle), &[]), Some(Code::BadMessage));
    for path in ["", "/home/alice/a\0b"] {
        let to_file = streams("/dev/null", file(path), Output::SameAsOutput);
        assert_eq!(send(&speaking(to_file), &[]), Some(Code::InvalidArgument), "{path:?}");
        let from_file = streams(path, Output::Captured, Output::SameAsOutput);
        assert_eq!(send(&speaking(from_file), &[]), Some(Code::InvalidArgument), "{path:?}");
    }
}

#[test]
fn a_descriptor_that_is_no_file_is_refused_beside_other_streams_too() {
    need_the_sandbox();
    let for_input = Streams { input: Input::Descriptor, ..all_captured() };
    let for_output = Streams { output: Output::Descriptor, ..all_captured() };
    let for_error = Streams { error: Output::Descriptor, ..all_captured() };
    let always = [
        Descriptor::Folder,
        Descriptor::Path,
        Descriptor::Terminal,
        Descriptor::Character,
        Descriptor::Pidfd,
    ];
    for (streams, wrong_way) in [
        (for_input, Descriptor::WriteOnly),
        (for_output, Descriptor::ReadOnly),
        (for_error, Descriptor::ReadOnly),
    ] {
        for descriptor in always.into_iter().chain([wrong_way]) {
            let code = send(&speaking(streams.clone()), &[descriptor]);
            assert_eq!(code, Some(Code::BadMessage), "{descriptor:?} for {streams:?}");
        }
        assert_eq!(send(&speaking(streams), &[Descriptor::Stream]), None);
    }
}

#[test]
fn what_is_no_regular_file_is_refused_at_its_step_and_nothing_waits() {
    need_the_sandbox();
    let folder = folder("no-files");
    let fifo = format!("{folder}/fifo");
    run_as_root("mkfifo", &["-m", "666", &fifo]);
    let socket = format!("{folder}/socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    let cases = [
        (folder.as_str(), EISDIR, EISDIR),
        // A FIFO with nobody at its other end would wait for ever.
        (&fifo, EINVAL, ENXIO),
        (&socket, ENXIO, ENXIO),
        ("/dev/zero", EINVAL, EINVAL),
        ("/dev/ptmx", EINVAL, EINVAL),
        ("/dev/tty", ENXIO, ENXIO),
    ];
    for (path, reading, writing) in cases {
        let from = streams(path, Output::Captured, Output::SameAsOutput);
        assert_eq!(failed_at(&run(&speaking(from), &[])), (Step::StandardInput, reading), "{path}");
        for append in [false, true] {
            let to = Output::File { path: path.into(), append };
            let output = streams("/dev/null", to.clone(), Output::Captured);
            assert_eq!(failed_at(&run(&speaking(output), &[])), (Step::StandardOutput, writing), "{path}");
            let error = streams("/dev/null", Output::Captured, to);
            assert_eq!(failed_at(&run(&speaking(error), &[])), (Step::StandardError, writing), "{path}");
        }
    }
    // Nor is one that somebody listens to.
    let _reader = OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    let to_fifo = streams("/dev/null", file(&fifo), Output::SameAsOutput);
    assert_eq!(failed_at(&run(&speaking(to_fifo), &[])), (Step::StandardOutput, EINVAL));
    assert_eq!(
        record(&run(&speaking(streams("/dev/null", file("/dev/null"), file("/dev/null"))), &[])).end,
        JobEnd::Exited { code: 0 }
    );
}

#[test]
fn what_the_user_may_not_open_the_job_may_not() {
    need_the_sandbox();
    let folder = folder("not-hers");
    let bobs = "/home/bob/only-his";
    fs::write(bobs, "bob's").unwrap();
    chown(bobs, Some(ids("bob").uid), Some(ids("bob").gid)).unwrap();
    fs::set_permissions(bobs, fs::Permissions::from_mode(0o600)).unwrap();
    // Links of alice's own lead to what she may not touch.
    let (to_bob, to_root) = (format!("{folder}/to-bob"), format!("{folder}/to-root"));
    assert_eq!(as_user("alice", &["ln", "-s", bobs, &to_bob]).status, 0);
    assert_eq!(as_user("alice", &["ln", "-s", "/etc/passwd", &to_root]).status, 0);
    let passwd = fs::read("/etc/passwd").unwrap();
    for path in [bobs, &to_bob, "/etc/passwd", &to_root, "/etc/made-by-alice", "/root/x", "/proc/1/environ"] {
        let output = streams("/dev/null", file(path), Output::SameAsOutput);
        assert_eq!(failed_at(&run(&speaking(output), &[])), (Step::StandardOutput, EACCES), "{path}");
        let error = streams("/dev/null", Output::Captured, Output::File { path: path.into(), append: true });
        assert_eq!(failed_at(&run(&speaking(error), &[])), (Step::StandardError, EACCES), "{path}");
    }
    for path in [bobs, &to_bob, "/etc/shadow", "/proc/1/environ"] {
        let input = streams(path, Output::Captured, Output::SameAsOutput);
        assert_eq!(failed_at(&run(&speaking(input), &[])), (Step::StandardInput, EACCES), "{path}");
    }
    let nowhere = streams("/dev/null", file("/home/alice/nowhere/x"), Output::SameAsOutput);
    assert_eq!(failed_at(&run(&speaking(nowhere), &[])), (Step::StandardOutput, ENOENT));
    assert_eq!(fs::read_to_string(bobs).unwrap(), "bob's");
    assert_eq!(fs::read("/etc/passwd").unwrap(), passwd);
    assert!(!Path::new("/etc/made-by-alice").exists());
}

#[test]
fn the_shepherds_own_descriptors_cannot_be_named() {
    need_the_sandbox();
    // Before its program is executed the job's process still has them.
    let mut refused = 0;
    for number in 0..20 {
        for path in [format!("/proc/self/fd/{number}"), format!("/dev/fd/{number}")] {
            let output = streams("/dev/null", file(&path), Output::SameAsOutput);
            let input = streams(&path, Output::Captured, Output::SameAsOutput);
            let (step, errno) = failed_at(&run(&speaking(output), &[]));
            assert!(step == Step::StandardOutput && [ELOOP, ENOENT].contains(&errno), "{path}: {errno}");
            let (step, errno) = failed_at(&run(&speaking(input), &[]));
            assert!(step == Step::StandardInput && [ELOOP, ENOENT].contains(&errno), "{path}: {errno}");
            refused += usize::from(errno == ELOOP);
        }
    }
    assert!(refused > 10, "it has descriptors: {refused}");
    let memory = streams("/proc/self/mem", Output::Captured, Output::SameAsOutput);
    assert_eq!(failed_at(&run(&speaking(memory), &[])), (Step::StandardInput, EACCES));
}

#[test]
fn files_are_made_as_the_user_in_the_working_directory() {
    need_the_sandbox();
    let folder = folder("made");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    let wanted = streams("in", file("out"), file("err"));
    let request = RunRequest {
        directory: Some(folder.clone().into()),
        umask: Some(0o027),
        os_group: Some("lab1".parse().unwrap()),
        ..job(wanted, &["sh", "-c", "cat; echo err >&2"])
    };
    fs::write(format!("{folder}/in"), "what is there").unwrap();
    assert_eq!(record(&run(&request, &[])).end, JobEnd::Exited { code: 0 });
    let lab1: u32 =
        as_user("alice", &["getent", "group", "lab1"]).stdout.split(':').nth(2).unwrap().parse().unwrap();
    for (name, text) in [("out", "what is there"), ("err", "err\n")] {
        let metadata = fs::metadata(format!("{folder}/{name}")).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (ids("alice").uid, lab1), "{name}");
        assert_eq!(metadata.mode() & 0o7777, 0o640, "{name}");
        assert_eq!(fs::read_to_string(format!("{folder}/{name}")).unwrap(), text);
    }
}

#[test]
fn a_file_is_written_anew_or_added_to() {
    need_the_sandbox();
    let folder = folder("again");
    let path = format!("{folder}/out");
    let write = |append: bool| {
        let to = Output::File { path: path.clone().into(), append };
        assert_eq!(run(&speaking(streams("/dev/null", to, Output::SameAsOutput)), &[]).status(), Some(0));
        fs::read_to_string(&path).unwrap()
    };
    assert_eq!(write(true), "out\nerr\n");
    assert_eq!(write(true), "out\nerr\nout\nerr\n");
    assert_eq!(write(false), "out\nerr\n");
}

#[test]
fn standard_error_goes_with_output_in_order() {
    need_the_sandbox();
    let script = "i=0; while test $i -lt 200; do echo o$i; echo e$i >&2; i=$((i+1)); done";
    let expected = (0..200).map(|i| format!("o{i}\ne{i}\n")).collect::<Vec<_>>().concat();
    let both =
        |output: Output| job(streams("/dev/null", output, Output::SameAsOutput), &["sh", "-c", script]);
    let path = format!("{}/both", folder("order"));
    assert_eq!(run(&both(file(&path)), &[]).status(), Some(0));
    assert_eq!(fs::read_to_string(path).unwrap(), expected);
    let answers = Fake::daemon().ask(&LauncherRequest::Run(both(Output::Descriptor)), &[Descriptor::Output]);
    assert_eq!(answers.output, expected);
    let request = both(Output::Captured);
    let end = record(&run(&request, &[]));
    assert_eq!((end.captured.output, end.captured.error), (expected.len() as u64, 0));
    assert_eq!(captured_text(&request.job, CapturedStream::Output), expected);
}

#[test]
fn a_job_has_its_three_descriptors_and_no_other_of_a_caller_that_has_many() {
    need_the_sandbox();
    let many: Vec<File> = (0..250).map(|_| File::open("/etc/passwd").unwrap()).collect();
    for streams in [all_captured(), streams("/etc/passwd", file("/dev/null"), Output::Captured)] {
        let request = job(streams, &["sh", "-c", "exec 2>&1; ls /proc/$$/fd >&2"]);
        assert_eq!(run(&request, &[]).status(), Some(0));
    }
    let request = job(all_captured(), &["sh", "-c", "ls /proc/$$/fd"]);
    assert_eq!(run(&request, &[]).status(), Some(0));
    assert_eq!(captured_text(&request.job, CapturedStream::Output), "0\n1\n2\n");
    let (mut reader, writer) = pipe().unwrap();
    let request = job(Streams::default(), &["sh", "-c", "ls /proc/$$/fd"]);
    let line = start(&request, &[many[0].as_fd(), writer.as_fd(), writer.as_fd()]);
    drop(writer);
    let mut output = String::new();
    reader.read_to_string(&mut output).unwrap();
    assert_eq!(output, "0\n1\n2\n");
    drop((line, many));
}

#[test]
fn a_sender_that_closes_its_ends_is_an_end_of_file_and_a_broken_pipe() {
    need_the_sandbox();
    let (reader, writer) = pipe().unwrap();
    let (input, sender) = pipe().unwrap();
    let wanted = Streams { input: Input::Descriptor, output: Output::Descriptor, error: Output::Captured };
    let request = job(wanted, &["sh", "-c", "cat; exec yes"]);
    let line = start(&request, &[input.as_fd(), writer.as_fd()]);
    drop((reader, writer, input, sender));
    let answers = deputy_suite::fake::Answers { replies: line.rest(), output: String::new() };
    assert_eq!(record(&answers).end, JobEnd::Signaled { signal: 13, core: false });
}

#[test]
fn a_job_opens_its_own_streams_by_name_as_in_a_login() {
    need_the_sandbox();
    let request = job(all_captured(), &["sh", "-c", "echo o > /dev/stdout; echo e > /dev/stderr"]);
    assert_eq!(run(&request, &[]).status(), Some(0));
    assert_eq!(captured_text(&request.job, CapturedStream::Output), "o\n");
    assert_eq!(captured_text(&request.job, CapturedStream::Error), "e\n");
}

#[test]
fn a_file_that_ends_full_is_the_jobs_error() {
    need_the_sandbox();
    let path = format!("{}/small", folder("full"));
    fs::create_dir(&path).unwrap();
    run_as_root("mount", &["-t", "tmpfs", "-o", "size=64k,mode=1777", "tmpfs", &path]);
    let wanted = streams("/dev/null", file(&format!("{path}/out")), Output::Captured);
    let request = job(wanted, &["head", "-c", "1000000", "/dev/zero"]);
    let end = record(&run(&request, &[]));
    run_as_root("umount", &[&path]);
    assert_eq!(end.end, JobEnd::Exited { code: 1 });
    assert!(captured_text(&request.job, CapturedStream::Error).contains("No space left"));
}

#[test]
fn the_states_of_a_job_whose_file_was_refused_are_one_end() {
    need_the_sandbox();
    let symlinked = format!("{}/loop", folder("loop"));
    symlink(&symlinked, &symlinked).unwrap();
    let request = speaking(streams("/dev/null", file(&symlinked), Output::SameAsOutput));
    let answers = run(&request, &[]);
    assert!(matches!(answers.replies[..], [LauncherReply::Job(JobState::Ended(_))]), "{answers:?}");
    let attach = encode(&LauncherRequest::Attach { job: request.job.clone() }).unwrap();
    assert_eq!(Fake::daemon().send(&attach, &[]).replies, answers.replies);
}
