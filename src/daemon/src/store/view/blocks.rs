//! Rows in blocks: many neighbouring rows are one value of sled's.
//!
//! sled keeps a leaf of its tree for every nine keys or so. In memory it keeps an entry for every leaf, read or not, and
//! up to 16,000 leaves that were read, whatever its cache is said to be: for a million accounts with their indexes some
//! 90 MiB and some 200 MiB. With compressed blocks there are fewer leaves, and smaller ones.
//!
//! A block holds the rows from the one its key names up to the next block's key. Blocks are split and, when empty,
//! removed, but never joined: a row that stays is never moved to a block before, so that a walk beside writes misses
//! none of those.

use std::ops::Bound;

use lz4_flex::block::{compress_prepend_size_with_dict, decompress_with_dict, uncompressed_size};

use super::{Mark, Row, Rows};

/// What the key of every block begins with. The view's mark is beside them.
const BLOCK: u8 = b'B';

/// A block that grew beyond this many bytes, before it is compressed, is split.
const FULL: usize = 1024;

/// What a split leaves in a block at most, so that there is room for more.
const LEFT: usize = 768;

/// The lengths before each row: of its key, of its value.
const HEAD: usize = 2 + 4;

/// No block is larger than this, before it is compressed; the records of the ledger are far smaller.
const LARGEST: usize = 64 << 20;

/// What the records of accounts, by far the most, have in common: a block is too short for the compression to learn it. A
/// change of it is another version of the view's rows (`mark.rs`).
const DICTIONARY: &[u8] = br#"{"application":"","account":"","group":"","role":null,"since":1790000000000000}{"application":"","name":"","email":null,"first_name":null,"last_name":null,"role":"user","status":"active","reason":null,"created":1790000000000000,"changed":1790000000000000,"last_login":null}"#;

/// Why rows could not be read or written, in words.
pub type Problem = String;

/// A row.
pub fn get(db: &sled::Db, key: &[u8]) -> Result<Option<Vec<u8>>, Problem> {
    let Some((_, block)) = block_of(db, key)? else { return Ok(None) };
    let block = unpack(&block)?;
    for row in rows_of(&block) {
        let (found, value) = row?;
        if found >= key {
            return Ok((found == key).then(|| value.to_vec()));
        }
    }
    Ok(None)
}

/// Up to `count` rows from the key `low` up to the key `high`, that one not included, in order.
pub fn forwards(db: &sled::Db, low: &[u8], high: Option<&[u8]>, count: usize) -> Result<Vec<Row>, Problem> {
    let mut found: Vec<Row> = Vec::new();
    let from = match block_of(db, low)? {
        Some((block, _)) => block,
        None => vec![BLOCK].into(),
    };
    for block in db.range(from..sled::IVec::from(&[BLOCK + 1])) {
        let block = unpack(&block.map_err(text)?.1)?;
        for row in rows_of(&block) {
            let (key, value) = row?;
            // A block that was split meanwhile is seen whole first, then its second part.
            if key < low || found.last().is_some_and(|(last, _)| key <= last.as_slice()) {
                continue;
            }
            if found.len() == count || high.is_some_and(|high| key >= high) {
                return Ok(found);
            }
            found.push((key.to_vec(), value.to_vec()));
        }
        if found.len() == count {
            break;
        }
    }
    Ok(found)
}

/// The same rows against the order: the last ones first.
pub fn backwards(db: &sled::Db, low: &[u8], high: Option<&[u8]>, count: usize) -> Result<Vec<Row>, Problem> {
    let mut found: Vec<Row> = Vec::new();
    let end = high.map_or_else(|| vec![BLOCK + 1], block_key);
    for block in db.range(vec![BLOCK]..end).rev() {
        let block = unpack(&block.map_err(text)?.1)?;
        let rows: Vec<(&[u8], &[u8])> = rows_of(&block).collect::<Result<_, _>>()?;
        for (key, value) in rows.into_iter().rev() {
            if found.last().map(|(last, _)| last.as_slice()).or(high).is_some_and(|last| key >= last) {
                continue;
            }
            if found.len() == count || key < low {
                return Ok(found);
            }
            found.push((key.to_vec(), value.to_vec()));
        }
        if found.len() == count {
            break;
        }
    }
    Ok(found)
}

