//! Arrays: several jobs by one call, alike but for their index.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::JobId;

/// The most jobs that an array can have, whatever policy says.
pub const MAX_ARRAY: usize = 10_000;

/// The highest index.
const MAX_INDEX: u32 = 4_000_000;

/// A text is not the indices of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "indices are numbers up to {MAX_INDEX} and ranges, with commas between: 0-9, 1,3,5-7, 0-100:10; at most {MAX_ARRAY}, \
     each once"
)]
pub struct IndicesError;

/// The indices of an array, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Indices(Vec<u32>);

impl Indices {
    /// They, at least one.
    pub fn as_slice(&self) -> &[u32] {
        &self.0
    }

    /// The part of an array with this id that has each of them.
    pub fn parts(&self, array: &JobId) -> Vec<ArrayPart> {
        let (min, max) = (self.0.first().copied().unwrap_or(0), self.0.last().copied().unwrap_or(0));
        let count = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0.iter().map(|&index| ArrayPart { array: array.clone(), index, count, min, max }).collect()
    }
}

impl FromStr for Indices {
    type Err = IndicesError;
    fn from_str(text: &str) -> Result<Self, IndicesError> {
        let number = |text: &str| -> Result<u32, IndicesError> {
            let digits =
                !text.is_empty() && text.len() <= 7 && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|number| digits && *number <= MAX_INDEX).ok_or(IndicesError)
        };
        let mut all = Vec::new();
        for part in text.split(',') {
            let (range, step) = match part.split_once(':') {
                Some((range, step)) => (range, number(step)?),
                None => (part, 1),
            };
            let (from, to) = match range.split_once('-') {
                Some((from, to)) => (number(from)?, number(to)?),
                None => (number(range)?, number(range)?),
            };
            if step == 0 || from > to || (range != part && !range.contains('-')) {
                return Err(IndicesError);
            }
            let indices = (from..=to).step_by(step as usize);
            // Looked at before they are made.
            if all.len() + (to - from) as usize / step as usize + 1 > MAX_ARRAY {
                return Err(IndicesError);
            }
            all.extend(indices);
        }
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        if all.len() == count { Ok(Self(all)) } else { Err(IndicesError) }
    }
}

/// Which part of which array a job is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArrayPart {
    /// The array's own id, of the form of a job's.
    pub array: JobId,
    /// Its own index.
    pub index: u32,
    /// How many there are.
    pub count: u32,
    /// The lowest index.
    pub min: u32,
    /// The highest.
    pub max: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_numbers_and_ranges_and_bounded() {
        for (text, indices) in [
            ("0", &[0][..]),
            ("0-3", &[0, 1, 2, 3]),
            ("5-7,1,3", &[1, 3, 5, 6, 7]),
            ("0-10:5", &[0, 5, 10]),
            ("1-1", &[1]),
        ] {
            assert_eq!(text.parse::<Indices>().unwrap().as_slice(), indices, "{text}");
        }
        assert_eq!("0-9999".parse::<Indices>().unwrap().as_slice().len(), MAX_ARRAY);
        for bad in [
            "",
            ",",
            "-",
            "a",
            "1-",
            "-1",
            "3-1",
            "1,1",
            "0-3,2",
            "0-3:0",
            "5:2",
            "0-10000",
            "0-4000000",
            "4000001",
            "99999999999",
            "1-3%2",
            " 1",
            "+1",
            "0-9,",
            "1\n2",
        ] {
            assert_eq!(bad.parse::<Indices>(), Err(IndicesError), "{bad:?}");
        }
    }

    #[test]
    fn each_part_knows_the_whole() {
        let id = JobId::from_random([3; JobId::BYTES]);
        let parts = "2,4-5".parse::<Indices>().unwrap().parts(&id);
        let of: Vec<_> = parts.iter().map(|part| (part.index, part.count, part.min, part.max)).collect();
        assert_eq!(of, [(2, 3, 2, 5), (4, 3, 2, 5), (5, 3, 2, 5)]);
    }
}
