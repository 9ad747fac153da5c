//! Programs and variables that come by descriptor. Refusals first.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::{Write as _, pipe};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use deputy_core::Code;
use deputy_core::job::{JobEnd, Step};
use deputy_core::message::{JobState, LauncherReply, RunRequest};
use deputy_core::stream::CapturedStream;
use deputy_suite::acting::identity;
use deputy_suite::fake::Answers;
use deputy_suite::machine::{command_line, launcher_log, processes};
use deputy_suite::memory::contains;
use deputy_suite::requests::{grant, run_as};
use deputy_suite::streams::{all_captured, captured_text, failed_at, record, run, start};
use deputy_suite::{job_id, need_the_sandbox};
use rustix::fs::{MemfdFlags, memfd_create};

const ENOEXEC: i32 = 8;
const MIB: usize = 1 << 20;

fn script(argv: &[&str]) -> RunRequest {
    grant("scripts", "alice");
    RunRequest { script: true, streams: all_captured(), ..run_as(identity("alice"), "scripts", argv) }
}

fn with_variables(argv: &[&str]) -> RunRequest {
    RunRequest { script: false, environment_descriptor: true, ..script(argv) }
}

fn memfd(bytes: &[u8]) -> File {
    let mut file = File::from(memfd_create("test", MemfdFlags::CLOEXEC).unwrap());
    file.write_all(bytes).unwrap();
    file
}

fn code(request: &RunRequest, descriptor: BorrowedFd<'_>) -> Option<Code> {
    run(request, &[descriptor]).code()
}

/// What a script that has to succeed says.
fn said(request: &RunRequest, text: &[u8]) -> String {
    let answers = run(request, &[memfd(text).as_fd()]);
    assert_eq!(record(&answers).end, JobEnd::Exited { code: 0 }, "{}", errors(request));
    captured_text(&request.job, CapturedStream::Output)
}

fn errors(request: &RunRequest) -> String {
    captured_text(&request.job, CapturedStream::Error)
}

/// What neither a script nor variables can be.
fn no_contents() -> Vec<(&'static str, OwnedFd)> {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let with = |path: &str, flags: i32| -> OwnedFd {
        use std::os::unix::fs::OpenOptionsExt as _;
        fs::OpenOptions::new().read(true).custom_flags(flags).open(path).unwrap().into()
    };
    vec![
        ("a folder", with("/", 0)),
        ("O_PATH", with("/bin/sh", 0o10_000_000)),
        ("a terminal", with("/dev/ptmx", 0o400)),
        ("/dev/zero", with("/dev/zero", 0)),
        ("/dev/null", with("/dev/null", 0)),
        ("for writing", writer.into()),
    ]
}

#[test]
fn a_script_is_allowed_only_where_any_program_is() {
    need_the_sandbox();
    let text = memfd(b"#!/bin/sh\necho\n");
    // Not even under the name of what is allowed.
    let strict = RunRequest { kind: Some("strict".parse().unwrap()), ..script(&["/usr/bin/id", "-u"]) };
    assert_eq!(code(&strict, text.as_fd()), Some(Code::CommandNotAllowed));
    for argv in [&[][..], &[""], &["a\0b"]] {
        assert_eq!(code(&script(argv), text.as_fd()), Some(Code::InvalidArgument), "{argv:?}");
    }
    assert_eq!(code(&script(&["any name"]), text.as_fd()), None);
}

#[test]
fn what_is_no_script_is_refused() {
    need_the_sandbox();
    for (name, descriptor) in no_contents() {
        assert_eq!(code(&script(&["x"]), descriptor.as_fd()), Some(Code::BadMessage), "{name}");
        assert_eq!(code(&with_variables(&["true"]), descriptor.as_fd()), Some(Code::BadMessage), "{name}");
    }
    assert_eq!(code(&script(&["x"]), memfd(b"").as_fd()), Some(Code::InvalidArgument));
    assert_eq!(code(&script(&["x"]), memfd(&vec![b'#'; MIB + 1]).as_fd()), Some(Code::InvalidArgument));
    // Root would read more of it than whoever opened it.
    let of_proc = File::open("/proc/1/stat").unwrap();
    assert_eq!(code(&script(&["x"]), of_proc.as_fd()), Some(Code::InvalidArgument));
    // A program of no known form cannot be executed, and no shell is asked to try.
    let nothing = script(&["x"]);
    assert_eq!(failed_at(&run(&nothing, &[memfd(b"echo no\n").as_fd()])), (Step::Exec, ENOEXEC));
    let interpreter = script(&["x"]);
    assert_eq!(failed_at(&run(&interpreter, &[memfd(b"#!/no/such/one\n").as_fd()])), (Step::Exec, 2));
}

