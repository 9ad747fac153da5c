//! The client's side of a conversation: who is speaking is checked before the first answer leaves.

use std::os::fd::OwnedFd;
use std::time::Duration;

use deputy_core::denial::Denial;
use deputy_core::ids::Nonce;
use deputy_core::message::Purpose;
use deputy_core::message::conversation::{ClientFrame, FrameError, Hello, ServerFrame};
use deputy_core::names::{AccountName, ApplicationName, OsUserName};
use rustix::net::sockopt;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::packet::{WireError, pair, receive_with_sender, send};

/// Why the client ended a conversation.
#[derive(Debug, Error)]
pub enum ConversationError {
    /// The socket failed.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A packet was not a frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The first frame was not sent by a process of root's.
    #[error("the other end is not Deputy: its frame came from uid {0:?}, not from root; no answer was sent")]
    Forged(Option<u32>),
    /// The first frame is about something else than was asked for.
    #[error("this conversation is for {got}, not for {wanted}; no answer was sent")]
    NotWhatWasAsked {
        /// What the hello said.
        got: String,
        /// What was asked for.
        wanted: String,
    },
    /// A frame came that has no place here.
    #[error("a frame came out of order")]
    OutOfOrder,
    /// The other end closed the socket before the end.
    #[error("the conversation ended before its end")]
    Ended,
    /// The end: refused.
    #[error("{}", .0.message)]
    Denied(Denial),
}

/// What the client asked for; the hello has to say the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// What for.
    pub purpose: Purpose,
    /// For which application.
    pub application: ApplicationName,
    /// For which of its accounts.
    pub account: AccountName,
    /// Whose password; none where the client does not know it.
    pub os_user: Option<OsUserName>,
}

/// What comes next in a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// A question whose answer is not to be shown.
    Secret(String),
    /// A question whose answer may be shown.
    Visible(String),
    /// Something to show.
    Info(String),
    /// Something to show as an error.
    Error(String),
    /// The end: it worked.
    Success,
}

/// The client's end of a conversation.
pub struct Client {
    socket: OwnedFd,
    expected: Expected,
    nonce: Option<Nonce>,
}

impl Client {
    /// Makes the pair of sockets: the client's end, and the end to hand to `Authentication.Begin`.
    pub fn new(expected: Expected) -> Result<(Self, OwnedFd), WireError> {
        let (ours, theirs) = pair()?;
        sockopt::set_socket_passcred(&ours, true)?;
        let client = Self { socket: ours, expected, nonce: None };
        client.wait_at_most(Duration::from_secs(130))?;
        Ok((client, theirs))
    }

    /// How long each frame may take from now on.
    pub fn wait_at_most(&self, time: Duration) -> Result<(), WireError> {
        Ok(sockopt::set_socket_timeout(&self.socket, sockopt::Timeout::Recv, Some(time))?)
    }

    /// Waits for the hello and checks that it comes from root and says what was asked for. What it returns is to be
    /// shown to the person.
    pub fn hello(&mut self) -> Result<Hello, ConversationError> {
        let (frame, sender) = self.frame()?;
        if sender != Some(0) {
            return Err(ConversationError::Forged(sender));
        }
        let hello = match frame {
            ServerFrame::Hello(hello) if self.nonce.is_none() => hello,
            ServerFrame::Failure(denial) => return Err(ConversationError::Denied(denial)),
            _ => return Err(ConversationError::OutOfOrder),
        };
        let same = hello.purpose == self.expected.purpose
            && hello.application == self.expected.application
            && hello.account == self.expected.account
            && self.expected.os_user.as_ref().is_none_or(|wanted| *wanted == hello.os_user);
        if !same {
            let say = |purpose: Purpose, application: &ApplicationName, account: &AccountName| {
                format!("{} of {account} in {application}", purpose.as_str())
            };
            return Err(ConversationError::NotWhatWasAsked {
                got: say(hello.purpose, &hello.application, &hello.account),
                wanted: say(self.expected.purpose, &self.expected.application, &self.expected.account),
            });
        }
        self.nonce = Some(hello.nonce.clone());
        Ok(hello)
    }

