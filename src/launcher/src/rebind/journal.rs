//! The journal of a plan that is carried out, or put back: how far it is.
//!
//! It is lines: `begin`, then for each batch what was left as it is and `done` with how far it got, then `end`. A batch whose
//! `done` is not there is gone through again: a step that was done is seen to be done.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;

use deputy_core::denial::Denial;
use deputy_core::rebind::{Problem, RebindEnd};

use super::records::{Records, disk};
use crate::durable;

/// How far one way was gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gone {
    /// The first entry that has not been done with.
    pub done: u64,
    /// What became of those before it.
    pub sum: RebindEnd,
    /// Whether it came to its end.
    pub ended: bool,
}

/// The journal of one way.
pub struct Journal {
    file: File,
    batch: String,
}

impl Journal {
    /// The way there.
    pub const THERE: &'static str = "apply";
    /// The way back.
    pub const BACK: &'static str = "undo";

    /// What a journal says; none if the way was never begun. What follows the last line feed was never whole.
    pub fn read(records: &Records, name: &str) -> Result<Option<Gone>, Denial> {
        let path = records.folder.join(name);
        let mut file = match File::open(&path) {
            Ok(file) => BufReader::new(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(disk(&error)),
        };
        let (mut gone, mut begun, mut line) = (Gone::default(), false, Vec::new());
        loop {
            line.clear();
            file.read_until(b'\n', &mut line).map_err(|error| disk(&error))?;
            let Some(line) = line.strip_suffix(b"\n") else { return Ok(begun.then_some(gone)) };
            let line = String::from_utf8_lossy(line);
            let mut words = line.split(' ');
            match words.next() {
                Some("begin") => begun = true,
                Some("end") => gone.ended = true,
                Some("done") => {
                    let mut number = || words.next().and_then(|word| word.parse().ok());
                    let numbers = (number(), number(), number(), number());
                    let (Some(done), Some(changed), Some(already), Some(left)) = numbers else {
                        return Err(Denial::internal(format!("{}: a damaged line", path.display())));
                    };
                    gone.done = done;
                    gone.sum = RebindEnd { changed, already, left };
                }
                // What was left is in the sum.
                _ => {}
            }
        }
    }

    /// Begins it, or goes on with it.
    pub fn open(records: &Records, name: &str, now: u64) -> Result<Self, Denial> {
        let opened = || -> io::Result<File> {
            let path = records.folder.join(name);
            let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
            // What an earlier try was writing when it was cut says nothing.
            file.set_len(length_of_whole(&file)?)?;
            Ok(file)
        };
        let mut journal = Self { file: opened().map_err(|error| disk(&error))?, batch: String::new() };
        journal.write(&format!("begin {now}\n"))?;
        durable::sync_folder(&records.folder).map_err(|error| disk(&error))?;
        Ok(journal)
    }

    /// Something was left as it is.
    pub fn left(&mut self, problem: &Problem) {
        self.batch.push_str("left ");
        self.batch.push_str(&problem.to_line());
        self.batch.push('\n');
    }

    /// Everything before this entry is done with, and on the disk.
    pub fn done(&mut self, next: u64, sum: RebindEnd) -> Result<(), Denial> {
        let lines = std::mem::take(&mut self.batch);
        let RebindEnd { changed, already, left } = sum;
        self.write(&format!("{lines}done {next} {changed} {already} {left}\n"))
    }

    /// It has come to its end, with the tree's top.
    pub fn end(&mut self, next: u64, sum: RebindEnd, now: u64) -> Result<(), Denial> {
        let RebindEnd { changed, already, left } = sum;
        self.write(&format!("done {next} {changed} {already} {left}\nend {now}\n"))
    }

    fn write(&mut self, text: &str) -> Result<(), Denial> {
        self.file
            .write_all(text.as_bytes())
            .and_then(|()| self.file.sync_data())
            .map_err(|error| disk(&error))
    }
}

/// How many bytes of a journal are whole lines, up to the last that ends a batch or says something by itself.
fn length_of_whole(file: &File) -> io::Result<u64> {
    let (mut whole, mut length, mut line) = (0, 0, Vec::new());
    let mut reader = BufReader::new(file);
    loop {
        line.clear();
        length += reader.read_until(b'\n', &mut line)? as u64;
        if !line.ends_with(b"\n") {
            return Ok(whole);
        }
        if !line.starts_with(b"left ") {
            whole = length;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use deputy_core::rebind::ProblemKind;
    use std::fs;

    #[test]
    fn a_journal_that_was_cut_says_what_was_whole() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::in_folder(folder.path());
        assert_eq!(Journal::read(&records, "apply").unwrap(), None);
        let mut journal = Journal::open(&records, "apply", 5).unwrap();
        let problem = Problem {
            kind: ProblemKind::Changed,
            path: b"x\ny".to_vec(),
            detail: "done 9 9 9 9".into(),
            in_the_way: false,
        };
        journal.left(&problem);
        let sum = RebindEnd { changed: 3, already: 1, left: 1 };
        journal.done(7, sum).unwrap();
        let first = Gone { done: 7, sum, ended: false };
        assert_eq!(Journal::read(&records, "apply").unwrap(), Some(first));
        journal.left(&problem);
        journal.done(9, RebindEnd { changed: 9, ..sum }).unwrap();
        journal.end(9, RebindEnd { changed: 9, ..sum }, 6).unwrap();
        let whole = fs::read(folder.path().join("apply")).unwrap();
        let begin = whole.windows(5).position(|word| word == b"done ").unwrap();
        for length in begin..whole.len() {
            fs::write(folder.path().join("apply"), &whole[..length]).unwrap();
            let gone = Journal::read(&records, "apply").unwrap().unwrap();
            assert!(gone.done == 0 || gone.done == 7 || gone.done == 9, "{gone:?}");
            assert!(!gone.ended);
            // Going on after a cut does not glue two lines together.
            Journal::open(&records, "apply", 7).unwrap().done(9, sum).unwrap();
            assert_eq!(Journal::read(&records, "apply").unwrap().unwrap().done, 9);
        }
        let mut seen = Vec::new();
        records.each_problem(|problem| seen.push(problem)).unwrap();
        assert!(seen.contains(&problem));
    }
}
