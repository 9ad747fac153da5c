//! The frames of a conversation, between the conversation process and the client's own socket.
//!
//! One packet is one frame: a letter, then bytes. Any language with `AF_UNIX` `SOCK_SEQPACKET` can speak it.
//!
//! | from | letter | bytes |
//! | --- | --- | --- |
//! | server | `H` | hello: version, purpose, application, account, OS account, nonce, with a NUL between them |
//! | client | `N` | the nonce of the hello |
//! | server | `P` | a question whose answer is not to be shown |
//! | server | `Q` | a question whose answer may be shown |
//! | server | `I` | information |
//! | server | `E` | an error, in words |
//! | client | `A` | the answer to the latest question |
//! | server | `S` | success: the end |
//! | server | `F` | failure: code, NUL, message, NUL, remedy: the end |
//!
//! Before it answers anything the client checks that the hello's kernel credentials (`SCM_CREDENTIALS`) say uid 0 and
//! that the purpose and the names are those it asked for, and shows them to the person.

use std::fmt;
use std::time::Duration;

use thiserror::Error;
use zeroize::Zeroizing;

use super::launcher::Purpose;
use crate::denial::{Code, Denial};
use crate::ids::Nonce;
use crate::names::{AccountName, ApplicationName, OsUserName};

/// The version of the frames.
pub const VERSION: &str = "1";

/// The most bytes of a frame.
pub const MAX_FRAME: usize = 8 * 1024;

/// The longest answer that is passed on to PAM (`PAM_MAX_RESP_SIZE` less its NUL).
pub const MAX_ANSWER: usize = 511;

/// A refusal is told no sooner than this after the latest answer, whatever the reason: longer than the random delay
/// that `pam_unix` adds to a wrong password (2 s, half more or less), so that reasons cannot be told apart by time.
pub const REFUSAL_TIME: Duration = Duration::from_millis(3_200);

/// What the conversation is for, in the first frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// What for.
    pub purpose: Purpose,
    /// For which application.
    pub application: ApplicationName,
    /// For which of its accounts.
    pub account: AccountName,
    /// Whose password.
    pub os_user: OsUserName,
    /// To be sent back.
    pub nonce: Nonce,
}

/// A frame that the conversation process sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerFrame {
    /// What this is.
    Hello(Hello),
    /// A question; the answer is not to be shown.
    Secret(String),
    /// A question; the answer may be shown.
    Visible(String),
    /// Information.
    Info(String),
    /// An error in words.
    Error(String),
    /// The end: it worked.
    Success,
    /// The end: it did not.
    Failure(Denial),
}

/// A frame that the client sends. Its `Debug` never shows an answer.
#[derive(PartialEq, Eq)]
pub enum ClientFrame {
    /// The hello was seen.
    Nonce(Nonce),
    /// The answer to the latest question.
    Answer(Zeroizing<Vec<u8>>),
}

impl fmt::Debug for ClientFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ClientFrame::Nonce(_) => "Nonce(..)",
            ClientFrame::Answer(_) => "Answer(..)",
        })
    }
}

