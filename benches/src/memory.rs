//! What the processes cost in memory, beside what is aimed at.

use std::fmt;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use crate::contender::PORTAL;
use crate::processes::{self, Memory};
use crate::statistics::{quantile, ratio};

/// What is aimed at, bytes: the daemon and the launcher as they are, idle; a shepherd, what is its own.
const DAEMON: u64 = 20 << 20;
const LAUNCHER: u64 = 4 << 20;
const SHEPHERD: u64 = 3 << 19;

/// How many shepherds are looked at.
const SHEPHERDS: usize = 100;

/// How long everything has to become quiet.
const SETTLE: Duration = Duration::from_secs(3);

/// What one run found.
#[derive(Debug, Serialize)]
pub struct Report {
    running: u32,
    waiting: u32,
    daemon_idle: Memory,
    daemon_running: Memory,
    daemon_waiting: Memory,
    launcher_idle: Memory,
    launcher_running: Memory,
    /// The median of each.
    shepherd: Memory,
    shepherds: usize,
}

/// Measures: idle, then with jobs that run, then with others that wait besides.
pub fn measure(running: u32, waiting: u32) -> Result<Report> {
    let daemon = one("deputyd")?;
    let launcher = one("deputy-launcher")?;
    std::thread::sleep(SETTLE);
    let (daemon_idle, launcher_idle) = (processes::memory(daemon)?, processes::memory(launcher)?);
    hold(running)?;
    let (daemon_running, launcher_running) = (processes::memory(daemon)?, processes::memory(launcher)?);
    let (shepherd, shepherds) = shepherds(launcher, running)?;
    hold(waiting)?;
    let daemon_waiting = processes::memory(daemon)?;
    Ok(Report {
        running,
        waiting,
        daemon_idle,
        daemon_running,
        daemon_waiting,
        launcher_idle,
        launcher_running,
        shepherd,
        shepherds,
    })
}

fn one(name: &str) -> Result<i32> {
    processes::named(name)?.first().copied().with_context(|| format!("there is no {name}"))
}

/// Has the portal ask for so many jobs more, which sleep.
fn hold(count: u32) -> Result<()> {
    let status = Command::new("runuser")
        .args(["-u", PORTAL, "--", "deputy-bench", "hold", &count.to_string()])
        .stdin(Stdio::null())
        .status()
        .context("runuser")?;
    ensure!(status.success(), "the jobs could not be started: {status}");
    std::thread::sleep(SETTLE);
    Ok(())
}

fn shepherds(launcher: i32, running: u32) -> Result<(Memory, usize)> {
    let mut found = processes::named("deputy-launcher")?;
    found.retain(|&pid| processes::parent(pid).is_ok_and(|parent| parent == launcher));
    ensure!(found.len() >= usize::try_from(running)?, "of {running} jobs {} have a shepherd", found.len());
    found.truncate(SHEPHERDS);
    let all: Vec<Memory> = found.into_iter().map(processes::memory).collect::<Result<_>>()?;
    let median = |of: fn(&Memory) -> u64| quantile(&mut all.iter().map(of).collect::<Vec<_>>(), 50);
    let shepherd = Memory {
        resident: median(|memory| memory.resident),
        proportional: median(|memory| memory.proportional),
        own: median(|memory| memory.own),
        own_written: median(|memory| memory.own_written),
    };
    Ok((shepherd, all.len()))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| ratio(bytes, 1 << 20);
        let row = |f: &mut fmt::Formatter<'_>, what: &str, memory: &Memory, aim: Option<(u64, u64)>| {
            let Memory { resident, proportional, own, own_written } = memory;
            write!(
                f,
                "{what:34} {:>9.2} {:>9.2} {:>9.2} {:>9.2}",
                mib(*resident),
                mib(*proportional),
                mib(*own),
                mib(*own_written)
            )?;
            match aim {
                None => writeln!(f),
                Some((value, bound)) => {
                    let word = if value < bound { "held" } else { "NOT HELD" };
                    writeln!(f, " {:>7.1}  {word}", mib(bound))
                }
            }
        };
        writeln!(f, "MiB")?;
        writeln!(
            f,
            "{:34} {:>9} {:>9} {:>9} {:>9} {:>7}",
            "", "resident", "shared/n", "own", "written", "aim"
        )?;
        let idle = &self.daemon_idle;
        row(f, "deputyd, idle", idle, Some((idle.resident, DAEMON)))?;
        row(f, &format!("deputyd, {} jobs run", self.running), &self.daemon_running, None)?;
        row(f, &format!("    and {} wait", self.waiting), &self.daemon_waiting, None)?;
        let idle = &self.launcher_idle;
        row(f, "deputy-launcher, idle", idle, Some((idle.resident, LAUNCHER)))?;
        row(f, &format!("deputy-launcher, {} jobs run", self.running), &self.launcher_running, None)?;
        let what = format!("a shepherd (median of {})", self.shepherds);
        row(f, &what, &self.shepherd, Some((self.shepherd.own, SHEPHERD)))?;
        writeln!(f)?;
        writeln!(f, "The aims of the two daemons are for what is resident, a shepherd's for what is its own.")
    }
}
