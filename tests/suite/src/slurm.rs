//! Deputy at the sandbox's real Slurm: its settings, an application whose jobs run there, and what Slurm itself says.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use crate::machine::{
    add_service_user, command_line, install_application, launcher_log, processes, shepherd_of, wait_until,
    wait_until_or,
};
use crate::people::{as_user, command_as, ok};
use crate::{Output, deputyctl, need_the_sandbox};

const SETTINGS: &str = "/etc/deputy/deputy.toml";

/// Who speaks for the application `hpc`.
pub const PORTAL: &str = "hpcportal";

const APPLICATION: &str = r#"
service_user = "hpcportal"
trust = "application"
environment = ["APP_*"]
link = { shared = true }
[[roots]]
path = "/srv/slurm"
access = "read-write"
[kinds.batch]
commands = ["*"]
[kinds.cluster]
commands = ["*"]
executor = "slurm"
time_limit_seconds = 1200
limits = { memory = "1G", cpus = 4 }
[kinds.cluster.slurm]
partitions = ["batch", "short", "nowhere"]
accounts = "associations"
qos = ["normal", "high"]
nodes = 1
tasks = 4
gpus = 2
constraints = ["a100", "fast"]
array = 8
[kinds.strict]
commands = ["/usr/bin/true"]
executor = "slurm"
[kinds.strict.slurm]
partitions = ["batch"]
accounts = "associations"
[kinds.storm]
commands = ["*"]
executor = "slurm"
limits = { memory = "16M", cpus = 1 }
[kinds.storm.slurm]
partitions = ["batch"]
accounts = "associations"
array = 100
[kinds.listed]
commands = ["*"]
executor = "slurm"
[kinds.listed.slurm]
partitions = ["short"]
accounts = ["lab1"]
[kinds.bounded]
commands = ["*"]
executor = "slurm"
time_limit_seconds = 120
limits = { memory = "64M", cpus = 1 }
[kinds.bounded.slurm]
partitions = ["batch"]
accounts = ["lab1"]
qos = ["normal"]
interactive = true
[kinds.talk]
commands = ["*"]
executor = "slurm"
[kinds.talk.slurm]
partitions = ["batch", "short", "nowhere"]
accounts = "associations"
tasks = 2
gpus = 1
interactive = true
[kinds.again]
commands = ["*"]
executor = "slurm"
[kinds.again.slurm]
partitions = ["batch"]
accounts = "associations"
interactive = true
requeue = true
[kinds.both]
commands = ["*"]
[kinds.both.slurm]
partitions = ["batch"]
accounts = "associations"
"#;

/// Sets what `deputy.toml` says about Slurm.
pub fn settings(table: &str) {
    let text = fs::read_to_string(SETTINGS).expect("deputy.toml");
    let others = text.split("\n[executor.slurm]").next().expect("a first part");
    let beside = format!("{SETTINGS}.new");
    fs::write(&beside, format!("{others}\n[executor.slurm]\n{table}\n")).expect("deputy.toml");
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o644)).expect("its mode");
    fs::rename(&beside, SETTINGS).expect("its place");
}

/// The settings of most tests: an operator asks, every second.
pub fn usual_settings() {
    settings("operator = \"slurm\"\nperiod_seconds = 1");
}

/// The application, its accounts alice and bob with their links, and a folder for everybody.
pub fn machine() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        need_the_sandbox();
        usual_settings();
        add_service_user(PORTAL);
        install_application("hpc", APPLICATION);
        fs::create_dir_all("/srv/slurm").expect("a folder");
        fs::set_permissions("/srv/slurm", fs::Permissions::from_mode(0o1777)).expect("its mode");
        for name in ["alice", "bob"] {
            link("hpc", PORTAL, name, name);
        }
    });
}

/// The machine for one test at a time: some change the settings. What a failed test has left would keep the others waiting.
pub fn exclusively() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::new(());
    let guard = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    machine();
    for user in ["alice", "bob", "carol"] {
        as_user("root", &["scancel", "--user", user]);
    }
    guard
}

/// Adds an account of an application and links it, on root's word.
pub fn link(application: &str, portal: &str, account: &str, os_user: &str) {
    ok(&deputyctl(portal, &["account", "add", application, account]));
    ok(&deputyctl("root", &["consent", "grant", application, account, os_user]));
    ok(&deputyctl(portal, &["link", "request", application, account, os_user]));
}

/// Runs a command at Slurm for an account and waits for its end; `options` are more of `deputyctl run`'s.
pub fn run(account: &str, options: &[&str], command: &[&str]) -> Output {
    let begin = ["run", "--app", "hpc", "--account", account, "--kind", "cluster", "--executor", "slurm"];
    deputyctl(PORTAL, &[&begin[..], options, &["--"], command].concat())
}

