//! A job as the interface and a watcher's lines show it.

use deputy_core::job::{Enforcement, JobEnd};
use deputy_core::slurm::{Chosen, Executor};
use deputy_core::stream::Output;
use serde::Serialize;
use zbus::ObjectPath;

use super::executor::cluster_of;
use crate::bus::introspection::job_path;
use crate::bus::record::Record;
use crate::store::{Job, JobState, NULL};

/// What is shown of a job, but for its argument vector.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Shown {
    id: String,
    path: String,
    application: String,
    account: String,
    os_user: String,
    uid: u32,
    gid: u32,
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    state: &'static str,
    executor: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    chosen: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slurm_job: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requeues: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    array: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u32>,
    queued: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    starting: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ending: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<u64>,
    #[serde(flatten)]
    end: End,
}

/// How it ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
struct End {
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    core: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed_step: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_rss_kib: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    read_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    written_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wall_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limits_by: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stdout_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stderr_bytes: Option<u64>,
}

/// A state as the interface names it.
pub fn state_name(state: &JobState) -> &'static str {
    match state {
        JobState::Queued {} => "queued",
        JobState::Starting {} => "starting",
        JobState::Running {} => "running",
        JobState::Ending { .. } => "ending",
        JobState::Ended { .. } => "done",
        JobState::Lost { .. } => "lost",
        JobState::Abandoned { .. } => "abandoned",
    }
}

/// The state of a job as the interface names it: one that Slurm was asked to take waits in its queue, too.
pub fn state_of(job: &Job) -> &'static str {
    match (job.spec.executor, &job.state) {
        (Executor::Slurm, JobState::Starting {}) if !job.spec.has_shepherd() => "queued",
        (_, state) => state_name(state),
    }
}

/// The store's name of a state of the interface's.
pub fn stored_name(shown: &str) -> Option<&'static str> {
    Some(match shown {
        "queued" => "queued",
        "starting" => "starting",
        "running" => "running",
        "ending" => "ending",
        "done" => "ended",
        "lost" => "lost",
        "abandoned" => "abandoned",
        _ => return None,
    })
}

fn end(job: &Job) -> End {
    match &job.state {
        JobState::Queued {} | JobState::Starting {} | JobState::Running {} => End::default(),
        JobState::Ending { cause } => End { cause: Some(cause.as_str().to_owned()), ..End::default() },
        JobState::Lost { cause } | JobState::Abandoned { cause } => {
            End { cause: Some(cause.clone()), ..End::default() }
        }
        JobState::Ended { end, cause, usage, captured, enforcement } => {
            let streams = &job.spec.streams;
            // Slurm tells neither whether there was a core dump nor how it held limits.
            let here = job.spec.executor == Executor::Local;
            let mut shown = End {
                status: Some(end.shell_status()),
                user_us: Some(usage.user_us),
                system_us: Some(usage.system_us),
                max_rss_kib: Some(usage.max_rss_kib),
                read_bytes: Some(usage.read_bytes),
                written_bytes: Some(usage.written_bytes),
                wall_us: Some(usage.wall_us),
                cause: cause.map(|cause| cause.as_str().to_owned()),
                limits_by: here.then_some(match enforcement {
                    Enforcement::ProcessLimits => "process-limits",
                    Enforcement::Cgroup => "cgroup",
                }),
                stdout_bytes: (streams.output == Output::Captured).then_some(captured.output),
                stderr_bytes: (streams.error == Output::Captured).then_some(captured.error),
                ..End::default()
            };
            match *end {
                JobEnd::Exited { code } => shown.exit_code = Some(i32::from(code)),
                JobEnd::Signaled { signal, core } => {
                    shown.signal = Some(signal);
                    shown.core = here.then_some(core);
                }
                JobEnd::LaunchFailed { step, errno } => {
                    shown.failed_step = Some(step.as_str());
                    shown.errno = Some(errno);
                }
            }
            shown
        }
    }
}

