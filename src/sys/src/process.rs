//! The process itself: forking, hardening, environment, descriptors, waiting.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt as _;

use deputy_core::job::JobEnd;
use nix::errno::Errno;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::SfdFlags;
pub use nix::sys::signalfd::SignalFd;
use nix::sys::stat::{Mode, umask};
use nix::unistd::Pid;

/// Which side of a fork this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    /// The parent, with the child's pid.
    Parent(i32),
    /// The child.
    Child,
}

/// How many threads this process has: the folder of its threads has a link for each, beside the two of every folder.
pub fn thread_count() -> io::Result<usize> {
    let links = fs::metadata("/proc/self/task")?.nlink();
    // A `/proc` that does not count them so is read.
    match links.checked_sub(2).map(usize::try_from) {
        Some(Ok(threads @ 1..)) => Ok(threads),
        _ => Ok(fs::read_dir("/proc/self/task")?.count()),
    }
}

/// Forks a process that has one thread; refuses where there are more, because the child could then be left with a
/// lock that nobody holds, and PAM is not made for threads.
pub fn fork() -> io::Result<Fork> {
    if thread_count()? != 1 {
        return Err(io::Error::other("a process with several threads must not fork"));
    }
    fork_single_threaded()
}

/// Forks without counting threads, for a loop that has counted them once and makes none.
pub fn fork_single_threaded() -> io::Result<Fork> {
    // SAFETY: the process has one thread (the callers' duty, and `fork` checks it), so the child inherits no lock
    // that another thread held and may go on as an ordinary program.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid)),
    }
}

/// Forks a process that has one thread, for a child that starts in the cgroup with this folder (Linux 5.7). To move
/// it there afterwards would make every fork and exit of the machine wait, and it for them: 10 ms are not rare.
///
/// The C library does not hear of it: its fork handlers do not run, and it goes on to know the child's thread by the
/// parent's id. So this is for a child that soon executes a program or leaves.
pub fn fork_into_cgroup(folder: BorrowedFd<'_>) -> io::Result<Fork> {
    if thread_count()? != 1 {
        return Err(io::Error::other("a process with several threads must not fork"));
    }
    // SAFETY: an all-zero `clone_args` is a valid value of that plain structure.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = CLONE_INTO_CGROUP;
    arguments.exit_signal = u64::from((Signal::SIGCHLD as i32).unsigned_abs());
    arguments.cgroup = u64::from(folder.as_raw_fd().unsigned_abs());
    // SAFETY: the structure is as large as is said. Without CLONE_VM and a stack the child goes on in a copy of this
    // process's memory, as after a fork; there is one thread (checked above), so no lock is held by another.
    match unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => i32::try_from(pid).map(Fork::Parent).map_err(io::Error::other),
    }
}

/// `linux/sched.h`; wider than the type that libc gives it on some architectures.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Leaves at once: no destructor, no exit handler, no buffered output of the parent's.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: `_exit` takes any status and does not return.
    unsafe { libc::_exit(status) }
}

/// Makes the process one that leaves nothing to look at: an empty environment, files for its own uid only, not to be
/// traced, read or dumped by others.
pub fn harden() -> io::Result<()> {
    // SAFETY: no other thread reads or writes the environment: root programs of Deputy's have one thread here.
    if unsafe { libc::clearenv() } != 0 {
        return Err(io::Error::other("the environment could not be cleared"));
    }
    umask(Mode::from_bits_truncate(0o077));
    nix::sys::prctl::set_dumpable(false)?;
    Ok(())
}

/// No core dump of this process or of what it starts: for a process that hears passwords and starts nothing.
pub fn no_core_dumps() -> io::Result<()> {
    Ok(setrlimit(Resource::RLIMIT_CORE, 0, 0)?)
}

/// Ends the process after so many seconds, whatever it is doing then.
pub fn end_after(seconds: u32) {
    nix::unistd::alarm::set(seconds);
}

/// Does something, and ends the process if that takes so many seconds.
pub fn or_end_after<T>(seconds: u32, work: impl FnOnce() -> T) -> T {
    end_after(seconds);
    let done = work();
    nix::unistd::alarm::cancel();
    done
}

/// Sets the file mode creation mask and returns the one before.
pub fn set_umask(mask: u32) -> u32 {
    umask(Mode::from_bits_truncate(mask)).bits()
}

/// The supplementary groups of this process, each once: a PAM module that is asked twice adds its groups twice.
pub fn current_groups() -> io::Result<Vec<u32>> {
    let mut groups: Vec<u32> = nix::unistd::getgroups()?.into_iter().map(nix::unistd::Gid::as_raw).collect();
    groups.sort_unstable();
    groups.dedup();
    Ok(groups)
}

