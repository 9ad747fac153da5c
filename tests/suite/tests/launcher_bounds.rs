//! What bounds a job, as a taken-over `deputyd` can ask for it: never more than root's file allows. Refusals first.
#![forbid(unsafe_code)]

use std::fs;
use std::sync::Once;

use deputy_core::Code;
use deputy_core::job::{EndCause, Enforcement, ExitRecord, JobEnd};
use deputy_core::limits::{JobBounds, ResourceLimits};
use deputy_core::message::RunRequest;
use deputy_core::queue::GpuIndex;
use deputy_core::size::{ByteSize, MilliCpus};
use deputy_suite::acting::identity;
use deputy_suite::fake::Answers;
use deputy_suite::machine::{install_application, jobs_cgroup};
use deputy_suite::requests::{app, grant_in, run_as};
use deputy_suite::{Fake, need_the_sandbox, skip};

/// What the application's file says of every job.
const POLICY: &str = r#"
service_user = "portal"
[link]
shared = true
[limits]
memory = "2G"
cpus = 64
[kinds.batch]
commands = ["*"]
time_limit_seconds = 3600
grace_seconds = 5
nice = 3
[kinds.batch.limits]
memory = "1G"
pids = 500
files = 512
core = "64M"
[kinds.free]
commands = ["*"]
"#;

fn bounded(kind: &str, argv: &[&str]) -> RunRequest {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        install_application("bounded", POLICY);
        grant_in("bounded", "bounded", "alice");
    });
    let mut request = run_as(identity("alice"), "bounded", argv);
    request.application = app("bounded");
    request.kind = Some(kind.parse().unwrap());
    request
}

fn limits() -> ResourceLimits {
    ResourceLimits::default()
}

fn with(limits: ResourceLimits) -> JobBounds {
    JobBounds { limits, ..JobBounds::default() }
}

fn run(kind: &str, bounds: JobBounds, script: &str) -> Answers {
    let mut request = bounded(kind, &["sh", "-c", script]);
    request.bounds = bounds;
    Fake::daemon().run(&request)
}

/// Whether the jobs' cgroups have the controllers that hold ceilings.
fn has_controllers() -> bool {
    let text = fs::read_to_string(jobs_cgroup().join("cgroup.controllers")).unwrap_or_default();
    ["memory", "cpu", "pids"].iter().all(|name| text.split_ascii_whitespace().any(|word| word == *name))
}

/// Whether there are, or a line about what is not tested without them.
fn need_controllers(what: &str) -> bool {
    if has_controllers() {
        return true;
    }
    skip(&format!(
        "{what}: no cgroup v2 controllers here; cargo test -p deputy-suite --test launcher_bounds where there are"
    ));
    false
}

fn record(answers: &Answers) -> &ExitRecord {
    answers.record().unwrap_or_else(|| panic!("no end: {answers:?}"))
}

#[test]
fn more_than_policy_allows_is_refused_for_each_bound() {
    need_the_sandbox();
    let more = [
        ("limits.memory", with(ResourceLimits { memory: Some(ByteSize((1 << 30) + 1)), ..limits() })),
        ("limits.cpus", with(ResourceLimits { cpus: Some(MilliCpus(64_001)), ..limits() })),
        ("limits.pids", with(ResourceLimits { pids: Some(501), ..limits() })),
        ("limits.files", with(ResourceLimits { files: Some(513), ..limits() })),
        ("limits.core", with(ResourceLimits { core: Some(ByteSize(u64::MAX)), ..limits() })),
        ("time_limit_seconds", JobBounds { time_limit_seconds: Some(3601), ..JobBounds::default() }),
        ("grace_seconds", JobBounds { grace_seconds: Some(6), ..JobBounds::default() }),
        ("nice", JobBounds { nice: Some(2), ..JobBounds::default() }),
        ("nice", JobBounds { nice: Some(20), ..JobBounds::default() }),
    ];
    for (key, bounds) in more {
        let answers = run("batch", bounds, "true");
        let denial = answers.denial().unwrap_or_else(|| panic!("{key}: {answers:?}"));
        assert_eq!(denial.code, Code::LimitNotAllowed, "{key}");
        assert_eq!(denial.rule, format!("applications.d/bounded.toml: kinds.batch.{key}"));
    }
    // A kind without a key of its own has the application's.
    let memory = with(ResourceLimits { memory: Some(ByteSize((2 << 30) + 1)), ..limits() });
    assert_eq!(run("free", memory, "true").code(), Some(Code::LimitNotAllowed));
    // The very ceilings can be asked for.
    let all = JobBounds {
        limits: ResourceLimits {
            memory: Some(ByteSize(1 << 30)),
            cpus: Some(MilliCpus(64_000)),
            pids: Some(500),
            files: Some(512),
            core: Some(ByteSize(64 << 20)),
        },
        time_limit_seconds: Some(3600),
        grace_seconds: Some(5),
        nice: Some(19),
    };
    assert_eq!(run("batch", all, "true").status(), Some(0));
}

#[test]
fn a_ceiling_of_nothing_is_refused() {
    need_the_sandbox();
    let nothing = [
        with(ResourceLimits { memory: Some(ByteSize(0)), ..limits() }),
        with(ResourceLimits { cpus: Some(MilliCpus(0)), ..limits() }),
        with(ResourceLimits { pids: Some(0), ..limits() }),
        with(ResourceLimits { files: Some(0), ..limits() }),
        JobBounds { time_limit_seconds: Some(0), ..JobBounds::default() },
    ];
    for bounds in nothing {
        assert_eq!(run("free", bounds, "true").code(), Some(Code::InvalidArgument), "{bounds:?}");
    }
    // A core dump of nothing is none.
    let none = with(ResourceLimits { core: Some(ByteSize(0)), ..limits() });
    assert_eq!(run("free", none, "test `ulimit -Hc` = 0").status(), Some(0));
}

