//! Files in root's own folders that are either there whole or not at all, also after a power cut.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Puts a file in place: written beside, synced, renamed, and the folder synced. An error of any of these is the
/// caller's to report: then it is not known to be on disk.
pub fn replace(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = folder.join(format!(".{name}.{}", deputy_sys::process::own_pid()));
    let written = write_new(&temporary, bytes)
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
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
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
}
