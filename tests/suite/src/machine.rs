//! The sandbox's machine: its launcher, its people, its files.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use deputy_core::names::{AccountName, ApplicationName};
use deputy_core::{consent::Consent, ids::OsUid};

/// Where the consent records are.
pub const CONSENT: &str = "/var/lib/deputy/consent";

/// Where the launcher's output goes.
pub const LAUNCHER_LOG: &str = "/var/log/deputy-sandbox/deputy-launcher.log";

/// While this file is there, the sandbox does not start `deputyd` again.
const HOLD: &str = "/run/deputy-sandbox/deputyd.hold";

/// The launcher's process.
pub fn launcher_pid() -> i32 {
    service_pid("deputy-launcher")
}

/// The process of a service of the sandbox.
pub fn service_pid(name: &str) -> i32 {
    let text = fs::read_to_string(format!("/run/deputy-sandbox/{name}.pid")).expect("the service's pid file");
    text.trim().parse().expect("a pid")
}

/// The processes that have this one for their parent.
pub fn children_of(pid: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_ascii_whitespace().filter_map(|child| child.parse().ok()).collect()
}

/// The parent of a process; of a job's first one, its shepherd.
pub fn shepherd_of(pid: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process that runs");
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("its parent");
    line.trim().parse().expect("a pid")
}

/// What a process was started with, with spaces between.
pub fn command_line(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).split('\0').collect::<Vec<_>>().join(" ").trim().to_owned()
}

/// All processes.
pub fn processes() -> Vec<i32> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The processes that were started with exactly these words.
pub fn running(words: &str) -> Vec<i32> {
    processes().into_iter().filter(|&pid| command_line(pid) == words).collect()
}

/// Waits for something that has to come; the time is only an end to waiting for what does not.
pub fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    wait_until_or(what, String::new, condition);
}

/// The same; where it does not come, this tells what there is instead.
pub fn wait_until_or(what: &str, instead: impl Fn() -> String, mut condition: impl FnMut() -> bool) {
    // An emulated machine is slower than all others.
    let patience =
        std::env::var("DEPUTY_SUITE_PATIENCE").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let end = Instant::now() + Duration::from_secs(patience);
    while !condition() {
        assert!(Instant::now() < end, "waited in vain until {what} {}", instead());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until the launcher has no child left, whatever earlier requests were.
pub fn wait_for_no_children() {
    wait_until("the launcher has no child", || children_of(launcher_pid()).is_empty());
}

/// Sends a signal by `kill`, which has to work.
pub fn signal(pid: i32, signal: &str) {
    run("kill", &[&format!("-{signal}"), &pid.to_string()]);
}

/// While it is there, `deputyd` is not started.
#[derive(Debug)]
#[must_use]
pub struct Away(());

/// Ends `deputyd` and keeps it from being started again.
pub fn deputyd_stays_away() -> Away {
    fs::write(HOLD, "").expect("the hold");
    let pid = service_pid("deputyd");
    signal(pid, "KILL");
    wait_until("deputyd is gone", || !PathBuf::from(format!("/proc/{pid}")).exists());
    Away(())
}

impl Away {
    /// Lets it come back, and waits until it answers.
    pub fn back(self) {
        fs::remove_file(HOLD).expect("the hold");
        wait_until("deputyd is there again", || crate::deputyctl("root", &["status"]).status == 0);
    }
}

/// Runs a program as root; it has to succeed.
pub fn run(program: &str, arguments: &[&str]) {
    run_with(program, arguments, "");
}

/// Runs a program as root with this text for its input; it has to succeed.
pub fn run_with(program: &str, arguments: &[&str], input: &str) {
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}; tests/packages.sh installs what tests need"));
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("the input is taken");
    let output = child.wait_with_output().expect("its output");
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Held by whoever changes passwd, group or shadow: their tools take a lock and give up soon.
static ACCOUNT_FILES: Mutex<()> = Mutex::new(());

/// Waits for the right to change the account files.
pub fn account_files() -> MutexGuard<'static, ()> {
    ACCOUNT_FILES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Adds a person with a password, for a test that changes or denies one.
pub fn add_person(name: &str, password: &str, groups: &[&str]) {
    let guard = account_files();
    run(
        "useradd",
        &["--create-home", "--user-group", "--groups", &groups.join(","), "--shell", "/bin/bash", name],
    );
    run_with("chpasswd", &[], &format!("{name}:{password}\n"));
    drop(guard);
}

/// Changes a person with `usermod`, `chage`, `passwd` or their like.
pub fn change_person(program: &str, arguments: &[&str]) {
    let guard = account_files();
    run(program, arguments);
    drop(guard);
}

/// Adds the service user of an application that a test installs.
pub fn add_service_user(name: &str) {
    let guard = account_files();
    run("useradd", &["--system", "--user-group", "--shell", "/usr/sbin/nologin", name]);
    drop(guard);
}

/// Writes an application's file as root's, in one step.
pub fn install_application(name: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(format!("/etc/deputy/applications.d/{name}.toml"));
    let beside = path.with_extension("new");
    fs::write(&beside, text).expect("the application's file");
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o644)).expect("its mode");
    fs::rename(&beside, &path).expect("its place");
    path
}

/// Where the consent of a key is.
pub fn consent_path(application: &ApplicationName, account: &AccountName, uid: u32) -> PathBuf {
    let uid = OsUid::new(uid).expect("a uid that is no reserved one");
    PathBuf::from(CONSENT).join(Consent::file_name(application, account, uid))
}

/// The folder below which each job has its cgroup, as `deputy.toml` says.
pub fn jobs_cgroup() -> PathBuf {
    let text = fs::read_to_string("/etc/deputy/deputy.toml").expect("deputy.toml");
    let folder = text.lines().find_map(|line| line.strip_prefix("cgroup = \"")?.strip_suffix('"'));
    folder.expect("a machine that has cgroup v2").into()
}

/// What the launcher and its children have said so far.
pub fn launcher_log() -> String {
    String::from_utf8_lossy(&fs::read(LAUNCHER_LOG).expect("the launcher's log")).into_owned()
}

/// The names in a folder, in order.
pub fn names_in(folder: impl AsRef<Path>) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder").flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
