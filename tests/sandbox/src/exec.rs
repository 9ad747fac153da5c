//! The last step before a program inside: `--exec [--service] PROGRAM ARGUMENT...`.
//!
//! Process 1 blocks the signals that it reads from a descriptor, and a blocked mask survives exec; setting it back
//! in the child without `unsafe` needs a program between the two, which is this one.

use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};
use nix::sys::signal::SigSet;

/// The argument that selects this role.
pub const ROLE: &str = "--exec";
/// Its option for services: a session of its own, and nothing open but the standard descriptors.
pub const SERVICE: &str = "--service";

/// Makes the standard library fork instead of calling `posix_spawn`: glibc's leaves signals 32 and 33 ignored in the
/// child, for good, and the commands inside compare their dispositions with those of a login.
pub fn by_fork(command: &mut Command) -> &mut Command {
    // Any of the settings that posix_spawn cannot do would serve; this one changes nothing.
    command.gid(nix::unistd::getgid().as_raw())
}

/// Becomes the program; returns only when that failed, with the status that a shell would give.
pub fn run(arguments: &[OsString]) -> Result<u8> {
    let (service, arguments) = match arguments.split_first() {
        Some((first, rest)) if first == SERVICE => (true, rest),
        _ => (false, arguments),
    };
    let (program, rest) = arguments.split_first().context("nothing to execute")?;
    if service {
        nix::unistd::setsid().context("setsid")?;
        close_other_descriptors()?;
    }
    SigSet::empty().thread_set_mask().context("unblocking signals")?;
    let error = Command::new(program).args(rest).exec();
    eprintln!("deputy-sandbox: {}: {error}", program.display());
    Ok(if error.kind() == ErrorKind::NotFound { 127 } else { 126 })
}

/// What the caller of the sandbox had open is the command's to use, never a service's.
fn close_other_descriptors() -> Result<()> {
    let open: Vec<i32> = std::fs::read_dir("/proc/self/fd")
        .context("/proc/self/fd")?
        .filter_map(|entry| number(&entry.ok()?.file_name()))
        .filter(|descriptor| *descriptor > 2)
        .collect();
    for descriptor in open {
        // The one that read the directory is in the list and closed already: EBADF is no fault.
        let _ = nix::unistd::close(descriptor);
    }
    Ok(())
}

fn number(name: &OsStr) -> Option<i32> {
    name.to_str()?.parse().ok()
}
