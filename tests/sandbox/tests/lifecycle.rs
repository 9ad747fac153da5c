//! Exit statuses, signals, what reaches the command, and several sandboxes at once.

mod common;

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use common::{PROGRAM, eventually, good, processes_with, run, sandbox, text};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn plain(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(PROGRAM).arg("--no-daemons").arg("--").args(arguments).output().unwrap();
    (output.status.code(), text(&output.stderr))
}

#[test]
fn the_exit_status_is_the_command_s() {
    assert_eq!(plain(&["true"]).0, Some(0));
    assert_eq!(plain(&["sh", "-c", "exit 7"]).0, Some(7));
    assert_eq!(plain(&["sh", "-c", "kill -TERM $$"]).0, Some(143));
    assert_eq!(plain(&["sh", "-c", "kill -KILL $$"]).0, Some(137));
    let (status, message) = plain(&["/no/such/program"]);
    assert_eq!(status, Some(127));
    assert!(message.contains("/no/such/program"), "{message}");
    // Inside, this is a copy that other accounts are written to.
    let accounts = std::fs::read("/etc/passwd").unwrap();
    assert_eq!(plain(&["/etc/passwd"]).0, Some(126));
    assert_eq!(std::fs::read("/etc/passwd").unwrap(), accounts, "the machine's own is as it was");
}

#[test]
fn its_own_failures_have_a_remedy() {
    let output =
        Command::new(PROGRAM).args(["--application", "/no/file.toml", "--", "true"]).output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(text(&output.stderr).contains("/no/file.toml"));

    let empty = std::env::temp_dir().join(format!("no-programs-{}", std::process::id()));
    std::fs::create_dir(&empty).unwrap();
    let output = Command::new(PROGRAM).arg("--bin-dir").arg(&empty).args(["--", "true"]).output().unwrap();
    std::fs::remove_dir(&empty).unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(text(&output.stderr).contains("cargo build --workspace"), "{}", text(&output.stderr));
}

#[test]
fn a_daemon_that_does_not_come_up_is_shown_with_its_log() {
    let programs = std::env::temp_dir().join(format!("bad-programs-{}", std::process::id()));
    std::fs::create_dir(&programs).unwrap();
    for name in ["deputy-launcher", "deputyd"] {
        let path = programs.join(name);
        std::fs::write(&path, "#!/bin/sh\necho the reason why >&2\nexit 3\n").unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let output = Command::new(PROGRAM).arg("--bin-dir").arg(&programs).args(["--", "true"]).output().unwrap();
    std::fs::remove_dir_all(&programs).unwrap();
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125));
    assert!(message.contains("deputy-launcher is not ready") && message.contains("status 3"), "{message}");
    assert!(message.contains("the reason why"), "{message}");
}

#[test]
fn an_unprivileged_caller_is_told() {
    // The directory of the build may be closed to others; a copy in /tmp is not.
    let copy = std::env::temp_dir().join(format!("a-copy-{}", std::process::id()));
    std::fs::copy(PROGRAM, &copy).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&copy)
        .args(["--", "true"])
        .output();
    std::fs::remove_file(&copy).unwrap();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(text(&output.stderr).contains("needs root"), "{}", text(&output.stderr));
}

#[test]
fn directory_environment_and_standard_descriptors_reach_the_command() {
    let mut child =
        sandbox(&[], "pwd; echo \"$MARKER $DBUS_SYSTEM_BUS_ADDRESS\"; cat; echo error >&2; test -w .")
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("MARKER", "it is here")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
    child.stdin.take().unwrap().write_all(b"through stdin\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let expected = format!(
        "{}\nit is here unix:path=/run/dbus/system_bus_socket\nthrough stdin\n",
        env!("CARGO_MANIFEST_DIR")
    );
    assert_eq!(text(&output.stdout), expected);
    assert_eq!(text(&output.stderr), "error\n");
}

#[test]
fn a_project_below_tmp_is_seen_and_writable() {
    let project = std::env::temp_dir().join(format!("a-project-{}", std::process::id()));
    std::fs::create_dir_all(project.join("deep/er")).unwrap();
    std::fs::create_dir(project.join(".git")).unwrap();
    let private = std::env::temp_dir().join(format!("no-project-{}", std::process::id()));
    std::fs::create_dir(&private).unwrap();
    let output =
        sandbox(&[], "pwd; echo made > ../../inside; ls /tmp").current_dir(project.join("deep/er")).output();
    let made = std::fs::read_to_string(project.join("inside"));
    std::fs::remove_dir_all(&project).unwrap();
    std::fs::remove_dir(&private).unwrap();
    assert_eq!(made.unwrap(), "made\n");
    let out = text(&output.unwrap().stdout);
    let mut lines = out.lines();
    assert_eq!(lines.next(), project.join("deep/er").to_str());
    // This very project may be below /tmp, too: so not "nothing else", but not what is nobody's project here.
    let seen: Vec<_> = lines.collect();
    let name = |path: &std::path::Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    assert!(seen.contains(&name(&project).as_str()), "{seen:?}");
    assert!(!seen.contains(&name(&private).as_str()), "{seen:?}");
}

