//! Projects that are shared, through `deputyd`: their members' jobs have the group and share the folder, and nobody else;
//! whoever leaves has neither from the next job on, whatever is killed in between.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use deputy_core::ids::OsGid;
use deputy_suite::acting::ids;
use deputy_suite::groups::{accounts_in, consented, install, member, set};
use deputy_suite::machine::{children_of, launcher_pid, service_pid, signal, wait_until};
use deputy_suite::need_the_sandbox;
use deputy_suite::people::{Output, as_user, deputyctl, ok, refused};
use deputy_suite::pool::{Pool, pool};
use deputy_suite::requests::grant_in;

fn begin(first: u32) -> Pool {
    need_the_sandbox();
    let pool = pool(first, first + 9, "");
    install();
    pool
}

/// An account of an application, linked by root's consent.
fn linked(application: &str, account: &str, os_user: &str) {
    ok(&deputyctl(application, &["account", "add", application, account]));
    grant_in(application, account, os_user);
    ok(&deputyctl(application, &["link", "request", application, account, os_user]));
}

fn project(application: &str, words: &[&str]) -> Output {
    deputyctl(application, &[&["--yes", "project"], words].concat())
}

/// What a job of an account in a project printed.
fn job(application: &str, account: &str, project: &str, script: &str) -> Output {
    let words =
        ["run", "--app", application, "--account", account, "--project", project, "--", "sh", "-c", script];
    deputyctl(application, &words)
}

