//! Power cuts, full disks: on a file system of the test's own, which needs root and a loop device.
//!
//! A power cut takes everything that only the page cache knows. The writer works in an ext4 image mounted through a
//! loop device; it is stopped, and the image's backing file is copied. What the inner file system has not written
//! yet is not in the copy: nothing syncs or unmounts the image before. The copy is taken twice and used only when
//! both are the same, so that it shows one moment, although the kernel's journal thread may write meanwhile.
//! Mounting the copy replays the journal, as the next boot would.

mod store_common;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use deputyd::store::{Options, Store, StoreError};
use store_common::writer::{self, Writer};
use store_common::{Dice, account, actor, application, check_state, create, directories, entries, options};

const IMAGES: usize = 10;
const CUTS: usize = 10;
const INSIDE: &str = "DEPUTY_TEST_NAMESPACE";

#[test]
#[ignore = "the process that the other test starts and stops"]
fn writer_process() {
    writer::main();
}

#[test]
fn a_hundred_power_cuts_lose_nothing_that_was_acknowledged() {
    in_namespace("power_cuts_inside");
}

#[test]
fn a_full_disk_is_an_error_and_loses_nothing() {
    in_namespace("full_disk_inside");
}

/// Runs an ignored test of this program in mount and pid namespaces of its own: whatever happens, no mount and
/// no process stays behind.
fn in_namespace(test: &str) {
    assert!(
        rustix::process::geteuid().is_root() && Path::new("/dev/loop-control").exists(),
        "this test needs root, and loop devices (/dev/loop-control), to mount file systems of its own"
    );
    let status = Command::new("unshare")
        .args([
            "--mount",
            "--propagation",
            "private",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--",
        ])
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .expect("unshare (util-linux) is needed");
    assert!(status.success(), "{test}: {status}");
}

fn run(command: &str, arguments: &[&str]) {
    let output = Command::new(command).args(arguments).output().unwrap_or_else(|e| panic!("{command}: {e}"));
    assert!(output.status.success(), "{command} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Copies the image as it is at one moment.
fn copy_moment(image: &Path, copy: &Path) {
    let mut last = std::fs::read(image).unwrap();
    loop {
        let again = std::fs::read(image).unwrap();
        if again == last {
            std::fs::write(copy, again).unwrap();
            return;
        }
        last = again;
    }
}

#[test]
#[ignore = "started by another test, in a mount namespace"]
fn power_cuts_inside() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    let mut dice = Dice::thrown();
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name);
    let (image, copy, live, after) = (path("image"), path("copy"), path("live"), path("after"));
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    std::fs::create_dir(&live).unwrap();
    std::fs::create_dir(&after).unwrap();
    let (mut checked, mut tails, mut ahead) = (0, 0, 0);
    for _ in 0..IMAGES {
        std::fs::File::create(&image).unwrap().set_len(24 << 20).unwrap();
        run("mkfs.ext4", &["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", &text(&image)]);
        run("mount", &["-o", "loop", &text(&image), &text(&live)]);
        let mut writer = Writer::start(&live, 100_000);
        writer.wait_for_acknowledgement();
        for _ in 0..CUTS {
            std::thread::sleep(Duration::from_micros(dice.below(20_000)));
            writer.freeze();
            let acknowledged = writer.acknowledged;
            copy_moment(&image, &copy);
            run("mount", &["-o", "loop", &text(&copy), &text(&after)]);
            // Another boot: the view is not trusted.
            let next_boot = Options { boot: "next".to_owned(), ..options() };
            let (store, report) = Store::open_with(&directories(&after), next_boot).unwrap();
            let last = entries(&store).last().map_or(0, |entry| entry.number);
            assert!(last >= acknowledged, "{acknowledged} was acknowledged, {last} is there");
            check_state(&store);
            checked += acknowledged;
            tails += usize::from(report.cut_tail.is_some());
            ahead += last - acknowledged;
            store.close_blocking().unwrap();
            run("umount", &[&text(&after)]);
            writer.thaw();
        }
        writer.kill();
        run("umount", &[&text(&live)]);
    }
    println!(
        "{checked} acknowledged changes checked in {} cuts; {tails} tails cut; {ahead} more",
        IMAGES * CUTS
    );
}

#[test]
#[ignore = "started by another test, in a mount namespace"]
fn full_disk_inside() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let mut places = directories(place.path());
    let small = place.path().join("small");
    std::fs::create_dir(&small).unwrap();
    run("mount", &["-t", "tmpfs", "-o", "size=256k,mode=0700", "tmpfs", small.to_str().unwrap()]);
    places.ledger = small.join("ledger");
    std::fs::write(small.join("ballast"), vec![1; 64 << 10]).unwrap();
    let (store, _) = Store::open_with(&places, options()).unwrap();
    let mut acknowledged = Vec::new();
    let mut refused = 0;
    for number in 0..2000 {
        let name = format!("u{number}");
        match store.commit_blocking(create("demo", &name), actor()) {
            Ok(_) => acknowledged.push(name),
            Err(StoreError::Disk { source, .. }) => {
                assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
                assert!(store.account(&application("demo"), &account(&name)).unwrap().is_none());
                refused += 1;
                if refused == 5 {
                    std::fs::remove_file(small.join("ballast")).unwrap();
                }
                if refused == 10 {
                    break;
                }
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(refused, 10, "full twice: before and after room was made");
    // Even the mark of the orderly end may find no room; the ledger is whole all the same.
    let _ = store.close_blocking();
    assert!(deputyd::store::verify(&places.ledger).unwrap().whole);
    let (store, report) = Store::open_with(&places, options()).unwrap();
    assert_eq!(report.last_number, acknowledged.len() as u64);
    for name in &acknowledged {
        assert!(store.account(&application("demo"), &account(name)).unwrap().is_some());
    }
    check_state(&store);
}