#[test]
fn a_signal_is_passed_on_to_the_command() {
    for (signal, script, expected) in [
        (Signal::SIGTERM, "trap 'exit 9' TERM; echo up; while :; do sleep 0.01; done", Some(9)),
        // A shell cannot trap what was ignored when it was started, as SIGINT is for whatever a script runs in the
        // background: these tests, perhaps.
        (
            Signal::SIGINT,
            "exec env --default-signal=INT bash -c \"trap 'exit 8' INT; echo up; while :; do sleep 0.01; done\"",
            Some(8),
        ),
        (Signal::SIGTERM, "echo up; exec sleep 1000", Some(143)),
    ] {
        let mut child = sandbox(&[], script).stdout(Stdio::piped()).spawn().unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).unwrap();
        kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), expected, "{signal} {script}");
    }
}

#[test]
fn what_the_command_leaves_running_ends_with_it() {
    let mark = format!("98{}.125", std::process::id());
    let output = run(&[], &format!("setsid sleep {mark} </dev/null >/dev/null 2>&1 & exit 4"));
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(processes_with(&mark), Vec::<String>::new());
}

#[test]
fn killed_process_1_is_reported() {
    let mut child = sandbox(&[], "echo up; exec sleep 1000").stdout(Stdio::piped()).spawn().unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).unwrap();
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let children = std::fs::read_to_string(children).unwrap();
    for pid in children.split_whitespace() {
        let line = text(&std::fs::read(format!("/proc/{pid}/cmdline")).unwrap());
        if line.contains("--inner") {
            kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL).unwrap();
        }
    }
    let status = child.wait().unwrap();
    assert_eq!((status.code(), status.signal()), (Some(137), None));
}

#[test]
fn three_at_once_do_not_see_each_other() {
    let mut children: Vec<_> = (0..3)
        .map(|number| {
            let user = format!("user{number}:x");
            // Each waits until all three had time to be up, then looks at accounts, processes and cgroup.
            let script = "grep -c '^user' /etc/passwd; pgrep -c dbus-daemon; sleep 0.5; \
                          d=$(sed -n 's/cgroup = \"\\(.*\\)\"/\\1/p' /etc/deputy/deputy.toml); \
                          [ -z \"$d\" ] || { mkdir $d/x; ls $d | grep -c x; rmdir $d/x; }";
            sandbox(&["--user", &user], script).stdout(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in &mut children {
        let mut out = String::new();
        child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        assert!(child.wait().unwrap().success(), "{out}");
        assert!(out.starts_with("1\n1\n"), "{out}");
    }
}

#[test]
fn a_sandbox_works_in_a_sandbox() {
    let script =
        format!("{PROGRAM} --no-daemons --user bob:y -- id -un bob; id -un bob 2>/dev/null || id -un alice");
    assert_eq!(good(&["--user", "alice:x"], &script), "bob\nalice\n");
}

#[test]
fn services_come_back_and_can_be_held() {
    let script = "
        d=/run/deputy-sandbox; old=$(cat $d/polkitd.pid)
        kill -9 $old
        for i in $(seq 500); do new=$(cat $d/polkitd.pid); [ $new != $old ] && break; sleep 0.01; done
        [ $new != $old ] && echo back
        touch $d/polkitd.hold; kill -9 $new; sleep 0.2
        [ -e /proc/$new ] || echo held
        [ $(cat $d/polkitd.pid) = $new ]; rm $d/polkitd.hold
        for i in $(seq 500); do next=$(cat $d/polkitd.pid); [ $next != $new ] && break; sleep 0.01; done
        [ $next != $new ] && echo released";
    assert_eq!(good(&[], script), "back\nheld\nreleased\n");
}

#[test]
fn no_password_is_on_a_command_line_or_in_an_environment() {
    // The word is made in the script, so that the script's own command line does not have it.
    let script = "w=fin; for w in ${w}dme dbus-daemon; do \
        cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ > /tmp/all 2>/dev/null || true
        if grep -aq -e $w /tmp/all; then echo found; else echo clean; fi; done";
    // The second word shows that the search finds what is there.
    assert_eq!(good(&["--user", "alice:findme"], script), "clean\nfound\n");
}

#[test]
fn the_cgroup_can_hold_and_kill_processes() {
    let script = "
        d=$(sed -n 's/cgroup = \"\\(.*\\)\"/\\1/p' /etc/deputy/deputy.toml)
        [ -n \"$d\" ] || { echo no cgroup2 here; exit 0; }
        mkdir $d/one; sleep 1000 & echo $! > $d/one/cgroup.procs
        echo 1 > $d/one/cgroup.kill; wait $! || echo status $?";
    let out = good(&[], script);
    assert!(out == "status 137\n" || out == "no cgroup2 here\n", "{out}");
    eventually("no cgroup is left", || common::cgroups_of(std::process::id()).is_empty());
}

#[test]
fn the_command_starts_with_what_the_caller_has() {
    // Signals 32 and 33 are left out: test runners often hand them down ignored.
    let script = "while read -r name value; do case $name in SigBlk:|SigCgt:) echo $name $value;; \
                  SigIgn:) echo $name $((0x$value & 0x7fffffff));; esac; done < /proc/self/status; ls /proc/self/fd | wc -l";
    let outside = std::process::Command::new("/bin/bash").args(["-euc", script]).output().unwrap();
    assert_eq!(good(&[], script), text(&outside.stdout));
}
