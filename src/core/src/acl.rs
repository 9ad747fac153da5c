//! POSIX access control lists: the kernel's bytes, and their text with numbers for names.
//!
//! The bytes are those of the extended attributes `system.posix_acl_access` and `system.posix_acl_default`
//! (`linux/posix_acl_xattr.h`); the text is that of acl(5) in its short form.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The most entries of a list: more than any file system stores.
pub const MAX_ACL_ENTRIES: usize = 1024;

/// The version of the bytes.
const VERSION: u32 = 2;

/// The id of an entry that has none.
const NO_ID: u32 = u32::MAX;

/// Not an access control list.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AclError {
    /// The kernel's bytes are of another form.
    #[error("the bytes are no access control list of version 2")]
    Bytes,
    /// A part of a text.
    #[error("{0:?} is no entry: it is like user:1001:rw-, group::r-x, mask::r-x or other::---")]
    Entry(String),
    /// Too many entries.
    #[error("a list has at most {MAX_ACL_ENTRIES} entries")]
    TooMany,
}

/// Whom an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AclWho {
    /// The owner.
    Owner,
    /// This uid.
    User(u32),
    /// The group that it belongs to.
    OwningGroup,
    /// This gid.
    Group(u32),
    /// What all but owner and others have at most.
    Mask,
    /// Everybody else.
    Others,
}

impl AclWho {
    fn tag(self) -> u16 {
        match self {
            AclWho::Owner => 0x01,
            AclWho::User(_) => 0x02,
            AclWho::OwningGroup => 0x04,
            AclWho::Group(_) => 0x08,
            AclWho::Mask => 0x10,
            AclWho::Others => 0x20,
        }
    }

    fn id(self) -> u32 {
        match self {
            AclWho::User(id) | AclWho::Group(id) => id,
            _ => NO_ID,
        }
    }

    fn of(tag: u16, id: u32) -> Option<Self> {
        Some(match tag {
            0x01 => AclWho::Owner,
            0x02 => AclWho::User(id),
            0x04 => AclWho::OwningGroup,
            0x08 => AclWho::Group(id),
            0x10 => AclWho::Mask,
            0x20 => AclWho::Others,
            _ => return None,
        })
    }
}

/// One entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclEntry {
    /// Whom it is about.
    pub who: AclWho,
    /// 4 to read, 2 to write, 1 to execute or search.
    pub permissions: u8,
}

/// A list. The kernel refuses one that lacks an entry or has one twice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acl(pub Vec<AclEntry>);

impl Acl {
    /// From the kernel's bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, AclError> {
        let (version, rest) = bytes.split_first_chunk::<4>().ok_or(AclError::Bytes)?;
        if u32::from_le_bytes(*version) != VERSION || rest.len() % 8 != 0 {
            return Err(AclError::Bytes);
        }
        let entry = |entry: &[u8]| {
            let &[t0, t1, p0, p1, i0, i1, i2, i3] = entry else { return None };
            let permissions = u8::try_from(u16::from_le_bytes([p0, p1])).ok().filter(|bits| *bits <= 7)?;
            let who = AclWho::of(u16::from_le_bytes([t0, t1]), u32::from_le_bytes([i0, i1, i2, i3]))?;
            Some(AclEntry { who, permissions })
        };
        let entries: Option<Vec<_>> = rest.chunks(8).map(entry).collect();
        entries.map(Self).ok_or(AclError::Bytes)
    }

    /// The kernel's bytes, in the kernel's order.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut entries = self.0.clone();
        entries.sort_by_key(|entry| entry.who);
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for AclEntry { who, permissions } in entries {
            bytes.extend(who.tag().to_le_bytes());
            bytes.extend(u16::from(permissions).to_le_bytes());
            bytes.extend(who.id().to_le_bytes());
        }
        bytes
    }
}

