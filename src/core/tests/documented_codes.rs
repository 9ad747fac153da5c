//! `docs/errors.md` and the list of codes say the same.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use deputy_core::Code;

const DOCUMENT: &str = include_str!("../../../docs/errors.md");

/// The headings below which the document explains a code, with the words that follow each.
fn explained() -> Vec<(&'static str, usize)> {
    DOCUMENT
        .split("\n### ")
        .skip(1)
        .map(|section| {
            let (heading, rest) = section.split_once('\n').unwrap_or((section, ""));
            // The last section of a chapter ends where the next chapter begins.
            let own = rest.split("\n## ").next().unwrap_or(rest);
            (heading.trim(), own.split_whitespace().count())
        })
        .collect()
}

#[test]
fn no_code_is_explained_that_does_not_exist_or_is_there_already() {
    let known: BTreeSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
    let mut seen = BTreeSet::new();
    for (heading, _) in explained() {
        assert!(known.contains(heading), "docs/errors.md explains {heading}, which is no code");
        assert!(seen.insert(heading), "docs/errors.md explains {heading} twice");
    }
}

#[test]
fn every_code_is_explained_in_more_than_a_few_words_and_has_a_remedy() {
    let explained = explained();
    for code in Code::ALL {
        let words = explained.iter().find(|(heading, _)| *heading == code.as_str()).map(|(_, words)| *words);
        assert!(
            words.is_some_and(|words| words >= 15),
            "docs/errors.md does not explain {code}: add \"### {code}\""
        );
    }
    let remedies = DOCUMENT.matches("*Remedy:*").count();
    assert!(remedies >= Code::ALL.len(), "{remedies} remedies for {} codes", Code::ALL.len());
}

#[test]
fn the_order_is_that_of_the_code() {
    let headings: Vec<_> = explained().into_iter().map(|(heading, _)| heading).collect();
    let codes: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(headings, codes);
}
