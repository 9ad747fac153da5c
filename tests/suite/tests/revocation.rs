//! Taking consent back ends what runs under it, and nothing starts past it.
#![forbid(unsafe_code)]

use deputy_core::Code;
use deputy_core::job::{EndCause, ExitRecord, JobEnd};
use deputy_core::message::{JobState, LauncherReply, OwnerReply, OwnerRequest};
use deputy_suite::acting::identity;
use deputy_suite::fake::Pending;
use deputy_suite::machine::{
    add_person, add_service_user, install_application, running, wait_for_no_children, wait_until,
};
use deputy_suite::people::{ok, refused};
use deputy_suite::requests::{account, app, consents_of, grant, run_as, taken_back, withdrawal};
use deputy_suite::{Fake, as_user, deputyctl, need_the_sandbox};

/// A job that runs by now.
fn started(account_name: &str, os_user: &str, argv: &[&str]) -> Pending {
    let pending = Fake::daemon().begin(&run_as(identity(os_user), account_name, argv));
    assert_eq!(pending.line.reply(), LauncherReply::Job(JobState::Running));
    pending
}

/// The end of a job whose consent was taken back: why it ends is told first.
fn ended(pending: &Pending) -> ExitRecord {
    assert_eq!(pending.line.reply(), LauncherReply::Job(JobState::Ending(EndCause::ConsentRevoked)));
    let LauncherReply::Job(JobState::Ended(record)) = pending.line.reply() else { panic!("no end") };
    assert_eq!(record.cause, Some(EndCause::ConsentRevoked));
    record
}

fn revoke(user: &str, account_name: &str) -> OwnerReply {
    let request =
        OwnerRequest::Revoke { application: app("demo"), account: account(account_name), end_jobs: true };
    Fake::as_user(user).ask_as_owner(&request)
}

#[test]
fn what_runs_under_a_revoked_consent_ends_and_nothing_else_does() {
    need_the_sandbox();
    for (name, user) in [("ended", "alice"), ("spared", "alice"), ("spared-too", "bob")] {
        grant(name, user);
    }
    let taken = started("ended", "alice", &["sh", "-c", "setsid --fork sleep 2001; exec sleep 2002"]);
    let spared = started("spared", "alice", &["sleep", "2003"]);
    let of_another = started("spared-too", "bob", &["sleep", "2004"]);
    wait_until("the whole job runs", || running("sleep 2001").len() + running("sleep 2002").len() == 2);
    assert_eq!(revoke("alice", "ended"), OwnerReply::Withdrawn(taken_back(1)));
    assert_eq!(ended(&taken).end, JobEnd::Signaled { signal: 15, core: false });
    assert!(running("sleep 2001").is_empty() && running("sleep 2002").is_empty());
    assert_eq!((running("sleep 2003").len(), running("sleep 2004").len()), (1, 1));
    // The daemon's own word does the same.
    assert_eq!(
        Fake::daemon().ask(&withdrawal("demo", "spared", "alice", true), &[]).replies,
        [LauncherReply::Withdrawn(taken_back(1))]
    );
    assert_eq!(ended(&spared).end, JobEnd::Signaled { signal: 15, core: false });
    assert_eq!(running("sleep 2004").len(), 1);
    let root = Fake::as_user("root").ask(&withdrawal("demo", "spared-too", "bob", true), &[]);
    assert_eq!(root.replies, [LauncherReply::Withdrawn(taken_back(1))]);
    assert_eq!(ended(&of_another).end, JobEnd::Signaled { signal: 15, core: false });
    wait_for_no_children();
}

#[test]
fn a_job_that_does_not_listen_is_killed() {
    need_the_sandbox();
    grant("deaf", "carol");
    let deaf = started("deaf", "carol", &["sh", "-c", "trap '' TERM; sleep 2006; sleep 2006"]);
    wait_until("the job does not listen", || running("sleep 2006").len() == 1);
    assert_eq!(revoke("carol", "deaf"), OwnerReply::Withdrawn(taken_back(1)));
    assert_eq!(ended(&deaf).end, JobEnd::Signaled { signal: 9, core: false });
}

