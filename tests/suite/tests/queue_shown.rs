//! `deputyctl queue`: who is told what, as a table and as JSON. Refusals first.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use deputy_suite::machine::wait_until;
use deputy_suite::people::{ok, refused};
use deputy_suite::requests::grant;
use deputy_suite::{deputyctl, need_the_sandbox};

const SETTINGS: &str = "/etc/deputy/deputy.toml";

fn json(user: &str, arguments: &[&str]) -> serde_json::Value {
    serde_json::from_str(&ok(&deputyctl(user, &[&["--json", "queue"], arguments].concat()))).expect("JSON")
}

#[test]
fn the_queue_is_shown_to_whom_it_concerns() {
    need_the_sandbox();
    let written = fs::read_to_string(SETTINGS).expect("the settings");
    let beside = format!("{SETTINGS}.new");
    fs::write(&beside, format!("{written}\n[executor.local.capacity]\njobs = 1\n")).expect("settings");
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o644)).expect("their mode");
    fs::rename(&beside, SETTINGS).expect("in place");
    ok(&deputyctl("portal", &["account", "add", "demo", "shown"]));
    grant("shown", "alice");
    ok(&deputyctl("portal", &["link", "request", "demo", "shown", "alice"]));
    for _ in 0..2 {
        ok(&deputyctl(
            "portal",
            &["run", "--app", "demo", "--account", "shown", "--detach", "--", "sleep", "600"],
        ));
    }
    wait_until("one waits", || json("portal", &[])["jobs"].as_array().is_some_and(|jobs| jobs.len() == 1));

    // Who is nothing to the application is told nothing of it.
    assert_eq!(refused(&deputyctl("carol", &["queue", "--app", "demo"])), "NotAuthorized");
    assert_eq!(refused(&deputyctl("otherportal", &["queue", "--app", "demo"])), "NotFound");
    let others = json("otherportal", &[]).to_string();
    assert!(
        !others.contains("shown") && !others.contains("demo") && !others.contains("machine_"),
        "{others}"
    );
    // The application sees its own, and root what all use together.
    let own = json("portal", &[]);
    assert_eq!(own["capacity"]["jobs"], 1, "{own}");
    assert_eq!(own["jobs"][0]["account"], "shown", "{own}");
    assert_eq!(own["jobs"][0]["reason"], "machine: jobs", "{own}");
    assert!(own.get("machine_used").is_none(), "{own}");
    let all = json("root", &[]);
    assert_eq!((&all["machine_used"]["jobs"], &all["machine_waiting"]), (&1.into(), &1.into()), "{all}");
    // The same as a table: what there is, then who waits and why.
    let table = ok(&deputyctl("portal", &["queue"]));
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    let line = |first: &str| lines.iter().find(|words| words.first() == Some(&first)).cloned();
    assert!(line("capacity").is_some_and(|words| words.contains(&"1")), "{table}");
    assert!(lines.iter().any(|words| words.starts_with(&["used", "by", "demo"])), "{table}");
    assert!(table.contains("machine: jobs") && table.contains("shown"), "{table}");
    let whole = ok(&deputyctl("root", &["queue"]));
    assert!(whole.lines().any(|line| line.starts_with("used ")), "{whole}");
}
