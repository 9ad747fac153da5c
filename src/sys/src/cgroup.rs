//! Cgroups of version 2, by plain files: a job's own folder below the one that was delegated to Deputy.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::iter;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use deputy_core::ids::JobId;
use deputy_core::limits::ResourceLimits;
use deputy_core::size::MilliCpus;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// The name of the folder that is made where the configured one does not exist.
const OWN_FOLDER: &str = "deputy-jobs";

/// The controllers that a job has a use for. What the machine does not pass on is not there.
const CONTROLLERS: [&str; 4] = ["memory", "cpu", "pids", "io"];

/// For how long what was killed may take to go; a process that hangs in the kernel takes longer.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// Where jobs have their cgroups: in the configured folder, or in one of Deputy's own at the top of the first hierarchy
/// of version 2 that is mounted, so that ending a job is exact on machines without systemd, too, and on those where
/// version 1 has the controllers. New jobs go to the first; both are looked at for those that run.
///
/// What is mounted is read only by who looks beyond the configured folder: the kernel writes it all down each time.
fn jobs_folders(configured: &Path) -> impl Iterator<Item = PathBuf> {
    let configured = configured.join(PROCESSES).exists().then(|| configured.to_owned());
    configured.into_iter().chain(iter::once_with(own_folder).flatten())
}

fn own_folder() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().find_map(cgroup2_mount).map(|(_, point)| Path::new(point).join(OWN_FOLDER))
}

/// The file by which a folder is known to be a cgroup.
const PROCESSES: &str = "cgroup.procs";

/// The root and the mount point that a line of `proc_pid_mountinfo(5)` gives for a hierarchy of version 2.
fn cgroup2_mount(line: &str) -> Option<(&str, &str)> {
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    after.starts_with("cgroup2 ").then_some((root, point))
}

/// The cgroup of one job.
#[derive(Debug)]
pub struct JobCgroup {
    path: PathBuf,
    controllers: Vec<&'static str>,
}

/// The folders that jobs have cgroups in, looked for once for many jobs.
#[derive(Debug)]
pub struct JobCgroups(Vec<PathBuf>);

impl JobCgroups {
    /// Those that there are.
    pub fn look_up(configured: &Path) -> Self {
        Self(jobs_folders(configured).collect())
    }

    /// A job's cgroup if it exists.
    pub fn find(&self, job: &JobId) -> Option<JobCgroup> {
        let mut paths = self.0.iter().map(|folder| folder.join(job.as_str()));
        let path = paths.find(|path| path.join(PROCESSES).exists())?;
        Some(JobCgroup { path, controllers: Vec::new() })
    }

    /// The jobs that have one.
    pub fn jobs(&self) -> Vec<JobId> {
        let entries = self.0.iter().filter_map(|folder| fs::read_dir(folder).ok());
        entries.flatten().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }
}

/// What the processes of a cgroup used. What is absent is not counted on this machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CgroupUsage {
    /// CPU time in user mode and in the kernel, microseconds.
    pub cpu_us: Option<(u64, u64)>,
    /// The most memory at one moment, bytes.
    pub memory_peak: Option<u64>,
    /// Bytes read from and written to block devices.
    pub io_bytes: Option<(u64, u64)>,
}

