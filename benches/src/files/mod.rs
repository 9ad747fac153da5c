//! What files cost through Deputy: reading and writing by a descriptor, opening many, listing many; beside a process of the
//! user's own, and beside a portal that has 4 KiB chunks passed through a socket by a process of the user's.
//!
//! Each measurement is a process of its own ([`one`]), as whoever does it; each round takes all of them in turn.

mod client;
mod one;

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use serde::Serialize;

pub use self::one::{Serves, one, serve};
use crate::contender::{PORTAL, USER};
use crate::statistics::{quantile, ratio};

/// The application's root (benches/files/bench.toml).
const ROOT: &str = "/var/lib/deputy/bench-files";

/// Bytes that pass the socket at once.
const CHUNK: usize = 4096;

/// Even, so that each comes first as often as the other.
const ROUNDS: usize = 4;

/// How much.
#[derive(Debug, Clone, Args)]
pub struct Amounts {
    /// MiB that are written and read
    #[arg(long, default_value_t = 1024)]
    mib: u64,
    /// Files that are opened and closed
    #[arg(long, default_value_t = 100_000)]
    files: u64,
    /// Entries of the folder that is listed
    #[arg(long, default_value_t = 1_000_000)]
    entries: u64,
}

/// Where the file is that is read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub enum Place {
    /// On the disk
    Disk,
    /// In memory: the fastest disk there is, which has no moods that could hide what Deputy adds
    Memory,
}

impl Place {
    fn folder(self) -> PathBuf {
        Path::new(ROOT).join(word(self))
    }

    fn data(self) -> PathBuf {
        self.folder().join("data")
    }
}

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub enum What {
    /// Writes and syncs as the user
    LocalWrite,
    /// Reads as the user
    LocalRead,
    /// The same by a descriptor of Deputy's
    DeputyWrite,
    /// The same by a descriptor of Deputy's
    DeputyRead,
    /// The same through a socket
    SocketWrite,
    /// The same through a socket
    SocketRead,
    /// Opens and closes each file as the user
    LocalOpen,
    /// Has each file opened through a channel, and closes it
    DeputyOpen,
    /// The same by calls on the bus
    CallOpen,
    /// Lists and stats as the user
    LocalList,
    /// Reads the lines of a list
    DeputyList,
}

impl What {
    fn user(self) -> &'static str {
        match self {
            What::LocalWrite | What::LocalRead | What::LocalOpen | What::LocalList => USER,
            _ => PORTAL,
        }
    }
}

/// What one run found: medians in nanoseconds.
#[derive(Debug, Serialize)]
pub struct Report {
    mib: u64,
    files: u64,
    entries: u64,
    write: Three,
    read: Three,
    write_in_memory: Three,
    read_in_memory: Three,
    open: Two,
    /// The same by calls on the bus.
    open_by_calls: Two,
    list: Two,
    /// The most memory of the file agent that listed, KiB.
    agent_kib: u64,
}

#[derive(Debug, Serialize)]
struct Three {
    local: u64,
    deputy: u64,
    socket: u64,
}

#[derive(Debug, Serialize)]
struct Two {
    local: u64,
    deputy: u64,
}

/// Measures all.
pub fn measure(amounts: &Amounts) -> Result<Report> {
    let Amounts { mib, files, entries } = *amounts;
    let alice = ids(USER)?;
    fs::create_dir_all(ROOT)?;
    chown(ROOT, Some(alice.0), Some(alice.1))?;
    many(&Path::new(ROOT).join("small"), files, alice, true)?;
    many(&Path::new(ROOT).join("large"), entries, alice, false)?;
    for place in Place::value_variants() {
        fs::create_dir_all(place.folder())?;
        if *place == Place::Memory {
            let mounted = Command::new("mount").args(["-t", "tmpfs", "none"]).arg(place.folder()).status()?;
            ensure!(mounted.success(), "{mounted}");
        }
        chown(place.folder(), Some(alice.0), Some(alice.1))?;
    }
    let mut samples: HashMap<(What, Place), Vec<u64>> = HashMap::new();
    let mut agent_kib = 0;
    for (what, place) in (0..ROUNDS).flat_map(order) {
        level(what, place)?;
        let count = match what {
            What::LocalOpen | What::DeputyOpen | What::CallOpen => files,
            What::LocalList | What::DeputyList => entries,
            _ => mib << 20,
        };
        let (nanoseconds, memory) = run(what, place, count).with_context(|| format!("{what:?}"))?;
        samples.entry((what, place)).or_default().push(nanoseconds);
        agent_kib = agent_kib.max(memory);
    }
    let mut median = |what, place| samples.get_mut(&(what, place)).map_or(0, |samples| quantile(samples, 50));
    let mut write = |place| Three {
        local: median(What::LocalWrite, place),
        deputy: median(What::DeputyWrite, place),
        socket: median(What::SocketWrite, place),
    };
    let (write, write_in_memory) = (write(Place::Disk), write(Place::Memory));
    let mut read = |place| Three {
        local: median(What::LocalRead, place),
        deputy: median(What::DeputyRead, place),
        socket: median(What::SocketRead, place),
    };
    let (read, read_in_memory) = (read(Place::Disk), read(Place::Memory));
    let mut two =
        |local, deputy| Two { local: median(local, Place::Disk), deputy: median(deputy, Place::Disk) };
    Ok(Report {
        mib,
        files,
        entries,
        write,
        read,
        write_in_memory,
        read_in_memory,
        open: two(What::LocalOpen, What::DeputyOpen),
        open_by_calls: two(What::LocalOpen, What::CallOpen),
        list: two(What::LocalList, What::DeputyList),
        agent_kib,
    })
}

