//! Jobs and sessions that exist already.

use std::process::ExitCode;

use deputy_core::denial::Code;
use deputy_core::ids::JobId;
use deputy_core::names::AccountName;
use zbus::Variant;

use super::{Context, block_on, list, logs, pages, record_of, run};
use crate::bus::{Bus, JOB_PREFIX};
use crate::failure::{FAILED, Failure};
use crate::options::{ByOption, JobCommand, SessionCommand, signal_name};
use crate::value::{self, Dictionary, Record};

/// The columns of the list; what only one job's record shows comes after them there.
const JOB: [&str; 10] =
    ["id", "application", "account", "os_user", "kind", "name", "state", "status", "queued", "argv"];
const JOB_RECORD: [&str; 40] = [
    "id",
    "path",
    "application",
    "account",
    "os_user",
    "uid",
    "gid",
    "kind",
    "name",
    "argv",
    "executor",
    "chosen",
    "cluster",
    "slurm_job",
    "requeues",
    "array",
    "index",
    "state",
    "reason",
    "status",
    "exit_code",
    "signal",
    "core",
    "failed_step",
    "errno",
    "cause",
    "queued",
    "starting",
    "started",
    "ending",
    "ended",
    "wall_us",
    "user_us",
    "system_us",
    "max_rss_kib",
    "read_bytes",
    "written_bytes",
    "limits_by",
    "stdout_bytes",
    "stderr_bytes",
];
const SESSION: [&str; 13] = [
    "path",
    "application",
    "account",
    "os_user",
    "how",
    "issuer",
    "subject",
    "by",
    "reason",
    "opened",
    "expires",
    "ends",
    "idle_seconds",
];
const SESSIONS: [&str; 6] = ["account", "how", "opened", "expires", "ends", "path"];

/// `job`.
pub fn job(context: &Context, command: JobCommand) -> Result<ExitCode, Failure> {
    match command {
        JobCommand::List { application, account, state, array, cluster } => {
            let filters = [
                ("application", application.map(String::from)),
                ("account", account.map(String::from)),
                ("state", state),
                ("array", array.map(|array| array.to_string())),
                ("cluster", cluster.map(String::from)),
            ];
            block_on(list(context, "Jobs", &filters, &JOB))
        }
        JobCommand::Show { job } => block_on(async {
            let path = format!("{JOB_PREFIX}{job}");
            let found: Dictionary = Bus::connect().await?.call_at(&path, "Job", "Get", &()).await?;
            context.output.record(&value::record(&found), &JOB_RECORD)?;
            Ok(ExitCode::SUCCESS)
        }),
        JobCommand::Cancel { array: Some(array), by, .. } => cancel_array(context, &array, &by),
        JobCommand::Cancel { job: None, .. } => Err(Failure::new(Code::InvalidArgument, "no job is named")),
        JobCommand::Cancel { job: Some(job), grace, by, .. } => block_on(async {
            let path = format!("{JOB_PREFIX}{job}");
            let mut options = by.options();
            if let Some(seconds) = grace {
                options.insert("grace_ms", (seconds * 1000).into());
            }
            let () = Bus::connect().await?.call_at(&path, "Job", "Cancel", &(options,)).await?;
            context
                .output
                .done(&format!("job {job} is being cancelled"), &record_of([("id", job.as_str())]))?;
            Ok(ExitCode::SUCCESS)
        }),
        JobCommand::Logs { job, follow, stderr, offset, by } => {
            logs::logs(&job, if stderr { "stderr" } else { "stdout" }, follow, offset, &by)
        }
        JobCommand::Wait { job } => run::wait(&job),
        JobCommand::Hold { job, by } => at_slurm(context, &job, &by, "Hold", "is held"),
        JobCommand::Release { job, by } => at_slurm(context, &job, &by, "Release", "is released"),
        JobCommand::Requeue { job, by } => {
            at_slurm(context, &job, &by, "Requeue", "goes back into the queue")
        }
        JobCommand::Signal { job, signal, by } => block_on(async {
            let path = format!("{JOB_PREFIX}{job}");
            let call = (signal, by.options());
            let () = Bus::connect().await?.call_at(&path, "Job", "Signal", &call).await?;
            context.output.done(
                &format!("job {job} was sent {}", signal_name(signal)),
                &record_of([("id", job.as_str())]),
            )?;
            Ok(ExitCode::SUCCESS)
        }),
    }
}

/// `job cancel --array`.
fn cancel_array(context: &Context, array: &JobId, by: &ByOption) -> Result<ExitCode, Failure> {
    block_on(async {
        let call = (array.as_str(), by.options());
        let jobs: Vec<Dictionary> = Bus::connect().await?.call("Jobs", "CancelArray", &call).await?;
        let jobs: Vec<Record> = jobs.iter().map(value::record).collect();
        let refused: Vec<&Record> = jobs.iter().filter(|job| job.contains_key("code")).collect();
        if !refused.is_empty() || context.json {
            context.output.records(&jobs, &["id", "index", "code", "message"])?;
        } else {
            let done = format!("{} jobs of the array are being cancelled", jobs.len());
            context.output.done(&done, &record_of([("array", array.as_str())]))?;
        }
        Ok(if refused.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
    })
}

/// `job hold`, `job release` and `job requeue`.
fn at_slurm(
    context: &Context,
    job: &JobId,
    by: &ByOption,
    method: &str,
    done: &str,
) -> Result<ExitCode, Failure> {
    block_on(async {
        let path = format!("{JOB_PREFIX}{job}");
        let () = Bus::connect().await?.call_at(&path, "Job", method, &(by.options(),)).await?;
        context.output.done(&format!("job {job} {done}"), &record_of([("id", job.as_str())]))?;
        Ok(ExitCode::SUCCESS)
    })
}

/// `session`.
pub fn session(context: &Context, command: SessionCommand) -> Result<ExitCode, Failure> {
    block_on(async {
        let bus = Bus::connect().await?;
        match command {
            SessionCommand::List { application, account, by } => {
                let text = |value: Option<&str>| value.map(|value| Variant::from(value.to_owned()));
                let filters = [
                    ("application", text(Some(application.as_str()))),
                    ("account", text(account.as_ref().map(AccountName::as_str))),
                    ("by", text(by.by.as_deref())),
                ];
                return pages(context, "Authentication", "Sessions", None, &filters, &SESSIONS).await;
            }
            SessionCommand::Extend { session } => {
                let () = bus.call_at(session.as_str(), "Session", "Extend", &()).await?;
                context.output.done("the session is extended", &record_of([("path", session.as_str())]))?;
            }
            SessionCommand::Show { session } => {
                let found: Dictionary = bus.call_at(session.as_str(), "Session", "Get", &()).await?;
                context.output.record(&value::record(&found), &SESSION)?;
            }
            SessionCommand::Close { session } => {
                let () = bus.call_at(session.as_str(), "Session", "Close", &()).await?;
                context.output.done("the session is closed", &record_of([("path", session.as_str())]))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}
