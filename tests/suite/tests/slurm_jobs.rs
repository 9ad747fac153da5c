//! Slurm as the user, against a real Slurm with accounting. Refusals first.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use deputy_core::Code;
use deputy_core::message::{LauncherReply, LauncherRequest, RunRequest, SubmitRequest};
use deputy_core::slurm::{SlurmCommand, SlurmRequest};
use deputy_core::stream::{Output as To, Streams};
use deputy_suite::fake::Fake;
use deputy_suite::machine::{
    add_person, add_service_user, install_application, launcher_log, run as root, wait_until,
};
use deputy_suite::people::{as_user, ok, refused, refused_with};
use deputy_suite::requests::{for_slurm, null_files, refusal_of, withdrawal};
use deputy_suite::slurm::{
    OWNERS_DEFAULTS, PORTAL, exclusively, field, link, number, run, settings, show, submissions, submit,
    usual_settings, wait_for,
};
use deputy_suite::{deputyctl, job_id};

#[test]
fn what_policy_does_not_list_is_refused_before_slurm_hears_of_it() {
    let _machine = exclusively();
    for (options, code, words) in [
        (["--kind", "batch"], "ExecutorNotAllowed", "executor slurm"),
        (["--partition", "long"], "ExecutorNotAllowed", "partition long"),
        (["--qos", "urgent"], "ExecutorNotAllowed", "QOS urgent"),
        (["--tasks", "5"], "LimitNotAllowed", "tasks 5"),
        (["--nodes", "2"], "LimitNotAllowed", "nodes 2"),
        (["--gpus", "3"], "LimitNotAllowed", "gpus 3"),
        (["--memory", "2G"], "LimitNotAllowed", "memory"),
        (["--cpus", "5"], "LimitNotAllowed", "cpus"),
        (["--cpus", "0.5"], "InvalidArgument", "whole CPUs"),
        (["--time-limit", "21m"], "LimitNotAllowed", "time_limit"),
        (["--pids", "5"], "InvalidArgument", "pids"),
    ] {
        let kind: &[&str] = if options[0] == "--kind" { &[] } else { &["--kind", "cluster"] };
        let begin = ["run", "--app", "hpc", "--account", "alice", "--executor", "slurm"];
        refused_with(&deputyctl(PORTAL, &[&begin, kind, &options, &["--", "true"]].concat()), code, words);
    }
    let listed = ["run", "--app", "hpc", "--account", "alice", "--kind", "listed", "--executor"];
    let account = ["slurm", "--slurm-account", "lab2", "--", "true"];
    refused_with(&deputyctl(PORTAL, &[&listed[..], &account].concat()), "ExecutorNotAllowed", "account lab2");
    refused_with(
        &deputyctl(PORTAL, &[&listed[..], &["local", "--", "true"]].concat()),
        "ExecutorNotAllowed",
        "local",
    );
    // Without --executor the kind's own is taken, and the caller's streams are of no use there.
    let kind = ["run", "--app", "hpc", "--account", "alice", "--kind", "cluster", "--", "true"];
    refused_with(&deputyctl(PORTAL, &kind), "InvalidArgument", "comes by descriptor");
    let both =
        ["run", "--app", "hpc", "--account", "alice", "--kind", "both", "--partition", "batch", "--", "true"];
    refused_with(&deputyctl(PORTAL, &both), "InvalidArgument", "runs here");
}

#[test]
fn what_slurm_refuses_is_told_in_its_own_words() {
    let _machine = exclusively();
    refused_with(
        &run("alice", &["--partition", "nowhere"], &["true"]),
        "SlurmRefused",
        "Invalid partition name",
    );
    refused_with(&run("alice", &["--slurm-account", "lab2"], &["true"]), "SlurmRefused", "Invalid account");
    refused_with(&run("alice", &["--qos", "high"], &["true"]), "SlurmRefused", "Invalid qos");
    let long = ["--partition", "short", "--time-limit", "10m"];
    refused_with(&run("alice", &long, &["true"]), "SlurmRefused", "time limit");
    // Somebody whom Slurm does not know.
    add_person("erin", "x", &[]);
    link("hpc", PORTAL, "erin", "erin");
    refused_with(&run("erin", &[], &["true"]), "SlurmRefused", "Invalid account");
}

