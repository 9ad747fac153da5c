//! Damage: the ledger's is named and never skipped; the view's costs nothing but the time to make it anew.

mod store_common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use deputyd::store::{Damage, Entry, Options, Store, StoreError, verify};
use proptest::prelude::*;
use store_common::{
    Dice, account, activate, actor, application, check_state, create, directories, dump, ended, entries,
    open, options, queue,
};

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

fn small() -> Options {
    Options { segment_bytes: 4000, ..options() }
}

/// A store with some segments, closed in order.
fn example() -> &'static Path {
    static EXAMPLE: OnceLock<tempfile::TempDir> = OnceLock::new();
    EXAMPLE
        .get_or_init(|| {
            let place = tempfile::tempdir().unwrap();
            fill(place.path(), "u");
            place
        })
        .path()
}

/// What the example's store answers.
fn expected() -> &'static (Vec<String>, Vec<Entry>) {
    static EXPECTED: OnceLock<(Vec<String>, Vec<Entry>)> = OnceLock::new();
    EXPECTED.get_or_init(|| {
        let (store, _) = open(example()).unwrap();
        let answers = (dump(&store), entries(&store));
        store.close_blocking().unwrap();
        answers
    })
}

fn fill(place: &Path, start: &str) {
    let (store, _) = Store::open_with(&directories(place), small()).unwrap();
    for number in 0..12 {
        let name = format!("{start}{number}");
        let uid = 1001 + number % 3;
        for change in [create("demo", &name), activate("demo", &name, uid), queue("demo", &name, uid, number)]
        {
            store.commit_blocking(change, actor()).unwrap();
        }
        if number % 2 == 0 {
            store.commit_blocking(ended(number, 0), actor()).unwrap();
        }
    }
    store.close_blocking().unwrap();
}

fn segments(place: &Path) -> Vec<PathBuf> {
    let names = std::fs::read_dir(directories(place).ledger).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<_> = names.filter(|path| path.extension().is_some_and(|e| e == "ledger")).collect();
    names.sort();
    names
}

/// The record and offset of the frame in which a byte of a segment lies.
fn place_of(bytes: &[u8], first: u64, position: usize) -> (u64, u64) {
    let (mut at, mut record) = (112, first);
    if position < at {
        return (first, 0);
    }
    loop {
        let length = u32::from_be_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
        if position < at + 96 + length {
            return (record, at as u64);
        }
        at += 96 + length;
        record += 1;
    }
}

fn expect_damage(place: &Path) -> Damage {
    let report = verify(&directories(place).ledger).unwrap();
    assert!(!report.whole);
    let damage = report.damage.expect("verify names it");
    match Store::open_with(&directories(place), small()) {
        Err(StoreError::Damaged(at_open)) => assert_eq!(at_open.segment, damage.segment),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it opened"),
    }
    damage
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_changed_byte_anywhere_is_named(segment in any::<prop::sample::Index>(), position in any::<prop::sample::Index>(), bits in 1u8..) {
        let place = tempfile::tempdir().unwrap();
        copy(&directories(example()).ledger, place.path());
        let paths = segments(place.path());
        let path = &paths[segment.index(paths.len())];
        let mut bytes = std::fs::read(path).unwrap();
        let position = position.index(bytes.len());
        let name = path.file_name().unwrap().to_str().unwrap();
        let (record, offset) = place_of(&bytes, name[..20].parse().unwrap(), position);
        bytes[position] ^= bits;
        std::fs::write(path, bytes).unwrap();
        let damage = expect_damage(place.path());
        prop_assert_eq!((damage.segment.as_str(), damage.record, damage.offset), (name, record, offset));
    }

    #[test]
    fn a_record_cut_out_of_the_middle_is_damage(segment in any::<prop::sample::Index>(), position in any::<prop::sample::Index>()) {
        let place = tempfile::tempdir().unwrap();
        copy(&directories(example()).ledger, place.path());
        let paths = segments(place.path());
        let path = &paths[segment.index(paths.len())];
        let mut bytes = std::fs::read(path).unwrap();
        let position = 112 + position.index(bytes.len() - 112);
        let (_, offset) = place_of(&bytes, 1, position);
        let at = usize::try_from(offset).unwrap();
        let length = 96 + u32::from_be_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
        bytes.drain(at..at + length);
        std::fs::write(path, bytes).unwrap();
        expect_damage(place.path());
    }

    /// Without the mark of an orderly end, the last group is all that a crash can have torn.
    #[test]
    fn without_a_mark_only_the_last_group_can_be_a_tail(position in any::<prop::sample::Index>()) {
        let place = tempfile::tempdir().unwrap();
        copy(&directories(example()).ledger, place.path());
        std::fs::remove_file(directories(place.path()).ledger.join("clean.json")).unwrap();
        let paths = segments(place.path());
        let path = paths.last().unwrap();
        let mut bytes = std::fs::read(path).unwrap();
        let position = position.index(bytes.len());
        let name = path.file_name().unwrap().to_str().unwrap();
        let first: u64 = name[..20].parse().unwrap();
        let (record, _) = place_of(&bytes, first, position);
        let (last, _) = place_of(&bytes, first, bytes.len() - 1);
        bytes[position] ^= 1;
        std::fs::write(path, bytes).unwrap();
        if record == last && position >= 112 {
            let (store, report) = Store::open_with(&directories(place.path()), small()).unwrap();
            prop_assert!(report.cut_tail.is_some());
            prop_assert_eq!(report.last_number, last, "the note about the cut has taken the number");
            store.close_blocking().unwrap();
        } else {
            expect_damage(place.path());
        }
    }
}

