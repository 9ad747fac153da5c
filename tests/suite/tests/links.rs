//! Links in full: what a check finds, how a consent ends, and whose an OS account is.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use deputy_core::message::{
    Asking, ExamineRequest, LauncherReply, LauncherRequest, LinkState, OwnerReply, OwnerRequest,
    WithdrawRequest,
};
use deputy_core::{Code, Finding, Severity};
use deputy_suite::acting::{Ids, identity, ids, made_up_identity};
use deputy_suite::machine::{
    add_person, add_service_user, change_person, install_application, run, running, wait_until,
};
use deputy_suite::requests::{account, app, grant, grant_in, link, owner_code, run_as};
use deputy_suite::{Fake, deputyctl, need_the_sandbox};

/// Everything that root, or the application's daemon, is told about a link.
fn examine(asks: Fake, application: &str, account_name: &str, os_user: &str) -> Vec<Finding> {
    let request = LauncherRequest::Examine(ExamineRequest {
        application: app(application),
        account: account(account_name),
        os_user: os_user.parse().expect("the name of an OS account"),
        pinned: None,
    });
    let answers = asks.ask(&request, &[]);
    let [LauncherReply::Findings(found)] = &answers.replies[..] else { panic!("{os_user}: {answers:?}") };
    for finding in found {
        assert!(!finding.message.is_empty(), "{finding:?}");
        assert!(finding.severity == Severity::Note || !finding.remedy.is_empty(), "no remedy: {finding:?}");
    }
    found.clone()
}

fn codes(found: &[Finding]) -> BTreeSet<&str> {
    found.iter().map(|finding| finding.code.as_str()).collect()
}

fn finding<'a>(found: &'a [Finding], code: &str) -> &'a Finding {
    found.iter().find(|finding| finding.code == code).unwrap_or_else(|| panic!("no {code} in {found:?}"))
}

fn ok(user: &str, arguments: &[&str]) -> String {
    let output = deputyctl(user, arguments);
    assert_eq!(output.status, 0, "{arguments:?}: {}{}", output.stdout, output.stderr);
    output.stdout
}

