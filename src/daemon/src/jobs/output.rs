//! `Job.Output`: what a job wrote to a captured stream, while it runs and afterwards.
//!
//! The launcher's child gives two descriptors that can only be read: the stream's file with true offsets, and what is
//! left out of it. From these a task fills the caller's pipe. Nothing is kept here for a reader who is slow: what is
//! given back meanwhile is a gap for him, and is told as one.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use deputy_core::message::{LauncherReply, LauncherRequest};
use deputy_core::stream::{CapturedStream, LeftOut, Output, Streams};
use deputy_core::{Code, Denial};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl, fstat};
use rustix::io::{Errno, pread};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe::Sender;

use super::calls::of_call;
use super::live::Live;
use crate::authority::{About, Call, Granted};
use crate::bus::options::Options;
use crate::launcher::{ANSWER, Launcher, LauncherError};
use crate::limits::Place;
use crate::store::Job;

/// How much is read at once.
const CHUNK: usize = 16 * 1024;

/// How often a stream that has nothing new is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// `Job.Output`.
pub async fn output(
    call: Call,
    (stream, mut options): (String, Options),
) -> Result<Granted<(zbus::OwnedFd,)>, Denial> {
    let follow = options.flag("follow")?;
    let offset = options.long("offset")?.unwrap_or_default();
    let by = options.by()?;
    options.finish()?;
    let stream = match stream.as_str() {
        "stdout" => CapturedStream::Output,
        "stderr" => CapturedStream::Error,
        _ => return Err(Denial::invalid("a stream is stdout or stderr")),
    };
    let (mut grant, job) = of_call(&call).await?;
    let about = About::application(Some(job.application.clone())).account(&job.account);
    call.act(&mut grant, about.os_user(Some(&job.os.name)).by(by))?;
    check(&job, stream)?;
    let place = call.daemon.limits.outputs.enter(call.caller.uid)?;
    let source = Source::open(&call.daemon.launcher, &job, stream).await?;
    let live = if follow { call.daemon.tracker.get(&job.id) } else { None };
    let upto = if follow { u64::MAX } else { source.length().map_err(failed)? };
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
    // Only our end: the two are descriptions of their own.
    fcntl_setfl(&writer, OFlags::NONBLOCK).map_err(failed)?;
    let pipe = Sender::from_owned_fd(writer).map_err(|error| Denial::internal(error.to_string()))?;
    let mut stopping = call.daemon.tracker.stopping();
    tokio::spawn(async move {
        tokio::select! {
            () = pump(source, pipe, offset, upto, live, place) => {}
            _ = stopping.wait_for(|stop| *stop) => {}
        }
    });
    Ok(grant.answer((reader.into(),)))
}

fn failed(error: Errno) -> Denial {
    Denial::internal(format!("the output cannot be passed on: {error}"))
}

/// Whether there can be anything to read.
fn check(job: &Job, stream: CapturedStream) -> Result<(), Denial> {
    let Streams { output, error, .. } = &job.spec.streams;
    let name = stream.as_str();
    let goes = if stream == CapturedStream::Output { output } else { error };
    let words = match goes {
        Output::Captured if job.forgotten.is_none() => return Ok(()),
        Output::Captured => format!("{name} of this job is kept no longer"),
        Output::SameAsOutput => format!("{name} of this job goes where its stdout goes"),
        Output::Descriptor | Output::File { .. } => format!("{name} of this job was not captured"),
    };
    Err(Denial::new(Code::NotFound, "output", words)
        .remedy("have the output captured when the job is run, and read it while it is kept"))
}

/// A captured stream.
struct Source {
    bytes: OwnedFd,
    left_out: OwnedFd,
}

/// What comes at an offset.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// So many bytes.
    Bytes(usize),
    /// So many bytes that are not kept.
    LeftOut(u64),
    /// Nothing, for now.
    Nothing,
}

impl Source {
    async fn open(launcher: &Launcher, job: &Job, stream: CapturedStream) -> Result<Self, Denial> {
        let request = LauncherRequest::Captured { job: job.id.clone(), stream };
        let (reply, descriptors) = match launcher.ask_for_descriptors(&request, ANSWER).await {
            Err(LauncherError::Denied(denial)) if denial.code == Code::NotFound => {
                return Err(Denial::new(Code::NotFound, "output", "the job has written nothing yet")
                    .remedy("try again when it runs"));
            }
            other => other?,
        };
        let descriptors = <[OwnedFd; 2]>::try_from(descriptors);
        match (reply, descriptors) {
            (LauncherReply::Captured, Ok([bytes, left_out])) => Ok(Self { bytes, left_out }),
            _ => Err(LauncherError::Foreign.into()),
        }
    }

    fn left_out(&self) -> Result<LeftOut, Errno> {
        let mut bytes = [0; LeftOut::BYTES];
        // A file that is shorter says that nothing is left out.
        let read = pread(&self.left_out, &mut bytes, 0)?;
        Ok(if read == bytes.len() { LeftOut::from_bytes(bytes) } else { LeftOut::default() })
    }

    /// How much the job wrote so far.
    fn length(&self) -> Result<u64, Errno> {
        let size = u64::try_from(fstat(&self.bytes)?.st_size).unwrap_or_default();
        Ok(size.max(self.left_out()?.end))
    }

