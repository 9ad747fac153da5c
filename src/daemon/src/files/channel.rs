//! `Files.Channel`: files by the hundred thousand, without the bus between.
//!
//! The bus takes 16 descriptors in a message and copies each message twice. A channel is a socket between the
//! application and this process instead. Nothing else is different: each request is decided, done, looked at and counted
//! as a call of `Files.OpenMany`, so that a channel is no right that was given away, but another way to ask.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use deputy_core::Denial;
use deputy_core::message::{IDLE_SECONDS, MAX_OPEN, OpenHow};
use deputy_wire::{Packet, WireError};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::net::sockopt::set_socket_send_buffer_size;
use serde::Serialize;
use tokio::time::timeout;

use super::many::{self, Opened};
use super::{Asked, calls, ready};
use crate::authority::{Call, Granted};
use crate::bus::options::Options;
use crate::bus::router;
use crate::limits::Place;
use crate::packets::Packets;

/// For how long a channel waits for a request: as long as an agent.
const IDLE: Duration = Duration::from_secs(IDLE_SECONDS as u64);

/// For how long the application may leave so many answers unread that no more fits.
const PATIENCE: Duration = Duration::from_secs(20);

/// The most bytes of an answer, and what the socket is told to hold; the kernel doubles it. Descriptors in answers that
/// nobody reads count against those that this process may have open, so that there must not be many of them.
const MAX_ANSWER: usize = 8 * 1024;

/// An answer that says why something was not opened.
#[derive(Serialize)]
struct Refusal<'a> {
    error: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    remedy: &'a str,
}

/// An answer with something for each path.
#[derive(Serialize)]
struct Results<'a> {
    results: Vec<Option<Refusal<'a>>>,
}

/// `Files.Channel`.
pub async fn channel(
    call: Call,
    (subject, mut options): (String, Options),
) -> Result<Granted<(zbus::OwnedFd,)>, Denial> {
    let how = calls::how(&mut options)?;
    let asked = Asked::take(options)?;
    // What would be refused of every request is refused at once.
    let ready = ready(&call, &subject, asked.clone()).await?;
    let place = call.daemon.limits.channels.enter(call.caller.uid)?;
    let (packets, theirs) = pair().map_err(|error| Denial::internal(format!("a channel: {error}")))?;
    let channel = Channel { call, subject, asked, how, packets, _place: place };
    tokio::spawn(channel.serve());
    Ok(ready.grant.answer((theirs.into(),)))
}

/// Our end, and the application's.
fn pair() -> Result<(Packets, OwnedFd), WireError> {
    let (ours, theirs) = deputy_wire::pair()?;
    set_socket_send_buffer_size(&ours, MAX_ANSWER)?;
    // Only our end: the two are descriptions of their own.
    fcntl_setfl(&ours, OFlags::NONBLOCK)?;
    Ok((Packets::new(ours)?, theirs))
}

struct Channel {
    call: Call,
    subject: String,
    asked: Asked,
    how: OpenHow,
    packets: Packets,
    _place: Place,
}

impl Channel {
    /// Answers until the other end is closed, or nothing is asked for too long, or something is refused.
    async fn serve(self) {
        loop {
            let request = match timeout(IDLE, self.packets.next(0)).await {
                Ok(Ok(Some(packet))) => Ok(packet),
                Ok(Err(error)) => Err(error.into()),
                Ok(Ok(None)) | Err(_) => return,
            };
            let opened = match request {
                Ok(packet) => self.open(packet).await,
                Err(denial) => Err(denial),
            };
            let told = match &opened {
                Ok(opened) => self.tell(&results(&opened.results), &opened.files).await,
                Err(denial) => {
                    router::record(&self.call, denial);
                    self.tell(&to_json(&refusal(denial, true)), &[]).await
                }
            };
            if opened.is_err() || !told {
                return;
            }
        }
    }

    /// Decides about a request, and does it.
    async fn open(&self, packet: Packet) -> Result<Opened, Denial> {
        let paths = paths(packet)?;
        let ready = ready(&self.call, &self.subject, self.asked.clone()).await?;
        many::open(&self.call, &ready, paths, self.how).await
    }

    /// Whether the answer is on its way.
    async fn tell(&self, answer: &[u8], files: &[OwnedFd]) -> bool {
        let files: Vec<BorrowedFd<'_>> = files.iter().map(OwnedFd::as_fd).collect();
        matches!(timeout(PATIENCE, self.packets.send(answer, &files)).await, Ok(Ok(())))
    }
}

