//! What files cost through Deputy: reading and writing by a descriptor, opening many, listing many; beside a process of the
//! user's own, and beside a portal that has 4 KiB chunks passed through a socket by a process of the user's.
//!
//! Each measurement is a process of its own, as whoever does it; each round takes all of them in turn.

use std::fmt;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::chown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, ValueEnum};
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;
use zbus::Variant;

use crate::contender::{PORTAL, USER};
use crate::processes;
use crate::statistics::{quantile, ratio};

/// The application's root (benches/files/bench.toml).
const ROOT: &str = "/var/lib/deputy/bench-files";

/// Bytes that are read and written at once by whoever has a descriptor.
const BLOCK: usize = 1 << 20;

/// Bytes that pass the socket at once.
const CHUNK: usize = 4096;

/// How many files one call opens, and how many calls are on their way at once.
const MANY: usize = 16;
const WIDTH: usize = 8;

/// How many files one request through a channel opens, and how many requests are on their way at once.
const THROUGH_CHANNEL: usize = 128;
const AHEAD: usize = 2;

const ROUNDS: usize = 5;

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

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
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

/// What the other end of the socket does, as the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Serves {
    /// Sends a file
    Sending,
    /// Receives one
    Receiving,
}

/// What one run found: medians in nanoseconds.
#[derive(Debug, Serialize)]
pub struct Report {
    mib: u64,
    files: u64,
    entries: u64,
    write: Three,
    read: Three,
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
    let mut samples: Vec<(What, Vec<u64>)> =
        What::value_variants().iter().map(|what| (*what, Vec::new())).collect();
    let mut agent_kib = 0;
    for _ in 0..ROUNDS {
        for (what, samples) in &mut samples {
            level(*what)?;
            let count = match what {
                What::LocalOpen | What::DeputyOpen | What::CallOpen => files,
                What::LocalList | What::DeputyList => entries,
                _ => mib << 20,
            };
            let (nanoseconds, memory) = run(*what, count).with_context(|| format!("{what:?}"))?;
            samples.push(nanoseconds);
            agent_kib = agent_kib.max(memory);
        }
        // Back and forth: whatever the machine does meanwhile comes to both ends of the list alike.
        samples.reverse();
    }
    let mut median = |what: What| {
        let found = samples.iter_mut().find(|(other, _)| *other == what);
        found.map_or(0, |(_, samples)| quantile(samples, 50))
    };
    Ok(Report {
        mib,
        files,
        entries,
        write: Three {
            local: median(What::LocalWrite),
            deputy: median(What::DeputyWrite),
            socket: median(What::SocketWrite),
        },
        read: Three {
            local: median(What::LocalRead),
            deputy: median(What::DeputyRead),
            socket: median(What::SocketRead),
        },
        open: Two { local: median(What::LocalOpen), deputy: median(What::DeputyOpen) },
        open_by_calls: Two { local: median(What::LocalOpen), deputy: median(What::CallOpen) },
        list: Two { local: median(What::LocalList), deputy: median(What::DeputyList) },
        agent_kib,
    })
}