fn show(application: &str, project: &str) -> serde_json::Value {
    let text = ok(&deputyctl(application, &["--json", "project", "show", application, project]));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn gid(application: &str, project: &str) -> OsGid {
    let gid = show(application, project)["group_gid"].as_u64().expect("a group");
    OsGid::new(u32::try_from(gid).unwrap()).unwrap()
}

#[test]
fn a_folder_is_made_only_where_policy_says_and_by_its_owner() {
    let _range = begin(420_000);
    linked("team", "where-pi", "alice");
    linked("team", "where-guest", "bob");
    ok(&project("team", &["create", "team", "where-pi", "x"]));
    ok(&project("team", &["share", "team", "where-pi/x", "where-guest", "write"]));
    let folder = |path: &str, subject: &str| {
        refused(&project("team", &["folder", "team", "where-pi/x", path, "--subject", subject]))
    };
    fs::create_dir("/srv/team/shared/there").unwrap();
    std::os::unix::fs::symlink("/srv/team/own", "/srv/team/shared/link").unwrap();
    for path in [
        "/srv/team/own/x",
        "/tmp/x",
        "/etc/x",
        "/srv/team/shared/../own/x",
        "/srv/team/shared/link/x",
        "relative",
    ] {
        assert_eq!(
            folder(path, "where-pi"),
            if path.contains("link") { "FileError" } else { "PathOutside" },
            "{path}"
        );
    }
    for path in ["/srv/team/shared/there", "/srv/team/shared/absent/x", "/srv/team/shared"] {
        assert_eq!(folder(path, "where-pi"), "FileError", "{path}");
    }
    assert_eq!(folder("/srv/team/shared/x", "where-guest"), "PermissionMissing");
    assert!(matches!(folder("/srv/team/shared/x", "nobody").as_str(), "NotFound"));
    assert_eq!(
        refused(&deputyctl("rivals", &["project", "folder", "team", "where-pi/x", "/srv/team/shared/x"])),
        "NotFound"
    );
    assert!(!fs::exists("/srv/team/shared/x").unwrap() && !fs::exists("/srv/team/own/x").unwrap());
    assert_eq!(fs::metadata("/srv/team/shared/there").unwrap().mode() & 0o7777, 0o755);
    assert!(show("team", "where-pi/x").get("folder").is_none());
}

#[test]
fn members_share_group_and_folder_and_nobody_else_does() {
    let _range = begin(422_000);
    linked("team", "pi", "alice");
    linked("team", "postdoc", "bob");
    linked("team", "guest", "carol");
    ok(&project("team", &["create", "team", "pi", "data"]));
    assert!(show("team", "pi/data").get("group").is_none(), "a project of one needs none");
    ok(&project("team", &["share", "team", "pi/data", "postdoc", "write"]));
    assert_eq!(show("team", "pi/data")["group"], "dg421000");
    ok(&project("team", &["folder", "team", "pi/data", "/srv/team/shared/data"]));
    let seen = show("team", "pi/data");
    assert_eq!(seen["folder"], "/srv/team/shared/data", "{seen}");
    // Again, with the same path or none, it is brought into step; another one is refused.
    ok(&project("team", &["folder", "team", "pi/data"]));
    ok(&project("team", &["folder", "team", "pi/data", "/srv/team/shared/data"]));
    assert_eq!(
        refused(&project("team", &["folder", "team", "pi/data", "/srv/team/shared/other"])),
        "Conflict"
    );

    // Every program shows its name.
    let listed = ok(&as_user("carol", &["ls", "-ld", "/srv/team/shared/data"]));
    assert!(listed.starts_with("drwxrws---") && listed.contains(" alice dg421000 "), "{listed}");
    let list = ok(&as_user("alice", &["getfacl", "--absolute-names", "/srv/team/shared/data"]));
    assert!(list.contains("# group: dg421000") && list.contains("default:group::rwx"), "{list}");
    assert!(list.contains("other::---") && list.contains("default:other::---"), "{list}");
    assert!(!list.contains("user:bob") && !list.contains("user:carol"), "{list}");
    ok(&as_user("alice", &["sh", "-c", "touch ~/named; setfacl -m g:dg421000:r ~/named"]));
    assert!(ok(&as_user("alice", &["sh", "-c", "getfacl ~/named"])).contains("group:dg421000:r--"));

    // The members read and write each other's new files, whatever their umask.
    let inside = |account: &str, script: &str| {
        job("team", account, "pi/data", &format!("cd /srv/team/shared/data && {script}"))
    };
    ok(&inside("pi", "umask 077; echo first > a; mkdir sub; echo deep > sub/b"));
    assert_eq!(
        ok(&inside("postdoc", "cat a sub/b; echo more >> a; echo own > sub/c; mkdir sub/d; id -Gn")),
        "first\ndeep\nbob lab2 dg421000"
    );
    assert_eq!(
        ok(&inside("pi", "cat a sub/c; rm sub/c; rmdir sub/d; stat -c '%G %a' a")),
        "first\nmore\nown\ndg421000 660"
    );
    // So do their file agents.
    let file = |account: &str, path: &str| {
        deputyctl("team", &["file", "cat", "--account", account, "--project", "pi/data", path])
    };
    assert_eq!(ok(&file("postdoc", "/srv/team/shared/data/a")), "first\nmore");

    // An outsider does not: neither as himself nor in a job, and he is told nothing of the project.
    assert_ne!(as_user("carol", &["ls", "/srv/team/shared/data"]).status, 0);
    assert_eq!(refused(&job("team", "guest", "pi/data", "id")), "NotFound");
    let own = deputyctl(
        "team",
        &["run", "--app", "team", "--account", "guest", "--", "cat", "/srv/team/shared/data/a"],
    );
    assert_eq!((own.status, own.stdout.as_str()), (1, ""));

    // Who only reads is in the list by name, and in no group.
    ok(&project("team", &["share", "team", "pi/data", "guest", "read"]));
    assert_eq!(accounts_in(gid("team", "pi/data")), ["pi", "postdoc"]);
    ok(&inside("pi", "echo new > e"));
    assert_eq!(ok(&as_user("carol", &["cat", "/srv/team/shared/data/e"])), "new");
    assert_ne!(as_user("carol", &["sh", "-c", "echo x >> /srv/team/shared/data/e"]).status, 0);
    assert_ne!(as_user("carol", &["touch", "/srv/team/shared/data/f"]).status, 0);
    ok(&project("team", &["unshare", "team", "pi/data", "guest"]));
    assert_ne!(as_user("carol", &["cat", "/srv/team/shared/data/e"]).status, 0);

    // Leaving takes it from the next job and login.
    ok(&project("team", &["unshare", "team", "pi/data", "postdoc"]));
    assert_eq!(refused(&job("team", "postdoc", "pi/data", "id")), "NotFound");
    assert_eq!(refused(&file("postdoc", "/srv/team/shared/data/a")), "NotFound");
    let out = deputyctl(
        "team",
        &[
            "run",
            "--app",
            "team",
            "--account",
            "postdoc",
            "--",
            "sh",
            "-c",
            "id -Gn; cat /srv/team/shared/data/a",
        ],
    );
    assert_eq!((out.status, out.stdout.trim()), (1, "bob lab2"));
    assert_eq!(accounts_in(gid("team", "pi/data")), ["pi"]);
    // From write to read is to leave the group as well.
    ok(&project("team", &["share", "team", "pi/data", "postdoc", "write"]));
    assert_eq!(accounts_in(gid("team", "pi/data")), ["pi", "postdoc"]);
    ok(&project("team", &["share", "team", "pi/data", "postdoc", "read"]));
    assert_eq!(accounts_in(gid("team", "pi/data")), ["pi"]);
}

#[test]
fn without_a_group_the_members_are_in_the_list_by_name() {
    let _range = begin(424_000);
    linked("plain", "pi", "alice");
    linked("plain", "postdoc", "bob");
    linked("plain", "reader", "carol");
    ok(&project("plain", &["create", "plain", "pi", "data"]));
    ok(&project("plain", &["share", "plain", "pi/data", "postdoc", "write"]));
    ok(&project("plain", &["share", "plain", "pi/data", "reader", "read"]));
    ok(&project("plain", &["folder", "plain", "pi/data", "/srv/plain/shared/data"]));
    assert!(show("plain", "pi/data").get("group").is_none());
    let found = fs::metadata("/srv/plain/shared/data").unwrap();
    assert_eq!(found.mode() & 0o7777, 0o2770);
    let inside = |account: &str, script: &str| {
        job("plain", account, "pi/data", &format!("cd /srv/plain/shared/data && {script}"))
    };
    ok(&inside("pi", "echo first > a"));
    assert_eq!(ok(&inside("postdoc", "cat a; echo more >> a; echo own > b; id -un")), "first\nbob");
    assert_eq!(ok(&inside("pi", "cat a b")), "first\nmore\nown");
    assert_eq!(ok(&as_user("carol", &["cat", "/srv/plain/shared/data/b"])), "own");
    assert_ne!(as_user("carol", &["sh", "-c", "echo x >> /srv/plain/shared/data/b"]).status, 0);
    // The owner's own group is not let in.
    let list = ok(&as_user("alice", &["getfacl", "--absolute-names", "/srv/plain/shared/data"]));
    assert!(list.contains("\ngroup::---") && list.contains("\ndefault:group::---"), "{list}");
    for account in ["postdoc", "reader"] {
        ok(&project("plain", &["unshare", "plain", "pi/data", account]));
    }
    for user in ["bob", "carol"] {
        assert_ne!(as_user(user, &["cat", "/srv/plain/shared/data/a"]).status, 0, "{user}");
    }
    // The owner's consent is gone: his agent cannot be had, and nobody does it for him. The record changes all the same.
    ok(&deputyctl("alice", &["--yes", "consent", "revoke", "plain", "pi"]));
    for words in
        [&["share", "plain", "pi/data", "postdoc", "write"][..], &["unshare", "plain", "pi/data", "postdoc"]]
    {
        let told = project("plain", words);
        assert_eq!(told.status, 1, "{}{}", told.stdout, told.stderr);
        assert!(
            told.stdout.contains("no-consent") && told.stdout.contains("folder is not in step"),
            "{}",
            told.stdout
        );
    }
    assert_eq!(project("plain", &["share", "plain", "pi/data", "postdoc", "write"]).status, 1);
    assert_eq!(show("plain", "pi/data")["members"].as_array().map(Vec::len), Some(1));
    assert_ne!(as_user("bob", &["cat", "/srv/plain/shared/data/a"]).status, 0);
    assert_eq!(refused(&project("plain", &["folder", "plain", "pi/data"])), "NoConsent");
}

#[test]
fn who_may_not_be_in_the_group_is_reported_and_the_others_are() {
    let _range = begin(426_000);
    linked("team", "rep-pi", "alice");
    linked("team", "rep-one", "bob");
    linked("team", "rep-two", "carol");
    ok(&project("team", &["create", "team", "rep-pi", "x"]));
    for account in ["rep-one", "rep-two"] {
        ok(&project("team", &["share", "team", "rep-pi/x", account, "write"]));
    }
    ok(&deputyctl("bob", &["--yes", "consent", "revoke", "team", "rep-one"]));
    assert_eq!(accounts_in(gid("team", "rep-pi/x")), ["rep-pi", "rep-two"]);
    // Who shares with another one is told too.
    let shared = project("team", &["share", "team", "rep-pi/x", "rep-two", "write"]);
    assert_eq!(shared.status, 1, "{}{}", shared.stdout, shared.stderr);
    assert!(shared.stdout.contains("rep-one") && shared.stdout.contains("no-consent"), "{}", shared.stdout);
    let made = project("team", &["folder", "team", "rep-pi/x", "/srv/team/shared/rep"]);
    assert_eq!(made.status, 1, "{}{}", made.stdout, made.stderr);
    assert!(made.stdout.contains("rep-one") && made.stdout.contains("no-consent"), "{}", made.stdout);
    assert!(!made.stdout.contains("rep-two"), "{}", made.stdout);
    assert_eq!(refused(&job("team", "rep-one", "rep-pi/x", "id")), "NoConsent");
    // Consent again: the first job is refused with the reason, and brings the group into step for the next one.
    consented("rep-one", "bob");
    assert_eq!(refused(&job("team", "rep-one", "rep-pi/x", "id")), "OsAccountNotInGroup");
    wait_until("the group is in step", || {
        accounts_in(gid("team", "rep-pi/x")).contains(&"rep-one".to_owned())
    });
    assert!(ok(&job("team", "rep-one", "rep-pi/x", "id -Gn")).contains("dg425000"));
}

#[test]
fn a_project_that_is_handed_over_or_deleted_leaves_group_and_folder_as_they_are() {
    let _range = begin(428_000);
    linked("team", "gone-pi", "alice");
    linked("team", "gone-heir", "bob");
    ok(&project("team", &["create", "team", "gone-pi", "x"]));
    ok(&project("team", &["share", "team", "gone-pi/x", "gone-heir", "write"]));
    ok(&project("team", &["folder", "team", "gone-pi/x", "/srv/team/shared/gone"]));
    ok(&job("team", "gone-pi", "gone-pi/x", "echo kept > /srv/team/shared/gone/a"));
    let idle = |key: &str| wait_until("the end is recorded", || show("team", key)["open_jobs"] == 0);
    idle("gone-pi/x");
    let report = deputyctl("team", &["account", "remains", "team", "gone-pi"]);
    assert_eq!(report.status, 1, "{}", report.stderr);
    let report = report.stdout;
    assert!(report.contains("/srv/team/shared/gone") && report.contains("dg427000"), "{report}");
    let group = gid("team", "gone-pi/x");
    // The folder is still the old owner's, and whoever hands over is told, with what root can do.
    let handed =
        deputyctl("team", &["--json", "--yes", "project", "hand-over", "team", "gone-pi/x", "gone-heir"]);
    assert_eq!(handed.status, 1, "{}", handed.stderr);
    let handed: serde_json::Value = serde_json::from_str(&handed.stdout).expect("JSON");
    assert_eq!(handed["project"], "gone-heir/x");
    let findings = handed["findings"].as_array().expect("findings");
    assert_eq!(findings.len(), 1, "{handed}");
    assert_eq!(findings[0]["code"], "path-outside");
    assert!(findings[0]["message"].as_str().is_some_and(|text| text.contains("not the project owner's")));
    assert!(findings[0]["remedy"].as_str().is_some_and(|text| text.contains("deputyctl rebind")));
    assert_eq!(accounts_in(group), ["gone-heir"], "the old owner has left");
    assert_eq!(gid("team", "gone-heir/x"), group);
    // Root does what was said, and the folder is the new owner's, who says who comes in.
    let plan = ok(&deputyctl(
        "root",
        &["--json", "rebind", "plan", "/srv/team/shared/gone", "--from", "alice", "--to", "bob"],
    ));
    let plan: serde_json::Value = serde_json::from_str(&plan).expect("a plan");
    let id = plan["id"].as_str().expect("its id");
    ok(&deputyctl("root", &["--yes", "rebind", "apply", id, "--while-running"]));
    ok(&project("team", &["folder", "team", "gone-heir/x"]));
    let found = fs::metadata("/srv/team/shared/gone").unwrap();
    assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (ids("bob").uid, group.raw(), 0o2770));
    assert_ne!(as_user("alice", &["ls", "/srv/team/shared/gone"]).status, 0);
    assert_eq!(ok(&job("team", "gone-heir", "gone-heir/x", "cat /srv/team/shared/gone/a")), "kept");
    idle("gone-heir/x");
    ok(&project("team", &["delete", "team", "gone-heir/x"]));
    assert!(accounts_in(group).is_empty());
    let found = fs::metadata("/srv/team/shared/gone/a").unwrap();
    assert_eq!(found.gid(), group.raw());
    // The next project of that name has another number.
    ok(&project("team", &["create", "team", "gone-heir", "x"]));
    ok(&project("team", &["share", "team", "gone-heir/x", "gone-pi", "write"]));
    assert_ne!(gid("team", "gone-heir/x"), group);
}

