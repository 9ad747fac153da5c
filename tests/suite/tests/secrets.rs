//! G3: a password of an OS account passes through no D-Bus message, argv, environment, log, or memory of `deputyd`.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::Write as _;
use std::process::{Command, Stdio};

use deputy_suite::memory::{contains, memory_contains, search_memory};
use deputy_suite::{as_user, deputyctl, need_the_sandbox};

/// A password that stands nowhere else, made so that this program's own text does not hold it whole.
fn password() -> String {
    let mut bytes = [0u8; 12];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).unwrap();
    bytes.iter().fold(String::from("Pw-"), |text, byte| text + &format!("{byte:02x}"))
}

fn set_password(user: &str, password: &str) {
    let mut child = Command::new("chpasswd").stdin(Stdio::piped()).spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{user}:{password}").unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_password_is_nowhere_but_in_the_conversation() {
    need_the_sandbox();
    let secret = password();
    set_password("carol", &secret);
    let traffic = tempfile("traffic");
    let mut monitor = Command::new("dbus-monitor")
        .args(["--system", "--monitor"])
        .stdout(File::create(&traffic).unwrap())
        .spawn()
        .expect("dbus-monitor");
    while !fs::read(&traffic).unwrap().windows(9).any(|bytes| bytes == b"NameAcqui")
        && monitor.try_wait().unwrap().is_none()
    {
        std::thread::yield_now();
    }
    let created = deputyctl("portal", &["account", "add", "demo", "trusting"]);
    assert_eq!(created.status, 0, "{}", created.stderr);

    // Once as the client sends it, with the processes looked at while PAM works, and once wrong.
    for (answer, wanted) in [(format!("{secret}-wrong"), 125), (secret.clone(), 0)] {
        let mut client = Command::new("runuser")
            .args([
                "-u",
                "portal",
                "--",
                "deputyctl",
                "link",
                "add",
                "demo",
                "trusting",
                "carol",
                "--answers-fd",
                "0",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        writeln!(client.stdin.take().unwrap(), "{answer}").unwrap();
        let status = loop {
            for process in fs::read_dir("/proc").unwrap().flatten() {
                for file in ["cmdline", "environ"] {
                    let bytes = fs::read(process.path().join(file)).unwrap_or_default();
                    assert!(!contains(&bytes, &secret), "{} of {:?}", file, process.path());
                }
            }
            if let Some(status) = client.try_wait().unwrap() {
                break status.code();
            }
        };
        assert_eq!(status, Some(wanted));
    }

    for name in ["deputyd", "launcher"] {
        let pid = fs::read_to_string(format!("/run/deputy-sandbox/{name}.pid"))
            .or_else(|_| fs::read_to_string(format!("/run/deputy-sandbox/deputy-{name}.pid")))
            .unwrap_or_else(|_| panic!("the pid of {name}"));
        assert!(!memory_contains(pid.trim(), &secret), "the memory of {name} holds the password");
    }
    for log in fs::read_dir("/var/log/deputy-sandbox").unwrap().flatten() {
        assert!(!contains(&fs::read(log.path()).unwrap(), &secret), "{:?}", log.path());
    }
    for file in files_below("/var/lib/deputy") {
        assert!(!contains(&fs::read(&file).unwrap_or_default(), &secret), "{file}");
    }

    // The monitor saw the calls, and not the password.
    let _ = as_user("portal", &["deputyctl", "status"]);
    monitor.kill().unwrap();
    monitor.wait().unwrap();
    let seen = fs::read(&traffic).unwrap();
    assert!(contains(&seen, "trusting"), "the monitor saw the calls");
    assert!(!contains(&seen, &secret), "the password was on the bus");
}

fn tempfile(name: &str) -> String {
    format!("/tmp/deputy-suite-{name}-{}", std::process::id())
}

fn files_below(folder: &str) -> Vec<String> {
    let output = as_user("root", &["find", folder, "-type", "f"]);
    output.stdout.lines().map(str::to_owned).collect()
}

#[test]
fn the_search_would_find_a_password_that_is_there() {
    need_the_sandbox();
    let secret = password();
    let mut child =
        Command::new("sh").args(["-c", "read line; read never"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    writeln!(input, "{secret}").unwrap();
    let pid = child.id().to_string();
    // The shell has read the line when it waits for the second.
    while !search_memory(&pid, &secret).is_ok_and(|(_, found)| found) {
        assert!(child.try_wait().unwrap().is_none(), "the shell has ended");
    }
    drop(input);
    child.wait().unwrap();
}