fn request(os_user: &str, account: &str) -> RunRequest {
    for_slurm("hpc", "cluster", os_user, account)
}

fn asks(run: RunRequest, slurm: SlurmRequest) -> Option<Code> {
    refusal_of(SubmitRequest { run, slurm })
}

#[test]
fn a_daemon_that_was_taken_over_submits_nothing_that_policy_and_consent_do_not_allow() {
    let _machine = exclusively();
    let none = SlurmRequest::default;
    assert_eq!(asks(request("bob", "alice"), none()), Some(Code::NoConsent));
    assert_eq!(
        asks(RunRequest { kind: "batch".parse().ok(), ..request("alice", "alice") }, none()),
        Some(Code::ExecutorNotAllowed)
    );
    let other = |change: fn(&mut SlurmRequest)| {
        let mut asked = none();
        change(&mut asked);
        asks(request("alice", "alice"), asked)
    };
    assert_eq!(other(|asked| asked.partition = "long".parse().ok()), Some(Code::ExecutorNotAllowed));
    assert_eq!(other(|asked| asked.tasks = Some(5)), Some(Code::LimitNotAllowed));
    assert_eq!(other(|asked| asked.gpus = 3), Some(Code::LimitNotAllowed));
    let captured = Streams { output: To::Captured, ..null_files() };
    assert_eq!(
        asks(RunRequest { streams: captured, ..request("alice", "alice") }, none()),
        Some(Code::InvalidArgument)
    );
    let mut option = request("alice", "alice");
    option.argv = vec![b"--wrap=id".to_vec()];
    assert_eq!(asks(option, none()), Some(Code::InvalidArgument));
    // A kind of Slurm's does not run here.
    let here = Fake::daemon().ask(&LauncherRequest::Run(request("alice", "alice")), &[]);
    assert!(
        matches!(&here.replies[..], [LauncherReply::Denied(denial)] if denial.code == Code::ExecutorNotAllowed)
    );
    // The same id twice is one submission.
    let first = request("alice", "alice");
    assert_eq!(asks(first.clone(), none()), None);
    assert_eq!(asks(first, none()), Some(Code::JobExists));
    // What is not in a folder of Deputy's is not ended.
    for job in [job_id(), job_id()] {
        let answers =
            Fake::daemon().ask(&LauncherRequest::CommandAtSlurm { job, command: SlurmCommand::End }, &[]);
        assert!(
            matches!(&answers.replies[..], [LauncherReply::Denied(denial)] if denial.code == Code::NotFound)
        );
    }
}

#[test]
fn nobody_sees_or_cancels_what_is_not_his() {
    let _machine = exclusively();
    add_service_user("otherhpc");
    let text = "service_user = \"otherhpc\"\ntrust = \"application\"\nlink = { shared = true }\n[kinds.batch]\ncommands = [\"*\"]";
    install_application("otherhpc", text);
    // The same OS account, another application.
    link("otherhpc", "otherhpc", "alice", "alice");
    let job = submit("alice", &[], &["sleep", "600"]);
    wait_for(&job, "running");
    for stranger in ["otherhpc", "bob"] {
        for verb in [&["job", "cancel"][..], &["job", "show"]] {
            assert_eq!(
                refused(&deputyctl(stranger, &[verb, &[&job]].concat())),
                "NotFound",
                "{stranger} {verb:?}"
            );
        }
    }
    assert!(!ok(&deputyctl("otherhpc", &["job", "list", "otherhpc"])).contains(&job));
    assert_eq!(field(&number(&job), "JobState"), "RUNNING");
    ok(&deputyctl(PORTAL, &["job", "cancel", &job]));
    wait_for(&job, "done");
}