/// Kills a service, and waits until it is there again and answers.
fn kill(service: &str) {
    let before = service_pid(service);
    signal(before, "KILL");
    wait_until("it is started again", || service_pid(service) != before);
    wait_until("it answers", || deputyctl("team", &["project", "list", "team"]).status == 0);
}

#[test]
fn what_is_killed_in_between_leaves_nobody_in_a_group_who_is_no_member() {
    let _range = begin(430_000);
    linked("team", "kill-pi", "alice");
    linked("team", "kill-member", "bob");
    ok(&project("team", &["create", "team", "kill-pi", "x"]));
    ok(&project("team", &["share", "team", "kill-pi/x", "kill-member", "write"]));
    let group = gid("team", "kill-pi/x");
    let (pi, other) = (member("kill-pi", "alice"), member("kill-member", "bob"));
    // As if the daemon had died between the launcher's record and its own: nothing was acknowledged, and he is back.
    set(group, std::slice::from_ref(&pi));
    kill("deputyd");
    wait_until("the group is in step", || accounts_in(group) == ["kill-pi", "kill-member"]);
    // As if somebody had put more into the group than the ledger has: at the start they are out again.
    ok(&project("team", &["unshare", "team", "kill-pi/x", "kill-member"]));
    set(group, &[pi, other]);
    kill("deputyd");
    wait_until("the group is in step", || accounts_in(group) == ["kill-pi"]);
    // Without a launcher nobody leaves the record alone: it is refused, and he stays a member.
    ok(&project("team", &["share", "team", "kill-pi/x", "kill-member", "write"]));
    let hold = "/run/deputy-sandbox/deputy-launcher.hold";
    fs::write(hold, "").unwrap();
    let before = launcher_pid();
    signal(before, "KILL");
    wait_until("it has gone", || !fs::exists(format!("/proc/{before}")).unwrap());
    assert_eq!(
        refused(&project("team", &["unshare", "team", "kill-pi/x", "kill-member"])),
        "LauncherUnavailable"
    );
    fs::remove_file(hold).unwrap();
    wait_until("it is started again", || service_pid("deputy-launcher") != before);
    assert_eq!(show("team", "kill-pi/x")["members"].as_array().map(Vec::len), Some(1));

    // At random: whatever was acknowledged holds at once, and what was not is one or the other.
    for round in 0..24 {
        let words: &[&str] = if round % 2 == 0 {
            &["unshare", "team", "kill-pi/x", "kill-member"]
        } else {
            &["share", "team", "kill-pi/x", "kill-member", "write"]
        };
        let done = std::thread::scope(|scope| {
            let call = scope.spawn(|| project("team", words).status == 0);
            std::thread::sleep(std::time::Duration::from_millis(7 * (round % 5)));
            match round % 3 {
                0 => signal(service_pid("deputyd"), "KILL"),
                1 => signal(launcher_pid(), "KILL"),
                // Any of its children; one that has just ended is no loss.
                _ => {
                    for child in children_of(launcher_pid()) {
                        let _ =
                            std::process::Command::new("kill").args(["-KILL", &child.to_string()]).output();
                    }
                }
            }
            call.join().unwrap()
        });
        if done && round % 2 == 0 {
            assert_eq!(accounts_in(group), ["kill-pi"], "round {round}");
        }
        wait_until("both answer", || deputyctl("team", &["project", "list", "team"]).status == 0);
        let is_member = || !show("team", "kill-pi/x")["members"].as_array().unwrap().is_empty();
        // The record is never wider than the ledger, whatever became of the call.
        assert!(is_member() || accounts_in(group) == ["kill-pi"], "round {round}");
        // The next round begins from the state that it is about.
        let next: &[&str] = if round % 2 == 0 {
            &["unshare", "team", "kill-pi/x", "kill-member"]
        } else {
            &["share", "team", "kill-pi/x", "kill-member", "write"]
        };
        wait_until("it is done", || {
            let output = project("team", next);
            // With 1 it is done, and the group comes into step later: the launcher was away.
            matches!(output.status, 0 | 1) || refused(&output) == "NotFound"
        });
        let expected: &[&str] = if round % 2 == 0 { &["kill-pi"] } else { &["kill-pi", "kill-member"] };
        wait_until("the group is in step", || accounts_in(group) == expected);
    }
}
