//! Process 1 inside: `--inner DESCRIPTOR`; the options come through the descriptor.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Parser;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use crate::accounts::{Accounts, set_passwords};
use crate::files::{self, BUS_SOCKET};
use crate::options::Options;
use crate::root::{self, staged};
use crate::slurm::Slurm;
use crate::supervisor::Supervisor;
use crate::{exec, mounts, outer, services};

/// The argument that selects this role.
pub const ROLE: &str = "--inner";

/// This program, as seen from inside.
const OWN: &str = "/usr/local/bin/deputy-sandbox";

/// Builds the machine, starts it, runs the command.
pub fn run(arguments: &[OsString]) -> Result<u8> {
    let start = Instant::now();
    let descriptor = arguments.first().with_context(|| format!("{ROLE} is for deputy-sandbox itself"))?;
    let mut outer_lives = live_with_outer(descriptor)?;
    let signals = outer::signal_descriptor()?;
    let words = receive(&mut outer_lives).context("the options from the outer process")?;
    let (cgroup, arguments) = words.split_first().context("no options")?;
    let options = Options::parse_from(arguments);
    let timing = |what: &str| {
        if options.timing {
            eprintln!("deputy-sandbox: {:>5} ms  {what}", start.elapsed().as_millis());
        }
    };

    let own = std::env::current_exe().context("/proc/self/exe")?;
    let directory = std::env::current_dir().context("the current directory")?;
    let bin_dir = match &options.bin_dir {
        Some(given) => given.canonicalize().with_context(|| format!("--bin-dir {}", given.display()))?,
        None => own.parent().context("this program's directory")?.to_path_buf(),
    };
    // Read before the stage covers /proc.
    let cgroup_mount = cgroup2_mount();
    let slurm = match (options.slurm, options.slurm_without_accounting) {
        (false, false) => None,
        (accounting, _) => Some(Slurm::new(accounting, options.second_cluster)?),
    };
    root::build(&options, &bin_dir, &own)?;
    timing("root built");
    let cgroup = match cgroup.to_str() {
        Some(name) if !name.is_empty() => Some(job_cgroup(&cgroup_mount, name)?),
        _ => None,
    };
    let mut accounts = Accounts::of_host(
        &fs::read_to_string("/etc/passwd").context("/etc/passwd")?,
        &fs::read_to_string("/etc/group").context("/etc/group")?,
    );
    accounts.add(&options.users)?;
    accounts.write(&staged("/etc"))?;
    accounts.make_homes(&options.users, &staged("/home"), Path::new("/etc/skel"))?;
    files::write(&options, &accounts, cgroup.as_deref())?;
    if let Some(slurm) = &slurm {
        slurm.write(&accounts)?;
    }
    mounts::switch_root(Path::new(root::STAGE))?;
    // A directory that is private inside may not be there; the command then starts in /.
    let _ = std::env::set_current_dir(&directory);
    timing("accounts and files written, root switched");

    let mut supervisor = Supervisor::new(signals, outer_lives, OWN.into());
    start_services(&mut supervisor, &options, &timing)?;
    if let Some(slurm) = &slurm {
        slurm.start(&mut supervisor, &options.users, &timing)?;
    }
    supervisor.run_command(command(&options))
}

/// Ends this process with the outer one. The signal is set for the future; the pipe tells about the past.
fn live_with_outer(descriptor: &OsStr) -> Result<File> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context("the parent-death signal")?;
    let number: i32 = descriptor.to_str().and_then(|text| text.parse().ok()).context("the descriptor")?;
    // A second opening is close-on-exec, unlike the inherited one; it must not wait for a writer that is gone.
    let pipe = File::options()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(format!("/proc/self/fd/{number}"))
        .context("the outer process's pipe")?;
    nix::unistd::close(number).context("the outer process's pipe")?;
    Ok(pipe)
}

