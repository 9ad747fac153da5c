//! Quotas that a program of root's tells, alerts, the look before a job, and what becomes of a file system that is full.
#![forbid(unsafe_code)]

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deputy_core::Code;
use deputy_core::message::{LauncherReply, LauncherRequest, QuotaRequest};
use deputy_core::quota::Whose;
use deputy_suite::acting::ids;
use deputy_suite::client::{Client, Dictionary, Options, on_bus, text};
use deputy_suite::files::files_of;
use deputy_suite::machine::{
    add_service_user, install_application, names_in, run, running, service_pid, signal, wait_until,
};
use deputy_suite::people::{ok, refused};
use deputy_suite::requests::grant_in;
use deputy_suite::{Fake, Output, as_user, deputyctl, need_the_sandbox};
use futures_util::StreamExt as _;
use zbus::Variant;

const PROGRAM: &str = "/etc/site-quota";
const ROOT: &str = "/data/quota";
const SETTINGS: &str = "/etc/deputy/deputy.toml";

/// One test at a time: they share the program, the settings and what is used.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<bool> = Mutex::new(false);
    static ALONE: Mutex<()> = Mutex::new(());
    need_the_sandbox();
    let mut ready = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    if !std::mem::replace(&mut *ready, true) {
        begin();
    }
    drop(ready);
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An application whose word is enough, with a file system of its own for its root.
fn begin() {
    fs::create_dir_all(ROOT).expect("the root");
    fs::set_permissions("/data", Permissions::from_mode(0o755)).expect("a mode");
    run("mount", &["-t", "tmpfs", "-o", "size=2M,mode=777", "none", ROOT]);
    program("true");
    settings("[quota]\ncheck_seconds = 86400\n");
    add_service_user("quotaportal");
    install_application(
        "quotas",
        &format!(
            "service_user = \"quotaportal\"\ntrust = \"application\"\n\
             [[roots]]\npath = \"{ROOT}\"\naccess = \"read-write\"\n[kinds.batch]\ncommands = [\"*\"]\n"
        ),
    );
    wait_until("the application is known", || {
        deputyctl("quotaportal", &["account", "add", "quotas", "ada"]).status == 0
    });
    grant_in("quotas", "ada", "alice");
    ok(&deputyctl("quotaportal", &["link", "request", "quotas", "ada", "alice"]));
}

/// Adds the quota program to the settings that the sandbox has.
fn settings(more: &str) {
    let command = format!(
        "[[quota.commands]]\nfstype = [\"tmpfs\"]\npath = \"/data\"\nseconds = 2\n\
         argv = [\"{PROGRAM}\", \"{{os_user}}\", \"{{uid}}\", \"{{path}}\"]\n"
    );
    let beside = format!("{SETTINGS}.new");
    let own = fs::read_to_string("/etc/deputy/own.toml").unwrap_or_else(|_| {
        let own = fs::read_to_string(SETTINGS).unwrap_or_default();
        fs::write("/etc/deputy/own.toml", &own).expect("a copy");
        own
    });
    fs::write(&beside, format!("{own}\n{more}\n{command}")).expect("the settings");
    fs::rename(&beside, SETTINGS).expect("their place");
}

/// The program that tells quotas, whose shell commands are these.
fn program(script: &str) {
    let beside = format!("{PROGRAM}.new");
    fs::write(&beside, format!("#!/bin/sh\n{script}\n")).expect("the program");
    fs::set_permissions(&beside, Permissions::from_mode(0o755)).expect("its mode");
    fs::rename(&beside, PROGRAM).expect("its place");
}

fn request(os_user: &str, root: &str, filesystem: &str) -> LauncherRequest {
    LauncherRequest::TellQuota(QuotaRequest {
        of: files_of("quotas", "ada", os_user),
        root: root.into(),
        filesystem: filesystem.into(),
    })
}

/// What a taken-over `deputyd` is told.
fn told(request: &LauncherRequest) -> LauncherReply {
    let answers = Fake::daemon().ask(request, &[]);
    let [reply]: [LauncherReply; 1] = answers.replies.try_into().expect("one answer");
    reply
}

