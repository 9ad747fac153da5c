//! What a job's folder has of Slurm: that it is being submitted and to which cluster, and the number that Slurm gave it.
//!
//! Each is on disk before the next step: the first before `sbatch` starts, the second before anybody is told. An interactive
//! job has neither, but a third of its own before `srun` starts.

use std::fs;
use std::io;
use std::time::Duration;

use deputy_core::denial::{Code, Denial};
use deputy_core::ids::JobId;
use deputy_core::slurm::{ClusterName, SlurmJobId};
use serde::{Deserialize, Serialize};

use crate::durable;
use crate::paths::job_folder;

const CLUSTER: &str = "slurm.cluster";
const SUBMITTING: &str = "slurm.submitting";
const SUBMITTED: &str = "slurm";
const INTERACTIVE: &str = "slurm.interactive";
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

/// Takes note that `sbatch` is about to start.
pub fn begin(job: &JobId, cluster: &ClusterName) -> Result<(), Denial> {
    goes_to(job, cluster)?;
    durable::replace(&job_folder(job), SUBMITTING, b"").map_err(disk)
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

/// Takes note of the number.
pub fn submitted(job: &JobId, number: SlurmJobId) -> Result<(), Denial> {
    let text =
        toml::to_string(&Record { job: number }).map_err(|error| Denial::internal(error.to_string()))?;
    durable::replace(&job_folder(job), SUBMITTED, text.as_bytes()).map_err(disk)
}

/// The number that Slurm gave to a job. A record that cannot be read is an error, not an absence.
pub fn number(job: &JobId) -> Result<Option<SlurmJobId>, Denial> {
    let unreadable =
        |error: String| Denial::internal(format!("the record of the job's number at Slurm: {error}"));
    match durable::read(&job_folder(job), SUBMITTED, MAX).map_err(|error| unreadable(error.to_string()))? {
        None => Ok(None),
        Some(text) => toml::from_str(&text)
            .map(|Record { job }| Some(job))
            .map_err(|error| unreadable(error.to_string())),
    }
}

/// Whether Slurm was asked to take a job, and may have it.
pub fn is_submitted(job: &JobId) -> bool {
    begun(job).is_some()
}

/// For how long a submission has been on its way, or done; none if `sbatch` was never started for the job.
pub fn begun(job: &JobId) -> Option<Duration> {
    age(job, SUBMITTING)
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
