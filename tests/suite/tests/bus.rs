//! G9 on the bus: two applications see nothing of each other, and a stranger sees nothing at all. And: any D-Bus
//! client can use the interface, which is the one that is checked in.
#![forbid(unsafe_code)]

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use deputy_suite::people::command_as;
use deputy_suite::{as_user, deputyctl, need_the_sandbox};

const CALL: [&str; 4] = ["busctl", "--system", "call", "org.deputy.Deputy1"];
const ROOT: &str = "/org/deputy/Deputy1";

fn ok(user: &str, arguments: &[&str]) -> String {
    let output = deputyctl(user, arguments);
    assert_eq!(output.status, 0, "{arguments:?}: {}{}", output.stdout, output.stderr);
    output.stdout
}

fn link(user: &str, application: &str, account: &str, os_user: &str) {
    ok(user, &["account", "add", application, account]);
    ok("root", &["consent", "grant", application, account, os_user]);
    ok(user, &["link", "request", application, account, os_user]);
}

/// What `busctl call` says, as the user: the answer or the whole error.
fn call(user: &str, path: &str, interface: &str, method: &str, arguments: &[&str]) -> String {
    let interface = format!("org.deputy.Deputy1.{interface}");
    let argv = [&CALL[..], &[path, &interface, method], arguments].concat();
    let output = as_user(user, &argv);
    format!("{}{}", output.stdout, output.stderr)
}

#[test]
fn what_is_not_there_and_what_is_anothers_are_the_same_bytes() {
    need_the_sandbox();
    link("portal", "demo", "secretive", "alice");
    let job = ok("portal", &["--json", "run", "--app", "demo", "--account", "secretive", "--", "true"]);
    drop(job);
    let jobs: serde_json::Value =
        serde_json::from_str(&ok("portal", &["--json", "job", "list", "demo"])).unwrap();
    let id = find(&jobs, "id").expect("the job is listed");
    let theirs = format!("{ROOT}/job/{id}");
    let nobodys = format!("{ROOT}/job/{}", "a".repeat(id.len()));
    for stranger in ["otherportal", "carol"] {
        for (interface, method, arguments) in [
            ("Job", "Get", &[][..]),
            ("Job", "Watch", &[]),
            ("Job", "Cancel", &["a{sv}", "0"]),
            ("Job", "Signal", &["ia{sv}", "9", "0"]),
            ("Session", "Get", &[]),
        ] {
            let at_theirs = call(stranger, &theirs, interface, method, arguments);
            let at_nobodys = call(stranger, &nobodys, interface, method, arguments);
            assert_eq!(at_theirs, at_nobodys, "{stranger} {method}");
            assert!(!at_theirs.contains("alice"), "{at_theirs}");
        }
        let account = |name: &str| {
            call(stranger, ROOT, "Accounts", "Get", &["sa{sv}", name, "1", "application", "s", "demo"])
        };
        assert_eq!(account("secretive"), account("no-such-account"));
        let application =
            |name: &str| call(stranger, ROOT, "Accounts", "List", &["a{sv}", "1", "application", "s", name]);
        assert_eq!(application("demo"), application("no-such-application"));
        let links =
            |name: &str| call(stranger, ROOT, "Links", "List", &["a{sv}", "1", "application", "s", name]);
        assert_eq!(links("demo"), links("no-such-application"));
        let get = |name: &str| call(stranger, ROOT, "Applications", "Get", &["s", name]);
        assert_eq!(get("demo"), get("no-such-application"));
    }
    // The same calls tell their owner what there is.
    assert!(call("portal", &theirs, "Job", "Get", &[]).contains("alice"));
    assert!(call("portal", ROOT, "Accounts", "Get", &["sa{sv}", "secretive", "0"]).contains("secretive"));
}

fn find(value: &serde_json::Value, key: &str) -> Option<String> {
    match value {
        serde_json::Value::Object(map) => map
            .get(key)
            .and_then(|found| found.as_str().map(str::to_owned))
            .or_else(|| map.values().find_map(|inner| find(inner, key))),
        serde_json::Value::Array(list) => list.iter().find_map(|inner| find(inner, key)),
        _ => None,
    }
}