/// Installs an application with a service user of its own: a uid that two applications claim speaks for neither.
fn install(name: &str, text: &str) {
    let service = format!("svc-{name}");
    add_service_user(&service);
    install_application(name, &format!("service_user = \"{service}\"\n{text}"));
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The state of an account's link, as the application sees it.
fn state(application: &str, account_name: &str) -> String {
    let links = json(&ok("root", &["--json", "link", "list", application, "--account", account_name]));
    links[0]["state"].as_str().unwrap_or_else(|| panic!("{links}")).to_owned()
}

#[test]
fn who_can_never_be_a_target_is_told_with_the_reason() {
    need_the_sandbox();
    add_person("strict-lab", "x", &["lab2"]);
    install(
        "narrow",
        "[os_accounts]\nmin_uid = 50000\nallow_groups = [\"lab1\"]\n\
         [kinds.batch]\ncommands = [\"*\"]\n",
    );
    for (application, os_user, expected) in [
        ("demo", "no-such-person", "os-account-unknown"),
        ("demo", "root", "os-account-reserved"),
        ("demo", "daemon", "os-account-out-of-range"),
        ("demo", "portal", "os-account-is-service"),
        ("demo", "deputy", "os-account-is-service"),
        ("demo", "backup", "os-account-denied"),
        ("demo", "dave", "os-account-privileged"),
        ("narrow", "alice", "os-account-out-of-range"),
        ("narrow", "strict-lab", "os-account-not-in-group"),
    ] {
        for asks in [Fake::daemon(), Fake::as_user("root")] {
            let found = examine(asks, application, "checked", os_user);
            assert_eq!(finding(&found, expected).severity, Severity::Error, "{os_user}");
        }
    }
}

#[test]
fn what_shadow_pam_and_paths_say_is_told_to_root_or_with_consent_only() {
    need_the_sandbox();
    add_person("locked", "secret", &["lab1"]);
    change_person("passwd", &["--lock", "locked"]);
    add_person("expired", "secret", &["lab1"]);
    change_person("chage", &["-E", "2001-01-01", "expired"]);
    add_person("mustchange", "secret", &["lab1"]);
    change_person("chage", &["-d", "0", "mustchange"]);
    add_person("homeless", "secret", &["lab1"]);
    fs::remove_dir_all("/home/homeless").expect("her home");
    add_person("lockedout", "secret", &["lab1"]);
    fs::set_permissions("/home/lockedout", fs::Permissions::from_mode(0o700)).expect("its mode");
    run("chown", &["root:root", "/home/lockedout"]);
    add_person("shell-less", "secret", &["lab1"]);
    change_person("usermod", &["--shell", "/usr/sbin/nologin", "shell-less"]);

    for (number, (os_user, expected, severity)) in [
        ("locked", "password-locked", Severity::Warning),
        ("expired", "os-account-expired", Severity::Error),
        ("expired", "pam-account-refused", Severity::Error),
        ("mustchange", "password-expired", Severity::Error),
        ("mustchange", "pam-account-refused", Severity::Error),
        ("homeless", "home-missing", Severity::Warning),
        ("lockedout", "home-unreachable", Severity::Warning),
    ]
    .into_iter()
    .enumerate()
    {
        // Each has an account of its own, so that nobody's consent is another's.
        let own = format!("shadow-{number}");
        let before = examine(Fake::daemon(), "demo", &own, os_user);
        assert!(!codes(&before).contains(expected), "{os_user}: told without consent: {before:?}");
        assert!(codes(&before).contains("no-consent"), "{before:?}");
        let roots = examine(Fake::as_user("root"), "demo", &own, os_user);
        assert_eq!(finding(&roots, expected).severity, severity, "{os_user}");
        grant(&own, os_user);
        let after = examine(Fake::daemon(), "demo", &own, os_user);
        assert_eq!(finding(&after, expected).severity, severity, "{os_user}");
    }
    let found = examine(Fake::as_user("root"), "demo", "words", "expired");
    let said = &finding(&found, "pam-account-refused").message;
    assert!(said.contains("expired"), "PAM's own words: {said}");
    let found = examine(Fake::as_user("root"), "demo", "words", "lockedout");
    let said = &finding(&found, "home-unreachable").message;
    assert!(
        said.contains("/home/lockedout") && said.contains("mode 0700") && said.contains("others"),
        "{said}"
    );
    let found = examine(Fake::daemon(), "demo", "words", "shell-less");
    finding(&found, "shell-refuses-logins");
}

#[test]
fn the_way_to_a_root_is_told_component_by_component() {
    need_the_sandbox();
    add_person("walker", "secret", &["lab1"]);
    for (folder, mode, owner) in [
        ("/data/open", 0o755, "walker:lab1"),
        ("/data/open/readonly", 0o755, "root:root"),
        ("/data/shut", 0o750, "root:lab2"),
        ("/data/shut/inner", 0o755, "root:root"),
    ] {
        fs::create_dir_all(folder).expect("a folder");
        fs::set_permissions(folder, fs::Permissions::from_mode(mode)).expect("its mode");
        run("chown", &[owner, folder]);
    }
    let root = |path: &str, access: &str| format!("[[roots]]\npath = \"{path}\"\naccess = \"{access}\"\n");
    install(
        "rooted",
        &[
            "[os_accounts]\nallow_groups = [\"lab1\"]\n".to_owned(),
            root("/data/open", "read-write"),
            root("/data/open/readonly", "read-only"),
            root("/data/open/readonly", "read-write"),
            root("/data/shut/inner", "read-only"),
            root("/data/absent/{os_user}", "read-only"),
        ]
        .concat(),
    );
    let found = examine(Fake::as_user("root"), "rooted", "walks", "walker");
    let roots: Vec<_> = found.iter().filter(|finding| finding.code.starts_with("root-")).collect();
    let shown: Vec<_> =
        roots.iter().map(|finding| (finding.code.as_str(), finding.message.as_str())).collect();
    assert_eq!(shown.len(), 3, "{shown:?}");
    assert_eq!(shown[0].0, "root-not-writable", "{shown:?}");
    assert_eq!(shown[1].0, "root-unreachable", "{shown:?}");
    assert!(shown[1].1.contains("/data/shut:") && shown[1].1.contains("mode 0750"), "{shown:?}");
    assert_eq!(shown[2].0, "root-missing", "{shown:?}");
    assert!(shown[2].1.contains("/data/absent:"), "{shown:?}");
    // Someone whose groups the pattern cannot mean.
    install(
        "grouped",
        "[os_accounts]\nallow_groups = [\"walker\"]\n\
         [[roots]]\npath = \"/data/{os_group}\"\naccess = \"read-only\"\n",
    );
    let found = examine(Fake::as_user("root"), "grouped", "walks", "walker");
    assert!(codes(&found).contains("root-missing"), "{found:?}");
}

#[test]
fn where_no_quota_is_kept_none_is_found() {
    need_the_sandbox();
    grant("unlimited", "alice");
    for asks in [Fake::daemon(), Fake::as_user("root")] {
        let found = examine(asks, "demo", "unlimited", "alice");
        // Her home and a root were looked at: a quota that cannot be asked for would be an error.
        assert!(
            !codes(&found).iter().any(|code| code.starts_with("quota") || *code == "internal"),
            "{found:?}"
        );
        assert!(!codes(&found).contains("home-unreachable"), "{found:?}");
    }
}

#[test]
fn what_is_wrong_with_the_application_is_found_too() {
    need_the_sandbox();
    install(
        "nosy",
        "[os_accounts]\nallow_groups = [\"lab1\", \"lab2\"]\n\
         [pam]\njob = \"no-such-service\"\n[kinds.batch]\ncommands = [\"*\"]\n",
    );
    change_person("usermod", &["--append", "--groups", "lab2,adm", "svc-nosy"]);
    let found = examine(Fake::daemon(), "nosy", "checked", "alice");
    let groups = found.iter().filter(|finding| finding.code == "service-user-in-group").count();
    assert_eq!(groups, 2, "{found:?}");
    assert!(finding(&found, "pam-service-missing").message.contains("no file"));
    let gone = Fake::daemon().ask(
        &LauncherRequest::Examine(ExamineRequest {
            application: app("not-there"),
            account: account("x"),
            os_user: "alice".parse().unwrap(),
            pinned: None,
        }),
        &[],
    );
    assert_eq!(gone.code(), Some(Code::ApplicationInvalid));
}

#[test]
fn two_names_of_one_uid_are_ambiguous() {
    need_the_sandbox();
    add_person("janus", "secret", &["lab1"]);
    let uid = ids("janus").uid.to_string();
    change_person(
        "useradd",
        &["--non-unique", "--uid", &uid, "--gid", "janus", "--groups", "lab1", "janus2"],
    );
    let found = examine(Fake::daemon(), "demo", "two-faced", "janus2");
    assert_eq!(finding(&found, "os-account-ambiguous").severity, Severity::Error);
    assert!(!codes(&examine(Fake::daemon(), "demo", "two-faced", "janus")).contains("os-account-ambiguous"));
}

#[test]
fn a_link_whose_os_account_changed_is_stale_and_stays_so() {
    need_the_sandbox();
    add_person("changeling", "secret", &["lab1"]);
    ok("portal", &["account", "add", "demo", "stale"]);
    grant("stale", "changeling");
    ok("portal", &["link", "request", "demo", "stale", "changeling"]);
    let job = ["run", "--app", "demo", "--account", "stale", "--", "id", "-un"];
    assert_eq!(ok("portal", &job), "changeling\n");
    let old = ids("changeling").uid.to_string();
    change_person("usermod", &["--uid", "4242", "changeling"]);
    // Whoever looks first learns it: here a check of all links.
    let output = deputyctl("portal", &["--json", "link", "check", "demo", "--all"]);
    assert_eq!(output.status, 1, "{}", output.stderr);
    let found = json(&output.stdout);
    let about: Vec<_> = found.as_array().unwrap().iter().filter(|f| f["account"] == "stale").collect();
    assert!(about.iter().any(|f| f["code"] == "link-stale" && f["severity"] == "error"), "{about:?}");
    assert_eq!(state("demo", "stale"), "stale");
    let refused = deputyctl("portal", &job);
    assert!(refused.stderr.contains("LinkStale"), "{}", refused.stderr);
    // It is never repaired by itself, not even when the passwd entry comes back.
    change_person("usermod", &["--uid", &old, "changeling"]);
    assert!(deputyctl("portal", &job).stderr.contains("LinkStale"));
    assert_eq!(state("demo", "stale"), "stale");
    // Linked again on purpose it works: the consent was for this identity.
    ok("portal", &["link", "request", "demo", "stale", "changeling"]);
    assert_eq!(ok("portal", &job), "changeling\n");
    // A change that nobody looked for is learned by the first job, which is refused.
    change_person("usermod", &["--login", "renamed", "changeling"]);
    assert!(deputyctl("portal", &job).stderr.contains("LinkStale"));
    assert_eq!(state("demo", "stale"), "stale");
}

#[test]
fn a_consent_that_has_ended_is_expired_until_its_owner_renews_it() {
    need_the_sandbox();
    install(
        "short",
        "trust = \"application\"\n[link]\nconsent_seconds = 864000\n\
         [kinds.batch]\ncommands = [\"*\"]\n",
    );
    ok("svc-short", &["account", "add", "short", "passing"]);
    let asked = json(&ok("svc-short", &["--json", "link", "request", "short", "passing", "alice"]));
    let code = asked["code"].as_str().expect("a code").to_owned();
    ok("alice", &["--yes", "consent", "give", &code]);
    let job = ["run", "--app", "short", "--account", "passing", "--", "id", "-un"];
    assert_eq!(ok("svc-short", &job), "alice\n");
    let mine = || {
        let list = json(&ok("alice", &["--json", "consent", "list", "short"]));
        list[0].clone()
    };
    assert_eq!(mine()["given_by"], "owner");
    let lasts = |consent: &serde_json::Value| {
        consent["expires"].as_u64().expect("an end") - consent["made"].as_u64().expect("a beginning")
    };
    assert_eq!(lasts(&mine()), 864_000_000_000, "as long as the application's file says");
    // A link is renewed by a code too, while it holds; the link stays active meanwhile.
    let renewal =
        json(&ok("svc-short", &["--json", "link", "request", "short", "passing", "alice", "--renew"]));
    assert_eq!(renewal["state"], "active");
    ok("alice", &["--yes", "consent", "give", renewal["code"].as_str().expect("a code")]);

    // Root's own word ends when root says, here in the past.
    let mut past = link("short", "passing", "alice");
    past.expires = Some(1_000_000_000);
    let granted = Fake::as_user("root").ask(&LauncherRequest::Grant(past), &[]);
    assert!(matches!(granted.replies[..], [LauncherReply::Link { .. }]), "{granted:?}");
    let found = examine(Fake::daemon(), "short", "passing", "alice");
    assert_eq!(finding(&found, "consent-expired").severity, Severity::Error);
    assert!(deputyctl("svc-short", &job).stderr.contains("ConsentExpired"));
    assert_eq!(state("short", "passing"), "expired");
    assert!(deputyctl("svc-short", &job).stderr.contains("ConsentExpired"));
    // Nobody else renews it, and nobody renews what is not there.
    let renew = |who: Fake, account_name: &str| {
        who.ask_as_owner(&OwnerRequest::Renew { application: app("short"), account: account(account_name) })
    };
    assert_eq!(owner_code(&renew(Fake::as_user("bob"), "passing")), Some(Code::NotFound));
    assert_eq!(owner_code(&renew(Fake::as_user("alice"), "other")), Some(Code::NotFound));
    ok("alice", &["consent", "renew", "short", "passing"]);
    assert_eq!(ok("svc-short", &job), "alice\n");
    assert_eq!(state("short", "passing"), "active");
    assert_eq!(lasts(&mine()), 864_000_000_000);
    // What the owner took back is not there to be renewed.
    ok("alice", &["--yes", "consent", "revoke", "short", "passing"]);
    assert_eq!(owner_code(&renew(Fake::as_user("alice"), "passing")), Some(Code::NotFound));
    assert!(deputyctl("svc-short", &job).stderr.contains("NoConsent"));
    assert_eq!(state("short", "passing"), "revoked");
}

#[test]
fn a_revocation_ends_the_jobs_of_that_consent_and_no_others_if_it_is_told_to() {
    need_the_sandbox();
    let begin = |account_name: &str, os_user: &str, seconds: &str| {
        grant(account_name, os_user);
        let pending = Fake::daemon().begin(&run_as(identity(os_user), account_name, &["sleep", seconds]));
        wait_until("the job runs", || running(&format!("sleep {seconds}")).len() == 1);
        pending
    };
    let mine = begin("ended", "bob", "7101");
    let of_another_account = begin("not-ended", "bob", "7102");
    let of_another_person = begin("ended", "carol", "7103");

    // Without being told to, it ends nothing; and nothing new starts.
    ok("bob", &["--yes", "consent", "revoke", "demo", "ended"]);
    assert_eq!(running("sleep 7101").len(), 1);
    let refused = Fake::daemon().run(&run_as(identity("bob"), "ended", &["true"]));
    assert_eq!(refused.code(), Some(Code::NoConsent));
    grant("ended", "bob");
    let revoked = json(&ok("bob", &["--yes", "--json", "consent", "revoke", "demo", "ended", "--end-jobs"]));
    assert_eq!((&revoked["jobs_ended"], &revoked["jobs_left"]), (&1.into(), &0.into()), "{revoked}");
    assert_eq!(mine.answers().status(), Some(128 + 15));
    assert_eq!(running("sleep 7101"), Vec::<i32>::new());
    assert_eq!((running("sleep 7102").len(), running("sleep 7103").len()), (1, 1));

    // A withdrawal by the daemon or root does the same.
    for (account_name, os_user) in [("not-ended", "bob"), ("ended", "carol")] {
        let request = LauncherRequest::Withdraw(WithdrawRequest {
            application: app("demo"),
            account: account(account_name),
            os_account: identity(os_user),
            end_jobs: true,
        });
        let answers = Fake::daemon().ask(&request, &[]);
        let [LauncherReply::Withdrawn(done)] = &answers.replies[..] else { panic!("{answers:?}") };
        assert_eq!((done.removed, done.ended, done.left), (true, 1, 0));
    }
    assert_eq!(of_another_account.answers().status(), Some(128 + 15));
    assert_eq!(of_another_person.answers().status(), Some(128 + 15));
}

#[test]
fn an_unlink_ends_the_jobs_of_the_link_if_it_is_told_to() {
    need_the_sandbox();
    ok("portal", &["account", "add", "demo", "leaving"]);
    grant("leaving", "carol");
    ok("portal", &["link", "request", "demo", "leaving", "carol"]);
    let job = std::thread::spawn(|| {
        deputyctl("portal", &["run", "--app", "demo", "--account", "leaving", "--", "sleep", "7201"])
    });
    wait_until("the job runs", || running("sleep 7201").len() == 1);
    ok("portal", &["--yes", "link", "remove", "demo", "leaving", "--end-jobs"]);
    assert_eq!(job.join().unwrap().status, 128 + 15);
    let refused = deputyctl("portal", &["run", "--app", "demo", "--account", "leaving", "--", "true"]);
    assert!(refused.stderr.contains("NotLinked"), "{}", refused.stderr);
}

/// An application that does not let accounts share an OS account, with this many accounts asking for `os_user`.
fn several_ask_at_once(application: &str, os_user: &'static str, count: usize) -> Vec<Option<Code>> {
    let application = application.to_owned();
    let askers: Vec<_> = (0..count)
        .map(|number| {
            let request = LauncherRequest::Grant(link(&application, &format!("racer{number}"), os_user));
            std::thread::spawn(move || Fake::as_user("root").ask(&request, &[]).code())
        })
        .collect();
    askers.into_iter().map(|asker| asker.join().unwrap()).collect()
}

#[test]
fn of_two_accounts_that_want_one_os_account_at_once_one_has_it() {
    need_the_sandbox();
    install("single", "[kinds.batch]\ncommands = [\"*\"]\n");
    for round in 0..5 {
        let person: &'static str = Box::leak(format!("wanted{round}").into_boxed_str());
        add_person(person, "secret", &["lab1"]);
        let answers = several_ask_at_once("single", person, 4);
        assert_eq!(answers.iter().filter(|code| code.is_none()).count(), 1, "{answers:?}");
        let taken = answers.iter().filter(|code| **code == Some(Code::OsAccountTaken)).count();
        assert_eq!(taken, 3, "{answers:?}");
        let holder = answers.iter().position(Option::is_none).expect("one has it");
        // What comes later is told so before anybody is asked, and by a check too.
        let late = Fake::daemon().ask(&LauncherRequest::RequestLink(link("single", "late", person)), &[]);
        assert_eq!(late.code(), Some(Code::OsAccountTaken));
        let found = examine(Fake::daemon(), "single", "late", person);
        assert!(codes(&found).contains("os-account-taken"), "{found:?}");
        // The one who has it can have it again; another once it is free.
        grant_in("single", &format!("racer{holder}"), person);
        let request = LauncherRequest::Withdraw(WithdrawRequest {
            application: app("single"),
            account: account(&format!("racer{holder}")),
            os_account: identity(person),
            end_jobs: false,
        });
        assert!(matches!(Fake::daemon().ask(&request, &[]).replies[..], [LauncherReply::Withdrawn(_)]));
        grant_in("single", "late", person);
    }
    // Another application has nothing to do with it, and one that shares does not mind.
    grant_in("demo", "elsewhere", "wanted0");
    grant_in("demo", "elsewhere2", "wanted0");
}

#[test]
fn a_rule_gives_only_members_of_its_groups_and_nobody_what_another_has() {
    need_the_sandbox();
    install(
        "ruled",
        "[link]\nrule = \"{account}\"\ngroups = [\"lab1\"]\n[kinds.batch]\ncommands = [\"*\"]\n",
    );
    let run = |account_name: &str, os_user: &str| {
        let mut request = run_as(identity(os_user), account_name, &["true"]);
        request.application = app("ruled");
        let answers = Fake::daemon().run(&request);
        answers.code().map_or_else(|| answers.status().map(|s| s.to_string()), |code| Some(code.to_string()))
    };
    assert_eq!(run("bob", "bob").as_deref(), Some("NoConsent"), "bob is in lab2");
    assert_eq!(run("alice", "bob").as_deref(), Some("NoConsent"));
    grant_in("ruled", "first", "carol");
    assert_eq!(run("carol", "carol").as_deref(), Some("OsAccountTaken"));
    assert_eq!(run("alice", "alice").as_deref(), Some("0"));
}

#[test]
fn the_daemon_cannot_look_renew_or_revoke_as_an_owner() {
    need_the_sandbox();
    grant("watched", "alice");
    let nobody = Fake::with(Ids { uid: ids("deputy").uid, gid: ids("deputy").gid });
    let request = OwnerRequest::Renew { application: app("demo"), account: account("watched") };
    assert_eq!(owner_code(&nobody.ask_as_owner(&request)), Some(Code::NotFound));
    let request =
        OwnerRequest::Revoke { application: app("demo"), account: account("watched"), end_jobs: true };
    assert_eq!(owner_code(&nobody.ask_as_owner(&request)), Some(Code::NotFound));
    assert!(
        matches!(Fake::as_user("alice").ask_as_owner(&request), OwnerReply::Withdrawn(done) if done.removed)
    );
    // A look asks nobody and makes no offer.
    let look = |asking: Asking| {
        let mut request = link("demo", "looked-at", "bob");
        request.asking = asking;
        Fake::daemon().ask(&LauncherRequest::RequestLink(request), &[])
    };
    assert_eq!(look(Asking::Look).code(), Some(Code::NoConsent));
    assert!(matches!(
        look(Asking::Link).replies[..],
        [LauncherReply::Link { state: LinkState::Waiting { .. }, .. }]
    ));
    assert_eq!(look(Asking::Look).code(), Some(Code::NoConsent));
    // Renewing an identity that is no longer the owner's own is refused.
    let stale = made_up_identity("alice", ids("alice").uid, ids("bob").gid);
    let consent_of_old =
        deputy_suite::machine::consent_path(&app("demo"), &account("stale-renewal"), stale.uid.raw());
    grant("stale-renewal", "alice");
    let text = fs::read_to_string(&consent_of_old).expect("the record");
    let gid = format!("gid = {}", ids("alice").gid);
    fs::write(&consent_of_old, text.replace(&gid, &format!("gid = {}", stale.gid.raw())))
        .expect("the record");
    let request = OwnerRequest::Renew { application: app("demo"), account: account("stale-renewal") };
    assert_eq!(owner_code(&Fake::as_user("alice").ask_as_owner(&request)), Some(Code::LinkStale));
}

#[test]
fn many_links_are_checked_first_and_refused_row_by_row() {
    need_the_sandbox();
    add_person("imported", "secret", &["lab1"]);
    for name in ["row-good", "row-root", "row-other", "imported"] {
        ok("portal", &["account", "add", "demo", name]);
    }
    let file = "/tmp/links.csv";
    let rows = "account,os_user\nrow-good,imported\nrow-root,root\nrow-absent,imported\nrow-other,imported\n";
    fs::write(file, rows).expect("the list");
    let states = |text: &str| -> Vec<(String, String)> {
        let results = json(text);
        let text =
            |result: &serde_json::Value, key: &str| result[key].as_str().unwrap_or_default().to_owned();
        results.as_array().unwrap().iter().map(|r| (text(r, "account"), text(r, "state"))).collect()
    };
    let expect = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    };
    let dry = deputyctl("portal", &["--json", "link", "import", "demo", file, "--dry-run"]);
    assert_eq!(dry.status, 1, "{}", dry.stderr);
    assert_eq!(
        states(&dry.stdout),
        expect(&[
            ("row-good", "waiting"),
            ("row-root", "refused"),
            ("row-absent", "refused"),
            ("row-other", "waiting")
        ])
    );
    let links = json(&ok("portal", &["--json", "link", "list", "demo", "--os-user", "imported"]));
    assert_eq!(links, serde_json::json!([]), "a dry run asks for nothing");
    // The application's own import waits for the owners.
    fs::write(file, "account,os_user\nrow-other,imported\n").expect("the list");
    let asked = json(&ok("portal", &["--json", "link", "import", "demo", file]));
    assert_eq!(
        (asked[0]["state"].as_str(), asked[0]["code"].as_str().map(str::len)),
        (Some("waiting"), Some(10))
    );
    // Root's is root's consent.
    fs::write(file, rows).expect("the list");
    let real = deputyctl("root", &["--json", "link", "import", "demo", file]);
    assert_eq!(real.status, 1, "{}", real.stderr);
    let mut found = states(&real.stdout);
    found.sort();
    assert_eq!(
        found,
        expect(&[
            ("row-absent", "refused"),
            ("row-good", "active"),
            ("row-other", "active"),
            ("row-root", "refused")
        ])
    );
    assert_eq!(
        ok("portal", &["run", "--app", "demo", "--account", "row-good", "--", "id", "-un"]),
        "imported\n"
    );

    // nextPYP's folder: the owner of each setuid program, for the account of the same name.
    let folder = "/srv/user-processors";
    fs::create_dir_all(folder).expect("a folder");
    for (name, owner, mode) in
        [("user-processor", "imported", 0o4750), ("plain", "alice", 0o755), ("roots", "root", 0o4755)]
    {
        let path = format!("{folder}/{name}");
        fs::write(&path, "program").expect("a program");
        run("chown", &[owner, &path]);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode");
    }
    let results = json(&ok("root", &["--json", "link", "import", "demo", "--nextpyp", folder]));
    assert_eq!(results.as_array().unwrap().len(), 1, "{results}");
    assert_eq!((&results[0]["account"], &results[0]["state"]), (&"imported".into(), &"active".into()));
    // A list that is none is refused whole.
    fs::write(file, "account,os_user\nrow-good,imported\nbroken\n").expect("the list");
    let refused = deputyctl("root", &["link", "import", "demo", file]);
    assert_eq!(refused.status, 125);
    assert!(refused.stderr.contains("line 3"), "{}", refused.stderr);
}

