//! `deputyctl application install`: what is wrong is told with its place, and nothing half is ever in place.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use deputy_suite::machine::add_service_user;
use deputy_suite::{deputyctl, need_the_sandbox};

const FOLDER: &str = "/etc/deputy/applications.d";

/// The files there, but for the one of the other test.
fn names() -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(FOLDER)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name != "mistyped.toml")
        .collect();
    names.sort();
    names
}

#[test]
fn only_a_right_file_is_installed_and_only_by_root() {
    need_the_sandbox();
    add_service_user("newportal");
    let right = "service_user = \"newportal\"\n[kinds.batch]\ncommands = [\"*\"]\n";
    let write = |name: &str, text: &str| {
        let path = format!("/tmp/{name}");
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode");
        path
    };
    let before = names();
    for (name, text, code, words) in [
        (
            "typo.toml",
            "service_user = \"newportal\"\n[kinds.batch]\ncomands = [\"*\"]\n",
            "ApplicationInvalid",
            "line 3, column 1: unknown key `comands`; did you mean `commands`?",
        ),
        ("broken.toml", "service_user = [\n", "ApplicationInvalid", "line "),
        ("nouser.toml", "service_user = \"not-a-user\"\n", "ApplicationInvalid", "no user not-a-user"),
        ("root.toml", "service_user = \"root\"\n", "ApplicationInvalid", "root"),
        ("clash.toml", "service_user = \"portal\"\n", "ApplicationInvalid", "service user of demo"),
        ("demo.toml", right, "Conflict", "demo is installed already"),
        ("no application.toml", right, "InvalidArgument", "--name"),
        ("no-suffix", right, "InvalidArgument", "--name"),
    ] {
        let path = write(name, text);
        let output = deputyctl("root", &["application", "install", &path]);
        assert_eq!(output.status, 125, "{name}: {}", output.stdout);
        let line = format!("deputyctl: {code}: ");
        assert!(
            output.stderr.starts_with(&line) && output.stderr.contains(words),
            "{name}: {}",
            output.stderr
        );
        assert_eq!(names(), before, "{name}");
    }
    let path = write("fresh.toml", right);
    let refused = deputyctl("carol", &["application", "install", &path]);
    assert!(refused.stderr.contains("NotAuthorized"), "{}", refused.stderr);
    let dry = deputyctl("root", &["application", "install", &path, "--dry-run"]);
    assert_eq!((dry.status, names()), (0, before.clone()), "{}", dry.stderr);

    let done = deputyctl("root", &["application", "install", &path]);
    assert_eq!(done.status, 0, "{}", done.stderr);
    let installed = Path::new(FOLDER).join("fresh.toml");
    let found = fs::metadata(&installed).expect("it is there");
    assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (0, 0, 0o644));
    assert_eq!(names().len(), before.len() + 1, "nothing is left beside it: {:?}", names());
    // It is in effect at once.
    let added = deputyctl("newportal", &["application", "check", "fresh"]);
    assert_eq!(added.status, 0, "{}{}", added.stdout, added.stderr);

    // A new text takes the place of the old one only on purpose, and a wrong one never.
    let path = write("fresh.toml", "service_user = \"newportal\"\ntrust = \"application\"\n");
    assert_eq!(deputyctl("root", &["application", "install", &path]).status, 125);
    assert_eq!(deputyctl("root", &["application", "install", &path, "--replace"]).status, 0);
    assert!(fs::read_to_string(&installed).expect("the file").contains("trust"));
    let path = write("fresh.toml", "service_user = 5\n");
    assert_eq!(deputyctl("root", &["application", "install", &path, "--replace"]).status, 125);
    assert!(fs::read_to_string(&installed).expect("the file").contains("trust"));
}

#[test]
fn a_check_of_a_broken_file_names_file_line_and_key() {
    need_the_sandbox();
    add_service_user("typoportal");
    let path = Path::new(FOLDER).join("mistyped.toml");
    fs::write(&path, "service_user = \"typoportal\"\ntrsut = \"application\"\n").expect("a file");
    let output = deputyctl("root", &["--json", "application", "check", "mistyped"]);
    assert_eq!(output.status, 1, "{}", output.stderr);
    let found: serde_json::Value = serde_json::from_str(&output.stdout).expect("JSON");
    let message = found[0]["message"].as_str().expect("a message");
    assert!(message.contains("/etc/deputy/applications.d/mistyped.toml: line 2, column 1"), "{message}");
    assert!(message.contains("did you mean `trust`?"), "{message}");
    // What it governs is closed.
    let refused = deputyctl("typoportal", &["account", "add", "mistyped", "x"]);
    assert_eq!(refused.status, 125);
    fs::remove_file(&path).expect("the test's own file");
}
