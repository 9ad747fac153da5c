//! The person's client at the other end of the conversation's socket.

use std::os::fd::OwnedFd;
use std::time::Instant;

use deputy_core::denial::{Code, Denial};
use deputy_core::ids::Nonce;
use deputy_core::message::ConverseRequest;
use deputy_core::message::conversation::{ClientFrame, Hello, ServerFrame};
use deputy_wire::WireError;
use rustix::net::{AddressFamily, SocketAddrAny, SocketAddrUnix, SocketType, sockopt};
use zeroize::Zeroizing;

/// The socket of the person's client.
pub struct PersonsClient {
    socket: OwnedFd,
    /// When it last said something: whoever takes his time over an answer learns no more from how long the refusal
    /// takes.
    pub latest: Instant,
}

fn aborted(message: impl Into<String>) -> Denial {
    Denial::new(Code::ConversationAborted, "conversation", message).remedy("begin again")
}

/// An unnamed socket looks to rustix like one with an empty abstract name, which nobody can bind.
fn is_named(address: Option<SocketAddrAny>) -> bool {
    address.and_then(|address| SocketAddrUnix::try_from(address).ok()).is_some_and(|address| {
        address.path_bytes().is_some() || address.abstract_name().is_some_and(|name| !name.is_empty())
    })
}

impl PersonsClient {
    /// Takes the socket if it is one that the application, the owner, or root made for this: an unnamed
    /// `AF_UNIX` `SOCK_SEQPACKET` one. The kernel keeps who made a pair (P37), so a socket that was connected to
    /// somebody else's service is noticed.
    pub fn new(socket: OwnedFd, service_uid: u32, owner_uid: Option<u32>) -> Result<Self, Denial> {
        let wrong = |message: &str| Denial::new(Code::BadMessage, "conversation socket", message);
        let kind = sockopt::socket_type(&socket).map_err(|_| wrong("the descriptor is not a socket"))?;
        let domain = sockopt::socket_domain(&socket).map_err(|_| wrong("the descriptor is not a socket"))?;
        if kind != SocketType::SEQPACKET || domain != AddressFamily::UNIX {
            return Err(wrong("the socket is not AF_UNIX SOCK_SEQPACKET"));
        }
        let own = rustix::net::getsockname(&socket).map_err(|_| wrong("the socket has no address"))?;
        let peers = rustix::net::getpeername(&socket).map_err(|_| wrong("the socket is not connected"))?;
        if is_named(Some(own)) || is_named(peers) {
            return Err(wrong("the socket is not one of an unnamed pair"));
        }
        let maker = deputy_wire::peer(&socket).map_err(|_| wrong("the socket has no peer"))?.uid;
        if maker != 0 && maker != service_uid && Some(maker) != owner_uid {
            return Err(wrong(
                "the socket was made by neither the application, nor the OS account's owner, nor root",
            ));
        }
        Ok(Self { socket, latest: Instant::now() })
    }

    /// Says what this conversation is, and waits until the client has said that it saw it.
    pub fn greet(&mut self, request: &ConverseRequest) -> Result<(), Denial> {
        let nonce = Nonce::from_random(crate::request::random()?);
        self.send(&ServerFrame::Hello(Hello {
            purpose: request.purpose,
            application: request.application.clone(),
            account: request.account.clone(),
            os_user: request.os_user.clone(),
            nonce: nonce.clone(),
        }));
        match self.receive()? {
            ClientFrame::Nonce(echo) if echo == nonce => Ok(()),
            _ => Err(aborted("the client did not echo the nonce of this conversation")),
        }
    }

    /// Sends a frame. A client that has gone is noticed when it should answer.
    pub fn send(&mut self, frame: &ServerFrame) {
        let _ = deputy_wire::send(&self.socket, &frame.encode(), &[]);
    }

    /// Asks, and waits for the answer.
    pub fn ask(&mut self, question: &ServerFrame) -> Result<Zeroizing<Vec<u8>>, Denial> {
        self.send(question);
        match self.receive()? {
            ClientFrame::Answer(answer) => Ok(answer),
            ClientFrame::Nonce(_) => Err(aborted("a frame came out of order")),
        }
    }

    fn receive(&mut self) -> Result<ClientFrame, Denial> {
        let packet = match deputy_wire::receive(&self.socket) {
            Ok(Some(packet)) => packet,
            Ok(None) => return Err(aborted("the client has gone")),
            Err(WireError::Io(error)) => return Err(aborted(format!("the client's socket failed: {error}"))),
            Err(error) => return Err(error.into()),
        };
        self.latest = Instant::now();
        // An answer is in there: wiped on every way out.
        let bytes = Zeroizing::new(packet.bytes);
        if !packet.descriptors.is_empty() {
            return Err(aborted("a frame brought descriptors"));
        }
        ClientFrame::decode(&bytes).map_err(|error| aborted(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{SocketFlags, bind, connect, listen, socket_with, socketpair};

    fn refused(socket: impl Into<OwnedFd>, service_uid: u32) -> bool {
        PersonsClient::new(socket.into(), service_uid, None).is_err()
    }

    #[test]
    fn only_an_unnamed_seqpacket_pair_of_somebody_entitled_will_do() {
        let me = rustix::process::getuid().as_raw();
        assert!(refused(std::fs::File::open("/dev/null").unwrap(), me));
        assert!(refused(std::os::unix::net::UnixStream::pair().unwrap().0, me));
        let datagrams =
            socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None).unwrap();
        assert!(refused(datagrams.0, me));
        let (ours, _theirs) = deputy_wire::pair().unwrap();
        // Root may hand over a pair for anybody.
        assert_eq!(refused(ours, me + 1), me != 0);
        let (ours, _theirs) = deputy_wire::pair().unwrap();
        assert!(!refused(ours, me));
    }

    #[test]
    fn a_socket_that_was_connected_to_a_service_is_refused() {
        let me = rustix::process::getuid().as_raw();
        let folder = tempfile::tempdir().unwrap();
        let address = SocketAddrUnix::new(folder.path().join("service")).unwrap();
        let socket =
            || socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let service = socket();
        bind(&service, &address).unwrap();
        listen(&service, 1).unwrap();
        let client = socket();
        connect(&client, &address).unwrap();
        assert!(refused(client, me));
        assert!(refused(socket(), me));
    }
}
