//! Header, pages and records as bytes.

use std::hash::Hasher as _;
#[allow(deprecated)]
// deprecated in favour of a hasher without a stated algorithm; a file needs one that stays
use std::hash::SipHasher;

use crate::identity::FilesIdentity;

/// What the file begins with.
pub const MAGIC: [u8; 8] = *b"DEPUTYNS";
/// The form described here. A reader refuses every other.
pub const VERSION: u32 = 1;
/// Bytes of the header.
pub const HEADER: usize = 272;
/// Bytes of a page.
pub const PAGE: usize = 256;
/// Slots of a page.
pub const SLOTS: usize = 31;
/// Bytes of a record's head.
pub const RECORD_HEAD: usize = 32;
/// Bytes of a record's body at most.
pub const MAX_BODY: u32 = 1 << 28;

/// Random bytes, new with each file, that key its hashes: who can choose names cannot make them collide.
pub type Seed = [u8; 16];

/// `SipHash` 2-4 of some bytes at some place. Places are offsets for checksums; see [`Place`] for the others.
#[allow(deprecated)]
pub struct Keyed(SipHasher);

#[allow(deprecated)]
impl Keyed {
    /// Begins a hash.
    pub fn new(seed: &Seed, place: u64) -> Self {
        let (first, second) = seed.split_at(8);
        let mut hasher = SipHasher::new_with_keys(u64_at(first, 0), u64_at(second, 0));
        hasher.write(&place.to_le_bytes());
        Self(hasher)
    }

    /// Adds bytes; in how many pieces they come makes no difference.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    /// The hash of what was added.
    pub fn end(&self) -> u64 {
        self.0.finish()
    }
}

/// The hash of bytes at a place.
pub fn keyed(seed: &Seed, place: u64, bytes: &[u8]) -> u64 {
    let mut hash = Keyed::new(seed, place);
    hash.add(bytes);
    hash.end()
}

/// The tables, in the order of their entries in the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// Accounts by the hash of the name.
    AccountNames,
    /// Accounts by the hash of the uid.
    AccountIds,
    /// Accounts in the order of uids.
    AccountOrder,
    /// Groups by the hash of the name.
    GroupNames,
    /// Groups by the hash of the gid.
    GroupIds,
    /// Groups in the order of gids.
    GroupOrder,
    /// The groups of a member, by the hash of his name.
    Members,
}

/// How many tables there are.
pub const TABLES: usize = 7;

impl Table {
    /// Separates the tables' hashes from each other, and from those of places in a file.
    fn place(self) -> u64 {
        u64::MAX - self as u64
    }

    /// Where a name or the little-endian bytes of an id belong: the page to begin with, and the slot's key.
    pub fn hash(self, seed: &Seed, bytes: &[u8]) -> (u64, u32) {
        let hash = keyed(seed, self.place(), bytes);
        // Disjoint bits, or the keys of one page would have bits in common.
        (hash >> 32, (hash & 0xffff_ffff) as u32)
    }
}

/// Where a table is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableAt {
    /// Offset of its first page.
    pub offset: u64,
    /// Number of pages; never 0.
    pub pages: u64,
}

/// What the file says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Length of the whole file.
    pub file_length: u64,
    /// Keys hashes and checksums.
    pub seed: Seed,
    /// `/etc/passwd` as it was when no account here was found to be in it.
    pub passwd_file: FilesIdentity,
    /// `/etc/group`, likewise.
    pub group_file: FilesIdentity,
    /// In the order of [`Table`].
    pub tables: [TableAt; TABLES],
}

/// Why a header is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadHeader {
    /// Another version than [`VERSION`].
    Version,
    /// No header, or a damaged one.
    Damaged,
}

impl Header {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&u32::try_from(HEADER).unwrap_or(0).to_le_bytes());
        bytes[16..24].copy_from_slice(&self.file_length.to_le_bytes());
        bytes[24..40].copy_from_slice(&self.seed);
        bytes[40..96].copy_from_slice(&self.passwd_file.encode());
        bytes[96..152].copy_from_slice(&self.group_file.encode());
        for (table, slot) in self.tables.iter().zip(bytes[152..264].chunks_exact_mut(16)) {
            slot[..8].copy_from_slice(&table.offset.to_le_bytes());
            slot[8..].copy_from_slice(&table.pages.to_le_bytes());
        }
        let sum = keyed(&self.seed, 0, &bytes[..264]);
        bytes[264..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads a header of a file of this length.
    pub fn decode(bytes: &[u8; HEADER], file_length: u64) -> Result<Self, BadHeader> {
        if bytes[..8] != MAGIC {
            return Err(BadHeader::Damaged);
        }
        // Before the checksum: another version may have it elsewhere.
        if u32_at(bytes, 8) != VERSION {
            return Err(BadHeader::Version);
        }
        let mut seed = Seed::default();
        seed.copy_from_slice(&bytes[24..40]);
        let mut tables = [TableAt::default(); TABLES];
        for (index, table) in tables.iter_mut().enumerate() {
            *table =
                TableAt { offset: u64_at(bytes, 152 + index * 16), pages: u64_at(bytes, 160 + index * 16) };
        }
        let header = Self {
            file_length: u64_at(bytes, 16),
            seed,
            passwd_file: FilesIdentity::decode(&bytes[40..96]),
            group_file: FilesIdentity::decode(&bytes[96..152]),
            tables,
        };
        let inside = |table: &TableAt| {
            let length = table.pages.checked_mul(PAGE as u64);
            let end = length.and_then(|length| table.offset.checked_add(length));
            table.pages > 0 && end.is_some_and(|end| end <= file_length)
        };
        let good = u32_at(bytes, 12) as usize == HEADER
            && keyed(&seed, 0, &bytes[..264]) == u64_at(bytes, 264)
            && header.file_length == file_length
            && header.tables.iter().all(inside);
        if good { Ok(header) } else { Err(BadHeader::Damaged) }
    }

    /// Where a table is.
    pub fn table(&self, table: Table) -> TableAt {
        self.tables[table as usize]
    }
}

