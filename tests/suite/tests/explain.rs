//! `Explain` says what `Run` does: over a table of cases, and without a trace.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use deputy_suite::client::{Dictionary, on_bus, options, text};
use deputy_suite::machine::{CONSENT, add_person, add_service_user, change_person, install_application};
use deputy_suite::requests::{consents_of, grant_in};
use deputy_suite::{Output, as_user, deputyctl, need_the_sandbox};
use zbus::Variant;

fn ok(user: &str, arguments: &[&str]) -> String {
    let output = deputyctl(user, arguments);
    assert_eq!(output.status, 0, "{arguments:?}: {}{}", output.stdout, output.stderr);
    output.stdout
}

/// What `run` came to: `allowed`, or the code of the refusal.
fn outcome(run: &Output) -> String {
    match run.stderr.strip_prefix("deputyctl: ").and_then(|rest| rest.split(':').next()) {
        Some(code) if run.status == 125 => code.to_owned(),
        _ => "allowed".to_owned(),
    }
}

fn explained(application: &str, words: &[&str]) -> serde_json::Value {
    let user = format!("svc-{application}");
    let output = deputyctl(&user, &[&["--json", "explain", application], words].concat());
    let answer: serde_json::Value =
        serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", output.stderr));
    assert_eq!(output.status, i32::from(answer["allowed"] != true), "{answer}");
    answer
}

#[test]
fn it_agrees_with_a_run_over_a_table_of_cases() {
    need_the_sandbox();
    add_person("explained", "x", &["lab1"]);
    add_person("gone-stale", "x", &["lab1"]);
    add_service_user("svc-plain");
    install_application(
        "plain",
        "service_user = \"svc-plain\"\ntrust = \"application\"\nenvironment = [\"APP_*\"]\n\
         [os_accounts]\ndeny_users = [\"denied\"]\n[link]\nshared = true\n\
         [kinds.batch]\ncommands = [\"*\"]\n[kinds.strict]\ncommands = [\"/usr/bin/id -u\"]\n",
    );
    for account in ["linked", "unlinked", "stale", "waiting", "revoked", "member", "off"] {
        ok("svc-plain", &["account", "add", "plain", account]);
    }
    for (account, os_user) in
        [("linked", "explained"), ("stale", "gone-stale"), ("revoked", "explained"), ("off", "explained")]
    {
        grant_in("plain", account, os_user);
        ok("svc-plain", &["link", "request", "plain", account, os_user]);
    }
    ok("svc-plain", &["link", "request", "plain", "waiting", "explained"]);
    ok("svc-plain", &["project", "create", "plain", "linked", "own"]);
    change_person("usermod", &["--uid", "4343", "gone-stale"]);
    ok("explained", &["--yes", "consent", "revoke", "plain", "revoked"]);
    ok("svc-plain", &["--yes", "account", "deactivate", "plain", "off", "--reason", "left"]);

    for (account, options, command, expected) in [
        ("linked", &[][..], &["/usr/bin/id", "-u"][..], "allowed"),
        ("linked", &["--kind", "strict"], &["/usr/bin/id", "-u"], "allowed"),
        ("linked", &["--kind", "strict"], &["/usr/bin/id", "-g"], "CommandNotAllowed"),
        ("linked", &["--kind", "absent"], &["/usr/bin/id"], "KindNotAllowed"),
        ("linked", &[], &["bin/id"], "InvalidArgument"),
        ("linked", &["--project", "linked/own"], &["/usr/bin/id"], "allowed"),
        ("unlinked", &["--project", "linked/own"], &["/usr/bin/id"], "NotFound"),
        ("unlinked", &[], &["/usr/bin/id"], "NotLinked"),
        ("waiting", &[], &["/usr/bin/id"], "NoConsent"),
        ("stale", &[], &["/usr/bin/id"], "LinkStale"),
        ("revoked", &[], &["/usr/bin/id"], "NoConsent"),
        ("off", &[], &["/usr/bin/id"], "AccountNotActive"),
        ("absent", &[], &["/usr/bin/id"], "NotFound"),
    ] {
        let before = fs::read_dir("/var/lib/deputy/jobs").expect("the jobs").count();
        let explained = explained("plain", &[&[account], options, &["--"], command].concat());
        let said = if explained["allowed"] == true { "allowed" } else { explained["code"].as_str().unwrap() };
        assert_eq!(said, expected, "{account} {options:?} {command:?}: {explained}");
        assert!(!explained["rule"].as_str().unwrap_or_default().is_empty(), "{explained}");
        assert!(
            fs::read_dir("/var/lib/deputy/jobs").expect("the jobs").count() <= before,
            "nothing was started"
        );
        let run = ["run", "--app", "plain", "--account", account];
        let run = deputyctl("svc-plain", &[&run[..], options, &["--"], command].concat());
        assert_eq!(outcome(&run), expected, "{account} {options:?} {command:?}: {}", run.stderr);
    }
}

