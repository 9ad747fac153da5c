//! What a job writes to a file, read and followed as its OS account.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, ErrorKind, Seek as _, SeekFrom, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use deputy_core::denial::Code;
use zbus::Variant;

use super::logs::has_ended;
use crate::bus::{Bus, CallOptions};
use crate::failure::Failure;
use crate::options::ByOption;
use crate::value::Dictionary;

/// How often it is looked for more.
const PAUSE: Duration = Duration::from_millis(250);

/// The file of one stream of one job.
pub struct LogFile {
    path: PathBuf,
    application: String,
    /// The account, or the session that asks.
    subject: String,
    /// Whether the caller is the OS account himself, and needs nobody to open it.
    own: bool,
}

impl LogFile {
    /// By the job's record.
    pub fn of(record: &Dictionary, stream: &str, by: &ByOption) -> Result<Self, Failure> {
        let text = |key: &str| match record.get(key).map(|value| &**value) {
            Some(Variant::Str(text)) => text.as_str().to_owned(),
            _ => String::new(),
        };
        let path_of = |key: &str| match record.get(key).map(|value| &**value) {
            Some(Variant::Array(array)) => {
                let bytes: Vec<u8> = array.iter().filter_map(|item| u8::try_from(item).ok()).collect();
                Some(PathBuf::from(OsString::from_vec(bytes)))
            }
            _ => None,
        };
        let path = path_of(stream).unwrap_or_default();
        let path = if path.is_absolute() {
            path
        } else {
            let folder = path_of("directory").ok_or_else(|| {
                Failure::new(
                    Code::InvalidArgument,
                    "the file's name is one below the OS account's home directory",
                )
                .remedy("name the file by its whole path, with 'deputyctl file cat'")
            })?;
            folder.join(path)
        };
        let session = by.by.as_ref().filter(|by| by.starts_with('/'));
        Ok(Self {
            path,
            application: text("application"),
            subject: session.cloned().unwrap_or_else(|| text("account")),
            own: matches!(record.get("uid").map(|value| &**value),
                Some(Variant::U32(uid)) if *uid == rustix::process::getuid().as_raw()),
        })
    }

    /// Prints it from a byte on, to the job's end if it is followed.
    pub async fn print(&self, bus: &Bus, job: &str, follow: bool, offset: u64) -> Result<ExitCode, Failure> {
        let (mut file, mut position) = (None, offset);
        loop {
            // Asked before the reading: what is written before the end is then read.
            let ended = !follow || has_ended(bus, job).await.unwrap_or(false);
            if file.is_none() {
                match self.open(bus).await {
                    Ok(opened) => file = Some(opened),
                    // It has not begun.
                    Err(failure) if !ended && failure.code == "FileError" => {}
                    Err(failure) => return Err(failure),
                }
            }
            if let Some(file) = &mut file {
                // A further run of the job has begun it anew.
                if position > offset && file.metadata()?.len() < position {
                    position = 0;
                }
                position += copy(file, position)?;
            }
            if ended {
                return Ok(ExitCode::SUCCESS);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn open(&self, bus: &Bus) -> Result<File, Failure> {
        if self.own {
            return open_own(&self.path);
        }
        let options = CallOptions::from([("application", self.application.as_str().into())]);
        let body = (self.subject.as_str(), self.path.as_os_str().as_bytes(), options);
        let (file, _): (zbus::OwnedFd, String) = bus.call("Files", "Open", &body).await?;
        Ok(OwnedFd::from(file).into())
    }
}

fn open_own(path: &Path) -> Result<File, Failure> {
    File::open(path).map_err(|error| {
        let code = if error.kind() == ErrorKind::NotFound { Code::FileError } else { Code::InvalidArgument };
        Failure::new(code, format!("{}: {error}", path.display()))
    })
}

/// Copies what there is from a byte on to standard output; how much that was.
fn copy(file: &mut File, position: u64) -> io::Result<u64> {
    file.seek(SeekFrom::Start(position))?;
    let mut output = io::stdout().lock();
    let copied = io::copy(file, &mut output)?;
    output.flush()?;
    Ok(copied)
}
