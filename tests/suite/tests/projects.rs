//! Projects: each member works as the OS account that was pinned for him, whatever his link is later; who has no part
//! in a project sees nothing of it.
#![forbid(unsafe_code)]

use deputy_suite::machine::{add_person, running, wait_until};
use deputy_suite::requests::grant;
use deputy_suite::{deputyctl, need_the_sandbox};

fn ok(arguments: &[&str]) -> String {
    let output = deputyctl("portal", arguments);
    assert_eq!(output.status, 0, "{arguments:?}: {}{}", output.stdout, output.stderr);
    output.stdout
}

/// The code of a refusal.
fn refused(arguments: &[&str]) -> String {
    let output = deputyctl("portal", arguments);
    assert_eq!(output.status, 125, "{arguments:?}: {}", output.stdout);
    let code = output.stderr.strip_prefix("deputyctl: ").and_then(|rest| rest.split(':').next());
    code.unwrap_or_else(|| panic!("{}", output.stderr)).to_owned()
}

fn json(arguments: &[&str]) -> serde_json::Value {
    let text = ok(&[&["--json"], arguments].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// An account that is linked to an OS account by root's consent.
fn linked(account: &str, os_user: &str) {
    ok(&["account", "add", "demo", account]);
    relink(account, os_user);
}

fn relink(account: &str, os_user: &str) {
    grant(account, os_user);
    ok(&["link", "request", "demo", account, os_user, "--relink"]);
}

/// The words of a job in a project.
fn job<'a>(account: &'a str, project: &'a str, command: &[&'a str]) -> Vec<&'a str> {
    [&["run", "--app", "demo", "--account", account, "--project", project, "--"], command].concat()
}

#[test]
fn a_project_keeps_its_os_account_when_the_account_is_linked_anew() {
    need_the_sandbox();
    add_person("olduser", "x", &["lab1"]);
    add_person("newuser", "x", &["lab1"]);
    linked("mover", "olduser");
    ok(&["project", "create", "demo", "mover", "first"]);
    assert_eq!(ok(&job("mover", "mover/first", &["id", "-un"])), "olduser\n");
    relink("mover", "newuser");
    ok(&["project", "create", "demo", "mover", "second"]);
    assert_eq!(ok(&job("mover", "mover/first", &["id", "-un"])), "olduser\n");
    assert_eq!(ok(&job("mover", "mover/second", &["id", "-un"])), "newuser\n");
    assert_eq!(ok(&["run", "--app", "demo", "--account", "mover", "--", "id", "-un"]), "newuser\n");
    // What was pinned rests on its own consent: taken back, the project runs nothing, and the link is as it was.
    let revoked = deputyctl("olduser", &["--yes", "consent", "revoke", "demo", "mover"]);
    assert_eq!(revoked.status, 0, "{}", revoked.stderr);
    assert_eq!(refused(&job("mover", "mover/first", &["id"])), "NoConsent");
    assert_eq!(ok(&job("mover", "mover/second", &["id", "-un"])), "newuser\n");
    assert_eq!(json(&["link", "list", "demo", "--account", "mover"])[0]["state"], "active");
}

#[test]
fn a_members_job_runs_as_the_members_own_os_account() {
    need_the_sandbox();
    linked("pi", "alice");
    linked("postdoc", "bob");
    linked("guest", "carol");
    ok(&["account", "add", "demo", "stranger"]);
    ok(&["project", "create", "demo", "pi", "shared"]);
    // Refusals first: who has no part in it is told that it is not there, as of one that is not there.
    for account in ["postdoc", "guest", "stranger"] {
        assert_eq!(refused(&job(account, "pi/shared", &["id"])), "NotFound", "{account}");
        assert_eq!(refused(&["project", "show", "demo", "pi/shared", "--subject", account]), "NotFound");
        let own = json(&["project", "list", "demo", "--subject", account]);
        assert_eq!(own, serde_json::json!([]), "{account}");
    }
    assert_eq!(refused(&job("pi", "pi/absent", &["id"])), "NotFound");
    // Who does not own it cannot share it, nor anything else.
    for command in [
        &["share", "demo", "pi/shared", "guest", "write"][..],
        &["unshare", "demo", "pi/shared", "postdoc"],
        &["publish", "demo", "pi/shared"],
        &["edit", "demo", "pi/shared", "--umask", "077"],
        &["--yes", "hand-over", "demo", "pi/shared", "guest"],
        &["--yes", "delete", "demo", "pi/shared"],
    ] {
        let words = [&["project"], command, &["--by", "guest"]].concat();
        assert_eq!(refused(&words), "PermissionMissing", "{command:?}");
    }

    ok(&["project", "share", "demo", "pi/shared", "postdoc", "write", "--by", "pi"]);
    ok(&["project", "share", "demo", "pi/shared", "guest", "read", "--by", "pi"]);
    assert_eq!(ok(&job("pi", "pi/shared", &["id", "-un"])), "alice\n");
    assert_eq!(ok(&job("postdoc", "pi/shared", &["id", "-un"])), "bob\n", "never as the owner");
    assert_eq!(refused(&job("guest", "pi/shared", &["id"])), "PermissionMissing");
    let seen = json(&["project", "show", "demo", "pi/shared", "--subject", "guest"]);
    assert_eq!((&seen["access"], &seen["os_user"]), (&"read".into(), &"alice".into()));

    // Public: everybody sees that it is there and whose it is, and nothing more.
    ok(&["project", "publish", "demo", "pi/shared", "--by", "pi"]);
    let seen = json(&["project", "show", "demo", "pi/shared", "--subject", "stranger"]);
    assert_eq!((&seen["access"], &seen["owner"]), (&"read".into(), &"pi".into()));
    assert!(seen.get("members").is_none() && seen.get("os_user").is_none(), "{seen}");
    assert_eq!(refused(&job("stranger", "pi/shared", &["id"])), "PermissionMissing");
    let public = json(&["project", "list", "demo", "--public"]);
    assert!(public.as_array().unwrap().iter().any(|project| project["project"] == "pi/shared"), "{public}");
    ok(&["project", "publish", "demo", "pi/shared", "--private", "--by", "pi"]);
    assert_eq!(refused(&["project", "show", "demo", "pi/shared", "--subject", "stranger"]), "NotFound");

    // A member who left has no part in it any more.
    ok(&["project", "unshare", "demo", "pi/shared", "postdoc", "--by", "pi"]);
    assert_eq!(refused(&job("postdoc", "pi/shared", &["id"])), "NotFound");
    // Another application sees none of it.
    let foreign = deputyctl("otherportal", &["project", "show", "other", "pi/shared"]);
    assert!(foreign.stderr.contains("NotFound"), "{}", foreign.stderr);
}

