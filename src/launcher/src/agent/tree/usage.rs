//! How much a tree takes of the disk: each file once, however many names it has.

use std::collections::HashSet;
use std::os::fd::OwnedFd;

use deputy_core::message::FileKind;
use rustix::io::Errno;

use super::Progress;
use super::descent::Descent;
use crate::agent::stream::Lines;
use crate::agent::{CallError, listing, stat};

/// A folder that is to be measured.
pub struct Measured(OwnedFd);

impl Measured {
    /// This one.
    pub fn new(folder: OwnedFd) -> Self {
        Self(folder)
    }

    /// Measures it. What cannot be read is left out, and told.
    pub fn run(self, lines: &mut Lines<'_>, progress: &mut Progress) -> Result<(), CallError> {
        progress.step(lines, b"", stat::of(&self.0, b"")?.allocated)?;
        let mut seen = HashSet::new();
        let mut descent = Descent::new(self.0);
        let mut levels = vec![measure(&descent, &mut seen, lines, progress)?];
        while let Some(folders) = levels.last_mut() {
            let Some(name) = folders.pop() else {
                levels.pop();
                if !levels.is_empty() {
                    descent.up()?;
                }
                continue;
            };
            match descent.down(&name) {
                Ok(()) => levels.push(measure(&descent, &mut seen, lines, progress)?),
                Err(CallError::Errno(errno)) if errno == Errno::NOENT.raw_os_error() => {}
                Err(CallError::Errno(errno)) if errno == Errno::ACCESS.raw_os_error() => {
                    progress.leave_out(lines, &name, "unreadable")?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn measure(
    descent: &Descent,
    seen: &mut HashSet<(u64, u64)>,
    lines: &mut Lines<'_>,
    progress: &mut Progress,
) -> Result<Vec<Vec<u8>>, CallError> {
    let folder = descent.owned();
    let mut folders = Vec::new();
    listing::each(folder, |name, _| {
        let found = match stat::of(folder, name) {
            Ok(found) => found,
            Err(Errno::NOENT) => return Ok(true),
            Err(Errno::ACCESS) => {
                progress.leave_out(lines, name, "unreadable")?;
                return Ok(true);
            }
            Err(errno) => return Err(errno.into()),
        };
        if found.kind == FileKind::Folder {
            folders.push(name.to_vec());
        } else if found.links > 1 && !seen.insert((found.device, found.inode)) {
            return Ok(true);
        }
        progress.step(lines, name, found.allocated)?;
        Ok(true)
    })?;
    Ok(folders)
}
