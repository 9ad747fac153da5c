//! G5: a job has what a login of its OS account has, no more and no less. The same probe runs as a job and by a
//! login, and every difference has to be on the checked-in list. Refusals first.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Once;

use deputy_suite::{as_user, need_the_sandbox, skip};
use serde::Deserialize;
use serde_json::Value;

/// The probe, by a shell that hands over what Rust's runtime would hide.
const PROBE: &str = "exec deputy-probe \"$(cat /proc/self/status)\"";

/// A login's PAM stack, as Debian's login and sshd have it, with what a site would add for the umask.
const LOGIN_STACK: &str = "\
auth      optional    pam_group.so
auth      sufficient  pam_rootok.so
account   required    pam_permit.so
session   required    pam_loginuid.so
session   optional    pam_keyinit.so force revoke
session   required    pam_limits.so
session   required    pam_env.so user_readenv=0
session   required    pam_env.so envfile=/etc/default/locale user_readenv=0
session   optional    pam_mail.so standard
session   optional    pam_umask.so
@include common-session
";

const DIFFERENCES: &str = include_str!("../differences-from-login.toml");

/// Makes the sandbox's machine one on which PAM's modules have something to do, and links alice's account.
fn machine() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        need_the_sandbox();
        let put = |path: &str, text: &str| std::fs::write(path, text).expect(path);
        put("/etc/pam.d/runuser-l", LOGIN_STACK);
        put("/etc/security/group.conf", "deputy-job|runuser-l;*;alice;Al0000-2400;games\n");
        put(
            "/etc/security/limits.d/suite.conf",
            "alice soft nofile 777\nalice hard nproc 4321\nalice soft nproc 321\n",
        );
        put("/etc/security/pam_env.conf", "FROM_PAM_ENV DEFAULT=@{HOME}/x\n");
        put("/etc/environment", "LD_LIBRARY_PATH=/from/etc/environment\nSITE=lab\n");
        put("/etc/default/locale", "LANG=C.UTF-8\n");
        ok("root", &["usermod", "--comment", "umask=027", "alice"]);
        ok("root", &["deputyctl", "consent", "grant", "demo", "alice", "alice"]);
        // On a whole machine (tests/machine) other tests have made her account already.
        if as_user("portal", &["deputyctl", "account", "show", "demo", "alice"]).status != 0 {
            ok("portal", &["deputyctl", "account", "add", "demo", "alice"]);
        }
        ok("portal", &["deputyctl", "link", "request", "demo", "alice", "alice"]);
    });
}

/// A command that has to work.
fn ok(user: &str, argv: &[&str]) -> String {
    let output = as_user(user, argv);
    assert_eq!(output.status, 0, "{argv:?}: {}{}", output.stdout, output.stderr);
    output.stdout
}

fn report(mut command: Command) -> Value {
    let output = command.stdin(Stdio::null()).stderr(Stdio::piped()).output().expect("the probe's starter");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("a report")
}

/// Executes its arguments with no descriptor but the first three, as a login's server does.
const ONLY_STDIO: &str = "\
    for descriptor in /proc/self/fd/*; do\n\
        number=${descriptor##*/}\n\
        [ \"$number\" -le 2 ] || eval \"exec $number>&-\"\n\
    done\n\
    exec \"$@\"";

/// The two signals that the C library keeps for itself. Its `posix_spawn` leaves them ignored, and no program can set
/// them back by the library's means, so whatever started this test, or the machine, decides about them.
const OF_THE_LIBRARY: u64 = 0b11 << 31;

/// The report of what a job is compared with, which has those two from outside.
fn reference(command: Command) -> Value {
    let mut report = report(command);
    let ignored = report["signals"]["SigIgn"].as_str().and_then(|set| u64::from_str_radix(set, 16).ok());
    let ignored = ignored.expect("a set of signals") & !OF_THE_LIBRARY;
    report["signals"]["SigIgn"] = format!("{ignored:016x}").into();
    report
}

/// What a login of alice's has.
fn login() -> Value {
    let mut command = Command::new("bash");
    // Whoever logs in comes from a process that ignores none; these tests may have been started by anybody.
    let from_init = ["env", "--default-signal", "/usr/sbin/runuser"];
    command.args(["-c", ONLY_STDIO, "bash"]).args(from_init).args(["-l", "alice", "-c", PROBE]).env_clear();
    reference(command)
}

/// What a job of alice's has, when the portal has set things up like this before it asks.
fn job(portal_does: &str) -> Value {
    let mut command = Command::new("runuser");
    let script = format!("{portal_does}\nexec deputyctl run --app demo --account alice -- sh -c '{PROBE}'");
    command.args(["-u", "portal", "--", "sh", "-c", &script]);
    report(command)
}

