//! The view's mark: up to which record it has seen, and the sum of its rows.

use sha2::{Digest as _, Sha256};

use crate::store::ledger::frame::Hash;

/// The version of the view's rows. Another version's view is made anew.
const VERSION: u16 = 4;
const LENGTH: usize = 2 + 16 + 8 + 32 + 8 + 16 + 32;

/// What the view says about itself. It is written in one batch with the rows that it speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Whose view it is.
    pub identity: [u8; 16],
    /// The last record that it has seen.
    pub number: u64,
    /// That record's hash.
    pub hash: Hash,
    /// How many rows there are.
    pub rows: u64,
    /// The sum of the rows' hashes: rows that sled lost or changed show in it.
    pub sum: u128,
}

impl Mark {
    /// The mark of an empty view.
    pub fn empty(identity: [u8; 16]) -> Self {
        Self { identity, number: 0, hash: [0; 32], rows: 0, sum: 0 }
    }

    /// Takes a row into the sum.
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        self.rows = self.rows.wrapping_add(1);
        self.sum = self.sum.wrapping_add(row_hash(key, value));
    }

    /// Takes a row out of the sum.
    pub fn subtract(&mut self, key: &[u8], value: &[u8]) {
        self.rows = self.rows.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(row_hash(key, value));
    }

    /// The mark as a row.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(LENGTH);
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(&self.identity);
        out.extend_from_slice(&self.number.to_be_bytes());
        out.extend_from_slice(&self.hash);
        out.extend_from_slice(&self.rows.to_be_bytes());
        out.extend_from_slice(&self.sum.to_be_bytes());
        let hash = Sha256::digest(&out);
        out.extend_from_slice(&hash);
        out
    }

    /// Reads a mark; `None` if it is not one, or of another version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (fields, hash) = bytes.split_last_chunk::<32>()?;
        if bytes.len() != LENGTH || Sha256::digest(fields)[..] != hash[..] {
            return None;
        }
        let (version, rest) = fields.split_first_chunk::<2>()?;
        let (identity, rest) = rest.split_first_chunk::<16>()?;
        let (number, rest) = rest.split_first_chunk::<8>()?;
        let (hash, rest) = rest.split_first_chunk::<32>()?;
        let (rows, rest) = rest.split_first_chunk::<8>()?;
        let (sum, _) = rest.split_first_chunk::<16>()?;
        (u16::from_be_bytes(*version) == VERSION).then(|| Self {
            identity: *identity,
            number: u64::from_be_bytes(*number),
            hash: *hash,
            rows: u64::from_be_bytes(*rows),
            sum: u128::from_be_bytes(*sum),
        })
    }
}

fn row_hash(key: &[u8], value: &[u8]) -> u128 {
    // The key's length keeps (ab, c) and (a, bc) apart.
    let length = (key.len() as u64).to_be_bytes();
    let hash = Sha256::new().chain_update(length).chain_update(key).chain_update(value).finalize();
    u128::from_be_bytes(*hash.first_chunk().expect("a SHA-256 is longer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_comes_back_and_a_changed_one_does_not() {
        let mut mark = Mark::empty([1; 16]);
        mark.add(b"a", b"bc");
        mark.add(b"ab", b"c");
        let bytes = mark.encode();
        assert_eq!(Mark::decode(&bytes), Some(mark));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x40;
            assert_eq!(Mark::decode(&changed), None, "byte {at}");
        }
        mark.subtract(b"ab", b"c");
        mark.subtract(b"a", b"bc");
        assert_eq!(mark, Mark::empty([1; 16]));
    }
}