/// The same without waiting: the job's id.
pub fn submit(account: &str, options: &[&str], command: &[&str]) -> String {
    ok(&run(account, &[&["--detach"], options].concat(), command))
}

/// An interactive command for alice, with the caller's streams.
pub fn talk(options: &[&str], command: &[&str]) -> Command {
    let begin = ["deputyctl", "run", "--app", "hpc", "--account", "alice", "--kind", "talk", "--interactive"];
    command_as(PORTAL, &[&begin[..], options, &["--"], command].concat())
}

/// An interactive job that sleeps, when Slurm runs it: `deputyctl`, and the job's id.
pub fn sleeper() -> (Child, String) {
    let child = talk(&[], &["sleep", "600"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("deputyctl");
    wait_until("Slurm runs it", || open_at_slurm().ends_with(" R"));
    let queue = open_at_slurm();
    let name = queue.split(' ').nth(1).and_then(|name| name.strip_prefix("deputy-")).expect("its name");
    (child, name.to_owned())
}

/// The process of `srun` of the only interactive job.
pub fn srun() -> i32 {
    let mut found = Vec::new();
    wait_until("srun runs", || {
        found = processes()
            .into_iter()
            .filter(|pid| command_line(*pid).starts_with("srun --export=ALL"))
            .collect();
        !found.is_empty()
    });
    // A second process of it watches over the first one.
    let parents = |pid: i32| shepherd_of(pid);
    found.iter().copied().find(|pid| !found.contains(&parents(*pid))).expect("the first")
}

/// What Slurm's queue has of all jobs of Deputy's that wait or run.
pub fn open_at_slurm() -> String {
    let queue = ok(&as_user("root", &["squeue", "--noheader", "--format=%i %j %t"]));
    queue.lines().filter(|line| line.contains("deputy-")).collect::<Vec<_>>().join("\n")
}

/// The record of a job, as a portal sees it.
pub fn shown_to(portal: &str, job: &str) -> serde_json::Value {
    let shown = ok(&deputyctl(portal, &["--json", "job", "show", job]));
    serde_json::from_str(&shown).expect("a record")
}

/// The record of a job of the usual portal.
pub fn show(job: &str) -> serde_json::Value {
    shown_to(PORTAL, job)
}

/// Waits until a job of the usual portal has this state.
pub fn wait_for(job: &str, state: &str) {
    wait_until_shown(PORTAL, job, state);
}

/// Waits until a portal is shown this state of a job.
pub fn wait_until_shown(portal: &str, job: &str, state: &str) {
    let instead = || {
        let said = |words: &[&str]| as_user("root", words).stdout;
        let queue = said(&["squeue", "--states=all", "--noheader", "--format=%i %j %T %r %N"]);
        let accounting =
            said(&["sacct", "--allusers", "--parsable2", "--format=JobID,JobName,State,ExitCode"]);
        format!("{}\n{queue}\n{accounting}\n{}", shown_to(portal, job), launcher_log())
    };
    wait_until_or(&format!("the job is {state}"), instead, || shown_to(portal, job)["state"] == state);
}

/// The number that Slurm gave to a job of the usual portal.
pub fn number(job: &str) -> String {
    number_shown(PORTAL, job).to_string()
}

/// The number that Slurm gave to a job, when a portal is shown one.
pub fn number_shown(portal: &str, job: &str) -> u64 {
    let mut number = None;
    wait_until("Slurm has the job", || {
        number = shown_to(portal, job)["slurm_job"].as_u64();
        number.is_some()
    });
    number.expect("a number")
}

/// What a person's own defaults can say that a job at Slurm is not to have.
pub const OWNERS_DEFAULTS: [&str; 15] = [
    "partition=short",
    "qos=better",
    "account=lab2",
    "nodes=2",
    "ntasks=4",
    "cpus-per-task=4",
    "mem=2G",
    "time=55",
    "gres=gpu:2",
    "gpus=2",
    "gpus-per-node=2",
    "constraint=nothere",
    "reservation=nothere",
    "comment=x",
    "job-name=x",
];

/// What Slurm itself says of a job, with `scontrol`: the value of one field.
pub fn field(number: &str, name: &str) -> String {
    let shown = ok(&as_user("root", &["scontrol", "--oneliner", "show", "job", number]));
    let begin = format!("{name}=");
    let word = shown.split(' ').find_map(|word| word.strip_prefix(&begin));
    word.unwrap_or_else(|| panic!("no {name} in {shown}")).to_owned()
}

/// The jobs that the accounting has under the name of a job of Deputy's.
pub fn submissions(job: &str) -> Vec<String> {
    let name = format!("--name=deputy-{job}");
    let argv = [
        "sacct",
        "--noheader",
        "--parsable2",
        "--allusers",
        "--allocations",
        "--format=JobIDRaw",
        "--starttime=now-1days",
        &name,
    ];
    ok(&as_user("root", &argv)).lines().map(str::to_owned).collect()
}