/// What a round measures, in which order. Whoever comes first finds what those before have left of the machine's memory, so
/// what is compared stands side by side, there and back, and begins with the other in the next round.
fn order(round: usize) -> Vec<(What, Place)> {
    let mut order = Vec::new();
    for place in Place::value_variants() {
        for (mut compared, socket) in [
            ([What::LocalWrite, What::DeputyWrite], What::SocketWrite),
            ([What::LocalRead, What::DeputyRead], What::SocketRead),
        ] {
            compared.rotate_left(round % 2);
            let there_and_back = compared.into_iter().chain(compared.into_iter().rev());
            order.extend(there_and_back.chain([socket]).map(|what| (what, *place)));
        }
    }
    let of_many = [What::LocalOpen, What::DeputyOpen, What::CallOpen, What::LocalList, What::DeputyList];
    order.extend(of_many.map(|what| (what, Place::Disk)));
    order
}

/// The same beginning for all who do the same: nothing is there to be cut off, and everything was read once.
fn level(what: What, place: Place) -> Result<()> {
    let data = place.data();
    match what {
        What::LocalWrite | What::DeputyWrite | What::SocketWrite if data.exists() => fs::remove_file(data)?,
        What::LocalRead | What::DeputyRead | What::SocketRead => {
            std::io::copy(&mut File::open(data)?, &mut std::io::sink())?;
        }
        _ => {}
    }
    Ok(())
}

/// A value as the command line has it.
fn word(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// The uid and gid of a user of the sandbox.
fn ids(user: &str) -> Result<(u32, u32)> {
    let passwd = fs::read_to_string("/etc/passwd")?;
    let line = passwd.lines().find(|line| line.split(':').next() == Some(user)).context("no such user")?;
    let mut fields = line.split(':').skip(2);
    let mut number = || -> Result<u32> { Ok(fields.next().context("a short line")?.parse()?) };
    Ok((number()?, number()?))
}

fn many(folder: &Path, count: u64, (uid, gid): (u32, u32), held: bool) -> Result<()> {
    fs::create_dir_all(folder)?;
    chown(folder, Some(uid), Some(gid))?;
    for number in 0..count {
        let path = folder.join(format!("f{number:07}"));
        let mut file = File::create(&path)?;
        if held {
            file.write_all(b"some bytes")?;
            chown(&path, Some(uid), Some(gid))?;
        }
    }
    Ok(())
}

/// Runs one measurement in a process of its own: nanoseconds, and the most KiB that a file agent had.
fn run(what: What, place: Place, count: u64) -> Result<(u64, u64)> {
    let other_end = match what {
        What::SocketRead => Some(Serves::Sending),
        What::SocketWrite => Some(Serves::Receiving),
        _ => None,
    };
    let server = other_end.map(|role| {
        let mut server = Command::new("runuser");
        let words = [word(role), word(place)];
        server
            .args(["-u", USER, "--", "deputy-bench", "file-server"])
            .args(words)
            .stdout(Stdio::piped())
            .spawn()
    });
    let mut server = server.transpose()?;
    if let Some(server) = &mut server {
        // It says a line when it listens.
        let mut line = String::new();
        BufReader::new(server.stdout.take().context("a pipe")?).read_line(&mut line)?;
    }
    let output = Command::new("runuser")
        .args([
            "-u",
            what.user(),
            "--",
            "deputy-bench",
            "file",
            &word(what),
            &word(place),
            &count.to_string(),
        ])
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "{}", output.status);
    if let Some(mut server) = server {
        ensure!(server.wait()?.success(), "the other end of the socket failed");
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // The agent is idle for a while before it ends.
    let memory = if what == What::DeputyList { text.split(' ').nth(1) } else { None };
    let memory = memory.and_then(|text| text.trim().parse().ok()).unwrap_or_default();
    Ok((text.split_ascii_whitespace().next().context("a number")?.parse()?, memory))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |ns: u64| ratio(ns, 1_000_000_000);
        writeln!(
            f,
            "{:36} {:>9} {:>9} {:>8} {:>9} {:>8}",
            "seconds", "local", "deputy", "ratio", "socket", "ratio"
        )?;
        for (what, Three { local, deputy, socket }) in [
            (format!("write and sync of {} MiB", self.mib), &self.write),
            (format!("read of {} MiB", self.mib), &self.read),
            (format!("write of {} MiB in memory", self.mib), &self.write_in_memory),
            (format!("read of {} MiB in memory", self.mib), &self.read_in_memory),
        ] {
            writeln!(
                f,
                "{what:36} {:>9.3} {:>9.3} {:>8.2} {:>9.3} {:>8.2}",
                seconds(*local),
                seconds(*deputy),
                ratio(*deputy, *local),
                seconds(*socket),
                ratio(*socket, *local)
            )?;
        }
        for (what, Two { local, deputy }) in [
            (format!("open and close of {} files", self.files), &self.open),
            ("the same by calls on the bus".to_owned(), &self.open_by_calls),
            (format!("list of {} entries", self.entries), &self.list),
        ] {
            let to_local = ratio(*deputy, *local);
            writeln!(f, "{what:36} {:>9.3} {:>9.3} {to_local:>8.2}", seconds(*local), seconds(*deputy))?;
        }
        writeln!(f)?;
        writeln!(f, "The agent that listed had {:.1} MiB at most.", ratio(self.agent_kib, 1024))?;
        writeln!(
            f,
            "The socket passes chunks of {CHUNK} bytes, as portals with a process for each user do."
        )?;
        writeln!(
            f,
            "What is aimed at: 1.02 for reading and writing, 3 for opening and listing. {ROUNDS} rounds, medians."
        )
    }
}
