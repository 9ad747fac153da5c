//! The commands against a stand-in for `deputyd`: what is printed, where, and the exit status.

mod fake;

use fake::Bus;
use serde_json::{Value, json};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
}

#[test]
fn a_refusal_is_code_message_and_remedy_on_standard_error_and_125() {
    let bus = Bus::new();
    let (status, out, err) = bus.run(&["account", "add", "portal", "taken"]);
    assert_eq!((status, out.as_str()), (125, ""));
    assert_eq!(err, "deputyctl: Conflict: it\\nexists\nremedy: take another\n");
    for switch in ["--verbose", "--json"] {
        let (_, _, err) = bus.run(&["account", "add", "portal", "taken", switch]);
        assert_eq!(err, "deputyctl: Conflict: it\\nexists\nrule: unique\nremedy: take another\n");
    }
}

#[test]
fn a_daemon_or_bus_that_is_not_there_is_said_with_what_to_start() {
    let bus = Bus::empty();
    for words in [&["status"][..], &["run", "--app", "a", "--account", "b", "--", "id"]] {
        let (status, out, err) = bus.run(words);
        assert_eq!((status, out.as_str()), (125, ""));
        assert!(err.starts_with("deputyctl: DaemonUnavailable: "), "{err}");
        assert!(err.contains("\nremedy: ") && err.contains("systemctl"), "{err}");
        let output =
            bus.deputyctl(words).env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent").output().unwrap();
        let (status, _, err) = fake::outcome(output);
        assert_eq!(status, 125);
        assert!(err.starts_with("deputyctl: DaemonUnavailable: ") && err.contains("systemctl"), "{err}");
    }
}

#[test]
fn findings_are_printed_and_errors_among_them_are_exit_status_1() {
    let bus = Bus::new();
    let (status, out, _) = bus.run(&["application", "check", "portal"]);
    assert_eq!(status, 0);
    assert!(out.contains("SEVERITY") && out.contains("some-code"), "{out}");
    let (status, out, _) = bus.run(&["application", "check", "broken", "--json"]);
    assert_eq!(status, 1);
    assert_eq!(json(&out)[0]["severity"], "error");
}

#[test]
fn lists_are_followed_page_by_page() {
    let bus = Bus::new();
    let (status, out, _) = bus.run(&["account", "list", "portal", "--json"]);
    assert_eq!(status, 0);
    assert_eq!(json(&out), json!([{"account": "alice", "created": 0}, {"account": "bob", "created": 0}]));
    let (_, out, _) = bus.run(&["account", "list", "portal"]);
    assert!(out.contains("alice") && out.contains("bob") && out.contains("1970-01-01T00:00:00Z"), "{out}");
    let (status, out, err) = bus.run(&["link", "list"]);
    assert_eq!((status, out.as_str(), err.as_str()), (0, "", "none\n"));
    assert_eq!(bus.run(&["link", "list", "--json"]).1, "[]\n");
}

#[test]
fn records_keep_their_field_names_and_each_byte_string_its_form() {
    let bus = Bus::new();
    let (_, out, _) = bus.run(&["job", "show", "abcdefghijklmnop", "--json"]);
    assert_eq!(
        json(&out),
        json!({"id": "abcdefghijklmnop", "argv": ["ls", "\\xff\\\\"], "queued": 1_000_000})
    );
    let (_, out, _) = bus.run(&["job", "show", "abcdefghijklmnop"]);
    assert!(out.starts_with("id") && out.contains("1970-01-01T00:00:01Z"), "{out}");
}

#[test]
fn nothing_from_elsewhere_reaches_the_terminal_as_it_is() {
    let bus = Bus::new();
    let (_, out, _) = bus.run(&["status"]);
    assert!(out.contains("9.9\\x1b[2J") && !out.contains('\x1b'), "{out}");
    assert_eq!(json(&bus.run(&["status", "--json"]).1)["version"], "9.9\u{1b}[2J");
}

#[test]
fn a_link_that_waits_says_what_its_owner_has_to_type() {
    let bus = Bus::new();
    let (status, out, _) = bus.run(&["link", "request", "portal", "alice", "ann"]);
    assert_eq!(status, 0);
    assert!(out.contains("\n    deputyctl consent give abcde23456\n"), "{out}");
    let (_, out, _) = bus.run(&["link", "request", "portal", "alice", "ann", "--json"]);
    assert_eq!(json(&out), json!({"state": "waiting", "code": "abcde23456"}));
}

#[test]
fn a_wrong_command_line_is_2_but_125_for_run_and_help_is_0() {
    let bus = Bus::empty();
    for words in [
        &["nonsense"][..],
        &["job", "show", "../x"],
        &["link", "add", "a"],
        &["account", "add", "portal", "-x"],
    ] {
        let (status, out, err) = bus.run(words);
        assert_eq!((status, out.as_str()), (2, ""), "{words:?}");
        assert!(err.contains("error:"), "{err}");
    }
    for words in
        [&["run"][..], &["--json", "run", "--nonsense"], &["run", "--app", "a/b", "--account", "c", "id"]]
    {
        assert_eq!(bus.run(words).0, 125, "{words:?}");
    }
    for words in [
        &["--help"][..],
        &["run", "--help"],
        &["link", "add", "-h"],
        &["--version"],
        &["help", "consent", "grant"],
    ] {
        let (status, out, err) = bus.run(words);
        assert_eq!((status, err.as_str()), (0, ""), "{words:?}");
        assert!(!out.is_empty());
    }
}

#[test]
fn each_shell_has_its_completion() {
    let bus = Bus::empty();
    for shell in ["bash", "zsh", "fish"] {
        let (status, out, _) = bus.run(&["completion", shell]);
        assert_eq!(status, 0);
        assert!(out.contains("deputyctl") && out.contains("consent"), "{shell}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_panic_and_a_full_disk_no_success() {
    let bus = Bus::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = bus.deputyctl(&["completion", "bash"]).stdout(writer).output().unwrap();
    assert_eq!(fake::outcome(output), (141, String::new(), String::new()));
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let (status, _, err) = fake::outcome(bus.deputyctl(&["status"]).stdout(full).output().unwrap());
    assert_eq!(status, 125);
    assert!(err.starts_with("deputyctl: Disk: cannot write to standard output"), "{err}");
}

#[test]
fn only_root_may_consent_for_others_or_open_the_store() {
    if !rustix::process::getuid().is_root() {
        let bus = Bus::empty();
        for words in [&["consent", "grant", "portal", "alice", "ann"][..], &["store", "verify"]] {
            let (status, _, err) = bus.run(words);
            assert_eq!(status, 125);
            assert!(err.contains("deputyctl: NotAuthorized: ") && err.contains("sudo"), "{err}");
        }
    }
}
