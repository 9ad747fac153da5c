//! `docs/scenarios.md` names only tests that exist, and each scenario once.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

const DOCUMENT: &str = include_str!("../../../docs/scenarios.md");

/// The rows of the tables, cell by cell.
fn rows() -> Vec<Vec<&'static str>> {
    let rows = DOCUMENT
        .lines()
        .filter(|line| line.starts_with("| "))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect::<Vec<_>>());
    rows.filter(|cells| cells[0] != "scenario" && !cells[0].starts_with("--")).collect()
}

/// Whether a source has a function of this name that is a test.
fn has_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let is_declared = |line: &str| {
        let line = line.strip_prefix("async ").unwrap_or(line);
        let rest = line.strip_prefix("fn ").and_then(|rest| rest.strip_prefix(name));
        rest.is_some_and(|rest| rest.starts_with('('))
    };
    lines.iter().position(|line| is_declared(line)).is_some_and(|at| {
        let before =
            lines[..at].iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("//"));
        before.into_iter().any(|line| *line == "#[test]" || line.starts_with("#[tokio::test"))
    })
}

#[test]
fn each_scenario_is_there_once_with_what_is_to_happen() {
    let rows = rows();
    assert!(rows.len() >= 50, "{} rows", rows.len());
    for row in &rows {
        assert_eq!(row.len(), 3, "{row:?}");
        assert!(row.iter().all(|cell| !cell.is_empty()), "{row:?}");
    }
    let names: BTreeSet<&str> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(names.len(), rows.len());
}

#[test]
fn every_test_that_is_named_is_there_and_is_a_test() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut sources = BTreeMap::new();
    for row in rows() {
        for shown in row[2].split(", ") {
            let named = shown.strip_prefix('`').and_then(|shown| shown.strip_suffix('`'));
            let (file, name) = named
                .and_then(|named| named.split_once("::"))
                .unwrap_or_else(|| panic!("{}: {shown} is not `file::test`", row[0]));
            let source = sources.entry(file).or_insert_with(|| {
                fs::read_to_string(top.join(file))
                    .unwrap_or_else(|error| panic!("{}: {file}: {error}", row[0]))
            });
            assert!(has_test(source, name), "{}: {file} has no test {name}", row[0]);
        }
    }
}
