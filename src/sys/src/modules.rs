//! Shared objects that are mapped before they are needed, so that a child which loads them after a fork finds them
//! there: mapping and relocating PAM's modules is a third of what a launch costs.

use std::ffi::CStr;
use std::io;
use std::ptr::NonNull;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::process::{Fork, end_after, exit_now, fork, thread_count};

/// How long a trial of mapping may take, in seconds.
const PATIENCE: u32 = 10;

/// A shared object that stays mapped until this is dropped.
#[derive(Debug)]
pub struct Mapped(NonNull<libc::c_void>);

/// Maps a shared object; none if that cannot be done. Nothing in it is called but what its own loading calls.
fn map(path: &CStr) -> Option<Mapped> {
    // SAFETY: the path is NUL-terminated. Constructors run, as they would in each child when PAM loads the object;
    // `map_all` has tried in a child whether that leaves this process as it was.
    NonNull::new(unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) }).map(Mapped)
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the handle is one that `dlopen` gave, and it is given back once.
        unsafe { libc::dlclose(self.0.as_ptr()) };
    }
}

/// Maps shared objects, after a child has shown that it can be done without harm: that none of them ends the process,
/// hangs, or starts a thread, which a process that forks must not have. Those that are not there are left out.
pub fn map_all(paths: &[&CStr]) -> io::Result<Vec<Mapped>> {
    match fork()? {
        Fork::Child => {
            end_after(PATIENCE);
            let mapped: Vec<_> = paths.iter().filter_map(|path| map(path)).collect();
            let harmless = thread_count().is_ok_and(|count| count == 1);
            // Leaving runs no destructor, nor would a child of PAM's.
            std::mem::forget(mapped);
            exit_now(i32::from(!harmless));
        }
        Fork::Parent(pid) => match waitpid(Pid::from_raw(pid), None)? {
            WaitStatus::Exited(_, 0) => Ok(paths.iter().filter_map(|path| map(path)).collect()),
            _ => Err(io::Error::other(
                "one of the modules starts a thread, or cannot be loaded ahead of its use",
            )),
        },
    }
}
