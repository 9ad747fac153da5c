//! One of Slurm's programs, run as somebody, with what it says.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

use deputy_core::denial::{Code, Denial};
use deputy_core::ids::{OsGid, OsUid};
use deputy_core::job::{JobEnd, OsIdentity};
use deputy_core::message::RunRequest;
use deputy_core::names::OsUserName;
use deputy_core::policy::PasswdEntry;
use deputy_core::project::MAX_UMASK;
use deputy_core::settings::SlurmSettings;
use deputy_core::slurm::answer;
use deputy_etc::root_owned;
use deputy_sys::limits::Limits;
use deputy_sys::{Credentials, accounts};

use super::no_answer;
use crate::rules;
use crate::shepherd::decide::Decision;
use crate::shepherd::environment;
use crate::shepherd::session::JobSession;
use crate::tool::{Tool, ToolError};

/// How long a program may take. Slurm's own give up sooner.
const PATIENCE: Duration = Duration::from_secs(45);

/// The most that is read of either stream.
const MAX_OUTPUT: usize = 16 << 20;

/// Words with which variables begin that Slurm's programs take for options.
const OPTIONS: [&[u8]; 7] = [b"SLURM", b"SBATCH", b"SALLOC", b"SRUN", b"SQUEUE", b"SACCT", b"SCANCEL"];

/// As whom a program runs, and with what.
pub struct Account {
    /// The whole identity.
    pub credentials: Credentials,
    /// The passwd entry.
    pub entry: PasswdEntry,
    /// What PAM set for it.
    pub environment: Vec<Vec<u8>>,
    /// The file mode creation mask.
    pub umask: u32,
    /// Resource limits.
    pub limits: Limits,
    /// Whether setuid programs have no effect.
    pub no_new_privileges: bool,
}

impl Account {
    /// An OS account that a job's folder names, if the name service still says the same. For what an owner may always
    /// have done: looking at his jobs and ending them. So no consent is asked for, and PAM is not either: it could keep
    /// a locked account's jobs running.
    pub fn of(identity: &OsIdentity) -> Result<Self, Denial> {
        rules::is_still(identity)?;
        let entry = rules::look_up(&identity.name)?.entry;
        Self::plain(entry, identity.uid, identity.gid)
    }

    /// A job's, with its PAM session: whatever starts has the whole identity.
    pub fn of_job(request: &RunRequest, decision: &Decision, session: &JobSession) -> Self {
        Self {
            credentials: Credentials {
                uid: request.os_account.uid,
                gid: decision.gid,
                groups: session.groups.clone(),
            },
            entry: decision.target.entry.clone(),
            environment: session.environment.clone(),
            umask: session.umask | (request.umask.unwrap_or(0) & MAX_UMASK),
            limits: session.limits.clone(),
            no_new_privileges: decision.no_new_privileges,
        }
    }

    /// The account that asks for everybody.
    pub fn operator(name: &OsUserName) -> Result<Self, Denial> {
        let entry = rules::look_up(name)?.entry;
        let (Some(uid), Some(gid)) = (OsUid::new(entry.uid), OsGid::new(entry.gid)) else {
            return Err(Denial::new(
                Code::SettingsInvalid,
                "deputy.toml: executor.slurm.operator",
                format!("{name} has ids that are root's or reserved"),
            )
            .remedy("name an account that the cluster knows, such as slurm"));
        };
        Self::plain(entry, uid, gid)
    }

    fn plain(entry: PasswdEntry, uid: OsUid, gid: OsGid) -> Result<Self, Denial> {
        let failed = |error: io::Error| Denial::internal(format!("the groups of {}: {error}", entry.name));
        let groups = accounts::gids(&entry).map_err(failed)?;
        let limits = Limits::current().map_err(|error| Denial::internal(format!("limits: {error}")))?;
        Ok(Self {
            credentials: Credentials { uid, gid, groups },
            entry,
            environment: Vec::new(),
            umask: 0o077,
            limits,
            no_new_privileges: true,
        })
    }
}

