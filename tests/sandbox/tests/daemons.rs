//! How the sandbox runs the two daemons, shown with stand-ins that only say that they are there.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use common::{PROGRAM, text};

const LAUNCHER: &str = "#!/usr/bin/python3
import os, socket, time
for name in ('launcher', 'owner'):
    path = '/run/deputy/' + name + '.sock'
    if os.path.exists(path): os.unlink(path)
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.bind(path); s.listen(); globals()[name] = s
time.sleep(1000)
";

const DAEMON: &str = "#!/usr/bin/python3
import os, socket, time
assert os.path.exists('/run/deputy/launcher.sock'), 'started before the launcher listens'
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.sendto(b'STATUS=all well\\nREADY=1\\n', os.environ['NOTIFY_SOCKET'])
print('said it', flush=True)
time.sleep(1000)
";

/// A directory with stand-ins, gone when dropped.
struct Programs(PathBuf);

impl Programs {
    fn new(launcher: &str, daemon: &str) -> Self {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("programs-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        // As in a clone below somebody's closed home.
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).unwrap();
        let programs = Self(path);
        programs.add("deputy-launcher", launcher);
        programs.add("deputyd", daemon);
        programs.add("deputyctl", "#!/bin/sh\necho control $(id -un)\n");
        programs.add("deputy-probe", "#!/bin/sh\necho probe\n");
        programs
    }

    fn add(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).unwrap();
        std::fs::set_permissions(self.0.join(name), PermissionsExt::from_mode(0o755)).unwrap();
    }

    fn run(&self, script: &str) -> (Option<i32>, String, String) {
        let mut command = Command::new(PROGRAM);
        command.args(["--user", "alice:x", "--bin-dir"]).arg(&self.0).args([
            "--",
            "/bin/bash",
            "-euc",
            script,
        ]);
        let output = command.output().unwrap();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_daemons_run_as_their_units_run_them() {
    let programs = Programs::new(LAUNCHER, DAEMON);
    let (status, out, err) = programs.run(
        "for s in deputyd deputy-launcher; do p=$(cat /run/deputy-sandbox/$s.pid)
             stat -c %U:%G /proc/$p
             grep -E '^(Groups|CapEff|CapInh|CapBnd|CapAmb|NoNewPrivs|SigBlk)' /proc/$p/status | tr -d '\\t' | tr '\\n' ' '
             tr '\\0' '\\n' < /proc/$p/environ | grep -v ^RUST_ | cut -d= -f1 | sort | tr '\\n' ' '; echo
         done
         cat /var/log/deputy-sandbox/deputyd.log; runuser -u alice -- deputyctl; runuser -u alice -- deputy-probe",
    );
    assert_eq!(status, Some(0), "{err}");
    let full = std::fs::read_to_string("/proc/self/status").unwrap();
    let full = full.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap().to_owned();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "deputy:deputy");
    let none = "0000000000000000";
    let closed = format!("CapInh:{none} CapEff:{none} CapBnd:{none} CapAmb:{none} NoNewPrivs:1");
    assert!(lines[1].contains(&closed) && lines[1].contains(&format!("SigBlk:{none}")), "{out}");
    assert!(lines[1].ends_with("HOME LANG LOGNAME NOTIFY_SOCKET PATH SHELL USER "), "{out}");
    assert_eq!(lines[2], "root:root");
    assert!(lines[3].contains(&format!("CapEff:{full} CapBnd:{full} CapAmb:{none} NoNewPrivs:0")), "{out}");
    assert!(lines[3].ends_with(" LANG PATH "), "{out}");
    assert_eq!(lines[4..], ["said it", "control alice", "probe"]);
}

#[test]
fn killed_daemons_come_back() {
    let programs = Programs::new(LAUNCHER, DAEMON);
    let (status, out, err) = programs.run(
        "for s in deputyd deputy-launcher; do f=/run/deputy-sandbox/$s.pid
             for round in 1 2 3; do
                 old=$(cat $f); kill -9 $old
                 for i in $(seq 6000); do new=$(cat $f); [ $new != $old ] && break; sleep 0.01; done
                 [ $new != $old ] && echo $s is back
             done
         done",
    );
    assert_eq!(status, Some(0), "{err}");
    assert_eq!(out, format!("{}{}", "deputyd is back\n".repeat(3), "deputy-launcher is back\n".repeat(3)));
}

#[test]
fn a_daemon_that_never_says_that_it_is_ready_is_waited_for_ten_seconds() {
    let programs = Programs::new(LAUNCHER, "#!/bin/sh\necho still thinking\nexec sleep 1000\n");
    let (status, _, err) = programs.run("true");
    assert_eq!(status, Some(125));
    assert!(err.contains("deputyd is not ready (it sends READY=1): not so within 10 s"), "{err}");
    assert!(err.contains("still thinking"), "{err}");
}