#[test]
fn deputyctl_checks_one_link_and_says_by_its_status_whether_it_can_be() {
    need_the_sandbox();
    ok("portal", &["account", "add", "demo", "one-check"]);
    let bad = deputyctl("portal", &["--json", "link", "check", "demo", "one-check", "root"]);
    assert_eq!(bad.status, 1);
    assert!(bad.stdout.contains("os-account-reserved"), "{}", bad.stdout);
    let missing = deputyctl("portal", &["--json", "link", "check", "demo", "nobody-there", "alice"]);
    assert!(missing.stdout.contains("account-missing"), "{}", missing.stdout);
    grant("one-check", "alice");
    let good = deputyctl("portal", &["--json", "link", "check", "demo", "one-check", "alice"]);
    assert_eq!(good.status, 0, "{}{}", good.stdout, good.stderr);
    assert!(!good.stdout.contains("polkit-"), "the sandbox's polkit knows every action: {}", good.stdout);
    // What is another application's is as little there as what is not.
    let foreign = deputyctl("otherportal", &["link", "check", "demo", "one-check", "alice"]);
    let nothing = deputyctl("otherportal", &["link", "check", "nothing", "one-check", "alice"]);
    assert_eq!((foreign.status, foreign.stderr), (nothing.status, nothing.stderr));
}

