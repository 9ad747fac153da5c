//! A job's identity, end and usage.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{JobId, OsGid, OsUid};
use crate::names::OsUserName;

/// An OS account as it was when it was linked: if any of the three changes, the link is stale.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OsIdentity {
    /// The passwd name.
    pub name: OsUserName,
    /// The uid.
    pub uid: OsUid,
    /// The primary gid.
    pub gid: OsGid,
}

impl fmt::Display for OsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (uid {}, gid {})", self.name, self.uid, self.gid)
    }
}

macro_rules! steps {
    ($($(#[$doc:meta])* $step:ident = $text:literal,)*) => {
        /// The steps between the shepherd's fork and `execve`, in the order in which they happen.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        #[repr(u8)]
        pub enum Step {
            $($(#[$doc])* $step,)*
        }

        impl Step {
            /// Every step, in order.
            pub const ALL: &'static [Step] = &[$(Step::$step,)*];

            /// The step as people read it.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Step::$step => $text,)*
                }
            }
        }
    };
}

steps! {
    /// The shepherd's fork itself.
    Fork = "fork",
    /// A session of its own, without a terminal.
    Setsid = "setsid",
    /// Joining the job's cgroup.
    Cgroup = "cgroup",
    /// The three descriptors.
    Stdio = "stdio",
    /// Resource limits.
    Limits = "limits",
    /// The final list of groups.
    Setgroups = "setgroups",
    /// The gid.
    Setresgid = "setresgid",
    /// The uid.
    Setresuid = "setresuid",
    /// All ids read back, and root not to be regained.
    Verify = "verify",
    /// Ambient and inheritable capabilities dropped.
    Capabilities = "capabilities",
    /// `PR_SET_NO_NEW_PRIVS`.
    NoNewPrivileges = "no-new-privileges",
    /// The working directory, as the user.
    Chdir = "chdir",
    /// Default dispositions, empty mask.
    Signals = "signals",
    /// Every other descriptor closed.
    CloseRange = "close-range",
    /// `execve`.
    Exec = "exec",
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum JobEnd {
    /// It called exit.
    Exited {
        /// 0 to 255.
        code: u8,
    },
    /// A signal ended it.
    Signaled {
        /// The signal's number.
        signal: i32,
        /// Whether a core was dumped.
        core: bool,
    },
    /// It never ran: a step between fork and exec failed.
    LaunchFailed {
        /// The step.
        step: Step,
        /// The errno of that step.
        errno: i32,
    },
}

impl JobEnd {
    /// The exit status that a shell would report: the code, 128+N for signal N, 127 for a program that is not
    /// there, 126 for what could not be executed.
    pub fn shell_status(&self) -> i32 {
        const ENOENT: i32 = 2;
        match *self {
            JobEnd::Exited { code } => i32::from(code),
            JobEnd::Signaled { signal, .. } => 128 + signal,
            JobEnd::LaunchFailed { step: Step::Exec, errno: ENOENT } => 127,
            JobEnd::LaunchFailed { .. } => 126,
        }
    }
}

/// What a job used, of itself and of its children that were waited for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// CPU time in user mode, microseconds.
    pub user_us: u64,
    /// CPU time in the kernel, microseconds.
    pub system_us: u64,
    /// The largest resident set of any one process, KiB.
    pub max_rss_kib: u64,
    /// From fork to end, microseconds.
    pub wall_us: u64,
}

/// The one record that a shepherd writes about the end of its job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExitRecord {
    /// The version of this record's form.
    pub version: u32,
    /// The job.
    pub job: JobId,
    /// How it ended.
    pub end: JobEnd,
    /// What it used.
    pub usage: Usage,
    /// When it ended, microseconds since 1970.
    pub ended_us: u64,
}

impl ExitRecord {
    /// The version that this program writes.
    pub const VERSION: u32 = 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_statuses_are_those_of_a_shell() {
        let of = |end: JobEnd| end.shell_status();
        assert_eq!(of(JobEnd::Exited { code: 7 }), 7);
        assert_eq!(of(JobEnd::Signaled { signal: 15, core: false }), 143);
        assert_eq!(of(JobEnd::LaunchFailed { step: Step::Exec, errno: 2 }), 127);
        assert_eq!(of(JobEnd::LaunchFailed { step: Step::Exec, errno: 13 }), 126);
        assert_eq!(of(JobEnd::LaunchFailed { step: Step::Chdir, errno: 2 }), 126);
    }
}
