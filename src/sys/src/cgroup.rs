//! Cgroups of version 2, by plain files: a job's own folder below the one that was delegated to Deputy.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use deputy_core::ids::JobId;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// The cgroup of one job.
#[derive(Debug)]
pub struct JobCgroup(PathBuf);

impl JobCgroup {
    /// Makes the job's cgroup below the delegated folder; none where there is no such folder.
    pub fn create(parent: &Path, job: &JobId) -> io::Result<Option<Self>> {
        if !parent.join("cgroup.procs").exists() {
            return Ok(None);
        }
        let path = parent.join(job.as_str());
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(Some(Self(path))),
        }
    }

    /// The job's cgroup if it exists.
    pub fn find(parent: &Path, job: &JobId) -> Option<Self> {
        let path = parent.join(job.as_str());
        path.join("cgroup.procs").exists().then_some(Self(path))
    }

    /// Its folder, for a process to start in it.
    pub fn folder(&self) -> io::Result<OwnedFd> {
        Ok(File::open(&self.0)?.into())
    }

    /// Kills every process in it, however they fork (Linux 5.14).
    pub fn kill(&self) -> io::Result<()> {
        File::options().write(true).open(self.0.join("cgroup.kill"))?.write_all(b"1")
    }

    /// Removes it. The kernel may need a moment after the last process has been waited for.
    pub fn remove(&self) -> io::Result<()> {
        for _ in 0..50 {
            match fs::remove_dir(&self.0) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                other => return other,
            }
        }
        fs::remove_dir(&self.0)
    }
}

/// Whether a process is in the cgroup `folder` or below it. The process is held by a pidfd while its entry is read, so
/// that the answer is about it and not about a later process of the same pid; if it has gone, the answer is an error.
pub fn contains(folder: &Path, pid: i32) -> io::Result<bool> {
    let Some(group) = path_in_hierarchy(folder)? else { return Ok(false) };
    let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::other("the process is not visible here"))?;
    let handle = pidfd_open(pid, PidfdFlags::empty())?;
    let text = fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_nonzero()))?;
    if has_ended(handle.as_fd())? {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    Ok(text.lines().filter_map(|line| line.strip_prefix("0::")).any(|path| is_below(path, &group)))
}

fn is_below(path: &str, group: &str) -> bool {
    path == group || path.strip_prefix(group).is_some_and(|rest| rest.starts_with('/') || group == "/")
}

fn has_ended(pidfd: std::os::fd::BorrowedFd<'_>) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut set = [PollFd::new(&pidfd, PollFlags::IN)];
    Ok(poll(&mut set, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? > 0)
}

/// The path of a cgroup folder as `/proc/PID/cgroup` writes it: relative to where the hierarchy is mounted.
fn path_in_hierarchy(folder: &Path) -> io::Result<Option<String>> {
    if !folder.exists() {
        return Ok(None);
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let mut best: Option<(usize, String)> = None;
    for line in mounts.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        if !after.starts_with("cgroup2 ") {
            continue;
        }
        let mut fields = before.split(' ').skip(3);
        let (Some(root), Some(point)) = (fields.next(), fields.next()) else { continue };
        let Ok(rest) = folder.strip_prefix(point) else { continue };
        if best.as_ref().is_none_or(|(length, _)| point.len() >= *length) {
            let joined = Path::new(root).join(rest);
            best = Some((point.len(), joined.to_string_lossy().trim_end_matches('/').to_owned()));
        }
    }
    Ok(best.map(|(_, path)| if path.is_empty() { "/".to_owned() } else { path }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn below_means_at_a_border_of_names() {
        assert!(is_below("/a/b", "/a"));
        assert!(is_below("/a", "/a"));
        assert!(!is_below("/ab", "/a"));
        assert!(!is_below("/", "/a"));
    }

    #[test]
    fn a_folder_that_is_no_cgroup_contains_nobody() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!contains(folder.path(), crate::process::own_pid()).unwrap());
        assert!(!contains(Path::new("/does/not/exist"), 1).unwrap());
        let job = JobId::from_random([1; 10]);
        assert!(JobCgroup::create(folder.path(), &job).unwrap().is_none());
    }
}
