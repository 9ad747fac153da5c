//! A job's identity, end and usage.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::{JobId, OsGid, OsUid};
use crate::names::OsUserName;
use crate::stream::Captured;

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
    /// A session of its own, which has no terminal yet.
    Setsid = "setsid",
    /// Joining the job's cgroup.
    Cgroup = "cgroup",
    /// The three descriptors.
    Stdio = "stdio",
    /// The terminal that is to be the session's own.
    Terminal = "terminal",
    /// The nice value.
    Nice = "nice",
    /// The GPUs that the job was leased, and no others.
    Devices = "devices",
    /// A mount namespace with what policy lets the job reach.
    Confinement = "confinement",
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
    /// The file for standard input, opened as the user.
    StandardInput = "open stdin",
    /// The file for standard output, opened as the user.
    StandardOutput = "open stdout",
    /// The file for standard error, opened as the user.
    StandardError = "open stderr",
    /// The Landlock rules.
    Landlock = "landlock",
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

/// Why a job was ended, where it did not end by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndCause {
    /// Somebody who may asked for it.
    Cancelled,
    /// Its time was up.
    TimeLimit,
    /// It needed more memory than it may have.
    OutOfMemory,
    /// The consent under which it ran was taken back.
    ConsentRevoked,
}

impl EndCause {
    /// The word on the bus and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            EndCause::Cancelled => "cancelled",
            EndCause::TimeLimit => "time-limit",
            EndCause::OutOfMemory => "out-of-memory",
            EndCause::ConsentRevoked => "consent-revoked",
        }
    }
}

/// By what a job's ceilings are held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Enforcement {
    /// By the limits of each process (`setrlimit(2)`): memory is each process's, processes are all of the OS account's.
    #[default]
    ProcessLimits,
    /// By a cgroup of version 2, for the whole job.
    Cgroup,
}

/// What the whole of a job used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// CPU time in user mode, microseconds.
    pub user_us: u64,
    /// CPU time in the kernel, microseconds.
    pub system_us: u64,
    /// The most memory at one moment, KiB: of the whole job where it has a cgroup that counts, otherwise the largest
    /// resident set of any one process.
    pub max_rss_kib: u64,
    /// Bytes read from block devices.
    #[serde(default)]
    pub read_bytes: u64,
    /// Bytes written to block devices.
    #[serde(default)]
    pub written_bytes: u64,
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
    /// Why it was ended, where it did not end by itself.
    #[serde(default)]
    pub cause: Option<EndCause>,
    /// When it ended, microseconds since 1970.
    pub ended_us: u64,
    /// What it used.
    pub usage: Usage,
    /// What it wrote to captured streams.
    #[serde(default)]
    pub captured: Captured,
    /// By what its ceilings were held.
    #[serde(default)]
    pub enforcement: Enforcement,
}

/// A text is not an exit record that this program reads.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RecordError {
    /// It is not whole, or of another form than its version says.
    #[error("{0}")]
    Damaged(String),
    /// A later release wrote it, and says how the job ended with words that this one does not know.
    #[error("the end record is of version {0}, and this program does not know the end that it tells")]
    Later(u32),
}

impl ExitRecord {
    /// The version that this program writes.
    pub const VERSION: u32 = 1;

    /// Reads the text of a record. Of one that a later release wrote, what is known is taken: how and when the job ended
    /// has to be.
    pub fn parse(text: &str) -> Result<Self, RecordError> {
        let damaged = |error: toml::de::Error| RecordError::Damaged(error.to_string());
        let Versioned { version } = toml::from_str(text).map_err(damaged)?;
        if version <= Self::VERSION {
            return toml::from_str(text).map_err(damaged);
        }
        let later: Later = toml::from_str(text).map_err(|_| RecordError::Later(version))?;
        Ok(Self {
            version,
            job: later.job,
            end: later.end,
            cause: part(later.cause),
            ended_us: later.ended_us,
            usage: part(later.usage).unwrap_or_default(),
            captured: part(later.captured).unwrap_or_default(),
            enforcement: part(later.enforcement).unwrap_or_default(),
        })
    }
}

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// What a record of any later version has.
#[derive(Deserialize)]
struct Later {
    job: JobId,
    end: JobEnd,
    ended_us: u64,
    cause: Option<toml::Value>,
    usage: Option<toml::Value>,
    captured: Option<toml::Value>,
    enforcement: Option<toml::Value>,
}

/// A part of it, if it is one that this release knows.
fn part<'de, P: Deserialize<'de>>(value: Option<toml::Value>) -> Option<P> {
    value.and_then(|value| value.try_into().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = "version = 1\njob = 'aeaqcaibaeaqcaib'\nended_us = 7\n[end.exited]\ncode = 3\n\
        [usage]\nuser_us = 1\nsystem_us = 2\nmax_rss_kib = 3\nwall_us = 4\n";

    #[test]
    fn a_record_of_a_later_release_is_read_as_far_as_it_is_known() {
        let ours = ExitRecord::parse(RECORD).unwrap();
        assert_eq!((&ours.end, ours.usage.wall_us), (&JobEnd::Exited { code: 3 }, 4));
        // One that says it is ours has to be.
        let with_more = RECORD.replace("ended_us", "energy_joules = 5\nended_us");
        assert!(matches!(ExitRecord::parse(&with_more), Err(RecordError::Damaged(_))));
        let later = with_more.replace("version = 1", "version = 2\ncause = 'preempted'");
        let read = ExitRecord::parse(&later).unwrap();
        assert_eq!(read, ExitRecord { version: 2, ..ours });
        let strange = later.replace("[end.exited]\ncode = 3", "[end.migrated]\nto = 'elsewhere'");
        assert_eq!(ExitRecord::parse(&strange), Err(RecordError::Later(2)));
        assert!(matches!(ExitRecord::parse("\n\n"), Err(RecordError::Damaged(_))));
    }

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