#[test]
fn a_job_that_starts_while_consent_is_taken_back_does_not_stay() {
    need_the_sandbox();
    for round in 0..60 {
        let name = format!("racing-{}", round % 3);
        grant(&name, "bob");
        let request = run_as(identity("bob"), &name, &["sleep", "2005"]);
        std::thread::scope(|scope| {
            let job = scope.spawn(|| Fake::daemon().run(&request));
            // Sooner or later than the job's own look.
            std::thread::sleep(std::time::Duration::from_micros(round * 150));
            let by_daemon = withdrawal("demo", &name, "bob", true);
            if round % 2 == 0 {
                assert!(matches!(revoke("bob", &name), OwnerReply::Withdrawn(taken) if taken.left == 0));
            } else {
                let taken = Fake::daemon().ask(&by_daemon, &[]).replies;
                assert!(
                    matches!(taken[..], [LauncherReply::Withdrawn(taken)] if taken.left == 0),
                    "{taken:?}"
                );
            }
            let answers = job.join().unwrap();
            let refused = answers.code();
            assert!(refused == Some(Code::NoConsent) || answers.status() == Some(143), "{answers:?}");
        });
        assert!(consents_of(&name).is_empty());
        assert!(running("sleep 2005").is_empty());
    }
}

/// Who takes a consent back, and how; with what a job is refused then; what the link is afterwards.
type Way<'a> = (&'a str, &'a dyn Fn(&str, &str), &'a str, &'a str);

/// Logs in as the OS account that an account of `logins` is linked to; the session's path.
fn logged_in(account_name: &str, password: &str) -> String {
    let line = format!("echo {password} | deputyctl login logins {account_name} --answers-fd 0");
    ok(&as_user("logins", &["sh", "-c", &line]))
}

fn run_in(session: &str, account_name: &str) -> deputy_suite::Output {
    let run = ["run", "--app", "logins", "--account", account_name, "--session", session, "--", "id", "-un"];
    deputyctl("logins", &run)
}

fn link_state(account_name: &str) -> String {
    let list = ok(&deputyctl("logins", &["--json", "link", "list", "logins", "--account", account_name]));
    let list: serde_json::Value = serde_json::from_str(&list).expect("JSON");
    list[0]["state"].as_str().unwrap_or("none").to_owned()
}

/// Whether the session is there for who made it.
fn is_shown(session: &str) -> bool {
    deputyctl("logins", &["session", "show", session]).status == 0
}

#[test]
fn a_session_of_a_login_is_of_no_use_once_its_consent_is_taken_back_whoever_takes_it() {
    need_the_sandbox();
    add_service_user("logins");
    install_application(
        "logins",
        "service_user = \"logins\"\nauthentication = [\"os\"]\n[kinds.batch]\ncommands = [\"*\"]\n",
    );
    wait_until("the application is known", || {
        deputyctl("logins", &["account", "list", "logins"]).status == 0
    });
    let by_daemon = |name: &str, person: &str| {
        let answers = Fake::daemon().ask(&withdrawal("logins", name, person, false), &[]);
        assert_eq!(answers.replies, [LauncherReply::Withdrawn(taken_back(0))]);
    };
    let by_owner = |name: &str, person: &str| {
        ok(&deputyctl(person, &["--yes", "consent", "revoke", "logins", name]));
    };
    let by_root = |name: &str, person: &str| {
        ok(&deputyctl("root", &["--yes", "consent", "revoke", "logins", name, "--os-user", person]));
    };
    let unlinked = |name: &str, _: &str| {
        ok(&deputyctl("root", &["--yes", "link", "remove", "logins", name]));
    };
    let unlinked_by_owner = |name: &str, person: &str| {
        ok(&deputyctl(person, &["--yes", "link", "remove", "logins", name]));
    };
    let ways: [Way<'_>; 5] = [
        ("owner", &by_owner, "NoConsent", "revoked"),
        ("root", &by_root, "NoConsent", "revoked"),
        ("daemon", &by_daemon, "NoConsent", "revoked"),
        ("unlink", &unlinked, "NotFound", "none"),
        ("unlinkown", &unlinked_by_owner, "NotFound", "none"),
    ];
    for (way, take_back, code, state) in ways {
        let person = format!("person-{way}");
        add_person(&person, "lantern", &["lab1"]);
        ok(&deputyctl("root", &["account", "add", "logins", way]));
        ok(&deputyctl("root", &["consent", "grant", "logins", way, &person]));
        ok(&deputyctl("root", &["link", "request", "logins", way, &person]));
        let session = logged_in(way, "lantern");
        assert_eq!(ok(&run_in(&session, way)), person, "{way}");
        assert!(is_shown(&session), "{way}");

        take_back(way, &person);
        assert_eq!(refused(&run_in(&session, way)), code, "{way}");
        // By that the service has learned it, where it was not the one who was told.
        assert_eq!(link_state(way), state, "{way}");
        assert!(!is_shown(&session), "{way}: the session is still there");
        assert_eq!(refused(&run_in(&session, way)), "NotFound", "{way}");
        // Nobody logs in by it again.
        let line = format!("echo lantern | deputyctl login logins {way} --answers-fd 0");
        assert_ne!(as_user("logins", &["sh", "-c", &line]).status, 0, "{way}");
        // A new consent gives a new login its use, and the old session none.
        ok(&deputyctl("root", &["consent", "grant", "logins", way, &person]));
        ok(&deputyctl("root", &["link", "request", "logins", way, &person]));
        assert_eq!(refused(&run_in(&session, way)), "NotFound", "{way}");
        assert_eq!(ok(&run_in(&logged_in(way, "lantern"), way)), person, "{way}");
    }
}

