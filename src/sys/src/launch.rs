//! From the shepherd to the job: fork, drop, `execve`.
//!
//! Everything that can fail before the fork has been made ready in [`Launch`]. In the child nothing returns or
//! unwinds: each failure writes its step and errno to a pipe that closes by itself when `execve` works.

use std::ffi::{CStr, CString};
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr;

use deputy_core::job::Step;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use crate::confine::Confinement;
use crate::drop::{Credentials, become_user};
use crate::limits::{Limits, ProcessCeilings, be_nice};
use crate::process::{Fork, end_with_parent, exit_now, fork, fork_into_cgroup, own_pid};
use crate::streams::{self, Stream};

/// A job that is ready to start. It cannot be shown: its environment may hold secrets.
pub struct Launch {
    /// Absolute paths, tried in order until one can be executed.
    pub programs: Vec<CString>,
    /// A program that has no path, and is executed instead of those: a sealed memfd.
    pub script: Option<OwnedFd>,
    /// The argument vector.
    pub argv: Vec<CString>,
    /// The whole environment.
    pub environment: Vec<CString>,
    /// Who to become.
    pub credentials: Credentials,
    /// Working directories, tried in order as the user.
    pub directories: Vec<CString>,
    /// Standard input, output and error.
    pub streams: [Stream; 3],
    /// Whether standard input is a terminal that becomes its own.
    pub terminal: bool,
    /// The folder of the job's cgroup.
    pub cgroup: Option<OwnedFd>,
    /// What the job reaches of the machine; none is whatever its user reaches.
    pub confinement: Option<Confinement>,
    /// Whether setuid programs are to have no effect.
    pub no_new_privileges: bool,
    /// The file mode creation mask.
    pub umask: u32,
    /// The resource limits, as PAM left them.
    pub limits: Limits,
    /// What each process of it may have at most, below that.
    pub ceilings: ProcessCeilings,
    /// The least nice value.
    pub nice: u8,
}

/// A job that has been forked.
#[derive(Debug)]
pub struct Started {
    /// Its first process, a child of this one.
    pub pid: i32,
    /// Tells whether `execve` worked; see [`launch_result`].
    pub report: OwnedFd,
}

/// What the child's pipe says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaunchResult {
    /// `execve` worked.
    Executed,
    /// A step failed, and the child has left.
    Failed {
        /// The step.
        step: Step,
        /// Why.
        errno: i32,
    },
    /// The child was killed before it got there.
    Vanished,
}

/// Reads the pipe of a child once it is readable. The child writes a first byte when only `execve` is left, so that a
/// killed child and an executed program can be told apart.
pub fn launch_result(report: OwnedFd) -> io::Result<LaunchResult> {
    let mut bytes = Vec::new();
    std::fs::File::from(report).take(16).read_to_end(&mut bytes)?;
    Ok(match bytes.as_slice() {
        [READY] => LaunchResult::Executed,
        [READY, rest @ ..] | rest => match rest {
            [step, errno @ ..] if errno.len() == 4 => {
                let errno = i32::from_ne_bytes([errno[0], errno[1], errno[2], errno[3]]);
                let step = Step::ALL.get(usize::from(*step)).copied().unwrap_or(Step::Fork);
                LaunchResult::Failed { step, errno }
            }
            _ => LaunchResult::Vanished,
        },
    })
}

/// `close_range` marks instead of closing (`linux/close_range.h`).
const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;

/// The byte that says that only `execve` is left; no step has this number.
const READY: u8 = 0xff;

/// Forks the job. Refuses where a PAM module has left a thread behind: a child of such a process could find a lock that
/// nobody gives back.
pub fn launch(launch: &Launch) -> io::Result<Started> {
    let (report, to_report) = io::pipe()?;
    let to_report = above_script(to_report.into())?;
    let script = launch.script.as_ref().map(|script| above_script(script.try_clone()?)).transpose()?;
    let argv = pointers(&launch.argv);
    let environment = pointers(&launch.environment);
    let parent = own_pid();
    let (forked, join) = fork_where_it_belongs(launch.cgroup.as_ref())?;
    match forked {
        Fork::Parent(pid) => Ok(Started { pid, report: report.into() }),
        Fork::Child => {
            let Failure { step, errno } =
                child(launch, script.as_ref(), join, parent, &argv, &environment, to_report.as_raw_fd());
            let mut message = [0; 5];
            // Steps are far fewer than 256.
            message[0] = step as u8;
            message[1..].copy_from_slice(&(errno as i32).to_ne_bytes());
            write_all(to_report.as_raw_fd(), &message);
            exit_now(127);
        }
    }
}