#[test]
fn lost_segments_and_a_lost_ledger_are_damage() {
    let count = segments(example()).len();
    assert!(count >= 4, "{count} segments");
    for lost in 0..count {
        let place = tempfile::tempdir().unwrap();
        copy(&directories(example()).ledger, place.path());
        std::fs::remove_file(&segments(place.path())[lost]).unwrap();
        expect_damage(place.path());
    }
    let place = tempfile::tempdir().unwrap();
    copy(&directories(example()).ledger, place.path());
    for path in segments(place.path()) {
        std::fs::remove_file(path).unwrap();
    }
    expect_damage(place.path());
}

#[test]
fn the_view_knows_what_the_ledger_must_have() {
    let place = tempfile::tempdir().unwrap();
    fill(place.path(), "u");
    // The last segment, as if the disk had lost acknowledged writes; no mark but the view's.
    std::fs::remove_file(directories(place.path()).ledger.join("clean.json")).unwrap();
    std::fs::remove_file(segments(place.path()).last().unwrap()).unwrap();
    match open(place.path()) {
        Err(StoreError::Damaged(damage)) => assert!(damage.what.contains("the view"), "{damage}"),
        other => panic!("{:?}", other.map(|(_, report)| report)),
    }
}

#[test]
fn older_segments_are_checked_in_the_background() {
    let place = tempfile::tempdir().unwrap();
    fill(place.path(), "u");
    let path = &segments(place.path())[1];
    let mut bytes = std::fs::read(path).unwrap();
    bytes[500] ^= 1;
    std::fs::write(path, bytes).unwrap();
    let options = Options { check_bytes: 0, ..small() };
    let (store, _) = Store::open_with(&directories(place.path()), options).unwrap();
    while store.stopped().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert!(store.stopped().unwrap().contains(path.file_name().unwrap().to_str().unwrap()));
    assert!(matches!(store.commit_blocking(create("demo", "late"), actor()), Err(StoreError::ReadOnly(_))));
}

/// Every regular file of the view's database.
fn view_files(place: &Path) -> Vec<PathBuf> {
    fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, files) } else { files.push(path) }
        }
    }
    let mut files = Vec::new();
    walk(&directories(place).view, &mut files);
    files.retain(|path| std::fs::metadata(path).unwrap().len() > 0);
    files.sort();
    files
}

#[test]
fn a_damaged_view_is_made_anew_with_the_same_content() {
    let mut dice = Dice::thrown();
    let expected = expected();
    let mut rebuilt = 0;
    for round in 0..60 {
        let place = tempfile::tempdir().unwrap();
        copy(&directories(example()).ledger, place.path());
        copy(&directories(example()).view, place.path());
        let files = view_files(place.path());
        let path = &files[usize::try_from(dice.below(files.len() as u64)).unwrap()];
        let mut bytes = std::fs::read(path).unwrap();
        let length = bytes.len() as u64;
        match round % 4 {
            0 => bytes.truncate(usize::try_from(dice.below(length)).unwrap()),
            1 => bytes.clear(),
            _ => {
                // sled's file is mostly empty space: one bit alone would seldom meet anything.
                for _ in 0..40 {
                    bytes[usize::try_from(dice.below(length)).unwrap()] ^= 1 << dice.below(8);
                }
            }
        }
        std::fs::write(path, bytes).unwrap();
        let (store, report) = open(place.path()).unwrap();
        rebuilt += usize::from(report.view_rebuilt.is_some());
        assert_eq!(&(dump(&store), entries(&store)), expected, "round {round}: {}", path.display());
        store.close_blocking().unwrap();
    }
    assert!(rebuilt > 10, "{rebuilt} of 60 rebuilt");
    println!("{rebuilt} of 60 rebuilt");
}