/// Gives this process the supplementary groups of an OS account, as the group database has them.
pub fn init_groups(user: &str, gid: u32) -> io::Result<()> {
    let user = std::ffi::CString::new(user)?;
    Ok(nix::unistd::initgroups(&user, nix::unistd::Gid::from_raw(gid))?)
}

/// Closes every descriptor from `first` on, known or not.
pub fn close_from(first: RawFd) -> io::Result<()> {
    let first = u32::try_from(first).map_err(io::Error::other)?;
    // SAFETY: closing descriptors touches no memory. Callers hold no owner of any descriptor in this range, which is
    // why this is done first thing in a child.
    if unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0u32) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Closes every descriptor from 3 on but these: libraries may have left some open. Nothing that owns another one is used
/// afterwards.
pub fn close_all_but(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut numbers: Vec<u32> = kept.iter().filter_map(|fd| u32::try_from(fd.as_raw_fd()).ok()).collect();
    numbers.sort_unstable();
    let mut first = 3;
    for number in numbers {
        if number > first {
            // SAFETY: closing descriptors touches no memory; the caller has promised that no owner of these is used.
            if unsafe { libc::syscall(libc::SYS_close_range, first, number - 1, 0u32) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        first = first.max(number + 1);
    }
    close_from(RawFd::try_from(first).map_err(io::Error::other)?)
}

/// Makes this process, which has just become a user's, one that the user can neither trace nor dump (changing ids may
/// have undone that), and that never gains privileges.
pub fn shut_in() -> io::Result<()> {
    nix::sys::prctl::set_dumpable(false)?;
    nix::sys::prctl::set_no_new_privs()?;
    no_core_dumps()
}

/// Moves a descriptor to the given number, closing what was there, and marks it close-on-exec.
pub fn move_to(descriptor: OwnedFd, number: RawFd) -> io::Result<OwnedFd> {
    if descriptor.as_raw_fd() != number {
        // SAFETY: `dup3` touches no memory; `number` is a place that the caller knows to be free or its own.
        if unsafe { libc::dup3(descriptor.as_raw_fd(), number, libc::O_CLOEXEC) } != number {
            return Err(io::Error::last_os_error());
        }
        drop(descriptor);
        // SAFETY: the call above made this descriptor, and nobody else owns it.
        return Ok(unsafe { OwnedFd::from_raw_fd(number) });
    }
    Ok(descriptor)
}

/// Takes ownership of a descriptor that was handed over by number: systemd's sockets, or those of a re-exec.
///
/// # Errors
/// If the number is not an open descriptor.
///
/// # Panics
/// Never; but to take the same number twice is a fault of the caller's.
pub fn take_descriptor(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD touches no memory.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open (checked above) and the protocol of handing over says that it is ours alone.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    // SAFETY: F_SETFD touches no memory.
    unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    Ok(descriptor)
}

/// Lets a descriptor survive the next `execve`.
pub fn keep_on_exec(descriptor: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: F_SETFD touches no memory.
    if unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_SETFD, 0) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Runs this program again, in a fresh address space, under another name and with an empty environment. Returns only
/// if that failed.
pub fn execute_self_as(name: &std::ffi::CStr) -> io::Error {
    let Err(errno) = nix::unistd::execve(c"/proc/self/exe", &[name], &[] as &[&std::ffi::CStr]);
    errno.into()
}

/// Blocks SIGCHLD, SIGTERM, SIGINT and SIGHUP and returns a descriptor on which they are read instead.
pub fn signals() -> io::Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        set.add(signal);
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&set), None)?;
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

/// Lets a write beyond the limit on file sizes fail with an errno instead of ending the process.
pub fn ignore_file_size_signal() -> io::Result<()> {
    // SAFETY: SIG_IGN installs no function.
    unsafe { nix::sys::signal::signal(Signal::SIGXFSZ, nix::sys::signal::SigHandler::SigIgn) }?;
    Ok(())
}

/// Blocks no signal, as a program started from a shell: helpers of PAM's modules inherit the mask.
pub fn unblock_signals() -> io::Result<()> {
    Ok(sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?)
}

/// A child that was waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reaped {
    /// Its pid.
    pub pid: i32,
    /// How it ended.
    pub end: JobEnd,
    /// CPU time in user mode of it and those it waited for, microseconds.
    pub user_us: u64,
    /// CPU time in the kernel, microseconds.
    pub system_us: u64,
    /// The largest resident set, KiB.
    pub max_rss_kib: u64,
    /// Bytes that it made the kernel read from block devices.
    pub read_bytes: u64,
    /// Bytes that it wrote to files on block devices.
    pub written_bytes: u64,
}