/// What `Files.List` and `Files.Open` answer.
type Entries = (Vec<Dictionary>, bool);
type Opened = (zbus::OwnedFd, String);

/// What a call on the path came to, as the application does it: `allowed`, or the code of the refusal. A path that ends
/// with a slash is a folder, which is listed, or gets a folder in it.
fn done(path: &str, write: bool) -> String {
    let came_to = on_bus("svc-paths", async |client| {
        let bytes = path.as_bytes();
        let mut how = options(&[]);
        match (write, path.ends_with('/')) {
            (false, true) => client.call::<_, Entries>("Files.List", &("ann", bytes, how)).await.map(drop),
            (true, true) => {
                let made = [bytes, b"made"].concat();
                client.call::<_, ()>("Files.MakeDirectory", &("ann", made, how)).await
            }
            (_, false) => {
                how.extend([("read", (!write).into()), ("write", write.into()), ("create", write.into())]);
                client.call::<_, Opened>("Files.Open", &("ann", bytes, how)).await.map(drop)
            }
        }
    });
    came_to.map_or_else(|failed| failed.code().to_owned(), |()| "allowed".to_owned())
}

#[test]
fn it_agrees_with_calls_on_files_over_a_table_of_paths() {
    need_the_sandbox();
    add_service_user("svc-paths");
    let folder = |path: &str, mode: u32| {
        fs::create_dir_all(path).expect("a folder");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
    };
    for (path, mode) in [
        ("/data", 0o755),
        ("/data/open", 0o777),
        ("/data/open/closed", 0o700),
        ("/data/open/listed", 0o755),
        ("/data/looked", 0o755),
        ("/data/away", 0o755),
        ("/data/barred", 0o700),
        ("/data/barred/root", 0o777),
    ] {
        folder(path, mode);
    }
    for (path, mode) in [
        ("/data/open/secret", 0o600),
        ("/data/open/plain", 0o644),
        ("/data/open/shared", 0o666),
        ("/data/open/closed/x", 0o666),
        ("/data/looked/plain", 0o666),
        ("/data/away/plain", 0o666),
    ] {
        fs::write(path, "bytes").expect("a file");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
    }
    std::os::unix::fs::symlink("/data/away/plain", "/data/open/out").expect("a link");
    std::os::unix::fs::symlink("shared", "/data/open/in").expect("a link");
    install_application(
        "paths",
        "service_user = \"svc-paths\"\ntrust = \"application\"\n[link]\nshared = true\n\
         [kinds.batch]\ncommands = [\"*\"]\n[[roots]]\npath = \"/data/open\"\naccess = \"read-write\"\n\
         [[roots]]\npath = \"/data/looked\"\naccess = \"read-only\"\n\
         [[roots]]\npath = \"/data/barred/root\"\naccess = \"read-write\"\n",
    );
    for account in ["ann", "bare", "viewing"] {
        ok("svc-paths", &["account", "add", "paths", account]);
    }
    for account in ["ann", "viewing"] {
        grant_in("paths", account, "alice");
        ok("svc-paths", &["link", "request", "paths", account, "alice"]);
    }
    ok("svc-paths", &["role", "set", "paths", "viewing", "viewer"]);
    assert_eq!(explained("paths", &["bare", "--path", "/data/open/plain"])["code"], "NotLinked");
    assert_eq!(explained("paths", &["viewing", "--path", "/data/open/plain"])["code"], "PermissionMissing");
    for (path, write, expected, said) in [
        ("/etc/hostname", false, "PathOutside", "beneath no root"),
        ("/data/open/../away/plain", false, "PathOutside", ""),
        ("/data/open/out", false, "PathOutside", "leads out of its root"),
        ("/data/open/out", true, "PathOutside", "leads out of its root"),
        ("/data/looked/plain", true, "RootReadOnly", "read-only"),
        ("/data/open/plain", true, "FileError", "/data/open/plain: mode 0644 has no write permission, w"),
        ("/data/open/secret", false, "FileError", "/data/open/secret: mode 0600 has no read permission, r"),
        (
            "/data/open/closed/x",
            false,
            "FileError",
            "/data/open/closed: mode 0700 has no search permission, x",
        ),
        ("/data/open/closed/", false, "FileError", "/data/open/closed"),
        (
            "/data/open/listed/new",
            true,
            "FileError",
            "/data/open/listed: mode 0755 has no write permission, w",
        ),
        ("/data/open/absent/new", true, "FileError", "leads as far as /data/open"),
        ("/data/open/absent", false, "FileError", "ENOENT"),
        ("/data/barred/root/x", false, "FileError", "/data/barred"),
        ("/data/open/plain", false, "allowed", ""),
        ("/data/open/in", false, "allowed", ""),
        ("/data/open/in", true, "allowed", ""),
        ("/data/open/", false, "allowed", ""),
        ("/data/looked/plain", false, "allowed", ""),
        ("/data/open/shared", true, "allowed", ""),
        ("/data/open/new", true, "allowed", ""),
        ("/data/open/", true, "allowed", ""),
    ] {
        let before = listing("/data");
        let question = ["ann", "--path", path, "--write"];
        let explained = explained("paths", &question[..if write { 4 } else { 3 }]);
        let answer =
            if explained["allowed"] == true { "allowed" } else { explained["code"].as_str().unwrap() };
        assert_eq!(answer, expected, "{path} {write}: {explained}");
        assert!(explained["message"].as_str().unwrap_or_default().contains(said), "{explained}");
        assert!(!explained["rule"].as_str().unwrap_or_default().is_empty(), "{explained}");
        assert_eq!(
            explained["remedy"].as_str().is_none_or(str::is_empty),
            expected == "allowed",
            "{explained}"
        );
        assert_eq!(listing("/data"), before, "nothing was touched");
        assert_eq!(done(path, write), expected, "{path} {write}");
    }
}

