//! What is written down of a plan, in a folder of root's: the plan itself, its list, the inodes that are left out, what
//! was to be said, and a journal for each way ([`journal`](super::journal)).
//!
//! The list is on the disk before the plan is, so that a folder with a plan in it is whole.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use deputy_core::denial::{Code, Denial};
use deputy_core::ids::RebindId;
use deputy_core::rebind::{Entry, MAX_FRAME, Problem, RebindPlan, RebindState};

use super::journal::Journal;
use crate::paths::{REBIND, REBINDING};
use crate::{durable, request};

const PLAN: &str = "plan";
const LIST: &str = "list";
const LINKED: &str = "linked";
const PROBLEMS: &str = "problems";

/// The most bytes of a plan.
const MAX_PLAN: u64 = 4 * 1024 * 1024;

/// The most plans that are kept.
const MAX_PLANS: usize = 1000;

/// A file that is written to the end.
pub type Writer = BufWriter<File>;

/// The turn of whoever makes, carries out or removes a plan; it ends when dropped.
#[derive(Debug)]
pub struct Turn(#[expect(dead_code, reason = "the lock lives as long as the open file")] File);

/// Takes the turn, if nobody has it.
pub fn turn() -> Result<Turn, Denial> {
    let failed = |error: io::Error| Denial::internal(format!("{REBINDING}: {error}"));
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(REBINDING);
    let file = file.map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(Turn(file)),
        Err(TryLockError::WouldBlock) => Err(Denial::new(
            Code::Busy,
            "rebind",
            "another plan is being made or carried out on this machine",
        )
        .remedy("wait for its end; one at a time is moved")),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// What could not be written.
pub fn disk(error: &io::Error) -> Denial {
    Denial::new(Code::Disk, REBIND, format!("the plan's records: {error}"))
        .remedy("make room on the file system of /var/lib/deputy, then go on")
}

/// The ids of all plans, in order. What never became a plan is left out.
pub fn ids() -> Result<Vec<RebindId>, Denial> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(REBIND).map_err(|error| disk(&error))? {
        let entry = entry.map_err(|error| disk(&error))?;
        let id = entry.file_name().to_str().and_then(|name| name.parse().ok());
        ids.extend(id.filter(|_| entry.path().join(PLAN).exists()));
    }
    ids.sort();
    Ok(ids)
}

/// The records of one plan.
pub struct Records {
    pub(super) folder: PathBuf,
}

impl Records {
    /// Begins new ones. The caller has the turn, so that what is no plan yet is nobody's.
    pub fn create() -> Result<(RebindId, Self), Denial> {
        let all = ids()?;
        if all.len() >= MAX_PLANS {
            return Err(Denial::new(Code::Conflict, REBIND, format!("there are {} plans", all.len()))
                .remedy("remove old ones: deputyctl rebind forget ID"));
        }
        for entry in fs::read_dir(REBIND).map_err(|error| disk(&error))?.flatten() {
            if !entry.path().join(PLAN).exists() {
                fs::remove_dir_all(entry.path()).map_err(|error| disk(&error))?;
            }
        }
        let id = RebindId::from_random(request::random()?);
        let folder = Path::new(REBIND).join(id.as_str());
        DirBuilder::new().mode(0o700).create(&folder).map_err(|error| disk(&error))?;
        Ok((id, Self { folder }))
    }

    /// Those in a folder of a test's.
    #[cfg(test)]
    pub fn in_folder(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Those of a plan that is there.
    pub fn open(id: &RebindId) -> Result<(Self, RebindPlan), Denial> {
        let folder = Path::new(REBIND).join(id.as_str());
        let bad = |error: &dyn std::fmt::Display| Denial::internal(format!("the plan {id}: {error}"));
        let text = durable::read(&folder, PLAN, MAX_PLAN).map_err(|error| bad(&error))?;
        let text = text.ok_or_else(Denial::not_found)?;
        let plan = RebindPlan::parse(&text).map_err(|error| bad(&error))?;
        Ok((Self { folder }, plan))
    }

    /// Removes them.
    pub fn remove(&self) -> Result<(), Denial> {
        // Without the plan it is nothing any more, whatever comes.
        durable::remove(&self.folder, PLAN)
            .and_then(|_| fs::remove_dir_all(&self.folder))
            .map_err(|error| disk(&error))
    }

    fn create_file(&self, name: &str) -> Result<Writer, Denial> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.folder.join(name));
        file.map(BufWriter::new).map_err(|error| disk(&error))
    }

    fn open_file(&self, name: &str) -> Result<BufReader<File>, Denial> {
        File::open(self.folder.join(name)).map(BufReader::new).map_err(|error| disk(&error))
    }

    /// The list that is to be written.
    pub fn create_list(&self) -> Result<ListWriter, Denial> {
        Ok(ListWriter { file: self.create_file(LIST)?, entries: 0 })
    }

    /// The list from its beginning.
    pub fn list(&self) -> Result<ListReader, Denial> {
        Ok(ListReader { file: self.open_file(LIST)?, entries: 0, frame: Vec::new() })
    }

    /// What is to be said about the tree, as it comes.
    pub fn create_problems(&self) -> Result<Writer, Denial> {
        self.create_file(PROBLEMS)
    }

    /// Writes down which inodes are left out, in order.
    pub fn write_left_out(&self, inodes: &[u64]) -> Result<(), Denial> {
        let mut file = self.create_file(LINKED)?;
        let written = inodes.iter().try_for_each(|inode| file.write_all(&inode.to_le_bytes()));
        written.and_then(|()| finish(file)).map_err(|error| disk(&error))
    }

    /// Those inodes.
    pub fn left_out(&self) -> Result<Vec<u64>, Denial> {
        let mut bytes = Vec::new();
        self.open_file(LINKED)?.read_to_end(&mut bytes).map_err(|error| disk(&error))?;
        let (numbers, rest) = bytes.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(Denial::internal("the plan's records are damaged"));
        }
        Ok(numbers.iter().map(|number| u64::from_le_bytes(*number)).collect())
    }

    /// Puts the plan in its place, once everything else is on the disk.
    pub fn commit(&self, plan: &RebindPlan) -> Result<(), Denial> {
        let text = plan.to_toml().map_err(Denial::internal)?;
        durable::replace(&self.folder, PLAN, text.as_bytes())
            .and_then(|()| durable::sync_folder(Path::new(REBIND)))
            .map_err(|error| disk(&error))
    }

    /// How far the plan has come, and how many entries were done with on the way that was begun last.
    pub fn state(&self) -> Result<(RebindState, u64), Denial> {
        let there = Journal::read(self, Journal::THERE)?;
        let back = Journal::read(self, Journal::BACK)?;
        Ok(match (there, back) {
            (_, Some(back)) if back.ended => (RebindState::Undone, back.done),
            (_, Some(back)) => (RebindState::Undoing, back.done),
            (None, None) => (RebindState::Planned, 0),
            (Some(there), None) if there.ended => (RebindState::Applied, there.done),
            (Some(there), None) => (RebindState::Applying, there.done),
        })
    }

    /// Everything that was to be said, when the plan was made and since.
    pub fn each_problem(&self, mut each: impl FnMut(Problem)) -> Result<(), Denial> {
        for name in [PROBLEMS, Journal::THERE, Journal::BACK] {
            let file = match File::open(self.folder.join(name)) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(disk(&error)),
            };
            for line in BufReader::new(file).split(b'\n') {
                let line = line.map_err(|error| disk(&error))?;
                let line = String::from_utf8_lossy(&line);
                let told = if name == PROBLEMS { Some(&*line) } else { line.strip_prefix("left ") };
                told.and_then(Problem::from_line).into_iter().for_each(&mut each);
            }
        }
        Ok(())
    }
}

