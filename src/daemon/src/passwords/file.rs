//! The file of hashes: `/var/lib/deputy/secrets/passwords`, the daemon's alone, never part of the ledger.
//!
//! Lines are only added. Each is a checksum and one account's hashes, newest first; the last line of an account counts.
//! Which of its hashes is in force is the ledger's to say: a hash is put here first, under a generation of its own, and
//! comes into force with the ledger's record of that generation. So a crash between the two leaves the old password.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use deputy_core::{AccountName, ApplicationName};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::store::StoreError;
use crate::store::folder::{Folder, Lock, is_missing};

/// The file's name in its folder.
const NAME: &str = "passwords";

/// The file's first line: what tells it from others.
const HEADER: &str = "deputy passwords 1\n";

/// The characters of a line's checksum.
const CHECKSUM: usize = 32;

/// The longest line; more is damage.
const MAX_LINE: u64 = 16 << 10;

/// Below this size nothing is gained by leaving old lines out.
const MIN_COMPACTION: u64 = 1 << 20;

/// What can go wrong.
#[derive(Debug, Error)]
pub enum FileError {
    /// Its folder or the file is missing, or not the daemon's alone.
    #[error(transparent)]
    Folder(#[from] StoreError),
    /// The file is something else.
    #[error("{NAME} is not a file of Deputy's passwords")]
    Foreign,
    /// A line in the middle does not verify.
    #[error("{NAME} is damaged at byte {0}; restore the file, or move it away and reset all passwords")]
    Damaged(u64),
    /// A line of an import is none, or not one of a password's hashes.
    #[error("passwords, line {line}: {what}")]
    Import {
        /// The line of what is imported, from 1.
        line: u64,
        /// What is wrong with it.
        what: String,
    },
    /// An import would mix with what is there.
    #[error("{NAME} is not empty: an import goes into a new store only")]
    NotEmpty,
    /// The disk did not take or give it.
    #[error("{NAME}: {0}")]
    Io(#[from] io::Error),
    /// The program ends.
    #[error("{NAME} is closed")]
    Closed,
    /// An earlier failure left it unknown what is on disk.
    #[error("{NAME} takes no more changes after a failure of the disk")]
    Failed,
}

/// One hash of an account.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// What the ledger calls it.
    pub generation: String,
    /// The hash, as a string that says how it was made.
    pub hash: String,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("generation", &self.generation).finish_non_exhaustive()
    }
}

/// What one line says.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    /// The account's application.
    pub application: ApplicationName,
    /// The account.
    pub account: AccountName,
    /// Newest first; none: the account has no password any more.
    pub hashes: Vec<Kept>,
}

/// An account, short: memory holds one for each that has a password.
type Key = [u8; 16];

/// Where an account's line is, without its line feed.
#[derive(Debug, Clone, Copy)]
struct Place {
    offset: u64,
    length: u32,
}

/// The open file.
pub struct HashFile {
    folder: Folder,
    file: File,
    length: u64,
    places: BTreeMap<Key, Place>,
    /// The bytes of lines that count.
    live: u64,
    failed: bool,
    _lock: Lock,
}

impl HashFile {
    /// Opens the file in this folder, or makes both. A line that was not finished when the power went is cut off; it
    /// was never acknowledged.
    pub fn open(folder: &Path) -> Result<Self, FileError> {
        let folder = Folder::open(folder, true)?;
        let lock = folder.lock()?;
        let file = match folder.write(NAME) {
            Err(error) if is_missing(&error) => {
                folder.replace(NAME, HEADER.as_bytes())?;
                folder.write(NAME)?
            }
            other => other?,
        };
        let mut opened =
            Self { folder, file, length: 0, places: BTreeMap::new(), live: 0, failed: false, _lock: lock };
        opened.load()?;
        if opened.is_mostly_dead() {
            opened.compact()?;
        }
        Ok(opened)
    }

    fn load(&mut self) -> Result<(), FileError> {
        let found = scan(&self.file)?;
        self.places = found.places;
        self.live = found.live;
        self.length = found.whole;
        if found.whole < found.end {
            tracing::warn!(
                bytes = found.end - found.whole,
                "an unfinished end of the passwords' file is cut off"
            );
            self.file.set_len(found.whole)?;
            self.file.sync_all()?;
        }
        Ok(())
    }

    /// Whether no account has a hash here.
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Puts many accounts' hashes on disk, all of them or none.
    pub(super) fn fill(
        &mut self,
        lines: impl Iterator<Item = Result<Line, FileError>>,
    ) -> Result<(), FileError> {
        let result = self.append_all(lines).and_then(|()| Ok(self.file.sync_data()?));
        if result.is_err() {
            self.clear()?;
        }
        self.load()?;
        result
    }