#[test]
fn exits_and_signals_are_exact_and_usage_is_told() {
    let _machine = exclusively();
    let jobs: Vec<(String, u64)> = [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("kill -TERM $$", 143),
        ("kill -KILL $$", 137),
        ("kill -USR1 $$", 138),
    ]
    .map(|(script, status)| (submit("alice", &[], &["sh", "-c", script]), status))
    .to_vec();
    let missing = submit("alice", &[], &["/nonexistent/program"]);
    for (job, status) in jobs.into_iter().chain([(missing, 127)]) {
        wait_for(&job, "done");
        let record = show(&job);
        assert_eq!(record["status"].as_u64(), Some(status), "{record}");
        assert_eq!(
            (record["executor"].as_str(), record["cause"].as_str()),
            (Some("slurm"), None),
            "{record}"
        );
    }
    let record = {
        let job = submit("alice", &[], &["sh", "-c", "sleep 2.5; exit 3"]);
        assert_eq!(deputyctl(PORTAL, &["job", "wait", &job]).status, 3);
        show(&job)
    };
    assert!(
        record["wall_us"].as_u64() >= Some(2_000_000) && record["max_rss_kib"].as_u64() > Some(0),
        "{record}"
    );
    // One that is waited for by who asked.
    let output = run("alice", &[], &["sh", "-c", "exit 9"]);
    assert_eq!(output.status, 9, "{output:?}");
}

/// What a job is, one item a line; what Slurm makes different for each job is left out.
const LOOK: &str = "id -u; id -g; id -G; umask; pwd; ulimit -a -S; ulimit -a -H; env | sort | grep -v -e ^SLURM_ -e ^_=; \
                    grep -e ^Cap -e ^NoNewPrivs -e ^SigBlk -e ^SigIgn -e ^SigCgt /proc/self/status; ls /proc/self/fd | wc -l; cat /proc/self/loginuid";

#[test]
fn a_job_is_what_a_submission_by_its_owners_own_login_is() {
    let _machine = exclusively();
    let look = format!("cd; {{ {LOOK}; }} > /srv/slurm/NAME.new; mv /srv/slurm/NAME.new /srv/slurm/NAME");
    let own = look.replace("NAME", "own");
    fs::write("/srv/slurm/own.sh", format!("#!/bin/bash\n{own}\n")).unwrap();
    let login =
        ["sh", "-c", "cd; sbatch --export=NONE --output=/dev/null --input=/dev/null /srv/slurm/own.sh"];
    ok(&as_user("alice", &login));
    // A kind without limits: what is not asked for is not in the job.
    let kind = ["run", "--app", "hpc", "--account", "alice", "--kind", "both", "--executor", "slurm", "--"];
    ok(&deputyctl(PORTAL, &[&kind[..], &["bash", "-c", &look.replace("NAME", "deputy")]].concat()));
    wait_until("the owner's job has run", || fs::exists("/srv/slurm/own").unwrap());
    let read = |name: &str| -> BTreeSet<String> {
        fs::read_to_string(format!("/srv/slurm/{name}")).unwrap().lines().map(str::to_owned).collect()
    };
    let (own, deputy) = (read("own"), read("deputy"));
    assert!(own.contains("HOME=/home/alice") && own.contains("USER=alice"), "{own:?}");
    let different: Vec<&String> = own.symmetric_difference(&deputy).collect();
    let listed = |line: &&&String| DIFFERENCES.iter().any(|(begin, _)| line.starts_with(begin));
    let unlisted: Vec<_> = different.iter().filter(|line| !listed(line)).collect();
    assert!(unlisted.is_empty(), "{unlisted:#?}");
    for (begin, why) in DIFFERENCES {
        assert!(
            different.iter().any(|line| line.starts_with(begin)),
            "{begin} is no difference any more: {why}"
        );
    }
    for job in [&own, &deputy] {
        assert!(!job.iter().any(|line| line.contains("hpcportal") || line.contains("deputy")), "{job:?}");
    }
}

/// What differs between the two, and why.
const DIFFERENCES: [(&str, &str); 0] = [];

