//! Interactive jobs at a real Slurm: `srun` with a shepherd, as the user. Refusals first.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use deputy_core::Code;
use deputy_core::message::{LauncherReply, LauncherRequest, RunRequest, SubmitRequest};
use deputy_core::slurm::{Interactive, SlurmRequest};
use deputy_core::stream::{Input, Output as To, Streams};
use deputy_suite::acting::identity;
use deputy_suite::fake::{Descriptor, Fake};
use deputy_suite::machine::{command_line, deputyd_stays_away, processes, shepherd_of, signal, wait_until};
use deputy_suite::people::{as_user, command_as, ok, refused_with, run};
use deputy_suite::requests::{app, null_files, run_as, withdrawal};
use deputy_suite::slurm::{
    OWNERS_DEFAULTS, PORTAL, exclusively, open_at_slurm, show, sleeper, srun, talk, usual_settings, wait_for,
};
use deputy_suite::{Output, deputyctl};

const NULLS: [Descriptor; 3] = [Descriptor::Null, Descriptor::Output, Descriptor::Null];

/// What `deputyctl` makes of a command.
fn talked(options: &[&str], command: &[&str]) -> Output {
    run(talk(options, command))
}

/// How many jobs the accounting has, of whom and whatever became of them.
fn accounted() -> usize {
    ok(&as_user("root", &["sacct", "--noheader", "--allusers", "--allocations", "--starttime=now-1days"]))
        .lines()
        .count()
}

#[test]
fn what_policy_does_not_allow_is_refused_and_slurm_hears_nothing() {
    let _machine = exclusively();
    let before = accounted();
    let begin = ["run", "--app", "hpc", "--account", "alice", "--interactive"];
    for (options, code, words) in [
        (&["--kind", "cluster"][..], "ExecutorNotAllowed", "interactive"),
        (&["--kind", "both", "--executor", "slurm"], "ExecutorNotAllowed", "interactive"),
        (&["--kind", "batch", "--executor", "slurm"], "ExecutorNotAllowed", "executor"),
        (&["--kind", "both"], "InvalidArgument", "runs here"),
        (&["--kind", "talk", "--partition", "long"], "ExecutorNotAllowed", "partition long"),
        (&["--kind", "talk", "--tasks", "3"], "LimitNotAllowed", "tasks 3"),
        (&["--kind", "talk", "--terminal"], "InvalidArgument", "needs a terminal"),
    ] {
        refused_with(&deputyctl(PORTAL, &[&begin, options, &["--", "true"]].concat()), code, words);
    }
    refused_with(&talked(&[], &["-c"]), "InvalidArgument", "begin with -");
    assert_eq!((accounted(), open_at_slurm().as_str()), (before, ""));
}

fn request(os_user: &str, account: &str) -> RunRequest {
    RunRequest {
        application: app("hpc"),
        kind: "talk".parse().ok(),
        ..run_as(identity(os_user), account, &["/bin/true"])
    }
}

fn spoken(interactive: Interactive) -> SlurmRequest {
    SlurmRequest { interactive: Some(interactive), ..SlurmRequest::default() }
}

