//! Interactive jobs at a real Slurm with a terminal of their own. Refusals first.
#![forbid(unsafe_code)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use deputy_core::job::{JobEnd, Step};
use deputy_core::message::{JobState, LauncherReply, LauncherRequest, RunRequest, SubmitRequest, encode};
use deputy_core::slurm::{Interactive, SlurmRequest};
use deputy_core::stream::{Input, Output as To, Streams};
use deputy_suite::acting::{identity, ids};
use deputy_suite::deputyctl;
use deputy_suite::line::Line;
use deputy_suite::machine::{command_line, processes, signal, wait_until};
use deputy_suite::people::{as_user, command_as, ok};
use deputy_suite::requests::{app, run_as};
use deputy_suite::slurm::{PORTAL, exclusively, open_at_slurm, sleeper, wait_for};

/// Of Linux.
const O_NOCTTY: i32 = 0o400;
const EPERM: i32 = 1;

/// How many jobs the accounting has, of whom and whatever became of them.
fn accounted() -> usize {
    ok(&as_user("root", &["sacct", "--noheader", "--allusers", "--allocations", "--starttime=now-1days"]))
        .lines()
        .count()
}

/// `deputyctl` on a terminal of its own.
struct Typist {
    child: Child,
    output: Receiver<u8>,
    seen: String,
}

impl Typist {
    fn new(options: &str, command: &str) -> Self {
        let line = format!(
            "stty rows 33 cols 99; (until test -e /srv/slurm/resize; do sleep 0.1; done; stty rows 44 cols 77 < /dev/tty) & \
             deputyctl run --app hpc --account alice --kind talk --interactive --terminal {options} \
             -- {command}; echo status=$?; stty -a"
        );
        let mut child = command_as(PORTAL, &["script", "-qec", &line, "/dev/null"])
            .env("SHELL", "/bin/sh")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script");
        let (sender, output) = channel();
        let mut stdout = child.stdout.take().expect("its output");
        std::thread::spawn(move || {
            let mut byte = [0];
            while stdout.read(&mut byte).is_ok_and(|length| length == 1) {
                if sender.send(byte[0]).is_err() {
                    return;
                }
            }
        });
        Self { child, output, seen: String::new() }
    }

    fn wait_for(&mut self, text: &str) {
        while !self.seen.contains(text) {
            let Ok(byte) = self.output.recv_timeout(Duration::from_secs(60)) else {
                panic!("{text:?} did not come: {:?}", self.seen)
            };
            self.seen.push(byte.into());
        }
    }

    fn types(&mut self, text: &str) {
        self.child.stdin.as_mut().expect("its input").write_all(text.as_bytes()).expect("its input");
    }
}

#[test]
fn a_terminal_that_somebody_sits_at_is_not_given_to_a_job() {
    let _machine = exclusively();
    let before = accounted();
    let mut sits = command_as("root", &["script", "-qec", "tty > /run/sits; sleep 600", "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("script");
    let mut path = String::new();
    wait_until("somebody sits at it", || {
        path = fs::read_to_string("/run/sits").unwrap_or_default().trim().to_owned();
        path.starts_with("/dev/pts/")
    });
    let terminal = fs::File::options().read(true).write(true).custom_flags(O_NOCTTY).open(&path).unwrap();
    let streams = Streams { input: Input::Descriptor, output: To::Descriptor, error: To::SameAsOutput };
    let wanted = SubmitRequest {
        run: RunRequest {
            application: app("hpc"),
            kind: "talk".parse().ok(),
            streams,
            ..run_as(identity("alice"), "alice", &["/bin/true"])
        },
        slurm: SlurmRequest { interactive: Some(Interactive::Terminal), ..SlurmRequest::default() },
    };
    let line = Line::to_launcher(ids("deputy")).expect("the launcher's socket");
    line.send(&encode(&LauncherRequest::Interact(wanted)).unwrap(), &[terminal.as_fd(), terminal.as_fd()]);
    match &line.rest()[..] {
        [LauncherReply::Job(JobState::Ended(record))] => {
            let end = JobEnd::LaunchFailed { step: Step::Terminal, errno: EPERM };
            assert_eq!(record.end, end, "{record:?}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(accounted(), before);
    sits.kill().unwrap();
    sits.wait().unwrap();
}

#[test]
fn with_a_terminal_the_program_has_one_of_its_own_and_the_keys_are_its() {
    let _machine = exclusively();
    let script = "tty; stty size; id -un; trap \"echo interrupted\" INT; echo ready; line=; until test -n \"$line\"; do \
                  read line; done; echo got-$line; until test \"$(stty size)\" = \"44 77\"; do sleep 0.1; done; echo resized; exit 5";
    let mut typist = Typist::new("", &format!("sh -c '{script}'"));
    typist.wait_for("ready");
    for word in ["/dev/pts/", "33 99", "alice"] {
        assert!(typist.seen.contains(word), "{word}: {:?}", typist.seen);
    }
    typist.types("\x03");
    typist.wait_for("interrupted");
    typist.types("typed\r");
    typist.wait_for("got-typed");
    fs::write("/srv/slurm/resize", "").unwrap();
    typist.wait_for("resized");
    typist.wait_for("status=5");
    // The person's terminal is as it was.
    typist.wait_for("echoke");
    for word in [" isig ", " icanon ", " echo ", " opost "] {
        assert!(typist.seen.replace('\n', " ").contains(word), "{word}: {}", typist.seen);
    }
    assert_eq!(open_at_slurm(), "");
}

#[test]
fn when_the_person_is_gone_the_job_has_a_hangup_and_nothing_is_left() {
    let _machine = exclusively();
    let mut typist = Typist::new("", "sleep 600");
    wait_until("Slurm runs it", || open_at_slurm().ends_with(" R"));
    let queue = open_at_slurm();
    let job = queue.split(['-', ' ']).nth(2).unwrap();
    let person = processes().into_iter().find(|pid| command_line(*pid).starts_with("deputyctl run")).unwrap();
    signal(person, "KILL");
    wait_for(job, "done");
    assert_eq!(open_at_slurm(), "");
    typist.wait_for("status=137");
}

#[test]
fn a_key_interrupts_what_waits_for_nodes() {
    let _machine = exclusively();
    let (child, job) = sleeper();
    let mut typist = Typist::new("--cpus 16", "true");
    typist.wait_for("queued and waiting for resources");
    // Long enough to be no refusal of Slurm's.
    std::thread::sleep(Duration::from_secs(6));
    typist.types("\x03");
    typist.wait_for("status=");
    assert!(!typist.seen.contains("status=0"), "{}", typist.seen);
    assert!(!open_at_slurm().contains(" PD"));
    ok(&deputyctl(PORTAL, &["job", "cancel", &job]));
    child.wait_with_output().unwrap();
}
