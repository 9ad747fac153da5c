//! An export with the hashes of accounts' own passwords: root's alone, asked for, and whole or not at all.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use deputy_suite::machine::{add_service_user, install_application, run, wait_until};
use deputy_suite::people::{ok, refused};
use deputy_suite::{Output, as_user, deputyctl, need_the_sandbox};

/// How the hash of a password begins.
const HASH: &str = "$argon2id$";

fn export(user: &str, path: &Path) -> Output {
    let path = path.to_str().expect("plain");
    deputyctl(user, &["--yes", "store", "export", "--with-passwords", path])
}

#[test]
fn hashes_are_exported_by_root_alone_into_a_new_file_of_roots_and_never_by_default() {
    need_the_sandbox();
    add_service_user("moving");
    install_application("moving", "service_user = \"moving\"\nauthentication = [\"password\"]\n");
    wait_until("the application is known", || {
        deputyctl("moving", &["account", "list", "moving"]).status == 0
    });
    ok(&deputyctl("root", &["account", "add", "moving", "ann"]));
    // More than a page of records.
    for number in 0..20 {
        ok(&deputyctl("root", &["account", "add", "moving", &format!("another-{number}")]));
    }
    let set = "echo violet harbour seven kites | deputyctl account password moving ann --answers-fd 0";
    ok(&as_user("root", &["sh", "-c", set]));

    let folder = Path::new("/run/deputy-sandbox/export");
    fs::create_dir(folder).expect("a folder");
    let plain = ok(&deputyctl("root", &["store", "export"]));
    assert!(plain.contains("\"ann\"") && !plain.contains(HASH));
    for user in ["alice", "moving", "deputy"] {
        let path = Path::new("/tmp").join(format!("export-of-{user}"));
        assert_eq!(refused(&export(user, &path)), "NotAuthorized", "{user}");
        assert!(!path.exists(), "{user}");
    }
    // What is there is not written to, nor what a link names.
    let (there, link, aim) = (folder.join("there"), folder.join("link"), folder.join("aim"));
    fs::write(&there, "mine").expect("a file");
    symlink(&aim, &link).expect("a link");
    for path in [&there, &link] {
        assert_eq!(refused(&export("root", path)), "InvalidArgument", "{}", path.display());
    }
    assert_eq!(fs::read_to_string(&there).expect("it"), "mine");
    assert!(!aim.exists() && link.is_symlink());
    // A disk that is full is an error, and leaves nothing half.
    let small = Path::new("/run/deputy-sandbox/small");
    fs::create_dir(small).expect("a folder");
    run("mount", &["-t", "tmpfs", "-o", "size=4k,mode=700", "none", "/run/deputy-sandbox/small"]);
    let failed = export("root", &small.join("export"));
    assert!(failed.status != 0 && failed.stderr.contains("No space left"), "{}", failed.stderr);
    assert_eq!(fs::read_dir(small).expect("the folder").count(), 0);
    run("umount", &["/run/deputy-sandbox/small"]);

    let path = folder.join("whole");
    assert_eq!(ok(&export("root", &path)), "");
    let about = fs::metadata(&path).expect("the file");
    assert_eq!((about.uid(), about.permissions().mode() & 0o7777), (0, 0o600));
    let text = fs::read_to_string(&path).expect("text");
    assert!(text.starts_with("{\"deputy_passwords\":1,\"accounts\":"));
    let hashes: Vec<_> = text.lines().filter(|line| line.contains(HASH)).collect();
    assert!(hashes.iter().any(|line| line.contains("\"moving\"") && line.contains("\"ann\"")));
    assert!(text.lines().any(|line| line.starts_with("{\"deputy_export\":")), "the records come too");
}
