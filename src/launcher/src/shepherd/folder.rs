//! A job's folder: whether its id has been used, for whom, and how it ended.

use std::cell::OnceCell;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use deputy_core::denial::{Code, Denial};
use deputy_core::ids::JobId;
use deputy_core::job::{Enforcement, ExitRecord, JobEnd, OsIdentity, RecordError, Usage};
use deputy_core::message::{JobState, LauncherReply, RunRequest};
use deputy_core::names::{AccountName, ApplicationName};
use deputy_core::stream::{Captured, CapturedStream, LeftOut};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use serde::{Deserialize, Serialize};

use super::capture::Files;
use crate::durable::{self, Prepared};
use crate::paths::{JOBS, control_socket, job_folder};

const MAX_RECORD: u64 = 64 * 1024;
const IDENTITY: &str = "identity";
const EXIT: &str = "exit";
/// Where the exit record is made ready while the job runs. It counts as the record once it is filled: only the name
/// may be missing after a power cut.
const PREPARED: &str = "exit.prepared";
const DENIED: &str = "denied";
const ABANDONED: &str = "abandoned";

/// For whom a job runs, for whoever looks for the jobs of a consent. What a later release adds to it is passed over: a job
/// must be found by whoever takes the consent back, whichever release started it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobIdentity {
    /// The application.
    pub application: ApplicationName,
    /// The account.
    pub account: AccountName,
    /// Where the shepherd listens.
    pub control: PathBuf,
    /// The OS account.
    pub os_account: OsIdentity,
}

/// The folder of a job that this process is the shepherd of.
pub struct JobFolder {
    path: PathBuf,
    control: PathBuf,
    /// The shepherd's listening socket.
    pub listener: OwnedFd,
    prepared: OnceCell<Prepared>,
}

fn used() -> Denial {
    Denial::new(Code::JobExists, "jobs", "this job id has been used or given up")
        .remedy("a new job needs a new id")
}

impl JobFolder {
    /// Makes the folder: the point from which the id has been used. The control socket is there first, so whoever
    /// sees the folder and finds nobody listening knows that the shepherd has gone.
    pub fn create(job: &JobId) -> Result<Self, Denial> {
        let failed = |error: io::Error| Denial::new(Code::Disk, "jobs", format!("the job's folder: {error}"));
        let path = job_folder(job);
        if path.exists() {
            return Err(used());
        }
        let control = control_socket(job);
        let listener = listen_at(&control).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => used(),
            _ => failed(error),
        })?;
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => Ok(Self { path, control, listener, prepared: OnceCell::new() }),
            Err(error) => {
                let _ = fs::remove_file(&control);
                Err(if error.kind() == io::ErrorKind::AlreadyExists { used() } else { failed(error) })
            }
        }
    }

    /// Writes down for whom the job runs.
    pub fn record_identity(&self, request: &RunRequest) -> Result<(), Denial> {
        let identity = JobIdentity {
            application: request.application.clone(),
            account: request.account.clone(),
            control: self.control.clone(),
            os_account: request.os_account.clone(),
        };
        let text = toml::to_string(&identity).map_err(|error| Denial::internal(error.to_string()))?;
        // Not synced: if the machine dies, so does the job.
        fs::write(self.path.join(IDENTITY), text).map_err(disk)
    }

    /// Makes the exit record's place on disk while the job runs and the shepherd would only wait. A job that ends on a
    /// full disk then still has its record.
    pub fn prepare_end(&self) {
        match Prepared::create(&self.path, PREPARED) {
            Ok(prepared) => drop(self.prepared.set(prepared)),
            // Then the record is made when the job has ended, or that fails as well.
            Err(error) => tracing::warn!(event = "exit_not_prepared", error = %error),
        }
    }

    /// Makes the files of a captured stream: root's, and nobody else's.
    pub fn capture(&self, stream: CapturedStream) -> Result<Files, Denial> {
        let create = |name: String| {
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.path.join(name))
        };
        let files = || -> io::Result<Files> {
            let left_out = create(left_out_name(stream))?;
            // Its room on the disk, so that there is some when the disk is full.
            left_out.write_all_at(&LeftOut::default().to_bytes(), 0)?;
            Ok(Files { bytes: create(stream.as_str().to_owned())?, left_out })
        };
        files().map_err(disk)
    }

    /// Writes down how the job ended. After an error it is not known to be on disk, and the job counts as lost.
    pub fn record_end(&self, record: &ExitRecord) -> Result<(), Denial> {
        let text = toml::to_string(record).map_err(|error| Denial::internal(error.to_string()))?;
        let Some(prepared) = self.prepared.get().filter(|_| text.len() <= Prepared::CAPACITY) else {
            return durable::replace(&self.path, EXIT, text.as_bytes()).map_err(disk);
        };
        let path = self.path.join(PREPARED);
        prepared.fill(&text).and_then(|()| fs::rename(&path, self.path.join(EXIT))).map_err(|error| {
            // What can be read but is not on disk must not count.
            let _ = fs::remove_file(&path);
            disk(error)
        })
    }

    /// Writes down why the job was refused, for a daemon that restarts before it has heard. What cannot be written
    /// is a job that was lost before it ran.
    pub fn record_denial(&self, denial: &Denial) {
        if let Ok(text) = toml::to_string(denial) {
            let _ = fs::write(self.path.join(DENIED), text);
        }
    }
}

impl Drop for JobFolder {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.control);
    }
}

fn disk(error: io::Error) -> Denial {
    Denial::new(Code::Disk, "jobs", format!("the job's record could not be written: {error}"))
        .remedy("make room on the file system of /var/lib/deputy")
}