/// The same beginning for all who do the same: nothing is there to be cut off, and everything was read once.
fn level(what: What) -> Result<()> {
    let data = file("data");
    match what {
        What::LocalWrite | What::DeputyWrite | What::SocketWrite if data.exists() => fs::remove_file(data)?,
        What::LocalRead | What::DeputyRead | What::SocketRead => {
            std::io::copy(&mut File::open(data)?, &mut std::io::sink())?;
        }
        _ => {}
    }
    Ok(())
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
fn run(what: What, count: u64) -> Result<(u64, u64)> {
    let other_end = match what {
        What::SocketRead => Some(Serves::Sending),
        What::SocketWrite => Some(Serves::Receiving),
        _ => None,
    };
    let server = other_end.map(|role| {
        let word = role.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        let mut server = Command::new("runuser");
        server.args(["-u", USER, "--", "deputy-bench", "file-server", &word]).stdout(Stdio::piped()).spawn()
    });
    let mut server = server.transpose()?;
    if let Some(server) = &mut server {
        // It says a line when it listens.
        let mut line = String::new();
        BufReader::new(server.stdout.take().context("a pipe")?).read_line(&mut line)?;
    }
    let word = what.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let output = Command::new("runuser")
        .args(["-u", what.user(), "--", "deputy-bench", "file", &word, &count.to_string()])
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

fn file(name: &str) -> PathBuf {
    Path::new(ROOT).join(name)
}

fn socket() -> PathBuf {
    file("socket")
}

/// One measurement, in this process.
pub fn one(what: What, count: u64) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let start = Instant::now();
    let mut memory = 0;
    match what {
        What::LocalWrite => {
            let mut file = File::create(file("data"))?;
            write(&mut file, count, BLOCK)?;
            file.sync_all()?;
        }
        What::LocalRead => read(&mut File::open(file("data"))?, count, BLOCK)?,
        What::DeputyWrite => runtime.block_on(async {
            let files = Files::connect().await?;
            let (mut file, handle) = files.open("data", &["write", "create", "truncate", "keep"]).await?;
            write(&mut file, count, BLOCK)?;
            files.commit(&handle).await
        })?,
        What::DeputyRead => {
            let (mut file, _) =
                runtime.block_on(async { Files::connect().await?.open("data", &[]).await })?;
            read(&mut file, count, BLOCK)?;
        }
        What::SocketWrite => {
            let mut stream = UnixStream::connect(socket())?;
            write(&mut stream, count, CHUNK)?;
            stream.shutdown(std::net::Shutdown::Write)?;
            // It answers when it has synced.
            ensure!(stream.read(&mut [0; 1])? == 1, "no answer");
        }
        What::SocketRead => read(&mut UnixStream::connect(socket())?, count, CHUNK)?,
        What::LocalOpen => {
            for number in 0..count {
                drop(File::open(file(&format!("small/f{number:07}")))?);
            }
        }
        What::DeputyOpen => {
            let channel = runtime.block_on(async { Files::connect().await?.channel().await })?;
            through(&channel, count)?;
        }
        What::CallOpen => runtime.block_on(async {
            let files = Files::connect().await?;
            let numbers: Vec<u64> = (0..count).collect();
            let files = &files;
            futures_util::stream::iter(numbers.chunks(MANY))
                .map(|numbers| async move {
                    let names =
                        numbers.iter().map(|number| format!("{ROOT}/small/f{number:07}").into_bytes());
                    let opened = files.open_many(names.collect()).await?;
                    ensure!(opened == numbers.len(), "{opened} of {} were opened", numbers.len());
                    Ok(())
                })
                .buffer_unordered(WIDTH)
                .try_collect::<()>()
                .await
        })?,
        What::LocalList => {
            let mut found = 0;
            for entry in fs::read_dir(file("large"))? {
                entry?.metadata()?;
                found += 1;
            }
            ensure!(found == count, "{found} entries");
        }
        What::DeputyList => {
            let mut lines = BufReader::with_capacity(
                1 << 16,
                runtime.block_on(async { Files::connect().await?.list("large").await })?,
            );
            let (mut found, mut line) = (0, Vec::new());
            let mut last = Vec::new();
            while lines.read_until(b'\n', &mut line)? > 0 {
                found += 1;
                if found == count / 2 {
                    memory = agents_memory()?;
                }
                std::mem::swap(&mut line, &mut last);
                line.clear();
            }
            ensure!(found == count + 1, "{found} lines");
            ensure!(String::from_utf8_lossy(&last).contains("\"result\":\"done\""), "it was broken off");
        }
    }
    println!("{} {memory}", start.elapsed().as_nanos());
    Ok(())
}

/// The most KiB that one of the launcher's children has resident now: the agent that lists.
fn agents_memory() -> Result<u64> {
    let all = processes::named("deputy-launcher")?;
    let launcher = all.iter().copied().min().context("a launcher")?;
    let most = |pid: &i32| processes::Resident::of(pid).map_or(0, |resident| resident.most >> 10);
    Ok(all.iter().filter(|pid| **pid != launcher).map(most).max().unwrap_or_default())
}

/// The other end of the socket, as the user: for one connection.
pub fn serve(serves: Serves) -> Result<()> {
    let path = socket();
    let _ = fs::remove_file(&path);
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
    println!("ready");
    let (mut stream, _) = listener.accept()?;
    let mut buffer = vec![0; CHUNK];
    match serves {
        Serves::Sending => {
            let mut data = File::open(file("data"))?;
            loop {
                match data.read(&mut buffer)? {
                    0 => break,
                    // Whoever has read enough goes.
                    count => {
                        if stream.write_all(&buffer[..count]).is_err() {
                            break;
                        }
                    }
                }
            }
        }
        Serves::Receiving => {
            let mut data = File::create(file("data"))?;
            loop {
                match stream.read(&mut buffer)? {
                    0 => break,
                    count => data.write_all(&buffer[..count])?,
                }
            }
            data.sync_all()?;
            stream.write_all(b"d")?;
        }
    }
    Ok(())
}

fn write(to: &mut impl Write, count: u64, block: usize) -> Result<()> {
    let buffer = vec![b'x'; block];
    for _ in 0..count / block as u64 {
        to.write_all(&buffer)?;
    }
    Ok(())
}

fn read(from: &mut impl Read, count: u64, block: usize) -> Result<()> {
    let mut buffer = vec![0; block];
    let mut left = count;
    while left > 0 {
        match from.read(&mut buffer)? {
            0 => bail!("{left} bytes are missing"),
            read => left = left.saturating_sub(read as u64),
        }
    }
    Ok(())
}

/// Has files opened through a channel, and closes them: the next request is on its way while an answer is read.
fn through(channel: &OwnedFd, count: u64) -> Result<()> {
    let numbers: Vec<u64> = (0..count).collect();
    let mut requests = numbers.chunks(THROUGH_CHANNEL);
    let mut ask = || -> Result<()> {
        let Some(numbers) = requests.next() else { return Ok(()) };
        let paths: Vec<String> =
            numbers.iter().map(|number| format!("{ROOT}/small/f{number:07}\0")).collect();
        Ok(deputy_wire::send(channel, paths.concat().as_bytes(), &[])?)
    };
    for _ in 1..AHEAD {
        ask()?;
    }
    let mut opened = 0;
    while opened < numbers.len() {
        ask()?;
        let answer =
            deputy_wire::receive_up_to(channel, THROUGH_CHANNEL)?.context("the channel was closed")?;
        opened += answer.descriptors.len();
        ensure!(!answer.descriptors.is_empty(), "{}", String::from_utf8_lossy(&answer.bytes));
    }
    Ok(())
}

/// The interface, over one connection.
struct Files(zbus::Proxy<'static>);

type Options = std::collections::HashMap<&'static str, Variant<'static>>;

impl Files {
    async fn connect() -> Result<Self> {
        let connection = zbus::Connection::system().await?;
        Ok(Self(crate::portal::proxy(&connection, "/org/deputy/Deputy1".to_owned(), "Files").await?))
    }

    async fn open(&self, name: &str, flags: &[&'static str]) -> Result<(File, String)> {
        let options: Options = flags.iter().map(|flag| (*flag, true.into())).collect();
        let path = format!("{ROOT}/{name}").into_bytes();
        let (file, handle): (zbus::OwnedFd, String) = self.0.call("Open", &(USER, path, options)).await?;
        Ok((OwnedFd::from(file).into(), handle))
    }

    async fn open_many(&self, paths: Vec<Vec<u8>>) -> Result<usize> {
        let (files, _): (Vec<zbus::OwnedFd>, Vec<std::collections::HashMap<String, zbus::OwnedVariant>>) =
            self.0.call("OpenMany", &(USER, paths, Options::new())).await?;
        Ok(files.len())
    }

    async fn channel(&self) -> Result<OwnedFd> {
        let socket: zbus::OwnedFd = self.0.call("Channel", &(USER, Options::new())).await?;
        Ok(socket.into())
    }

    async fn commit(&self, handle: &str) -> Result<()> {
        Ok(self.0.call("Commit", &(USER, handle, Options::new())).await?)
    }

    async fn list(&self, name: &str) -> Result<File> {
        let path = format!("{ROOT}/{name}").into_bytes();
        let pipe: zbus::OwnedFd = self.0.call("ListStream", &(USER, path, Options::new())).await?;
        Ok(OwnedFd::from(pipe).into())
    }
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
            "What is aimed at: 1.02 for reading and writing, 3 for opening and listing. Five rounds, medians."
        )
    }
}
