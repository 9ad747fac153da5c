//! The ids that may be answered, from a file of root's of its own: whatever the map says, it says it of these only.

use std::str::FromStr;

/// The least id of a range: what is below belongs to the system.
pub const LEAST: u32 = 1000;
/// Ids that are nobody's: the overflow id, its old value, and -1.
const RESERVED: [u32; 3] = [65534, 65535, u32::MAX];
/// The file is not longer than this.
pub const MAX_RANGE_FILE: usize = 128;

/// Ids from `first` to `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    first: u32,
    last: u32,
}

impl Range {
    /// `None` if it begins below [`LEAST`] or ends before it begins.
    pub fn new(first: u32, last: u32) -> Option<Self> {
        (first >= LEAST && first <= last).then_some(Self { first, last })
    }

    /// Whether the id is in it; reserved ids never are.
    pub fn has(self, id: u32) -> bool {
        (self.first..=self.last).contains(&id) && !RESERVED.contains(&id)
    }

    /// The first id.
    pub fn first(self) -> u32 {
        self.first
    }

    /// The last id.
    pub fn last(self) -> u32 {
        self.last
    }
}

/// `FIRST-LAST`, as on a command line.
impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no range: expected FIRST-LAST, at least {LEAST}");
        let (first, last) = text.split_once('-').ok_or_else(wrong)?;
        let range = Self::new(first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
        range.ok_or_else(wrong)
    }
}

/// The range of uids and the range of gids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranges {
    /// Accounts' uids.
    pub uid: Range,
    /// Groups' gids, and accounts' primary gids.
    pub gid: Range,
}

impl Ranges {
    /// The file's text.
    pub fn encode(&self) -> String {
        let Self { uid, gid } = self;
        format!("deputy-nss-range 1\nuid {} {}\ngid {} {}\n", uid.first, uid.last, gid.first, gid.last)
    }

    /// Reads the file. It has exactly three lines, each with a newline: a shortened one does not pass.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let text = text.strip_prefix("deputy-nss-range 1\n")?;
        let (uid, text) = line(text, "uid ")?;
        let (gid, text) = line(text, "gid ")?;
        text.is_empty().then_some(Self { uid, gid })
    }
}

fn line<'a>(text: &'a str, what: &str) -> Option<(Range, &'a str)> {
    let (line, rest) = text.strip_prefix(what)?.split_once('\n')?;
    let (first, last) = line.split_once(' ')?;
    Some((Range::new(number(first)?, number(last)?)?, rest))
}

fn number(text: &str) -> Option<u32> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_read_as_it_is_written_and_no_other_way() {
        let ranges =
            Ranges { uid: Range::new(60_000, 70_000).unwrap(), gid: Range::new(5000, 5000).unwrap() };
        let text = ranges.encode();
        assert_eq!(Ranges::decode(text.as_bytes()), Some(ranges));
        for length in 0..text.len() {
            assert_eq!(Ranges::decode(&text.as_bytes()[..length]), None, "{length}");
        }
        for (old, new) in
            [("1\n", "2\n"), ("uid 6", "uid +6"), ("uid", "gid"), ("70000", "59999"), ("5000", "0")]
        {
            assert_eq!(Ranges::decode(text.replace(old, new).as_bytes()), None, "{old} {new}");
        }
        assert_eq!(Ranges::decode(format!("{text}\n").as_bytes()), None);
    }

    #[test]
    fn no_range_has_a_system_id_or_nobody() {
        assert_eq!(Range::new(999, 2000), None);
        assert_eq!(Range::new(0, u32::MAX), None);
        let all = Range::new(LEAST, u32::MAX).unwrap();
        for id in [0, 999, 65534, 65535, u32::MAX] {
            assert!(!all.has(id), "{id}");
        }
        assert!(all.has(1000) && all.has(65533) && all.has(65536));
    }
}