fn listen_at(path: &Path) -> io::Result<OwnedFd> {
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, 16)?;
    Ok(socket)
}

/// The record of a job that has ended just now.
pub fn record(job: &JobId, end: JobEnd, usage: Usage, captured: Captured) -> ExitRecord {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ended_us = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
    ExitRecord {
        version: ExitRecord::VERSION,
        job: job.clone(),
        end,
        usage,
        cause: None,
        ended_us,
        captured,
        enforcement: Enforcement::default(),
    }
}

/// For whom a job runs, once that has been decided.
pub fn identity(job: &JobId) -> Option<JobIdentity> {
    let text = durable::read(&job_folder(job), IDENTITY, MAX_RECORD).ok().flatten()?;
    // It is written in place, so that it may be there in part.
    toml::from_str(&text).ok()
}

fn left_out_name(stream: CapturedStream) -> String {
    format!("{}.left-out", stream.as_str())
}

/// What was captured of a job's stream so far, for reading alone: its bytes, and what is left out of them. None where
/// there is no such job or it does not capture that stream.
pub fn captured(job: &JobId, stream: CapturedStream) -> io::Result<Option<Files>> {
    let folder = job_folder(job);
    let open = |name: &str| match File::open(folder.join(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    };
    let (bytes, left_out) = (open(stream.as_str())?, open(&left_out_name(stream))?);
    Ok(bytes.zip(left_out).map(|(bytes, left_out)| Files { bytes, left_out }))
}

/// Whether the id of a job has been used.
pub fn exists(job: &JobId) -> bool {
    job_folder(job).exists()
}

/// How a job of which nobody is the shepherd any more came out, if that is known.
pub fn outcome(job: &JobId) -> Option<LauncherReply> {
    let folder = job_folder(job);
    let read = |name: &str| durable::read(&folder, name, MAX_RECORD).ok().flatten();
    let record = |name: &str| match read(name).map(|text| ExitRecord::parse(&text))? {
        Ok(record) => Some(LauncherReply::Job(JobState::Ended(record))),
        // It has ended, and the release that wrote this can say how.
        Err(error @ RecordError::Later(_)) => Some(LauncherReply::Denied(
            Denial::new(Code::UnsupportedVersion, "jobs", error.to_string())
                .remedy("install the release again that wrote it"),
        )),
        Err(RecordError::Damaged(_)) => None,
    };
    // What a shepherd is filling just now is not on disk yet; what one has left is as good as it will be.
    let left = || (!super::watch::has_shepherd(job)).then(|| record(PREPARED)).flatten();
    if let Some(ended) = record(EXIT).or_else(left) {
        return Some(ended);
    }
    if let Some(denial) = read(DENIED).and_then(|text| toml::from_str::<Denial>(&text).ok()) {
        return Some(LauncherReply::Job(JobState::Refused(denial)));
    }
    folder.join(ABANDONED).exists().then(|| LauncherReply::Job(JobState::Refused(used())))
}

/// The jobs that have a folder and come after this one, so many at most, in order.
pub fn jobs_after(after: Option<&JobId>, most: usize) -> io::Result<Vec<JobId>> {
    let mut jobs: Vec<JobId> = fs::read_dir(JOBS)?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|job| after.is_none_or(|after| job > after))
        .collect();
    jobs.sort_unstable();
    jobs.truncate(most);
    Ok(jobs)
}

/// Removes what is left of a job that is over. The folder is root's alone and holds files only.
pub fn remove(job: &JobId) -> Result<(), Denial> {
    // A shepherd that was killed has left its socket.
    for removed in [fs::remove_dir_all(job_folder(job)), fs::remove_file(control_socket(job))] {
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Denial::new(
                    Code::Disk,
                    job_folder(job).display().to_string(),
                    error.to_string(),
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether nothing of a job can happen any more: it has an outcome, or its shepherd has gone.
pub fn is_over(job: &JobId) -> bool {
    exists(job) && (outcome(job).is_some() || !super::watch::has_shepherd(job))
}

/// Uses up an id that has never started.
pub fn abandon(job: &JobId) -> Result<(), Denial> {
    match DirBuilder::new().mode(0o700).create(job_folder(job)) {
        Ok(()) => {
            // That of a shepherd that was killed before it made the folder. One that is about to make it finds this one,
            // and removes its own socket.
            let _ = fs::remove_file(control_socket(job));
            fs::write(job_folder(job).join(ABANDONED), b"").map_err(disk)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(used()),
        Err(error) => Err(disk(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use deputy_core::job::{EndCause, Step};

    #[test]
    fn the_longest_record_fits_into_what_was_prepared() {
        // The largest numbers that TOML has.
        let number = i64::MAX.unsigned_abs();
        let usage = Usage {
            user_us: number,
            system_us: number,
            max_rss_kib: number,
            read_bytes: number,
            written_bytes: number,
            wall_us: number,
        };
        let longest = Step::ALL.iter().copied().max_by_key(|step| step.as_str().len()).unwrap();
        let end = JobEnd::LaunchFailed { step: longest, errno: i32::MIN };
        let captured = Captured { output: number, error: number };
        let mut record = record(&JobId::from_random([0xff; JobId::BYTES]), end, usage, captured);
        record.cause = Some(EndCause::ConsentRevoked);
        record.ended_us = number;
        record.enforcement = Enforcement::ProcessLimits;
        let text = toml::to_string(&record).unwrap();
        assert!(text.len() <= Prepared::CAPACITY, "{} bytes:\n{text}", text.len());
        assert_eq!(toml::from_str::<ExitRecord>(&text).unwrap(), record);
    }
}
