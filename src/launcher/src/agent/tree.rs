//! What takes long: all of a folder's entries, and trees that are removed, measured or copied.
//!
//! A tree is walked by descriptors, each folder opened in the one before without following anything, so that nobody
//! leads the walk elsewhere by renaming what is on its way. Deep in a tree the outer descriptors are closed; the way
//! back is then `..`, which has to be the folder that it was.

mod copy;
mod descent;
mod remove;
mod usage;

use std::os::fd::OwnedFd;

use deputy_core::denial::Denial;
use deputy_core::file_line::FileLine;
use deputy_core::message::{FileReply, FileRequest};
use rustix::fs::{Mode, OFlags};

use super::stream::Lines;
use super::{Agent, CallError, listing, places, send};

/// How far a long call is.
#[derive(Default)]
pub struct Progress {
    /// Things that were dealt with.
    pub done: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// How many were left out.
    pub left_out: u64,
    /// The name of the latest.
    pub name: Vec<u8>,
}

impl Progress {
    /// One thing more.
    fn step(&mut self, lines: &mut Lines<'_>, name: &[u8], bytes: u64) -> Result<(), CallError> {
        self.done += 1;
        self.bytes += bytes;
        name.clone_into(&mut self.name);
        if lines.step()? {
            self.tell(lines)?;
        }
        Ok(())
    }

    fn tell(&self, lines: &mut Lines<'_>) -> Result<(), CallError> {
        lines.line(&FileLine::Progress { done: self.done, bytes: self.bytes, name: &self.name })?;
        lines.flush()
    }

    fn leave_out(&mut self, lines: &mut Lines<'_>, name: &[u8], kind: &str) -> Result<(), CallError> {
        self.left_out += 1;
        lines.line(&FileLine::LeftOut { name, kind })
    }
}

/// A long call whose paths lead somewhere.
enum Work {
    List(OwnedFd),
    Remove(remove::Removal),
    Usage(usage::Measured),
    Copy(copy::Copying),
}

impl Agent {
    /// Does something long, after it has answered that it begins.
    pub(super) fn long_call(&self, connection: &OwnedFd, request: FileRequest, pipe: OwnedFd) {
        let begun = self.begin(request).and_then(|work| Ok((work, Lines::new(pipe, &self.watched)?)));
        let (work, mut lines) = match begun {
            Ok(begun) => begun,
            Err(error) => return send(connection, &error.into(), Vec::new()),
        };
        send(connection, &FileReply::Begun, Vec::new());
        let mut progress = Progress::default();
        let ended = match work {
            Work::List(folder) => list(&folder, &mut lines, &mut progress),
            Work::Remove(removal) => removal.run(&mut lines, &mut progress),
            Work::Usage(measured) => measured.run(&mut lines, &mut progress),
            Work::Copy(copying) => copying.run(&mut lines, &mut progress),
        };
        let Progress { done, bytes, left_out, name } = &progress;
        let (denial, room, last);
        match ended {
            Ok(()) => last = FileLine::Result { done: *done, bytes: *bytes, left_out: *left_out },
            Err(CallError::Errno(errno)) => {
                room = places::room_after(errno, &self.roots, &self.credentials);
                last = FileLine::Failed { errno, name, room: &room };
            }
            Err(CallError::Denied(why)) => {
                denial = why;
                last = FileLine::Denied { code: denial.code.as_str(), message: &denial.message };
            }
        }
        // Whoever has gone is not told.
        let _ = lines.line(&last).and_then(|()| lines.flush());
    }

    fn begin(&self, request: FileRequest) -> Result<Work, CallError> {
        let roots = &self.roots;
        Ok(match request {
            FileRequest::ListStream { path } => {
                Work::List(roots.open_at(&path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?)
            }
            FileRequest::RemoveTree { path, missing_ok } => {
                Work::Remove(remove::Removal::new(roots.place(&path), missing_ok)?)
            }
            FileRequest::DiskUsage { path } => Work::Usage(usage::Measured::new(roots.open_at(
                &path,
                OFlags::RDONLY | OFlags::DIRECTORY,
                Mode::empty(),
            )?)),
            FileRequest::CopyTree { from, to, resume } => {
                Work::Copy(copy::Copying::new(roots.place_to_look(&from)?, roots.place(&to)?, resume)?)
            }
            _ => return Err(Denial::internal("this request is answered at once").into()),
        })
    }
}

/// A line for each entry.
fn list(folder: &OwnedFd, lines: &mut Lines<'_>, progress: &mut Progress) -> Result<(), CallError> {
    listing::each(folder, |name, _| {
        if let Some(entry) = listing::entry(folder, name.to_vec()) {
            lines.line(&FileLine::Entry(&entry))?;
        }
        progress.done += 1;
        lines.step()?;
        Ok(true)
    })
}
