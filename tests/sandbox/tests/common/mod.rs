//! What the tests of the sandbox share. They run on the host, as root.
#![allow(dead_code)] // each test program uses a part

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_deputy-sandbox");

/// A sandbox without daemons, with these options, that runs a shell script.
pub fn sandbox(options: &[&str], script: &str) -> Command {
    assert!(nix::unistd::geteuid().is_root(), "these tests need root: run them with sudo or in a container");
    let mut command = Command::new(PROGRAM);
    command.arg("--no-daemons").args(options).args(["--", "/bin/bash", "-euc", script]).stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub fn run(options: &[&str], script: &str) -> Output {
    sandbox(options, script).output().expect("the sandbox starts")
}

/// Runs it to a good end and returns what it printed.
pub fn good(options: &[&str], script: &str) -> String {
    let output = run(options, script);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{}\n--- stdout\n{out}\n--- stderr\n{err}", output.status);
    out
}

/// Bytes as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Waits until something is so.
pub fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !so() {
        assert!(Instant::now() < deadline, "not within 10 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Processes whose command line has these words.
pub fn processes_with(words: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(bytes) = std::fs::read(entry.path().join("cmdline")) else { continue };
        let line = text(&bytes).replace('\0', " ");
        let own = entry.file_name().to_str() == Some(&std::process::id().to_string());
        if line.contains(words) && !own {
            found.push(format!("{}: {line}", entry.file_name().display()));
        }
    }
    found
}

/// The host's cgroups of one sandbox.
pub fn cgroups_of(outer: u32) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let start = format!("deputy-sandbox-{outer}-");
    let mut found = Vec::new();
    for line in table.lines().filter(|line| line.contains(" - cgroup2 ")) {
        let mount = line.split(' ').nth(4).unwrap();
        for entry in std::fs::read_dir(mount).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(&start)) {
                found.push(entry.path());
            }
        }
    }
    found
}
