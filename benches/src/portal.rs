//! The connected client: a portal that has had its connection to the bus for long, and runs job after job.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{BufRead as _, Write as _};
use std::os::fd::OwnedFd;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde::Deserialize;
use tokio::net::unix::pipe::Receiver;
use zbus::proxy::CacheProperties;
use zbus::{Connection, OwnedObjectPath, Proxy, Variant};

use crate::contender::{PROGRAM, USER};

const NAME: &str = "org.deputy.Deputy1";

/// How the client hears of the end of its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hears {
    /// By a pipe that it gives to `Run`.
    WithRun,
    /// By a second call, of `Watch`.
    WithWatch,
    /// Not at all: the job is held at Slurm, and that it was submitted is all that is waited for.
    NotAtAll,
}

/// Answers each line "COUNT WIDTH" with the nanoseconds of so many launches, at most so many at once.
pub fn serve(hears: Hears) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let portal = runtime.block_on(Portal::connect(hears))?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (count, width) = line.split_once(' ').context("COUNT WIDTH")?;
        let (count, width): (usize, usize) = (count.parse()?, width.parse()?);
        let start = Instant::now();
        runtime.block_on(
            futures_util::stream::iter(0..count)
                .map(|_| async {
                    match hears {
                        Hears::NotAtAll => portal.submit().await,
                        Hears::WithRun | Hears::WithWatch => portal.run_to_its_end().await,
                    }
                })
                .buffer_unordered(width)
                .try_collect::<()>(),
        )?;
        println!("{}", start.elapsed().as_nanos());
        std::io::stdout().flush()?;
    }
    Ok(())
}

/// Asks for so many jobs that sleep, several at once. Answers when each runs or waits for its turn.
pub fn hold(count: u32) -> Result<()> {
    const AT_ONCE: usize = 32;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let portal = Portal::connect(Hears::WithRun).await?;
        let jobs = &portal.jobs;
        let one = |_| async move {
            let argv = vec![b"/bin/sleep".as_slice(), b"100000"];
            jobs.call::<_, _, OwnedObjectPath>("Run", &(USER, argv, HashMap::<&str, Variant<'_>>::new()))
                .await
                .map(drop)
        };
        futures_util::stream::iter(0..count).map(one).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        Ok(())
    })
}

struct Portal {
    connection: Connection,
    jobs: Proxy<'static>,
    null: OwnedFd,
    hears: Hears,
}

/// Those fields of a line of `Watch` that matter here.
#[derive(Deserialize)]
struct Line {
    state: String,
    status: Option<i32>,
}

impl Portal {
    async fn connect(hears: Hears) -> Result<Self> {
        let connection = Connection::system().await?;
        let jobs = proxy(&connection, "/org/deputy/Deputy1".to_owned(), "Jobs").await?;
        let null = OpenOptions::new().read(true).write(true).open("/dev/null")?.into();
        Ok(Self { connection, jobs, null, hears })
    }

    /// `Run`, for Slurm: it answers when Slurm has the job.
    async fn submit(&self) -> Result<()> {
        let options = HashMap::from([("executor", Variant::from("slurm")), ("hold", Variant::from(true))]);
        self.jobs.call::<_, _, OwnedObjectPath>("Run", &(USER, vec![b"true".as_slice()], options)).await?;
        Ok(())
    }

    /// What an application does: `Run`, then reading, until the line that tells the end.
    async fn run_to_its_end(&self) -> Result<()> {
        let descriptor = || Ok::<_, std::io::Error>(Variant::Fd(zbus::Fd::from(self.null.try_clone()?)));
        let mut options: HashMap<&str, Variant<'_>> =
            HashMap::from([("stdin", descriptor()?), ("stdout", descriptor()?), ("stderr", descriptor()?)]);
        let mut ours = None;
        if self.hears == Hears::WithRun {
            let (reader, writer) = std::io::pipe()?;
            options.insert("watch", Variant::Fd(zbus::Fd::from(OwnedFd::from(writer))));
            ours = Some(OwnedFd::from(reader));
        }
        let job: OwnedObjectPath = self.jobs.call("Run", &(USER, vec![PROGRAM.as_bytes()], options)).await?;
        let pipe = if let Some(pipe) = ours {
            pipe
        } else {
            let job = proxy(&self.connection, job.to_string(), "Job").await?;
            job.call::<_, _, zbus::OwnedFd>("Watch", &()).await?.into()
        };
        let pipe = Receiver::from_owned_fd(pipe)?;
        let mut text = Vec::new();
        loop {
            if let Some(text) = text.strip_suffix(b"\n")
                && let Some(line) = text.rsplit(|&byte| byte == b'\n').next()
            {
                let line: Line = serde_json::from_slice(line)?;
                match line.state.as_str() {
                    "queued" | "starting" | "running" => {}
                    "done" => {
                        ensure!(line.status == Some(0), "the job ended with {:?}", line.status);
                        return Ok(());
                    }
                    other => bail!("the job is {other}"),
                }
            }
            pipe.readable().await?;
            match pipe.try_read_buf(&mut text) {
                Ok(0) => bail!("the pipe ended before the job"),
                Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return Err(error.into()),
                _ => {}
            }
        }
    }
}

/// An interface of an object of Deputy's.
pub async fn proxy(connection: &Connection, path: String, interface: &str) -> Result<Proxy<'static>> {
    let builder = zbus::proxy::Builder::new(connection)
        .destination(NAME)
        .path(path)
        .interface(format!("{NAME}.{interface}"))
        .cache_properties(CacheProperties::No);
    Ok(builder.build().await?)
}