/// What a program said.
pub struct Said {
    /// How it ended.
    pub end: JobEnd,
    /// On standard output.
    pub output: String,
    /// On standard error.
    pub error: String,
}

impl Said {
    /// Its output, if it ended well.
    pub fn good(self, program: &str) -> Result<String, Denial> {
        match self.end {
            JobEnd::Exited { code: 0 } => Ok(self.output),
            _ if answer::is_without_accounting(&self.error) => Err(Denial::new(
                Code::SlurmUnavailable,
                "deputy.toml: executor.slurm",
                format!("{program}: {}", shown(&self.error)),
            )
            .remedy("have root set ends = \"queue\" for this cluster, which has no accounting")),
            _ => Err(no_answer(format!("{program}: {}", shown(&self.error)))),
        }
    }
}

/// The last line of what a program said, for people.
pub fn shown(error: &str) -> String {
    error.lines().last().unwrap_or("no word").chars().filter(|c| !c.is_control()).take(300).collect()
}

/// Where a program is, if it is root's.
pub fn path(slurm: &SlurmSettings, name: &str) -> Result<PathBuf, Denial> {
    let path = slurm.programs.join(name);
    match root_owned::open_file(&path) {
        Ok(_) => Ok(path),
        Err(error) => {
            let rule = "deputy.toml: executor.slurm.programs";
            Err(Denial::new(Code::SlurmUnavailable, rule, error.to_string()).remedy(error.remedy()))
        }
    }
}

/// Runs a program with these words, of which the first is its name. Its input is the descriptor, or nothing.
pub fn run(
    slurm: &SlurmSettings,
    account: &Account,
    argv: &[String],
    input: Option<OwnedFd>,
) -> Result<Said, Denial> {
    let name = argv.first().map_or("", String::as_str);
    let path = path(slurm, name)?;
    let words: Option<Vec<CString>> = argv.iter().map(|word| CString::new(word.as_bytes()).ok()).collect();
    let tool = Tool {
        program: &path,
        argv: words.ok_or_else(|| Denial::invalid("a NUL byte where none can be"))?,
        environment: environment(slurm, account, name),
        credentials: account.credentials.clone(),
        input,
        umask: account.umask,
        limits: account.limits.clone(),
        no_new_privileges: account.no_new_privileges,
        time: PATIENCE,
        most: MAX_OUTPUT,
    };
    let said = tool.run().map_err(|error| match error {
        ToolError::NotStarted { .. } => {
            Denial::new(Code::LaunchFailed, name, format!("{}: {error}", path.display()))
        }
        error => no_answer(format!("{name}: {error}")),
    })?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Said { end: said.end, output: text(said.output), error: text(said.error) })
}

/// The environment of one that answers: times are numbers. `sbatch` passes what begins with `SLURM_` on to the job, so it
/// gets no more than it needs.
fn environment(slurm: &SlurmSettings, account: &Account, program: &str) -> Vec<CString> {
    let plain: &[&[u8]] =
        if program == "sbatch" { &[] } else { &[b"TZ=UTC", b"LC_ALL=C", b"SLURM_TIME_FORMAT=%s"] };
    environment_of_job(slurm, account, plain.iter().copied())
}

/// The fixed base and what PAM set, but nothing that would be an option; then these.
pub fn environment_of_job<'a>(
    slurm: &SlurmSettings,
    account: &Account,
    own: impl Iterator<Item = &'a [u8]>,
) -> Vec<CString> {
    let own: Vec<&[u8]> = own.collect();
    let from_pam: Vec<Vec<u8>> = account
        .environment
        .iter()
        .filter(|variable| !OPTIONS.iter().any(|word| variable.starts_with(word)))
        .cloned()
        .collect();
    let conf = slurm.conf.as_ref().map(|conf| [b"SLURM_CONF=", conf.as_os_str().as_bytes()].concat());
    environment::build(&account.entry, &from_pam, own.into_iter().chain(conf.as_deref()))
}
