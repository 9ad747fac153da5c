//! One of Slurm's programs, run as somebody, with what it says.

use std::ffi::CString;
use std::io::{self, Read as _, pipe};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use deputy_core::denial::{Code, Denial};
use deputy_core::ids::{OsGid, OsUid};
use deputy_core::job::{JobEnd, OsIdentity};
use deputy_core::names::OsUserName;
use deputy_core::policy::PasswdEntry;
use deputy_core::settings::SlurmSettings;
use deputy_etc::root_owned;
use deputy_sys::launch::{self, Launch, LaunchResult};
use deputy_sys::limits::{Limits, ProcessCeilings};
use deputy_sys::process::{self, Wait};
use deputy_sys::streams::{OpenFor, Stream, above_stdio};
use deputy_sys::{Credentials, accounts};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::no_answer;
use crate::rules;
use crate::shepherd::environment;

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
    let internal = |error: io::Error| Denial::internal(format!("Slurm's program: {error}"));
    let name = argv.first().map_or("", String::as_str);
    let path = path(slurm, name)?;
    let words: Option<Vec<CString>> = argv.iter().map(|word| CString::new(word.as_bytes()).ok()).collect();
    let (output, to_output) = pipe().map_err(internal)?;
    let (error, to_error) = pipe().map_err(internal)?;
    let input = match input {
        Some(descriptor) => Stream::Descriptor(descriptor),
        None => Stream::File { path: c"/dev/null".to_owned(), open_for: OpenFor::Reading },
    };
    let streams = [input, Stream::Descriptor(to_output.into()), Stream::Descriptor(to_error.into())];
    let job = Launch {
        programs: CString::new(path.as_os_str().as_bytes()).into_iter().collect(),
        script: None,
        argv: words.ok_or_else(|| Denial::invalid("a NUL byte where none can be"))?,
        environment: environment(slurm, account, name),
        credentials: account.credentials.clone(),
        directories: vec![c"/".to_owned()],
        streams: above_stdio(streams).map_err(internal)?,
        cgroup: None,
        confinement: None,
        no_new_privileges: account.no_new_privileges,
        umask: account.umask,
        limits: account.limits.clone(),
        ceilings: ProcessCeilings::default(),
        nice: 0,
    };
    let started = launch::launch(&job).map_err(internal)?;
    // The program has its copies of the pipes' ends.
    drop(job);
    let read = read_both(output.into(), error.into());
    if read.is_err() {
        process::signal_child(started.pid, KILL).map_err(internal)?;
    }
    let end = wait_for(started.pid).map_err(internal)?;
    match launch::launch_result(started.report).map_err(internal)? {
        LaunchResult::Failed { step, errno } => {
            let why = io::Error::from_raw_os_error(errno);
            Err(Denial::new(
                Code::LaunchFailed,
                name,
                format!("{} could not be started: {step}: {why}", path.display()),
            ))
        }
        LaunchResult::Vanished => Err(no_answer(format!("{name} was killed"))),
        LaunchResult::Executed => {
            let [output, error] =
                read.map_err(|error| no_answer(format!("{name} did not answer: {error}")))?;
            let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
            Ok(Said { end, output: text(output), error: text(error) })
        }
    }
}

/// The signal that ends a program which does not answer.
const KILL: i32 = 9;

/// The fixed base and what PAM set, but nothing that would be an option; times as numbers. `sbatch` passes what begins
/// with `SLURM_` on to the job, so it gets no more than it needs.
fn environment(slurm: &SlurmSettings, account: &Account, program: &str) -> Vec<CString> {
    let from_pam: Vec<Vec<u8>> = account
        .environment
        .iter()
        .filter(|variable| !OPTIONS.iter().any(|word| variable.starts_with(word)))
        .cloned()
        .collect();
    let conf = slurm.conf.as_ref().map(|conf| [b"SLURM_CONF=", conf.as_os_str().as_bytes()].concat());
    let mut own: Vec<Vec<u8>> = conf.into_iter().collect();
    if program != "sbatch" {
        own.extend([&b"TZ=UTC"[..], b"LC_ALL=C", b"SLURM_TIME_FORMAT=%s"].map(<[u8]>::to_vec));
    }
    environment::build(&account.entry, &from_pam, own.iter().map(Vec::as_slice))
}

/// Reads both to their ends, which is the program's.
fn read_both(output: OwnedFd, error: OwnedFd) -> io::Result<[Vec<u8>; 2]> {
    let end = Instant::now() + PATIENCE;
    let mut files = [Some(std::fs::File::from(output)), Some(std::fs::File::from(error))];
    let mut read = [Vec::new(), Vec::new()];
    let mut buffer = vec![0; 64 * 1024];
    while files.iter().any(Option::is_some) {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let open: Vec<usize> = (0..2).filter(|&at| files[at].is_some()).collect();
        let mut polled: Vec<PollFd<'_>> = files
            .iter()
            .flatten()
            .map(|file| PollFd::from_borrowed_fd(file.as_fd(), PollFlags::IN))
            .collect();
        let wait = Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(0) + 1, tv_nsec: 0 };
        match poll(&mut polled, Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> = polled.iter().map(|one| !one.revents().is_empty()).collect();
        for (at, _) in open.into_iter().zip(ready).filter(|(_, ready)| *ready) {
            let Some(file) = &mut files[at] else { continue };
            let count = file.read(&mut buffer)?;
            if count == 0 {
                files[at] = None;
            } else if read[at].len() + count > MAX_OUTPUT {
                return Err(io::Error::other("it says more than can be"));
            } else {
                read[at].extend_from_slice(&buffer[..count]);
            }
        }
    }
    Ok(read)
}

/// Waits for the program, which has closed its output or was killed.
fn wait_for(pid: i32) -> io::Result<JobEnd> {
    loop {
        match process::reap()? {
            Wait::Reaped(reaped) if reaped.pid == pid => return Ok(reaped.end),
            Wait::Reaped(_) => {}
            Wait::Running => std::thread::sleep(Duration::from_millis(1)),
            Wait::NoChildren => return Err(io::Error::other("the program is no child of this process")),
        }
    }
}