/// Forks, into the cgroup if there is one. Where the kernel cannot do that, the child gets the folder to join by
/// itself, and what speaks against that is then its failure.
fn fork_where_it_belongs(cgroup: Option<&OwnedFd>) -> io::Result<(Fork, Option<&OwnedFd>)> {
    let Some(folder) = cgroup else { return Ok((fork()?, None)) };
    match fork_into_cgroup(folder.as_fd()) {
        Ok(forked) => Ok((forked, None)),
        Err(_) => Ok((fork()?, cgroup)),
    }
}

/// A step that failed in the child.
pub(crate) struct Failure {
    pub(crate) step: Step,
    pub(crate) errno: Errno,
}

/// The number of the script's descriptor in a job: its interpreter opens it as `/dev/fd/3`.
const SCRIPT: i32 = 3;

/// A copy of a descriptor where the script's cannot overwrite it.
fn above_script(descriptor: OwnedFd) -> io::Result<OwnedFd> {
    if descriptor.as_raw_fd() > SCRIPT {
        return Ok(descriptor);
    }
    Ok(rustix::io::fcntl_dupfd_cloexec(descriptor, SCRIPT + 1)?)
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

fn write_all(descriptor: i32, bytes: &[u8]) {
    // SAFETY: the pointer and the length are those of a live slice. A failed write leaves the parent with an empty
    // pipe, which it takes for a child that vanished.
    unsafe { libc::write(descriptor, bytes.as_ptr().cast(), bytes.len()) };
}

/// Turns the result of a libc call into one of ours.
pub(crate) fn checked(result: libc::c_int, step: Step) -> Result<(), Failure> {
    if result < 0 { Err(Failure { step, errno: Errno::last() }) } else { Ok(()) }
}

fn child(
    launch: &Launch,
    script: Option<&OwnedFd>,
    join: Option<&OwnedFd>,
    parent: i32,
    argv: &[*const libc::c_char],
    environment: &[*const libc::c_char],
    report: i32,
) -> Failure {
    match until_exec(launch, script, join, parent, report) {
        Ok(()) => {
            let errno = match script {
                Some(_) => execute_script(argv, environment),
                None => execute(&launch.programs, argv, environment),
            };
            Failure { step: Step::Exec, errno }
        }
        Err(failure) => failure,
    }
}

fn until_exec(
    launch: &Launch,
    script: Option<&OwnedFd>,
    join: Option<&OwnedFd>,
    parent: i32,
    report: i32,
) -> Result<(), Failure> {
    let errno_at = |step| move |errno| Failure { step, errno };

    // SAFETY: no memory is touched.
    checked(unsafe { libc::setsid() }, Step::Setsid)?;
    if let Some(folder) = join {
        join_cgroup(folder).map_err(errno_at(Step::Cgroup))?;
    }
    streams::put_descriptors(&launch.streams)?;
    if launch.terminal {
        streams::own_terminal()?;
    }
    be_nice(launch.nice).map_err(errno_at(Step::Nice))?;
    reset_oom_score();
    launch.limits.apply().map_err(errno_at(Step::Limits))?;

    if let Some(confinement) = &launch.confinement {
        confinement.enter(&launch.credentials).map_err(errno_at(Step::Confinement))?;
    }
    become_user(&launch.credentials).map_err(|error| Failure { step: error.step, errno: error.errno })?;

    // A job does not outlive its shepherd. Where it has a cgroup that is seen to for all of its processes; here it can
    // only be done for the first.
    if launch.cgroup.is_none() {
        end_with_parent(parent).map_err(errno_at(Step::Signals))?;
    }
    if launch.no_new_privileges {
        nix::sys::prctl::set_no_new_privs().map_err(errno_at(Step::NoNewPrivileges))?;
    }
    if let Some(confinement) = &launch.confinement {
        confinement.restrict().map_err(errno_at(Step::Landlock))?;
    }
    change_directory(&launch.directories)?;
    // SAFETY: no memory is touched; umask cannot fail.
    unsafe { libc::umask(launch.umask) };
    streams::open_files(&launch.streams)?;
    default_signals()?;
    // SAFETY: no memory is touched. Everything above the three closes at exec, the report's pipe among them.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, CLOSE_RANGE_CLOEXEC) };
    if closed != 0 {
        return Err(Failure { step: Step::CloseRange, errno: Errno::last() });
    }
    if let Some(script) = script {
        // SAFETY: no memory is touched. What had this number would have closed at exec, and neither the report's pipe
        // nor the source is it: see `above_script`. The copy stays open.
        checked(unsafe { libc::dup2(script.as_raw_fd(), SCRIPT) }, Step::Exec)?;
    }
    // Not before: what comes above must not fail for want of memory or descriptors.
    launch.ceilings.lower().map_err(errno_at(Step::Limits))?;
    write_all(report, &[READY]);
    Ok(())
}

fn join_cgroup(folder: &OwnedFd) -> nix::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    let procs = nix::fcntl::openat(folder, "cgroup.procs", flags, Mode::empty())?;
    nix::unistd::write(procs, b"0").map(drop)
}