#[test]
fn who_never_ends_what_he_sends_is_not_waited_for() {
    need_the_sandbox();
    std::thread::scope(|scope| {
        for request in [script(&["x"]), with_variables(&["true"])] {
            scope.spawn(move || {
                let (reader, mut writer) = pipe().unwrap();
                writer.write_all(b"APP_A=1\0").unwrap();
                let line = start(&request, &[reader.as_fd()]);
                let answers = Answers { replies: line.rest(), output: String::new() };
                assert_eq!(answers.code(), Some(Code::BadMessage));
                drop(writer);
                // Nothing of it was begun.
                assert!(!Path::new("/var/lib/deputy/jobs").join(request.job.as_str()).exists());
                assert_eq!(code(&request, memfd(b"#!/bin/true\n").as_fd()).is_none(), request.script);
            });
        }
    });
}

#[test]
fn scripts_of_each_sort_run_with_their_arguments() {
    need_the_sandbox();
    let bash = said(&script(&["my-name", "a b", ""]), b"#!/bin/bash\nprintf '<%s>' \"$@\"; id -un; exit 0\n");
    assert_eq!(bash, "<a b><>alice\n");
    let text = b"#!/usr/bin/python3\nimport os, sys\nprint(os.getuid() > 0, sys.argv[1:])\n";
    assert_eq!(said(&script(&["x", "1"]), text), "True ['1']\n");
    let elf = fs::read("/usr/bin/printf").unwrap();
    assert_eq!(said(&script(&["printf", "%s", "from memory"]), &elf), "from memory");
    // Through a pipe as well.
    let request = script(&["x"]);
    let (reader, mut writer) = pipe().unwrap();
    let line = start(&request, &[reader.as_fd()]);
    writer.write_all(b"#!/bin/sh\necho piped\n").unwrap();
    drop((reader, writer));
    assert!(matches!(line.rest().pop(), Some(LauncherReply::Job(JobState::Ended(_)))));
    assert_eq!(captured_text(&request.job, CapturedStream::Output), "piped\n");
}

#[test]
fn the_scripts_copy_is_the_one_descriptor_more_and_nobody_can_change_it() {
    need_the_sandbox();
    assert_eq!(
        said(&script(&["x"]), b"#!/bin/dash\nls /proc/$$/fd\nstat -Lc '%u %a' /dev/fd/3\n"),
        "0\n1\n10\n2\n3\n0 555\n"
    );
    let elf = fs::read("/usr/bin/ls").unwrap();
    assert_eq!(said(&script(&["ls", "/proc/self/fd"]), &elf), "0\n1\n2\n3\n4\n");
    let request = script(&["x"]);
    let text = "#!/usr/bin/python3\nimport os\nfor f in (lambda: os.write(3, b'x'), lambda: os.ftruncate(3, 0), lambda: os.fchmod(3, 0o777), lambda: open('/dev/fd/3', 'r+')):\n  try: f(); print('changed')\n  except OSError: pass\n";
    assert_eq!(said(&request, text.as_bytes()), "");
}

#[test]
fn what_the_sender_changes_afterwards_has_no_effect() {
    need_the_sandbox();
    let old = b"#!/bin/bash\nuntil test -e /home/alice/changed; do sleep .01; done\necho old\n";
    let file = memfd(old);
    let request = script(&["x"]);
    let line = start(&request, &[file.as_fd()]);
    assert_eq!(line.reply(), LauncherReply::Job(JobState::Running));
    let new = String::from_utf8_lossy(old).replace("old", "new");
    file.write_all_at(new.as_bytes(), 0).unwrap();
    fs::write("/home/alice/changed", "").unwrap();
    line.rest::<LauncherReply>();
    assert_eq!(captured_text(&request.job, CapturedStream::Output), "old\n");
}

