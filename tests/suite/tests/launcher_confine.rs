//! `confine = true`: whatever a program tries, it reaches only what policy names. The same program, trying the same
//! ways, gets to the same folder without confinement, and in its own folder with it.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use deputy_core::job::{JobEnd, Step};
use deputy_core::message::{JobState, LauncherReply};
use deputy_suite::acting::{acting_as, identity, ids};
use deputy_suite::machine::install_application;
use deputy_suite::requests::{app, grant_in, run_as};
use deputy_suite::{Fake, job_id, need_the_sandbox};

const PROGRAM: &str = include_str!("../clients/escape.py");

const POLICY: &str = r#"
service_user = "portal"
trust = "application"
[link]
shared = true
[[roots]]
path = "/data/{os_group}/shared"
access = "read-write"
[[roots]]
path = "/data/looked-at"
access = "read-only"
[[roots]]
path = "/data/looked-at/{os_user}"
access = "read-write"
[kinds.confined]
commands = ["*"]
confine = true
[kinds.at-home]
commands = ["*"]
confine = true
home = "read-write"
[kinds.reading-home]
commands = ["*"]
confine = true
home = "read-only"
[kinds.free]
commands = ["*"]
"#;

/// The tests share folders.
fn alone() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    let guard = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    need_the_sandbox();
    install_application("walls", POLICY);
    for folder in ["/data/lab1/shared", "/data/looked-at/alice", "/srv/elsewhere"] {
        fs::create_dir_all(folder).unwrap();
        let owner = ids("alice");
        chown(folder, Some(owner.uid), Some(owner.gid)).unwrap();
    }
    for folder in ["/data/lab1", "/data/looked-at"] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
    guard
}

/// Runs a command as alice, confined or not: its end and what it wrote.
fn run(kind: &str, argv: &[&str]) -> (JobEnd, String) {
    grant_in("walls", "walled", "alice");
    let mut request = run_as(identity("alice"), "walled", argv);
    request.job = job_id();
    request.application = app("walls");
    request.kind = Some(kind.parse().unwrap());
    let answers = Fake::daemon().run(&request);
    match answers.replies.last() {
        Some(LauncherReply::Job(JobState::Ended(record))) => (record.end.clone(), answers.output),
        _ => panic!("{answers:?}"),
    }
}

fn shell(kind: &str, script: &str) -> (JobEnd, String) {
    run(kind, &["sh", "-c", &format!("exec 2>&1; {script}")])
}

/// A folder of alice's with something of each sort in it, a process of hers that works there, and its sockets.
struct Elsewhere {
    folder: PathBuf,
    process: Child,
    abstract_name: String,
    _sockets: [UnixListener; 2],
}