#[test]
fn a_daemon_that_was_taken_over_speaks_with_no_job_that_policy_and_consent_do_not_allow() {
    let _machine = exclusively();
    let before = accounted();
    let asks = |run: RunRequest, slurm: SlurmRequest| {
        Fake::daemon().ask(&LauncherRequest::Interact(SubmitRequest { run, slurm }), &NULLS).code()
    };
    let streams = || spoken(Interactive::Streams);
    let hers = || request("alice", "alice");
    assert_eq!(asks(request("bob", "alice"), streams()), Some(Code::NoConsent));
    for kind in ["cluster", "batch"] {
        let other = RunRequest { kind: kind.parse().ok(), ..hers() };
        assert_eq!(asks(other, streams()), Some(Code::ExecutorNotAllowed), "{kind}");
    }
    assert_eq!(asks(hers(), SlurmRequest::default()), Some(Code::InvalidArgument));
    assert_eq!(asks(hers(), SlurmRequest { hold: true, ..streams() }), Some(Code::InvalidArgument));
    let partition = SlurmRequest { partition: "long".parse().ok(), ..streams() };
    assert_eq!(asks(hers(), partition), Some(Code::ExecutorNotAllowed));
    assert_eq!(
        asks(RunRequest { argv: vec![b"--pty".to_vec()], ..hers() }, streams()),
        Some(Code::InvalidArgument)
    );
    assert_eq!(
        asks(RunRequest { argv: vec![b"a\0".to_vec()], ..hers() }, streams()),
        Some(Code::InvalidArgument)
    );
    // What is no pseudo-terminal is no terminal.
    let all = Streams { input: Input::Descriptor, output: To::Descriptor, error: To::SameAsOutput };
    for descriptors in [[Descriptor::Null; 2], [Descriptor::Terminal; 2], [Descriptor::Stream; 2]] {
        let wanted = SubmitRequest {
            run: RunRequest { streams: all.clone(), ..hers() },
            slurm: spoken(Interactive::Terminal),
        };
        let code = Fake::daemon().ask(&LauncherRequest::Interact(wanted), &descriptors).code();
        assert_eq!(code, Some(Code::BadMessage), "{descriptors:?}");
    }
    // Neither is it submitted, nor does it run here.
    let submitted = SubmitRequest { run: RunRequest { streams: null_files(), ..hers() }, slurm: streams() };
    let answers = Fake::daemon().ask(&LauncherRequest::Submit(submitted), &[]);
    assert_eq!(answers.code(), Some(Code::InvalidArgument));
    assert_eq!(Fake::daemon().run(&hers()).code(), Some(Code::ExecutorNotAllowed));
    assert_eq!(accounted(), before);
    // The same id twice is one job.
    let first = hers();
    let wanted = || LauncherRequest::Interact(SubmitRequest { run: first.clone(), slurm: streams() });
    assert_eq!(Fake::daemon().ask(&wanted(), &NULLS).status(), Some(0));
    assert_eq!(Fake::daemon().ask(&wanted(), &NULLS).code(), Some(Code::JobExists));
}

#[test]
fn what_slurm_refuses_is_told_in_its_own_words_on_standard_error() {
    let _machine = exclusively();
    for (options, words) in
        [(["--partition", "nowhere"], "invalid partition"), (["--slurm-account", "lab2"], "Invalid account")]
    {
        let output = talked(&options, &["true"]);
        assert_eq!((output.status, output.stdout.as_str()), (125, ""), "{output:?}");
        assert!(output.stderr.contains(words), "{output:?}");
    }
    assert_eq!(open_at_slurm(), "");
}

