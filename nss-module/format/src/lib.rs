//! The map: the file from which `libnss_deputy.so.2` answers, with its writer and its reader.
//!
//! Nothing here does input or output: the writer makes bytes, the reader takes bytes from a [`Source`]. The reader
//! allocates nothing and has no state, since it runs in foreign processes; what it is given it does not believe.
//!
//! # Form
//!
//! All numbers are little-endian. The file is a [`layout::Header`], then tables of pages, then records.
//!
//! - A **page** ([`layout::Page`]) has 31 slots of a key and a reference, and a checksum. Of the tables three find
//!   by the hash of a name (accounts, groups, members' groups), two by the hash of an id (accounts, groups), and two
//!   list everything in the order of ids (accounts, groups).
//! - A **record** ([`layout::RecordHead`], then its body) is an account, a group with its members, or the groups of one
//!   member. It begins at a multiple of 8.
//!
//! Every look-up reads the header, in nearly all cases one page, and one record, whatever the number of entries. Each
//! of them has a checksum of its own, over its place in the file as well: damage is noticed by whoever would
//! otherwise believe it. The checksum (`SipHash` with the file's seed) is against accidents; that only root can write is
//! for the caller to see to.
#![forbid(unsafe_code)]

pub mod identity;
pub mod layout;
pub mod lines;
pub mod range;
pub mod read;
pub mod write;

pub use identity::FilesIdentity;
pub use lines::Scan;
pub use range::{Range, Ranges};
pub use read::{Cursor, Fault, FoundAccount, FoundGroup, Map, Source, Space};
pub use write::{Account, Content, Group, Refusal, Taken, image};

/// The folder of the two files below.
pub const FOLDER: &str = "/var/lib/deputy/nss";
/// The map; root's, replaced by rename.
pub const MAP: &str = "/var/lib/deputy/nss/map";
/// The ranges of ids that may be answered; root's.
pub const RANGE: &str = "/var/lib/deputy/nss/range";