/// Takes what `rows` change into a batch, and into the mark's sum. Nobody else may write meanwhile.
pub fn change(db: &sled::Db, rows: &Rows, mark: &mut Mark, batch: &mut sled::Batch) -> Result<(), Problem> {
    let mut rest = rows.iter().peekable();
    while let Some((first, _)) = rest.peek() {
        let (key, old) = match block_of(db, first)? {
            Some((key, block)) => (key, unpack(&block)?),
            None => (vec![BLOCK].into(), Vec::new()),
        };
        let beyond = (Bound::Excluded(key.clone()), Bound::Excluded(sled::IVec::from(&[BLOCK + 1])));
        let next = db.range(beyond).next().transpose().map_err(text)?;
        let mut new: Vec<(&[u8], &[u8])> = Vec::new();
        let mut before = rows_of(&old).peekable();
        loop {
            let here = |row: &(&Vec<u8>, _)| next.as_ref().is_none_or(|(next, _)| row.0[..] < next[1..]);
            let Some((changed, value)) = rest.next_if(here) else { break };
            while let Some(kept) =
                before.next_if(|row| row.as_ref().is_ok_and(|(key, _)| key < &&changed[..]))
            {
                new.push(kept?);
            }
            if let Some(gone) = before.next_if(|row| row.as_ref().is_ok_and(|(key, _)| key == &&changed[..]))
            {
                let (key, value) = gone?;
                mark.subtract(key, value);
            }
            if let Some(value) = value {
                mark.add(changed, value);
                new.push((changed, value));
            }
        }
        for kept in before {
            new.push(kept?);
        }
        if new.is_empty() {
            batch.remove(key);
            continue;
        }
        for (at, part) in split(&new).into_iter().enumerate() {
            // The first part stays where the block was.
            let key = if at == 0 { key.clone() } else { block_key(part[0].0).into() };
            batch.insert(key, encode(part)?);
        }
    }
    Ok(())
}

/// Every row, once.
pub fn each(db: &sled::Db, mut see: impl FnMut(&[u8], &[u8])) -> Result<(), Problem> {
    for block in db.range([BLOCK]..[BLOCK + 1]) {
        let block = unpack(&block.map_err(text)?.1)?;
        for row in rows_of(&block) {
            let (key, value) = row?;
            see(key, value);
        }
    }
    Ok(())
}

/// What sled says, in words.
pub fn text(error: sled::Error) -> Problem {
    error.to_string()
}

fn block_key(key: &[u8]) -> Vec<u8> {
    [&[BLOCK], key].concat()
}

/// The block in which a row is, if it is there.
fn block_of(db: &sled::Db, key: &[u8]) -> Result<Option<(sled::IVec, sled::IVec)>, Problem> {
    db.range(vec![BLOCK]..=block_key(key)).next_back().transpose().map_err(text)
}

/// The parts that a block is written in: one, or several of about the same size.
fn split<'r, 'b>(rows: &'r [(&'b [u8], &'b [u8])]) -> Vec<&'r [(&'b [u8], &'b [u8])]> {
    let size = |row: &(&[u8], &[u8])| HEAD + row.0.len() + row.1.len();
    let whole: usize = rows.iter().map(size).sum();
    if whole <= FULL {
        return vec![rows];
    }
    let wanted = whole / whole.div_ceil(LEFT);
    let mut parts = Vec::new();
    let (mut begin, mut bytes) = (0, 0);
    for (at, row) in rows.iter().enumerate() {
        if bytes > 0 && bytes + size(row) / 2 > wanted {
            parts.push(&rows[begin..at]);
            (begin, bytes) = (at, 0);
        }
        bytes += size(row);
    }
    parts.push(&rows[begin..]);
    parts
}

fn encode(rows: &[(&[u8], &[u8])]) -> Result<Vec<u8>, Problem> {
    let mut out = Vec::with_capacity(FULL);
    for (key, value) in rows {
        let long = |_| "a row is too long".to_owned();
        out.extend_from_slice(&u16::try_from(key.len()).map_err(long)?.to_be_bytes());
        out.extend_from_slice(&u32::try_from(value.len()).map_err(long)?.to_be_bytes());
        out.extend_from_slice(key);
        out.extend_from_slice(value);
    }
    if out.len() > LARGEST {
        return Err("a block of rows is too large".to_owned());
    }
    Ok(compress_prepend_size_with_dict(&out, DICTIONARY))
}

/// The rows of a block as they were before they were compressed.
fn unpack(block: &[u8]) -> Result<Vec<u8>, Problem> {
    let broken = |_| "a block of rows is broken".to_owned();
    let (size, packed) = uncompressed_size(block).map_err(broken)?;
    if size > LARGEST {
        return Err("a block of rows is too large".to_owned());
    }
    decompress_with_dict(packed, size, DICTIONARY).map_err(broken)
}

/// The rows of a block, in order.
fn rows_of(block: &[u8]) -> impl Iterator<Item = Result<(&[u8], &[u8]), Problem>> {
    let mut rest = block;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let row = first_row(rest);
        rest = row.map_or(&[], |(_, _, rest)| rest);
        Some(row.map(|(key, value, _)| (key, value)).ok_or_else(|| "a block of rows is broken".to_owned()))
    })
}

