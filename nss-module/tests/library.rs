//! The library as a file: what it offers, what it needs, and by which name it is loaded.

use std::path::PathBuf;
use std::process::Command;

/// What it may offer, one symbol a line.
const SYMBOLS: &str = include_str!("../symbols.txt");

fn library() -> PathBuf {
    let test = std::env::current_exe().expect("this program's path");
    let folder = test.parent().expect("target/debug/deps");
    let library = folder.join("libnss_deputy.so");
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
fn it_needs_libc_and_the_compilers_own_library_and_stays_when_loaded() {
    let dynamic = output("readelf", &["--dynamic", "--wide"]);
    let needed: Vec<&str> = dynamic
        .lines()
        .filter(|line| line.contains("(NEEDED)"))
        .filter_map(|line| line.split_once('[')?.1.strip_suffix(']'))
        // The loader itself, for thread-local variables.
        .filter(|name| !name.starts_with("ld-linux"))
        .collect();
    assert_eq!(needed, ["libgcc_s.so.1", "libc.so.6"]);
    assert!(dynamic.contains("Library soname: [libnss_deputy.so.2]"), "{dynamic}");
    assert!(dynamic.contains("NODELETE") && dynamic.contains("NOW"), "{dynamic}");
}

#[test]
fn it_is_made_of_libcs_declarations_and_the_format_alone() {
    let cargo = option_env!("CARGO").unwrap_or("cargo");
    let arguments = [
        "tree",
        "--offline",
        "--locked",
        "-p",
        "deputy-nss",
        "--edges",
        "normal",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ];
    let output = Command::new(cargo).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let output = output.expect("cargo tree");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let crates: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(crates, ["deputy-nss", "deputy-nss-format", "libc"]);
}
