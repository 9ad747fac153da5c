//! `deputy-store`, as an administrator uses it.

mod store_common;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use deputy_core::ApplicationName;
use deputyd::passwords::file::{HashFile, Kept};
use store_common::writer::{self, Writer};
use store_common::{Dice, activate, actor, create, directories, dump, ended, entries, open, queue};

#[test]
#[ignore = "the process beside which another test verifies"]
fn writer_process() {
    writer::main();
}

fn tool(place: &Path, arguments: &[&str], input: &[u8]) -> Output {
    tool_into(place, arguments, input, Stdio::piped())
}

fn tool_into(place: &Path, arguments: &[&str], input: &[u8], output: Stdio) -> Output {
    let folders = directories(place);
    let mut child = Command::new(env!("CARGO_BIN_EXE_deputy-store"))
        .args(arguments)
        .arg("--ledger")
        .arg(folders.ledger)
        .arg("--view")
        .arg(folders.view)
        .arg("--secrets")
        .arg(place.join("secrets"))
        .stdin(Stdio::piped())
        .stdout(output)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may refuse before it reads.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn fill(place: &Path) {
    let (store, _) = open(place).unwrap();
    for number in 0..20 {
        let name = format!("u{number}");
        for change in
            [create("demo", &name), activate("demo", &name, 1001), queue("demo", &name, 1001, number)]
        {
            store.commit_blocking(change, actor()).unwrap();
        }
    }
    store.commit_blocking(ended(3, 1), actor()).unwrap();
    store.close_blocking().unwrap();
}

#[test]
fn verify_tells_whole_from_damaged_and_names_the_place() {
    let place = tempfile::tempdir().unwrap();
    fill(place.path());
    let whole = tool(place.path(), &["verify"], b"");
    assert!(
        whole.status.success() && out(&whole).contains("61 records in 1 segments verify"),
        "{}",
        out(&whole)
    );

    let path = directories(place.path()).ledger.join("00000000000000000001.ledger");
    let mut bytes = std::fs::read(&path).unwrap();
    let good = bytes.clone();
    bytes[112 + 96 + 10] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let damaged = tool(place.path(), &["verify"], b"");
    assert_eq!(damaged.status.code(), Some(1));
    let expected =
        "segment 00000000000000000001.ledger, record 1, byte 112: the record does not have its hash";
    assert!(out(&damaged).contains(expected), "{}", out(&damaged));
    let json: serde_json::Value =
        serde_json::from_slice(&tool(place.path(), &["verify", "--json"], b"").stdout).unwrap();
    assert_eq!((&json["whole"], &json["damage"]["record"]), (&false.into(), &1.into()));
    // A rebuild, too, refuses to build on it, and an export to pass it on.
    for command in ["rebuild", "export"] {
        let refused = tool(place.path(), &[command], b"");
        assert_eq!(refused.status.code(), Some(1));
        assert!(out(&refused).contains("record 1, byte 112"), "{}", out(&refused));
    }

    // What a crash leaves is not whole either, until the next start has put it aside.
    std::fs::remove_file(directories(place.path()).ledger.join("clean.json")).unwrap();
    std::fs::write(&path, &good[..good.len() - 5]).unwrap();
    let torn = tool(place.path(), &["verify"], b"");
    assert_eq!(torn.status.code(), Some(1));
    assert!(out(&torn).contains("NOT WHOLE"), "{}", out(&torn));
    assert_eq!(tool(&place.path().join("nowhere"), &["verify"], b"").status.code(), Some(1));
}

#[test]
fn verify_and_export_work_beside_a_busy_daemon_and_nothing_else_does() {
    let place = tempfile::tempdir().unwrap();
    let mut writer = Writer::start(place.path(), 50_000);
    writer.wait_for_acknowledgement();
    let mut dice = Dice::thrown();
    for _ in 0..15 {
        let verified = tool(place.path(), &["verify"], b"");
        assert!(verified.status.success(), "{}", out(&verified));
        assert!(tool(place.path(), &["export"], b"").status.success());
        std::thread::sleep(Duration::from_micros(dice.below(5000)));
    }
    for command in ["rebuild", "import"] {
        let refused = tool(place.path(), &[command], b"");
        assert_eq!(refused.status.code(), Some(1));
        assert!(out(&refused).contains("in use by another process"), "{}", out(&refused));
    }
    writer.kill();
}

#[test]
fn an_export_makes_the_same_store_elsewhere() {
    let place = tempfile::tempdir().unwrap();
    fill(place.path());
    let export = tool(place.path(), &["export"], b"");
    assert!(export.status.success());
    let (store, _) = open(place.path()).unwrap();
    let (state, log) = (dump(&store), entries(&store));
    store.close_blocking().unwrap();

    let other = tempfile::tempdir().unwrap();
    let imported = tool(other.path(), &["import"], &export.stdout);
    assert!(imported.status.success(), "{}", out(&imported));
    let again = tool(other.path(), &["import"], &export.stdout);
    assert!(!again.status.success() && out(&again).contains("is not empty"), "{}", out(&again));
    assert!(tool(other.path(), &["rebuild"], b"").status.success());
    let (store, _) = open(other.path()).unwrap();
    assert_eq!(dump(&store), state);
    let mut there = entries(&store);
    assert!(matches!(there.pop().unwrap().change, deputyd::store::Change::Imported { records: 61, .. }));
    assert_eq!(there, log);
    store.close_blocking().unwrap();
}

#[test]
fn an_import_is_taken_whole_or_not_at_all() {
    let place = tempfile::tempdir().unwrap();
    fill(place.path());
    let export = tool(place.path(), &["export"], b"").stdout;
    let text = String::from_utf8(export.clone()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let without = |gone: usize| {
        let kept = lines.iter().enumerate().filter(|(at, _)| *at != gone).map(|(_, line)| *line);
        kept.collect::<Vec<_>>().join("\n")
    };
    let bad = [
        String::new(),
        without(0),
        without(5),
        without(lines.len() - 1),
        text.replacen("\"caller_uid\":990", "\"caller_uid\":\"root\"", 1),
        text.replacen("account-created", "account-creatd", 1),
        // The second account is the first once more.
        text.replace("\"u1\"", "\"u0\""),
    ];
    let other = tempfile::tempdir().unwrap();
    for text in bad {
        let refused = tool(other.path(), &["import"], text.as_bytes());
        assert!(!refused.status.success() && out(&refused).contains("line "), "{}", out(&refused));
    }
    assert!(tool(other.path(), &["import"], &export).status.success());

    // One that was killed on the way is no store.
    let third = tempfile::tempdir().unwrap();
    fill(third.path());
    std::fs::File::create(directories(third.path()).ledger.join("import.unfinished")).unwrap();
    let marker = directories(third.path()).ledger.join("import.unfinished");
    std::fs::set_permissions(&marker, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    match open(third.path()) {
        Err(error) => assert!(error.to_string().contains("import did not finish"), "{error}"),
        Ok(_) => panic!("it opened"),
    }
}

fn app() -> ApplicationName {
    "demo".parse().unwrap()
}

/// A hash, and the letters by which it is found.
const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$\
                    aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g";

fn put_password(place: &Path, account: &str) {
    let mut file = HashFile::open(&place.join("secrets")).unwrap();
    let kept = Kept { generation: format!("{account}-1"), hash: HASH.to_owned() };
    file.put(&app(), &account.parse().unwrap(), vec![kept]).unwrap();
}

fn passwords(place: &Path, account: &str) -> usize {
    let file = HashFile::open(&place.join("secrets")).unwrap();
    file.hashes(&app(), &account.parse().unwrap()).unwrap().len()
}

fn file_with_mode(path: &Path, mode: u32) -> std::fs::File {
    let file = std::fs::File::create(path).unwrap();
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    file
}

#[test]
fn hashes_of_passwords_leave_only_where_that_is_asked_for_and_nobody_else_can_read_them() {
    let place = tempfile::tempdir().unwrap();
    fill(place.path());
    put_password(place.path(), "u3");
    let plain = tool(place.path(), &["export"], b"");
    assert!(plain.status.success() && !out(&plain).contains("argon2"), "{}", out(&plain));
    let path = place.path().join("export");
    for mode in [0o640, 0o604, 0o620] {
        let open = file_with_mode(&path, mode);
        let refused = tool_into(place.path(), &["export", "--with-passwords"], b"", open.into());
        assert!(!refused.status.success() && out(&refused).contains("nobody but its owner"), "{mode:o}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
    }
    let refused = tool(place.path(), &["export", "--with-passwords"], b"");
    assert!(!refused.status.success() && out(&refused).contains("nobody but its owner"), "a pipe");
    assert!(!out(&refused).contains("argon2"));

    let private = file_with_mode(&path, 0o600);
    // The daemon may run.
    let _open = HashFile::open(&place.path().join("secrets")).unwrap();
    let exported = tool_into(place.path(), &["export", "--with-passwords"], b"", private.into());
    assert!(exported.status.success(), "{}", out(&exported));
    assert_eq!(std::fs::read_to_string(&path).unwrap().matches(HASH).count(), 1);
}

#[test]
fn an_import_takes_passwords_and_records_together_or_neither() {
    let place = tempfile::tempdir().unwrap();
    fill(place.path());
    put_password(place.path(), "u3");
    let path = place.path().join("export");
    let private = file_with_mode(&path, 0o600);
    assert!(tool_into(place.path(), &["export", "--with-passwords"], b"", private.into()).status.success());
    let export = std::fs::read_to_string(&path).unwrap();

    let other = tempfile::tempdir().unwrap();
    for bad in
        [export.replacen("account-created", "account-creatd", 1), export.replacen("$argon2id$", "$6$", 1)]
    {
        let refused = tool(other.path(), &["import"], bad.as_bytes());
        assert!(!refused.status.success() && out(&refused).contains("line "), "{}", out(&refused));
        assert!(!out(&refused).contains("aGFzaGhhc2"), "{}", out(&refused));
        assert_eq!(passwords(other.path(), "u3"), 0);
    }
    let imported = tool(other.path(), &["import"], export.as_bytes());
    assert!(imported.status.success(), "{}", out(&imported));
    assert!(out(&imported).contains("imported 61 records"), "{}", out(&imported));
    assert_eq!((passwords(other.path(), "u3"), passwords(other.path(), "u4")), (1, 0));
    // A store that has something takes nothing, and loses nothing.
    let again = tool(other.path(), &["import"], export.as_bytes());
    assert!(!again.status.success() && out(&again).contains("is not empty"), "{}", out(&again));
    assert_eq!(passwords(other.path(), "u3"), 1);
}