    fn append_all(&mut self, lines: impl Iterator<Item = Result<Line, FileError>>) -> Result<(), FileError> {
        self.file.seek(SeekFrom::Start(self.length))?;
        let mut out = io::BufWriter::new(&self.file);
        for line in lines {
            io::Write::write_all(&mut out, &encode(&line?)?)?;
        }
        out.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(())
    }

    /// Forgets all hashes.
    pub(super) fn clear(&mut self) -> Result<(), FileError> {
        self.file.set_len(HEADER.len() as u64)?;
        self.file.sync_all()?;
        self.load()
    }

    /// The hashes of an account, newest first.
    pub fn hashes(
        &self,
        application: &ApplicationName,
        account: &AccountName,
    ) -> Result<Vec<Kept>, FileError> {
        let Some(place) = self.places.get(&key(application, account)) else { return Ok(Vec::new()) };
        match read_line(&self.file, *place)? {
            line if line.application == *application && line.account == *account => Ok(line.hashes),
            _ => Err(FileError::Damaged(place.offset)),
        }
    }

    /// Puts an account's hashes on disk, in place of those that it had; none removes it.
    pub fn put(
        &mut self,
        application: &ApplicationName,
        account: &AccountName,
        hashes: Vec<Kept>,
    ) -> Result<(), FileError> {
        if self.failed {
            return Err(FileError::Failed);
        }
        let line = Line { application: application.clone(), account: account.clone(), hashes };
        let bytes = encode(&line)?;
        let written = self.file.write_all_at(&bytes, self.length);
        // Synced on the same descriptor: another's may not be told of an error.
        if let Err(error) = written.and_then(|()| self.file.sync_data()) {
            // Whether part of it is there is not known; if it can be taken back, nothing happened.
            let undone = self.file.set_len(self.length).and_then(|()| self.file.sync_all());
            self.failed = undone.is_err();
            return Err(error.into());
        }
        let length = bytes.len() as u64;
        let place = Place { offset: self.length, length: u32::try_from(length - 1).unwrap_or(u32::MAX) };
        self.length += length;
        note(&mut self.places, &mut self.live, &line, place);
        if self.is_mostly_dead()
            && let Err(error) = self.compact()
        {
            // The line itself is on disk.
            tracing::warn!(%error, "old passwords' hashes could not be left out");
        }
        Ok(())
    }

    fn is_mostly_dead(&self) -> bool {
        self.length > MIN_COMPACTION && self.live < self.length / 2
    }

    /// Writes the lines that count into a new file, and puts that into the old one's place.
    fn compact(&mut self) -> Result<(), FileError> {
        let temporary = "passwords.new";
        self.folder.remove(temporary)?;
        let mut new = io::BufWriter::new(self.folder.create(temporary)?);
        io::Write::write_all(&mut new, HEADER.as_bytes())?;
        let mut offset = HEADER.len() as u64;
        let mut places = BTreeMap::new();
        for (key, place) in &self.places {
            let mut bytes = vec![0; place.length as usize + 1];
            self.file.read_exact_at(&mut bytes, place.offset)?;
            if decode(&bytes).is_none() {
                return Err(FileError::Damaged(place.offset));
            }
            io::Write::write_all(&mut new, &bytes)?;
            places.insert(*key, Place { offset, ..*place });
            offset += bytes.len() as u64;
        }
        let new = new.into_inner().map_err(io::IntoInnerError::into_error)?;
        new.sync_all()?;
        self.folder.rename(temporary, NAME)?;
        self.file = new;
        self.live = offset - HEADER.len() as u64;
        self.length = offset;
        self.places = places;
        // If this fails the old file may come back after a power cut, with all that was acknowledged until now.
        if let Err(error) = self.folder.sync() {
            self.failed = true;
            return Err(error.into());
        }
        Ok(())
    }
}

/// What a look through the whole file found.
#[derive(Default)]
struct Scan {
    places: BTreeMap<Key, Place>,
    live: u64,
    /// Where the last whole line ends.
    whole: u64,
    /// Where the file ends.
    end: u64,
}