/// Reads the cgroup's name and the arguments; see [`outer`].
fn receive(pipe: &mut File) -> Result<Vec<OsString>> {
    let mut bytes = Vec::new();
    loop {
        let mut descriptors = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
        match poll(&mut descriptors, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => bail!("poll: {error}"),
        }
        let mut buffer = [0; 4096];
        match pipe.read(&mut buffer) {
            Ok(0) => bail!("the outer process is gone"),
            Ok(length) => bytes.extend(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        if let Some((length, body)) = bytes.split_first_chunk::<8>()
            && u64::from_le_bytes(*length) == body.len() as u64
        {
            return Ok(body.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect());
        }
    }
}

/// The bus first, then polkit and the launcher beside each other, then the daemon; passwords meanwhile.
fn start_services(supervisor: &mut Supervisor, options: &Options, timing: &impl Fn(&str)) -> Result<()> {
    let notify = UnixDatagram::bind(services::notify_socket()).context("the notification socket")?;
    notify.set_nonblocking(true)?;
    fs::set_permissions(services::notify_socket(), fs::Permissions::from_mode(0o666))?;

    supervisor.start(services::bus()?)?;
    if !options.no_daemons {
        supervisor.start(services::launcher()?)?;
    }
    supervisor.wait_ready("dbus-daemon", "its socket accepts", services::bus_accepts)?;
    timing("bus ready");
    supervisor.start(services::polkit()?)?;
    if !options.no_daemons {
        supervisor.wait_ready("deputy-launcher", "its two sockets exist", services::launcher_listens)?;
        timing("launcher ready");
        supervisor.start(services::daemon()?)?;
    }
    set_passwords(&options.users)?;
    timing("passwords set");
    if !options.no_daemons {
        supervisor.wait_ready("deputyd", "it sends READY=1", || ready_message(&notify))?;
        timing("daemon ready");
    }
    let name = "org.freedesktop.PolicyKit1";
    supervisor.wait_ready("polkitd", "it has its name on the bus", || services::name_is_owned(name))?;
    timing("polkit ready");
    Ok(())
}

fn ready_message(socket: &UnixDatagram) -> bool {
    let mut buffer = [0; 4096];
    while let Ok(length) = socket.recv(&mut buffer) {
        if buffer[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
            return true;
        }
    }
    false
}

/// The command, with the private bus and the built programs first in its PATH.
fn command(options: &Options) -> Command {
    let mut command = Command::new(OWN);
    command.arg(exec::ROLE);
    if options.command.is_empty() {
        eprintln!(
            "deputy-sandbox: a shell inside; the services' logs are in {}; leave it and all is gone",
            files::LOGS
        );
        command.arg("/bin/bash");
    } else {
        command.args(&options.command);
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| services::PATH.into());
    let path: Vec<PathBuf> =
        std::iter::once(PathBuf::from("/usr/local/bin")).chain(std::env::split_paths(&path)).collect();
    if let Ok(path) = std::env::join_paths(path) {
        command.env("PATH", path);
    }
    command.env("DBUS_SYSTEM_BUS_ADDRESS", format!("unix:path={BUS_SOCKET}"));
    command.env("DEPUTY_SANDBOX", "1");
    // They name sockets and directories of the host that are not there inside.
    for variable in ["DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR"] {
        command.env_remove(variable);
    }
    if std::env::var_os("TMPDIR").is_some_and(|directory| !Path::new(&directory).is_dir()) {
        command.env_remove("TMPDIR");
    }
    command
}

/// Where the host has the whole cgroup2 hierarchy, or where it usually is.
fn cgroup2_mount() -> PathBuf {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let found = table.lines().find_map(|line| {
        let (mount, source) = line.split_once(" - ")?;
        let fields: Vec<&str> = mount.split(' ').collect();
        let whole = source.starts_with("cgroup2 ") && fields.get(3) == Some(&"/");
        fields.get(4).filter(|path| whole && path.starts_with("/sys/")).map(PathBuf::from)
    });
    found.unwrap_or_else(|| "/sys/fs/cgroup".into())
}

/// Mounts cgroup2 afresh (the host's may be read-only) and makes the directory for jobs in the one that the
/// cleaner made, with the controllers that the host passes on. Returns its path as seen from inside.
fn job_cgroup(mount: &Path, name: &str) -> Result<String> {
    // The same file system is not mounted twice on one place.
    mounts::detach(&staged(mount));
    mounts::fresh(&staged(mount), "cgroup2", "")?;
    let parent = staged(mount.join(name));
    for controller in
        fs::read_to_string(parent.join("cgroup.controllers")).unwrap_or_default().split_whitespace()
    {
        // None with cgroup v1 beside it; killing and counting work all the same.
        let _ = fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}"));
    }
    let directory = mount.join(name).join("jobs");
    fs::create_dir(staged(&directory)).with_context(|| directory.display().to_string())?;
    Ok(directory.display().to_string())
}