fn denial(reply: LauncherReply) -> (Code, String) {
    match reply {
        LauncherReply::Denied(denial) => (denial.code, denial.message),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_program_that_is_not_right_tells_nothing() {
    let _turn = turn();
    for (script, expected) in [
        ("exit 3", "status 3"),
        ("echo nonsense", "line 1"),
        ("echo user space_used=1; echo user space_used=2", "two lines"),
        ("kill -9 $$", "signal 9"),
        ("yes user space_used=1", "more than"),
        ("sleep 4251", "too long"),
        // It has closed its output, and does not end.
        ("exec >&-; sleep 4251", "too long"),
        // It has ended, and something of it keeps the output open.
        ("sleep 4251 &", "too long"),
    ] {
        program(script);
        let (code, message) = denial(told(&request("alice", ROOT, "tmpfs")));
        assert_eq!(code, Code::QuotaCommandFailed, "{script}");
        assert!(message.contains(expected) && message.contains(PROGRAM), "{script}: {message}");
        wait_until("nothing of it is left", || running("sleep 4251").is_empty());
    }
    program("echo user space_used=1");
    chown(PROGRAM, Some(ids("alice").uid), None).expect("its owner");
    let (code, message) = denial(told(&request("alice", ROOT, "tmpfs")));
    assert_eq!(code, Code::QuotaCommandFailed);
    assert!(message.contains("owner") || message.contains("root"), "{message}");
    chown(PROGRAM, Some(0), None).expect("its owner");
    fs::set_permissions(PROGRAM, Permissions::from_mode(0o644)).expect("its mode");
    let (_, message) = denial(told(&request("alice", ROOT, "tmpfs")));
    assert!(message.contains("could not be started"), "{message}");
}

#[test]
fn the_program_is_asked_about_a_root_of_the_account_s_by_its_consent_alone() {
    let _turn = turn();
    program("echo user space_used=1");
    assert!(matches!(told(&request("alice", ROOT, "tmpfs")), LauncherReply::Quotas(_)));
    for (request, code) in [
        (request("bob", ROOT, "tmpfs"), Code::NoConsent),
        (request("alice", "/data/other", "tmpfs"), Code::PathOutside),
        (request("alice", "/etc", "tmpfs"), Code::NotFound),
        (request("alice", ROOT, "nfs"), Code::NotFound),
    ] {
        assert_eq!(denial(told(&request)).0, code);
    }
}

#[test]
fn the_program_is_the_account_and_holds_nothing_else() {
    let _turn = turn();
    let seen = format!("{ROOT}/seen");
    let _ = fs::remove_file(&seen);
    program(&format!(
        "{{ echo \"$@\"; id -u; id -G; env; ls /proc/self/fd; grep -E 'NoNewPrivs|CapEff|CapBnd' /proc/self/status; }} \
         >{seen}; echo user space_used=5 space_hard=10; echo group:77 files_used=3"
    ));
    let LauncherReply::Quotas(quotas) = told(&request("alice", ROOT, "tmpfs")) else { panic!("quotas") };
    assert_eq!(quotas.len(), 2);
    assert_eq!((quotas[0].space.used, quotas[0].space.hard), (5, Some(10)));
    assert_eq!(quotas[1].whose, Whose::Group(deputy_core::OsGid::new(77).expect("a gid")));
    let alice = ids("alice");
    let found = fs::metadata(&seen).expect("what it saw");
    assert_eq!((found.uid(), found.mode() & 0o777), (alice.uid, 0o600));
    let text = fs::read_to_string(&seen).expect("what it saw");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], format!("alice {} {ROOT}", alice.uid));
    assert_eq!(lines[1], alice.uid.to_string());
    let groups = ok(&as_user("alice", &["id", "-G"]));
    let sorted = |line: &str| {
        let mut groups: Vec<String> = line.split(' ').map(ToOwned::to_owned).collect();
        groups.sort();
        groups
    };
    assert_eq!(sorted(lines[2]), sorted(&groups));
    assert!(text.contains("NoNewPrivs:\t1") && text.contains("CapEff:\t0000000000000000"), "{text}");
    assert!(text.contains("HOME=/home/alice"), "{text}");
    // The shell's own two are PWD and OLDPWD, if it sets them.
    let foreign = lines.iter().filter(|line| {
        line.split_once('=').is_some_and(|(name, _)| {
            !["HOME", "LOGNAME", "PATH", "SHELL", "USER", "PWD", "OLDPWD", "_"].contains(&name)
        })
    });
    assert_eq!(foreign.count(), 0, "{text}");
    // 0, 1, 2, and the one by which ls reads the folder.
    let descriptors = lines.iter().filter(|line| line.parse::<u8>().is_ok_and(|number| number < 100)).count();
    assert!(descriptors <= 5, "{text}");
}