    /// Tells the other end that the person has seen what this is for; the questions follow.
    pub fn accept(&mut self) -> Result<(), ConversationError> {
        let nonce = self.nonce.clone().ok_or(ConversationError::OutOfOrder)?;
        Ok(send(&self.socket, &ClientFrame::Nonce(nonce).encode(), &[])?)
    }

    /// Waits for what comes next. Each frame has to come from root; a second hello ends the conversation.
    #[expect(
        clippy::should_implement_trait,
        reason = "a conversation is not an iterator: it needs answers in between"
    )]
    pub fn next(&mut self) -> Result<Turn, ConversationError> {
        if self.nonce.is_none() {
            return Err(ConversationError::OutOfOrder);
        }
        let (frame, sender) = self.frame()?;
        if sender != Some(0) {
            return Err(ConversationError::Forged(sender));
        }
        match frame {
            ServerFrame::Secret(text) => Ok(Turn::Secret(text)),
            ServerFrame::Visible(text) => Ok(Turn::Visible(text)),
            ServerFrame::Info(text) => Ok(Turn::Info(text)),
            ServerFrame::Error(text) => Ok(Turn::Error(text)),
            ServerFrame::Success => Ok(Turn::Success),
            ServerFrame::Failure(denial) => Err(ConversationError::Denied(denial)),
            ServerFrame::Hello(_) => Err(ConversationError::OutOfOrder),
        }
    }

    /// Answers the latest question.
    pub fn answer(&mut self, answer: Zeroizing<Vec<u8>>) -> Result<(), ConversationError> {
        if self.nonce.is_none() {
            return Err(ConversationError::OutOfOrder);
        }
        Ok(send(&self.socket, &ClientFrame::Answer(answer).encode(), &[])?)
    }

    fn frame(&mut self) -> Result<(ServerFrame, Option<u32>), ConversationError> {
        let (packet, sender) = receive_with_sender(&self.socket)?.ok_or(ConversationError::Ended)?;
        Ok((ServerFrame::decode(&packet.bytes)?, sender.map(|sender| sender.uid)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected() -> Expected {
        Expected {
            purpose: Purpose::Login,
            application: ApplicationName::new("demo").unwrap(),
            account: AccountName::new("alice").unwrap(),
            os_user: Some(OsUserName::new("ann").unwrap()),
        }
    }

    fn hello(purpose: Purpose, account: &str) -> ServerFrame {
        ServerFrame::Hello(Hello {
            purpose,
            application: ApplicationName::new("demo").unwrap(),
            account: AccountName::new(account).unwrap(),
            os_user: OsUserName::new("ann").unwrap(),
            nonce: Nonce::from_random([9; 20]),
        })
    }

    /// Root can only be played by root; what depends on it is tested where the tests run as root.
    fn is_root() -> bool {
        rustix::process::getuid().is_root()
    }

    #[test]
    fn a_hello_about_something_else_gets_no_answer() {
        for frame in [hello(Purpose::Link, "alice"), hello(Purpose::Login, "bob")] {
            let (mut client, server) = Client::new(expected()).unwrap();
            send(&server, &frame.encode(), &[]).unwrap();
            match client.hello() {
                Err(ConversationError::NotWhatWasAsked { .. }) => assert!(is_root()),
                Err(ConversationError::Forged(_)) => assert!(!is_root()),
                other => panic!("{other:?}"),
            }
            assert!(matches!(client.accept(), Err(ConversationError::OutOfOrder)));
            assert!(matches!(client.answer(Zeroizing::new(vec![1])), Err(ConversationError::OutOfOrder)));
        }
    }

    #[test]
    fn a_question_before_the_hello_ends_the_conversation() {
        let (mut client, server) = Client::new(expected()).unwrap();
        send(&server, &ServerFrame::Secret("Password: ".into()).encode(), &[]).unwrap();
        assert!(matches!(client.hello(), Err(ConversationError::OutOfOrder | ConversationError::Forged(_))));
        assert!(matches!(client.next(), Err(ConversationError::OutOfOrder)));
    }

    #[test]
    fn the_end_of_the_socket_is_not_the_end_of_the_conversation() {
        let (mut client, server) = Client::new(expected()).unwrap();
        drop(server);
        assert!(matches!(client.hello(), Err(ConversationError::Ended)));
    }
}