#[test]
fn variables_streams_folder_umask_and_resources_are_those_that_were_asked_for() {
    let _machine = exclusively();
    let options = [
        "--env",
        "APP_X=a 'b'\n#SBATCH --partition=short",
        "--cwd",
        "/srv/slurm",
        "--stdout",
        "all.txt",
        "--merge",
        "--umask",
        "077",
        "--cpus",
        "2",
        "--tasks",
        "2",
        "--memory",
        "256M",
        "--gpus",
        "1",
        "--time-limit",
        "5m",
    ];
    let script = "printf '%s|' \"$APP_X\"; pwd; umask; echo told >&2; echo ${SLURM_EXPORT_ENV-none}; sleep 1";
    let job = submit("alice", &options, &["sh", "-c", script]);
    let slurm = number(&job);
    wait_for(&job, "done");
    let told = fs::read_to_string("/srv/slurm/all.txt").unwrap();
    assert_eq!(told, "a 'b'\n#SBATCH --partition=short|/srv/slurm\n0077\ntold\nnone\n");
    assert_eq!(ok(&as_user("root", &["stat", "-c", "%U:%G:%a", "/srv/slurm/all.txt"])), "alice:alice:600");
    for (name, value) in [
        ("Partition", "batch"),
        ("Account", "lab1"),
        ("NumCPUs", "4"),
        ("NumTasks", "2"),
        ("CPUs/Task", "2"),
        ("MinMemoryNode", "256M"),
        ("TimeLimit", "00:05:00"),
        ("Requeue", "0"),
        ("TresPerNode", "gres:gpu:1"),
    ] {
        assert_eq!(field(&slurm, name), value, "{name}");
    }
    assert_eq!(field(&slurm, "Comment"), format!("deputy:{job}"));
}

#[test]
fn nothing_in_a_field_becomes_an_option_a_directive_or_a_command() {
    let _machine = exclusively();
    let odd = [
        "",
        " ",
        "'",
        "'\\''",
        "\"",
        "$(touch /srv/slurm/pwned)",
        "`touch /srv/slurm/pwned`",
        "; touch /srv/slurm/pwned",
        "\n#SBATCH --partition=short\n#SBATCH --job-name=pwned\n",
        "\r\n",
        "a\rb",
        "--wrap=touch /srv/slurm/pwned",
        "-c",
        "& touch /srv/slurm/pwned &",
        "> /srv/slurm/pwned",
        "%j %u \\\\ %%",
        "ä😀\u{1}\t",
    ];
    let out = ["--stdout", "/srv/slurm/it's %j\n#SBATCH -p short"];
    let mut command = vec!["/usr/bin/printf", "%s\\0"];
    command.extend(odd);
    let job = submit("alice", &out, &command);
    let slurm = number(&job);
    wait_for(&job, "done");
    assert_eq!(show(&job)["status"], 0);
    let told = fs::read(out[1]).unwrap();
    assert_eq!(String::from_utf8(told).unwrap(), odd.map(|word| format!("{word}\0")).concat());
    assert_eq!(
        (field(&slurm, "Partition"), field(&slurm, "JobName")),
        ("batch".into(), format!("deputy-{job}"))
    );
    assert!(!fs::exists("/srv/slurm/pwned").unwrap());
    // Fields that are names have no such words.
    for option in ["--partition", "--slurm-account", "--qos"] {
        for value in ["a b", "batch\n#SBATCH", "a,b", "a'b", "a;id", "a=b"] {
            let output = run("alice", &[option, value], &["true"]);
            assert_ne!(output.status, 0, "{option} {value:?}");
        }
    }
    // What a user's own environment says to sbatch is not asked for here.
    fs::write("/home/alice/.bashrc", "export SBATCH_PARTITION=short\n").unwrap();
    let job = submit("alice", &[], &["true"]);
    assert_eq!(field(&number(&job), "Partition"), "batch");
}