#[test]
fn variables_by_descriptor_are_held_to_the_list_like_others() {
    need_the_sandbox();
    let refused = |bytes: &[u8]| run(&with_variables(&["env"]), &[memfd(bytes).as_fd()]);
    for (bytes, expected) in [
        (b"OTHER=hunter2\0".as_slice(), Code::EnvironmentNotAllowed),
        (b"LD_PRELOAD=hunter2\0", Code::EnvironmentNotAllowed),
        (b"APP_A=1\0hunter2=\0", Code::EnvironmentNotAllowed),
        (b"=hunter2\0", Code::EnvironmentNotAllowed),
        (b"hunter2\0", Code::InvalidArgument),
        (b"APP_A=1\0\0APP_B=hunter2\0", Code::InvalidArgument),
        (b"APP_A=1\0APP_B", Code::InvalidArgument),
        (b"\0", Code::InvalidArgument),
    ] {
        let answers = refused(bytes);
        assert_eq!(answers.code(), Some(expected), "{bytes:?}");
        assert!(!format!("{answers:?}").contains("hunter2"), "{answers:?}");
    }
    assert_eq!(refused(&vec![b'A'; MIB + 1]).code(), Some(Code::InvalidArgument));
    assert!(!launcher_log().contains("hunter2"));
}

#[test]
fn a_secret_reaches_the_job_and_nothing_else() {
    need_the_sandbox();
    // Made here, so that it is in no file of this test's own.
    let secret = format!("secret-{}", job_id());
    let argv = [
        "sh",
        "-c",
        "printf %s \"$APP_TOKEN$APP_MORE\" | sha256sum; until test -e /home/alice/looked; do sleep .01; done",
    ];
    let mut request = with_variables(&argv);
    request.environment = vec![b"APP_TOKEN=overruled".to_vec(), b"APP_MORE=!".to_vec()];
    let line = start(&request, &[memfd(format!("APP_TOKEN={secret}\0").as_bytes()).as_fd()]);
    assert_eq!(line.reply(), LauncherReply::Job(JobState::Running));
    for pid in processes() {
        assert!(!command_line(pid).contains(&secret), "{pid}: {}", command_line(pid));
    }
    fs::write("/home/alice/looked", "").unwrap();
    line.rest::<LauncherReply>();
    let expected = deputy_suite::people::run({
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "printf %s \"$T\" | sha256sum"]).env("T", format!("{secret}!"));
        command
    });
    assert_eq!(captured_text(&request.job, CapturedStream::Output), expected.stdout);
    assert!(launcher_log().contains(request.job.as_str()));
    assert!(!launcher_log().contains(&secret));
    let mut looked_at = 0;
    let mut folders = vec![Path::new("/var/lib/deputy").to_owned(), Path::new("/run/deputy").to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let sort = entry.file_type().unwrap();
            if sort.is_dir() {
                folders.push(entry.path());
            } else if sort.is_file()
                && let Ok(bytes) = fs::read(entry.path())
            {
                assert!(!contains(&bytes, &secret), "{:?}", entry.path());
                looked_at += 1;
            }
        }
    }
    assert!(looked_at > 3, "{looked_at}");
}

#[test]
fn a_script_and_variables_come_together_in_this_order() {
    need_the_sandbox();
    let request = RunRequest { environment_descriptor: true, ..script(&["x"]) };
    let (text, variables) = (memfd(b"#!/bin/sh\necho $APP_A\n"), memfd(b"APP_A=from a descriptor"));
    assert_eq!(run(&request, &[text.as_fd(), variables.as_fd()]).status(), Some(0));
    assert_eq!(captured_text(&request.job, CapturedStream::Output), "from a descriptor\n");
    let other_way = RunRequest { job: job_id(), ..request };
    assert!(run(&other_way, &[variables.as_fd(), text.as_fd()]).code().is_some());
}
