//! The ledger's end under failing disks and torn writes, beneath the store.

use std::sync::Arc;

use proptest::prelude::*;

use super::disk::Faults;
use super::frame::{SEGMENT_HEAD, Tip};
use super::recovery::Found;
use super::{Appender, CutTail, SharedIndex, Walk, inspect, name_of};
use crate::store::error::StoreError;
use crate::store::folder::Folder;

struct Place {
    _place: tempfile::TempDir,
    folder: Arc<Folder>,
}

impl Place {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let folder = Arc::new(Folder::open(&place.path().join("ledger"), true).unwrap());
        Found::create(&folder).unwrap();
        Self { _place: place, folder }
    }

    fn open(&self) -> Result<(Appender, SharedIndex, Option<CutTail>), StoreError> {
        self.open_with(1 << 20)
    }

    fn open_with(&self, segment_bytes: u64) -> Result<(Appender, SharedIndex, Option<CutTail>), StoreError> {
        inspect(&self.folder, u64::MAX, |_| Ok(()))?.unwrap().open(Arc::clone(&self.folder), segment_bytes)
    }

    fn bodies(&self, index: &SharedIndex) -> Vec<Vec<u8>> {
        let mut walk = Walk::new(Arc::clone(&self.folder), index, 1);
        let mut bodies = Vec::new();
        while let Some(frame) = walk.advance().unwrap() {
            bodies.push(frame.body);
        }
        bodies
    }

    fn path(&self, first: u64) -> std::path::PathBuf {
        self.folder.path().join(name_of(first))
    }
}

