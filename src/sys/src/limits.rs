//! Resource limits: what PAM's modules set is the job's, not the shepherd's.

use std::io;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

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

    /// Sets those that differ as far as this process may. To raise a hard limit takes `CAP_SYS_RESOURCE`, which root in
    /// a container may lack; then the soft limit is raised to the hard one.
    pub fn apply_as_far_as_allowed(&self) -> Result<(), Errno> {
        for (&(soft, hard), resource) in self.0.iter().zip(ALL) {
            let (_, lowered) = getrlimit(resource)?;
            match setrlimit(resource, soft, hard) {
                Err(Errno::EPERM) => setrlimit(resource, soft.min(lowered), lowered)?,
                other => other?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