fn first_row(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (key, rest) = bytes.split_first_chunk::<2>()?;
    let (value, rest) = rest.split_first_chunk::<4>()?;
    let (key, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*key)))?;
    let (value, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*value)).ok()?)?;
    Some((key, value, rest))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::end_of;
    use super::*;

    /// Numbers that look random and are the same each time.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % bound
        }
    }

    fn walk(db: &sled::Db, prefix: &[u8], back: bool, count: usize) -> Vec<Row> {
        let mut all: Vec<Row> = Vec::new();
        loop {
            let (mut low, mut high) = (prefix.to_vec(), end_of(prefix));
            match all.last() {
                Some((last, _)) if back => high = Some(last.clone()),
                Some((last, _)) => low = [&last[..], &[0]].concat(),
                None => {}
            }
            let part = if back { backwards } else { forwards }(db, &low, high.as_deref(), count).unwrap();
            let whole = part.len() < count;
            all.extend(part);
            if whole {
                return all;
            }
        }
    }

    #[test]
    fn blocks_hold_what_a_map_holds() {
        let folder = tempfile::tempdir().unwrap();
        let db = sled::open(folder.path()).unwrap();
        let mut numbers = Numbers(7);
        let mut reference: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut mark = Mark::empty([0; 16]);
        for round in 0..300 {
            let mut rows = Rows::new();
            for _ in 0..numbers.below(60) {
                let key = format!(
                    "{}{}",
                    ["a", "b", "bb", "c"][usize::try_from(numbers.below(4)).unwrap()],
                    numbers.below(900)
                );
                // Towards the end more goes than comes, so that blocks become empty.
                let gone = numbers.below(10) < if round < 150 { 2 } else { 9 };
                let length = [3, 40, 40, 300, 5000][usize::try_from(numbers.below(5)).unwrap()];
                rows.insert(key.into_bytes(), (!gone).then(|| vec![b'x'; length]));
            }
            let mut batch = sled::Batch::default();
            change(&db, &rows, &mut mark, &mut batch).unwrap();
            db.apply_batch(batch).unwrap();
            for (key, value) in rows {
                match value {
                    Some(value) => reference.insert(key, value),
                    None => reference.remove(&key),
                };
            }
            for prefix in [&b""[..], b"a", b"b", b"bb", b"c1", b"zz"] {
                let mut expected: Vec<Row> = reference.clone().into_iter().collect();
                expected.retain(|(key, _)| key.starts_with(prefix));
                let count = 1 + round % 50;
                assert_eq!(walk(&db, prefix, false, count), expected, "{round}");
                expected.reverse();
                assert_eq!(walk(&db, prefix, true, count), expected, "{round}");
            }
            for key in ["a1", "b17", "bb400", "c899", "", "zzz"] {
                assert_eq!(get(&db, key.as_bytes()).unwrap(), reference.get(key.as_bytes()).cloned());
            }
            let mut seen = Mark::empty([0; 16]);
            each(&db, |key, value| seen.add(key, value)).unwrap();
            assert_eq!(seen, mark);
            assert_eq!(mark.rows, reference.len() as u64);
            let rows = reference.len();
            assert!(db.len() <= 1 + rows, "{} blocks for {rows} rows", db.len());
        }
        let rows: Rows = reference.into_keys().map(|key| (key, None)).collect();
        let mut batch = sled::Batch::default();
        change(&db, &rows, &mut mark, &mut batch).unwrap();
        db.apply_batch(batch).unwrap();
        assert_eq!((db.len(), mark), (0, Mark::empty([0; 16])), "nothing is left of nothing");
    }

    #[test]
    fn many_short_rows_share_a_block() {
        let folder = tempfile::tempdir().unwrap();
        let db = sled::open(folder.path()).unwrap();
        let mut mark = Mark::empty([0; 16]);
        for at in 0..2000_u32 {
            let mut batch = sled::Batch::default();
            let rows = Rows::from([(at.to_be_bytes().to_vec(), Some(vec![0; 60]))]);
            change(&db, &rows, &mut mark, &mut batch).unwrap();
            db.apply_batch(batch).unwrap();
        }
        assert!(db.len() < 2000 / 6, "{} blocks", db.len());
    }

    #[test]
    fn a_broken_block_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let db = sled::open(folder.path()).unwrap();
        let whole = encode(&[(b"key", b"value"), (b"other", b"value")]).unwrap();
        for length in 1..whole.len() {
            if length == HEAD + 8 {
                continue;
            }
            db.insert([BLOCK], &whole[..length]).unwrap();
            assert!(each(&db, |_, _| ()).is_err(), "{length}");
            assert!(forwards(&db, b"", None, 9).is_err() && backwards(&db, b"", None, 9).is_err());
            assert!(get(&db, b"zz").is_err());
        }
    }
}
