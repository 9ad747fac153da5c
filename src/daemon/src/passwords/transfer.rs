//! The hashes of passwords in an export: a part of its own, before the store's.
//!
//! A first line says how many accounts there are; then comes one line of JSON for each. Hashes let whoever reads them
//! try passwords at leisure, so they are exported only when that is asked for, into a file that nobody else can read.

use std::io::{BufRead, Read as _, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::file::{FileError, HashFile, Line, Reading};
use super::hasher;

/// The version of this part's form.
const VERSION: u32 = 1;

/// The longest line of an import.
const MAX_LINE: u64 = 16 << 10;

/// The first line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    deputy_passwords: u32,
    accounts: u64,
}

/// Writes the hashes of all accounts. Works while the daemon runs. What the ledger said before has its hash here, since a
/// hash is on disk before the ledger's record of it. Returns how many accounts have one.
///
/// # Errors
///
/// The file is damaged or not the daemon's alone, or the output was not taken.
pub fn export(folder: &Path, out: &mut impl Write) -> Result<u64, FileError> {
    let reading = Reading::open(folder)?;
    let accounts = reading.as_ref().map_or(0, Reading::accounts) as u64;
    write_line(out, &Head { deputy_passwords: VERSION, accounts })?;
    for line in reading.iter().flat_map(Reading::lines) {
        write_line(out, &line?)?;
    }
    Ok(accounts)
}

fn write_line(out: &mut impl Write, line: &impl Serialize) -> Result<(), FileError> {
    let mut bytes = serde_json::to_vec(line).map_err(std::io::Error::from)?;
    bytes.push(b'\n');
    Ok(out.write_all(&bytes)?)
}

/// Whether the first line of an export says that passwords come first.
#[must_use]
pub fn begins_with_passwords(first_line: &[u8]) -> bool {
    serde_json::from_slice::<Head>(first_line).is_ok()
}

/// Hashes that came in, and go again unless the rest of the export comes in too.
pub struct Imported {
    file: HashFile,
    /// How many accounts have one.
    pub accounts: u64,
}

impl Imported {
    /// Forgets them.
    ///
    /// # Errors
    ///
    /// The disk did not take it.
    pub fn undo(mut self) -> Result<(), FileError> {
        self.file.clear()
    }
}

