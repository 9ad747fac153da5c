//! `docs/findings.md` and the list of codes say the same.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use deputy_core::{Code, Denial, Finding, FindingCode};

const DOCUMENT: &str = include_str!("../../../docs/findings.md");

/// The rows of the table of codes: code, meaning, remedy.
fn rows() -> Vec<[&'static str; 3]> {
    DOCUMENT
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [code, meaning, remedy] = cells[..] else { panic!("not three cells: {line}") };
            [code.trim_matches('`'), meaning, remedy]
        })
        .collect()
}

#[test]
fn every_finding_is_explained_once_in_the_order_of_the_code() {
    let documented: Vec<_> = rows().iter().map(|row| row[0]).collect();
    let known: Vec<_> = FindingCode::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(documented, known);
    assert_eq!(known.iter().collect::<BTreeSet<_>>().len(), known.len());
    for [code, meaning, remedy] in rows() {
        assert!(!meaning.is_empty() && !remedy.is_empty(), "{code}");
    }
}

#[test]
fn a_refusals_code_is_never_a_findings_own() {
    let own: BTreeSet<_> = FindingCode::ALL.iter().map(|code| code.as_str()).collect();
    let refusals: Vec<_> =
        Code::ALL.iter().map(|&code| Finding::from(Denial::new(code, "", "")).code).collect();
    for code in &refusals {
        assert!(!own.contains(code.as_str()), "{code}");
    }
    // What the page says a check can find, there is.
    let chapter = DOCUMENT.split("A check of a link can find").nth(1).expect("the list of refusals");
    let chapter = chapter.split("\n\n").next().unwrap_or_default();
    for word in chapter.split('`').skip(1).step_by(2) {
        assert!(refusals.iter().any(|code| code == word), "{word} is no refusal");
    }
}
