//! The outer process: makes the namespaces, starts the cleaner and process 1, waits.
//!
//! It keeps the only write ends of two pipes. When it ends, however it ends, the cleaner reads end of file on the
//! first; process 1 does on the second, or dies by its parent-death signal before, and the kernel then ends
//! everything in the pid namespace.
//!
//! The second pipe also carries the options: they have passwords in them, and the command line of process 1 can be
//! read by everybody inside.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, PipeReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, geteuid};

use crate::options::Options;
use crate::{cleaner, exec, init, mounts};

/// Signals that are passed on to the command.
pub const FORWARDED: [Signal; 6] =
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];

/// Signals are read from a descriptor, not handled: a handler cannot be installed without `unsafe`.
pub fn signal_descriptor() -> Result<SignalFd> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGCHLD);
    for signal in FORWARDED {
        set.add(signal);
    }
    set.thread_block().context("blocking signals")?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).context("signalfd")
}

/// A signal to pass on. Those that the kernel sent came from the terminal, and reached the whole foreground group.
pub fn to_forward(number: u32, code: i32) -> Option<Signal> {
    const SI_KERNEL: i32 = 0x80;
    let signal = Signal::try_from(i32::try_from(number).ok()?).ok()?;
    (FORWARDED.contains(&signal) && code != SI_KERNEL).then_some(signal)
}

/// Runs a sandbox to its end and returns the command's status.
pub fn run(arguments: &[OsString]) -> Result<u8> {
    Options::parse_from(arguments);
    ensure!(
        geteuid().is_root(),
        "needs root, for private mounts and accounts: run it with sudo, or in a container or virtual machine as root"
    );
    let own = std::env::current_exe().context("/proc/self/exe")?;
    let signals = signal_descriptor()?;
    let (reader, writer) = std::io::pipe().context("pipe")?;

    // The name is unique among nested and concurrent sandboxes, and after a reused process id.
    let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().subsec_nanos();
    let name = format!("deputy-sandbox-{}-{nanoseconds:08x}", std::process::id());
    let cleaner = start_cleaner(&own, &name, reader.try_clone()?)?;

    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC).context(
        "private namespaces (a container needs --privileged, or CAP_SYS_ADMIN and no seccomp filter)",
    )?;
    mounts::make_private()?;
    // Process 1 looks whether we still live by this descriptor, after it has set its parent-death signal.
    let (inner_reader, mut inner_writer) = std::io::pipe().context("pipe")?;
    fcntl(&inner_reader, FcntlArg::F_SETFD(FdFlag::empty())).context("pipe")?;
    let mut inner = exec::by_fork(&mut Command::new(&own))
        .args([init::ROLE, &inner_reader.as_raw_fd().to_string()])
        .spawn()
        .context("starting process 1")?;
    drop((reader, inner_reader));
    // When it cannot be written, process 1 has ended already and says why by its status.
    let _ = inner_writer.write_all(&message(if cleaner.is_some() { &name } else { "" }, arguments));

    let status = wait(&mut inner, &signals)?;
    drop((writer, inner_writer));
    if let Some(mut cleaner) = cleaner {
        let ended = cleaner.wait().context("waiting for the cleaner")?;
        if !ended.success() {
            eprintln!(
                "deputy-sandbox: the cgroup {name} could not be removed; rmdir it when its processes ended"
            );
        }
    }
    Ok(code(status))
}

/// What process 1 is told: a length, then the cgroup's name and the arguments, each ended by a zero byte.
fn message(cgroup: &str, arguments: &[OsString]) -> Vec<u8> {
    let mut body = cgroup.as_bytes().to_vec();
    for argument in arguments {
        body.push(0);
        body.extend(argument.as_bytes());
    }
    let mut message = u64::try_from(body.len()).unwrap_or(0).to_le_bytes().to_vec();
    message.extend(body);
    message
}

/// The status that a shell would give.
pub fn code(status: ExitStatus) -> u8 {
    let number = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(number).unwrap_or(u8::MAX)
}

/// Starts the cleaner and waits until the cgroup is there; none when this machine cannot make one.
fn start_cleaner(own: &std::path::Path, name: &str, reader: PipeReader) -> Result<Option<Child>> {
    let mut child = Command::new(own)
        .args([cleaner::ROLE, name])
        .stdin(reader)
        .stdout(Stdio::piped())
        // It may outlive us for a moment, and must not keep a pipe open that somebody reads to its end.
        .stderr(Stdio::null())
        .spawn()
        .context("starting the cleaner")?;
    let mut line = String::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output).read_line(&mut line).context("the cleaner's answer")?;
    }
    if line == cleaner::READY {
        return Ok(Some(child));
    }
    child.wait()?;
    Ok(None)
}

fn wait(inner: &mut Child, signals: &SignalFd) -> Result<ExitStatus> {
    let pid = Pid::from_raw(i32::try_from(inner.id())?);
    loop {
        if let Some(status) = inner.try_wait().context("waiting for process 1")? {
            return Ok(status);
        }
        let mut poll =
            [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(signals), nix::poll::PollFlags::POLLIN)];
        match nix::poll::poll(&mut poll, nix::poll::PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => bail!("poll: {error}"),
        }
        while let Some(info) = signals.read_signal().context("signalfd")? {
            if let Some(signal) = to_forward(info.ssi_signo, info.ssi_code) {
                // It may have ended in this moment.
                let _ = kill(pid, signal);
            }
        }
    }
}
