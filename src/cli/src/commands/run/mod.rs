//! `run`: one call that starts the job and brings the pipe on which its end is told.

mod asked;
mod streams;
mod terminal;
mod watch;

use std::borrow::Cow;
use std::io::{self, IsTerminal as _};
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use deputy_core::ids::JobId;
use zbus::{Fd, OwnedObjectPath, Variant};

use super::{Context, block_on, record_of};
use crate::bus::{Bus, CallOptions, JOB_PREFIX};
use crate::failure::Failure;
use crate::options::RunOptions;
use crate::output;
use crate::signals::Signals;
use asked::Way;
use watch::{End, Watch};

/// For how long `deputyd` may be away while a job runs: an upgrade takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often it is looked for meanwhile.
const RETRY: Duration = Duration::from_millis(250);

/// `run`. The exit status is the job's own.
pub fn run(context: &Context, options: &RunOptions) -> Result<ExitCode, Failure> {
    let (mut call, mut way) = asked::options(options)?;
    let subject = options.session.as_ref().map_or(options.account.as_str(), |session| session.as_str());
    if let Some(indices) = &options.array {
        return block_on(async {
            let body = (subject, asked::argv(options), indices, call);
            let (array, jobs): (String, Vec<OwnedObjectPath>) =
                Bus::connect().await?.call("Jobs", "RunArray", &body).await?;
            let ids: Vec<&str> = jobs.iter().map(|job| id_of(job.as_str())).collect();
            let record = record_of([("array", array.as_str()), ("jobs", &ids.join(","))]);
            context.output.done(&ids.join("\n"), &record)?;
            Ok(ExitCode::SUCCESS)
        });
    }
    if options.detach {
        return block_on(async {
            let job: OwnedObjectPath =
                Bus::connect().await?.call("Jobs", "Run", &(subject, asked::argv(options), call)).await?;
            let id = id_of(job.as_str());
            context.output.done(id, &record_of([("id", id), ("path", job.as_str())]))?;
            Ok(ExitCode::SUCCESS)
        });
    }
    let end = block_on(async {
        let mut interrupts = Interrupts { signals: Signals::new()?, first: None };
        let bus = interrupts.during(Bus::connect()).await?;
        let (watch, told) = Watch::pipe()?;
        call.insert("watch", Variant::Fd(Fd::from(told)));
        // Our copies of the descriptors go with the call, so that the ends of pipes can be seen.
        let body = (subject, asked::argv(options), call);
        let job: OwnedObjectPath = interrupts.during(bus.call("Jobs", "Run", &body)).await?;
        drop(body);
        if let Way::Streams(streams) = &mut way {
            streams.begin()?;
        }
        let mut begun = || match &mut way {
            Way::Terminal(terminal) => terminal.begin(),
            Way::Streams(_) | Way::None => Ok(()),
        };
        follow(&bus, job.as_str(), Some(watch), Some(&mut interrupts), &mut begun).await
    })?;
    // What the job wrote last may still be on its way to the terminal.
    match way {
        Way::Streams(streams) => streams.finish(),
        Way::Terminal(terminal) => terminal.finish(),
        Way::None => {}
    }
    report(&end, options.command.first().map_or_else(|| "the script".into(), |word| word.to_string_lossy()))
}

/// `job wait`.
pub fn wait(job: &JobId) -> Result<ExitCode, Failure> {
    let end = block_on(async {
        let path = format!("{JOB_PREFIX}{job}");
        follow(&Bus::connect().await?, &path, None, None, &mut || Ok(())).await
    })?;
    report(&end, "the job's program".into())
}

fn report(end: &End, command: Cow<'_, str>) -> Result<ExitCode, Failure> {
    if let Some(words) = end.words(&command) {
        output::note(&words)?;
    }
    Ok(ExitCode::from(end.status))
}

fn id_of(path: &str) -> &str {
    path.strip_prefix(JOB_PREFIX).unwrap_or(path)
}

/// Follows the job to its end, across restarts of `deputyd`.
///
/// Where there are signals to look at, the first one cancels the job. `begun` is called when it runs, perhaps more than once.
async fn follow(
    bus: &Bus,
    job: &str,
    mut watch: Option<Watch>,
    interrupts: Option<&mut Interrupts>,
    begun: &mut dyn FnMut() -> io::Result<()>,
) -> Result<End, Failure> {
    let mut nobody = Interrupts { signals: Signals::none(), first: None };
    let interrupts = interrupts.unwrap_or(&mut nobody);
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
            watch::Event::State(state) => {
                away = Duration::ZERO;
                if state == "running" {
                    begun()?;
                }
                if state == "queued" && std::io::stderr().is_terminal() {
                    output::note(&format!("deputyctl: job {} waits in the queue", id_of(job)))?;
                }
            }
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
    let id = id_of(job);
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
