//! What holds a job to its ceilings: its cgroup where that has the controllers, otherwise the limits of each process.

use std::io;

use deputy_core::ids::JobId;
use deputy_core::job::Enforcement;
use deputy_core::limits::ResourceLimits;
use deputy_core::settings::Settings;
use deputy_sys::cgroup::JobCgroup;
use deputy_sys::limits::{ProcessCeilings, some_cpus};
use deputy_sys::process;

/// A job's cgroup while this process is its shepherd. Whatever happens to the shepherd but its own death, it goes with
/// everything that is in it.
pub struct OwnCgroup(JobCgroup);

impl OwnCgroup {
    /// Makes it, where this machine lets one be made.
    pub fn create(settings: &Settings, job: &JobId) -> io::Result<Option<Self>> {
        Ok(JobCgroup::create(&settings.executor.local.cgroup, job)?.map(Self))
    }
}

impl std::ops::Deref for OwnCgroup {
    type Target = JobCgroup;
    fn deref(&self) -> &JobCgroup {
        &self.0
    }
}

impl Drop for OwnCgroup {
    fn drop(&mut self) {
        let removed = if self.0.is_populated() { self.0.end() } else { self.0.remove() };
        if let Err(error) = removed {
            tracing::warn!(event = "cgroup_left", error = %error);
        }
    }
}

/// What is to be held by the processes themselves, and how the whole is called.
pub struct Held {
    /// Lowered in the job's first process.
    pub ceilings: ProcessCeilings,
    /// What the exit record says.
    pub enforcement: Enforcement,
}

/// Sets the ceilings of the cgroup, and says which are left for the processes.
///
/// # Errors
/// If the cgroup has a controller that does not take its ceiling: a job is not started without one that it has.
pub fn hold(limits: &ResourceLimits, cgroup: Option<&JobCgroup>) -> io::Result<Held> {
    let held = |controller: &str| cgroup.is_some_and(|cgroup| cgroup.has(controller));
    if let Some(cgroup) = cgroup {
        cgroup.set_ceilings(limits)?;
    }
    let cpus = match limits.cpus.filter(|_| !held("cpu")) {
        Some(cpus) => {
            let turn = usize::try_from(process::own_pid()).unwrap_or(0);
            Some(some_cpus(usize::try_from(cpus.0.div_ceil(1000)).unwrap_or(usize::MAX), turn)?)
        }
        None => None,
    };
    let all_held = ["memory", "cpu", "pids"].into_iter().all(held);
    Ok(Held {
        ceilings: ProcessCeilings {
            memory: limits.memory.filter(|_| !held("memory")).map(|memory| memory.0),
            pids: limits.pids.filter(|_| !held("pids")).map(u64::from),
            files: limits.files.map(u64::from),
            core: limits.core.map(|core| core.0),
            cpus,
        },
        enforcement: if all_held { Enforcement::Cgroup } else { Enforcement::ProcessLimits },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use deputy_core::size::{ByteSize, MilliCpus};

    #[test]
    fn without_a_cgroup_everything_is_left_for_the_processes() {
        let limits = ResourceLimits {
            memory: Some(ByteSize(1 << 30)),
            cpus: Some(MilliCpus(1)),
            pids: Some(9),
            files: Some(64),
            core: Some(ByteSize(0)),
        };
        let Held { ceilings, enforcement } = hold(&limits, None).unwrap();
        assert_eq!(enforcement, Enforcement::ProcessLimits);
        assert_eq!(
            (ceilings.memory, ceilings.pids, ceilings.files, ceilings.core),
            (Some(1 << 30), Some(9), Some(64), Some(0))
        );
        assert!(ceilings.cpus.is_some());
        let Held { ceilings, .. } = hold(&ResourceLimits::default(), None).unwrap();
        assert_eq!(ceilings, ProcessCeilings::default());
    }
}
