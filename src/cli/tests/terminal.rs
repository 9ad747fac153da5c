//! `deputyctl` on a terminal, and without one.

mod fake;

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use fake::Bus;

/// Only root can play the conversation process: its frames have to come from uid 0.
fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

/// A command line on a terminal of its own.
struct Typist {
    child: Child,
    output: Receiver<u8>,
    seen: String,
}

impl Typist {
    fn new(line: &str) -> Self {
        let mut child = Command::new("script")
            .args(["-qec", line, "/dev/null"])
            .env("SHELL", "/bin/sh")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, output) = channel();
        let mut stdout = child.stdout.take().unwrap();
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
            let Ok(byte) = self.output.recv_timeout(Duration::from_secs(10)) else {
                panic!("{text:?} did not come: {:?}", self.seen)
            };
            self.seen.push(byte.into());
        }
    }

    fn types(&mut self, text: &str) {
        self.child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// The exit status and everything that was on the terminal.
    fn end(mut self) -> (i32, String) {
        while let Ok(byte) = self.output.recv_timeout(Duration::from_secs(10)) {
            self.seen.push(byte.into());
        }
        (self.child.wait().unwrap().code().unwrap(), self.seen)
    }
}

#[test]
fn a_secret_is_asked_for_after_the_purpose_and_is_never_shown() {
    if !is_root() {
        return;
    }
    let bus = Bus::new();
    let mut typist = Typist::new(&bus.line("link add portal alice ann"));
    typist.wait_for("Pass\\x1b[8mword: ");
    let introduction = typist.seen.clone();
    for word in ["portal", "alice", "ann"] {
        assert!(introduction.contains(word), "{introduction}");
    }
    typist.types("hunter2\n");
    typist.wait_for("Code: ");
    typist.types("42\n");
    let (status, seen) = typist.end();
    assert_eq!(status, 0, "{seen}");
    assert!(seen.contains("almost") && seen.contains("42") && !seen.contains("hunter2"), "{seen}");
    assert!(seen.contains("account alice of portal is linked to ann"), "{seen}");
    assert!(bus.calls.lock().unwrap().iter().all(|(_, interactive)| *interactive));
}

#[test]
fn a_signal_while_a_secret_is_typed_leaves_a_terminal_with_echo() {
    if !is_root() {
        return;
    }
    let bus = Bus::new();
    let line = format!("trap : INT; {}; echo status=$?; stty -a", bus.line("login portal alice"));
    let mut typist = Typist::new(&line);
    typist.wait_for("word: ");
    typist.types("hunt\x03");
    let (_, seen) = typist.end();
    assert!(seen.contains("status=130"), "{seen}");
    assert!(seen.contains(" echo ") && !seen.contains("-echo "), "{seen}");
    assert!(!seen.contains("hunt"), "{seen}");
}

#[test]
fn answers_can_come_from_a_descriptor() {
    let bus = Bus::new();
    let login = |answers: &str| {
        let line = format!("{} 5<<'END'\n{answers}\nEND\n", bus.line("login portal alice --answers-fd 5"));
        let output =
            Command::new("setsid").args(["-w", "sh", "-c", &line]).stdin(Stdio::null()).output().unwrap();
        fake::outcome(output)
    };
    let (status, out, err) = login("hunter2\n42");
    if !is_root() {
        assert_eq!(status, 125);
        assert!(err.contains("PeerNotAllowed") && out.is_empty(), "{err}");
        return;
    }
    assert_eq!((status, out.as_str()), (0, "/org/deputy/Deputy1/session/abc\n"), "{err}");
    assert!(err.contains("Login") && err.contains("almost") && !err.contains("hunter2"), "{err}");
    let (status, out, err) = login("wrong\n42");
    assert_eq!((status, out.as_str()), (125, ""));
    assert!(err.contains("deputyctl: AuthenticationFailed: "), "{err}");
    let (status, _, err) = login("hunter2");
    assert_eq!(status, 125);
    assert!(err.contains("deputyctl: ConversationAborted: "), "{err}");
}

#[test]
fn without_a_terminal_and_without_answers_there_is_no_conversation() {
    let bus = Bus::new();
    let line = bus.line("link add portal alice ann");
    let output =
        Command::new("setsid").args(["-w", "sh", "-c", &line]).stdin(Stdio::null()).output().unwrap();
    let (status, _, err) = fake::outcome(output);
    assert_eq!(status, 125);
    assert!(err.contains("no terminal") && err.contains("--answers-fd"), "{err}");
    assert!(bus.calls.lock().unwrap().is_empty());
}

#[test]
fn a_job_never_holds_the_terminal_but_is_heard_and_answered() {
    let bus = Bus::new();
    let mut typist = Typist::new(&bus.line("run --app portal --account alice -- echo"));
    typist.types("typed\n\x04");
    let (status, seen) = typist.end();
    assert_eq!(status, 0, "{seen}");
    assert_eq!(bus.jobs.terminals(), [false; 3]);
    // Once as the terminal's echo, once from the job.
    assert_eq!(seen.matches("typed").count(), 2, "{seen}");
    assert!(seen.contains("to standard error"), "{seen}");
}

#[test]
fn what_cannot_be_undone_is_asked_about_on_a_terminal() {
    let bus = Bus::new();
    let mut typist = Typist::new(&bus.line("link remove portal alice"));
    typist.wait_for("[y/N] ");
    typist.types("n\n");
    let (status, seen) = typist.end();
    assert_eq!(status, 125, "{seen}");
    assert!(bus.calls.lock().unwrap().is_empty());
}
