//! The bytes of the ledger: the head of a segment, and one frame per record.
//!
//! All numbers are big-endian. Each frame carries the hash of the one before it, and its own hash covers everything
//! else in it: so a frame can be told from noise wherever it stands, and the frames make a chain.

use sha2::{Digest as _, Sha256};

/// A SHA-256.
pub type Hash = [u8; 32];

/// The largest body of a record.
pub const MAX_BODY: usize = 1 << 20;
/// The length of a frame without its body.
pub const FRAME_HEAD: usize = 96;
/// The length of a segment's head.
pub const SEGMENT_HEAD: usize = 112;
/// The sort of record whose body is a change. Others (a snapshot that closes old segments) may follow.
pub const KIND_CHANGE: u16 = 1;

const FRAME_MAGIC: [u8; 4] = *b"DLr1";
const SEGMENT_MAGIC: [u8; 8] = *b"DEPUTYL1";
/// The part of a frame's head that its hash covers.
const HASHED: usize = FRAME_HEAD - 32;

/// The end of a chain: what the next frame has to fit to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tip {
    /// The number of the last record; 0 before the first.
    pub number: u64,
    /// The group in which it was written.
    pub group: u64,
    /// How many records of its group come after it.
    pub remaining: u32,
    /// Its hash; zeros before the first.
    pub hash: Hash,
}

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub length: u32,
    pub number: u64,
    pub group: u64,
    pub remaining: u32,
    pub kind: u16,
    pub version: u16,
    pub previous: Hash,
    pub hash: Hash,
}

impl Head {
    /// The tip of a chain that ends with this frame.
    pub fn tip(&self) -> Tip {
        Tip { number: self.number, group: self.group, remaining: self.remaining, hash: self.hash }
    }

    /// The length of the whole frame.
    pub fn frame_length(&self) -> u64 {
        FRAME_HEAD as u64 + u64::from(self.length)
    }

    /// Reads a head; says why where the bytes are none. The hash is not checked here.
    pub fn decode(bytes: &[u8; FRAME_HEAD]) -> Result<Self, &'static str> {
        let mut rest = &bytes[..];
        if take::<4>(&mut rest) != FRAME_MAGIC {
            return Err("there is no record here");
        }
        let head = Self {
            length: u32::from_be_bytes(take(&mut rest)),
            number: u64::from_be_bytes(take(&mut rest)),
            group: u64::from_be_bytes(take(&mut rest)),
            remaining: u32::from_be_bytes(take(&mut rest)),
            kind: u16::from_be_bytes(take(&mut rest)),
            version: u16::from_be_bytes(take(&mut rest)),
            previous: take(&mut rest),
            hash: take(&mut rest),
        };
        if head.length as usize > MAX_BODY {
            return Err("the record's length is beyond the limit");
        }
        Ok(head)
    }

    /// Whether the frame's hash is the one that its head and body have.
    pub fn verifies(&self, head: &[u8; FRAME_HEAD], body: &[u8]) -> bool {
        digest(&head[..HASHED], body) == self.hash
    }

    /// Whether this frame continues the chain that ends with `tip`.
    pub fn follows(&self, tip: &Tip) -> Result<(), &'static str> {
        if self.number != tip.number + 1 {
            return Err("the record's number does not follow the one before");
        }
        if self.previous != tip.hash {
            return Err("the record does not name the hash of the one before");
        }
        // A group that was cut short is followed by another one, so its count need not have come to 0.
        if self.group < tip.group || (self.group == tip.group && self.remaining + 1 != tip.remaining) {
            return Err("the record's group does not follow the one before");
        }
        Ok(())
    }
}