impl fmt::Display for Acl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, AclEntry { who, permissions }) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match who {
                AclWho::Owner => write!(f, "{comma}user::")?,
                AclWho::User(uid) => write!(f, "{comma}user:{uid}:")?,
                AclWho::OwningGroup => write!(f, "{comma}group::")?,
                AclWho::Group(gid) => write!(f, "{comma}group:{gid}:")?,
                AclWho::Mask => write!(f, "{comma}mask::")?,
                AclWho::Others => write!(f, "{comma}other::")?,
            }
            for (bit, letter) in [(4, 'r'), (2, 'w'), (1, 'x')] {
                write!(f, "{}", if permissions & bit == 0 { '-' } else { letter })?;
            }
        }
        Ok(())
    }
}

impl FromStr for Acl {
    type Err = AclError;

    fn from_str(text: &str) -> Result<Self, AclError> {
        let entries: Vec<AclEntry> = text
            .split([',', '\n'])
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .take(MAX_ACL_ENTRIES + 1)
            .map(entry)
            .collect::<Result<_, _>>()?;
        if entries.len() > MAX_ACL_ENTRIES {
            return Err(AclError::TooMany);
        }
        Ok(Self(entries))
    }
}

fn entry(text: &str) -> Result<AclEntry, AclError> {
    let wrong = || AclError::Entry(text.to_owned());
    let mut parts = text.split(':');
    let (Some(sort), Some(id), Some(letters), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(wrong());
    };
    let number = || id.parse().ok().filter(|id| *id != NO_ID).ok_or_else(wrong);
    let who = match (sort, id) {
        ("user" | "u", "") => AclWho::Owner,
        ("user" | "u", _) => AclWho::User(number()?),
        ("group" | "g", "") => AclWho::OwningGroup,
        ("group" | "g", _) => AclWho::Group(number()?),
        ("mask" | "m", "") => AclWho::Mask,
        ("other" | "o", "") => AclWho::Others,
        _ => return Err(wrong()),
    };
    let mut permissions = 0;
    for letter in letters.chars() {
        let bit = match letter {
            'r' => 4,
            'w' => 2,
            'x' => 1,
            '-' => continue,
            _ => return Err(wrong()),
        };
        if permissions & bit != 0 {
            return Err(wrong());
        }
        permissions |= bit;
    }
    if letters.is_empty() || letters.len() > 3 {
        return Err(wrong());
    }
    Ok(AclEntry { who, permissions })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "user::rwx,user:1001:rw-,group::r-x,group:2001:r--,mask::rwx,other::---";

    #[test]
    fn a_list_is_the_same_in_text_and_in_the_kernels_bytes() {
        let acl: Acl = TEXT.parse().unwrap();
        assert_eq!(acl.to_string(), TEXT);
        let bytes = acl.to_bytes();
        assert_eq!(bytes.len(), 4 + 6 * 8);
        assert_eq!(bytes[..12], [2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255]);
        assert_eq!(Acl::from_bytes(&bytes).unwrap(), acl);
        assert_eq!(
            "o::r\nu::rwx, g::-".parse::<Acl>().unwrap().to_string(),
            "other::r--,user::rwx,group::---"
        );
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for text in [
            "user",
            "user::",
            "user:x:rwx",
            "user:-1:r",
            "user:4294967295:r",
            "mask:5:r",
            "owner::r",
            "user::rwxr",
            "user::rr",
            "user::r:w",
            "default:user::rwx",
        ] {
            assert!(text.parse::<Acl>().is_err(), "{text}");
        }
        let bytes = TEXT.parse::<Acl>().unwrap().to_bytes();
        for length in (0..bytes.len()).filter(|length| length % 8 != 4) {
            assert_eq!(Acl::from_bytes(&bytes[..length]), Err(AclError::Bytes), "{length}");
        }
        assert!("u::r,".repeat(MAX_ACL_ENTRIES + 1).parse::<Acl>().is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), text in ".{0,40}") {
            let _ = Acl::from_bytes(&bytes);
            let _ = text.parse::<Acl>();
        }
    }
}