#[test]
fn a_new_consent_of_which_the_service_hears_first_gives_an_old_session_no_use() {
    need_the_sandbox();
    add_service_user("renewing");
    install_application(
        "renewing",
        "service_user = \"renewing\"\nauthentication = [\"os\"]\n[kinds.batch]\ncommands = [\"*\"]\n",
    );
    wait_until("the application is known", || {
        deputyctl("renewing", &["account", "list", "renewing"]).status == 0
    });
    add_person("returning", "lantern", &["lab1"]);
    ok(&deputyctl("root", &["account", "add", "renewing", "returner"]));
    ok(&deputyctl("root", &["consent", "grant", "renewing", "returner", "returning"]));
    ok(&deputyctl("root", &["link", "request", "renewing", "returner", "returning"]));
    let log_in = || {
        let line = "echo lantern | deputyctl login renewing returner --answers-fd 0";
        ok(&as_user("renewing", &["sh", "-c", line]))
    };
    let run = |session: &str| {
        let run =
            ["run", "--app", "renewing", "--account", "returner", "--session", session, "--", "id", "-un"];
        deputyctl("renewing", &run)
    };
    let session = log_in();
    assert_eq!(ok(&run(&session)), "returning");
    ok(&deputyctl("returning", &["--yes", "consent", "revoke", "renewing", "returner"]));
    // Consents say seconds, and so does a login.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    ok(&deputyctl("root", &["consent", "grant", "renewing", "returner", "returning"]));
    assert_eq!(deputyctl("renewing", &["session", "show", &session]).status, 0, "it has not been heard of");
    assert_eq!(refused(&run(&session)), "SessionRequired");
    assert_eq!(deputyctl("renewing", &["session", "show", &session]).status, 125, "now it has");
    assert_eq!(ok(&run(&log_in())), "returning");
}

#[test]
fn a_check_of_all_links_ends_the_sessions_of_those_that_are_taken_back() {
    need_the_sandbox();
    add_service_user("checked");
    install_application(
        "checked",
        "service_user = \"checked\"\nauthentication = [\"os\"]\n[kinds.batch]\ncommands = [\"*\"]\n",
    );
    wait_until("the application is known", || {
        deputyctl("checked", &["account", "list", "checked"]).status == 0
    });
    add_person("leaving", "lantern", &["lab1"]);
    ok(&deputyctl("root", &["account", "add", "checked", "leaver"]));
    ok(&deputyctl("root", &["consent", "grant", "checked", "leaver", "leaving"]));
    ok(&deputyctl("root", &["link", "request", "checked", "leaver", "leaving"]));
    let line = "echo lantern | deputyctl login checked leaver --answers-fd 0";
    let session = ok(&as_user("checked", &["sh", "-c", line]));
    ok(&deputyctl("leaving", &["--yes", "consent", "revoke", "checked", "leaver"]));
    let show = || deputyctl("checked", &["session", "show", &session]).status;
    assert_eq!(show(), 0, "it has not been heard of yet");
    let check = deputyctl("root", &["link", "check", "checked", "--all"]);
    assert_eq!(check.status, 1, "{}", check.stdout);
    assert_eq!(show(), 125);
}