#[test]
fn a_cancel_is_verified_whether_the_job_runs_or_waits() {
    let _machine = exclusively();
    let running = submit("alice", &[], &["sleep", "600"]);
    wait_for(&running, "running");
    // One that cannot run beside it.
    let all = ["--cpus", "4", "--tasks", "4"];
    let waiting = submit("alice", &all, &["sleep", "600"]);
    let slurm = number(&waiting);
    wait_until("Slurm says why it waits", || show(&waiting)["reason"] == "Resources");
    assert_eq!(show(&waiting)["state"], "queued");
    assert!(ok(&deputyctl(PORTAL, &["job", "list", "hpc", "--state", "queued"])).contains(&waiting));
    ok(&deputyctl(PORTAL, &["job", "cancel", &waiting]));
    wait_for(&waiting, "abandoned");
    assert_eq!(show(&waiting)["cause"], "Slurm: CANCELLED before it ran");
    assert_eq!(field(&slurm, "JobState"), "CANCELLED");
    let slurm = number(&running);
    ok(&deputyctl(PORTAL, &["job", "cancel", &running]));
    wait_for(&running, "done");
    let record = show(&running);
    assert_eq!((&record["cause"], &record["signal"]), (&"cancelled".into(), &15.into()), "{record}");
    assert_eq!(field(&slurm, "JobState"), "CANCELLED");
    assert_eq!(refused(&deputyctl(PORTAL, &["job", "signal", &running, "TERM"])), "Conflict");
    assert!(launcher_log().contains("job_commanded_at_slurm"));
}

/// A node that does not answer while its job is cancelled loses the script's own end.
#[test]
fn a_cancel_that_meets_the_launch_of_the_script_is_a_cancel() {
    let _machine = exclusively();
    let slurmd = fs::read_to_string("/run/deputy-sandbox/slurmd.pid").unwrap();
    root("kill", &["-STOP", slurmd.trim()]);
    let job = submit("alice", &[], &["sleep", "600"]);
    wait_for(&job, "running");
    ok(&deputyctl(PORTAL, &["job", "cancel", &job]));
    let slurm = number(&job);
    wait_until("Slurm ends it", || field(&slurm, "JobState") == "COMPLETING");
    root("kill", &["-CONT", slurmd.trim()]);
    wait_for(&job, "done");
    assert_eq!(show(&job)["cause"], "cancelled");
}

#[test]
fn a_signal_reaches_the_jobs_first_process() {
    let _machine = exclusively();
    let script = "trap 'exit 42' USR1; touch /srv/slurm/trap; while :; do sleep 0.1; done";
    let job = submit("alice", &[], &["bash", "-c", script]);
    wait_until("the job listens", || fs::exists("/srv/slurm/trap").unwrap());
    ok(&deputyctl(PORTAL, &["job", "signal", &job, "USR1"]));
    wait_for(&job, "done");
    assert_eq!(show(&job)["exit_code"], 42);
}

#[test]
fn a_consent_that_is_taken_back_ends_jobs_at_slurm_too() {
    let _machine = exclusively();
    link("hpc", PORTAL, "carol", "carol");
    let job = submit("carol", &[], &["sleep", "600"]);
    wait_for(&job, "running");
    let answers = Fake::as_user("root").ask(&withdrawal("hpc", "carol", "carol", true), &[]);
    assert!(
        matches!(answers.replies[..], [LauncherReply::Withdrawn(withdrawn)] if withdrawn.removed && withdrawn.left == 0),
        "{answers:?}"
    );
    wait_for(&job, "done");
    assert_eq!(refused(&run("carol", &[], &["true"])), "NoConsent");
}