/// One slot of a page: the lower half of a hash, or an id; and where the record is, in units of 8 bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Slot {
    /// What the slot is found by.
    pub key: u32,
    /// The record's offset by 8; 0 is an empty slot.
    pub reference: u32,
}

/// Slots, filled from the front, and a checksum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page(pub [Slot; SLOTS]);

impl Page {
    /// The page's bytes at this offset of a file.
    pub fn encode(&self, seed: &Seed, offset: u64) -> [u8; PAGE] {
        let mut bytes = [0; PAGE];
        for (slot, place) in self.0.iter().zip(bytes.chunks_exact_mut(8)) {
            place[..4].copy_from_slice(&slot.key.to_le_bytes());
            place[4..].copy_from_slice(&slot.reference.to_le_bytes());
        }
        let sum = keyed(seed, offset, &bytes[..PAGE - 8]);
        bytes[PAGE - 8..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads a page; `None` if it is damaged.
    pub fn decode(bytes: &[u8; PAGE], seed: &Seed, offset: u64) -> Option<Self> {
        if keyed(seed, offset, &bytes[..PAGE - 8]) != u64_at(bytes, PAGE - 8) {
            return None;
        }
        let mut slots = [Slot::default(); SLOTS];
        for (index, slot) in slots.iter_mut().enumerate() {
            *slot = Slot { key: u32_at(bytes, index * 8), reference: u32_at(bytes, index * 8 + 4) };
        }
        Some(Self(slots))
    }

    /// The slots that are filled.
    pub fn filled(&self) -> &[Slot] {
        let count = self.0.iter().position(|slot| slot.reference == 0).unwrap_or(SLOTS);
        &self.0[..count]
    }

    /// Whether nothing more fits: then a look-up goes on with the next page.
    pub fn is_full(&self) -> bool {
        self.0[SLOTS - 1].reference != 0
    }
}

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// `first` is the uid, `second` the gid; the body is name, gecos, home and shell, each with a NUL behind.
    Account = 1,
    /// `first` is the gid, `second` the number of members; the body is the name and the members, each with a NUL behind.
    Group = 2,
    /// `first` is the number of groups; the body is their gids and then the member's name, with a NUL behind.
    Member = 3,
}

/// The beginning of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHead {
    /// A [`Kind`] as a number.
    pub kind: u32,
    /// Bytes of the body.
    pub body: u32,
    /// See [`Kind`].
    pub first: u32,
    /// See [`Kind`].
    pub second: u32,
    /// The body's checksum; its place is the record's.
    pub body_sum: u64,
}

impl RecordHead {
    /// The head's bytes at this offset of a file.
    pub fn encode(&self, seed: &Seed, offset: u64) -> [u8; RECORD_HEAD] {
        let mut bytes = [0; RECORD_HEAD];
        for (number, place) in
            [self.kind, self.body, self.first, self.second].iter().zip(bytes.chunks_exact_mut(4))
        {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes[16..24].copy_from_slice(&self.body_sum.to_le_bytes());
        let sum = keyed(seed, offset, &bytes[..24]);
        bytes[24..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads a head; `None` if it is damaged or of another kind.
    pub fn decode(bytes: &[u8; RECORD_HEAD], seed: &Seed, offset: u64, kind: Kind) -> Option<Self> {
        let head = Self {
            kind: u32_at(bytes, 0),
            body: u32_at(bytes, 4),
            first: u32_at(bytes, 8),
            second: u32_at(bytes, 12),
            body_sum: u64_at(bytes, 16),
        };
        let good = keyed(seed, offset, &bytes[..24]) == u64_at(bytes, 24)
            && head.kind == kind as u32
            && head.body <= MAX_BODY;
        good.then_some(head)
    }
}

/// Four bytes as a number; 0 where there are fewer, which no checksum lets through.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |four| u32::from_le_bytes(*four))
}

/// Eight bytes as a number; 0 where there are fewer.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |eight| u64::from_le_bytes(*eight))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_siphash_2_4() {
        // The reference's vectors: key 00..0f, input 00..0e in the paper; here the first eight are the place.
        let seed: Seed = std::array::from_fn(|index| u8::try_from(index).unwrap());
        let input: Vec<u8> = (8..15).collect();
        let place = u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(keyed(&seed, place, &input), 0xa129_ca61_49be_45e5);
        let mut pieces = Keyed::new(&seed, place);
        for byte in &input {
            pieces.add(&[*byte]);
        }
        assert_eq!(pieces.end(), 0xa129_ca61_49be_45e5);
    }

    #[test]
    fn a_page_is_good_at_its_place_only() {
        let mut page = Page([Slot::default(); SLOTS]);
        page.0[0] = Slot { key: 7, reference: 9 };
        let bytes = page.encode(&[1; 16], 512);
        assert_eq!(Page::decode(&bytes, &[1; 16], 512), Some(page));
        assert_eq!(Page::decode(&bytes, &[1; 16], 768), None);
        assert_eq!(Page::decode(&bytes, &[2; 16], 512), None);
    }
}
