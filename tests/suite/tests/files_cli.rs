//! `deputyctl file` and `deputyctl quota`.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use deputy_suite::acting::ids;
use deputy_suite::machine::{add_service_user, install_application, wait_until};
use deputy_suite::people::{ok, refused};
use deputy_suite::requests::grant_in;
use deputy_suite::{Output, as_user, deputyctl, need_the_sandbox};

fn begin() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    need_the_sandbox();
    ONCE.call_once(|| {
        add_service_user("cliportal");
        install_application(
            "clifiles",
            "service_user = \"cliportal\"\ntrust = \"application\"\n\
             [[roots]]\npath = \"/data/cli\"\naccess = \"read-write\"\n",
        );
        fs::create_dir_all("/data/cli").expect("the root");
        for (path, mode) in [("/data", 0o755), ("/data/cli", 0o777)] {
            fs::set_permissions(path, Permissions::from_mode(mode)).expect("a mode");
        }
        grant_in("clifiles", "ada", "alice");
        wait_until("the application is known", || {
            deputyctl("cliportal", &["account", "add", "clifiles", "ada"]).status == 0
        });
        ok(&deputyctl("cliportal", &["link", "request", "clifiles", "ada", "alice"]));
    });
}

fn file(words: &[&str]) -> Output {
    deputyctl("cliportal", &[&["file", words[0], "--account", "ada"], &words[1..]].concat())
}

#[test]
fn files_are_put_listed_shown_copied_and_removed() {
    begin();
    fs::write("/tmp/upload", "uploaded").expect("a file");
    fs::set_permissions("/tmp/upload", Permissions::from_mode(0o644)).expect("a mode");
    ok(&file(&["mkdir", "-p", "/data/cli/a/b"]));
    ok(&file(&["put", "/tmp/upload", "/data/cli/a/file"]));
    let found = fs::metadata("/data/cli/a/file").expect("the file");
    assert_eq!((found.uid(), found.mode() & 0o7777), (ids("alice").uid, 0o644));
    assert_eq!(ok(&file(&["cat", "/data/cli/a/file"])), "uploaded");
    ok(&file(&["get", "/data/cli/a/file", "/tmp/downloaded"]));
    assert_eq!(fs::read_to_string("/tmp/downloaded").expect("a file"), "uploaded");
    let streamed = "printf streamed | deputyctl file put --account ada - /data/cli/a/streamed";
    ok(&as_user("cliportal", &["sh", "-c", streamed]));
    assert_eq!(ok(&file(&["cat", "/data/cli/a/streamed"])), "streamed");
    ok(&file(&["mv", "/data/cli/a/streamed", "/data/cli/a/b/moved"]));
    ok(&file(&["cp", "/data/cli/a", "/data/cli/copy"]));
    assert_eq!(fs::read_to_string("/data/cli/copy/b/moved").expect("copied"), "streamed");
    ok(&file(&["chmod", "2750", "/data/cli/copy"]));
    assert!(ok(&file(&["stat", "/data/cli/copy"])).contains("2750"));
    ok(&file(&["acl", "/data/cli/copy/file", "--set", "u::rw-,u:0:r--,g::r--,m::r--,o::---"]));
    assert!(ok(&file(&["acl", "/data/cli/copy/file"])).contains("user:0:r--"));
    let usage = ok(&deputyctl("cliportal", &["file", "du", "--json", "--account", "ada", "/data/cli/copy"]));
    assert!(usage.contains("\"done\":4"), "{usage}");
    ok(&file(&["rm", "-r", "/data/cli/copy"]));
    assert!(!Path::new("/data/cli/copy").exists());
    assert!(ok(&file(&["df"])).contains("/data/cli"));
    assert_eq!(deputyctl("cliportal", &["quota", "--account", "ada"]).status, 0);
}

#[test]
fn names_of_any_bytes_come_through_and_do_nothing_to_a_terminal() {
    begin();
    ok(&file(&["mkdir", "/data/cli/names"]));
    let script = "name=$(printf 'x\\033[31m\\nnew\\377'); printf held | deputyctl file put --account ada - \
                  \"/data/cli/names/$name\" && deputyctl file cat --account ada \"/data/cli/names/$name\"";
    assert_eq!(ok(&as_user("cliportal", &["sh", "-c", script])), "held");
    let listed = file(&["ls", "/data/cli/names"]);
    let text = ok(&listed);
    assert!(!text.contains('\u{1b}') && text.contains("\\xff"), "{text:?}");
}

#[test]
fn an_upload_is_there_in_whole_or_not_at_all() {
    begin();
    ok(&file(&["mkdir", "/data/cli/whole"]));
    fs::write("/tmp/first", "first").expect("a file");
    fs::set_permissions("/tmp/first", Permissions::from_mode(0o644)).expect("a mode");
    ok(&file(&["put", "/tmp/first", "/data/cli/whole/file"]));
    let again = deputyctl(
        "cliportal",
        &["file", "put", "--no-replace", "--account", "ada", "/tmp/first", "/data/cli/whole/file"],
    );
    assert_eq!(refused(&again), "FileError");
    assert!(again.stderr.contains("EEXIST"), "{}", again.stderr);
    assert_ne!(file(&["put", "/nonexistent", "/data/cli/whole/other"]).status, 0);
    let names: Vec<_> =
        fs::read_dir("/data/cli/whole").expect("a folder").flatten().map(|e| e.file_name()).collect();
    assert_eq!(names, ["file"]);
    assert_eq!(refused(&file(&["cat", "/etc/passwd"])), "PathOutside");
    assert_eq!(refused(&file(&["cat", "/data/cli/whole/absent"])), "FileError");
}