fn group(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn plan(faults: &Faults, write_after: Option<usize>, sync: bool, truncate: bool) {
    let mut plan = faults.0.lock().unwrap();
    plan.write_after = write_after;
    plan.sync = sync;
    plan.truncate = truncate;
}

#[test]
fn a_full_disk_refuses_and_leaves_the_end_as_it_was() {
    let place = Place::new();
    let (mut appender, index, _) = place.open().unwrap();
    appender.append(1, &group(&["one"])).unwrap();
    let tip = appender.tip();
    // Even a write that brought whole records to the file is taken back when it failed.
    for after in [0, 1, 100, 99 + 96, 400] {
        plan(&appender.faults(), Some(after), false, false);
        let result = appender.append(1, &group(&["two", "three"]));
        assert!(matches!(result, Err(StoreError::Disk { step: "write", .. })));
        assert_eq!(appender.tip(), tip);
        assert_eq!(appender.failed(), None);
    }
    plan(&appender.faults(), None, false, false);
    appender.append(1, &group(&["four"])).unwrap();
    assert_eq!(place.bodies(&index), group(&["one", "four"]));
    drop(appender);
    let (_, index, cut) = place.open().unwrap();
    assert_eq!((place.bodies(&index), cut), (group(&["one", "four"]), None));
}

#[test]
fn after_a_failed_sync_nothing_is_taken_until_the_next_start() {
    for truncate in [false, true] {
        let place = Place::new();
        let (mut appender, _, _) = place.open().unwrap();
        appender.append(1, &group(&["one"])).unwrap();
        plan(&appender.faults(), None, true, truncate);
        let result = appender.append(1, &group(&["two"]));
        assert!(matches!(result, Err(StoreError::Disk { step: "fdatasync", .. })));
        plan(&appender.faults(), None, false, false);
        assert!(matches!(appender.append(1, &group(&["three"])), Err(StoreError::ReadOnly(_))));
        drop(appender);
        let (mut appender, index, _) = place.open().unwrap();
        appender.append(1, &group(&["four"])).unwrap();
        let expected = if truncate { group(&["one", "two", "four"]) } else { group(&["one", "four"]) };
        assert_eq!(place.bodies(&index), expected);
    }
}

#[test]
fn a_write_that_cannot_be_taken_back_ends_the_writing() {
    let place = Place::new();
    let (mut appender, _, _) = place.open().unwrap();
    plan(&appender.faults(), Some(150), false, true);
    assert!(appender.append(1, &group(&["one", "two"])).is_err());
    plan(&appender.faults(), None, false, false);
    assert!(matches!(appender.append(1, &group(&["three"])), Err(StoreError::ReadOnly(_))));
    drop(appender);
    let (_, index, cut) = place.open().unwrap();
    // The whole record stays: nobody was told that it is not there for good. The rest is put aside.
    assert_eq!(place.bodies(&index), group(&["one"]));
    assert_eq!(cut.map(|cut| cut.bytes), Some(150 - 99));
}

#[test]
fn a_segment_that_was_never_named_is_forgotten() {
    let place = Place::new();
    let (mut appender, index, _) = place.open_with(300).unwrap();
    for text in ["one", "two", "three", "four", "five"] {
        appender.append(1, &group(&[text])).unwrap();
    }
    assert!(index.read().spans.len() > 1);
    drop(appender);
    std::fs::write(place.folder.path().join("segment.new"), "half").unwrap();
    let (mut appender, index, cut) = place.open_with(300).unwrap();
    assert_eq!(cut, None);
    appender.append(1, &group(&["six"])).unwrap();
    assert_eq!(place.bodies(&index).len(), 6);
}

#[test]
fn a_lost_segment_is_damage() {
    let place = Place::new();
    let (mut appender, index, _) = place.open_with(300).unwrap();
    for number in 0..12 {
        appender.append(1, &group(&[&number.to_string()])).unwrap();
    }
    drop(appender);
    let spans = index.read().spans.clone();
    assert!(spans.len() >= 4);
    for lost in &spans[..spans.len() - 1] {
        let path = place.path(lost.first);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(place.open(), Err(StoreError::Damaged(_))), "segment {}", lost.first);
        place.folder.create(&name_of(lost.first)).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }
    place.open().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever groups were written: they come back, in order, and every cut of the last group's bytes leaves all
    /// groups before it, and of the last a beginning.
    #[test]
    fn groups_come_back_and_a_cut_costs_only_the_last(
        groups in prop::collection::vec(prop::collection::vec("[a-z]{0,300}", 1..5), 1..8),
        segment_bytes in 200u64..3000,
        cut in 0.0f64..1.0,
    ) {
        let place = Place::new();
        let (mut appender, index, _) = place.open_with(segment_bytes).unwrap();
        let mut before = (Tip::default(), SEGMENT_HEAD as u64);
        for texts in &groups {
            let texts: Vec<_> = texts.iter().map(String::as_str).collect();
            let spans = index.read().spans.len();
            before = (appender.tip(), index.read().spans.last().unwrap().end);
            appender.append(1, &group(&texts)).unwrap();
            if index.read().spans.len() > spans {
                before.1 = SEGMENT_HEAD as u64;
            }
        }
        let all: Vec<Vec<u8>> = groups.iter().flatten().map(|text| text.as_bytes().to_vec()).collect();
        prop_assert_eq!(&place.bodies(&index), &all);
        let last = *index.read().spans.last().unwrap();
        drop(appender);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss,
            reason = "a position somewhere in a small file")]
        let length = before.1 + ((last.end - before.1) as f64 * cut) as u64;
        std::fs::OpenOptions::new().write(true).open(place.path(last.first)).unwrap().set_len(length).unwrap();
        let (mut appender, index, _) = place.open().unwrap();
        let kept = place.bodies(&index);
        prop_assert!(kept.len() as u64 >= before.0.number);
        prop_assert_eq!(&kept[..], &all[..kept.len()]);
        appender.append(1, &group(&["after"])).unwrap();
        drop(appender);
        let (_, index, cut) = place.open().unwrap();
        prop_assert_eq!(place.bodies(&index).len(), kept.len() + 1);
        prop_assert_eq!(cut, None);
    }
}
