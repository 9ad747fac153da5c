//! Asking the launcher: one connection for each request, never waiting in a thread.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use deputy_core::message::job::{JOB_VERSION, decode_reply, encode_command};
use deputy_core::message::{
    self, FileReply, FileRequest, JobCommand, LauncherReply, LauncherRequest, MAX_OPEN,
};
use deputy_core::{Code, Denial};
use deputy_wire::packet::MAX_DESCRIPTORS;
use deputy_wire::{WireError, peer};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use thiserror::Error;
use tokio::time::{Instant, sleep, timeout};

use crate::packets::Packets;

/// How long the launcher may take to take a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// How long a child may take over something that is no login and no launch.
pub const ANSWER: Duration = Duration::from_secs(20);

/// How long a launch may take: PAM modules may mount home directories.
pub const LAUNCH: Duration = Duration::from_secs(90);

/// How long a conversation may take, with the launcher's own limit inside.
pub const CONVERSATION: Duration = Duration::from_secs(150);

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum LauncherError {
    /// No connection: nothing was asked.
    #[error("the launcher cannot be reached: {0}")]
    Unreachable(WireError),
    /// The connection broke after the request may have been read.
    #[error("the launcher's child did not answer: {0}")]
    Broken(WireError),
    /// The connection was closed without an answer.
    #[error("the launcher's child ended without an answer")]
    Ended,
    /// No answer in time.
    #[error("the launcher's child did not answer in time")]
    TimedOut,
    /// It said no.
    #[error("{}", .0.message)]
    Denied(Denial),
    /// It said something that is no answer to this.
    #[error("the launcher's child gave an answer that does not belong to the request")]
    Foreign,
}

impl LauncherError {
    /// Whether the request certainly had no effect.
    pub fn had_no_effect(&self) -> bool {
        matches!(self, LauncherError::Unreachable(_) | LauncherError::Denied(_))
    }
}

impl From<LauncherError> for Denial {
    fn from(error: LauncherError) -> Self {
        match error {
            LauncherError::Denied(denial) => denial,
            other => Denial::new(Code::LauncherUnavailable, "launcher", other.to_string())
                .remedy("look at deputy-launcher.service (or its socket) and at the journal of both daemons"),
        }
    }
}

/// Where the launcher listens.
#[derive(Debug, Clone)]
pub struct Launcher {
    path: PathBuf,
}

