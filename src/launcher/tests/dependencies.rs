//! What is linked into the root program is what was looked at: `tests/launcher-dependencies.txt` at the top of the
//! project, with the reasons in `docs/dependencies.md`.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

const LIST: &str = include_str!("../../../tests/launcher-dependencies.txt");
const REASONS: &str = include_str!("../../../docs/dependencies.md");

/// Crates that have no place in a program of root's: runtimes, the bus, databases, networks, whatever their version.
const NEVER: [&str; 20] = [
    "tokio",
    "mio",
    "smol",
    "futures",
    "futures-util",
    "futures-core",
    "zbus",
    "zvariant",
    "dbus",
    "sled",
    "rusqlite",
    "redb",
    "hyper",
    "reqwest",
    "rustls",
    "openssl",
    "native-tls",
    "regex",
    "clap",
    "deputyd",
];

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The name and version of each crate of a tree, without paths.
fn linked() -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .current_dir(top())
        .args(["tree", "--locked", "--offline", "--package", "deputy-launcher", "--edges", "normal"])
        .args(["--prefix", "none", "--target", "x86_64-unknown-linux-gnu", "--format", "{p}"])
        .output()
        .expect("cargo can be started");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo tree failed; run `cargo fetch --locked` once:\n{errors}");
    let text = String::from_utf8(output.stdout).expect("names are ASCII");
    text.lines().map(|line| line.splitn(3, ' ').take(2).collect::<Vec<_>>().join(" ")).collect()
}

fn name(line: &str) -> &str {
    line.split(' ').next().unwrap_or_default()
}

#[test]
fn no_runtime_no_bus_and_no_database_is_linked_as_root() {
    for crate_and_version in linked() {
        let name = name(&crate_and_version);
        assert!(!NEVER.contains(&name) && !name.starts_with("async"), "{name} is linked into the launcher");
    }
}

#[test]
fn the_list_is_what_is_linked() {
    let linked = linked();
    let listed: BTreeSet<String> = LIST.lines().map(str::to_owned).collect();
    let new: Vec<_> = linked.difference(&listed).collect();
    let gone: Vec<_> = listed.difference(&linked).collect();
    assert!(
        new.is_empty() && gone.is_empty(),
        "tests/launcher-dependencies.txt differs from what is linked.\nnew: {new:#?}\ngone: {gone:#?}\n\
         Read what is new, give the reason in docs/dependencies.md, then correct the list."
    );
    let sorted: Vec<_> = listed.iter().map(String::as_str).collect();
    assert_eq!(LIST.lines().collect::<Vec<_>>(), sorted, "the list is sorted, without doubles");
}

#[test]
fn each_crate_has_its_line_in_the_document() {
    for line in LIST.lines() {
        let name = name(line);
        assert!(REASONS.contains(&format!("`{name}`")), "docs/dependencies.md says nothing about `{name}`");
    }
}

#[test]
fn the_versions_of_the_document_are_those_that_are_linked() {
    let mut compared = 0;
    for row in REASONS.lines() {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let ["", name, version, .., ""] = cells[..] else { continue };
        let linked = LIST.lines().find(|line| format!("`{}`", self::name(line)) == name);
        // Rows with a number in the second cell are those of the tables with versions.
        let (Some(linked), true) = (linked, version.starts_with(|c: char| c.is_ascii_digit())) else {
            continue;
        };
        let of_list =
            linked.split_once(" v").map_or("", |(_, version)| version.split('+').next().unwrap_or(version));
        assert_eq!(version, of_list, "docs/dependencies.md has another version of {name}");
        compared += 1;
    }
    assert!(compared >= 12, "{compared} versions were compared");
}
