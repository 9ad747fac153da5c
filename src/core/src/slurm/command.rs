//! How Slurm's programs are asked: argument vectors made of typed fields. No text of a request becomes an option.

use super::{ClusterName, SlurmCommand, SlurmJobId, SlurmRequest, When};
use crate::ids::{JobId, OsUid};
use crate::limits::JobBounds;

/// The name under which Slurm has a job of Deputy's. By it a submission is looked up whose answer was lost.
pub fn job_name(job: &JobId) -> String {
    format!("deputy-{job}")
}

/// What is asked of `sbatch`, with everything filled in that policy fills in, and for what jobs of Slurm's it waits.
pub fn sbatch(
    job: &JobId,
    asked: &SlurmRequest,
    bounds: &JobBounds,
    after: &[(When, SlurmJobId)],
) -> Vec<String> {
    let mut argv: Vec<String> = [
        "sbatch",
        "--parsable",
        "--export=NONE",
        "--propagate=NONE",
        // What a node's failure ended is told, and repeated only where that was asked for.
        if asked.requeue { "--requeue" } else { "--no-requeue" },
        "--input=none",
        "--output=/dev/null",
        "--error=/dev/null",
        "--chdir=/",
    ]
    .map(str::to_owned)
    .to_vec();
    argv.push("--array=".to_owned());
    let after: Vec<String> = after.iter().map(|(when, job)| format!("{}:{job}", when.as_str())).collect();
    argv.push(format!("--dependency={}", after.join(",")));
    if !after.is_empty() {
        // A job that waits for what cannot come any more is given up, and that is told.
        argv.push("--kill-on-invalid-dep=yes".to_owned());
    }
    if asked.hold {
        argv.push("--hold".to_owned());
    }
    argv.extend(described(job, asked, bounds));
    argv
}

/// What each of Slurm's ways to a job is told of it: its name, and each field as an option of its own.
pub(super) fn described(job: &JobId, asked: &SlurmRequest, bounds: &JobBounds) -> Vec<String> {
    let mut argv = vec![format!("--job-name={}", job_name(job)), format!("--comment=deputy:{job}")];
    // What is not asked for is said to be nothing, where nothing has a word: the site may let people have defaults.
    for nothing in ["reservation", "gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task"] {
        argv.push(format!("--{nothing}="));
    }
    let features: Vec<&str> = asked.features.iter().map(super::Feature::as_str).collect();
    let gres = if asked.gpus > 0 { format!("gpu:{}", asked.gpus) } else { "none".to_owned() };
    let named = [
        ("constraint", Some(features.join("&"))),
        ("partition", asked.partition.as_ref().map(ToString::to_string)),
        ("account", asked.account.as_ref().map(ToString::to_string)),
        ("qos", asked.qos.as_ref().map(ToString::to_string)),
        ("nodes", Some(asked.nodes.unwrap_or(1).to_string())),
        ("ntasks", Some(asked.tasks.unwrap_or(1).to_string())),
        ("cpus-per-task", Some(bounds.limits.cpus.map_or(1, |cpus| cpus.0 / 1000).to_string())),
        ("mem", bounds.limits.memory.map(|memory| format!("{}K", memory.0.div_ceil(1024)))),
        ("gres", Some(gres)),
        ("time", bounds.time_limit_seconds.map(time)),
    ];
    argv.extend(named.into_iter().filter_map(|(name, value)| Some(format!("--{name}={}", value?))));
    argv
}

/// `scancel` of a job that went to a cluster by Slurm's own name.
pub fn cancel_elsewhere(job: SlurmJobId, cluster: &ClusterName) -> Vec<String> {
    vec!["scancel".to_owned(), format!("--clusters={cluster}"), job.to_string()]
}

