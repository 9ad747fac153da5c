//! Removes the sandbox's cgroup when the sandbox has ended, however it ended.
//!
//! Everything else of a sandbox lives in its mount and pid namespaces and goes with their last process. A cgroup
//! does not. So a small process in a session of its own, outside of the pid namespace, makes the directory, then
//! waits for end of file on a pipe whose other end only the outer process holds: the kernel closes that even when
//! the outer process is killed with SIGKILL. It mounts cgroup2 in a mount namespace of its own, so that the same
//! lines work on hosts with cgroup v1, v2 or none mounted.

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, unshare};

use crate::mounts;

/// The argument that selects this role; the next one is the directory's name.
pub const ROLE: &str = "--cleaner";
/// What is written to stdout when the directory is there.
pub const READY: &str = "ready\n";

/// Any directory that exists does as a place to mount on: nobody else sees this namespace.
const MOUNT: &str = "/sys/fs/cgroup";

/// Makes the cgroup, waits for end of file on stdin, removes it with all below.
pub fn run(arguments: &[OsString]) -> Result<u8> {
    let name = arguments.first().context("the cgroup's name is missing")?;
    nix::unistd::setsid().context("setsid")?;
    std::env::set_current_dir("/")?;
    unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace")?;
    mounts::make_private()?;
    // The same file system is not mounted twice on one place.
    mounts::detach(Path::new(MOUNT));
    mounts::fresh(Path::new(MOUNT), "cgroup2", "")?;
    let directory = Path::new(MOUNT).join(name);
    fs::create_dir(&directory).with_context(|| directory.display().to_string())?;

    let mut out = std::io::stdout();
    // The outer process may be gone by now; then end of file comes at once and the directory goes as well.
    let _ = out.write_all(READY.as_bytes()).and_then(|()| out.flush());
    let _ = std::io::stdin().read_to_end(&mut Vec::new());

    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        // Absent before Linux 5.14; the end of the pid namespace kills the same processes.
        let _ = fs::write(directory.join("cgroup.kill"), "1");
        if remove(&directory).is_ok() {
            return Ok(0);
        }
        if Instant::now() > deadline {
            bail!("{} is still in use", directory.display());
        }
        sleep(Duration::from_millis(2));
    }
}

/// cgroups are removed from the leaves upward; the files in them go along.
fn remove(directory: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(directory)
}
