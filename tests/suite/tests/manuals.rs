//! What the daemons print about themselves, beside their manual pages. (`deputyctl`'s page is made from its definition.)
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;

use deputy_suite::{as_user, need_the_sandbox};

/// A manual page's text, with plain dashes.
fn page(name: &str) -> String {
    let path = format!("{}/../../man/{name}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}")).replace("\\-", "-")
}

/// The words that begin with two dashes.
fn switches(text: &str) -> BTreeSet<&str> {
    let part = |c: char| !(c.is_ascii_alphanumeric() || c == '-');
    text.split(part).filter(|word| word.len() > 2 && word.starts_with("--")).collect()
}

#[test]
fn each_daemon_has_the_switches_of_its_manual_page_and_no_other() {
    need_the_sandbox();
    for daemon in ["deputyd", "deputy-launcher"] {
        let help = as_user("alice", &[daemon, "--help"]);
        assert_eq!((help.status, help.stderr.as_str()), (0, ""), "{daemon}");
        let page = page(&format!("{daemon}.8"));
        // The page may name those of other programs, each together with the program.
        let own = page.lines().filter(|line| !line.contains("deputyctl")).collect::<Vec<_>>().join("\n");
        assert_eq!(switches(&help.stdout), switches(&own), "{daemon}");
        for switch in switches(&help.stdout) {
            let said = as_user("alice", &[daemon, switch]);
            assert!(said.status == 0 && !said.stdout.is_empty(), "{daemon} {switch}: {said:?}");
        }
        assert!(help.stdout.starts_with(&format!("Usage: {daemon}\n")), "{}", help.stdout);
        let version = as_user("alice", &[daemon, "--version"]);
        assert_eq!(version.stdout, format!("{daemon} {}\n", env!("CARGO_PKG_VERSION")));
        // What is none is refused, and so is one too many.
        for wrong in [&["--no-such"][..], &["help"], &["--help", "--version"]] {
            let refused = as_user("alice", &[&[daemon], wrong].concat());
            assert_eq!((refused.status, refused.stdout.as_str()), (2, ""), "{daemon} {wrong:?}");
        }
    }
}

#[test]
fn every_manual_page_says_that_it_is_that_page() {
    for (name, section) in [
        ("deputyd", 8),
        ("deputy-launcher", 8),
        ("deputyctl", 1),
        ("deputy.toml", 5),
        ("deputy-application", 5),
        ("org.deputy.Deputy1", 5),
        ("pam_deputy", 8),
        ("nss_deputy", 8),
    ] {
        let page = page(&format!("{name}.{section}"));
        let title = page.lines().find_map(|line| line.strip_prefix(".TH ")).expect("a title").to_lowercase();
        let mut words = title.split_ascii_whitespace();
        assert_eq!(words.next(), Some(name.to_lowercase().as_str()), "{name}");
        assert_eq!(words.next(), Some(section.to_string().as_str()), "{name}");
        for heading in ["NAME", "DESCRIPTION"] {
            assert!(page.lines().any(|line| line == format!(".SH {heading}")), "{name}: {heading}");
        }
    }
}
