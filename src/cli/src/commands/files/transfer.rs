//! Files that come and go: in whole or not at all.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use deputy_core::denial::Code;
use zbus::Variant;

use super::Caller;
use super::progress::Progress;
use crate::failure::Failure;

/// Bytes that are copied at once.
const CHUNK: usize = 1024 * 1024;

/// On which side a copy failed.
#[derive(Debug)]
pub enum CopyError {
    /// On that it was read from.
    Reading(io::Error),
    /// On that it was written to.
    Writing(io::Error),
}

impl From<CopyError> for Failure {
    fn from(error: CopyError) -> Self {
        let (CopyError::Reading(error) | CopyError::Writing(error)) = error;
        error.into()
    }
}

/// The name beside a file, under which it comes into being.
fn beside(path: &OsStr) -> OsString {
    let mut name = path.to_owned();
    name.push(format!(".{}.part", std::process::id()));
    name
}

/// `file get`.
pub async fn get(caller: &Caller, path: &OsStr, local: &OsStr) -> Result<(), Failure> {
    let mut file = caller.open(path, &[]).await?.0;
    let size = file.metadata()?.len();
    let part = beside(local);
    let copied = || -> Result<(), Failure> {
        let mut here = File::create_new(&part)?;
        copy(&mut file, &mut here, &mut Progress::new(Some(size)))?;
        here.sync_all()?;
        Ok(std::fs::rename(&part, local)?)
    }();
    if copied.is_err() {
        // Nothing is left by half; that it could not be made is told already.
        let _ = std::fs::remove_file(&part);
    }
    copied
}

/// `file put`: writes beside, looks at the length, has it on the disk, and renames.
pub async fn put(
    caller: &Caller,
    local: &OsStr,
    path: &OsStr,
    mode: Option<String>,
    no_replace: bool,
) -> Result<(), Failure> {
    let mut here: Box<dyn Read> =
        if local == "-" { Box::new(io::stdin().lock()) } else { Box::new(File::open(local)?) };
    let size = if local == "-" { None } else { Some(Path::new(local).metadata()?.len()) };
    let part = beside(path);
    let mut flags: Vec<(&str, Variant<'static>)> =
        ["write", "create", "exclusive", "keep"].map(|flag| (flag, true.into())).into();
    flags.extend(mode.map(|mode| ("mode", mode.into())));
    let (mut file, handle) = caller.open_with(&part, flags).await?;
    let written = async {
        let count = match copy(&mut here, &mut file, &mut Progress::new(size)) {
            Err(CopyError::Writing(error)) => return Err(caller.with_room(&error).await),
            other => other?,
        };
        if file.metadata()?.len() != count {
            return Err(Failure::new(Code::FileError, "the file is not as long as what was written"));
        }
        let body = (caller.name(), handle.as_str(), caller.options(Vec::new()));
        caller.bus.call::<_, ()>("Files", "Commit", &body).await?;
        let options = caller.options(vec![("no_replace", no_replace.into())]);
        let body = (caller.name(), part.as_bytes(), path.as_bytes(), options);
        caller.bus.call::<_, ()>("Files", "Rename", &body).await
    }
    .await;
    if written.is_err() {
        // What went wrong counts, and not that this did too. What is kept would go on taking room.
        let _ = caller.on("Remove", &part, vec![("missing_ok", true.into())]).await;
        let body = (caller.name(), handle.as_str(), caller.options(vec![("discard", true.into())]));
        let _ = caller.bus.call::<_, ()>("Files", "Commit", &body).await;
    }
    written
}

/// Copies all, and tells how far it is.
pub fn copy(from: &mut dyn Read, to: &mut dyn Write, progress: &mut Progress) -> Result<u64, CopyError> {
    let (mut buffer, mut copied) = (vec![0; CHUNK], 0);
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other.map_err(CopyError::Reading)?,
        };
        to.write_all(&buffer[..count]).map_err(CopyError::Writing)?;
        copied += count as u64;
        progress.show(copied);
    }
    to.flush().map_err(CopyError::Writing)?;
    progress.end();
    Ok(copied)
}
