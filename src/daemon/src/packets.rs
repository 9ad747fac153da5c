//! Packets with descriptors, never waited for in a thread.
//!
//! tokio has no type for SEQPACKET sockets. Only the readiness of its stream type is used; the packets are
//! deputy-wire's.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use deputy_wire::{Packet, WireError, receive_up_to, send};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// One end of a connection.
#[derive(Debug)]
pub struct Packets(UnixStream);

impl Packets {
    /// Over a socket that does not wait.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self(UnixStream::from_std(socket.into())?))
    }

    /// Sends one.
    pub async fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), WireError> {
        // A new socket has room: only where it has none is readiness waited for.
        let mut sent = send(&self.0, bytes, descriptors);
        while sent.as_ref().is_err_and(WireError::would_block) {
            self.0.writable().await?;
            sent = self.attempt(Interest::WRITABLE, || send(&self.0, bytes, descriptors));
        }
        sent
    }

    /// The next one, with so many descriptors at most; `None` when the other end has closed.
    pub async fn next(&self, most: usize) -> Result<Option<Packet>, WireError> {
        loop {
            self.0.readable().await?;
            match self.attempt(Interest::READABLE, || receive_up_to(&self.0, most)) {
                Err(error) if error.would_block() => {}
                other => return other,
            }
        }
    }

    /// Tries, and takes note if the socket was not ready after all.
    fn attempt<T>(
        &self,
        interest: Interest,
        work: impl FnOnce() -> Result<T, WireError>,
    ) -> Result<T, WireError> {
        let tried = self.0.try_io(interest, || match work() {
            Err(error) if error.would_block() => Err(io::ErrorKind::WouldBlock.into()),
            other => Ok(other),
        });
        tried?
    }
}