/// The soft and hard limit of a line of `/proc/self/limits`.
fn of(table: &str, name: &str) -> (String, String) {
    let line = table.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{table}"));
    let mut words = line.split_ascii_whitespace().map(str::to_owned);
    (words.next().unwrap(), words.next().unwrap())
}

#[test]
fn each_process_has_the_limits_that_policy_and_the_request_leave() {
    need_the_sandbox();
    let table = run("free", JobBounds::default(), "cat /proc/self/limits").output;
    let bounds = with(ResourceLimits { files: Some(100), core: Some(ByteSize(4096)), ..limits() });
    let lowered = run("batch", bounds, "cat /proc/self/limits").output;
    assert_eq!(of(&lowered, "Max open files"), ("100".into(), "100".into()));
    assert_eq!(of(&lowered, "Max core file size").1, "4096");
    // What nobody bounds is as PAM left it.
    for name in ["Max stack size", "Max locked memory", "Max file size", "Max cpu time"] {
        assert_eq!(of(&lowered, name), of(&table, name), "{name}");
    }
    if has_controllers() {
        assert_eq!(of(&lowered, "Max processes"), of(&table, "Max processes"));
    } else {
        assert_eq!(of(&lowered, "Max address space").1, (1_u64 << 30).to_string());
        assert_eq!(of(&lowered, "Max processes").1, "500");
    }
}

#[test]
fn a_ceiling_above_what_pam_left_raises_nothing() {
    need_the_sandbox();
    let before = run("free", JobBounds::default(), "cat /proc/self/limits").output;
    let (soft, hard) = of(&before, "Max open files");
    let bounds =
        with(ResourceLimits { files: Some(u32::MAX), core: Some(ByteSize(u64::MAX - 1)), ..limits() });
    let after = run("free", bounds, "cat /proc/self/limits").output;
    assert_eq!(of(&after, "Max open files"), (soft, hard));
    assert_eq!(of(&after, "Max core file size").0, of(&before, "Max core file size").0);
}

#[test]
fn what_wants_more_memory_does_not_get_it() {
    need_the_sandbox();
    let bounds = with(ResourceLimits { memory: Some(ByteSize(256 << 20)), ..limits() });
    // It touches all of what it gets.
    let hog = "perl -e '$x = \"x\" x (64 << 20); print 1; $y = \"y\" x (600 << 20); print 2'";
    let answers = run("free", bounds, hog);
    let ExitRecord { end, cause, enforcement, .. } = record(&answers);
    if has_controllers() {
        assert_eq!((*cause, *enforcement), (Some(EndCause::OutOfMemory), Enforcement::Cgroup), "{answers:?}");
        assert_eq!(*end, JobEnd::Signaled { signal: 9, core: false });
    } else {
        assert_eq!((*cause, *enforcement), (None, Enforcement::ProcessLimits));
        assert_ne!(*end, JobEnd::Exited { code: 0 }, "{answers:?}");
    }
    assert!(!answers.output.contains('2'), "{answers:?}");
    assert_eq!(run("free", JobBounds::default(), hog).output, "12");
}

#[test]
fn a_job_runs_on_so_many_cpus_and_is_as_nice_as_said() {
    need_the_sandbox();
    let cpus = with(ResourceLimits { cpus: Some(MilliCpus(500)), ..limits() });
    let count = |answers: &Answers| answers.output.trim().parse::<u32>().unwrap();
    let all = count(&run("free", JobBounds::default(), "nproc"));
    let few = count(&run("free", cpus, "nproc"));
    assert_eq!(few, if has_controllers() { all } else { 1 });
    assert_eq!(run("free", JobBounds::default(), "nice").output.trim(), "0");
    assert_eq!(run("batch", JobBounds::default(), "nice").output.trim(), "3");
    let nicer = JobBounds { nice: Some(11), ..JobBounds::default() };
    assert_eq!(run("batch", nicer, "nice").output.trim(), "11");
}

#[test]
fn the_cgroup_holds_the_whole_job() {
    need_the_sandbox();
    if !need_controllers("ceilings of the whole job") {
        return;
    }
    let bounds = with(ResourceLimits {
        memory: Some(ByteSize(64 << 20)),
        cpus: Some(MilliCpus(1500)),
        pids: Some(20),
        ..limits()
    });
    let cat = "cd /sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup) && \
               cat memory.max memory.oom.group memory.swap.max cpu.max pids.max";
    let answers = run("free", bounds, cat);
    assert_eq!(answers.output, "67108864\n1\n0\n150000 100000\n20\n", "{answers:?}");
    assert_eq!(record(&answers).enforcement, Enforcement::Cgroup);
    // Two processes that are each small enough.
    let two = "for i in 1 2; do perl -e '$x = \"x\" x (45 << 20); sleep 3' & done; wait; echo both";
    let answers = run("free", bounds, two);
    assert_eq!(record(&answers).cause, Some(EndCause::OutOfMemory), "{answers:?}");
    assert!(!answers.output.contains("both"), "{answers:?}");
}

#[test]
fn a_gpu_that_the_machine_does_not_have_is_refused() {
    need_the_sandbox();
    let mut request = bounded("free", &["true"]);
    request.gpus = vec![GpuIndex(60_000)];
    assert_eq!(Fake::daemon().run(&request).code(), Some(Code::InvalidArgument));
}