fn used(bytes: u64) {
    program(&format!("echo user space_used={bytes} space_hard=1000000 files_used=9 files_soft=100"));
}

fn alerts() -> Vec<serde_json::Value> {
    let printed = ok(&deputyctl("quotaportal", &["--json", "alert", "list", "quotas"]));
    let alerts: Vec<serde_json::Value> = serde_json::from_str(&printed).expect("JSON");
    alerts
}

/// The text of everything in the ledger.
fn ledger() -> String {
    let mut text = String::new();
    for entry in fs::read_dir("/var/lib/deputy/ledger").expect("the ledger").flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "ledger") {
            text.push_str(&String::from_utf8_lossy(&fs::read(entry.path()).expect("a segment")));
        }
    }
    text
}

#[test]
fn a_threshold_is_told_once_to_those_it_belongs_to_and_survives_a_restart() {
    let _turn = turn();
    used(0);
    ok(&deputyctl("quotaportal", &["quota", "--account", "ada"]));
    assert!(alerts().is_empty(), "{:?}", alerts());
    let heard = |user: &'static str| {
        move || {
            on_bus(user, async |client: Client| {
                let mut messages = client.messages();
                client.call::<_, ()>("Alerts.Subscribe", &(Options::new(),)).await.expect("subscribed");
                let mut told = Vec::new();
                while let Ok(Some(Ok(message))) =
                    tokio::time::timeout(Duration::from_secs(12), messages.next()).await
                {
                    if message.header().member().is_some_and(|member| member.as_str() == "Changed") {
                        let (alert,): (Dictionary,) = message.body().deserialize().expect("its arguments");
                        let threshold = u32::try_from(alert["threshold"].try_clone().expect("a number"));
                        told.push((text(&alert, "of").expect("of what"), threshold.expect("a number")));
                    }
                }
                told
            })
        }
    };
    let (portal, owner, other, stranger) = std::thread::scope(|scope| {
        let threads = ["quotaportal", "alice", "otherportal", "bob"].map(|user| scope.spawn(heard(user)));
        std::thread::sleep(Duration::from_secs(1));
        for bytes in [790_000, 800_000, 810_000, 799_000, 960_000, 970_000, 100_000] {
            used(bytes);
            for _ in 0..2 {
                ok(&deputyctl("quotaportal", &["quota", "--account", "ada"]));
            }
        }
        let [portal, owner, other, stranger] = threads.map(|thread| thread.join().expect("no panic"));
        (portal, owner, other, stranger)
    });
    let expected = [80, 95, 0].map(|threshold| ("space".to_owned(), threshold));
    assert_eq!(portal, expected);
    assert_eq!(owner, expected);
    assert!(other.is_empty() && stranger.is_empty(), "{other:?} {stranger:?}");
    let refused_to_root = on_bus("root", async |client: Client| {
        client.call::<_, ()>("Alerts.Subscribe", &(Options::new(),)).await.expect_err("refused")
    });
    assert_eq!(refused_to_root.code(), "NotAuthorized");

    used(850_000);
    ok(&deputyctl("quotaportal", &["quota", "--account", "ada"]));
    let found = alerts();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((&found[0]["threshold"], &found[0]["used"]), (&80.into(), &850_000.into()));
    assert_eq!(found[0]["place"], ROOT);
    // Another application's alerts are not there.
    assert_eq!(refused(&deputyctl("otherportal", &["alert", "list", "quotas"])), "NotFound");
    let daemon = service_pid("deputyd");
    signal(daemon, "KILL");
    wait_until("another daemon answers", || {
        service_pid("deputyd") != daemon && deputyctl("quotaportal", &["status"]).status == 0
    });
    let records = || ledger().matches("\"quota-alert\"").count();
    let before = records();
    ok(&deputyctl("quotaportal", &["quota", "--account", "ada"]));
    assert_eq!(alerts().len(), 1);
    assert_eq!(records(), before, "the same alert was recorded twice");
    used(0);
    ok(&deputyctl("quotaportal", &["quota", "--account", "ada"]));
    assert!(alerts().is_empty());
}

