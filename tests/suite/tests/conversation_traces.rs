//! G3 and G4: where a password must not turn up, and what a conversation's process must not share. What is looked for
//! is in one process at the time, so that a test that looked in the wrong place would be noticed.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs::{self, File};

use deputy_core::message::Purpose;
use deputy_core::message::conversation::ServerFrame;
use deputy_suite::acting::{acting_as, ids};
use deputy_suite::machine::{
    add_person, children_of, command_line, launcher_log, launcher_pid, processes, wait_until,
};
use deputy_suite::need_the_sandbox;
use deputy_suite::talk::{Talk, wanted};

const PASSWORD: &str = "Seldom-seen-4711";

/// Every process whose command line or environment has this text.
fn shown_by(text: &str) -> Vec<i32> {
    let has = |pid: i32, file: &str| {
        let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    };
    processes().into_iter().filter(|&pid| has(pid, "cmdline") || has(pid, "environ")).collect()
}

/// The conversations that are under way.
fn conversations() -> Vec<i32> {
    children_of(launcher_pid())
        .into_iter()
        .filter(|&pid| command_line(pid) == "deputy-conversation")
        .collect()
}

#[test]
fn a_password_is_in_no_command_line_environment_or_log() {
    need_the_sandbox();
    // In a name's place it is shown: this is what would be found.
    let mut decoy = std::process::Command::new("sleep").arg("60").env("DECOY", PASSWORD).spawn().unwrap();
    let decoys_pid = i32::try_from(decoy.id()).unwrap();
    wait_until("the decoy shows it", || shown_by(PASSWORD) == [decoys_pid]);
    decoy.kill().unwrap();
    decoy.wait().unwrap();

    add_person("careful", PASSWORD, &["lab1"]);
    for (purpose, given, what) in [
        (Purpose::Link, format!("{PASSWORD}-wrong"), "wrong"),
        (Purpose::Link, PASSWORD.to_owned(), "right"),
        (Purpose::Login, PASSWORD.to_owned(), "right"),
    ] {
        let request = wanted(purpose, "demo", "careful", "careful");
        let mut talk = Talk::begin(&request);
        talk.greet();
        assert!(matches!(talk.frame(), Some(ServerFrame::Secret(_))));
        talk.answer(&given);
        // Again and again while PAM works with it: a wrong one keeps it busy for seconds.
        let outcome = std::thread::scope(|scope| {
            let end = scope.spawn(|| talk.end());
            while !end.is_finished() {
                assert_eq!(shown_by(PASSWORD), Vec::<i32>::new(), "{what}");
            }
            end.join().unwrap()
        });
        assert_eq!(outcome.is_success(), what == "right", "{outcome:?}");
    }
    let log = launcher_log();
    assert!(log.contains("os_user=careful") && log.contains("authentication_refused"), "{log}");
    assert!(!log.contains(PASSWORD));
    for entry in fs::read_dir("/var/log/deputy-sandbox").unwrap().flatten() {
        let text = fs::read(entry.path()).unwrap();
        assert!(!String::from_utf8_lossy(&text).contains(PASSWORD), "{}", entry.path().display());
    }
    let found = deputy_suite::as_user(
        "root",
        &[
            "grep",
            "-rlF",
            PASSWORD,
            "/var/lib/deputy/consent",
            "/var/lib/deputy/requests",
            "/run/deputy/tries",
        ],
    );
    // Status 1 of grep: read everything, found nothing.
    assert_eq!((found.status, found.stdout.as_str()), (1, ""), "{}", found.stderr);
}

#[test]
fn each_conversation_is_a_program_started_afresh_that_nobody_can_look_into() {
    need_the_sandbox();
    let request = wanted(Purpose::Link, "demo", "fresh", "alice");
    let mut talks: Vec<Talk> = (0..3).map(|_| Talk::begin(&request)).collect();
    for talk in &mut talks {
        talk.greet();
        assert!(matches!(talk.frame(), Some(ServerFrame::Secret(_))));
    }
    let mut found: Vec<i32> = Vec::new();
    wait_until("there are three conversations", || {
        found = conversations();
        found.len() >= 3
    });

    let maps = |pid: i32| fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let first_address = |pid: i32| maps(pid).split('-').next().unwrap().to_owned();
    let mut addresses: Vec<String> = found.iter().map(|&pid| first_address(pid)).collect();
    addresses.push(first_address(launcher_pid()));
    let distinct: BTreeSet<&String> = addresses.iter().collect();
    assert_eq!(distinct.len(), addresses.len(), "an address space that was forked, not made: {addresses:?}");

    let launchers = descriptors(launcher_pid());
    for &pid in &found {
        assert_eq!(fs::read(format!("/proc/{pid}/environ")).unwrap(), b"", "an environment");
        let own = descriptors(pid);
        let shared: Vec<&String> =
            own.iter().filter(|d| d.starts_with("socket:") && launchers.contains(*d)).collect();
        assert!(shared.is_empty(), "sockets of the launcher's: {shared:?}");
        assert!(!own.iter().any(|d| d.contains("signalfd") || d.contains("memfd:deputy-request")), "{own:?}");
        for file in ["mem", "maps", "environ", "auxv", "stack", "fd"] {
            let path = format!("/proc/{pid}/{file}");
            let open = || File::open(&path).and_then(|file| file.metadata()).is_ok() && opens(&path);
            for user in ["alice", "portal", "deputy"] {
                assert!(!acting_as(ids(user), open), "{user} can look into {path}");
            }
        }
        assert!(File::open(format!("/proc/{pid}/mem")).is_ok(), "root can, so the path is right");
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
        assert_eq!(fs::read_dir(format!("/proc/{pid}/task")).unwrap().count(), 1, "threads");
    }
    for talk in talks {
        talk.answer("wonder");
        assert!(talk.end().is_success());
    }
    let before = found;
    let mut another = Talk::begin(&request);
    another.greet();
    another.frame();
    assert!(conversations().iter().any(|pid| !before.contains(pid)), "a process for two conversations");
    another.answer("wonder");
    assert!(another.end().is_success());
}

/// What the descriptors of a process are, above standard error.
fn descriptors(pid: i32) -> BTreeSet<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok_and(|number| number > 2))
        .filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned()))
        .collect()
}

/// Whether a file or folder gives up its contents.
fn opens(path: &str) -> bool {
    fs::read_dir(path).is_ok()
        || File::open(path).is_ok_and(|mut file| std::io::Read::read(&mut file, &mut [0]).is_ok())
}