/// The paths of a request: each ends with a NUL, which no path has.
fn paths(packet: Packet) -> Result<Vec<Vec<u8>>, Denial> {
    let Packet { bytes, descriptors } = packet;
    if !descriptors.is_empty() {
        return Err(Denial::invalid("a request through a channel brings no descriptor"));
    }
    let all = bytes.strip_suffix(b"\0").ok_or_else(|| Denial::invalid("each path ends with a NUL"))?;
    let paths: Vec<Vec<u8>> = all.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
    match paths.len() {
        1..=MAX_OPEN => Ok(paths),
        _ => Err(Denial::invalid(format!("at most {MAX_OPEN} files at once"))),
    }
}

fn refusal(denial: &Denial, in_full: bool) -> Refusal<'_> {
    let (message, remedy) =
        if in_full { (denial.message.as_str(), denial.remedy.as_str()) } else { ("", "") };
    Refusal { error: denial.code.as_str(), message, remedy }
}

/// Something for each path; where all the words do not fit, the codes.
fn results(of: &[Option<Denial>]) -> Vec<u8> {
    let answer = |in_full| {
        let results = of.iter().map(|denial| denial.as_ref().map(|denial| refusal(denial, in_full)));
        to_json(&Results { results: results.collect() })
    };
    let full = answer(true);
    if full.len() <= MAX_ANSWER { full } else { answer(false) }
}

fn to_json(answer: &impl Serialize) -> Vec<u8> {
    // Text and lists always have a form in JSON.
    serde_json::to_vec(answer).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use deputy_core::Code;

    fn request(bytes: &[u8]) -> Result<Vec<Vec<u8>>, Code> {
        paths(Packet { bytes: bytes.to_vec(), descriptors: Vec::new() }).map_err(|denial| denial.code)
    }

    #[test]
    fn a_request_is_paths_that_end_with_a_nul() {
        assert_eq!(request(b"/a\0/b\xff c\0"), Ok(vec![b"/a".to_vec(), b"/b\xff c".to_vec()]));
        // A path that is empty is beneath no root, and the agent says so.
        assert_eq!(request(b"\0"), Ok(vec![Vec::new()]));
        assert_eq!(request(b"/a\0/b"), Err(Code::InvalidArgument));
        assert_eq!(request(&b"/a\0".repeat(MAX_OPEN)).map(|paths| paths.len()), Ok(MAX_OPEN));
        assert_eq!(request(&b"/a\0".repeat(MAX_OPEN + 1)), Err(Code::InvalidArgument));
        let (reader, _writer) = std::io::pipe().unwrap();
        let with = Packet { bytes: b"/a\0".to_vec(), descriptors: vec![reader.into()] };
        assert_eq!(paths(with).unwrap_err().code, Code::InvalidArgument);
    }

    #[test]
    fn an_answer_always_fits_and_has_the_code_at_least() {
        let denial = Denial::new(Code::RootReadOnly, "roots", "\u{1}".repeat(4096)).remedy("have it changed");
        let few = String::from_utf8(results(&[None, Some(super::super::refused(13, ""))])).unwrap();
        assert!(few.starts_with(r#"{"results":[null,{"error":"FileError","message":"EACCES: "#), "{few}");
        let many = results(&vec![Some(denial); MAX_OPEN]);
        assert!(many.len() <= MAX_ANSWER);
        let many: serde_json::Value = serde_json::from_slice(&many).unwrap();
        assert_eq!(many["results"][MAX_OPEN - 1]["error"], "RootReadOnly");
    }

    #[tokio::test]
    async fn what_nobody_reads_is_bounded() {
        let (ours, _theirs) = pair().unwrap();
        let (reader, _writer) = std::io::pipe().unwrap();
        let files = vec![reader.as_fd(); MAX_OPEN];
        let answer = results(&vec![None; MAX_OPEN]);
        let mut sent = 0;
        while timeout(Duration::from_millis(200), ours.send(&answer, &files))
            .await
            .is_ok_and(|sent| sent.is_ok())
        {
            sent += 1;
        }
        // With 32 channels these are fewer than the descriptors of the service (systemd/deputyd.service).
        assert!((1..=16).contains(&sent), "{sent}");
    }
}
