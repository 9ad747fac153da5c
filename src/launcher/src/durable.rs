//! Files in root's own folders that are either there whole or not at all, also after a power cut.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Puts a file in place: written beside, synced, renamed, and the folder synced. An error of any of these is the
/// caller's to report: then it is not known to be on disk.
pub fn replace(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    replace_with_mode(folder, name, bytes, 0o600)
}

/// The same for a file that everybody may read.
pub fn replace_for_all(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    replace_with_mode(folder, name, bytes, 0o644)
}

fn replace_with_mode(folder: &Path, name: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = folder.join(format!(".{name}.{}", deputy_sys::process::own_pid()));
    let written = write_new(&temporary, bytes)
        .and_then(|()| fs::set_permissions(&temporary, Permissions::from_mode(mode)))
        .and_then(|()| fs::rename(&temporary, folder.join(name)))
        .and_then(|()| sync_folder(folder));
    if written.is_err() {
        // What is half written has a name that nobody reads; taking it away is a courtesy.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A left-over of a process of the same pid that died here.
    let _ = fs::remove_file(path);
    create(path, bytes).map(drop)
}

fn create(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(file)
}

/// A file that is on disk, with its place in its folder, before it is known what it will hold: filling it is then one
/// write of one sector, which no power cut can halve, and needs no room and no new entry on the disk.
#[derive(Debug)]
pub struct Prepared(File);

impl Prepared {
    /// The most bytes that it takes: what every disk writes whole or not at all.
    pub const CAPACITY: usize = 512;

    /// What it is filled with until then, and afterwards behind the text.
    const FILLER: u8 = b'\n';

    /// Makes one that is not there yet, and puts it, its folder, and its folder's own entry on disk.
    pub fn create(folder: &Path, name: &str) -> io::Result<Self> {
        let file = create(&folder.join(name), &[Self::FILLER; Self::CAPACITY])?;
        sync_folder(folder)?;
        folder.parent().map_or(Ok(()), sync_folder)?;
        Ok(Self(file))
    }

    /// Puts the text into it, on disk.
    pub fn fill(&self, text: &str) -> io::Result<()> {
        let mut bytes = [Self::FILLER; Self::CAPACITY];
        let Some(place) = bytes.get_mut(..text.len()) else {
            return Err(io::Error::other("the record is larger than what was prepared"));
        };
        place.copy_from_slice(text.as_bytes());
        self.0.write_all_at(&bytes, 0)?;
        self.0.sync_data()
    }
}

/// Removes a file and makes sure that it stays removed. Whether there was one.
pub fn remove(folder: &Path, name: &str) -> io::Result<bool> {
    match fs::remove_file(folder.join(name)) {
        Ok(()) => sync_folder(folder).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes sure that the names in a folder are on disk.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The text of a small file in root's own folders; none if there is none.
pub fn read(folder: &Path, name: &str, limit: u64) -> io::Result<Option<String>> {
    use std::io::Read as _;
    let file = match File::open(folder.join(name)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    file.take(limit + 1).read_to_string(&mut text)?;
    if text.len() as u64 > limit {
        return Err(io::Error::other("the file is too large"));
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_leaves_nothing_beside() {
        let folder = tempfile::tempdir().unwrap();
        replace(folder.path(), "a", b"one").unwrap();
        replace(folder.path(), "a", b"two").unwrap();
        assert_eq!(read(folder.path(), "a", 10).unwrap().as_deref(), Some("two"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(read(folder.path(), "a", 2).is_err());
        assert!(remove(folder.path(), "a").unwrap());
        assert!(!remove(folder.path(), "a").unwrap());
        assert_eq!(read(folder.path(), "a", 10).unwrap(), None);
        assert!(replace(&folder.path().join("absent"), "a", b"x").is_err());
    }

    #[test]
    fn a_prepared_file_is_blank_until_it_is_filled_and_takes_no_more_than_a_sector() {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("job");
        fs::create_dir(&folder).unwrap();
        let prepared = Prepared::create(&folder, "a").unwrap();
        assert!(Prepared::create(&folder, "a").is_err());
        let text = || read(&folder, "a", 1024).unwrap().unwrap();
        assert_eq!(text().trim(), "");
        assert!(prepared.fill(&"x".repeat(Prepared::CAPACITY + 1)).is_err());
        assert_eq!(text().trim(), "");
        prepared.fill("one = 1\n").unwrap();
        assert_eq!(text().trim(), "one = 1");
        assert_eq!(text().len(), Prepared::CAPACITY);
    }
}