/// Every name below a folder, with when it was changed.
fn listing(folder: &str) -> String {
    as_user("root", &["find", folder, "-printf", "%p %s %T+ %C+\\n"]).stdout
}

#[test]
fn a_path_writes_no_consent_that_a_call_would_write() {
    need_the_sandbox();
    add_service_user("svc-pathrule");
    install_application(
        "pathrule",
        "service_user = \"svc-pathrule\"\ntrust = \"application\"\n[link]\nrule = \"{account}\"\n\
         [[roots]]\npath = \"/tmp\"\naccess = \"read-write\"\n",
    );
    ok("svc-pathrule", &["account", "add", "pathrule", "bob"]);
    ok("svc-pathrule", &["link", "request", "pathrule", "bob", "bob"]);
    let own = || consents_of("bob").iter().filter(|c| c.application.as_str() == "pathrule").count();
    for entry in fs::read_dir(CONSENT).expect("the consents").flatten() {
        if fs::read_to_string(entry.path()).unwrap_or_default().contains("pathrule") {
            fs::remove_file(entry.path()).expect("a record of the test's own");
        }
    }
    assert_eq!(explained("pathrule", &["bob", "--path", "/tmp"])["allowed"], true);
    assert_eq!(own(), 0);
    ok("svc-pathrule", &["file", "ls", "--app", "pathrule", "--account", "bob", "/tmp"]);
    assert_eq!(own(), 1);
    // A revocation is heard of as by a call.
    ok("bob", &["--yes", "consent", "revoke", "pathrule", "bob"]);
    assert_eq!(explained("pathrule", &["bob", "--path", "/tmp"])["code"], "NoConsent");
}