impl Launcher {
    /// At this socket.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Asks for one answer.
    pub async fn ask(
        &self,
        request: &LauncherRequest,
        descriptors: &[BorrowedFd<'_>],
        wait: Duration,
    ) -> Result<LauncherReply, LauncherError> {
        let channel = self.request(request, descriptors).await?;
        match timeout(wait, channel.reply()).await {
            Err(_) => Err(LauncherError::TimedOut),
            Ok(reply) => reply?.ok_or(LauncherError::Ended),
        }
    }

    /// Asks for one answer that brings descriptors.
    pub async fn ask_for_descriptors(
        &self,
        request: &LauncherRequest,
        wait: Duration,
    ) -> Result<(LauncherReply, Vec<OwnedFd>), LauncherError> {
        let channel = self.request(request, &[]).await?;
        match timeout(wait, channel.reply_with_descriptors()).await {
            Err(_) => Err(LauncherError::TimedOut),
            Ok(reply) => reply?.ok_or(LauncherError::Ended),
        }
    }

    /// Asks, and leaves the connection open for more.
    pub async fn request(
        &self,
        request: &LauncherRequest,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Channel, LauncherError> {
        let channel = self.open().await?;
        channel.request(request, descriptors).await?;
        Ok(channel)
    }

    /// Connects, for a request that is still to come: the launcher's child waits for it some seconds. What has to be
    /// waited for before it may be sent goes on beside the fork.
    pub async fn open(&self) -> Result<Channel, LauncherError> {
        let socket = self.connect().await.map_err(LauncherError::Unreachable)?;
        // The folder is root's, so nobody else can listen there; this says so again, cheaply. The daemon's own uid is
        // a double's in tests, and gains nobody anything.
        let listener = peer(&socket).map_err(LauncherError::Unreachable)?;
        if listener.uid != 0 && listener.uid != rustix::process::geteuid().as_raw() {
            let error = io::Error::new(io::ErrorKind::PermissionDenied, "its socket is not root's");
            return Err(LauncherError::Unreachable(error.into()));
        }
        Channel::new(socket).map_err(|error| LauncherError::Unreachable(error.into()))
    }

    async fn connect(&self) -> Result<OwnedFd, WireError> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        let address = SocketAddrUnix::new(&self.path)?;
        let deadline = Instant::now() + CONNECT;
        let mut pause = Duration::from_micros(200);
        loop {
            match connect(&socket, &address) {
                Ok(()) => return Ok(socket),
                // The backlog is full, and a unix socket does not tell when it no longer is.
                Err(Errno::AGAIN) if Instant::now() < deadline => {
                    sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_millis(50));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// A connection on which a request was sent.
#[derive(Debug)]
pub struct Channel {
    packets: Packets,
    /// The version in which a job's shepherd speaks here, and is spoken to. It always speaks first.
    job_version: AtomicU16,
}

impl Channel {
    fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { packets: Packets::new(socket)?, job_version: AtomicU16::new(JOB_VERSION) })
    }

    /// Sends the request that the connection is for.
    pub async fn request(
        &self,
        request: &LauncherRequest,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), LauncherError> {
        let bytes = message::encode(request).map_err(|error| LauncherError::Denied(error.into()))?;
        self.packets.send(&bytes, descriptors).await.map_err(LauncherError::Broken)
    }

    /// Sends a command to the job's shepherd.
    pub async fn command(&self, command: JobCommand) -> Result<(), LauncherError> {
        let bytes = encode_command(command, self.job_version.load(Ordering::Relaxed))
            .map_err(|error| LauncherError::Denied(error.into()))?;
        self.packets.send(&bytes, &[]).await.map_err(LauncherError::Broken)
    }

    /// The next answer; `None` when the other end has closed. A denial is an error.
    pub async fn reply(&self) -> Result<Option<LauncherReply>, LauncherError> {
        Ok(self.reply_with_descriptors().await?.map(|(reply, _)| reply))
    }

    /// Sends a file agent's next call, with the pipe that a long one writes to.
    pub async fn ask_agent(
        &self,
        request: &FileRequest,
        pipe: Option<BorrowedFd<'_>>,
    ) -> Result<(), LauncherError> {
        let bytes = message::encode(request).map_err(|error| LauncherError::Denied(error.into()))?;
        let descriptors: Vec<_> = pipe.into_iter().collect();
        self.packets.send(&bytes, &descriptors).await.map_err(LauncherError::Broken)
    }

    /// A file agent's next answer; `None` when it has ended.
    pub async fn agents_answer(&self) -> Result<Option<(FileReply, Vec<OwnedFd>)>, LauncherError> {
        let came = self.packets.next(MAX_OPEN).await.map_err(LauncherError::Broken)?;
        let Some(packet) = came else { return Ok(None) };
        match message::decode(&packet.bytes) {
            Ok(reply) => Ok(Some((reply, packet.descriptors))),
            Err(error) => Err(LauncherError::Broken(error.into())),
        }
    }

    async fn reply_with_descriptors(&self) -> Result<Option<(LauncherReply, Vec<OwnedFd>)>, LauncherError> {
        let came = self.packets.next(MAX_DESCRIPTORS).await.map_err(LauncherError::Broken)?;
        let Some(packet) = came else { return Ok(None) };
        match decode_reply(&packet.bytes) {
            Ok((LauncherReply::Denied(denial), _)) => Err(LauncherError::Denied(denial)),
            Ok((reply, version)) => {
                self.job_version.store(version, Ordering::Relaxed);
                Ok(Some((reply, packet.descriptors)))
            }
            Err(error) => Err(LauncherError::Broken(error.into())),
        }
    }
}

/// A scripted launcher for tests.
#[cfg(test)]
pub mod double {
    use super::*;
    use deputy_wire::{receive, send};
    use rustix::net::{accept, bind, listen};
    use std::sync::Arc;

    /// What a test does with one connection: the request, its descriptors, and the socket to answer on.
    pub type Script = dyn Fn(LauncherRequest, Vec<OwnedFd>, OwnedFd) + Send + Sync;

    /// A launcher that answers as the script says; each connection has a thread. It lives as long as the folder.
    pub fn launcher(
        folder: &std::path::Path,
        script: impl Fn(LauncherRequest, Vec<OwnedFd>, OwnedFd) + Send + Sync + 'static,
    ) -> Launcher {
        let path = folder.join("launcher.sock");
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        bind(&socket, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        listen(&socket, 64).unwrap();
        let script: Arc<Script> = Arc::new(script);
        std::thread::spawn(move || {
            while let Ok(connection) = accept(&socket) {
                let script = Arc::clone(&script);
                std::thread::spawn(move || {
                    let Ok(Some(packet)) = receive(&connection) else { return };
                    script(message::decode(&packet.bytes).unwrap(), packet.descriptors, connection);
                });
            }
        });
        Launcher::new(path)
    }

    /// Sends an answer with descriptors.
    pub fn answer_with(socket: &OwnedFd, reply: &LauncherReply, descriptors: &[BorrowedFd<'_>]) {
        let _ = send(socket, &message::encode(reply).unwrap(), descriptors);
    }

    /// Sends an answer.
    pub fn answer(socket: &OwnedFd, reply: &LauncherReply) {
        let _ = send(socket, &message::encode(reply).unwrap(), &[]);
    }
}

#[cfg(test)]
mod tests {
    use super::double::{answer, launcher};
    use super::*;
    use deputy_core::JobId;
    use deputy_wire::send;

    fn request() -> LauncherRequest {
        LauncherRequest::Abandon { job: JobId::from_random([1; 10]) }
    }

    #[tokio::test]
    async fn nobody_there_is_a_denial_with_a_remedy() {
        let error = Launcher::new("/nonexistent/x.sock").ask(&request(), &[], ANSWER).await.unwrap_err();
        assert!(error.had_no_effect());
        let denial = Denial::from(error);
        assert_eq!(denial.code, Code::LauncherUnavailable);
        assert!(!denial.remedy.is_empty());
    }

    #[tokio::test]
    async fn an_end_silence_or_rubbish_is_not_an_answer() {
        let folder = tempfile::tempdir().unwrap();
        let ended = launcher(folder.path(), |_, _, _| {});
        let error = ended.ask(&request(), &[], ANSWER).await.unwrap_err();
        assert!(matches!(error, LauncherError::Ended | LauncherError::Broken(_)), "{error:?}");
        assert!(!error.had_no_effect());

        let folder = tempfile::tempdir().unwrap();
        let silent = launcher(folder.path(), |_, _, socket| {
            std::thread::sleep(Duration::from_millis(500));
            drop(socket);
        });
        let error = silent.ask(&request(), &[], Duration::from_millis(20)).await.unwrap_err();
        assert!(matches!(error, LauncherError::TimedOut));

        let folder = tempfile::tempdir().unwrap();
        let rubbish = launcher(folder.path(), |_, _, socket| send(&socket, b"DPTY", &[]).unwrap());
        assert!(matches!(rubbish.ask(&request(), &[], ANSWER).await.unwrap_err(), LauncherError::Broken(_)));
    }

    #[tokio::test]
    async fn a_refusal_keeps_its_code() {
        let folder = tempfile::tempdir().unwrap();
        let no = launcher(folder.path(), |_, _, socket| {
            answer(&socket, &LauncherReply::Denied(Denial::new(Code::JobExists, "job", "it has started")));
        });
        let error = no.ask(&request(), &[], ANSWER).await.unwrap_err();
        assert_eq!(Denial::from(error).code, Code::JobExists);
    }
}
