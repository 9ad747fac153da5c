//! `kill -9` at random moments: what was acknowledged is there, and nothing is there by half.

mod store_common;

use std::time::Duration;

use store_common::writer::{self, Writer};
use store_common::{Dice, check_state, entries, open};

const CUTS: usize = 100;

#[test]
#[ignore = "the process that the other test starts and kills"]
fn writer_process() {
    writer::main();
}

#[test]
fn a_hundred_kills_lose_nothing_that_was_acknowledged() {
    let mut dice = Dice::thrown();
    let mut acknowledged = 0;
    let (mut cut_tails, mut rebuilt) = (0, 0);
    let mut place = tempfile::tempdir().unwrap();
    let mut all: Vec<u64> = Vec::new();
    for cut in 0..CUTS {
        if cut % 10 == 0 {
            place = tempfile::tempdir().unwrap();
            all.clear();
        }
        // Sometimes the next one finds what a kill left, without a recovery in between, and is killed too.
        for _ in 0..=dice.below(2) {
            let mut writer = Writer::start(place.path(), 100_000);
            // Some are killed while they start, most while they write.
            if dice.below(10) > 0 {
                writer.wait_for_acknowledgement();
                all.push(writer.acknowledged);
            }
            std::thread::sleep(Duration::from_micros(dice.below(30_000)));
            all.extend(writer.kill());
        }
        let (store, report) = open(place.path()).unwrap();
        cut_tails += usize::from(report.cut_tail.is_some());
        rebuilt += usize::from(report.view_rebuilt.is_some());
        let last = entries(&store).last().map_or(0, |entry| entry.number);
        assert!(all.iter().all(|number| *number <= last), "cut {cut}: {last} of {:?}", all.iter().max());
        check_state(&store);
        acknowledged += all.len();
        store.close_blocking().unwrap();
    }
    assert!(acknowledged > CUTS, "{acknowledged} acknowledged");
    println!("{acknowledged} acknowledgements checked, {cut_tails} tails cut, {rebuilt} views made anew");
}
