//! One account that acts for another: as far as root's file lets it, for a while, and under both names.
#![forbid(unsafe_code)]

use std::fs;

use deputy_suite::machine::{add_person, add_service_user, install_application, wait_until};
use deputy_suite::people::{ok, refused};
use deputy_suite::{Output, as_user, deputyctl, need_the_sandbox};

fn file(name: &str, act_for: &str, permissions: &str) -> String {
    format!(
        "service_user = \"{name}\"\nauthentication = [\"os\"]\n{act_for}\n[kinds.batch]\ncommands = [\"*\"]\n\
         [roles.support]\npermissions = [{permissions}\"run_jobs\", \"use_files\"]\n"
    )
}

/// An application of this name whose accounts `helper` and `customer` are linked to OS accounts of their own.
fn prepare(name: &str, act_for: &str) {
    need_the_sandbox();
    add_service_user(name);
    install_application(name, &file(name, act_for, "\"act_for\", "));
    wait_until("the application is known", || deputyctl(name, &["account", "list", name]).status == 0);
    for (account, role) in [("helper", "support"), ("customer", "user"), ("plain", "user")] {
        let person = person(name, account);
        add_person(&person, "lantern", &["lab1"]);
        ok(&deputyctl("root", &["account", "add", name, account, "--role", role]));
        ok(&deputyctl("root", &["consent", "grant", name, account, &person]));
        ok(&deputyctl("root", &["link", "request", name, account, &person]));
    }
}

fn person(name: &str, account: &str) -> String {
    format!("{name}-{}", &account[..1])
}

fn logged_in(name: &str, account: &str) -> String {
    let line = format!("echo lantern | deputyctl login {name} {account} --answers-fd 0");
    ok(&as_user(name, &["sh", "-c", &line]))
}

fn act_for(name: &str, by: &str) -> Output {
    deputyctl(name, &["account", "act-for", name, "customer", "--by", by, "--reason", "ticket 12"])
}

fn run(name: &str, session: &str, argv: &[&str]) -> Output {
    let run = ["run", "--app", name, "--account", "customer", "--session", session, "--"];
    deputyctl(name, &[&run[..], argv].concat())
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The ledger's records, each as its text.
fn ledger() -> Vec<String> {
    let mut files: Vec<_> =
        fs::read_dir("/var/lib/deputy/ledger").expect("the ledger").flatten().map(|e| e.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "ledger"));
    files.sort();
    let bytes: Vec<u8> = files.iter().flat_map(|path| fs::read(path).expect("a segment")).collect();
    String::from_utf8_lossy(&bytes).split("{\"at\":").map(str::to_owned).collect()
}

#[test]
fn a_job_for_another_account_is_that_accounts_and_is_recorded_under_both_names() {
    prepare("acts", "act_for = true");
    let (helper, plain) = (logged_in("acts", "helper"), logged_in("acts", "plain"));
    assert_eq!(refused(&act_for("acts", &plain)), "PermissionMissing");
    // The application's own word, or root's, is not that of an account.
    assert_eq!(refused(&act_for("acts", "helper")), "SessionRequired");
    let nobody = ["account", "act-for", "acts", "customer", "--reason", "x"];
    assert_ne!(deputyctl("acts", &nobody).status, 0);
    assert_ne!(deputyctl("root", &nobody).status, 0);

    let acting = ok(&act_for("acts", &helper));
    assert_eq!(ok(&run("acts", &acting, &["id", "-un"])), person("acts", "customer"));
    let jobs = json(&ok(&deputyctl("acts", &["--json", "job", "list", "acts", "--account", "customer"])));
    let job = jobs[0]["id"].as_str().expect("the job is the customer's").to_owned();
    assert_eq!(jobs.as_array().map(Vec::len), Some(1));
    let records = ledger();
    let queued = records.iter().find(|record| record.contains("queued") && record.contains(&job));
    let queued = queued.expect("the job is in the ledger");
    for expected in
        ["\"by\":{\"account\":\"helper\"", "\"account\":\"customer\"", &person("acts", "customer")]
    {
        assert!(queued.contains(expected), "{expected} is not in {queued}");
    }
    let opened = records.iter().find(|record| record.contains("ticket 12")).expect("the reason");
    assert!(opened.contains("\"by\":{\"account\":\"helper\"") && opened.contains("customer"), "{opened}");
    let shown = json(&ok(&deputyctl("acts", &["--json", "session", "show", &acting])));
    assert_eq!(
        (&shown["by"], &shown["reason"], &shown["how"]),
        (&"helper".into(), &"ticket 12".into(), &"act-for".into())
    );

    // It lasts as long as the file says, whatever is done with it.
    let (opened, ends) = (shown["opened"].as_u64().unwrap(), shown["ends"].as_u64().unwrap());
    assert!((890_000_000..=900_000_000).contains(&(ends - opened)), "{shown}");
    ok(&deputyctl("acts", &["session", "extend", &acting]));
    let extended = json(&ok(&deputyctl("acts", &["--json", "session", "show", &acting])));
    assert_eq!((&extended["ends"], &extended["expires"]), (&ends.into(), &ends.into()));

    // It runs jobs. What stays, or is somebody's word, the customer does himself.
    let project = ["project", "create", "acts", &acting, "lasting"];
    assert_eq!(refused(&deputyctl("acts", &project)), "PermissionMissing");
    assert_eq!(refused(&act_for("acts", &acting)), "PermissionMissing");
    let edit = ["account", "edit", "acts", "customer", "--email", "x@example.org", "--by", &acting];
    assert_eq!(refused(&deputyctl("acts", &edit)), "PermissionMissing");
    let unlink = ["link", "remove", "acts", "customer", "--yes", "--by", &acting];
    assert_eq!(refused(&deputyctl("acts", &unlink)), "PermissionMissing");
    // Another application has no use for it.
    assert_eq!(refused(&deputyctl("portal", &["session", "show", &acting])), "NotFound");
}

#[test]
fn acting_ends_with_its_time_with_the_role_and_with_roots_word() {
    prepare("ending", "act_for = true\nact_for_seconds = 1");
    let helper = logged_in("ending", "helper");
    let short = ok(&act_for("ending", &helper));
    wait_until("its time is over", || run("ending", &short, &["true"]).status != 0);
    assert_eq!(refused(&run("ending", &short, &["true"])), "NotFound");

    install_application("ending", &file("ending", "act_for = true", "\"act_for\", "));
    let long = || -> String {
        let mut session = String::new();
        // The file takes effect a moment later.
        wait_until("the file is known", || {
            session = ok(&act_for("ending", &helper));
            let shown = json(&ok(&deputyctl("ending", &["--json", "session", "show", &session])));
            shown["ends"].as_u64().unwrap() - shown["opened"].as_u64().unwrap() > 2_000_000
        });
        session
    };
    let session = long();
    assert_eq!(run("ending", &session, &["true"]).status, 0);
    ok(&deputyctl("root", &["role", "set", "ending", "helper", "user"]));
    assert_eq!(refused(&run("ending", &session, &["true"])), "PermissionMissing");
    ok(&deputyctl("root", &["role", "set", "ending", "helper", "support"]));
    assert_eq!(run("ending", &session, &["true"]).status, 0);
    // Root takes it out of the file: no session that is open helps.
    install_application("ending", &file("ending", "", ""));
    wait_until("the file is known", || run("ending", &session, &["true"]).status != 0);
    assert_eq!(refused(&run("ending", &session, &["true"])), "PermissionMissing");
    assert_ne!(act_for("ending", &helper).status, 0);
}