/// Takes the hashes of an export into a file that has none. The daemon must not run. All are taken, or none.
///
/// # Errors
///
/// There are hashes already, a line is wrong, or the disk did not take them.
pub fn import(folder: &Path, first_line: &[u8], input: &mut impl BufRead) -> Result<Imported, FileError> {
    let wrong = |line: u64, what: String| FileError::Import { line, what };
    let head: Head = serde_json::from_slice(first_line).map_err(|error| wrong(1, error.to_string()))?;
    if head.deputy_passwords != VERSION {
        return Err(wrong(1, format!("version {} is not known here", head.deputy_passwords)));
    }
    let mut file = HashFile::open(folder)?;
    if !file.is_empty() {
        return Err(FileError::NotEmpty);
    }
    let mut bytes = Vec::new();
    file.fill((2..2 + head.accounts).map(|number| {
        bytes.clear();
        let read = input.by_ref().take(MAX_LINE).read_until(b'\n', &mut bytes);
        read.map_err(|error| wrong(number, error.to_string()))?;
        // No word of the line itself: it would be a hash.
        let line: Line = serde_json::from_slice(&bytes)
            .map_err(|error| wrong(number, format!("no account's hashes, at column {}", error.column())))?;
        if line.hashes.is_empty() || line.hashes.iter().any(|kept| !hasher::is_hash(&kept.hash)) {
            return Err(wrong(number, format!("account {} has what is no hash", line.account)));
        }
        Ok(line)
    }))?;
    Ok(Imported { file, accounts: head.accounts })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passwords::file::Kept;
    use std::path::PathBuf;

    const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$\
                        aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g";

    fn kept(generation: &str) -> Kept {
        Kept { generation: generation.to_owned(), hash: HASH.to_owned() }
    }

    fn secrets(place: &tempfile::TempDir) -> PathBuf {
        place.path().join("secrets")
    }

    /// An export of two accounts; `gone` had a password once.
    fn exported(place: &tempfile::TempDir) -> String {
        let mut file = HashFile::open(&secrets(place)).unwrap();
        for (account, hashes) in [
            ("ann", vec![kept("1")]),
            ("gone", vec![kept("7")]),
            ("ann", vec![kept("2"), kept("1")]),
            ("ben", vec![kept("3")]),
            ("gone", vec![]),
        ] {
            file.put(&"demo".parse().unwrap(), &account.parse().unwrap(), hashes).unwrap();
        }
        // The daemon has it open still.
        let mut out = Vec::new();
        assert_eq!(export(&secrets(place), &mut out).unwrap(), 2);
        String::from_utf8(out).unwrap()
    }

    fn take(place: &tempfile::TempDir, text: &str) -> Result<Imported, FileError> {
        let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
        import(&secrets(place), first.as_bytes(), &mut rest.as_bytes())
    }

    fn generations(place: &tempfile::TempDir, account: &str) -> Vec<String> {
        let file = HashFile::open(&secrets(place)).unwrap();
        let hashes = file.hashes(&"demo".parse().unwrap(), &account.parse().unwrap()).unwrap();
        hashes.into_iter().map(|kept| kept.generation).collect()
    }

    #[test]
    fn what_is_wrong_in_one_line_is_refused_whole_and_says_no_hash() {
        let place = tempfile::tempdir().unwrap();
        let text = exported(&place);
        let other = tempfile::tempdir().unwrap();
        let shorter = text.trim_end().rsplit_once('\n').unwrap().0.to_owned() + "\n";
        for (bad, line) in [
            (text.replacen("\"deputy_passwords\":1", "\"deputy_passwords\":2", 1), 1),
            (shorter, 3),
            (text.replacen("\"ben\"", "\"b:n\"", 1), 3),
            (text.replacen("$argon2id$", "$argon2i$", 1), 2),
            (text.replacen(HASH, "lantern", 1), 2),
            (text.replacen("\"hashes\"", "\"hash\"", 1), 2),
        ] {
            let error = take(&other, &bad).err().expect("refused").to_string();
            assert!(error.starts_with(&format!("passwords, line {line}:")), "{error}");
            assert!(!error.contains("argon2") && !error.contains("lantern"), "{error}");
            assert!(generations(&other, "ann").is_empty());
        }
        assert!(matches!(take(&place, &text), Err(FileError::NotEmpty)));
        assert_eq!(generations(&place, "ann"), ["2", "1"]);
    }

    #[test]
    fn what_was_exported_comes_in_and_goes_again_where_the_rest_does_not() {
        let place = tempfile::tempdir().unwrap();
        let text = exported(&place);
        assert!(begins_with_passwords(text.lines().next().unwrap().as_bytes()));
        assert!(!begins_with_passwords(b"{\"deputy_export\":1}"));
        assert!(!text.contains("gone"), "{text}");
        let other = tempfile::tempdir().unwrap();
        take(&other, &text).unwrap().undo().unwrap();
        assert!(generations(&other, "ann").is_empty());
        assert_eq!(take(&other, &text).unwrap().accounts, 2);
        assert_eq!(generations(&other, "ann"), ["2", "1"]);
        assert_eq!(generations(&other, "ben"), ["3"]);
        let mut again = Vec::new();
        export(&secrets(&other), &mut again).unwrap();
        assert_eq!(String::from_utf8(again).unwrap(), text);
    }

    #[test]
    fn where_there_never_was_a_password_there_is_nothing_to_export() {
        let place = tempfile::tempdir().unwrap();
        let mut out = Vec::new();
        assert_eq!(export(&secrets(&place), &mut out).unwrap(), 0);
        assert_eq!(take(&place, std::str::from_utf8(&out).unwrap()).unwrap().accounts, 0);
    }
}