impl JobCgroup {
    /// Makes the job's cgroup; none where no cgroup can be made.
    ///
    /// # Errors
    /// If the configured folder is a cgroup, and none can be made below it.
    pub fn create(configured: &Path, job: &JobId) -> io::Result<Option<Self>> {
        let Some(parent) = jobs_folders(configured).next() else { return Ok(None) };
        let path = parent.join(job.as_str());
        let made = match fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_if_absent(&parent).and_then(|()| make_if_absent(&path))
            }
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        };
        match made {
            Ok(()) => {}
            Err(error) if parent == configured => return Err(error),
            // Somebody else's hierarchy, read-only in a container, say.
            Err(_) => return Ok(None),
        }
        // Whatever the umask: runtimes of languages size themselves by what the files in it say, as after a login.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        // Below a threaded group no process can start.
        if parent != configured && !is_domain(&path) {
            let _ = fs::remove_dir(&path);
            return Ok(None);
        }
        let controllers = controllers(&parent, &path);
        Ok(Some(Self { path, controllers }))
    }

    /// Its folder, for a process to start in it.
    pub fn folder(&self) -> io::Result<OwnedFd> {
        Ok(File::open(&self.path)?.into())
    }

    /// Whether this controller holds its processes.
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.contains(&controller)
    }

    /// Sets those of the ceilings for which it has a controller: memory, with no swap beside it and the end of the whole
    /// job where it is not enough, CPU time, and the number of processes.
    pub fn set_ceilings(&self, limits: &ResourceLimits) -> io::Result<()> {
        if let Some(memory) = limits.memory.filter(|_| self.has("memory")) {
            self.write("memory.max", &memory.0.to_string())?;
            self.write("memory.oom.group", "1")?;
            match self.write("memory.swap.max", "0") {
                // A kernel that does not count swap.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        if let Some(cpus) = limits.cpus.filter(|_| self.has("cpu")) {
            self.write("cpu.max", &cpu_max(cpus))?;
        }
        if let Some(pids) = limits.pids.filter(|_| self.has("pids")) {
            self.write("pids.max", &pids.to_string())?;
        }
        Ok(())
    }

    /// Kills every process in it, however they fork (Linux 5.14).
    pub fn kill(&self) -> io::Result<()> {
        self.write("cgroup.kill", "1")
    }

    /// Kills what is in it until nothing is left, and removes it.
    ///
    /// # Errors
    /// If something is left after a while.
    pub fn end(&self) -> io::Result<()> {
        let end = Instant::now() + KILL_PATIENCE;
        let events = File::open(self.path.join("cgroup.events"))?;
        while self.is_populated() && Instant::now() < end {
            self.kill()?;
            // The kernel tells of each change of that file.
            let mut set = [PollFd::new(&events, PollFlags::PRI)];
            let _ = poll(&mut set, Some(&Timespec { tv_sec: 0, tv_nsec: 20_000_000 }));
        }
        self.remove()
    }

    /// Whether a process is in it.
    pub fn is_populated(&self) -> bool {
        self.number("cgroup.events", "populated").is_some_and(|populated| populated != 0)
    }

    /// Whether the kernel ended something of it because there was no more memory for it.
    pub fn ran_out_of_memory(&self) -> bool {
        self.number("memory.events", "oom_kill").is_some_and(|kills| kills > 0)
    }

    /// What its processes have used so far, those that have ended included.
    pub fn usage(&self) -> CgroupUsage {
        let cpu = self.read("cpu.stat").unwrap_or_default();
        let io = self.has("io").then(|| self.read("io.stat")).flatten();
        CgroupUsage {
            cpu_us: number(&cpu, "user_usec").zip(number(&cpu, "system_usec")),
            memory_peak: self.read("memory.peak").and_then(|text| text.trim().parse().ok()),
            io_bytes: io.map(|text| (sum(&text, "rbytes="), sum(&text, "wbytes="))),
        }
    }

    /// Removes it. The kernel may need a moment after the last process has been waited for.
    pub fn remove(&self) -> io::Result<()> {
        for _ in 0..50 {
            match fs::remove_dir(&self.path) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                other => return other,
            }
        }
        fs::remove_dir(&self.path)
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        // These files exist or they do not: nothing is ever created here.
        File::options().write(true).open(self.path.join(file))?.write_all(text.as_bytes())
    }

    fn read(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.path.join(file)).ok()
    }

    /// The number of one line of a file of `KEY NUMBER` lines.
    fn number(&self, file: &str, key: &str) -> Option<u64> {
        number(&self.read(file)?, key)
    }
}

fn number(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok())
}