impl From<&Job> for Shown {
    fn from(job: &Job) -> Self {
        // A job that ended before its start was recorded: the shepherd's clock tells when that was.
        let ran = match &job.state {
            JobState::Ended { end, usage, .. } if !matches!(end, JobEnd::LaunchFailed { .. }) => {
                job.ended.map(|ended| ended.0.saturating_sub(usage.wall_us))
            }
            _ => None,
        };
        let part = job.spec.slurm.array.as_ref();
        Self {
            id: job.id.to_string(),
            path: job_path(&job.id),
            application: job.application.to_string(),
            account: job.account.to_string(),
            os_user: job.os.name.to_string(),
            uid: job.os.uid.raw(),
            gid: job.os.gid.raw(),
            kind: job.kind.to_string(),
            name: job.spec.name.as_ref().map(ToString::to_string),
            state: state_of(job),
            executor: job.spec.executor.as_str(),
            chosen: job.spec.chosen.map(Chosen::as_str),
            cluster: (job.spec.executor == Executor::Slurm).then(|| cluster_of(job).into()),
            slurm_job: job.slurm_job.map(|number| number.0),
            requeues: job.spec.slurm.requeue.then_some(job.requeues),
            reason: job.reason.clone(),
            array: part.map(|part| part.array.to_string()),
            index: part.map(|part| part.index),
            queued: job.queued.0,
            starting: job.starting.map(|at| at.0),
            started: job.started.map(|at| at.0).or(ran),
            ending: job.ending.map(|at| at.0),
            ended: job.ended.map(|at| at.0),
            end: end(job),
        }
    }
}

impl Shown {
    /// One line of JSON, with its line feed.
    pub fn line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).unwrap_or_else(|_| b"{}".to_vec());
        line.push(b'\n');
        line
    }
}

/// The file to which a stream goes, if it is kept in one.
fn file_of(output: &Output) -> Option<Vec<u8>> {
    match output {
        Output::File { path, .. } if path != NULL => Some(path.clone()),
        _ => None,
    }
}

