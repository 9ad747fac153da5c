//! One million accounts: the store, and the daemon on top of it. Each bound is said beside what was measured.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use zbus::Connection;

use crate::processes::Resident;
use crate::statistics::{quantile, ratio};
use crate::store::{self, Asked, Filled};

const STATE: &str = "/var/lib/deputy";
const NAME: &str = "org.deputy.Deputy1";

/// How long the daemon may verify older parts of its ledger in the background before its memory is measured.
const SETTLE: Duration = Duration::from_secs(8);

/// What must hold: nanoseconds, and bytes.
const LOOK_UP: u64 = 100_000;
const PAGE: u64 = 10_000_000;
const START: u64 = 2_000_000_000;
const MEMORY: u64 = 64 << 20;

/// What one run found.
#[derive(Debug, Serialize)]
pub struct Report {
    filled: Filled,
    asked: Asked,
    empty: Daemon,
    full: Daemon,
}

/// A daemon that was started and ended.
#[derive(Debug, Serialize)]
struct Daemon {
    /// Until the name was owned, nanoseconds.
    start_ns: u64,
    /// When it had settled.
    resident: Resident,
}

/// A command as the daemon's user, with the rights of its service.
pub fn as_deputy(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=deputy", "--regid=deputy", "--init-groups", "--inh-caps=-all"]);
    command.args(["--ambient-caps=-all", "--bounding-set=-all", "--no-new-privs", program]);
    command.stdin(Stdio::null());
    command
}

/// Measures. Needs a sandbox without daemons, whose state is on a disk.
pub fn measure(accounts: u64) -> Result<Report> {
    let empty = daemon()?;
    // The folders themselves are made by the installation.
    for part in ["ledger", "view"] {
        for entry in fs::read_dir(Path::new(STATE).join(part))? {
            let entry = entry?.path();
            if entry.is_dir() { fs::remove_dir_all(&entry) } else { fs::remove_file(&entry) }
                .with_context(|| entry.display().to_string())?;
        }
    }
    let (filled, asked) = store::measured_as_deputy(Path::new(STATE), accounts)?;
    Ok(Report { filled, asked, empty, full: daemon()? })
}

/// Starts the daemon, looks at it, and ends it in order.
fn daemon() -> Result<Daemon> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let connection = runtime.block_on(Connection::system())?;
    let begun = Instant::now();
    let log = fs::File::create("/tmp/deputyd.log")?;
    let mut child = as_deputy("deputyd").stdout(Stdio::null()).stderr(log).spawn().context("setpriv")?;
    let measured = settled(&runtime, &connection, &mut child, begun);
    // It may have ended by itself.
    let _ = kill_process(Pid::from_child(&child), Signal::TERM);
    let status = child.wait()?;
    ensure!(
        status.success() && measured.is_ok(),
        "deputyd: {status}, {:?}\n{}",
        measured.err(),
        fs::read_to_string("/tmp/deputyd.log").unwrap_or_default()
    );
    measured
}

fn settled(
    runtime: &tokio::runtime::Runtime,
    connection: &Connection,
    child: &mut Child,
    begun: Instant,
) -> Result<Daemon> {
    while !runtime.block_on(has_owner(connection))? {
        ensure!(
            child.try_wait()?.is_none() && begun.elapsed() < Duration::from_secs(120),
            "it does not start"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    let start_ns = u64::try_from(begun.elapsed().as_nanos())?;
    std::thread::sleep(SETTLE);
    Ok(Daemon { start_ns, resident: Resident::of(child.id())? })
}

async fn has_owner(connection: &Connection) -> Result<bool> {
    let bus = Some("org.freedesktop.DBus");
    let path = "/org/freedesktop/DBus";
    let reply = connection.call_method(bus, path, bus, "NameHasOwner", &(NAME,)).await?;
    Ok(reply.body().deserialize()?)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { filled, asked, empty, full } = self;
        let held = |value: u64, bound: u64| if value < bound { "held" } else { "NOT HELD" };
        let (ms, mib) = (|ns: u64| ratio(ns, 1_000_000), |bytes: u64| ratio(bytes, 1 << 20));
        writeln!(f, "{} accounts", asked.accounts)?;
        writeln!(f)?;
        writeln!(f, "{:30} {:>12} {:>12}", "", "measured", "bound")?;
        writeln!(f, "{:30} {:>10} /s", "added, 1000 at once", filled.added_per_second)?;
        writeln!(f, "{:30} {:>9.2} ms", "added, one at a time (median)", ms(filled.commit_ns))?;
        let line =
            |f: &mut fmt::Formatter<'_>, what: &str, value: f64, bound: f64, unit: &str, word: &str| {
                writeln!(f, "{what:30} {value:>9.2} {unit:2} {bound:>9.0} {unit:2}  {word}")
            };
        let us = |ns: u64| ratio(ns, 1000);
        for (what, value) in [("look-up, median", 0), ("look-up, 99 of 100", 1)] {
            let value = asked.look_up_ns[value];
            line(f, what, us(value), us(LOOK_UP), "us", held(value, LOOK_UP))?;
        }
        let mut times: Vec<u64> = asked.pages.iter().map(|page| page.nanoseconds).collect();
        for (what, percent) in [("page of 100, median", 50), ("page of 100, worst", 100)] {
            let value = quantile(&mut times, percent);
            line(f, what, ms(value), ms(PAGE), "ms", held(value, PAGE))?;
        }
        if let Some(worst) = asked.pages.iter().max_by_key(|page| page.nanoseconds) {
            writeln!(f, "    of {} filters and orders; the worst: {}", asked.pages.len(), worst.filter)?;
        }
        line(
            f,
            "start until the name is owned",
            ms(full.start_ns),
            ms(START),
            "ms",
            held(full.start_ns, START),
        )?;
        writeln!(f, "{:30} {:>9.2} ms", "    of an empty one", ms(empty.start_ns))?;
        writeln!(f, "{:30} {:>8.1} MiB", "resident, empty", mib(empty.resident.now))?;
        writeln!(f, "{:30} {:>8.1} MiB", "resident, full", mib(full.resident.now))?;
        let more = |resident: &Resident| resident.now.saturating_sub(asked.before.now);
        for (what, value) in [
            ("    more than empty", full.resident.now.saturating_sub(empty.resident.now)),
            ("    the same, at its most", full.resident.most.saturating_sub(empty.resident.most)),
            ("the store alone, opened", more(&asked.opened)),
            ("    after 100,000 look-ups", more(&asked.looked_up)),
            ("    and after the pages", more(&asked.paged)),
            ("    at its most", asked.paged.most.saturating_sub(asked.before.now)),
        ] {
            writeln!(
                f,
                "{what:30} {:>8.1} MiB {:>8.0} MiB  {}",
                mib(value),
                mib(MEMORY),
                held(value, MEMORY)
            )?;
        }
        Ok(())
    }
}
