//! What `pam_deputy.so` asks `deputyd`, and what that answers.
//!
//! A connection to [`QUERY_SOCKET`] (`SOCK_SEQPACKET`) is for one question. The daemon says [`QueryReply::Accepted`]
//! first, so that one that hangs is known soon, however long an answer takes; then one packet asks and one answers. A
//! packet is four magic bytes, a version, and a body in postcard's encoding. Questions borrow from their packet:
//! passwords are in one place, which its owner wipes.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::MessageError;
use crate::account::Status;
use crate::denial::Denial;
use crate::job::OsIdentity;

/// Where the daemon listens.
pub const QUERY_SOCKET: &str = "/run/deputyd/query.sock";

/// The most bytes of a packet, either way.
pub const MAX_QUERY: usize = 8 * 1024;

/// The most bytes of a password that are asked about: one more than a password can have. One byte more is enough to be
/// wrong.
pub const MAX_SECRET: usize = 1025;

/// How long it may take to be accepted, and what needs no computation and no disk to be answered.
pub const SOON: Duration = Duration::from_secs(1);

/// How long a verdict about a password, or a change, may take. A try that has to wait because of earlier ones waits up
/// to 16 seconds, and a refusal is told up to four seconds after that.
pub const VERDICT: Duration = Duration::from_secs(25);

const MAGIC: [u8; 4] = *b"DPTQ";
const VERSION: u16 = 1;

/// A question about one account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query<'a> {
    /// The application.
    pub application: &'a str,
    /// The account.
    pub account: &'a str,
    /// The PAM service that asks.
    pub service: &'a str,
    /// Where the person is (`PAM_RHOST`), as far as the service says; tries are counted by it.
    pub origin: &'a str,
    /// What is asked.
    #[serde(borrow)]
    pub question: Question<'a>,
}

/// What is asked about an account.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question<'a> {
    /// Where it stands.
    Standing,
    /// Whether this is its password.
    Authenticate {
        /// It.
        password: &'a [u8],
    },
    /// A new password, for who knows the old one.
    ChangePassword {
        /// The old one.
        old: &'a [u8],
        /// The new one.
        new: &'a [u8],
    },
    /// A session.
    OpenSession {
        /// What [`QueryReply::Right`] gave; empty where something else authenticated the account, on root's word.
        ticket: &'a str,
    },
    /// The end of a session.
    CloseSession {
        /// Its path.
        session: &'a str,
    },
}

impl fmt::Debug for Question<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither passwords nor what opens a session.
        f.write_str(match self {
            Self::Standing => "Standing",
            Self::Authenticate { .. } => "Authenticate(..)",
            Self::ChangePassword { .. } => "ChangePassword(..)",
            Self::OpenSession { .. } => "OpenSession(..)",
            Self::CloseSession { .. } => "CloseSession(..)",
        })
    }
}

impl Question<'_> {
    /// How long an answer may take.
    pub fn patience(&self) -> Duration {
        match self {
            Self::Standing => SOON,
            _ => VERDICT,
        }
    }
}

/// What the daemon says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum QueryReply {
    /// Ask.
    Accepted,
    /// Where the account stands.
    Standing(Standing),
    /// The password is right, and the account may be used.
    Right {
        /// Opens one session, soon.
        ticket: String,
    },
    /// A session was opened.
    Opened {
        /// Its path.
        session: String,
    },
    /// It was done.
    Done,
    /// It was refused.
    Denied(Denial),
}

/// Where an account stands, by the daemon's word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Its status.
    pub status: Status,
    /// Its role in the whole application.
    pub role: String,
    /// Its password is a temporary one, or has expired.
    pub must_change: bool,
    /// The OS account that it is linked to, if the link is active.
    pub link: Option<OsIdentity>,
}

/// The packet of a question. It is wiped when dropped, and never moved to a larger place.
pub fn encode_query(query: &Query<'_>) -> Result<Zeroizing<Vec<u8>>, MessageError> {
    let mut packet = Zeroizing::new(vec![0; MAX_QUERY]);
    packet[..4].copy_from_slice(&MAGIC);
    packet[4..6].copy_from_slice(&VERSION.to_le_bytes());
    let used =
        postcard::to_slice(query, &mut packet[6..]).map_err(|_| MessageError::TooLong(MAX_QUERY))?.len();
    packet.truncate(6 + used);
    Ok(packet)
}

/// The question of a packet.
pub fn decode_query(packet: &[u8]) -> Result<Query<'_>, MessageError> {
    decode(packet)
}

/// The packet of a reply.
pub fn encode_reply(reply: &QueryReply) -> Result<Zeroizing<Vec<u8>>, MessageError> {
    let mut packet = Zeroizing::new(vec![0; MAX_QUERY]);
    packet[..4].copy_from_slice(&MAGIC);
    packet[4..6].copy_from_slice(&VERSION.to_le_bytes());
    let used =
        postcard::to_slice(reply, &mut packet[6..]).map_err(|_| MessageError::TooLong(MAX_QUERY))?.len();
    packet.truncate(6 + used);
    Ok(packet)
}

/// The reply of a packet.
pub fn decode_reply(packet: &[u8]) -> Result<QueryReply, MessageError> {
    decode(packet)
}

fn decode<'a, M: Deserialize<'a>>(packet: &'a [u8]) -> Result<M, MessageError> {
    if packet.len() > MAX_QUERY {
        return Err(MessageError::TooLong(packet.len()));
    }
    super::decode_of(packet, &MAGIC, VERSION)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn query(question: Question<'_>) -> Query<'_> {
        Query { application: "demo", account: "ann", service: "sshd", origin: "192.0.2.1", question }
    }

    #[test]
    fn questions_and_replies_survive_the_journey_and_nothing_else_does() {
        let long = [b'x'; MAX_SECRET];
        for question in [
            Question::Standing,
            Question::Authenticate { password: b"" },
            Question::ChangePassword { old: &long, new: &long },
            Question::OpenSession { ticket: "t" },
            Question::CloseSession { session: "/s" },
        ] {
            let packet = encode_query(&query(question)).unwrap();
            assert_eq!(decode_query(&packet).unwrap(), query(question));
            for length in 0..packet.len() {
                assert!(decode_query(&packet[..length]).is_err(), "{length} bytes of {question:?}");
            }
            let mut longer = packet.to_vec();
            longer.push(0);
            assert_eq!(decode_query(&longer), Err(MessageError::Trailing(1)));
            longer.pop();
            longer[4] = 2;
            assert_eq!(decode_query(&longer), Err(MessageError::Version(2)));
        }
        let reply = QueryReply::Denied(Denial::authentication_failed());
        assert_eq!(decode_reply(&encode_reply(&reply).unwrap()).unwrap(), reply);
        let huge = [b'x'; MAX_QUERY];
        assert!(encode_query(&query(Question::Authenticate { password: &huge })).is_err());
        assert!(decode_query(&huge).is_err());
    }

    #[test]
    fn no_secret_is_printed() {
        let shown = format!("{:?}", query(Question::ChangePassword { old: b"hunter2", new: b"hunter3" }));
        assert!(shown.contains("demo") && !shown.contains("hunter") && !shown.contains("104"), "{shown}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoders_panic(body in prop::collection::vec(any::<u8>(), 0..256)) {
            let mut packet = MAGIC.to_vec();
            packet.extend_from_slice(&VERSION.to_le_bytes());
            packet.extend_from_slice(&body);
            let _ = decode_query(&packet);
            let _ = decode_reply(&packet);
        }
    }
}
