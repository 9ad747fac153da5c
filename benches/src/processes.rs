//! Other processes, as `/proc` shows them.

use std::fs;

use anyhow::{Context as _, Result};

/// Clock ticks in a second, as `/proc` counts them: on every Linux of today 100.
const TICKS: u64 = 100;

/// The pids of processes with this program name (as the kernel cuts it), in order.
pub fn named(name: &str) -> Result<Vec<i32>> {
    let cut = name.get(..15).unwrap_or(name);
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // It may have ended since.
        if fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|found| found.trim_end() == cut) {
            pids.push(pid);
        }
    }
    pids.sort_unstable();
    Ok(pids)
}

/// A field of `/proc/PID/stat`, counted as in proc(5).
fn stat(pid: i32, fields: &[usize]) -> Result<Vec<u64>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may have spaces and brackets in it.
    let rest: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    fields
        .iter()
        .map(|field| {
            let value =
                field.checked_sub(3).and_then(|at| rest.get(at)).context("/proc/PID/stat is short")?;
            Ok(value.parse()?)
        })
        .collect()
}

/// The parent of a process.
pub fn parent(pid: i32) -> Result<i32> {
    Ok(i32::try_from(stat(pid, &[4])?[0])?)
}

/// CPU time in user mode and in the kernel of a process and of the children that it waited for, nanoseconds.
pub fn cpu(pid: i32) -> Result<u64> {
    // utime, stime, cutime, cstime
    Ok(stat(pid, &[14, 15, 16, 17])?.iter().sum::<u64>() * (1_000_000_000 / TICKS))
}

/// What a process has in memory, bytes.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub struct Memory {
    /// All that is there.
    pub resident: u64,
    /// The same, with what is shared divided by those who share it.
    pub proportional: u64,
    /// What nobody else has.
    pub own: u64,
    /// Of that, what it wrote.
    pub own_written: u64,
}

/// What a process has resident, bytes.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
pub struct Resident {
    /// Now.
    pub now: u64,
    /// The most that it ever had.
    pub most: u64,
}

impl Resident {
    /// Of a process: its id, or `self`.
    pub fn of(process: impl std::fmt::Display) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let field = |name: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).context(name.to_owned())?;
            Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
        };
        Ok(Self { now: field("VmRSS:")?, most: field("VmHWM:")? })
    }
}

/// What a process has in memory now.
pub fn memory(pid: i32) -> Result<Memory> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let field = |name: &str| -> Result<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).context(name.to_owned())?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
    };
    let own_written = field("Private_Dirty:")?;
    Ok(Memory {
        resident: field("Rss:")?,
        proportional: field("Pss:")?,
        own: field("Private_Clean:")? + own_written,
        own_written,
    })
}
