//! What a job's folder has of Slurm: that it is being submitted and to which cluster, and the number that Slurm gave it.
//!
//! Each is on disk before the next step: the first before `sbatch` starts, the second before anybody is told. They are one
//! file, which is made with its place for the number and has another name when that is there: so that waits for the disk once,
//! and only the name may be missing after a power cut. An interactive job has a file of its own before `srun` starts, and one
//! that may run again has one with what that rests on.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use deputy_core::denial::{Code, Denial};
use deputy_core::ids::{JobId, OsGid};
use deputy_core::names::KindName;
use deputy_core::slurm::{ClusterName, SlurmJobId};
use serde::{Deserialize, Serialize};

use crate::durable::{self, Prepared};
use crate::paths::job_folder;
use crate::shepherd::watch::has_shepherd;

const CLUSTER: &str = "slurm.cluster";
const SUBMITTING: &str = "slurm.submitting";
const SUBMITTED: &str = "slurm";
const INTERACTIVE: &str = "slurm.interactive";
const REQUEUE: &str = "slurm.requeue";
const MAX: u64 = 4096;

/// What is written down of the cluster, where it is not the default one.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Elsewhere {
    cluster: ClusterName,
}

/// What is written down of its answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    job: SlurmJobId,
}

fn disk(error: io::Error) -> Denial {
    Denial::new(Code::Disk, "jobs", format!("the job's record could not be written: {error}"))
        .remedy("make room on the file system of /var/lib/deputy")
}

/// Takes note of the cluster, before anything else is written down about Slurm. Of the default one there is no file.
fn goes_to(job: &JobId, cluster: &ClusterName) -> Result<(), Denial> {
    if cluster.is_default() {
        return Ok(());
    }
    let text = toml::to_string(&Elsewhere { cluster: cluster.clone() })
        .map_err(|error| Denial::internal(error.to_string()))?;
    durable::replace(&job_folder(job), CLUSTER, text.as_bytes()).map_err(disk)
}

/// The cluster to which a job was submitted. A record that cannot be read is an error: no other cluster is asked about the
/// job.
pub fn cluster(job: &JobId) -> Result<ClusterName, Denial> {
    let unreadable = |error: String| Denial::internal(format!("the record of the job's cluster: {error}"));
    match durable::read(&job_folder(job), CLUSTER, MAX).map_err(|error| unreadable(error.to_string()))? {
        None => Ok(ClusterName::default()),
        Some(text) => toml::from_str(&text)
            .map(|Elsewhere { cluster }| cluster)
            .map_err(|error| unreadable(error.to_string())),
    }
}

/// What a job rests on that may run again, beside what its identity says: it is looked at once more before it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunsAgain {
    /// Its kind; none is the one of a job that names none.
    pub kind: Option<KindName>,
    /// The group of its project.
    pub project_group: Option<OsGid>,
    /// When the login was on whose session it rests, seconds since 1970.
    pub login: Option<u64>,
}

/// Takes note that a job may run again.
pub fn may_run_again(job: &JobId, again: &RunsAgain) -> Result<(), Denial> {
    let text = toml::to_string(again).map_err(|error| Denial::internal(error.to_string()))?;
    durable::replace(&job_folder(job), REQUEUE, text.as_bytes()).map_err(disk)
}

/// What a job rests on that may run again; none of one that may not.
pub fn runs_again(job: &JobId) -> Result<Option<RunsAgain>, Denial> {
    let unreadable =
        |error: String| Denial::internal(format!("the record of a job that may run again: {error}"));
    let text =
        durable::read(&job_folder(job), REQUEUE, MAX).map_err(|error| unreadable(error.to_string()))?;
    text.map(|text| toml::from_str(&text).map_err(|error| unreadable(error.to_string()))).transpose()
}

/// A submission that is on its way.
pub struct Submission {
    record: Prepared,
    folder: PathBuf,
}

/// Takes note that `sbatch` is about to start.
pub fn begin(job: &JobId, cluster: &ClusterName) -> Result<Submission, Denial> {
    goes_to(job, cluster)?;
    let folder = job_folder(job);
    let record = Prepared::create(&folder, SUBMITTING).map_err(disk)?;
    Ok(Submission { record, folder })
}

impl Submission {
    /// Takes note of the number.
    pub fn submitted(&self, number: SlurmJobId) -> Result<(), Denial> {
        let named = || fs::rename(self.folder.join(SUBMITTING), self.folder.join(SUBMITTED));
        self.record.fill(&text(number)?).and_then(|()| named()).map_err(disk)
    }
}

/// Takes note of the number that was found for a submission of a process that is gone.
pub fn found(job: &JobId, number: SlurmJobId) -> Result<(), Denial> {
    durable::replace(&job_folder(job), SUBMITTED, text(number)?.as_bytes()).map_err(disk)
}

fn text(number: SlurmJobId) -> Result<String, Denial> {
    toml::to_string(&Record { job: number }).map_err(|error| Denial::internal(error.to_string()))
}

/// The number that Slurm gave to a job. A record that cannot be read is an error, not an absence.
pub fn number(job: &JobId) -> Result<Option<SlurmJobId>, Denial> {
    let unreadable =
        |error: String| Denial::internal(format!("the record of the job's number at Slurm: {error}"));
    let read =
        |name| durable::read(&job_folder(job), name, MAX).map_err(|error| unreadable(error.to_string()));
    let text = match read(SUBMITTED)? {
        // What is being written just now may be there in part; what a process has left is as good as it will be.
        None if !has_shepherd(job) => read(SUBMITTING)?,
        text => text,
    };
    // Until there is a number its place is blank.
    let Some(text) = text.filter(|text| !text.trim().is_empty()) else { return Ok(None) };
    toml::from_str(&text).map(|Record { job }| Some(job)).map_err(|error| unreadable(error.to_string()))
}

/// Whether Slurm was asked to take a job, and may have it.
pub fn is_submitted(job: &JobId) -> bool {
    begun(job).is_some()
}

/// For how long a submission has been on its way, or done; none if `sbatch` was never started for the job.
pub fn begun(job: &JobId) -> Option<Duration> {
    age(job, SUBMITTING).or_else(|| age(job, SUBMITTED))
}

/// Takes note that `srun` is about to start, at this cluster.
pub fn begin_interactive(job: &JobId, cluster: &ClusterName) -> Result<(), Denial> {
    goes_to(job, cluster)?;
    durable::replace(&job_folder(job), INTERACTIVE, b"").map_err(disk)
}

/// How long ago `srun` was to start; none if it never was.
pub fn interactive(job: &JobId) -> Option<Duration> {
    age(job, INTERACTIVE)
}

fn age(job: &JobId, name: &str) -> Option<Duration> {
    let made = fs::metadata(job_folder(job).join(name)).ok()?.modified().ok()?;
    // A clock that was set back makes it younger, and so it is asked about for longer.
    Some(made.elapsed().unwrap_or_default())
}
