//! The tests and files that the documents of trust name exist.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

const DOCUMENTS: [(&str, &str); 2] = [
    ("docs/cve-ledger.md", include_str!("../../../docs/cve-ledger.md")),
    ("docs/PRIVSEP.md", include_str!("../../../docs/PRIVSEP.md")),
];

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// What stands between backticks, outside of blocks of code.
fn quoted(document: &str) -> Vec<&str> {
    let prose = document.split("```").step_by(2);
    prose.flat_map(|text| text.split('`').skip(1).step_by(2)).collect()
}

/// Names of tests here are sentences: at least four words.
fn is_name_of_a_test(text: &str) -> bool {
    text.matches('_').count() >= 3
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn is_path(text: &str) -> bool {
    let first = text.split('/').next().unwrap_or_default();
    text.contains('/')
        && ["src", "tests", "nss-module", "pam-module", "pam", "systemd", "dbus", "polkit"].contains(&first)
        && !text.contains('*')
}

fn sources(folder: &Path, found: &mut String) {
    for entry in fs::read_dir(folder).expect("a folder of the project").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs")
            || path.parent().is_some_and(|folder| folder.ends_with("tests/machine/inside"))
        {
            found.push_str(&fs::read_to_string(&path).expect("a source file"));
        }
    }
}

#[test]
fn no_test_is_named_that_does_not_exist() {
    let mut all = String::new();
    sources(&top().join("src"), &mut all);
    sources(&top().join("tests"), &mut all);
    sources(&top().join("nss-module"), &mut all);
    sources(&top().join("pam-module"), &mut all);
    let mut named = 0;
    for (document, text) in DOCUMENTS {
        for name in quoted(text).into_iter().filter(|text| is_name_of_a_test(text)) {
            // In Rust, or in the shell of the booted machines.
            let there =
                [format!("fn {name}("), format!("\n{name}() {{")].iter().any(|text| all.contains(text));
            assert!(there, "{document} names the test {name}, which is not there");
            named += 1;
        }
    }
    assert!(named > 40, "{named} tests are named");
}

#[test]
fn no_file_is_named_that_does_not_exist() {
    for (document, text) in DOCUMENTS {
        for path in quoted(text).into_iter().filter(|text| is_path(text)) {
            assert!(top().join(path).exists(), "{document} names {path}, which is not there");
        }
    }
}