/// The job as `Job.Get` and `Jobs.List` show it.
pub fn record(job: &Job) -> Record {
    let shown = Shown::from(job);
    let end = shown.end;
    let argv: Vec<Vec<u8>> = job.argv.iter().map(|argument| argument.0.clone()).collect();
    Record::new()
        .with("id", shown.id)
        .maybe("path", ObjectPath::try_from(shown.path).ok())
        .with("application", shown.application)
        .with("account", shown.account)
        .with("os_user", shown.os_user)
        .with("uid", shown.uid)
        .with("gid", shown.gid)
        .with("kind", shown.kind)
        .maybe("name", shown.name)
        .maybe("predecessor", job.spec.predecessor.as_ref().map(ToString::to_string))
        .with("argv", argv)
        .maybe("stdout", file_of(&job.spec.streams.output))
        .maybe(
            "stderr",
            file_of(match &job.spec.streams.error {
                Output::SameAsOutput => &job.spec.streams.output,
                other => other,
            }),
        )
        .maybe("directory", job.cwd.as_ref().map(|cwd| cwd.0.clone()))
        .with("state", shown.state)
        .with("executor", shown.executor)
        .maybe("chosen", shown.chosen)
        .maybe("cluster", shown.cluster)
        .maybe("slurm_job", shown.slurm_job)
        .maybe("requeues", shown.requeues)
        .maybe("reason", shown.reason)
        .maybe("host", job.host.clone().filter(|_| job.state.is_open()))
        .maybe("array", shown.array)
        .maybe("index", shown.index)
        .with("queued", shown.queued)
        .maybe("starting", shown.starting)
        .maybe("started", shown.started)
        .maybe("ending", shown.ending)
        .maybe("ended", shown.ended)
        .maybe("exit_code", end.exit_code)
        .maybe("signal", end.signal)
        .maybe("core", end.core)
        .maybe("failed_step", end.failed_step)
        .maybe("errno", end.errno)
        .maybe("status", end.status)
        .maybe("cause", end.cause)
        .maybe("user_us", end.user_us)
        .maybe("system_us", end.system_us)
        .maybe("max_rss_kib", end.max_rss_kib)
        .maybe("read_bytes", end.read_bytes)
        .maybe("written_bytes", end.written_bytes)
        .maybe("wall_us", end.wall_us)
        .maybe("limits_by", end.limits_by)
        .maybe("stdout_bytes", end.stdout_bytes)
        .maybe("stderr_bytes", end.stderr_bytes)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::store::{Argument, JobSpec, Timestamp};
    use deputy_core::job::{OsIdentity, Step, Usage};
    use deputy_core::stream::Captured;
    use deputy_core::{JobId, OsGid, OsUid};

    /// A job for tests.
    pub fn job(state: JobState) -> Job {
        let ended = (!state.is_open()).then_some(Timestamp(9_000_000));
        Job {
            id: JobId::from_random([5; 10]),
            number: 1,
            application: "demo".parse().unwrap(),
            account: "alice".parse().unwrap(),
            os: OsIdentity {
                name: "ann".parse().unwrap(),
                uid: OsUid::new(1001).unwrap(),
                gid: OsGid::new(1001).unwrap(),
            },
            kind: "batch".parse().unwrap(),
            argv: vec![Argument::from("/bin/true")],
            cwd: None,
            project: None,
            session: None,
            spec: JobSpec::default(),
            state,
            queued: Timestamp(1_000_000),
            starting: None,
            started: None,
            ending: None,
            ended,
            gpus: Vec::new(),
            forgotten: None,
            slurm_job: None,
            requeues: 0,
            reason: None,
            host: None,
        }
    }

    #[test]
    fn a_line_says_where_the_job_stands_and_how_it_ended() {
        let usage = Usage { wall_us: 1_000_000, ..Usage::default() };
        let value = |state| -> serde_json::Value {
            serde_json::from_slice(&Shown::from(&job(state)).line()).unwrap()
        };
        let queued = value(JobState::Queued {});
        assert_eq!(queued["state"], "queued");
        assert!(queued.get("status").is_none() && queued.get("argv").is_none());
        let ended = |end| JobState::Ended {
            end,
            cause: None,
            usage: usage.clone(),
            captured: Captured::default(),
            enforcement: Enforcement::default(),
        };
        let done = value(ended(JobEnd::Exited { code: 7 }));
        assert_eq!(
            (&done["state"], &done["status"], &done["started"]),
            (&"done".into(), &7.into(), &8_000_000.into())
        );
        let missing = JobEnd::LaunchFailed { step: Step::Exec, errno: 2 };
        let missing = value(ended(missing));
        assert_eq!((&missing["status"], &missing["failed_step"]), (&127.into(), &"exec".into()));
        assert!(missing.get("started").is_none());
        assert_eq!(value(JobState::Lost { cause: "x".into() })["cause"], "x");
    }

    #[test]
    fn the_longest_lines_of_a_job_fit_into_the_smallest_pipe() {
        let mut longest = job(JobState::Lost { cause: "c".repeat(200) });
        longest.application = "a".repeat(64).parse().unwrap();
        longest.account = "ä".repeat(32).parse().unwrap();
        longest.os.name = "u".repeat(255).parse().unwrap();
        longest.kind = "k".repeat(64).parse().unwrap();
        longest.spec.executor = Executor::Slurm;
        longest.spec.slurm.cluster = "c".repeat(64).parse().ok();
        longest.spec.name = Some("n".repeat(64).parse().unwrap());
        assert!(Shown::from(&longest).line().len() * 3 < 4096);
    }

    #[test]
    fn names_of_states_are_the_same_both_ways() {
        for state in [JobState::Queued {}, JobState::Running {}, JobState::Abandoned { cause: String::new() }]
        {
            assert_eq!(stored_name(state_name(&state)), Some(state.as_str()));
        }
        assert_eq!(stored_name("done"), Some("ended"));
        assert_eq!(stored_name("ended"), None);
    }
}
