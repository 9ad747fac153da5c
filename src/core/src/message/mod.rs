//! The messages between Deputy's processes.
//!
//! One packet is one message: four magic bytes, a version, and a body in postcard's encoding. A packet that is
//! truncated, of another version, or longer than its message says is refused whole. What the client of a
//! conversation sees is simpler, so that any language can speak it: see [`conversation`].

pub mod conversation;
mod files;
pub mod job;
mod launcher;
mod owner;
pub mod query;
mod rebind;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::denial::{Code, Denial};

pub use files::{
    DEFAULT_UMASK, FileEntry, FileKind, FilePlace, FileReply, FileRequest, FileStat, FileTime, FilesRequest,
    FolderShare, IDLE_SECONDS, MAX_ENTRIES, MAX_KEPT, MAX_OPEN, OpenHow, OpenedOne, RenameHow,
};
pub use launcher::{
    Asking, Authenticated, ClusterPerson, ClusterRequest, ConsentPage, ConsentRequest, ConverseRequest,
    ExamineRequest, ExplainPathRequest, ExplainRequest, Explanation, GroupPage, JobCommand, JobState,
    LauncherReply, LauncherRequest, Leased, LinkState, MAX_ASKED, MAX_FORGET, MAX_IMPORT, NotInGroup,
    PathAccess, PoolPage, Purpose, QuotaRequest, Returned, RunRequest, SetGroupRequest, SubmitRequest,
    WithdrawRequest, Withdrawn,
};
pub use owner::{Offer, OwnerReply, OwnerRequest};
pub use rebind::{RebindReply, RebindRequest};

/// The most bytes of a packet. What is larger travels in a fully sealed memfd.
pub const MAX_PACKET: usize = 64 * 1024;

/// The most bytes of a message in a memfd.
pub const MAX_MEMFD: usize = 4 * 1024 * 1024;

/// The first bytes of each packet.
pub const MAGIC: [u8; 4] = *b"DPTY";

/// The version of the messages. A launcher and a daemon of different versions refuse each other's packets. What shepherds
/// say, who outlive both, has versions of its own: [`job`].
pub const VERSION: u16 = 1;

/// A packet is not a message.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MessageError {
    /// It does not begin as a message of Deputy's.
    #[error("the packet is not a message of Deputy's")]
    Magic,
    /// It is of another version.
    #[error("the packet is of version {0}; this program speaks version {VERSION}")]
    Version(u16),
    /// Its body is not one of the messages that belong here.
    #[error("the packet's body is not a message that belongs here")]
    Body,
    /// Bytes follow the message.
    #[error("{0} bytes follow the message")]
    Trailing(usize),
    /// The message is too long for one packet.
    #[error("the message has {0} bytes; at most {max} fit", max = MAX_MEMFD)]
    TooLong(usize),
}

impl From<MessageError> for Denial {
    fn from(error: MessageError) -> Self {
        let code = match error {
            MessageError::Version(_) => Code::UnsupportedVersion,
            _ => Code::BadMessage,
        };
        Denial::new(code, "protocol", error.to_string())
            .remedy("use a client of the same release as the launcher; restart deputyd after an upgrade")
    }
}

/// The packet of a message.
pub fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>, MessageError> {
    encode_of(message, MAGIC, VERSION)
}

fn encode_of<M: Serialize>(message: &M, magic: [u8; 4], version: u16) -> Result<Vec<u8>, MessageError> {
    let mut packet = Vec::with_capacity(256);
    packet.extend_from_slice(&magic);
    packet.extend_from_slice(&version.to_le_bytes());
    let packet = postcard::to_extend(message, packet).map_err(|_| MessageError::Body)?;
    if packet.len() > MAX_MEMFD {
        return Err(MessageError::TooLong(packet.len()));
    }
    Ok(packet)
}

/// The message of a packet.
pub fn decode<M: DeserializeOwned>(packet: &[u8]) -> Result<M, MessageError> {
    decode_of(packet, &MAGIC, VERSION)
}

/// The version that a packet of ours says it is in.
fn version_of(packet: &[u8]) -> Result<u16, MessageError> {
    let rest = packet.strip_prefix(&MAGIC).ok_or(MessageError::Magic)?;
    rest.first_chunk().map(|version| u16::from_le_bytes(*version)).ok_or(MessageError::Magic)
}

/// The message of a packet of the protocol with this magic and version: nothing may be missing, nothing left over.
fn decode_of<'a, M: Deserialize<'a>>(packet: &'a [u8], magic: &[u8], spoken: u16) -> Result<M, MessageError> {
    let body = packet.strip_prefix(magic).ok_or(MessageError::Magic)?;
    let (version, body) = body.split_first_chunk::<2>().ok_or(MessageError::Magic)?;
    let version = u16::from_le_bytes(*version);
    if version != spoken {
        return Err(MessageError::Version(version));
    }
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(MessageError::Trailing(rest.len())),
        Err(_) => Err(MessageError::Body),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::JobId;
    use proptest::prelude::*;

    fn abandon() -> LauncherRequest {
        LauncherRequest::Abandon { job: JobId::from_random([1; 10]) }
    }

    #[test]
    fn a_message_survives_the_journey() {
        let packet = encode(&abandon()).unwrap();
        assert_eq!(decode::<LauncherRequest>(&packet).unwrap(), abandon());
    }

    #[test]
    fn truncated_trailing_foreign_and_later_packets_are_refused() {
        let packet = encode(&abandon()).unwrap();
        for length in 0..packet.len() {
            assert!(decode::<LauncherRequest>(&packet[..length]).is_err(), "{length} bytes");
        }
        let mut longer = packet.clone();
        longer.push(0);
        assert_eq!(decode::<LauncherRequest>(&longer), Err(MessageError::Trailing(1)));
        let mut later = packet.clone();
        later[4] = 2;
        assert_eq!(decode::<LauncherRequest>(&later), Err(MessageError::Version(2)));
        assert_eq!(decode::<LauncherRequest>(b"GET / HTTP/1.1"), Err(MessageError::Magic));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(body in prop::collection::vec(any::<u8>(), 0..256)) {
            let mut packet = MAGIC.to_vec();
            packet.extend_from_slice(&VERSION.to_le_bytes());
            packet.extend_from_slice(&body);
            let _ = decode::<LauncherRequest>(&packet);
            let _ = decode::<LauncherReply>(&packet);
            let _ = decode::<OwnerRequest>(&packet);
            let _ = decode::<OwnerReply>(&packet);
            let _ = decode::<JobCommand>(&packet);
            let _ = decode::<FileRequest>(&packet);
            let _ = decode::<FileReply>(&packet);
        }
    }
}
