//! A process that writes to a store and tells each acknowledgement, to be stopped or killed at any moment.
//!
//! It is the test program itself, started again with the name of its ignored test `writer_process`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use deputyd::store::{Options, Store};

use super::{activate, actor, create, directories, ended, options, queue};

const PLACE: &str = "DEPUTY_TEST_STORE";
const SEGMENT: &str = "DEPUTY_TEST_SEGMENT";

/// What the process does: eight threads, each making accounts with a link and a job that ends. `start` keeps the names
/// of one run apart from those of another.
pub fn main() {
    let Some(place) = std::env::var_os(PLACE) else { return };
    let segment_bytes = std::env::var(SEGMENT).unwrap().parse().unwrap();
    let options = Options { segment_bytes, ..options() };
    let (store, report) = Store::open_with(&directories(Path::new(&place)), options).unwrap();
    let next = AtomicU32::new(u32::try_from(report.last_number).unwrap());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    run(&store, next.fetch_add(1, Ordering::Relaxed));
                }
            });
        }
    });
}

fn run(store: &Store, number: u32) {
    let name = format!("u{number}");
    let uid = 1001 + number % 5;
    let changes = [
        create("demo", &name),
        activate("demo", &name, uid),
        queue("demo", &name, uid, number),
        ended(number, 0),
    ];
    for change in changes {
        let committed = store.commit_blocking(change, actor()).unwrap();
        // One write to the pipe, below its atomic size: a line is told whole or not at all.
        let line = format!("\nack {} {name}\n", committed.number);
        std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
        std::io::stdout().flush().unwrap();
    }
}

/// A running writer.
pub struct Writer {
    child: Child,
    out: BufReader<ChildStdout>,
    /// The highest acknowledged number so far, and how many were told.
    pub acknowledged: u64,
}

impl Writer {
    /// Starts a writer on the store in `place`.
    pub fn start(place: &Path, segment_bytes: u64) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "writer_process", "--nocapture", "--test-threads=1"])
            .env(PLACE, place)
            .env(SEGMENT, segment_bytes.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = child.stdout.take().unwrap();
        Self { child, out: BufReader::new(out), acknowledged: 0 }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Kills it, and gives the acknowledged numbers of its whole life.
    pub fn kill(mut self) -> Vec<u64> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let mut numbers = Vec::new();
        while let Some(number) = self.line() {
            numbers.extend(number);
        }
        numbers
    }

    /// Waits until something was acknowledged.
    pub fn wait_for_acknowledgement(&mut self) {
        loop {
            let number = self.line().expect("the writer ended");
            if let Some(number) = number {
                self.acknowledged = self.acknowledged.max(number);
                return;
            }
        }
    }

    /// Stops it where it is, and takes in what it has told so far.
    pub fn freeze(&mut self) {
        self.signal(rustix::process::Signal::STOP);
        // Stopped means that no thread is inside a system call that could still write.
        let tasks = format!("/proc/{}/task", self.child.id());
        let stopped = || {
            std::fs::read_dir(&tasks).unwrap().all(|task| {
                let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default();
                stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
            })
        };
        while !stopped() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        while self.has_output() {
            if let Some(number) = self.line().expect("the writer ended") {
                self.acknowledged = self.acknowledged.max(number);
            }
        }
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn has_output(&self) -> bool {
        if self.out.buffer().contains(&b'\n') {
            return true;
        }
        let mut poll = [rustix::event::PollFd::from_borrowed_fd(
            self.out.get_ref().as_fd(),
            rustix::event::PollFlags::IN,
        )];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut poll, Some(&now)).unwrap() > 0
    }

    /// One line: the number, if it acknowledges one; `None` at the end.
    #[expect(clippy::option_option, reason = "the end, another line, an acknowledgement")]
    fn line(&mut self) -> Option<Option<u64>> {
        let mut line = String::new();
        if self.out.read_line(&mut line).unwrap() == 0 {
            return None;
        }
        Some(line.strip_prefix("ack ").and_then(|rest| rest.split(' ').next()?.parse().ok()))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Also when a test fails: a stopped writer would stay for good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