#[test]
fn who_used_files_is_looked_at_without_being_asked() {
    let _turn = turn();
    used(0);
    settings("[quota]\ncheck_seconds = 10\nthresholds = [50]\n");
    used(600_000);
    wait_until("the settings are known", || {
        deputyctl("quotaportal", &["file", "ls", "--account", "ada", ROOT]).status == 0
    });
    wait_until("the alert is there", || alerts().iter().any(|alert| alert["threshold"] == 50));
    used(0);
    settings("[quota]\ncheck_seconds = 86400\n");
    wait_until("the alert is over", || {
        ok(&deputyctl("quotaportal", &["quota", "--account", "ada"]));
        alerts().is_empty()
    });
}

fn job(more: &[&str]) -> Output {
    let words = ["run", "--app", "quotas", "--account", "ada", "--cwd", ROOT];
    deputyctl("quotaportal", &[&words, more, &["--", "true"]].concat())
}

#[test]
fn a_job_that_needs_more_room_than_there_is_is_refused_with_the_numbers() {
    let _turn = turn();
    used(400_000);
    for (needs, room) in [("600001", "586.0 KiB"), ("50G", "50.0 GiB")] {
        let output = job(&["--needs", needs]);
        assert_eq!(refused(&output), "NotEnoughSpace");
        assert!(output.stderr.contains(room) && output.stderr.contains(ROOT), "{}", output.stderr);
        assert!(output.stderr.contains("390.7 KiB of 976.6 KiB"), "{}", output.stderr);
    }
    assert_eq!(job(&["--needs", "600000"]).status, 0);
    // What nothing forbids but the file system's own size: 2 MiB.
    program("true");
    assert_eq!(refused(&job(&["--needs", "3M"])), "NotEnoughSpace");
    assert_eq!(job(&["--needs", "1M"]).status, 0);
    // What cannot be known is no room.
    program("exit 1");
    assert_eq!(refused(&job(&["--needs", "1"])), "QuotaCommandFailed");
    assert_eq!(job(&[]).status, 0);
    assert_eq!(refused(&job(&["--needs", "1", "--needs-path", "/etc"])), "PathOutside");
    assert_eq!(refused(&job(&["--needs", "1", "--needs-path", "/data/quota/absent"])), "FileError");
    let nowhere = deputyctl(
        "quotaportal",
        &["run", "--app", "quotas", "--account", "ada", "--needs", "1", "--", "true"],
    );
    assert_eq!(refused(&nowhere), "InvalidArgument");
}

#[test]
fn open_ondemand_is_given_what_it_reads_or_nothing() {
    let _turn = turn();
    program("echo user space_used=1025 space_hard=10240 files_used=7");
    let words = ["quota", "--account", "ada", "--format", "ood"];
    let printed: serde_json::Value =
        serde_json::from_str(&ok(&deputyctl("quotaportal", &words))).expect("JSON");
    assert_eq!(printed["version"], 1);
    let quota = &printed["quotas"][0];
    assert_eq!(
        (&quota["user"], &quota["path"], &quota["type"]),
        (&"alice".into(), &ROOT.into(), &"user".into())
    );
    assert_eq!((&quota["total_block_usage"], &quota["block_limit"]), (&2.into(), &10.into()));
    assert_eq!((&quota["total_file_usage"], &quota["file_limit"]), (&7.into(), &0.into()));
    program("exit 1");
    assert_eq!(refused(&deputyctl("quotaportal", &words)), "QuotaCommandFailed");
    // For people the rest is told, with what is missing.
    let output = deputyctl("quotaportal", &["quota", "--account", "ada"]);
    assert_eq!(output.status, 0);
    assert!(output.stderr.contains("not known") && output.stderr.contains("status 1"), "{}", output.stderr);
}