#[test]
fn limits_that_policy_refuses_and_needs_that_never_fit_are_explained() {
    need_the_sandbox();
    add_service_user("svc-bounded");
    install_application(
        "bounded",
        "service_user = \"svc-bounded\"\ntrust = \"application\"\n[queue.account]\ncpus = 2\n\
         [kinds.batch]\ncommands = [\"*\"]\nlimits = { memory = \"64M\" }\ntime_limit_seconds = 60\n",
    );
    ok("svc-bounded", &["account", "add", "bounded", "ann"]);
    ok("root", &["consent", "grant", "bounded", "ann", "alice"]);
    ok("svc-bounded", &["link", "request", "bounded", "ann", "alice"]);
    for (name, value, code) in [
        ("memory", Variant::from(128_u64 << 20), Some("LimitNotAllowed")),
        ("time_limit_seconds", Variant::from(61_u32), Some("LimitNotAllowed")),
        ("cpus", Variant::from(3_f64), Some("NeverFits")),
        ("memory", Variant::from(32_u64 << 20), None),
        ("cpus", Variant::from(2_f64), None),
    ] {
        let said: Dictionary = on_bus("svc-bounded", async |client| {
            let mut asked = options(&[("account", "ann")]);
            asked.insert("argv", Variant::from(vec![b"/usr/bin/id".to_vec()]));
            asked.insert(name, value.try_clone().expect("a number"));
            client.call("Manager.Explain", &(asked,)).await.expect("an explanation")
        });
        assert_eq!(text(&said, "code").as_deref(), code, "{name}: {said:?}");
    }
}

#[test]
fn it_writes_no_consent_that_a_run_would_write() {
    need_the_sandbox();
    add_service_user("svc-byrule");
    install_application(
        "byrule",
        "service_user = \"svc-byrule\"\ntrust = \"application\"\n[link]\nrule = \"{account}\"\n\
         [kinds.batch]\ncommands = [\"*\"]\n",
    );
    ok("svc-byrule", &["account", "add", "byrule", "carol"]);
    ok("svc-byrule", &["link", "request", "byrule", "carol", "carol"]);
    // The link wrote it at once; without it the rule gives it again at the next use.
    for entry in fs::read_dir(CONSENT).expect("the consents").flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        if text.contains("byrule") {
            fs::remove_file(entry.path()).expect("a record of the test's own");
        }
    }
    assert_eq!(explained("byrule", &["carol", "--", "/usr/bin/id"])["allowed"], true);
    assert!(consents_of("carol").iter().all(|consent| consent.application.as_str() != "byrule"));
    ok("svc-byrule", &["run", "--app", "byrule", "--account", "carol", "--", "true"]);
    assert_eq!(consents_of("carol").iter().filter(|c| c.application.as_str() == "byrule").count(), 1);
}

#[test]
fn nobody_is_told_about_another_application_and_nobody_without_end() {
    need_the_sandbox();
    ok("portal", &["account", "add", "demo", "asked-about"]);
    let ask = |user: &str, application: &str| {
        let output = deputyctl(user, &["explain", application, "asked-about", "--", "/usr/bin/id"]);
        (output.status, output.stdout, output.stderr)
    };
    let foreign = ask("otherportal", "demo");
    assert_eq!(foreign, ask("otherportal", "no-such-application"));
    assert!(foreign.2.contains("NotFound"), "{foreign:?}");
    assert!(ask("carol", "demo").2.contains("NotAuthorized"));
    // One client asks faster than it earns: some are refused, and the refusal says why.
    let script = r#"
import dbus
manager = dbus.Interface(dbus.SystemBus().get_object("org.deputy.Deputy1", "/org/deputy/Deputy1"), "org.deputy.Deputy1.Manager")
names = set()
for _ in range(500):
    try:
        manager.Explain(dbus.Dictionary({"account": "asked-about"}, signature="sv"))
        names.add("answer")
    except dbus.DBusException as error:
        names.add(error.get_dbus_name())
print(sorted(names))
"#;
    let python = as_user("portal", &["/usr/bin/python3", "-c", script]);
    assert_eq!(python.stdout, "['answer', 'org.deputy.Deputy1.Error.Busy']\n", "{}", python.stderr);
}