/// Each value of a report by its place.
fn leaves(report: &Value) -> BTreeMap<String, String> {
    fn walk(place: String, value: &Value, found: &mut BTreeMap<String, String>) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    let place = if place.is_empty() { name.clone() } else { format!("{place}.{name}") };
                    walk(place, value, found);
                }
            }
            Value::String(text) => drop(found.insert(place, text.clone())),
            other => drop(found.insert(place, other.to_string())),
        }
    }
    let mut found = BTreeMap::new();
    walk(String::new(), report, &mut found);
    found
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(default)]
    difference: Vec<Difference>,
}

/// One allowed difference.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Difference {
    reference: String,
    field: String,
    job: Option<String>,
    other: Option<String>,
    only_with: Option<Needs>,
    why: String,
}

/// What a machine needs to have for a difference to occur.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Needs {
    Cgroup2,
}

impl Needs {
    /// Whether the sandbox found it on this machine.
    fn are_met(self) -> bool {
        match self {
            Needs::Cgroup2 => {
                let settings =
                    std::fs::read_to_string("/etc/deputy/deputy.toml").expect("the sandbox writes it");
                settings.contains("\ncgroup = ")
            }
        }
    }
}

impl Difference {
    fn covers(&self, job: Option<&String>, other: Option<&String>) -> bool {
        let fits = |listed: &Option<String>, real: Option<&String>| match (listed, real) {
            (Some(listed), Some(real)) => listed == "*" || listed == real,
            (listed, real) => listed.is_none() && real.is_none(),
        };
        fits(&self.job, job) && fits(&self.other, other)
    }
}

/// What is wrong with the list, given two reports.
fn disagreements(list: &List, reference: &str, job: &Value, other: &Value) -> Vec<String> {
    let (job, other) = (leaves(job), leaves(other));
    let listed: Vec<&Difference> = list.difference.iter().filter(|d| d.reference == reference).collect();
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for field in job.keys().chain(other.keys()).collect::<BTreeSet<_>>() {
        let (in_job, in_other) = (job.get(field), other.get(field));
        if in_job == in_other {
            continue;
        }
        match listed.iter().find(|d| d.field == *field && d.covers(in_job, in_other)) {
            Some(difference) => drop(used.insert(difference.field.clone())),
            None => wrong.push(format!("not on the list: {field}: job {in_job:?}, {reference} {in_other:?}")),
        }
    }
    for difference in listed {
        if !used.contains(&difference.field) && difference.only_with.is_none_or(Needs::are_met) {
            wrong.push(format!("does not occur any more: {} ({})", difference.field, difference.why));
        }
    }
    wrong
}

/// The values of a report, but for the cgroup, which is named after the job.
fn without_cgroup(report: &Value) -> BTreeMap<String, String> {
    leaves(report).into_iter().filter(|(place, _)| !place.starts_with("cgroup.")).collect()
}

fn list() -> List {
    toml::from_str(DIFFERENCES).expect("the list of differences")
}

fn number_of(group: &str) -> u64 {
    let line = ok("root", &["getent", "group", group]);
    line.split(':').nth(2).and_then(|gid| gid.parse().ok()).expect("a gid")
}

#[test]
fn nothing_of_the_portals_reaches_a_job_however_the_portal_was_started() {
    machine();
    let quiet = job("");
    let hostile = job("\
        umask 0000\n\
        trap '' PIPE INT HUP QUIT USR1 CHLD\n\
        exec 7</etc/hostname 8>/tmp/portals-own 9<&0\n\
        export LD_PRELOAD='' LD_LIBRARY_PATH=/tmp BASH_ENV=/tmp/x ENV=/tmp/x IFS=x PORTAL_SECRET=s TZ=/etc/shadow\n\
        export HOME=/root USER=root LOGNAME=root SHELL=/bin/false PATH=/tmp:$PATH APP_NOT_ASKED_FOR=1 SLURM_JOB_ID=1\n\
        export DBUS_SESSION_BUS_ADDRESS=unix:path=/x XDG_RUNTIME_DIR=/x PYTHONPATH=/x GCONV_PATH=/x\n\
        ulimit -S -n 64\n\
        ulimit -S -c 0\n\
        cd /tmp");
    assert_eq!(without_cgroup(&hostile), without_cgroup(&quiet));
}

#[test]
fn a_job_has_no_group_variable_descriptor_or_key_of_portal_daemon_or_launcher() {
    machine();
    let report = job("");
    let alice = [number_of("alice"), number_of("lab1"), number_of("games")];
    let mut groups: Vec<u64> =
        report["groups"].as_array().unwrap().iter().filter_map(Value::as_u64).collect();
    groups.retain(|gid| !alice.contains(gid));
    assert_eq!(groups, [0_u64; 0], "{report}");
    for id in ["real", "effective", "saved", "filesystem"] {
        assert_eq!(report["gid"][id], alice[0].to_string());
        assert_eq!(format!("{}\n", report["uid"][id].as_str().unwrap()), ok("root", &["id", "-u", "alice"]));
    }
    let descriptors: Vec<&String> = report["descriptors"].as_object().unwrap().keys().collect();
    assert_eq!(descriptors, ["0", "1", "2"]);
    let own = format!("uid {}: ", report["uid"]["real"].as_str().unwrap());
    for key in report["keyring"].as_array().expect("/proc/keys: this kernel has keyrings") {
        assert!(key.as_str().unwrap().starts_with(&own), "{key} is not alice's");
    }
    let variables: BTreeSet<&str> =
        report["environment"].as_object().unwrap().keys().map(String::as_str).collect();
    let expected = ["FROM_PAM_ENV", "HOME", "LANG", "LOGNAME", "PATH", "PWD", "SHELL", "SITE", "USER"];
    assert_eq!(variables, BTreeSet::from(expected), "PWD is the probe's own shell's");
}