/// A packet is not a frame.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("not a frame of a conversation: {0}")]
pub struct FrameError(&'static str);

impl ServerFrame {
    /// The frame's packet. Texts that PAM brings are cut at [`MAX_FRAME`].
    pub fn encode(&self) -> Vec<u8> {
        let (letter, body) = match self {
            ServerFrame::Hello(hello) => (
                b'H',
                [
                    VERSION,
                    hello.purpose.as_str(),
                    hello.application.as_str(),
                    hello.account.as_str(),
                    hello.os_user.as_str(),
                    hello.nonce.as_str(),
                ]
                .join("\0"),
            ),
            ServerFrame::Secret(text) => (b'P', text.clone()),
            ServerFrame::Visible(text) => (b'Q', text.clone()),
            ServerFrame::Info(text) => (b'I', text.clone()),
            ServerFrame::Error(text) => (b'E', text.clone()),
            ServerFrame::Success => (b'S', String::new()),
            ServerFrame::Failure(denial) => {
                (b'F', [denial.code.as_str(), &denial.message, &denial.remedy].join("\0"))
            }
        };
        let mut packet = Vec::with_capacity(body.len() + 1);
        packet.push(letter);
        packet.extend_from_slice(body.as_bytes());
        packet.truncate(MAX_FRAME);
        packet
    }

    /// The frame of a packet.
    pub fn decode(packet: &[u8]) -> Result<Self, FrameError> {
        let (&letter, body) = packet.split_first().ok_or(FrameError("empty"))?;
        if packet.len() > MAX_FRAME {
            return Err(FrameError("too long"));
        }
        let text = String::from_utf8_lossy(body).into_owned();
        match letter {
            b'H' => decode_hello(&text),
            b'P' => Ok(ServerFrame::Secret(text)),
            b'Q' => Ok(ServerFrame::Visible(text)),
            b'I' => Ok(ServerFrame::Info(text)),
            b'E' => Ok(ServerFrame::Error(text)),
            b'S' if text.is_empty() => Ok(ServerFrame::Success),
            b'F' => Ok(ServerFrame::Failure(decode_failure(&text))),
            _ => Err(FrameError("unknown letter")),
        }
    }
}

fn decode_hello(text: &str) -> Result<ServerFrame, FrameError> {
    let [version, purpose, application, account, os_user, nonce]: [&str; 6] =
        text.split('\0').collect::<Vec<_>>().try_into().map_err(|_| FrameError("a hello has six parts"))?;
    if version != VERSION {
        return Err(FrameError("another version"));
    }
    Ok(ServerFrame::Hello(Hello {
        purpose: match purpose {
            "login" => Purpose::Login,
            "link" => Purpose::Link,
            _ => return Err(FrameError("unknown purpose")),
        },
        application: application.parse().map_err(|_| FrameError("application"))?,
        account: account.parse().map_err(|_| FrameError("account"))?,
        os_user: os_user.parse().map_err(|_| FrameError("OS account"))?,
        nonce: nonce.parse().map_err(|_| FrameError("nonce"))?,
    }))
}

fn decode_failure(text: &str) -> Denial {
    let mut parts = text.split('\0');
    let mut next = || parts.next().unwrap_or_default().to_owned();
    let code = next();
    let code = Code::ALL.iter().copied().find(|known| known.as_str() == code).unwrap_or(Code::Internal);
    Denial::new(code, "conversation", next()).remedy(next())
}

impl ClientFrame {
    /// The frame's packet; wiped when dropped.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let (letter, body) = match self {
            ClientFrame::Nonce(nonce) => (b'N', nonce.as_str().as_bytes()),
            ClientFrame::Answer(answer) => (b'A', answer.as_slice()),
        };
        // The exact capacity: growing would leave a copy behind.
        let mut packet = Zeroizing::new(Vec::with_capacity(body.len() + 1));
        packet.push(letter);
        packet.extend_from_slice(body);
        packet
    }

    /// The frame of a packet.
    pub fn decode(packet: &[u8]) -> Result<Self, FrameError> {
        let (&letter, body) = packet.split_first().ok_or(FrameError("empty"))?;
        match letter {
            b'N' => {
                let text = std::str::from_utf8(body).map_err(|_| FrameError("nonce"))?;
                Ok(ClientFrame::Nonce(text.parse().map_err(|_| FrameError("nonce"))?))
            }
            b'A' if body.len() > MAX_ANSWER => Err(FrameError("the answer is too long")),
            b'A' if body.contains(&0) => Err(FrameError("the answer contains a NUL")),
            b'A' => Ok(ClientFrame::Answer(Zeroizing::new(body.to_vec()))),
            _ => Err(FrameError("unknown letter")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            purpose: Purpose::Link,
            application: ApplicationName::new("demo").unwrap(),
            account: AccountName::new("alice@lab.example").unwrap(),
            os_user: OsUserName::new("ann").unwrap(),
            nonce: Nonce::from_random([3; 20]),
        }
    }

    #[test]
    fn frames_survive_the_journey() {
        for frame in [
            ServerFrame::Hello(hello()),
            ServerFrame::Secret("Password: ".into()),
            ServerFrame::Visible("One-time code: ".into()),
            ServerFrame::Info("hello".into()),
            ServerFrame::Error("no".into()),
            ServerFrame::Success,
        ] {
            assert_eq!(ServerFrame::decode(&frame.encode()), Ok(frame));
        }
        let failure = ServerFrame::Failure(Denial::authentication_failed());
        let Ok(ServerFrame::Failure(denial)) = ServerFrame::decode(&failure.encode()) else { panic!() };
        assert_eq!(denial.code, Code::AuthenticationFailed);
    }

    #[test]
    fn what_is_not_a_frame_is_refused() {
        let hello = ServerFrame::Hello(hello()).encode();
        let text = String::from_utf8(hello).unwrap();
        for changed in [
            String::new(),
            "X".into(),
            text.replace("H1\0", "H2\0"),
            text.replace("\0link\0", "\0root\0"),
            text.replace("\0demo\0", "\0../x\0"),
            format!("{text}\0more"),
            text[..text.len() - 1].into(),
        ] {
            assert!(ServerFrame::decode(changed.as_bytes()).is_err(), "{changed:?}");
        }
        for packet in [&b""[..], b"N", b"Nshort", b"X", b"Aa\0b", &[b'A'; MAX_ANSWER + 2]] {
            assert!(ClientFrame::decode(packet).is_err(), "{packet:?}");
        }
    }

    #[test]
    fn answers_are_not_printed() {
        let frame = ClientFrame::Answer(Zeroizing::new(b"hunter2".to_vec()));
        assert!(!format!("{frame:?}").contains("hunter2"));
    }
}
