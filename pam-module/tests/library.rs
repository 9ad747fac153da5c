//! The library as a file: what it offers, what it needs, and what it is made of.

use std::path::PathBuf;
use std::process::Command;

/// What it may offer, one symbol a line.
const SYMBOLS: &str = include_str!("../symbols.txt");
/// What it may need, one library a line.
const LIBRARIES: &str = include_str!("../libraries.txt");
/// The crates it may be made of, one a line.
const CRATES: &str = include_str!("../crates.txt");

fn library() -> PathBuf {
    let test = std::env::current_exe().expect("this program's path");
    let folder = test.parent().expect("target/debug/deps");
    let library = folder.join("libpam_deputy.so");
    assert!(library.exists(), "{}: it is built with the tests", library.display());
    library
}

fn output(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    let output = command.args(arguments).arg(library()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; tests/packages.sh installs it"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn it_offers_the_listed_symbols_and_no_other() {
    let shown = output("nm", &["--dynamic", "--defined-only", "--format=just-symbols"]);
    let mut shown: Vec<&str> = shown.lines().collect();
    shown.sort_unstable();
    assert_eq!(shown, SYMBOLS.lines().collect::<Vec<_>>());
}

#[test]
fn it_needs_the_listed_libraries_and_stays_when_loaded() {
    let dynamic = output("readelf", &["--dynamic", "--wide"]);
    let needed: Vec<&str> = dynamic
        .lines()
        .filter(|line| line.contains("(NEEDED)"))
        .filter_map(|line| line.split_once('[')?.1.strip_suffix(']'))
        // The loader itself, for thread-local variables.
        .filter(|name| !name.starts_with("ld-linux"))
        .collect();
    assert_eq!(needed, LIBRARIES.lines().collect::<Vec<_>>());
    assert!(dynamic.contains("Library soname: [pam_deputy.so]"), "{dynamic}");
    assert!(dynamic.contains("NODELETE") && dynamic.contains("NOW"), "{dynamic}");
}

#[test]
fn it_is_made_of_the_listed_crates_and_no_other() {
    let cargo = option_env!("CARGO").unwrap_or("cargo");
    let arguments = ["tree", "--offline", "--locked", "-p", "deputy-pam", "--edges", "normal,no-proc-macro"];
    let shape = ["--prefix", "none", "--format", "{p}"];
    let output =
        Command::new(cargo).args(arguments).args(shape).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let output = output.expect("cargo tree");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut crates: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    crates.sort_unstable();
    crates.dedup();
    assert_eq!(crates, CRATES.lines().collect::<Vec<_>>());
}
