//! A job's standard input, output and error, from what its request says.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;

use deputy_core::denial::Denial;
use deputy_core::ids::{OsGid, OsUid};
use deputy_core::size::ByteSize;
use deputy_core::stream::{CapturedStream, Input, Output, Streams};
use deputy_sys::streams::{OpenFor, Stream, above_stdio};
use rustix::fs::{Gid, Uid, fchown};

use super::capture::Pumps;
use super::folder::JobFolder;

/// Who the job is, and how much of each captured stream is kept.
#[derive(Debug, Clone, Copy)]
pub struct Owner {
    /// Its uid.
    pub uid: OsUid,
    /// Its primary group.
    pub gid: OsGid,
    /// The bound.
    pub bound: ByteSize,
}

/// Makes them ready: the three for the job, and what the shepherd moves itself.
pub fn prepare(
    wanted: &Streams,
    brought: [Option<OwnedFd>; 3],
    folder: &JobFolder,
    owner: Owner,
) -> Result<([Stream; 3], Pumps), Denial> {
    let mut pumps = Pumps::default();
    let [input, output, error] = brought;
    let input = match &wanted.input {
        Input::Descriptor => descriptor(input)?,
        Input::File(path) => file(path, OpenFor::Reading)?,
    };
    let output = one(&wanted.output, output, CapturedStream::Output, folder, owner, &mut pumps)?;
    let error = one(&wanted.error, error, CapturedStream::Error, folder, owner, &mut pumps)?;
    let streams = above_stdio([input, output, error])
        .map_err(|error| Denial::internal(format!("the job's descriptors: {error}")))?;
    Ok((streams, pumps))
}

fn one(
    wanted: &Output,
    brought: Option<OwnedFd>,
    stream: CapturedStream,
    folder: &JobFolder,
    owner: Owner,
    pumps: &mut Pumps,
) -> Result<Stream, Denial> {
    match wanted {
        Output::Descriptor => descriptor(brought),
        Output::File { path, append: false } => file(path, OpenFor::Writing),
        Output::File { path, append: true } => file(path, OpenFor::Appending),
        Output::SameAsOutput => Ok(Stream::SameAsOutput),
        Output::Captured => {
            let files = folder.capture(stream)?;
            let (reader, writer) =
                pipe(owner).map_err(|error| Denial::internal(format!("the job's pipe: {error}")))?;
            pumps.add(stream, reader, files, owner.bound);
            Ok(Stream::Descriptor(writer))
        }
    }
}

fn descriptor(brought: Option<OwnedFd>) -> Result<Stream, Denial> {
    brought.map(Stream::Descriptor).ok_or_else(|| Denial::internal("a stream's descriptor is missing"))
}

fn file(path: &[u8], open_for: OpenFor) -> Result<Stream, Denial> {
    if path.is_empty() {
        return Err(Denial::invalid("the path of a stream's file is empty"));
    }
    let path =
        CString::new(path).map_err(|_| Denial::invalid("the path of a stream's file has a NUL byte"))?;
    Ok(Stream::File { path, open_for })
}

/// A pipe whose reader never waits. It is the user's, as one of his shell's would be: `/dev/stdout` can be opened.
fn pipe(owner: Owner) -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = io::pipe()?;
    rustix::io::ioctl_fionbio(&reader, true)?;
    fchown(&writer, Some(Uid::from_raw(owner.uid.raw())), Some(Gid::from_raw(owner.gid.raw())))?;
    Ok((reader.into(), writer.into()))
}