/// Slurm's programs as they are, but for one that says more, or is not there for a while.
fn odd_programs(squeue: &str) {
    fs::create_dir_all("/etc/slurm/odd").unwrap();
    for (name, text) in [
        ("sbatch", "exec /usr/bin/sbatch \"$@\""),
        ("scancel", "exec /usr/bin/scancel \"$@\""),
        ("sacct", "exec /usr/bin/sacct \"$@\""),
        ("squeue", squeue),
    ] {
        let path = format!("/etc/slurm/odd/{name}");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn a_line_that_cannot_be_read_takes_the_word_from_its_own_job_alone() {
    let _machine = exclusively();
    // A cancel that meets the launch of a script reaches the accounting late: both scripts are to run.
    let [spoilt, whole] = ["spoilt", "whole"].map(|name| {
        let mark = format!("/srv/slurm/{name}");
        let job = submit("alice", &[], &["sh", "-c", &format!("touch {mark}; exec sleep 600")]);
        wait_until("its script runs", || Path::new(&mark).exists());
        wait_for(&job, "running");
        job
    });
    let (spoilt_number, whole_number) = (number(&spoilt), number(&whole));
    // Of one job a line without an end, and one that is of nobody.
    odd_programs(&format!(
        "/usr/bin/squeue \"$@\" | sed 's/^\\({spoilt_number}|.*\\)|$/\\1/'; echo 'what is this'"
    ));
    settings(
        "operator = \"slurm\"\nperiod_seconds = 1\nlost_after_seconds = 10\nprograms = \"/etc/slurm/odd\"",
    );
    root("scancel", &[&spoilt_number, &whole_number]);
    wait_for(&whole, "done");
    assert_eq!(show(&whole)["cause"], "cancelled");
    wait_until("the launcher says so", || launcher_log().contains("slurm_strange"));
    // It has no news, and is neither ended nor lost.
    std::thread::sleep(std::time::Duration::from_secs(15));
    assert_eq!(show(&spoilt)["state"], "running");
    usual_settings();
    wait_for(&spoilt, "done");
}

#[test]
fn what_slurm_says_against_a_cancel_or_a_signal_is_the_callers() {
    let _machine = exclusively();
    let job = submit("alice", &[], &["sleep", "600"]);
    let slurm = number(&job);
    wait_for(&job, "running");
    // Nobody asks where it stands, so that Deputy does not hear of its end.
    odd_programs("exit 1");
    settings("operator = \"slurm\"\nperiod_seconds = 1\nprograms = \"/etc/slurm/odd\"");
    root("scancel", &[&slurm]);
    wait_until("Slurm has ended it", || field(&slurm, "JobState") == "CANCELLED");
    refused_with(&deputyctl(PORTAL, &["job", "signal", &job, "USR1"]), "SlurmRefused", "Invalid job id");
    usual_settings();
    wait_for(&job, "done");
    // A controller that does not answer.
    let job = submit("alice", &[], &["sleep", "600"]);
    wait_for(&job, "running");
    let pid = fs::read_to_string("/run/deputy-sandbox/slurmctld.pid").unwrap();
    root("kill", &["-STOP", pid.trim()]);
    let output = deputyctl(PORTAL, &["job", "cancel", &job]);
    root("kill", &["-CONT", pid.trim()]);
    refused_with(&output, "SlurmUnavailable", "scancel");
    ok(&deputyctl(PORTAL, &["job", "cancel", &job]));
    wait_for(&job, "done");
}

#[test]
fn the_owners_defaults_decide_nothing_that_policy_lists_or_bounds() {
    let _machine = exclusively();
    for command in [&["add", "qos", "better"][..], &["modify", "user", "alice", "set", "qos+=better"]] {
        as_user("root", &[&["sacctmgr", "--immediate"], command].concat());
    }
    let conf = fs::read_to_string("/etc/slurm/slurm.conf").unwrap();
    fs::write("/etc/slurm/slurm.conf", format!("{conf}CliFilterPlugins=cli_filter/user_defaults\n")).unwrap();
    fs::create_dir_all("/home/alice/.slurm").unwrap();
    let of_sbatch = ["array=1-3", "dependency=singleton", "requeue", "export=ALL"];
    let defaults = [&OWNERS_DEFAULTS[..], &of_sbatch].concat();
    // All at once contradict each other before they are overridden.
    let jobs = defaults.iter().map(|default| {
        fs::write("/home/alice/.slurm/defaults", format!("sbatch:*:{default}\n")).unwrap();
        let begin =
            ["run", "--app", "hpc", "--account", "alice", "--kind", "bounded", "--detach", "--executor"];
        ok(&deputyctl(PORTAL, &[&begin[..], &["slurm", "--", "true"]].concat()))
    });
    let jobs: Vec<String> = jobs.collect();
    for (default, job) in defaults.iter().zip(jobs) {
        wait_for(&job, "done");
        let shown = ok(&as_user("root", &["scontrol", "--oneliner", "show", "job", &number(&job)]));
        for field in [
            "Partition=batch",
            "QOS=normal",
            "Account=lab1",
            "NumNodes=1",
            "NumCPUs=1",
            "NumTasks=1",
            "MinMemoryNode=64M",
            "TimeLimit=00:02:00",
            "Requeue=0",
            "Dependency=(null)",
        ] {
            assert!(shown.contains(&format!(" {field} ")), "{default}: no {field} in {shown}");
        }
        assert!(!shown.contains("ArrayJobId") && !shown.contains("gres"), "{default}: {shown}");
        assert!(shown.contains(&format!("Comment=deputy:{job}")), "{default}: {shown}");
    }
    // The plugin is there: the owner's own submission has them.
    fs::write("/home/alice/.slurm/defaults", "sbatch:*:partition=short\n").unwrap();
    let own = ok(&as_user("alice", &["sh", "-c", "cd; sbatch --parsable --output=/dev/null --wrap=true"]));
    assert_eq!(field(&own, "Partition"), "short");
    fs::remove_file("/home/alice/.slurm/defaults").unwrap();
    fs::write("/etc/slurm/slurm.conf", conf).unwrap();
}

#[test]
fn without_an_operator_each_os_account_asks_for_its_own() {
    let _machine = exclusively();
    settings("period_seconds = 1");
    let (hers, his) = (submit("alice", &[], &["sh", "-c", "exit 4"]), submit("bob", &[], &["true"]));
    for (job, status) in [(&hers, 4), (&his, 0)] {
        wait_for(job, "done");
        assert_eq!(show(job)["status"], status);
    }
    usual_settings();
}

#[test]
fn a_job_that_slurm_no_longer_knows_is_lost_and_nothing_else() {
    let _machine = exclusively();
    settings("operator = \"slurm\"\nperiod_seconds = 1\nlost_after_seconds = 4");
    let job = submit("alice", &[], &["sleep", "600"]);
    let slurm = number(&job);
    wait_for(&job, "running");
    // Slurm away is not the job away.
    let pid = fs::read_to_string("/run/deputy-sandbox/slurmctld.pid").unwrap();
    root("kill", &["-STOP", pid.trim()]);
    std::thread::sleep(std::time::Duration::from_secs(12));
    root("kill", &["-CONT", pid.trim()]);
    assert_eq!(show(&job)["state"], "running");
    // As if the cluster had forgotten it: the number in root's record is one that Slurm never gave.
    fs::write(format!("/var/lib/deputy/jobs/{job}/slurm"), "job = 4000000\n").unwrap();
    wait_for(&job, "lost");
    assert_eq!(show(&job)["cause"], "Slurm has it neither in its queue nor in its accounting");
    root("scancel", &[&slurm]);
    assert_eq!(submissions(&job), [slurm]);
    usual_settings();
}

#[test]
fn without_a_table_for_slurm_nothing_is_submitted() {
    let _machine = exclusively();
    settings("programs = \"/nonexistent\"");
    refused_with(&run("alice", &[], &["true"]), "SlurmUnavailable", "/nonexistent");
    let text = fs::read_to_string("/etc/deputy/deputy.toml").unwrap();
    let without = text.split("\n[executor.slurm]").next().unwrap();
    fs::write("/etc/deputy/deputy.toml", without).unwrap();
    refused_with(&run("alice", &[], &["true"]), "SlurmUnavailable", "not set up");
    assert_eq!(asks(request("alice", "alice"), SlurmRequest::default()), Some(Code::SlurmUnavailable));
    usual_settings();
}
