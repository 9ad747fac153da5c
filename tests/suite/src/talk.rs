//! The person's side of a conversation, honest or not.

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use deputy_core::message::conversation::{ClientFrame, Hello, ServerFrame};
use deputy_core::message::{ConverseRequest, LauncherReply, LauncherRequest, Purpose, encode};
use deputy_wire::{pair, receive_with_sender};
use rustix::net::SendFlags;
use rustix::net::sockopt::{Timeout, set_socket_passcred, set_socket_timeout};
use zeroize::Zeroizing;

use crate::acting::{acting_as, ids};
use crate::line::Line;
use crate::requests::{account, app};

/// A conversation that a taken-over daemon asked for.
#[derive(Debug)]
pub struct Talk {
    client: OwnedFd,
    daemon: Line,
    /// Every packet that came, in order.
    pub packets: Vec<Vec<u8>>,
}

/// What came of a conversation.
#[derive(Debug)]
pub struct Outcome {
    /// What the client was sent after the hello, to the last byte.
    pub packets: Vec<Vec<u8>>,
    /// What the daemon was told.
    pub reply: Option<LauncherReply>,
}

impl Outcome {
    /// The code with which the daemon was refused.
    pub fn code(&self) -> Option<deputy_core::Code> {
        match &self.reply {
            Some(LauncherReply::Denied(denial)) => Some(denial.code),
            _ => None,
        }
    }

    /// Whether both sides were told of success.
    pub fn is_success(&self) -> bool {
        matches!(self.reply, Some(LauncherReply::Authenticated(_)))
            && self.packets.last() == Some(&ServerFrame::Success.encode())
    }

    /// How often something was asked.
    pub fn questions(&self) -> usize {
        self.packets.iter().filter(|packet| matches!(packet.first(), Some(b'P' | b'Q'))).count()
    }
}

/// A conversation to be asked for.
pub fn wanted(purpose: Purpose, application: &str, account_name: &str, os_user: &str) -> ConverseRequest {
    ConverseRequest {
        purpose,
        application: app(application),
        account: account(account_name),
        os_user: os_user.parse().expect("the name of an OS account"),
    }
}

impl Talk {
    /// The pair is the application's, the request the daemon's.
    pub fn begin(request: &ConverseRequest) -> Self {
        let maker = if request.application.as_str() == "other" { "otherportal" } else { "portal" };
        Self::begin_with_pair_of(maker, request)
    }

    /// The same with a pair that somebody else made.
    pub fn begin_with_pair_of(maker: &str, request: &ConverseRequest) -> Self {
        let (client, server) = acting_as(ids(maker), pair).expect("a pair");
        Self::begin_with(client, &server, request)
    }

    /// The same with any two ends.
    pub fn begin_with(client: OwnedFd, server: &OwnedFd, request: &ConverseRequest) -> Self {
        set_socket_passcred(&client, true).expect("SO_PASSCRED");
        set_socket_timeout(&client, Timeout::Recv, Some(Duration::from_secs(120))).expect("a time limit");
        let daemon = Line::to_launcher(ids("deputy")).expect("the launcher's socket");
        let packet = encode(&LauncherRequest::Converse(request.clone())).expect("a message");
        daemon.send(&packet, &[server.as_fd()]);
        Self { client, daemon, packets: Vec::new() }
    }

    /// The next frame; none when the other end has closed. That each was sent by root is checked on the way.
    pub fn frame(&mut self) -> Option<ServerFrame> {
        let (packet, sender) = match receive_with_sender(&self.client) {
            Ok(Some(received)) => received,
            Ok(None) => return None,
            Err(error) => panic!("no frame: {error}"),
        };
        assert_eq!(sender.map(|sender| sender.uid), Some(0), "a frame that is not root's");
        self.packets.push(packet.bytes.clone());
        Some(ServerFrame::decode(&packet.bytes).expect("a frame"))
    }

    /// The hello, which has to be the first frame.
    pub fn hello(&mut self) -> Hello {
        assert!(self.packets.is_empty(), "the hello is the first frame");
        match self.frame() {
            Some(ServerFrame::Hello(hello)) => hello,
            other => panic!("not a hello: {other:?}, {:?}", self.daemon.next::<LauncherReply>()),
        }
    }

    /// Receives the hello and sends its nonce back.
    pub fn greet(&mut self) {
        let nonce = self.hello().nonce;
        self.send(&ClientFrame::Nonce(nonce).encode());
    }

    /// Sends any bytes as one packet.
    pub fn send(&self, bytes: &[u8]) {
        match rustix::net::send(&self.client, bytes, SendFlags::NOSIGNAL) {
            Ok(_) | Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => {}
            Err(errno) => panic!("sending {} bytes: {errno}", bytes.len()),
        }
    }

    /// Answers the latest question.
    pub fn answer(&self, answer: &str) {
        self.send(&ClientFrame::Answer(Zeroizing::new(answer.as_bytes().to_vec())).encode());
    }

    /// Goes on to the end without another word.
    pub fn end(mut self) -> Outcome {
        while self.frame().is_some() {}
        self.outcome()
    }

    /// Closes the client's end.
    pub fn vanish(self) -> Outcome {
        let Self { client, daemon, packets } = self;
        drop(client);
        Outcome { packets, reply: daemon.next() }
    }

    /// Answers each question with the first answer whose word it contains, until the end.
    pub fn answer_all(mut self, answers: &[(&str, &str)]) -> Outcome {
        while let Some(frame) = self.frame() {
            let (ServerFrame::Secret(question) | ServerFrame::Visible(question)) = frame else { continue };
            let found = answers.iter().find(|(word, _)| question.contains(word));
            let (_, answer) = found.unwrap_or_else(|| panic!("no answer to {question:?}"));
            self.answer(answer);
        }
        self.outcome()
    }

    fn outcome(self) -> Outcome {
        let packets = self.packets.into_iter().filter(|packet| packet.first() != Some(&b'H')).collect();
        Outcome { packets, reply: self.daemon.next() }
    }
}

/// A whole conversation of an honest client.
pub fn converse(request: &ConverseRequest, answers: &[(&str, &str)]) -> Outcome {
    let mut talk = Talk::begin(request);
    talk.greet();
    talk.answer_all(answers)
}

/// One with a password alone.
pub fn log_in(request: &ConverseRequest, password: &str) -> Outcome {
    converse(request, &[("", password)])
}
