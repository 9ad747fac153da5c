//! Numbers and tokens that say who or what is meant.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Values that are never an id of a person: root, nobody, the overflow id of 16-bit interfaces, and -1, which the
/// set*id calls read as "do not change".
const RESERVED: [u32; 4] = [0, 65534, 65535, u32::MAX];

/// A number that cannot be used as an OS uid or gid of a job.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0} is reserved and never the id of an OS account that Deputy acts for")]
pub struct ReservedId(pub u32);

macro_rules! os_id {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "u32", into = "u32")]
        pub struct $type(u32);

        impl $type {
            /// `None` for 0, 65534, 65535 and 4294967295.
            pub fn new(raw: u32) -> Option<Self> {
                (!RESERVED.contains(&raw)).then_some(Self(raw))
            }

            /// The number for a system call.
            pub fn raw(self) -> u32 {
                self.0
            }
        }

        impl TryFrom<u32> for $type {
            type Error = ReservedId;
            fn try_from(raw: u32) -> Result<Self, ReservedId> {
                Self::new(raw).ok_or(ReservedId(raw))
            }
        }

        impl From<$type> for u32 {
            fn from(id: $type) -> u32 {
                id.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

os_id!(
    /// The uid of an OS account that Deputy may act for; never root's.
    OsUid
);
os_id!(
    /// The primary gid of an OS account that Deputy may act for; never root's.
    OsGid
);

/// A text is not the token it should be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("not a {0}: expected {1} characters of a-z and 2-7")]
pub struct TokenError(&'static str, usize);

const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// RFC 4648 base 32 without padding, in lower case: safe as a file name, an object path and an argument.
fn base32(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(5) * 8);
    let (mut pending, mut bits) = (0u32, 0u32);
    for &byte in bytes {
        pending = (pending << 8) | u32::from(byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(BASE32[(pending >> bits & 31) as usize] as char);
        }
    }
    if bits > 0 {
        text.push(BASE32[(pending << (5 - bits) & 31) as usize] as char);
    }
    text
}

macro_rules! token {
    ($(#[$doc:meta])* $type:ident, $what:literal, $bytes:literal, $characters:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The number of random bytes that make one.
            pub const BYTES: usize = $bytes;

            /// Makes the token from random bytes of the caller's.
            pub fn from_random(bytes: [u8; $bytes]) -> Self {
                Self(base32(&bytes))
            }

            /// The token as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = TokenError;
            fn from_str(text: &str) -> Result<Self, TokenError> {
                if text.len() == $characters && text.bytes().all(|b| BASE32.contains(&b)) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(TokenError($what, $characters))
                }
            }
        }

        impl TryFrom<String> for $type {
            type Error = TokenError;
            fn try_from(text: String) -> Result<Self, TokenError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(token: $type) -> String {
                token.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

token!(
    /// The id of a job: 80 random bits, so that one application cannot guess another's.
    JobId, "job id", 10, 16
);
token!(
    /// The id of a session: 160 random bits. Who holds it still has to be the application's uid.
    SessionId, "session id", 20, 32
);
token!(
    /// What an OS account's owner types to consent to a link that was asked for: 48 bits, short enough to copy by
    /// hand, of no use to anybody but that owner.
    LinkCode, "link code", 6, 10
);
token!(
    /// The id of a plan to move a tree to another OS account: 40 bits, short enough to type. Only root names one.
    RebindId, "plan id", 5, 8
);
token!(
    /// What ties a conversation's answers to the frame that said what the conversation is.
    Nonce, "nonce", 20, 32
);

impl fmt::Debug for RebindId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RebindId({})", self.0)
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JobId({})", self.0)
    }
}

macro_rules! hidden_debug {
    ($($type:ident),*) => {$(
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($type), "(..)"))
            }
        }
    )*};
}
hidden_debug!(SessionId, LinkCode, Nonce);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_numbers_are_not_ids() {
        for raw in [0, 65534, 65535, u32::MAX] {
            assert_eq!(OsUid::new(raw), None);
            assert_eq!(OsGid::new(raw), None);
        }
        assert_eq!(OsUid::new(1000).map(OsUid::raw), Some(1000));
    }

    #[test]
    fn base32_follows_rfc_4648() {
        for (bytes, text) in [(&b"f"[..], "my"), (b"fo", "mzxq"), (b"foobar", "mzxw6ytboi"), (b"", "")] {
            assert_eq!(base32(bytes), text);
        }
    }

    #[test]
    fn a_token_is_its_exact_length_and_alphabet() {
        let id = JobId::from_random([7; 10]);
        assert_eq!(id.as_str().parse(), Ok(id.clone()));
        for text in ["", "../../../../../..", "ABCDEFGHIJKLMNOP", "a", &"a".repeat(17)] {
            assert!(text.parse::<JobId>().is_err(), "{text}");
        }
    }

    #[test]
    fn tokens_that_give_power_are_not_printed() {
        let nonce = Nonce::from_random([1; 20]);
        assert!(!format!("{nonce:?}").contains(nonce.as_str()));
    }
}