#[test]
fn a_project_is_handed_over_and_deleted_only_when_nothing_of_it_runs() {
    need_the_sandbox();
    linked("leaver", "alice");
    linked("heir", "bob");
    ok(&["account", "add", "demo", "unlinked"]);
    ok(&["project", "create", "demo", "leaver", "work"]);
    assert_eq!(refused(&["project", "create", "demo", "leaver", "work"]), "Conflict");
    assert_eq!(refused(&["project", "create", "demo", "unlinked", "work"]), "NotLinked");
    assert_eq!(refused(&["--yes", "project", "hand-over", "demo", "leaver/work", "unlinked"]), "NotLinked");
    assert_eq!(refused(&["--yes", "project", "hand-over", "demo", "leaver/work", "nobody"]), "NotLinked");

    let words = job("leaver", "leaver/work", &["sleep", "7301"]);
    let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
    let runs = std::thread::spawn(move || {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        deputyctl("portal", &words).status
    });
    wait_until("the job runs", || running("sleep 7301").len() == 1);
    assert_eq!(refused(&["--yes", "project", "delete", "demo", "leaver/work"]), "Conflict");
    assert_eq!(refused(&["--yes", "project", "hand-over", "demo", "leaver/work", "heir"]), "Conflict");
    // That it runs is recorded a moment after it does.
    let listed = || json(&["job", "list", "demo", "--account", "leaver", "--state", "running"]);
    wait_until("the start is recorded", || listed()[0]["id"].is_string());
    let jobs = listed();
    ok(&["job", "cancel", jobs[0]["id"].as_str().expect("a running job"), "--grace", "1"]);
    assert_eq!(runs.join().unwrap(), 128 + 15);
    wait_until("the end is recorded", || json(&["project", "show", "demo", "leaver/work"])["open_jobs"] == 0);

    // What remains keeps the account from being deleted.
    assert_eq!(refused(&["--yes", "account", "delete", "demo", "leaver"]), "NotEmpty");
    ok(&["--yes", "project", "hand-over", "demo", "leaver/work", "heir"]);
    assert_eq!(refused(&["project", "show", "demo", "leaver/work"]), "NotFound");
    assert_eq!(ok(&job("heir", "heir/work", &["id", "-un"])), "bob\n", "as the new owner's own OS account");
    assert_eq!(refused(&job("leaver", "heir/work", &["id"])), "NotFound");
    wait_until("the end is recorded", || json(&["project", "show", "demo", "heir/work"])["open_jobs"] == 0);
    ok(&["--yes", "project", "delete", "demo", "heir/work"]);
    assert_eq!(refused(&job("heir", "heir/work", &["id"])), "NotFound");
}

#[test]
fn a_projects_defaults_make_its_files_stricter_and_never_looser() {
    need_the_sandbox();
    linked("tidy", "alice");
    for umask in ["700", "8", "-1", "0777"] {
        assert_eq!(
            refused(&["project", "create", "demo", "tidy", "bad", &format!("--umask={umask}")]),
            "InvalidArgument"
        );
    }
    let mask = |project: &str| {
        let text = ok(&job("tidy", project, &["sh", "-c", "umask"]));
        u32::from_str_radix(text.trim(), 8).expect("octal")
    };
    ok(&["project", "create", "demo", "tidy", "plain"]);
    ok(&["project", "create", "demo", "tidy", "strict", "--umask", "027"]);
    ok(&["project", "create", "demo", "tidy", "loose", "--umask", "000"]);
    let plain = mask("tidy/plain");
    assert_eq!(mask("tidy/strict"), plain | 0o027);
    assert_eq!(mask("tidy/loose"), plain, "nothing is given back");
    ok(&["project", "edit", "demo", "tidy/plain", "--os-group", "lab1"]);
    assert_eq!(ok(&job("tidy", "tidy/plain", &["id", "-gn"])), "lab1\n");
    // A group that is not the OS account's own is the launcher's to refuse.
    ok(&["project", "edit", "demo", "tidy/plain", "--os-group", "lab2"]);
    assert_eq!(refused(&job("tidy", "tidy/plain", &["id"])), "OsAccountNotInGroup");
}
