//! Removing a folder with everything in it.

use deputy_core::message::FileKind;
use rustix::fs::{AtFlags, FileType, unlinkat};
use rustix::io::Errno;

use super::Progress;
use super::descent::Descent;
use crate::agent::resolve::Place;
use crate::agent::stream::Lines;
use crate::agent::{CallError, listing, stat};

/// How often a folder is looked through again into which somebody puts something meanwhile.
const TRIES: u8 = 4;

/// A tree that is to be removed; none if it is not there, and that is well.
pub struct Removal(Option<(Place, FileKind)>);

/// A folder on the way.
struct Level {
    name: Vec<u8>,
    /// The folders in it that are still to be removed.
    folders: Vec<Vec<u8>>,
    tries: u8,
}

impl Removal {
    /// Looks what it is.
    pub fn new(place: Result<Place, CallError>, missing_ok: bool) -> Result<Self, CallError> {
        let absent = Errno::NOENT.raw_os_error();
        let found = place.and_then(|place| {
            let kind = stat::of(&place.folder, &place.name)?.kind;
            Ok((place, kind))
        });
        match found {
            Ok(found) => Ok(Self(Some(found))),
            Err(CallError::Errno(errno)) if errno == absent && missing_ok => Ok(Self(None)),
            Err(error) => Err(error),
        }
    }

    /// Removes it. The first refusal is the end.
    pub fn run(self, lines: &mut Lines<'_>, progress: &mut Progress) -> Result<(), CallError> {
        let Some((Place { folder, name }, kind)) = self.0 else { return Ok(()) };
        if kind != FileKind::Folder {
            unlinkat(&folder, &name, AtFlags::empty())?;
            return progress.step(lines, &name, 0);
        }
        let mut descent = Descent::new(folder);
        let mut levels: Vec<Level> = Vec::new();
        let mut next = Some(name);
        loop {
            if let Some(name) = next.take() {
                name.clone_into(&mut progress.name);
                descent.down(&name)?;
                levels.push(Level { name, folders: empty(&descent, lines, progress)?, tries: 0 });
            }
            let Some(level) = levels.last_mut() else { return Ok(()) };
            next = level.folders.pop();
            if next.is_some() {
                continue;
            }
            descent.up()?;
            match unlinkat(descent.folder(), &level.name, AtFlags::REMOVEDIR) {
                Err(Errno::NOTEMPTY | Errno::EXIST) if level.tries < TRIES => {
                    descent.down(&level.name)?;
                    level.tries += 1;
                    level.folders = empty(&descent, lines, progress)?;
                }
                other => {
                    level.name.clone_into(&mut progress.name);
                    other?;
                    if let Some(level) = levels.pop() {
                        progress.step(lines, &level.name, 0)?;
                    }
                }
            }
        }
    }
}

/// Removes what is in the present folder but folders, whose names are the result.
fn empty(
    descent: &Descent,
    lines: &mut Lines<'_>,
    progress: &mut Progress,
) -> Result<Vec<Vec<u8>>, CallError> {
    let folder = descent.owned();
    let mut folders = Vec::new();
    listing::each(folder, |name, sort| {
        let is_folder = match sort {
            FileType::Directory => true,
            FileType::Unknown => stat::of(folder, name)?.kind == FileKind::Folder,
            _ => false,
        };
        if is_folder {
            folders.push(name.to_vec());
            return Ok(true);
        }
        name.clone_into(&mut progress.name);
        unlinkat(folder, name, AtFlags::empty())?;
        progress.step(lines, name, 0)?;
        Ok(true)
    })?;
    Ok(folders)
}
