//! Resource limits: what PAM's modules set is the job's, not the shepherd's; and what bounds one job beside that.

use std::io;

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;

/// Every limit of `setrlimit(2)` that Linux has.
const ALL: [Resource; 16] = [
    Resource::RLIMIT_AS,
    Resource::RLIMIT_CORE,
    Resource::RLIMIT_CPU,
    Resource::RLIMIT_DATA,
    Resource::RLIMIT_FSIZE,
    Resource::RLIMIT_LOCKS,
    Resource::RLIMIT_MEMLOCK,
    Resource::RLIMIT_MSGQUEUE,
    Resource::RLIMIT_NICE,
    Resource::RLIMIT_NOFILE,
    Resource::RLIMIT_NPROC,
    Resource::RLIMIT_RSS,
    Resource::RLIMIT_RTPRIO,
    Resource::RLIMIT_RTTIME,
    Resource::RLIMIT_SIGPENDING,
    Resource::RLIMIT_STACK,
];

/// All limits of a process at one moment, soft and hard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits([(u64, u64); ALL.len()]);

impl Limits {
    /// Those of this process now.
    pub fn current() -> io::Result<Self> {
        let mut limits = [(0, 0); ALL.len()];
        for (limit, resource) in limits.iter_mut().zip(ALL) {
            *limit = getrlimit(resource)?;
        }
        Ok(Self(limits))
    }

    /// Sets those that differ.
    pub fn apply(&self) -> Result<(), Errno> {
        for (&(soft, hard), resource) in self.0.iter().zip(ALL) {
            if getrlimit(resource)? != (soft, hard) {
                setrlimit(resource, soft, hard)?;
            }
        }
        Ok(())
    }

    /// Sets those that differ from these, which the process has now, as far as it may. To raise a hard limit takes
    /// `CAP_SYS_RESOURCE`, which root in a container may lack; then the soft limit is raised to the hard one.
    pub fn apply_as_far_as_allowed(&self, now: &Limits) -> Result<(), Errno> {
        let differing = self.0.iter().zip(now.0).zip(ALL).filter(|((wanted, now), _)| *wanted != now);
        for ((&(soft, hard), (_, lowered)), resource) in differing {
            match setrlimit(resource, soft, hard) {
                Err(Errno::EPERM) => setrlimit(resource, soft.min(lowered), lowered)?,
                other => other?,
            }
        }
        Ok(())
    }
}

/// Ceilings of a job that each of its processes has by itself. What is absent is left as PAM left it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProcessCeilings {
    /// Address space of each process, bytes.
    pub memory: Option<u64>,
    /// Processes and threads of the whole OS account.
    pub pids: Option<u64>,
    /// Open files of each process.
    pub files: Option<u64>,
    /// The size of a core dump, bytes.
    pub core: Option<u64>,
    /// The CPUs that it runs on. It can undo that by itself.
    pub cpus: Option<CpuSet>,
}

impl ProcessCeilings {
    /// Lowers the limits of this process to these, soft and hard; what is lower already stays. It takes no privilege, so
    /// it is the last thing before the program: what has to be done before that is not held by them.
    pub fn lower(&self) -> Result<(), Errno> {
        let all = [
            (Resource::RLIMIT_NPROC, self.pids),
            (Resource::RLIMIT_NOFILE, self.files),
            (Resource::RLIMIT_CORE, self.core),
            (Resource::RLIMIT_AS, self.memory),
        ];
        for (resource, ceiling) in all {
            let Some(ceiling) = ceiling else { continue };
            let (soft, hard) = getrlimit(resource)?;
            setrlimit(resource, soft.min(ceiling), hard.min(ceiling))?;
        }
        self.cpus.as_ref().map_or(Ok(()), |cpus| sched_setaffinity(Pid::from_raw(0), cpus))
    }
}

/// So many of the CPUs that this process may run on, or all of them where there are fewer. Which, depends on `turn`, so
/// that jobs do not all have the first.
pub fn some_cpus(count: usize, turn: usize) -> io::Result<CpuSet> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let numbers: Vec<usize> =
        (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu).unwrap_or(false)).collect();
    let mut chosen = CpuSet::new();
    for index in 0..count.min(numbers.len()) {
        chosen.set(numbers[(turn + index) % numbers.len()])?;
    }
    Ok(chosen)
}

/// Raises the nice value of this process to at least this; a higher one stays.
pub fn be_nice(value: u8) -> Result<(), Errno> {
    use rustix::process::{getpriority_process, setpriority_process};
    let errno = |error: rustix::io::Errno| Errno::from_raw(error.raw_os_error());
    let value = i32::from(value);
    if getpriority_process(None).map_err(errno)? < value {
        setpriority_process(None, value).map_err(errno)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_chosen_among_those_that_are_allowed() {
        let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
        let set = |chosen: &CpuSet| -> Vec<usize> {
            (0..CpuSet::count()).filter(|&cpu| chosen.is_set(cpu).unwrap()).collect()
        };
        let all = set(&allowed);
        assert_eq!(set(&some_cpus(1, 0).unwrap()), all[..1]);
        assert_eq!(set(&some_cpus(1, all.len() * 3).unwrap()), all[..1]);
        assert_eq!(set(&some_cpus(all.len() + 5, 1).unwrap()), all);
        assert_eq!(set(&some_cpus(1, all.len() - 1).unwrap()), all[all.len() - 1..]);
    }

    #[test]
    fn what_was_lowered_is_put_back() {
        let before = Limits::current().unwrap();
        let (soft, hard) = getrlimit(Resource::RLIMIT_CORE).unwrap();
        setrlimit(Resource::RLIMIT_CORE, soft.min(4096), hard).unwrap();
        let lowered = Limits::current().unwrap();
        before.apply().unwrap();
        assert_eq!(Limits::current().unwrap(), before);
        lowered.apply().unwrap();
        assert_eq!(Limits::current().unwrap(), lowered);
        before.apply().unwrap();
    }
}