#[test]
fn a_job_ignores_blocks_and_catches_no_signal() {
    machine();
    for set in ["SigBlk", "SigIgn", "SigCgt", "ShdPnd"] {
        assert_eq!(job("")["signals"][set], "0000000000000000", "{set}");
    }
}

#[test]
fn the_list_of_differences_gives_a_reason_for_each_and_names_none_twice() {
    let mut seen = BTreeSet::new();
    for difference in list().difference {
        assert!(["login", "systemd"].contains(&difference.reference.as_str()), "{difference:?}");
        assert!(difference.why.len() > 20, "{difference:?}");
        let differ = difference.job != difference.other || difference.job.as_deref() == Some("*");
        assert!(differ, "{difference:?}");
        assert!(seen.insert((difference.reference.clone(), difference.field.clone())), "{difference:?}");
    }
}

#[test]
fn a_difference_that_is_not_listed_and_a_listed_one_that_is_gone_are_both_seen() {
    let one = serde_json::json!({"a": {"b": "1"}, "c": [1]});
    let other = serde_json::json!({"a": {"b": "2"}, "c": [1]});
    let listed = |job: &str| List {
        difference: vec![Difference {
            reference: "login".into(),
            field: "a.b".into(),
            job: Some(job.into()),
            other: Some("*".into()),
            only_with: None,
            why: "because".into(),
        }],
    };
    assert_eq!(disagreements(&listed("1"), "login", &one, &other), [""; 0]);
    assert_eq!(disagreements(&List { difference: vec![] }, "login", &one, &other).len(), 1);
    assert_eq!(disagreements(&listed("1"), "login", &one, &one).len(), 1);
    assert_eq!(disagreements(&listed("3"), "login", &one, &other).len(), 2);
}

#[test]
fn a_job_is_in_a_cgroup_of_its_own() {
    machine();
    if !Needs::Cgroup2.are_met() {
        return skip("a_job_is_in_a_cgroup_of_its_own: no cgroup2 can be mounted here");
    }
    let settings = std::fs::read_to_string("/etc/deputy/deputy.toml").unwrap();
    let folder = settings.lines().find_map(|line| line.strip_prefix("cgroup = ")).unwrap();
    let parent = folder.trim_matches('"').rsplit('/').take(2).collect::<Vec<_>>();
    let groups = [job(""), job("")].map(|report| report["cgroup"][""].as_str().unwrap().to_owned());
    for group in &groups {
        let parents: Vec<_> = group.rsplit('/').skip(1).take(2).collect();
        assert_eq!(parents, parent, "{group} is below {folder}");
    }
    assert_ne!(groups[0], groups[1]);
}

#[test]
fn what_pam_gives_to_a_login_it_gives_to_a_job() {
    machine();
    let report = job("");
    let groups = report["groups"].as_array().unwrap();
    assert!(groups.contains(&number_of("games").into()), "pam_group: {groups:?}");
    assert!(groups.contains(&number_of("lab1").into()), "the group database: {groups:?}");
    assert_eq!(report["umask"], "0027", "pam_umask");
    assert_eq!(report["limits"]["Max processes"], "321 4321", "pam_limits");
    assert!(report["limits"]["Max open files"].as_str().unwrap().starts_with("777 "), "pam_limits: {report}");
    assert_eq!(report["environment"]["FROM_PAM_ENV"], "/home/alice/x", "pam_env");
    assert_eq!(report["loginuid"], report["uid"]["real"], "pam_loginuid");
}

#[test]
fn a_job_differs_from_a_login_only_as_the_list_says() {
    machine();
    let wrong = disagreements(&list(), "login", &job(""), &login());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn probe_against_systemd() {
    machine();
    if !Path::new("/run/systemd/system").is_dir() {
        return skip("probe_against_systemd: no systemd as PID 1 here");
    }
    let mut command = Command::new("systemd-run");
    command.args(["--quiet", "--pipe", "--wait", "-p", "User=alice", "-p", "PAMName=deputy-job"]);
    command.args(["-p", "WorkingDirectory=~", "sh", "-c", PROBE]);
    let wrong = disagreements(&list(), "systemd", &job(""), &reference(command));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