impl Elsewhere {
    fn make(folder: &str) -> Self {
        let folder = PathBuf::from(folder);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let owner = ids("alice");
        fs::write(folder.join("file"), "what nobody else is to see\n").unwrap();
        fs::write(folder.join("to-remove"), "").unwrap();
        fs::write(folder.join("program"), "#!/bin/sh\nexit 0\n").unwrap();
        fs::set_permissions(folder.join("program"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(folder.join("folder")).unwrap();
        symlink("file", folder.join("link")).unwrap();
        let abstract_name = format!("deputy-test-{}", job_id());
        let address = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        let sockets =
            [UnixListener::bind(folder.join("socket")).unwrap(), UnixListener::bind_addr(&address).unwrap()];
        for entry in fs::read_dir(&folder).unwrap() {
            std::os::unix::fs::lchown(entry.unwrap().path(), Some(owner.uid), Some(owner.gid)).unwrap();
        }
        chown(&folder, Some(owner.uid), Some(owner.gid)).unwrap();
        let process = acting_as(owner, || {
            Command::new("sleep")
                .arg("1000")
                .current_dir(&folder)
                .stdin(fs::File::open(folder.join("file")).unwrap())
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        });
        Self { folder, process, abstract_name, _sockets: sockets }
    }

    /// Tries every way: what came of each.
    fn tried(&self, kind: &str, own: &str) -> BTreeMap<String, String> {
        let pid = self.process.id().to_string();
        let folder = self.folder.to_str().unwrap();
        let (end, output) = run(kind, &["python3", "-c", PROGRAM, folder, own, &pid, &self.abstract_name]);
        assert_eq!(end, JobEnd::Exited { code: 0 }, "{output}");
        output
            .lines()
            .map(|line| line.split_once(' ').unwrap_or_else(|| panic!("{line:?}")))
            .map(|(way, came)| (way.to_owned(), came.to_owned()))
            .collect()
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn those_that_worked(tried: &BTreeMap<String, String>) -> Vec<&str> {
    tried.iter().filter(|(_, came)| *came == "ok").map(|(way, _)| way.as_str()).collect()
}

/// What docs/applications.md says remains possible before Linux 6.12, whose Landlock knows scopes.
fn what_an_older_kernel_cannot_forbid() -> &'static [&'static str] {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|word| word.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap(), numbers.next().unwrap());
    if version < (6, 12) { &["connect-abstract", "process-signal"] } else { &[] }
}

fn those_that_failed(tried: &BTreeMap<String, String>) -> Vec<String> {
    tried.iter().filter(|(_, came)| *came != "ok").map(|(way, came)| format!("{way}: {came}")).collect()
}

#[test]
fn a_confined_job_reaches_nothing_outside_by_any_way() {
    let _alone = alone();
    let elsewhere = Elsewhere::make("/srv/elsewhere/hers");
    let tried = elsewhere.tried("confined", "/data/lab1/shared");
    assert!(tried.len() >= 50, "{tried:?}");
    assert_eq!(those_that_worked(&tried), what_an_older_kernel_cannot_forbid());
    // Nothing was changed either.
    assert_eq!(fs::read_to_string(elsewhere.folder.join("file")).unwrap(), "what nobody else is to see\n");
    assert!(elsewhere.folder.join("to-remove").exists());
}

#[test]
fn the_same_program_gets_everywhere_without_confinement() {
    let _alone = alone();
    let elsewhere = Elsewhere::make("/srv/elsewhere/open");
    let failed = those_that_failed(&elsewhere.tried("free", "/data/lab1/shared"));
    // A login of hers could not do these here either: the kernel or the file system decides.
    let elsewhere_refused = [
        "mount: ",
        "link-in: EXDEV",
        "link-out: EXDEV",
        "rename-into: EXDEV",
        "exchange: EXDEV",
        "set-attribute: ",
        // Before Linux 6.6.
        "chmod-newer: ENOSYS",
    ];
    let unexpected: Vec<_> =
        failed.iter().filter(|came| !elsewhere_refused.iter().any(|known| came.starts_with(known))).collect();
    assert!(unexpected.is_empty(), "{unexpected:?}");
}

#[test]
fn inside_its_roots_a_confined_job_does_whatever_its_user_may() {
    let _alone = alone();
    let inside = Elsewhere::make("/data/lab1/shared/hers");
    let failed = those_that_failed(&inside.tried("confined", "/data/lab1/shared"));
    // Processes, sockets of services and abstract ones are outside wherever they work; a mount is nobody's.
    let outside = [
        "by-process-",
        "process-",
        "connect-abstract",
        "connect-bus",
        "connect-owner",
        "mount: ",
        "set-attr",
        "chmod-newer: ENOSYS",
    ];
    let unexpected: Vec<_> =
        failed.iter().filter(|came| !outside.iter().any(|known| came.starts_with(known))).collect();
    assert!(unexpected.is_empty(), "{unexpected:?}");
}

#[test]
fn a_root_to_look_at_cannot_be_changed_but_where_another_root_lies_in_it() {
    let _alone = alone();
    fs::write("/data/looked-at/readme", "read me").unwrap();
    let (_, said) =
        shell("confined", "cat /data/looked-at/readme; echo; touch /data/looked-at/alice/x && echo made");
    assert_eq!(said, "read me\nmade\n");
    fs::set_permissions("/data/looked-at", fs::Permissions::from_mode(0o777)).unwrap();
    let (_, said) = shell("confined", "touch /data/looked-at/x");
    assert!(said.contains("Read-only file system"), "{said}");
    assert!(!Path::new("/data/looked-at/x").exists());
}

#[test]
fn the_system_is_there_to_read_and_not_to_write() {
    let _alone = alone();
    let (end, said) =
        shell("confined", "id -un && ls / | tr '\\n' ' ' && test -r /etc/passwd && echo readable");
    assert_eq!(end, JobEnd::Exited { code: 0 }, "{said}");
    assert!(said.starts_with("alice\n") && said.ends_with("readable\n"), "{said}");
    for name in ["srv", "root", "boot", "mnt", "media"] {
        assert!(!said.split_whitespace().any(|word| word == name), "{name} in {said}");
    }
    let (_, said) = shell("confined", "ls -A /run /var /home; find /run -type s");
    assert!(!said.contains("dbus") && !said.contains("deputy") && !said.contains("bob"), "{said}");
    let (_, mounts) = shell("confined", "cat /proc/self/mountinfo");
    for line in mounts.lines() {
        let (before, _) = line.split_once(" - ").unwrap_or_else(|| panic!("{line}"));
        let fields: Vec<_> = before.split(' ').collect();
        let of_the_system = ["/usr", "/etc", "/sys", "/"].contains(&fields[4]);
        assert!(fields[5].contains("nosuid"), "{line}");
        assert!(!of_the_system || fields[5].starts_with("ro"), "{line}");
    }
}

#[test]
fn the_home_is_empty_or_to_read_or_to_write_as_policy_says() {
    let _alone = alone();
    let secret = Path::new("/home/alice/secret");
    fs::write(secret, "kept at home").unwrap();
    chown(secret, Some(ids("alice").uid), None).unwrap();
    let script = "pwd; ls -A; touch ~/made && echo made";
    let (_, confined) = shell("confined", script);
    assert_eq!(confined, "/home/alice\nmade\n");
    assert!(!Path::new("/home/alice/made").exists());
    let (_, reading) = shell("reading-home", "cat ~/secret; touch ~/made");
    assert!(reading.starts_with("kept at home") && reading.contains("Read-only"), "{reading}");
    let (_, writing) = shell("at-home", script);
    assert!(writing.contains("secret") && writing.ends_with("made\n"), "{writing}");
    fs::remove_file("/home/alice/made").unwrap();
}

#[test]
fn a_root_that_a_link_of_somebody_elses_leads_away_is_left_out() {
    let _alone = alone();
    // The group's head can write in /data/lab1 and replaces the root by a link to where policy never led.
    fs::create_dir_all("/srv/elsewhere/target").unwrap();
    fs::write("/srv/elsewhere/target/file", "elsewhere").unwrap();
    let moved = Path::new("/data/lab1/moved-away");
    fs::rename("/data/lab1/shared", moved).unwrap();
    symlink("/srv/elsewhere/target", "/data/lab1/shared").unwrap();
    std::os::unix::fs::lchown("/data/lab1/shared", Some(ids("alice").uid), None).unwrap();
    let (_, said) = shell("confined", "cat /data/lab1/shared/file /srv/elsewhere/target/file");
    fs::remove_file("/data/lab1/shared").unwrap();
    fs::rename(moved, "/data/lab1/shared").unwrap();
    assert_eq!(said.matches("No such file or directory").count(), 2, "{said}");
}

#[test]
fn a_working_directory_outside_is_not_there() {
    let _alone = alone();
    grant_in("walls", "walled", "alice");
    let mut request = run_as(identity("alice"), "walled", &["true"]);
    request.application = app("walls");
    request.kind = Some("confined".parse().unwrap());
    request.directory = Some(b"/srv/elsewhere".to_vec());
    let answers = Fake::daemon().run(&request);
    let Some(LauncherReply::Job(JobState::Ended(record))) = answers.replies.last() else {
        panic!("{answers:?}")
    };
    assert_eq!(record.end, JobEnd::LaunchFailed { step: Step::Chdir, errno: 2 });
}

#[test]
fn nothing_of_a_confined_job_is_left_in_the_machines_mounts() {
    let _alone = alone();
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts();
    shell("confined", "true");
    assert_eq!(mounts(), before);
    assert!(Path::new("/run/deputy/launcher.sock").exists());
}