fn scan(mut file: &File) -> Result<Scan, FileError> {
    file.seek(SeekFrom::Start(0))?;
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut header = String::new();
    // What is no text is no header.
    let read = reader.by_ref().take(HEADER.len() as u64).read_to_string(&mut header);
    if read.is_err() || header != HEADER {
        return Err(FileError::Foreign);
    }
    let mut found = Scan { end: HEADER.len() as u64, ..Scan::default() };
    let mut torn = None;
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let read = reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut bytes)? as u64;
        if read == 0 {
            break;
        }
        match (decode(&bytes), torn) {
            (Some(known), None) => {
                let place = Place { offset: found.end, length: u32::try_from(read - 1).unwrap_or(u32::MAX) };
                note(&mut found.places, &mut found.live, &known, place);
            }
            // A write that was cut short is the last there was.
            (Some(_), Some(torn)) => return Err(FileError::Damaged(torn)),
            (None, _) => torn = torn.or(Some(found.end)),
        }
        found.end += read;
    }
    found.whole = torn.unwrap_or(found.end);
    Ok(found)
}

/// The file, read beside a daemon that may run: what it writes from now on is passed over, or seen.
pub(super) struct Reading {
    file: File,
    places: Vec<Place>,
}

impl Reading {
    /// Looks through the file in this folder; `None` if it is not there.
    pub fn open(folder: &Path) -> Result<Option<Self>, FileError> {
        let file = match Folder::open(folder, false).and_then(|folder| folder.read(NAME)) {
            Err(error) if is_missing(&error) => return Ok(None),
            other => other?,
        };
        let mut places: Vec<Place> = scan(&file)?.places.into_values().collect();
        places.sort_by_key(|place| place.offset);
        Ok(Some(Self { file, places }))
    }

    /// How many accounts have hashes.
    pub fn accounts(&self) -> usize {
        self.places.len()
    }

    /// Of each account the line that counts, in the file's order.
    pub fn lines(&self) -> impl Iterator<Item = Result<Line, FileError>> + '_ {
        self.places.iter().map(|place| read_line(&self.file, *place))
    }
}

/// The line at a place.
fn read_line(file: &File, place: Place) -> Result<Line, FileError> {
    let mut bytes = vec![0; place.length as usize + 1];
    file.read_exact_at(&mut bytes, place.offset)?;
    decode(&bytes).ok_or(FileError::Damaged(place.offset))
}

/// Takes a line into account.
fn note(places: &mut BTreeMap<Key, Place>, live: &mut u64, known: &Line, place: Place) {
    let key = key(&known.application, &known.account);
    let bytes = |place: Place| u64::from(place.length) + 1;
    let old = if known.hashes.is_empty() { places.remove(&key) } else { places.insert(key, place) };
    *live -= old.map_or(0, bytes);
    if !known.hashes.is_empty() {
        *live += bytes(place);
    }
}

fn key(application: &ApplicationName, account: &AccountName) -> Key {
    // No name has a NUL.
    let digest = Sha256::digest(format!("{application}\0{account}"));
    let mut key = Key::default();
    key.copy_from_slice(&digest[..16]);
    key
}