/// Hours, minutes and seconds.
fn time(seconds: u32) -> String {
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// `squeue` for these jobs: one line each. It is asked by names, so that nothing else is in the answer whose name somebody
/// chose; a number may be another job's, where a controller died before it had written down that it gave it.
pub fn squeue(users: &[OsUid], jobs: &[&JobId]) -> Vec<String> {
    let users: Vec<String> = users.iter().map(ToString::to_string).collect();
    let users = format!("--user={}", users.join(","));
    let format = "--Format=JobID:|,UserID:|,Name:|,State:|,exit_code:|,BatchHost:|,RestartCnt:|,StartTime:|,EndTime:|,TimeUsed:|,Reason:|";
    words(&["squeue", "--noheader", "--all", "--states=all", format, &users, &names(jobs)])
}

/// `sacct` for these jobs and their steps: one line each.
pub fn sacct(numbers: &[SlurmJobId], jobs: &[&JobId]) -> Vec<String> {
    let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    let numbers = format!("--jobs={}", numbers.join(","));
    let format = "--format=JobIDRaw,UID,JobName,State,ExitCode,ElapsedRaw,UserCPU,SystemCPU,MaxRSS,End";
    words(&["sacct", "--noheader", "--parsable2", "--allusers", &numbers, &names(jobs), format])
}

fn names(jobs: &[&JobId]) -> String {
    let names: Vec<String> = jobs.iter().map(|job| job_name(job)).collect();
    format!("--name={}", names.join(","))
}

/// `squeue` for a submission whose answer was lost: its number, if Slurm has it.
pub fn find_in_queue(job: &JobId, user: OsUid) -> Vec<String> {
    let (user, name) = (format!("--user={user}"), format!("--name={}", job_name(job)));
    words(&["squeue", "--noheader", "--all", "--states=all", "--format=%i", &user, &name])
}

/// `sacct` for the same.
pub fn find_in_accounting(job: &JobId) -> Vec<String> {
    let name = format!("--name={}", job_name(job));
    words(&[
        "sacct",
        "--noheader",
        "--parsable2",
        "--allocations",
        "--starttime=now-30days",
        "--format=JobIDRaw",
        &name,
    ])
}

/// A word about a job: `scancel` ends it, or sends a signal to its first process; `scontrol` has it wait, go on or run again.
pub fn about(job: SlurmJobId, wanted: SlurmCommand) -> Vec<String> {
    let number = job.to_string();
    match wanted {
        SlurmCommand::End => words(&["scancel", &number]),
        SlurmCommand::Signal(signal) => {
            words(&["scancel", "--batch", &format!("--signal={signal}"), &number])
        }
        SlurmCommand::Hold => words(&["scontrol", "hold", &number]),
        SlurmCommand::Release => words(&["scontrol", "release", &number]),
        SlurmCommand::Requeue => words(&["scontrol", "requeue", &number]),
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::ResourceLimits;
    use crate::size::{ByteSize, MilliCpus};

    fn job() -> JobId {
        JobId::from_random([1; JobId::BYTES])
    }

    #[test]
    fn each_field_is_one_option_and_what_is_absent_is_none() {
        let bounds = JobBounds {
            limits: ResourceLimits {
                memory: Some(ByteSize(1025)),
                cpus: Some(MilliCpus(3000)),
                ..ResourceLimits::default()
            },
            time_limit_seconds: Some(100 * 3600 + 61),
            ..JobBounds::default()
        };
        let asked = SlurmRequest {
            partition: "gpu".parse().ok(),
            account: "lab1".parse().ok(),
            qos: "high".parse().ok(),
            nodes: Some(2),
            tasks: Some(8),
            gpus: 3,
            features: ["a100", "fast"].map(|name| name.parse().unwrap()).to_vec(),
            hold: true,
            requeue: true,
            ..SlurmRequest::default()
        };
        let after = [(When::AfterOk, SlurmJobId(5)), (When::After, SlurmJobId(6))];
        let argv = sbatch(&job(), &asked, &bounds, &after);
        for option in [
            "--partition=gpu",
            "--account=lab1",
            "--qos=high",
            "--nodes=2",
            "--ntasks=8",
            "--cpus-per-task=3",
            "--mem=2K",
            "--gres=gpu:3",
            "--constraint=a100&fast",
            "--dependency=afterok:5,after:6",
            "--kill-on-invalid-dep=yes",
            "--hold",
            "--requeue",
            "--time=100:01:01",
            "--export=NONE",
            "--propagate=NONE",
            "--parsable",
        ] {
            assert!(argv.iter().any(|word| word == option), "{option} in {argv:?}");
        }
        let least = sbatch(&job(), &SlurmRequest::default(), &JobBounds::default(), &[]);
        assert!(least.iter().skip(1).all(|word| word.starts_with("--") && word.matches('\n').count() == 0));
        for option in ["--no-requeue", "--gres=none", "--array=", "--dependency=", "--constraint=", "--gpus="]
        {
            assert!(least.iter().any(|word| word == option), "{option} in {least:?}");
        }
        for option in ["--requeue", "--partition", "--account", "--qos", "--mem", "--time"] {
            assert!(!least.iter().any(|word| word.starts_with(option)), "{option} in {least:?}");
        }
    }

    #[test]
    fn words_are_about_numbers_alone() {
        let about = |wanted| about(SlurmJobId(7), wanted);
        assert_eq!(about(SlurmCommand::End), ["scancel", "7"]);
        assert_eq!(about(SlurmCommand::Signal(10)), ["scancel", "--batch", "--signal=10", "7"]);
        assert_eq!(about(SlurmCommand::Hold), ["scontrol", "hold", "7"]);
        assert_eq!(about(SlurmCommand::Release), ["scontrol", "release", "7"]);
        assert_eq!(about(SlurmCommand::Requeue), ["scontrol", "requeue", "7"]);
    }
}
