//! Rows that are shown and that the database has not been given yet.
//!
//! Each batch costs sled two writes of its log and a wake-up of all its threads, whatever is in it. A job is two or
//! three changes within a moment, mostly of the same rows; so they are gathered here for that moment. Nothing rests on
//! it: what a killed process had not given to the database the next one takes from the ledger.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::{Duration, Instant};

use super::{Row, Rows};
use crate::store::ledger::Tip;

/// How many rows are gathered at most, about.
const MANY: usize = 512;

/// The rows, and what they are of.
#[derive(Debug, Default)]
pub struct Recent {
    rows: Rows,
    tip: Option<Tip>,
    since: Option<Instant>,
}

impl Recent {
    /// Takes in the rows of a group, which ends with this record.
    pub fn add(&mut self, rows: Rows, tip: Tip) {
        self.rows.extend(rows);
        self.tip = Some(tip);
        self.since.get_or_insert_with(Instant::now);
    }

    /// What is to be given to the database: the rows, and the last record that they are of.
    pub fn all(&self) -> Option<(&Rows, &Tip)> {
        self.tip.as_ref().map(|tip| (&self.rows, tip))
    }

    /// How long until it is to be given to the database, if there is anything: rows are gathered for `gather`, or until
    /// there are many.
    pub fn due_in(&self, gather: Duration) -> Option<Duration> {
        let since = self.since?;
        Some(if self.rows.len() >= MANY { Duration::ZERO } else { gather.saturating_sub(since.elapsed()) })
    }

    /// A row. `stored` gives the one that the database has.
    pub fn row_over<E>(
        &self,
        key: &[u8],
        stored: impl FnOnce() -> Result<Option<Vec<u8>>, E>,
    ) -> Result<Option<Vec<u8>>, E> {
        self.rows.get(key).map_or_else(stored, |known| Ok(known.clone()))
    }

    /// Up to `count` rows from `low` up to `high`, in order or against it. `stored` gives those that the database has.
    pub fn rows_over<E>(
        &self,
        low: &[u8],
        high: Option<&[u8]>,
        backwards: bool,
        count: usize,
        stored: impl FnOnce(usize) -> Result<Vec<Row>, E>,
    ) -> Result<Vec<Row>, E> {
        if high.is_some_and(|high| high <= low) {
            return Ok(Vec::new());
        }
        let bounds = (Bound::Included(low), high.map_or(Bound::Unbounded, Bound::Excluded));
        let here: Vec<_> = self.rows.range::<[u8], _>(bounds).collect();
        // So many more that enough are left without those that are gone.
        let gone = here.iter().filter(|(_, value)| value.is_none()).count();
        let stored = stored(count.saturating_add(gone))?;
        if here.is_empty() {
            return Ok(stored);
        }
        let mut rows: BTreeMap<Vec<u8>, Vec<u8>> = stored.into_iter().collect();
        for (key, value) in here {
            match value {
                Some(value) => rows.insert(key.clone(), value.clone()),
                None => rows.remove(key),
            };
        }
        let rows = rows.into_iter();
        Ok(if backwards { rows.rev().take(count).collect() } else { rows.take(count).collect() })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn row(key: u8) -> Row {
        (vec![key], vec![key, key])
    }

    /// Reads with what is recent over what is stored, and from a map that has both; they have to say the same.
    fn compare(stored: &BTreeMap<Vec<u8>, Vec<u8>>, recent: &Recent) {
        let mut whole = stored.clone();
        for (key, value) in &recent.rows {
            match value {
                Some(value) => whole.insert(key.clone(), value.clone()),
                None => whole.remove(key),
            };
        }
        for (low, high) in [(0, None), (3, None), (0, Some(9)), (4, Some(7)), (5, Some(5)), (7, Some(4))] {
            let within =
                |key: &Vec<u8>| key[..] >= [low][..] && high.is_none_or(|high: u8| key[..] < [high][..]);
            for (backwards, count) in
                [false, true].into_iter().flat_map(|back| [(back, 0), (back, 1), (back, 3), (back, 99)])
            {
                let take = |rows: &BTreeMap<Vec<u8>, Vec<u8>>, count| -> Vec<Row> {
                    let rows = rows.clone().into_iter().filter(|(key, _)| within(key));
                    if backwards { rows.rev().take(count).collect() } else { rows.take(count).collect() }
                };
                let high = high.map(|high| [high]);
                let high = high.as_ref().map(|high| &high[..]);
                let found = recent.rows_over(&[low], high, backwards, count, |count| {
                    Ok::<_, Infallible>(take(stored, count))
                });
                assert_eq!(found.unwrap(), take(&whole, count), "{low} {high:?} {backwards} {count}");
            }
        }
    }

    #[test]
    fn what_is_recent_covers_what_is_stored() {
        let stored: BTreeMap<_, _> = [1, 3, 4, 6, 8, 11].map(row).into();
        let mut recent = Recent::default();
        compare(&stored, &recent);
        assert!(recent.due_in(Duration::ZERO).is_none() && recent.all().is_none());
        for change in [
            vec![(2, Some(20)), (12, Some(1))],
            vec![(3, None), (4, Some(40))],
            vec![(2, None), (7, Some(70)), (6, None), (1, None)],
            vec![(3, Some(31)), (11, None), (12, None), (9, None)],
        ] {
            let rows =
                change.into_iter().map(|(key, value)| (vec![key], value.map(|value| vec![value]))).collect();
            recent.add(rows, Tip::default());
            compare(&stored, &recent);
            assert!(recent.due_in(Duration::MAX).is_some_and(|left| left > Duration::ZERO));
            assert_eq!(recent.due_in(Duration::ZERO), Some(Duration::ZERO));
        }
        let row = |key: u8| {
            recent.row_over(&[key], || Ok::<_, Infallible>(stored.get(&[key][..]).cloned())).unwrap()
        };
        assert_eq!((row(3), row(2), row(8), row(5)), (Some(vec![31]), None, Some(vec![8, 8]), None));
    }

    #[test]
    fn many_rows_are_not_waited_with() {
        let mut recent = Recent::default();
        let rows = (0..MANY).map(|at| (at.to_be_bytes().to_vec(), None)).collect();
        recent.add(rows, Tip::default());
        assert_eq!(recent.due_in(Duration::MAX), Some(Duration::ZERO));
    }
}