#[test]
fn a_full_file_system_is_told_with_its_numbers_and_leaves_nothing_half() {
    let _turn = turn();
    program("true");
    let file = |words: &[&str]| {
        deputyctl("quotaportal", &[&["file", words[0], "--account", "ada"], &words[1..]].concat())
    };
    fs::write("/tmp/large", vec![b'x'; 3 << 20]).expect("a file");
    fs::set_permissions("/tmp/large", Permissions::from_mode(0o644)).expect("a mode");
    ok(&file(&["mkdir", "/data/quota/up"]));
    let output = file(&["put", "/tmp/large", "/data/quota/up/large"]);
    assert_eq!(refused(&output), "FileError");
    assert!(
        output.stderr.contains("No space left") && output.stderr.contains("/data/quota: 0 bytes free"),
        "{}",
        output.stderr
    );
    assert_eq!(names_in("/data/quota/up"), Vec::<String>::new());

    // A tree of which a part has room.
    let tree = Path::new("/data/quota/tree");
    fs::create_dir(tree).expect("a folder");
    for number in 0..12 {
        fs::write(tree.join(format!("f{number:02}")), vec![b'y'; 100 << 10]).expect("a file");
    }
    let output = file(&["cp", "/data/quota/tree", "/data/quota/copy"]);
    assert_eq!(refused(&output), "FileError");
    assert!(
        output.stderr.contains("No space left") && output.stderr.contains("; /data/quota: "),
        "{}",
        output.stderr
    );
    let part = names_in("/data/quota/copy");
    assert!(!part.is_empty() && part.len() < 12, "{part:?}");
    for name in &part {
        assert_eq!(
            fs::metadata(format!("/data/quota/copy/{name}")).expect("a file").len(),
            100 << 10,
            "{name}"
        );
    }
    run("mount", &["-o", "remount,size=4M", ROOT]);
    ok(&file(&["cp", "--resume", "/data/quota/tree", "/data/quota/copy"]));
    assert_eq!(names_in("/data/quota/copy").len(), 12);
    for folder in ["/data/quota/tree", "/data/quota/copy", "/data/quota/up"] {
        fs::remove_dir_all(folder).expect("removed");
    }
    // Not before: it is made no smaller than what it holds.
    run("mount", &["-o", "remount,size=2M", ROOT]);
}

#[test]
fn what_is_done_with_files_is_recorded_once_a_minute_with_the_first_changes() {
    let _turn = turn();
    program("true");
    on_bus("quotaportal", async |client: Client| {
        let p = |name: &str| format!("{ROOT}/{name}").into_bytes();
        for number in 0..100 {
            let make: Options = [("parents", Variant::from(true))].into();
            client
                .call::<_, ()>("Files.MakeDirectory", &("ada", p(&format!("audited-{number}")), make))
                .await
                .expect("made");
        }
        for _ in 0..50 {
            let refused = client.call::<_, ()>("Files.Remove", &("ada", p("absent"), Options::new())).await;
            assert_eq!(refused.expect_err("absent").code(), "FileError");
        }
    });
    // The end of the daemon writes what is counted.
    let daemon = service_pid("deputyd");
    signal(daemon, "TERM");
    wait_until("another daemon answers", || {
        service_pid("deputyd") != daemon && deputyctl("quotaportal", &["status"]).status == 0
    });
    let text = ledger();
    let records: Vec<&str> = text.split("\"files-used\"").skip(1).collect();
    let record = records.iter().find(|record| record.contains("audited-0")).expect("a record");
    assert!(record.contains("\"account\":\"ada\"") && record.contains("\"os_user\":\"alice\""), "{record}");
    let counted = |of: &str, method: &str| -> u64 {
        let (_, behind) = record.split_once(&format!("\"{of}\":{{")).expect("what is counted");
        let (_, number) = behind.split_once(&format!("\"{method}\":")).expect("the method");
        let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().expect("a number")
    };
    assert!(counted("calls", "Files.MakeDirectory") >= 100, "{record}");
    assert!(counted("refused", "Files.Remove") >= 50, "{record}");
    assert!(text.matches("audited-").count() <= 40, "each change was recorded");
}

#[test]
fn a_file_system_without_access_control_lists_is_a_finding() {
    let _turn = turn();
    fs::create_dir_all("/data/listless").expect("a folder");
    run("mount", &["-t", "ramfs", "none", "/data/listless"]);
    add_service_user("listlessportal");
    install_application(
        "listless",
        "service_user = \"listlessportal\"\n[[roots]]\npath = \"/data/listless\"\naccess = \"read-only\"\n",
    );
    wait_until("the application is known", || {
        deputyctl("root", &["account", "add", "listless", "ada"]).status == 0
    });
    grant_in("listless", "ada", "alice");
    let output = deputyctl("root", &["--json", "link", "check", "listless", "ada", "alice"]);
    let found: Vec<serde_json::Value> = serde_json::from_str(&output.stdout).expect("JSON");
    let one =
        found.iter().find(|finding| finding["code"] == "file-system-without-acls").expect("the finding");
    assert_eq!(one["severity"], "note");
    assert!(
        one["message"]
            .as_str()
            .is_some_and(|words| words.contains("/data/listless") && words.contains("ramfs"))
    );
    // The other root is on one that has them.
    let output = deputyctl("root", &["--json", "link", "check", "quotas", "ada", "alice"]);
    assert!(!output.stdout.contains("file-system-without-acls"), "{}", output.stdout);
}
