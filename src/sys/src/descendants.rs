//! The tree below this process: which processes it has, and signalling all of them.
//!
//! For a process that is a subreaper: whatever its descendants do, they stay its descendants.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

fn children_of(pid: i32) -> Vec<i32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|text| text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// All descendants of this process, parents before their children.
pub fn all() -> Vec<i32> {
    let mut found = children_of(crate::process::own_pid());
    let mut next = 0;
    while next < found.len() {
        found.extend(children_of(found[next]));
        next += 1;
    }
    found
}

/// Signals every descendant, each through a descriptor that was opened before it was seen a second time: a pid that
/// went to a stranger in between is not in the second list.
pub fn signal_all(signal: i32) -> io::Result<usize> {
    let signal = Signal::from_named_raw(signal).ok_or_else(|| io::Error::other("not a signal"))?;
    let held: Vec<_> = all()
        .into_iter()
        .filter_map(|pid| Some((pid, pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?)))
        .collect();
    let still = all();
    let mut signalled = 0;
    for (pid, handle) in held {
        if still.contains(&pid) && pidfd_send_signal(&handle, signal).is_ok() {
            signalled += 1;
        }
    }
    Ok(signalled)
}

/// Kills every descendant, however they fork: all are stopped first, until a look finds no other ones, so that what is
/// killed has not made more of itself meanwhile. A tree that forks faster than that is killed as it was found; its next
/// turn finds it smaller, since what is stopped counts in its limits.
pub fn kill_all() -> io::Result<usize> {
    const SIGKILL: i32 = 9;
    const SIGSTOP: i32 = 19;
    const ROUNDS: usize = 20;
    let mut seen = BTreeSet::new();
    for _ in 0..ROUNDS {
        let now: BTreeSet<i32> = all().into_iter().collect();
        if now.is_subset(&seen) {
            break;
        }
        seen = now;
        signal_all(SIGSTOP)?;
    }
    signal_all(SIGKILL)
}