fn checksum(text: &[u8]) -> String {
    let digest = Sha256::digest(text);
    digest[..CHECKSUM / 2].iter().fold(String::with_capacity(CHECKSUM), |mut text, byte| {
        use fmt::Write as _;
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn encode(line: &Line) -> Result<Vec<u8>, FileError> {
    let text = serde_json::to_string(line).map_err(io::Error::from)?;
    let bytes = format!("{} {text}\n", checksum(text.as_bytes())).into_bytes();
    if bytes.len() as u64 > MAX_LINE {
        return Err(FileError::Io(io::Error::from(io::ErrorKind::FileTooLarge)));
    }
    Ok(bytes)
}

/// A line with its line feed; `None` for what is not one, or not whole.
fn decode(bytes: &[u8]) -> Option<Line> {
    let text = bytes.strip_suffix(b"\n")?;
    let (sum, rest) = text.split_at_checked(CHECKSUM)?;
    let json = rest.strip_prefix(b" ")?;
    (checksum(json).as_bytes() == sum).then(|| serde_json::from_slice(json).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    struct Place {
        _folder: tempfile::TempDir,
        secrets: PathBuf,
        file: PathBuf,
    }

    fn place() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let secrets = folder.path().join("secrets");
        let file = secrets.join(NAME);
        Place { _folder: folder, secrets, file }
    }

    fn app() -> ApplicationName {
        "demo".parse().unwrap()
    }

    fn name(text: &str) -> AccountName {
        text.parse().unwrap()
    }

    fn kept(generation: &str) -> Kept {
        Kept { generation: generation.to_owned(), hash: format!("$argon2id$of-{generation}") }
    }

    fn generations(file: &HashFile, account: &str) -> Vec<String> {
        let hashes = file.hashes(&app(), &name(account)).unwrap();
        hashes.into_iter().map(|kept| kept.generation).collect()
    }

    #[test]
    fn a_file_that_is_not_its_own_is_refused_and_left_alone() {
        let place = place();
        drop(HashFile::open(&place.secrets).unwrap());
        for text in ["", "deputy", "root:$6$x:1:::::\n", "deputy passwords 2\n"] {
            fs::write(&place.file, text).unwrap();
            assert!(matches!(HashFile::open(&place.secrets), Err(FileError::Foreign)), "{text:?}");
            assert_eq!(fs::read_to_string(&place.file).unwrap(), text);
        }
        fs::write(&place.file, HEADER).unwrap();
        fs::set_permissions(&place.file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(HashFile::open(&place.secrets), Err(FileError::Folder(_))));
        fs::remove_file(&place.file).unwrap();
        std::os::unix::fs::symlink("/etc/shadow", &place.file).unwrap();
        assert!(matches!(HashFile::open(&place.secrets), Err(FileError::Folder(_))));
        assert_eq!(fs::metadata(&place.secrets).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn two_programs_do_not_have_it_at_once() {
        let place = place();
        let first = HashFile::open(&place.secrets).unwrap();
        assert!(matches!(HashFile::open(&place.secrets), Err(FileError::Folder(StoreError::Locked { .. }))));
        drop(first);
        HashFile::open(&place.secrets).unwrap();
    }

    #[test]
    fn a_torn_end_is_cut_and_a_damaged_middle_is_not_passed_over() {
        let place = place();
        let mut file = HashFile::open(&place.secrets).unwrap();
        file.put(&app(), &name("ann"), vec![kept("1")]).unwrap();
        let whole = fs::read(&place.file).unwrap();
        file.put(&app(), &name("ann"), vec![kept("2"), kept("1")]).unwrap();
        let both = fs::read(&place.file).unwrap();
        drop(file);
        for end in whole.len()..both.len() {
            fs::write(&place.file, &both[..end]).unwrap();
            let file = HashFile::open(&place.secrets).unwrap();
            assert_eq!(generations(&file, "ann"), ["1"], "cut at {end}");
            assert_eq!(fs::read(&place.file).unwrap(), whole);
        }
        let mut damaged = both;
        damaged[HEADER.len() + CHECKSUM + 5] ^= 1;
        fs::write(&place.file, &damaged).unwrap();
        assert!(
            matches!(HashFile::open(&place.secrets), Err(FileError::Damaged(offset)) if offset == HEADER.len() as u64)
        );
        assert_eq!(fs::read(&place.file).unwrap(), damaged);
    }

    #[test]
    fn the_last_line_of_an_account_counts_also_after_it_was_opened_again() {
        let place = place();
        let mut file = HashFile::open(&place.secrets).unwrap();
        assert!(generations(&file, "ann").is_empty());
        file.put(&app(), &name("ann"), vec![kept("1")]).unwrap();
        file.put(&app(), &name("ben"), vec![kept("5")]).unwrap();
        file.put(&app(), &name("ann"), vec![kept("2"), kept("1")]).unwrap();
        file.put(&app(), &name("ben"), vec![]).unwrap();
        for _ in 0..2 {
            assert_eq!(generations(&file, "ann"), ["2", "1"]);
            assert!(generations(&file, "ben").is_empty());
            assert!(file.hashes(&"other".parse().unwrap(), &name("ann")).unwrap().is_empty());
            drop(file);
            file = HashFile::open(&place.secrets).unwrap();
        }
        assert_eq!(fs::metadata(&place.file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!format!("{:?}", kept("1")).contains("argon2id"));
    }

    #[test]
    fn old_lines_are_left_out_when_they_are_most_of_it() {
        let place = place();
        let mut file = HashFile::open(&place.secrets).unwrap();
        file.put(&app(), &name("ben"), vec![kept("5")]).unwrap();
        let long = "x".repeat(4 << 10);
        for number in 0..400 {
            file.put(&app(), &name("ann"), vec![kept(&format!("{number}-{long}"))]).unwrap();
        }
        assert!(fs::metadata(&place.file).unwrap().len() < 1 << 20);
        for _ in 0..2 {
            assert_eq!(generations(&file, "ben"), ["5"]);
            assert!(generations(&file, "ann")[0].starts_with("399-"));
            drop(file);
            file = HashFile::open(&place.secrets).unwrap();
        }
        assert!(!place.secrets.join("passwords.new").exists());
    }
}
