//! `/run/deputyd/query.sock`: what `pam_deputy.so` asks.
//!
//! Who may ask is the kernel's word: root about any application, a service user about its own. Everybody else is
//! refused before a byte is read. A connection is for one question; `deputy_core::message::query` has the form.

mod answer;
pub mod tickets;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use deputy_core::message::query::{MAX_QUERY, QueryReply, decode_query, encode_reply};
use deputy_core::{Code, Denial};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, listen as listen_on,
    recv, send, socket_with,
};
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::daemon::Daemon;

/// How long a question may take to come once it was asked for.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 128;

/// How long nothing is accepted after a failure, of which the usual one is that there is no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// The listening socket. What a daemon before this one left there is replaced: the folder is the daemon's own.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    // Who connects is looked at for each connection; the mode keeps nobody out.
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    listen_on(&socket, BACKLOG)?;
    // tokio has no type for SEQPACKET sockets; only the readiness of its stream types is used.
    UnixListener::from_std(std::os::unix::net::UnixListener::from(socket))
}

/// Answers for as long as the daemon lives.
pub async fn serve(daemon: Arc<Daemon>, listener: UnixListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(converse(Arc::clone(&daemon), stream));
            }
            Err(error) => {
                tracing::warn!(%error, "a question of PAM could not be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// One connection. Who goes away is not missed.
async fn converse(daemon: Arc<Daemon>, stream: UnixStream) {
    let reply = match begin(&daemon, &stream) {
        Ok((uid, _place)) => {
            if tell(&stream, &QueryReply::Accepted).is_err() {
                return;
            }
            match timeout(PATIENCE, question(&stream)).await {
                Ok(Ok(Some(packet))) => reply_to(&daemon, uid, &packet).await,
                // It has gone, or says nothing.
                Ok(Ok(None) | Err(_)) | Err(_) => return,
            }
        }
        Err(denial) => QueryReply::Denied(denial),
    };
    let _ = tell(&stream, &reply);
}

/// Whether the peer may ask, and its place below the ceiling.
fn begin(daemon: &Daemon, stream: &UnixStream) -> Result<(u32, crate::limits::Place), Denial> {
    let uid = deputy_wire::peer(stream)?.uid;
    if uid != 0 && daemon.directory.snapshot().of_uid(uid).is_none() {
        daemon.store.count_stranger(Code::PeerNotAllowed);
        return Err(Denial::new(
            Code::PeerNotAllowed,
            "query.sock: root and service users",
            "only root and the service users of applications may ask about accounts",
        )
        .remedy("run the PAM service as root, or as the application's service user"));
    }
    Ok((uid, daemon.limits.queries.enter(uid)?))
}

async fn reply_to(daemon: &Daemon, uid: u32, packet: &[u8]) -> QueryReply {
    match decode_query(packet) {
        Ok(query) => answer::answer(daemon, uid, &query).await.unwrap_or_else(QueryReply::Denied),
        Err(error) => QueryReply::Denied(error.into()),
    }
}

/// The packet that asks, in memory that is wiped; none if the peer has gone.
async fn question(stream: &UnixStream) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    // One byte more: a packet that is cut is no packet.
    let mut bytes = Zeroizing::new(vec![0; MAX_QUERY + 1]);
    let length = stream
        .async_io(Interest::READABLE, || {
            let (_, length) = recv(stream, bytes.as_mut_slice(), RecvFlags::DONTWAIT)?;
            Ok(length)
        })
        .await?;
    bytes.truncate(length);
    Ok((length > 0).then_some(bytes))
}

/// One packet always fits into a new socket's buffer.
fn tell(stream: &UnixStream, reply: &QueryReply) -> io::Result<()> {
    let packet = encode_reply(reply).map_err(io::Error::other)?;
    send(stream, &packet, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
    Ok(())
}