/// The view's rows are not all read at the start, so damage of them may be met later.
#[test]
fn damage_of_the_view_that_is_met_later_ends_the_store_and_is_gone_at_the_next_start() {
    const PARTS: usize = 24;
    // Each change is written by itself, so that there is much to be damaged.
    let unread = || Options { check_rows: 0, gather: Duration::ZERO, ..small() };
    let whole = tempfile::tempdir().unwrap();
    let (store, _) = Store::open_with(&directories(whole.path()), unread()).unwrap();
    for number in 0..600 {
        store.commit_blocking(create("demo", &format!("u{number}")), actor()).unwrap();
    }
    store.close_blocking().unwrap();
    // sled's first start reads all that was written since its last snapshot, and makes the next one.
    Store::open_with(&directories(whole.path()), unread()).unwrap().0.close_blocking().unwrap();
    let file = directories(whole.path()).view.join("db-0/db");
    let length = std::fs::metadata(&file).unwrap().len();
    let mut met = 0;
    for part in 0..PARTS {
        let place = tempfile::tempdir().unwrap();
        copy(&directories(whole.path()).ledger, place.path());
        copy(&directories(whole.path()).view, place.path());
        let path = directories(place.path()).view.join("db-0/db");
        let mut bytes = std::fs::read(&path).unwrap();
        let (begin, end) = (bytes.len() * part / PARTS, bytes.len() * (part + 1) / PARTS);
        bytes[begin..end].iter_mut().for_each(|byte| *byte ^= 0x55);
        std::fs::write(&path, bytes).unwrap();
        let (store, report) = Store::open_with(&directories(place.path()), unread()).unwrap();
        if report.view_rebuilt.is_some() || store.stopped().is_some() {
            store.close_blocking().unwrap();
            continue;
        }
        let late = store.commit_blocking(create("demo", "late"), actor());
        let failed = (0..600)
            .find_map(|number| store.account(&application("demo"), &account(&format!("u{number}"))).err());
        let Some(failed) = failed else {
            // Damage that no row is in.
            store.close_blocking().unwrap();
            continue;
        };
        met += 1;
        assert!(matches!(&failed, StoreError::View(_)), "part {part}: {failed}");
        let why = store.stopped().expect("it stopped");
        assert!(failed.to_string().contains(&why), "{failed}: {why}");
        let refused = store.commit_blocking(create("demo", "later"), actor());
        assert!(matches!(refused, Err(StoreError::ReadOnly(_))), "{refused:?}");
        // As after a kill at this moment; and as after an orderly end.
        let killed = tempfile::tempdir().unwrap();
        copy(&directories(place.path()).ledger, killed.path());
        copy(&directories(place.path()).view, killed.path());
        store.close_blocking().unwrap();
        for place in [killed.path(), place.path()] {
            let (store, report) = Store::open_with(&directories(place), unread()).unwrap();
            assert!(report.view_rebuilt.is_some(), "part {part}: {report:?}");
            let count = store.account_count(&application("demo")).unwrap();
            assert_eq!(count, 600 + u64::from(late.is_ok()), "part {part}");
            check_state(&store);
            store.close_blocking().unwrap();
        }
    }
    assert!(met > 0, "no damage of {length} bytes in {PARTS} parts was met after the start");
    println!("{met} of {PARTS} damages were met after the start");
}

#[test]
fn a_foreign_view_and_an_old_one_are_not_believed() {
    let expected = &expected().0;
    let foreign = tempfile::tempdir().unwrap();
    fill(foreign.path(), "x");
    let place = tempfile::tempdir().unwrap();
    copy(&directories(example()).ledger, place.path());
    copy(&directories(foreign.path()).view, place.path());
    let (store, report) = open(place.path()).unwrap();
    assert_eq!(report.view_rebuilt.as_deref(), Some("it is the view of another ledger"));
    assert_eq!(&dump(&store), expected);

    // A view from before is caught up.
    store.close_blocking().unwrap();
    let old = tempfile::tempdir().unwrap();
    copy(&directories(place.path()).view, old.path());
    let (store, _) = open(place.path()).unwrap();
    store.commit_blocking(create("demo", "new"), actor()).unwrap();
    let expected = dump(&store);
    store.close_blocking().unwrap();
    std::fs::remove_dir_all(directories(place.path()).view).unwrap();
    copy(&directories(old.path()).view, place.path());
    let (store, report) = open(place.path()).unwrap();
    assert_eq!((report.view_rebuilt, report.caught_up), (None, 1));
    assert_eq!(dump(&store), expected);
}

#[test]
fn a_view_left_open_is_believed_only_in_the_same_boot() {
    let place = tempfile::tempdir().unwrap();
    let (store, _) = open(place.path()).unwrap();
    store.commit_blocking(create("demo", "alice"), actor()).unwrap();
    let crashed = tempfile::tempdir().unwrap();
    copy(&directories(place.path()).ledger, crashed.path());
    copy(&directories(place.path()).view, crashed.path());
    for (boot, believed) in [("this", true), ("next", false)] {
        let here = tempfile::tempdir().unwrap();
        copy(&directories(crashed.path()).ledger, here.path());
        copy(&directories(crashed.path()).view, here.path());
        let options = Options { boot: boot.to_owned(), ..options() };
        let (again, report) = Store::open_with(&directories(here.path()), options).unwrap();
        // A view that was never flushed has no mark: it is then made anew in the same boot too.
        let why = report.view_rebuilt.as_deref();
        assert_eq!(why == Some("the machine went down while it was open"), !believed, "{why:?}");
        assert_eq!(dump(&again), dump(&store));
    }
}