/// What `ru_inblock` and `ru_oublock` count (`getrusage(2)`; the kernel divides bytes by this).
const RUSAGE_BLOCK: u64 = 512;

/// The outcome of looking for an ended child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// One ended.
    Reaped(Reaped),
    /// There are children, and none has ended.
    Running,
    /// There are no children.
    NoChildren,
}

/// Waits for one ended child, if there is one.
pub fn reap() -> io::Result<Wait> {
    let mut status = 0;
    // SAFETY: an all-zero rusage is a valid value of that plain structure.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live local variables of the types that the call writes.
    let pid = unsafe { libc::wait4(-1, &raw mut status, libc::WNOHANG | libc::__WALL, &raw mut usage) };
    match pid {
        0 => Ok(Wait::Running),
        -1 => match Errno::last() {
            Errno::ECHILD => Ok(Wait::NoChildren),
            errno => Err(errno.into()),
        },
        pid => {
            let end = if libc::WIFSIGNALED(status) {
                JobEnd::Signaled { signal: libc::WTERMSIG(status), core: libc::WCOREDUMP(status) }
            } else {
                // wait status codes have eight bits
                JobEnd::Exited { code: u8::try_from(libc::WEXITSTATUS(status) & 0xff).unwrap_or(u8::MAX) }
            };
            let micros = |time: libc::timeval| {
                u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_usec).unwrap_or(0)
            };
            Ok(Wait::Reaped(Reaped {
                pid,
                end,
                user_us: micros(usage.ru_utime),
                system_us: micros(usage.ru_stime),
                max_rss_kib: u64::try_from(usage.ru_maxrss).unwrap_or(0),
                read_bytes: u64::try_from(usage.ru_inblock).unwrap_or(0) * RUSAGE_BLOCK,
                written_bytes: u64::try_from(usage.ru_oublock).unwrap_or(0) * RUSAGE_BLOCK,
            }))
        }
    }
}

/// Does something as an OS account in a child that then ends, within so many seconds, and waits for it. Whether the
/// child could become the account and the work says that it is done.
pub fn do_as_user(
    credentials: &crate::Credentials,
    seconds: u32,
    work: impl FnOnce() -> bool,
) -> io::Result<bool> {
    let pid = match fork()? {
        Fork::Child => {
            end_after(seconds);
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                crate::become_user(credentials).is_ok() && work()
            }));
            exit_now(i32::from(!matches!(done, Ok(true))));
        }
        Fork::Parent(pid) => pid,
    };
    loop {
        let mut status = 0;
        // SAFETY: the pointer is to a live local variable of the type that the call writes.
        if unsafe { libc::waitpid(pid, &raw mut status, 0) } == pid {
            return Ok(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0);
        }
        if Errno::last() != Errno::EINTR {
            return Err(io::Error::last_os_error());
        }
    }
}

/// Makes orphaned descendants this process's children, so that it can wait for all of them.
pub fn become_subreaper() -> io::Result<()> {
    Ok(nix::sys::prctl::set_child_subreaper(true)?)
}

/// Ends this process when its parent ends, which was `parent`: at once if that has happened. A change of credentials
/// and the execution of a setuid program take that back, so it comes after the first.
pub fn end_with_parent(parent: i32) -> nix::Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    if nix::unistd::getppid().as_raw() != parent {
        exit_now(127);
    }
    Ok(())
}

/// Sends a signal to a process that is this process's own unreaped child, so that the pid cannot be another's.
pub fn signal_child(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: `kill` touches no memory; a pid of 0 or below would mean a group, and is refused.
    if pid <= 0 || unsafe { libc::kill(pid, signal) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Whether a number is a signal that can be sent.
pub fn is_signal(number: i32) -> bool {
    (1..=libc::SIGRTMAX()).contains(&number)
}

/// The pid of this process.
pub fn own_pid() -> i32 {
    Pid::this().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_does_not_fork() {
        // The test harness runs this in a thread of its own.
        assert!(thread_count().unwrap() > 1);
        assert!(fork().is_err());
    }

    #[test]
    fn threads_are_counted_by_links_as_they_are_by_name() {
        let by_name = || fs::read_dir("/proc/self/task").unwrap().count();
        // Other tests begin and end threads meanwhile: it is asked until nothing changed in between.
        let same = (0..1000).any(|_| {
            let (before, counted, after) = (by_name(), thread_count().unwrap(), by_name());
            before == after && counted == before
        });
        assert!(same);
    }

    #[test]
    fn signals_have_numbers_from_one() {
        assert!(!is_signal(0) && !is_signal(-1) && !is_signal(65));
        assert!(is_signal(15) && is_signal(64));
    }

    #[test]
    fn a_closed_descriptor_cannot_be_taken() {
        assert!(take_descriptor(9_999).is_err());
    }
}
