//! `run`: one call that starts the job, one pipe on which its end is told.

mod streams;
mod watch;

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use zbus::{Fd, OwnedObjectPath, Variant};

use super::block_on;
use crate::bus::{Bus, CallOptions, JOB_PREFIX};
use crate::failure::Failure;
use crate::options::RunOptions;
use crate::output;
use crate::signals::Signals;
use streams::Streams;
use watch::{End, Watch};

/// For how long `deputyd` may be away while a job runs: an upgrade takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often it is looked for meanwhile.
const RETRY: Duration = Duration::from_millis(250);

/// `run`. The exit status is the job's own.
pub fn run(options: RunOptions) -> Result<ExitCode, Failure> {
    let (mut streams, handed) = Streams::new()?;
    let end = block_on(async {
        let mut interrupts = Interrupts { signals: Signals::new()?, first: None };
        let bus = interrupts.during(Bus::connect()).await?;
        let job = interrupts.during(start(&bus, &options, handed)).await?;
        streams.begin()?;
        follow(&bus, job.as_str(), &mut interrupts).await
    })?;
    // What the job wrote last may still be on its way to the terminal.
    streams.finish();
    if let Some(words) = end.words(&options.command[0].to_string_lossy()) {
        output::note(&words)?;
    }
    Ok(ExitCode::from(end.status))
}

/// Asks for the job. Our copies of the descriptors are closed afterwards, so that the ends of pipes can be seen.
async fn start(bus: &Bus, options: &RunOptions, handed: [OwnedFd; 3]) -> Result<OwnedObjectPath, Failure> {
    let argv: Vec<&[u8]> = options.command.iter().map(|word| word.as_bytes()).collect();
    let mut call = CallOptions::from([("application", options.application.as_str().into())]);
    if let Some(project) = &options.project {
        call.insert("project", project.to_string().into());
    }
    if let Some(kind) = &options.kind {
        call.insert("kind", kind.as_str().into());
    }
    if let Some(directory) = &options.cwd {
        call.insert("directory", directory.as_bytes().into());
    }
    if !options.environment.is_empty() {
        let variables: Vec<&[u8]> = options.environment.iter().map(|variable| variable.as_bytes()).collect();
        call.insert("environment", variables.into());
    }
    for (name, descriptor) in ["stdin", "stdout", "stderr"].into_iter().zip(handed) {
        call.insert(name, Variant::Fd(Fd::from(descriptor)));
    }
    let subject = options.session.as_ref().map_or(options.account.as_str(), |session| session.as_str());
    bus.call("Jobs", "Run", &(subject, argv, call)).await
}

/// Follows the job to its end, across restarts of `deputyd`.
async fn follow(bus: &Bus, job: &str, interrupts: &mut Interrupts) -> Result<End, Failure> {
    let mut watch = None;
    let mut away = Duration::ZERO;
    let mut cancelled = false;
    loop {
        if interrupts.first.is_some() && !cancelled {
            cancelled = true;
            cancel(bus, job);
        }
        if watch.is_none() {
            match interrupts.during(Watch::open(bus, job)).await {
                Ok(opened) => watch = Some(opened),
                Err(failure) if failure.code == "DaemonUnavailable" && away < PATIENCE => {
                    away += RETRY;
                    interrupts.during(pause()).await?;
                }
                Err(failure) => return Err(about(failure, job)),
            }
            continue;
        }
        let Some(current) = &mut watch else { continue };
        let event = tokio::select! {
            event = current.next() => event,
            signal = interrupts.signals.next() => {
                interrupts.note(signal).map_err(|failure| about(failure, job))?;
                continue;
            }
        };
        match event.map_err(|failure| about(failure, job))? {
            watch::Event::State => away = Duration::ZERO,
            watch::Event::Ended(end) => return Ok(end),
            watch::Event::Lost(failure) => return Err(about(failure, job)),
            // The pipe ended before the job: its writer went away.
            watch::Event::Broken => {
                watch = None;
                away += RETRY;
                if away > PATIENCE {
                    return Err(about(Failure::unavailable("deputyd tells nothing about the job"), job));
                }
                interrupts.during(pause()).await?;
            }
        }
    }
}

async fn pause() -> Result<(), Failure> {
    tokio::time::sleep(RETRY).await;
    Ok(())
}

/// Cancels the job beside everything else, since `deputyd` may take its time.
fn cancel(bus: &Bus, job: &str) {
    let (bus, job) = (bus.clone(), job.to_owned());
    tokio::spawn(async move {
        let cancelled: Result<(), Failure> = bus.call_at(&job, "Job", "Cancel", &(CallOptions::new(),)).await;
        if let Err(failure) = cancelled {
            // Standard error is where it would be told that standard error fails.
            let _ = output::note(failure.report(false).trim_end());
        }
    });
}

/// The failure with how to find the job, which may still run.
fn about(failure: Failure, job: &str) -> Failure {
    let id = job.strip_prefix(JOB_PREFIX).unwrap_or(job);
    let remedy = match failure.remedy.as_str() {
        "" => format!("see what became of the job: deputyctl job show {id}"),
        remedy => format!("{remedy}; then: deputyctl job show {id}"),
    };
    failure.remedy(remedy)
}

/// The first signal is remembered (it cancels the job), the second ends `deputyctl`.
struct Interrupts {
    signals: Signals,
    first: Option<i32>,
}

impl Interrupts {
    fn note(&mut self, signal: i32) -> Result<(), Failure> {
        match self.first.replace(signal) {
            None => Ok(()),
            Some(_) => Err(Failure::interrupted(signal)),
        }
    }

    async fn during<T>(&mut self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                result = &mut work => return result,
                signal = self.signals.next() => self.note(signal)?,
            }
        }
    }
}