#[test]
fn the_timer_s_check_looks_at_every_application_with_no_capability_of_root_s() {
    need_the_sandbox();
    for (application, account_name) in [("timed", "first"), ("timed2", "second")] {
        install(application, "[link]\nshared = true\n[kinds.batch]\ncommands = [\"*\"]\n");
        let known = || deputyctl("root", &["account", "add", application, account_name]).status == 0;
        wait_until("the application is known", known);
        grant_in(application, account_name, "alice");
        ok("root", &["link", "request", application, account_name, "alice"]);
        let revoke = OwnerRequest::Revoke {
            application: app(application),
            account: account(account_name),
            end_jobs: false,
        };
        assert!(matches!(Fake::as_user("alice").ask_as_owner(&revoke), OwnerReply::Withdrawn(_)));
    }
    let unit = include_str!("../../../systemd/deputy-check-links.service");
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/")).expect("a command");
    let words: Vec<&str> = line.split(' ').collect();
    let stripped = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"];
    let output = deputy_suite::as_user("root", &[&stripped[..], &words].concat());
    assert_eq!(output.status, 1, "{}{}", output.stdout, output.stderr);
    for (application, account_name) in [("timed", "first"), ("timed2", "second")] {
        let found = |line: &str| {
            line.starts_with(application) && line.contains(account_name) && line.contains("no-consent")
        };
        assert!(output.stdout.lines().any(found), "{application}: {}", output.stdout);
        assert_eq!(state(application, account_name), "revoked");
    }
    // An application checks its own, and nobody checks what he does not see.
    assert!(!ok_or_findings("svc-timed").contains("timed2"));
    assert_ne!(deputyctl("bob", &["link", "check", "--all-applications"]).status, 0);
}

