//! `docs/features.md` has every feature once, and the tests that it names exist.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const DOCUMENT: &str = include_str!("../../../docs/features.md");

/// The features, in the order of the document. What is built later adds its own.
const FEATURES: &[&str] = &[
    // Who may act: accounts, roles, approval, passwords, sessions, projects, links.
    "N01", "N02", "N03", "N04", "N05", "N06", "N07", "N08", "N13", "N14", "N18", "N19", "N20", "N21", "N22",
    "N23", "N24", "N25", "T01", "T02", "T03", "T04", "T11", "T12", "T13", "T14", "T15", "T16", "T17", "T18",
    "T26", "T27", "A04", "A05", "A06", "A07", "A08", "A12", "A16", "P01", "P02", "P03", "P04", "P05", "P06",
    "P07", "P08", "C04", "C05", "C06", "C10", "C11", "B02", "B03", "B04", "B13", "B15", "B16",
    // Files as the user.
    "N10", "T20", "T21", "A09", "C02", "C03", "B17", "B07", "N11", "B05", // Jobs in full.
    "N09", "N12", "T06", "T10", "T28", "C01", "C09", "B01", "B06", "B10", "B11", "B12",
];

/// The rows of the table, cell by cell.
fn rows() -> Vec<Vec<&'static str>> {
    let rows = DOCUMENT
        .lines()
        .filter(|line| line.starts_with("| "))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect::<Vec<_>>());
    rows.filter(|cells| cells[0] != "id" && !cells[0].starts_with("--")).collect()
}

/// Whether a source has a function of this name that is a test.
fn has_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let declaration = |line: &str| {
        let line = line.strip_prefix("async ").unwrap_or(line);
        line.strip_prefix("fn ")
            .and_then(|rest| rest.strip_prefix(name))
            .is_some_and(|rest| rest.starts_with('('))
    };
    lines.iter().position(|line| declaration(line)).is_some_and(|at| {
        // Attributes and comments may stand between.
        let before =
            lines[..at].iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("//"));
        before.into_iter().any(|line| *line == "#[test]" || line.starts_with("#[tokio::test"))
    })
}

#[test]
fn every_feature_is_there_exactly_once_and_in_order() {
    let documented: Vec<&str> = rows().iter().map(|row| row[0]).collect();
    assert_eq!(documented, FEATURES);
    for row in rows() {
        assert_eq!(row.len(), 4, "{row:?}");
        assert!(row.iter().all(|cell| !cell.is_empty()), "{row:?}");
    }
}

#[test]
fn every_test_that_is_named_is_there_and_is_a_test() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut sources = BTreeMap::new();
    for row in rows() {
        for shown in row[3].split(", ") {
            let named = shown.strip_prefix('`').and_then(|shown| shown.strip_suffix('`'));
            let (file, name) = named.and_then(|named| named.split_once("::")).unwrap_or_else(|| {
                panic!("{}: {shown} is not `file::test`", row[0]);
            });
            let source = sources.entry(file).or_insert_with(|| {
                fs::read_to_string(top.join(file))
                    .unwrap_or_else(|error| panic!("{}: {file}: {error}", row[0]))
            });
            assert!(has_test(source, name), "{}: {file} has no test {name}", row[0]);
        }
    }
}

#[test]
fn what_only_looks_like_a_test_is_none() {
    let source = "#[test]\nfn one() {}\nfn two() {}\n#[tokio::test(flavor = \"x\")]\nasync fn three() {}\n// fn four() {}";
    for (name, expected) in [("one", true), ("two", false), ("three", true), ("four", false), ("on", false)] {
        assert_eq!(has_test(source, name), expected, "{name}");
    }
}
