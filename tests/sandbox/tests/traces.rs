//! Nothing is left behind, whether the sandbox ended by itself or was killed.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::process::{Child, Stdio};

use common::{cgroups_of, eventually, processes_with, sandbox};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What a sandbox could leave: bytes of account files, mounts, names in directories.
fn snapshot() -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for file in ["passwd", "group", "shadow", "gshadow", "subuid", "nsswitch.conf"] {
        let path = format!("/etc/{file}");
        all.insert(path.clone(), fs::read_to_string(path).unwrap_or_default());
    }
    all.insert("mounts".into(), fs::read_to_string("/proc/self/mountinfo").unwrap());
    for directory in
        ["/", "/etc/pam.d", "/home", "/srv", "/data", "/run", "/var/lib", "/var/log", "/usr/local/bin"]
    {
        all.insert(directory.into(), names(directory, ""));
    }
    // Other programs come and go in these.
    for directory in ["/tmp", "/var/tmp", "/dev/shm"] {
        all.insert(directory.into(), names(directory, "inside-"));
    }
    all
}

fn names(directory: &str, part: &str) -> String {
    let mut names: Vec<String> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.to_owned()))
        .filter(|name| name.contains(part))
        .collect();
    names.sort();
    names.join("\n")
}

/// Does in all private places what a test may do, then says so and waits.
const SCRIPT: &str = "
    useradd -m carol; groupadd crew; echo 'carol:new word' | chpasswd; touch /etc/inside-x
    for d in /tmp /var/tmp /dev/shm /run /srv /data /home /var/lib /var/lib/deputy /var/log /var/mail; do
        touch $d/inside-$$; done
    mount -t tmpfs none /srv
    d=$(sed -n 's/cgroup = \"\\(.*\\)\"/\\1/p' /etc/deputy/deputy.toml)
    if [ -n \"$d\" ]; then mkdir -p $d/job/deeper; sleep $MARK & echo $! > $d/job/deeper/cgroup.procs; fi
    setsid sleep $MARK & setsid runuser -u carol -- sleep $MARK &
    sleep 0.05; echo up; ";

fn start(mark: &str, end: &str) -> Child {
    let mut child = sandbox(&["--user", "alice:word:lab1"], &format!("{SCRIPT}{end}"))
        .env("MARK", mark)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = [0; 3];
    child.stdout.as_mut().unwrap().read_exact(&mut line).expect("the script gets to its end");
    child
}

fn check(kind: &str, number: u32, end: &str, finish: impl FnOnce(&mut Child)) {
    let mark = format!("97{}.{number}", std::process::id());
    let before = snapshot();
    let mut child = start(&mark, end);
    assert!(!processes_with(&mark).is_empty(), "{kind}: they run");
    let outer = child.id();
    finish(&mut child);
    child.wait().unwrap();
    let normal = kind == "normal";
    if normal {
        // All is gone when the program has returned, not some time later.
        assert_eq!(processes_with(&mark), Vec::<String>::new());
        assert_eq!(cgroups_of(outer), Vec::<std::path::PathBuf>::new());
    }
    eventually(&format!("{kind}: no process is left"), || processes_with(&mark).is_empty());
    eventually(&format!("{kind}: no cgroup is left"), || cgroups_of(outer).is_empty());
    let name = format!("deputy-sandbox-{outer}-");
    eventually(&format!("{kind}: the cleaner has ended"), || processes_with(&name).is_empty());
    for (what, now) in snapshot() {
        assert_eq!(before[&what], now, "{kind}: {what}");
    }
}

/// Gone, or waiting for the machine's process 1 to notice.
fn ended(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with('Z'))
}

// One test, because the parts compare the whole machine before and after.
#[test]
fn nothing_is_left_behind() {
    check("normal", 1, "read -r || exit 0", |child| drop(child.stdin.take()));
    check("killed", 2, "sleep 1000", |child| child.kill().unwrap());
    check("terminated", 3, "exec sleep 1000", |child| {
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    });
    // At any moment of the start, too.
    for delay in [1, 3, 10, 20, 30, 40, 50, 60, 80, 100, 120] {
        let before = snapshot();
        let mark = format!("96{}.{delay}", std::process::id());
        let mut child = sandbox(&[], &format!("sleep {mark}")).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(delay));
        let outer = child.id();
        let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).unwrap_or_default();
        child.kill().unwrap();
        child.wait().unwrap();
        eventually("no process is left", || processes_with(&mark).is_empty());
        eventually("no cgroup is left", || cgroups_of(outer).is_empty());
        for pid in children.split_whitespace() {
            eventually("its children have ended", || ended(pid));
        }
        for (what, now) in snapshot() {
            assert_eq!(before[&what], now, "killed after {delay} ms: {what}");
        }
    }
}
