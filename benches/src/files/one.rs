//! One measurement, in a process of its own.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::client::Files;
use super::{CHUNK, Place, ROOT, What, word};
use crate::processes;

/// Bytes that are read and written at once by whoever has a descriptor.
const BLOCK: usize = 1 << 20;

/// How many files one call opens, and how many calls are on their way at once.
const MANY: usize = 16;
const WIDTH: usize = 8;

/// How many files one request through a channel opens, and how many requests are on their way at once.
const THROUGH_CHANNEL: usize = 128;
const AHEAD: usize = 2;

/// What the other end of the socket does, as the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Serves {
    /// Sends a file
    Sending,
    /// Receives one
    Receiving,
}

fn file(name: &str) -> PathBuf {
    Path::new(ROOT).join(name)
}

fn socket() -> PathBuf {
    file("socket")
}

/// One measurement, in this process.
pub fn one(what: What, place: Place, count: u64) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let start = Instant::now();
    let mut memory = 0;
    let large = format!("{}/data", word(place));
    match what {
        What::LocalWrite => {
            let mut file = File::create(place.data())?;
            write(&mut file, count, BLOCK)?;
            file.sync_all()?;
        }
        What::LocalRead => read(&mut File::open(place.data())?, count, BLOCK)?,
        What::DeputyWrite => runtime.block_on(async {
            let files = Files::connect().await?;
            let (mut file, handle) = files.open(&large, &["write", "create", "truncate", "keep"]).await?;
            write(&mut file, count, BLOCK)?;
            files.commit(&handle).await
        })?,
        What::DeputyRead => {
            let (mut file, _) =
                runtime.block_on(async { Files::connect().await?.open(&large, &[]).await })?;
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
pub fn serve(serves: Serves, place: Place) -> Result<()> {
    let path = socket();
    let _ = fs::remove_file(&path);
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
    println!("ready");
    let (mut stream, _) = listener.accept()?;
    let mut buffer = vec![0; CHUNK];
    match serves {
        Serves::Sending => {
            let mut data = File::open(place.data())?;
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
            let mut data = File::create(place.data())?;
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