#[test]
fn a_stranger_who_listens_to_everything_hears_nothing() {
    need_the_sandbox();
    let mut stranger = command_as("carol", &["deputy-eavesdropper"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the eavesdropper");
    let mut lines = BufReader::new(stranger.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    link("portal", "demo", "whispered", "bob");
    let output =
        deputyctl("portal", &["run", "--app", "demo", "--account", "whispered", "--", "echo", "murmur"]);
    assert_eq!(output.stdout, "murmur\n", "{}", output.stderr);
    drop(stranger.stdin.take());
    let told: Vec<String> = lines.map(Result::unwrap).collect();
    assert!(stranger.wait().unwrap().success());
    assert!(told.iter().any(|line| line.contains("Introspect")), "it looked: {told:?}");
    assert!(!told.iter().any(|line| line.starts_with("heard:")), "{told:?}");
    for word in ["whispered", "murmur", "/job/", "/session/", "demo"] {
        assert!(!told.iter().any(|line| line.contains(word)), "{word}: {told:?}");
    }
}

#[test]
fn introspection_is_what_is_checked_in() {
    need_the_sandbox();
    let output = as_user(
        "carol",
        &[
            "busctl",
            "--system",
            "--json=short",
            "call",
            "org.deputy.Deputy1",
            ROOT,
            "org.freedesktop.DBus.Introspectable",
            "Introspect",
        ],
    );
    let answer: serde_json::Value = serde_json::from_str(&output.stdout).expect(&output.stderr);
    let running = answer["data"][0].as_str().expect("a text");
    let checked_in =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../dbus/org.deputy.Deputy1.xml"))
            .expect("the checked-in XML");
    for interface in interfaces(running) {
        if interface.starts_with("org.deputy.") {
            assert_eq!(
                section(running, &interface),
                section(&checked_in, &interface),
                "{interface} differs from dbus/org.deputy.Deputy1.xml"
            );
        }
    }
    assert!(interfaces(running).iter().any(|name| name == "org.deputy.Deputy1.Jobs"));
}

fn interfaces(xml: &str) -> Vec<String> {
    xml.split("<interface name=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .map(str::to_owned)
        .collect()
}

/// One interface's element, without the white space that its place in the document gives it.
fn section(xml: &str, interface: &str) -> String {
    let start =
        xml.find(&format!("<interface name=\"{interface}\"")).unwrap_or_else(|| panic!("{interface}"));
    let end = xml[start..].find("</interface>").expect("its end") + start;
    xml[start..end].split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn any_client_can_call_it() {
    need_the_sandbox();
    let gdbus = as_user(
        "portal",
        &[
            "gdbus",
            "call",
            "--system",
            "--dest",
            "org.deputy.Deputy1",
            "--object-path",
            ROOT,
            "--method",
            "org.deputy.Deputy1.Accounts.Create",
            "by-gdbus",
            "{}",
        ],
    );
    assert_eq!(gdbus.status, 0, "{}", gdbus.stderr);
    let script = r#"
import dbus
service = dbus.SystemBus().get_object("org.deputy.Deputy1", "/org/deputy/Deputy1")
accounts = dbus.Interface(service, "org.deputy.Deputy1.Accounts")
accounts.Create("by-python", dbus.Dictionary({"email": "p@example.org"}, signature="sv"))
found, cursor = accounts.List(dbus.Dictionary({}, signature="sv"))
print(sorted(str(entry["account"]) for entry in found if str(entry["account"]).startswith("by-")))
try:
    accounts.Create("by-python", dbus.Dictionary({}, signature="sv"))
except dbus.DBusException as error:
    print(error.get_dbus_name(), len(error.args) >= 1)
try:
    accounts.Create("../by-python", dbus.Dictionary({}, signature="sv"))
except dbus.DBusException as error:
    print(error.get_dbus_name())
"#;
    // Debian's own interpreter has Debian's own bindings.
    let python = as_user("portal", &["/usr/bin/python3", "-c", script]);
    assert_eq!(
        python.stdout,
        "['by-gdbus', 'by-python']\norg.deputy.Deputy1.Error.Conflict True\norg.deputy.Deputy1.Error.InvalidArgument\n",
        "{}",
        python.stderr
    );
    let version = as_user(
        "carol",
        &[
            "busctl",
            "--system",
            "get-property",
            "org.deputy.Deputy1",
            ROOT,
            "org.deputy.Deputy1.Manager",
            "Version",
        ],
    );
    assert!(version.stdout.starts_with("s \""), "{}{}", version.stdout, version.stderr);
}