    /// What comes at this offset. The order counts: what is read first and not left out afterwards is the job's.
    fn next(&self, offset: u64, buffer: &mut [u8]) -> Result<Next, Errno> {
        let read = pread(&self.bytes, buffer, offset)?;
        let left_out = self.left_out()?;
        if left_out.has(offset) {
            return Ok(Next::LeftOut(left_out.end - offset));
        }
        let upto = if left_out.count() > 0 && left_out.start > offset { left_out.start } else { u64::MAX };
        let whole = usize::try_from(upto - offset).unwrap_or(usize::MAX);
        Ok(match read.min(whole) {
            0 => Next::Nothing,
            count => Next::Bytes(count),
        })
    }
}

/// Fills the pipe until there is no more, or nobody reads.
async fn pump(
    source: Source,
    mut pipe: Sender,
    mut offset: u64,
    upto: u64,
    live: Option<Arc<Live>>,
    _place: Place,
) {
    let mut changes = live.as_ref().map(|live| live.changes());
    let mut buffer = vec![0; CHUNK];
    while offset < upto {
        // Looked at first: what was written before the end is then there to be read.
        let ended = live.as_ref().is_none_or(|live| !live.state().is_open());
        let most = usize::try_from(upto - offset).unwrap_or(CHUNK).min(CHUNK);
        // The files are small and were just written: this waits for no disk.
        let written = match source.next(offset, &mut buffer[..most]) {
            Ok(Next::Bytes(count)) => {
                offset += count as u64;
                pipe.write_all(&buffer[..count]).await
            }
            Ok(Next::LeftOut(count)) => {
                offset += count;
                pipe.write_all(format!("\n[deputy: {count} bytes left out]\n").as_bytes()).await
            }
            Ok(Next::Nothing) if ended => return,
            Ok(Next::Nothing) => {
                if !has_reader(&pipe) {
                    return;
                }
                tokio::select! {
                    () = changed(&mut changes) => {}
                    () = tokio::time::sleep(LOOK) => {}
                }
                continue;
            }
            Err(error) => return tracing::warn!(%error, "captured output cannot be read"),
        };
        if written.is_err() {
            return;
        }
    }
}

async fn changed(changes: &mut Option<tokio::sync::watch::Receiver<()>>) {
    let heard = match changes {
        Some(changes) => changes.changed().await.is_ok(),
        None => false,
    };
    if !heard {
        // Nothing will change any more.
        std::future::pending::<()>().await;
    }
}

fn has_reader(pipe: &Sender) -> bool {
    let mut polled = [PollFd::new(pipe, PollFlags::empty())];
    match poll(&mut polled, Some(&Timespec::default())) {
        Ok(_) => !polled[0].revents().contains(PollFlags::ERR),
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Ceiling;
    use std::fs::File;
    use std::io::Read as _;
    use std::os::unix::fs::FileExt as _;

    fn source() -> (Source, File, File) {
        let (bytes, left_out) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let source = Source {
            bytes: bytes.try_clone().unwrap().into(),
            left_out: left_out.try_clone().unwrap().into(),
        };
        (source, bytes, left_out)
    }

    async fn all(source: Source, offset: u64, upto: u64) -> String {
        let (mut reader, writer) = std::io::pipe().unwrap();
        fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
        let place = Ceiling::new("x", 1, 1).enter(1).unwrap();
        pump(source, Sender::from_owned_fd(writer.into()).unwrap(), offset, upto, None, place).await;
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    }

    #[tokio::test]
    async fn what_is_left_out_is_one_line_in_its_place() {
        let (source, bytes, left_out) = source();
        bytes.write_all_at(b"head", 0).unwrap();
        bytes.write_all_at(b"tail", 1000).unwrap();
        left_out.write_all_at(&LeftOut { start: 4, end: 1000 }.to_bytes(), 0).unwrap();
        assert_eq!(source.length(), Ok(1004));
        assert_eq!(all(source, 0, 1004).await, "head\n[deputy: 996 bytes left out]\ntail");
    }

    #[tokio::test]
    async fn an_offset_within_the_gap_or_behind_the_end_is_no_fault() {
        for (offset, expected) in
            [(2, "ad\n[deputy: 6 bytes left out]\ntail"), (7, "\n[deputy: 3 bytes left out]\ntail"), (99, "")]
        {
            let (source, bytes, left_out) = source();
            bytes.write_all_at(b"head++++++tail", 0).unwrap();
            left_out.write_all_at(&LeftOut { start: 4, end: 10 }.to_bytes(), 0).unwrap();
            assert_eq!(all(source, offset, 14).await, expected);
        }
    }

    #[test]
    fn what_was_left_out_while_it_was_read_is_not_passed_on() {
        let (source, bytes, left_out) = source();
        bytes.write_all_at(b"0123456789", 0).unwrap();
        let mut buffer = [0; 10];
        assert_eq!(source.next(0, &mut buffer), Ok(Next::Bytes(10)));
        // The file system was full: the rest exists nowhere.
        left_out.write_all_at(&LeftOut { start: 8, end: 50 }.to_bytes(), 0).unwrap();
        assert_eq!(source.next(0, &mut buffer), Ok(Next::Bytes(8)));
        assert_eq!(source.next(8, &mut buffer), Ok(Next::LeftOut(42)));
        assert_eq!(source.next(50, &mut buffer), Ok(Next::Nothing));
        assert_eq!(source.length(), Ok(50));
    }
}