/// Appends a frame to `out` and gives the new tip. `tip` is the chain's end before it.
pub fn encode(out: &mut Vec<u8>, tip: &Tip, group: u64, remaining: u32, version: u16, body: &[u8]) -> Tip {
    let number = tip.number + 1;
    let start = out.len();
    out.extend_from_slice(&FRAME_MAGIC);
    let length = u32::try_from(body.len()).expect("the caller keeps bodies below MAX_BODY");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&number.to_be_bytes());
    out.extend_from_slice(&group.to_be_bytes());
    out.extend_from_slice(&remaining.to_be_bytes());
    out.extend_from_slice(&KIND_CHANGE.to_be_bytes());
    out.extend_from_slice(&version.to_be_bytes());
    out.extend_from_slice(&tip.hash);
    let hash = digest(&out[start..], body);
    out.extend_from_slice(&hash);
    out.extend_from_slice(body);
    Tip { number, group, remaining, hash }
}

/// The head of a segment: whose ledger it is, and the end of the chain before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHead {
    /// The ledger's identity, random at its making.
    pub identity: [u8; 16],
    /// The end of the segment before this one.
    pub before: Tip,
}

impl SegmentHead {
    /// The bytes of the head.
    pub fn encode(&self) -> [u8; SEGMENT_HEAD] {
        let mut out = Vec::with_capacity(SEGMENT_HEAD);
        out.extend_from_slice(&SEGMENT_MAGIC);
        out.extend_from_slice(&self.identity);
        out.extend_from_slice(&self.before.number.to_be_bytes());
        out.extend_from_slice(&self.before.group.to_be_bytes());
        out.extend_from_slice(&self.before.remaining.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.before.hash);
        let hash = digest(&out, &[]);
        out.extend_from_slice(&hash);
        out.try_into().expect("the parts above are of fixed length")
    }

    /// Reads a head; says why where the bytes are none.
    pub fn decode(bytes: &[u8; SEGMENT_HEAD]) -> Result<Self, &'static str> {
        let mut rest = &bytes[..];
        if take::<8>(&mut rest) != SEGMENT_MAGIC {
            return Err("this is not a segment of a ledger");
        }
        let head = Self {
            identity: take(&mut rest),
            before: Tip {
                number: u64::from_be_bytes(take(&mut rest)),
                group: u64::from_be_bytes(take(&mut rest)),
                remaining: {
                    let remaining = u32::from_be_bytes(take(&mut rest));
                    take::<4>(&mut rest);
                    remaining
                },
                hash: take(&mut rest),
            },
        };
        if take::<32>(&mut rest) != digest(&bytes[..SEGMENT_HEAD - 32], &[]) {
            return Err("the segment's head does not have its hash");
        }
        Ok(head)
    }
}

/// A hash as text.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn digest(head: &[u8], body: &[u8]) -> Hash {
    Sha256::new().chain_update(head).chain_update(body).finalize().into()
}

fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let (first, after) = rest.split_first_chunk::<N>().expect("the array's length covers every field");
    *rest = after;
    *first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_and_heads_come_back_as_they_were() {
        let tip = Tip { number: 4, group: 2, remaining: 1, hash: [9; 32] };
        let mut bytes = Vec::new();
        let next = encode(&mut bytes, &tip, 2, 0, 1, b"body");
        let head_bytes: [u8; FRAME_HEAD] = bytes[..FRAME_HEAD].try_into().unwrap();
        let head = Head::decode(&head_bytes).unwrap();
        assert_eq!(head.tip(), next);
        assert!(head.verifies(&head_bytes, b"body") && !head.verifies(&head_bytes, b"bodY"));
        assert_eq!(head.follows(&tip), Ok(()));
        assert!(head.follows(&next).is_err());
        let segment = SegmentHead { identity: [3; 16], before: next };
        assert_eq!(SegmentHead::decode(&segment.encode()), Ok(segment));
    }

    #[test]
    fn every_changed_byte_of_a_head_is_noticed() {
        let bytes = SegmentHead { identity: [3; 16], before: Tip::default() }.encode();
        for at in 0..SEGMENT_HEAD {
            let mut changed = bytes;
            changed[at] ^= 1;
            assert!(SegmentHead::decode(&changed).is_err(), "byte {at}");
        }
    }
}