fn make_if_absent(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn is_domain(folder: &Path) -> bool {
    fs::read_to_string(folder.join("cgroup.type")).is_ok_and(|text| text.trim() == "domain")
}

/// The controllers of the job's folder, of those that Deputy uses. What its parent has and does not pass on yet is
/// turned on there, which the kernel allows where the parent has no process of its own.
fn controllers(parent: &Path, folder: &Path) -> Vec<&'static str> {
    let of = |folder: &Path| {
        let text = fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
        CONTROLLERS
            .into_iter()
            .filter(|name| text.split_ascii_whitespace().any(|word| word == *name))
            .collect()
    };
    let there: Vec<_> = of(folder);
    let missing: Vec<_> = of(parent).into_iter().filter(|name| !there.contains(name)).collect();
    if missing.is_empty() {
        return there;
    }
    for name in missing {
        let control = File::options().write(true).open(parent.join("cgroup.subtree_control"));
        let _ = control.and_then(|mut file| file.write_all(format!("+{name}").as_bytes()));
    }
    of(folder)
}

/// The text of `cpu.max`: so many microseconds of CPU time in each period. A tenth of a second is the usual period; the
/// kernel wants a quota of at least a thousandth, and for that little the period is longer.
fn cpu_max(cpus: MilliCpus) -> String {
    let period_us: u64 = if cpus.0 < 10 { 1_000_000 } else { 100_000 };
    format!("{} {period_us}", u64::from(cpus.0) * period_us / 1000)
}

/// The sum of a key's numbers over all devices of `io.stat`.
fn sum(text: &str, key: &str) -> u64 {
    text.split_ascii_whitespace().filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok()).sum()
}

/// Whether a process is in one of the jobs' cgroups. The process is held by a pidfd while its entry is read, so
/// that the answer is about it and not about a later process of the same pid; if it has gone, the answer is an error.
pub fn contains(configured: &Path, pid: i32) -> io::Result<bool> {
    let mut groups = Vec::new();
    for folder in jobs_folders(configured) {
        groups.extend(path_in_hierarchy(&folder)?);
    }
    if groups.is_empty() {
        return Ok(false);
    }
    let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::other("the process is not visible here"))?;
    let handle = pidfd_open(pid, PidfdFlags::empty())?;
    let text = fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_nonzero()))?;
    if has_ended(handle.as_fd())? {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    Ok(text
        .lines()
        .filter_map(|line| line.strip_prefix("0::"))
        .any(|path| groups.iter().any(|group| is_below(path, group))))
}

fn is_below(path: &str, group: &str) -> bool {
    path == group || path.strip_prefix(group).is_some_and(|rest| rest.starts_with('/') || group == "/")
}

fn has_ended(pidfd: std::os::fd::BorrowedFd<'_>) -> io::Result<bool> {
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
        let Some((root, point)) = cgroup2_mount(line) else { continue };
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
    fn mounts_of_version_2_are_told_from_others() {
        let line = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw";
        assert_eq!(cgroup2_mount(line), Some(("/", "/sys/fs/cgroup/unified")));
        assert_eq!(cgroup2_mount("40 31 0:37 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids"), None);
        assert_eq!(cgroup2_mount(""), None);
    }

    #[test]
    fn cpus_are_a_quota_that_the_kernel_takes() {
        assert_eq!(cpu_max(MilliCpus(1500)), "150000 100000");
        assert_eq!(cpu_max(MilliCpus(10)), "1000 100000");
        assert_eq!(cpu_max(MilliCpus(1)), "1000 1000000");
        assert_eq!(cpu_max(MilliCpus(u32::MAX)), "429496729500 100000");
    }

    #[test]
    fn the_bytes_of_all_devices_are_summed() {
        let text =
            "8:0 rbytes=1 wbytes=20 rios=1 wios=1 dbytes=0 dios=0\n8:16 rbytes=2 wbytes=30 rios=0 wios=0\n";
        assert_eq!((sum(text, "rbytes="), sum(text, "wbytes=")), (3, 50));
        assert_eq!(sum("", "rbytes="), 0);
    }

    #[test]
    fn who_is_in_no_job_is_not_said_to_be() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!contains(folder.path(), crate::process::own_pid()).unwrap());
        assert!(!contains(Path::new("/does/not/exist"), crate::process::own_pid()).unwrap());
    }
}
