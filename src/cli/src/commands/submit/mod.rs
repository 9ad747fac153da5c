//! `submit`: Deputy behind the command templates of programs that know `sbatch`, `squeue` and `scancel`.

mod directives;

use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::process::ExitCode;
use std::time::Duration;

use deputy_core::denial::Code;
use zbus::{Fd, OwnedObjectPath, Variant};
use zeroize::Zeroizing;

use super::{Context, block_on, record_of};
use crate::bus::{Bus, CallOptions, JOB_PREFIX};
use crate::failure::Failure;
use crate::memory;
use crate::options::SubmitOptions;
use crate::output;
use crate::value::{self, Dictionary, Record};

/// The most bytes of a script, as the launcher takes it.
const MAX_SCRIPT: u64 = 1 << 20;

/// How long a number is waited for, where Slurm does not answer at once.
const PATIENCE: Duration = Duration::from_secs(90);

/// Between two looks for it.
const PAUSE: Duration = Duration::from_millis(500);

/// `submit`.
pub fn submit(context: &Context, options: &SubmitOptions) -> Result<ExitCode, Failure> {
    block_on(async {
        let bus = Bus::connect().await?;
        if let Some(number) = options.query.or(options.cancel) {
            let Some(job) = find(&bus, options, number).await? else { return Ok(ExitCode::SUCCESS) };
            if options.query.is_some() {
                output::print(&format!("{}\n", words(&job)))?;
            } else {
                let path = format!("{JOB_PREFIX}{}", text(&job, "id"));
                let () = bus.call_at(&path, "Job", "Cancel", &(CallOptions::new(),)).await?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        let number = new(&bus, options).await?;
        let line = if options.parsable { number.clone() } else { format!("Submitted batch job {number}") };
        context.output.done(&line, &record_of([("slurm_job", number.as_str())]))?;
        Ok(ExitCode::SUCCESS)
    })
}

async fn new(bus: &Bus, options: &SubmitOptions) -> Result<String, Failure> {
    let mut script = Vec::new();
    match &options.script {
        Some(path) => {
            let file = File::open(path).map_err(|error| {
                Failure::new(Code::InvalidArgument, format!("{}: {error}", path.display()))
            })?;
            file.take(MAX_SCRIPT + 1).read_to_end(&mut script)?;
        }
        None => {
            std::io::stdin().lock().take(MAX_SCRIPT + 1).read_to_end(&mut script)?;
        }
    }
    let mut call = CallOptions::from([
        ("application", options.application.to_string().into()),
        ("executor", "slurm".into()),
    ]);
    directives::add(&script, &mut call)?;
    call.insert("script", held("script", &script)?);
    for (key, value) in [
        ("kind", options.kind.as_ref().map(ToString::to_string)),
        ("cluster", options.cluster.as_ref().map(ToString::to_string)),
        ("project", options.project.as_ref().map(ToString::to_string)),
    ] {
        if let Some(value) = value {
            call.insert(key, value.into());
        }
    }
    if !options.pass.is_empty() {
        call.insert("environment_fd", held("variables", &passed(&options.pass))?);
    }
    let name = options
        .script
        .as_deref()
        .and_then(|path| path.file_name())
        .map_or(&b"script"[..], |name| name.as_bytes());
    let argv: Vec<&[u8]> =
        std::iter::once(name).chain(options.arguments.iter().map(|word| word.as_bytes())).collect();
    let account = options.account.as_ref().map_or("", |account| account.as_str());
    let subject = options.session.as_ref().map_or(account, |session| session.as_str());
    let job: OwnedObjectPath = bus.call("Jobs", "Run", &(subject, argv, call)).await?;
    let begun = std::time::Instant::now();
    loop {
        let found: Dictionary = bus.call_at(job.as_str(), "Job", "Get", &()).await?;
        let record = value::record(&found);
        if let Some(number) = record.get("slurm_job") {
            return Ok(number.to_string());
        }
        if record.contains_key("ended") || begun.elapsed() > PATIENCE {
            return Err(Failure::new(
                Code::SlurmUnavailable,
                format!("the job is {}", text(&record, "state")),
            )
            .remedy(format!("look at it: deputyctl job show {}", text(&record, "id"))));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The open job of the application's that has this number at Slurm.
async fn find(bus: &Bus, options: &SubmitOptions, number: u32) -> Result<Option<Record>, Failure> {
    let mut filters = CallOptions::from([
        ("application", options.application.to_string().into()),
        ("slurm_job", number.into()),
    ]);
    if let Some(cluster) = &options.cluster {
        filters.insert("cluster", cluster.to_string().into());
    }
    let (found, _): (Vec<Dictionary>, String) = bus.call("Jobs", "List", &(filters,)).await?;
    if found.len() > 1 {
        let message = format!("{} clusters have an open job with the number {number}", found.len());
        return Err(
            Failure::new(Code::InvalidArgument, message).remedy("name the one that is meant: --cluster")
        );
    }
    Ok(found.first().map(value::record))
}

/// A state in Slurm's words, and the node behind it, as `squeue` prints them by `%T %B`.
fn words(job: &Record) -> String {
    let state = match text(job, "state").as_str() {
        "running" => "RUNNING",
        "ending" => "COMPLETING",
        _ => "PENDING",
    };
    match text(job, "host").as_str() {
        "" => state.to_owned(),
        host => format!("{state} {host}"),
    }
}

fn text(record: &Record, key: &str) -> String {
    record.get(key).and_then(|value| value.as_str()).unwrap_or_default().to_owned()
}

/// The variables of this process that have these names, with NUL behind each.
fn passed(names: &[String]) -> Zeroizing<Vec<u8>> {
    let mut all = Zeroizing::new(Vec::new());
    for name in names {
        if let Some(value) = std::env::var_os(name) {
            all.extend_from_slice(name.as_bytes());
            all.push(b'=');
            all.extend_from_slice(value.as_bytes());
            all.push(0);
        }
    }
    all
}

/// A descriptor of memory that holds this.
fn held(name: &str, bytes: &[u8]) -> Result<Variant<'static>, Failure> {
    Ok(Variant::Fd(Fd::from(memory::holding(name, bytes)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_those_that_templates_look_for() {
        let job = |state: &str, host: &str| {
            let mut record = record_of([("state", state)]);
            if !host.is_empty() {
                record.insert("host".into(), host.into());
            }
            words(&record)
        };
        assert_eq!(job("queued", ""), "PENDING");
        assert_eq!(job("running", "n-1.example"), "RUNNING n-1.example");
        assert_eq!(job("ending", "n1"), "COMPLETING n1");
    }
}
