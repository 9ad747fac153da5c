//! Torn tails: of the bytes that were written and not yet on disk, any subset of sectors may have reached it.

mod store_common;

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use deputyd::store::Store;
use store_common::{
    Dice, account, activate, actor, application, check_state, create, directories, entries, open,
};

const CUTS: usize = 100;
const SECTOR: u64 = 512;

/// A frame of the ledger's only segment, as DESIGN of the format has it.
struct Frame {
    number: u64,
    group: u64,
    start: u64,
    end: u64,
}

fn frames(bytes: &[u8]) -> Vec<Frame> {
    let number = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
    let mut at = 112;
    let mut frames = Vec::new();
    while at < bytes.len() {
        assert_eq!(&bytes[at..at + 4], b"DLr1");
        let length = u32::from_be_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
        let end = at + 96 + length;
        frames.push(Frame {
            number: number(at + 8),
            group: number(at + 16),
            start: at as u64,
            end: end as u64,
        });
        at = end;
    }
    frames
}

fn segment(place: &Path) -> PathBuf {
    directories(place).ledger.join("00000000000000000001.ledger")
}

/// A ledger whose last group has many records, with a view that has not seen that group.
fn write_groups(place: &Path, dice: &mut Dice) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let (store, _) = open(place).unwrap();
    for number in 0..dice.below(5) {
        store.commit_blocking(create("demo", &format!("early{number}")), actor()).unwrap();
    }
    store.close_blocking().unwrap();
    // The orderly end above is the last of which there is a mark. What follows is closed by nobody: a copy of the
    // folders now is what a crash leaves.
    let (store, _) = open(place).unwrap();
    let count = 2 + dice.below(40);
    runtime.block_on(async {
        let tasks: Vec<_> = (0..count)
            .map(|number| {
                let store: Store = store.clone();
                tokio::spawn(async move {
                    let name = format!("late{number}");
                    store.commit(create("demo", &name), actor()).await.unwrap();
                    store.commit(activate("demo", &name, 1001), actor()).await.unwrap();
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    let crashed = place.join("crashed");
    std::fs::create_dir(&crashed).unwrap();
    let status =
        std::process::Command::new("cp").arg("-a").arg(place.join("ledger")).arg(&crashed).status().unwrap();
    assert!(status.success());
    store.close_blocking().unwrap();
}

/// Tears the bytes from `start` on: each sector reached the disk, or did not, or holds anything; the length of the
/// file may have stayed behind. The sector in which the durable part ends is new or old, as a whole.
fn tear(path: &Path, start: u64, dice: &mut Dice) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let length = file.metadata().unwrap().len();
    let mut at = start;
    while at < length {
        let end = ((at / SECTOR + 1) * SECTOR).min(length);
        let mut sector = vec![0; usize::try_from(end - at).unwrap()];
        match dice.below(4) {
            0 => file.write_all_at(&sector, at).unwrap(),
            1 => {
                sector.fill_with(|| dice.below(256).to_le_bytes()[0]);
                file.write_all_at(&sector, at).unwrap();
            }
            _ => {}
        }
        at = end;
    }
    if dice.below(3) == 0 {
        file.set_len(start + dice.below(length - start + 1)).unwrap();
    }
}

#[test]
fn a_hundred_torn_tails_lose_nothing_that_was_acknowledged() {
    let mut dice = Dice::thrown();
    let (mut cut, mut whole) = (0, 0);
    for round in 0..CUTS {
        let place = tempfile::tempdir().unwrap();
        write_groups(place.path(), &mut dice);
        let crashed = place.path().join("crashed");
        let path = segment(&crashed);
        let bytes = std::fs::read(&path).unwrap();
        let frames = frames(&bytes);
        let last_group = frames.last().unwrap().group;
        let durable = frames.iter().rfind(|frame| frame.group < last_group).map_or(0, |frame| frame.number);
        let start = frames.iter().find(|frame| frame.group == last_group).unwrap().start;
        tear(&path, start, &mut dice);

        let (store, report) = open(&crashed).unwrap_or_else(|e| panic!("round {round}: {e}"));
        let there = entries(&store);
        let kept = u64::try_from(there.iter().filter(|e| e.actor == actor()).count()).unwrap();
        assert!(kept >= durable, "round {round}: {durable} on disk, {kept} there");
        assert!(kept <= frames.last().unwrap().number);
        check_state(&store);
        match report.cut_tail {
            Some((bytes, kept_in)) => {
                cut += 1;
                if let Some(name) = kept_in {
                    let kept = std::fs::metadata(crashed.join("ledger").join(name)).unwrap();
                    assert_eq!(kept.len(), bytes);
                }
            }
            None => whole += 1,
        }
        // And it goes on from there.
        store.commit_blocking(create("demo", "after"), actor()).unwrap();
        store.close_blocking().unwrap();
        let (store, report) = open(&crashed).unwrap();
        assert_eq!(report.cut_tail, None);
        assert!(store.account(&application("demo"), &account("after")).unwrap().is_some());
        assert_eq!(frames.last().unwrap().end, bytes.len() as u64);
    }
    assert!(cut > CUTS / 4, "{cut} tails cut, {whole} whole: the tears are too small to show anything");
    println!("{cut} tails cut, {whole} whole");
}