/// A job is as likely a victim of the out-of-memory killer as what a login starts, whatever protects the launcher.
/// To raise the score is always allowed; where the file is missing there is nothing to set right.
fn reset_oom_score() {
    let _ = std::fs::write("/proc/self/oom_score_adj", "0");
}

fn change_directory(directories: &[CString]) -> Result<(), Failure> {
    let mut first = Errno::ENOENT;
    for (index, directory) in directories.iter().enumerate() {
        match nix::unistd::chdir(directory.as_c_str()) {
            Ok(()) => return Ok(()),
            Err(errno) if index == 0 => first = errno,
            Err(_) => {}
        }
    }
    Err(Failure { step: Step::Chdir, errno: first })
}

/// Every disposition default, nothing blocked: Rust's runtime ignores SIGPIPE, and the shepherd blocks what it reads
/// from a descriptor.
fn default_signals() -> Result<(), Failure> {
    for signal in 1..=libc::SIGRTMAX() {
        default_signal(signal);
    }
    // SAFETY: an all-zero set is a valid value, which the next call makes the empty one.
    let mut none: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live local set.
    unsafe { libc::sigemptyset(&raw mut none) };
    // SAFETY: the set is initialised, and no old one is asked for.
    checked(unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()) }, Step::Signals)
}

/// Makes one disposition the default, by the system call itself: glibc refuses the two signals that it keeps for its
/// threads, and a parent's `posix_spawn` may have left just these ignored. KILL and STOP cannot be set and need not.
fn default_signal(signal: i32) {
    /// `struct kernel_sigaction` of `x86_64` and aarch64, all zero: `SIG_DFL`, no flags, nothing masked.
    #[repr(C)]
    struct KernelSigaction([u64; 4]);
    const KERNEL_SIGSET_BYTES: usize = 8;
    let default = KernelSigaction([0; 4]);
    // SAFETY: the structure is as large as the kernel's or larger, all zero is a valid value of it, and no old one is
    // asked for.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            &raw const default,
            ptr::null_mut::<KernelSigaction>(),
            KERNEL_SIGSET_BYTES,
        )
    };
}

/// Tries each program. A name searched in several folders is "not found" only if no folder has it, and "permission
/// denied" if one has it but the user cannot execute it, as a shell says it.
fn execute(programs: &[CString], argv: &[*const libc::c_char], environment: &[*const libc::c_char]) -> Errno {
    let mut answer = Errno::ENOENT;
    for program in programs {
        let program: &CStr = program;
        // SAFETY: the path is NUL-terminated, and both vectors are arrays of pointers to NUL-terminated strings that
        // end in a null pointer and outlive the call.
        unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), environment.as_ptr()) };
        match Errno::last() {
            Errno::ENOENT | Errno::ENOTDIR => {}
            Errno::EACCES => answer = Errno::EACCES,
            errno => return errno,
        }
    }
    answer
}

/// Executes the script's descriptor. Where it begins with `#!` the kernel names it `/dev/fd/3` to its interpreter, so
/// it stays open there.
fn execute_script(argv: &[*const libc::c_char], environment: &[*const libc::c_char]) -> Errno {
    // SAFETY: the path is NUL-terminated, and both vectors are arrays of pointers to NUL-terminated strings that end in
    // a null pointer and outlive the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            SCRIPT,
            c"".as_ptr(),
            argv.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Errno::last()
}