#[test]
fn exits_are_the_programs_and_streams_are_the_callers_byte_by_byte() {
    let _machine = exclusively();
    for (script, status) in
        [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -TERM $$", 143), ("kill -KILL $$", 137)]
    {
        assert_eq!(talked(&[], &["sh", "-c", script]).status, status, "{script}");
    }
    assert_eq!(talked(&[], &["/nonexistent/program"]).status, 127);
    assert_eq!(talked(&["--cwd", "/nonexistent"], &["true"]).status, 126);
    let output = talked(&[], &["sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
    // What comes by descriptor is the program's, and no argument of anybody's.
    fs::write("/srv/slurm/variables", "APP_SECRET=hunter2\n").unwrap();
    let look = "printf %s \"$APP_SECRET\"; cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -c hunter[0-9]";
    let output = talked(&["--env-file", "/srv/slurm/variables"], &["sh", "-c", look]);
    assert_eq!(output.stdout, "hunter20\n", "{output:?}");
    // Input of any bytes, to its end.
    let content: Vec<u8> = (0..300_000u32).map(|n| (n % 251).to_le_bytes()[0]).collect();
    let mut child =
        talk(&[], &["cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("deputyctl");
    let mut stdin = child.stdin.take().unwrap();
    let sent = content.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&sent).expect("its input"));
    let mut came = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut came).unwrap();
    writer.join().unwrap();
    assert!(child.wait().unwrap().success() && came == content, "{} of {}", came.len(), content.len());
    assert_eq!(open_at_slurm(), "");
}

/// What a job is, one item a line; what Slurm makes different for each job is left out.
const LOOK: &str = "id -u; id -g; id -G; umask; pwd; ulimit -a -S; ulimit -a -H; env | sort | grep -v -e ^SLURM -e ^SRUN -e ^_= -e ^PWD -e ^SHLVL -e ^OLDPWD; \
                    grep -e ^Cap -e ^NoNewPrivs -e ^SigBlk -e ^SigIgn -e ^SigCgt /proc/self/status; cat /proc/self/loginuid";

/// What differs between an interactive job and one that is submitted, and why.
const DIFFERENCES: [(&str, &str); 5] = [
    ("ENVIRONMENT=BATCH", "Slurm's, of a login that it makes for a batch script"),
    ("HOSTNAME=", "the same"),
    ("MAIL=", "the same"),
    (
        "core file size ",
        "with --propagate=NONE a step has the node's own soft limits, and a batch script the usual ones",
    ),
    ("open files ", "the same"),
];

#[test]
fn an_interactive_job_is_what_the_owners_own_srun_makes_and_what_a_submitted_one_is() {
    let _machine = exclusively();
    let look = ["bash", "-c", &format!("{{ {LOOK}; }} 2>&1")];
    let lines = |text: &str| -> BTreeSet<String> { text.lines().map(str::to_owned).collect() };
    let spoken = lines(&ok(&talked(&[], &look)));
    let environment = "HOME=/home/alice LOGNAME=alice USER=alice SHELL=/bin/bash \
                       PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games";
    let own = format!("cd; env -i {environment} srun --quiet --propagate=NONE bash -c \"$1\"");
    let own = lines(&ok(&as_user("alice", &["sh", "-c", &own, "sh", look[2]])));
    assert_eq!(spoken.symmetric_difference(&own).collect::<Vec<_>>(), Vec::<&String>::new());
    let begin = ["run", "--app", "hpc", "--account", "alice", "--kind", "talk", "--executor", "slurm"];
    let out = ["--stdout", "/srv/slurm/submitted", "--"];
    ok(&deputyctl(PORTAL, &[&begin[..], &out, &look].concat()));
    let submitted = lines(&fs::read_to_string("/srv/slurm/submitted").unwrap());
    let different: Vec<&String> = spoken.symmetric_difference(&submitted).collect();
    let listed = |line: &&&String| DIFFERENCES.iter().any(|(begin, _)| line.starts_with(begin));
    let unlisted: Vec<_> = different.iter().filter(|line| !listed(line)).collect();
    assert!(unlisted.is_empty(), "{unlisted:#?}");
    for (begin, why) in DIFFERENCES {
        let still = different.iter().any(|line| line.starts_with(begin));
        assert!(still, "{begin} is no difference any more: {why}");
    }
    assert!(!spoken.iter().any(|line| line.contains("hpcportal") || line.contains("deputy")), "{spoken:?}");
}

#[test]
fn nothing_in_a_field_becomes_an_option_or_a_command() {
    let _machine = exclusively();
    let odd = [
        "",
        " ",
        "'",
        "\"",
        "$(touch /srv/slurm/said)",
        "`touch /srv/slurm/said`",
        "; touch /srv/slurm/said",
        "\n#SBATCH --partition=short\n",
        "\r\n",
        "--pty",
        "--multi-prog",
        "-c",
        "%j %u \\\\ %%",
        "ä😀\u{1}\t",
    ];
    fs::create_dir_all("/srv/slurm/a 'b' $(id)\n").unwrap();
    let options =
        ["--env", "APP_X=a 'b'\n--partition=short", "--cwd", "/srv/slurm/a 'b' $(id)\n", "--umask", "077"];
    let script = "printf '%s\\0' \"$APP_X\" \"$PWD\" \"$(umask)\" \"$SLURM_JOB_PARTITION\" \"$@\"";
    let output = talked(&options, &[&["sh", "-c", script, "sh"][..], &odd].concat());
    let before = ["a 'b'\n--partition=short", "/srv/slurm/a 'b' $(id)\n", "0077", "batch"];
    let words: Vec<&str> = before.iter().chain(&odd).copied().collect();
    let wanted = words.join("\0") + "\0";
    assert_eq!((output.status, output.stdout), (0, wanted), "{}", output.stderr);
    assert!(!fs::exists("/srv/slurm/said").unwrap());
    for option in ["--partition", "--slurm-account", "--qos"] {
        for value in ["a b", "batch\n--pty", "a,b", "a'b", "a;id", "a=b"] {
            assert_ne!(talked(&[option, value], &["true"]).status, 0, "{option} {value:?}");
        }
    }
}

#[test]
fn the_owners_defaults_decide_nothing_that_policy_lists_or_bounds_and_run_nothing_here() {
    let _machine = exclusively();
    as_user("root", &["sacctmgr", "--immediate", "add", "qos", "better"]);
    as_user("root", &["sacctmgr", "--immediate", "modify", "user", "alice", "set", "qos+=better"]);
    let conf = fs::read_to_string("/etc/slurm/slurm.conf").unwrap();
    fs::write("/etc/slurm/slurm.conf", format!("{conf}CliFilterPlugins=cli_filter/user_defaults\n")).unwrap();
    fs::create_dir_all("/home/alice/.slurm").unwrap();
    fs::write("/srv/slurm/here", "#!/bin/sh\ntouch /srv/slurm/was-here\n").unwrap();
    fs::set_permissions("/srv/slurm/here", fs::Permissions::from_mode(0o755)).unwrap();
    let look = "scontrol --oneliner show job $SLURM_JOB_ID; echo said";
    let begin = ["run", "--app", "hpc", "--account", "alice", "--kind", "bounded", "--interactive", "--"];
    let of_srun = ["export=NONE", "prolog=/srv/slurm/here", "epilog=/srv/slurm/here", "chdir=/nonexistent"];
    for default in OWNERS_DEFAULTS.into_iter().chain(of_srun) {
        fs::write("/home/alice/.slurm/defaults", format!("srun:*:{default}\n")).unwrap();
        let output = deputyctl(PORTAL, &[&begin[..], &["sh", "-c", look]].concat());
        assert_eq!(output.status, 0, "{default}: {}", output.stderr);
        for field in [
            "Partition=batch",
            "QOS=normal",
            "Account=lab1",
            "NumNodes=1",
            "NumCPUs=1",
            "NumTasks=1",
            "MinMemoryNode=64M",
            "TimeLimit=00:02:00",
        ] {
            assert!(
                output.stdout.contains(&format!(" {field} ")),
                "{default}: no {field} in {}",
                output.stdout
            );
        }
        assert!(output.stdout.contains("Comment=deputy:") && output.stdout.ends_with("said\n"), "{default}");
        assert!(!output.stdout.contains("gres"), "{default}: {}", output.stdout);
    }
    assert!(!fs::exists("/srv/slurm/was-here").unwrap());
    // The plugin is there: the owner's own call has them.
    fs::write("/home/alice/.slurm/defaults", "srun:*:prolog=/srv/slurm/here\n").unwrap();
    ok(&as_user("alice", &["sh", "-c", "cd; srun --quiet true"]));
    assert!(fs::exists("/srv/slurm/was-here").unwrap());
    fs::remove_file("/home/alice/.slurm/defaults").unwrap();
    fs::write("/etc/slurm/slurm.conf", conf).unwrap();
}

#[test]
fn a_cancel_and_a_revoked_consent_leave_nothing_at_slurm() {
    let _machine = exclusively();
    let (child, job) = sleeper();
    ok(&deputyctl(PORTAL, &["job", "cancel", &job]));
    let ended = child.wait_with_output().unwrap();
    assert_ne!(ended.status.code(), Some(0));
    assert_eq!(open_at_slurm(), "");
    let record = show(&job);
    assert_eq!(
        (record["state"].as_str(), record["cause"].as_str()),
        (Some("done"), Some("cancelled")),
        "{record}"
    );
    // Who asked for it interrupts it.
    let (child, job) = sleeper();
    let person = processes().into_iter().find(|pid| command_line(*pid).starts_with("deputyctl run")).unwrap();
    signal(person, "INT");
    child.wait_with_output().unwrap();
    assert_eq!((show(&job)["cause"].as_str(), open_at_slurm().as_str()), (Some("cancelled"), ""));
    // One that waits for nodes.
    let (child, job) = sleeper();
    let waits =
        talk(&["--cpus", "16"], &["true"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("another one waits", || open_at_slurm().contains(" PD"));
    let queue = open_at_slurm();
    let waiting = queue
        .lines()
        .find(|line| line.ends_with(" PD"))
        .and_then(|line| line.split(['-', ' ']).nth(2))
        .unwrap();
    ok(&deputyctl(PORTAL, &["job", "cancel", waiting]));
    waits.wait_with_output().unwrap();
    assert_eq!(show(waiting)["cause"], "cancelled");
    assert!(!open_at_slurm().contains(waiting));
    let answers = Fake::as_user("root").ask(&withdrawal("hpc", "alice", "alice", true), &[]);
    assert!(
        matches!(answers.replies[..], [LauncherReply::Withdrawn(withdrawn)] if withdrawn.removed && withdrawn.left == 0),
        "{answers:?}"
    );
    child.wait_with_output().unwrap();
    assert_eq!((show(&job)["cause"].as_str(), open_at_slurm().as_str()), (Some("consent-revoked"), ""));
    ok(&deputyctl("root", &["consent", "grant", "hpc", "alice", "alice"]));
}

#[test]
fn a_signal_reaches_the_program() {
    let _machine = exclusively();
    let script = "trap 'exit 42' USR1; touch /srv/slurm/hears; while :; do sleep 0.1; done";
    let child = talk(&[], &["bash", "-c", script]).spawn().unwrap();
    wait_until("the program listens", || fs::exists("/srv/slurm/hears").unwrap());
    let queue = open_at_slurm();
    let job = queue.split(['-', ' ']).nth(2).unwrap();
    ok(&deputyctl(PORTAL, &["job", "signal", job, "USR1"]));
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(42));
}

#[test]
fn whoever_is_killed_nothing_runs_on_at_slurm() {
    let _machine = exclusively();
    // srun alone: its shepherd sees to it.
    let (child, job) = sleeper();
    signal(srun(), "KILL");
    child.wait_with_output().unwrap();
    let record = show(&job);
    assert_eq!((record["signal"].as_u64(), open_at_slurm().as_str()), (Some(9), ""), "{record}");
    // The shepherd.
    let (child, job) = sleeper();
    let pid = srun();
    signal(shepherd_of(pid), "KILL");
    wait_for(&job, "lost");
    assert_eq!(
        (show(&job)["cause"].as_str(), open_at_slurm().as_str()),
        (Some("its shepherd died without an exit record"), "")
    );
    wait_until("srun is gone", || !fs::exists(format!("/proc/{pid}")).unwrap());
    child.wait_with_output().unwrap();
    // The shepherd, while there is no deputyd: the consent that is taken back ends it, too.
    let (mut child, job) = sleeper();
    let away = deputyd_stays_away();
    signal(shepherd_of(srun()), "KILL");
    wait_until("nothing of it is left", || {
        let answers = Fake::as_user("root").ask(&withdrawal("hpc", "alice", "alice", true), &[]);
        matches!(answers.replies[..], [LauncherReply::Withdrawn(withdrawn)] if withdrawn.left == 0)
    });
    assert_eq!(open_at_slurm(), "");
    away.back();
    wait_for(&job, "lost");
    let _ = child.kill();
    child.wait().unwrap();
    ok(&deputyctl("root", &["consent", "grant", "hpc", "alice", "alice"]));
}

#[test]
fn a_controller_that_answers_too_late_has_nothing_in_the_end() {
    let _machine = exclusively();
    let controller = deputy_suite::machine::service_pid("slurmctld");
    signal(controller, "STOP");
    let child = talk(&[], &["sleep", "600"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let first = srun();
    wait_until("srun has given up", || !fs::exists(format!("/proc/{first}")).unwrap());
    signal(controller, "CONT");
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(125), "{ended:?}");
    assert_eq!(open_at_slurm(), "");
}

#[test]
fn it_survives_a_restart_of_both_daemons_and_its_end_is_exact() {
    let _machine = exclusively();
    let mut child = talk(&[], &["sh", "-c", "read line; echo \"$line\"; exit 9"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("Slurm runs it", || open_at_slurm().ends_with(" R"));
    for name in ["deputyd", "deputy-launcher"] {
        let pid = deputy_suite::machine::service_pid(name);
        signal(pid, "KILL");
        wait_until("it is back", || deputy_suite::machine::service_pid(name) != pid);
    }
    child.stdin.take().unwrap().write_all(b"still here\n").unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), ended.stdout.as_slice()), (Some(9), &b"still here\n"[..]));
}

#[test]
fn its_time_limit_and_usage_are_slurms_word() {
    let _machine = exclusively();
    let job = "deputyctl run --app hpc --account alice --kind talk --interactive --time-limit 60";
    let output = run(command_as(PORTAL, &["sh", "-c", &format!("{job} -- sleep 600")]));
    assert_ne!(output.status, 0);
    let listed = ok(&deputyctl(PORTAL, &["--json", "job", "list", "hpc"]));
    let jobs: Vec<serde_json::Value> = serde_json::from_str(&listed).unwrap();
    let record = show(jobs[0]["id"].as_str().unwrap());
    assert_eq!(record["cause"], "time-limit", "{record}");
    assert!(record["wall_us"].as_u64() >= Some(60_000_000), "{record}");
    usual_settings();
}