/// Everything that was written is on the disk.
pub fn finish(file: Writer) -> io::Result<()> {
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

/// A list that is being written.
pub struct ListWriter {
    file: Writer,
    entries: u64,
}

impl ListWriter {
    /// One entry more.
    pub fn push(&mut self, entry: &Entry) -> Result<(), Denial> {
        let frame = entry.to_frame().map_err(|error| Denial::internal(error.to_string()))?;
        self.entries += 1;
        self.file.write_all(&frame).map_err(|error| disk(&error))
    }

    /// The end of it; how many entries it has.
    pub fn end(mut self) -> Result<u64, Denial> {
        let entries = self.entries;
        self.push(&Entry::End { entries })?;
        finish(self.file).map_err(|error| disk(&error))?;
        Ok(entries)
    }
}

/// A list that is read.
pub struct ListReader {
    file: BufReader<File>,
    entries: u64,
    frame: Vec<u8>,
}

impl ListReader {
    /// The next entry with its place in the list; none after the last.
    pub fn next(&mut self) -> Result<Option<(u64, Entry)>, Denial> {
        let damaged = || Denial::internal("the list of the plan is damaged").remedy("make a new plan");
        let mut length = [0; 4];
        self.file.read_exact(&mut length).map_err(|_| damaged())?;
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        if length > MAX_FRAME {
            return Err(damaged());
        }
        self.frame.resize(length, 0);
        self.file.read_exact(&mut self.frame).map_err(|_| damaged())?;
        match Entry::from_frame(&self.frame).map_err(|_| damaged())? {
            Entry::End { entries } if entries == self.entries => Ok(None),
            Entry::End { .. } => Err(damaged()),
            entry => {
                self.entries += 1;
                Ok(Some((self.entries - 1, entry)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> (tempfile::TempDir, Records) {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::in_folder(folder.path());
        (folder, records)
    }

    #[test]
    fn a_list_that_was_cut_is_damaged() {
        let (folder, records) = records();
        let mut list = records.create_list().unwrap();
        list.push(&Entry::Leave).unwrap();
        assert_eq!(list.end().unwrap(), 1);
        let mut read = records.list().unwrap();
        assert_eq!(read.next().unwrap(), Some((0, Entry::Leave)));
        assert_eq!(read.next().unwrap(), None);
        let whole = fs::read(folder.path().join(LIST)).unwrap();
        for length in 0..whole.len() {
            fs::write(folder.path().join(LIST), &whole[..length]).unwrap();
            let mut read = records.list().unwrap();
            assert!((0..2).any(|_| read.next().is_err()), "{length}");
        }
    }

    #[test]
    fn what_is_left_out_is_read_in_order() {
        let (_folder, records) = records();
        records.write_left_out(&[1, 7, u64::MAX]).unwrap();
        assert_eq!(records.left_out().unwrap(), [1, 7, u64::MAX]);
    }
}
