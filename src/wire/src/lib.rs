//! Packets between Deputy's processes: `AF_UNIX` `SOCK_SEQPACKET`, bounded, with descriptors and credentials.
//!
//! `SEQPACKET` keeps the borders of messages, so there is no framing to get wrong. A packet that was truncated, or
//! that brought more descriptors than expected, is refused whole. What does not fit into a packet travels in a fully
//! sealed memfd, so that it cannot change while it is read.
//!
//! [`packet`] serves both sides; [`conversation`] is the client's side of a conversation.
#![forbid(unsafe_code)]

pub mod conversation;
pub mod journal;
pub mod packet;

pub use packet::{
    Packet, Peer, WireError, connect, pair, peer, receive, receive_up_to, receive_with_sender, send,
};

/// Where the launcher answers `deputyd` and root.
pub const LAUNCHER_SOCKET: &str = "/run/deputy/launcher.sock";

/// Where the launcher's children answer the owner of an OS account.
pub const OWNER_SOCKET: &str = "/run/deputy/owner.sock";