/// What a check of all that the user sees prints, whether or not it has findings.
fn ok_or_findings(user: &str) -> String {
    let output = deputyctl(user, &["link", "check", "--all-applications"]);
    assert!(output.status < 2, "{}", output.stderr);
    output.stdout
}

#[test]
fn colours_are_shown_where_they_are_wanted_and_never_in_json() {
    need_the_sandbox();
    ok("portal", &["account", "add", "demo", "coloured"]);
    let list = |more: &[&str]| ok("portal", &[more, &["account", "list", "demo"]].concat());
    assert!(!list(&[]).contains('\x1b'), "standard output is no terminal");
    let shown = list(&["--color", "always"]);
    assert!(shown.contains("\x1b[38;5;10m") && shown.contains("green\x1b[39m in use"), "{shown:?}");
    assert!(!list(&["--color", "always", "--json"]).contains('\x1b'));
    let on_terminal = |before: &str, more: &str| {
        let line = format!("{before} deputyctl {more} account list demo");
        let script = format!("script -qec '{line}' /dev/null");
        deputy_suite::as_user("portal", &["sh", "-c", &script]).stdout
    };
    assert!(on_terminal("", "").contains("\x1b[38;5;10m"));
    assert!(!on_terminal("NO_COLOR=1", "").contains("\x1b[38"));
    assert!(!on_terminal("", "--color=never").contains("\x1b[38"));
}
