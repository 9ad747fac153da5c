//! Running commands.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use deputy_core::limits::{MAX_GRACE_SECONDS, MAX_NICE};
use deputy_core::names::{AccountName, ApplicationName, JobName, KindName, OsGroupName};
use deputy_core::project::ProjectKey;
use deputy_core::size::{ByteSize, MilliCpus};
use deputy_core::slurm::{ClusterName, Dependency, ExecutorChoice, Feature, Partition, Qos, SlurmAccount};
use zbus::OwnedObjectPath;

use super::jobs::parse_session;

/// One run of a command.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  deputyctl run --app portal --account alice -- id\n  deputyctl run --app portal --account \
                  alice --cwd /data/lab1 --env LANG=C -- sort in.txt > out.txt\n  deputyctl run --app portal --account \
                  alice --detach --capture --memory 4G --time-limit 2h --script job.sh -- input.dat",
    after_long_help = "Examples:\n  deputyctl run --app portal --account alice -- id\n  deputyctl run --app portal \
                       --account alice --cwd /data/lab1 --env LANG=C -- sort in.txt > out.txt\n  deputyctl run --app \
                       portal --account alice --detach --capture --memory 4G --time-limit 2h --script job.sh -- \
                       input.dat\n\n\
                       Standard input, output and error are handed to the job as they are, unless an option names \
                       something else; a terminal is not: its bytes are copied, so that a job never holds it. With \
                       --detach, and at Slurm without --interactive, they are /dev/null. With --terminal each key, Ctrl-C \
                       too, is the job's while it runs.\n\n\
                       The first SIGINT, SIGTERM or SIGHUP cancels the job; a second one ends deputyctl.\n\n\
                       Exit status: the job's own; 128+N if signal N ended it; 125 if Deputy refused or failed; 126 if \
                       the command cannot be executed; 127 if it is not there."
)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub struct RunOptions {
    /// The application
    #[arg(long = "app", value_name = "APP")]
    pub application: ApplicationName,
    /// The account
    #[arg(long, value_name = "NAME")]
    pub account: AccountName,
    /// The account's session, as 'deputyctl login' printed it; not needed where the application vouches
    #[arg(long, value_name = "PATH", value_parser = parse_session)]
    pub session: Option<OwnedObjectPath>,
    /// The kind of job, on which policy decides
    #[arg(long, value_name = "K")]
    pub kind: Option<KindName>,
    /// The project that it belongs to: it runs as the OS account that was pinned there
    #[arg(long, value_name = "OWNER/NAME")]
    pub project: Option<ProjectKey>,
    /// What the job is called
    #[arg(long, value_name = "NAME")]
    pub name: Option<JobName>,
    /// Do not wait for its end: print the job's id
    #[arg(long, short)]
    pub detach: bool,
    /// The working directory; without it, the home directory
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<OsString>,
    /// A variable of the job's environment; may be given several times
    #[arg(long = "env", value_name = "K=V", value_parser = OsStringValueParser::new().try_map(check_variable))]
    pub environment: Vec<OsString>,
    /// More variables, one K=V a line, that nobody writes down: for secrets
    #[arg(long, value_name = "FILE")]
    pub env_file: Option<PathBuf>,
    /// Read standard input from this file, opened as the OS account
    #[arg(long, value_name = "FILE")]
    pub stdin: Option<OsString>,
    /// Write standard output to this file, opened as the OS account
    #[arg(long, value_name = "FILE", conflicts_with = "capture")]
    pub stdout: Option<OsString>,
    /// Write standard error to this file, opened as the OS account
    #[arg(long, value_name = "FILE", conflicts_with_all = ["capture", "merge"])]
    pub stderr: Option<OsString>,
    /// Add to these files, instead of cutting them off
    #[arg(long)]
    pub append: bool,
    /// Send standard error where standard output goes
    #[arg(long)]
    pub merge: bool,
    /// Have output and error kept by Deputy, for 'deputyctl job logs'
    #[arg(long)]
    pub capture: bool,
    /// Run this file of yours, wherever the OS account could read it or not, where the kind allows any program
    #[arg(long, value_name = "FILE")]
    pub script: Option<PathBuf>,
    /// Permission bits that new files do not get, octal
    #[arg(long, value_name = "BITS")]
    pub umask: Option<String>,
    /// The group of new files: one of the OS account's own
    #[arg(long, value_name = "GROUP")]
    pub group: Option<OsGroupName>,
    /// The most memory, such as 512M or 4G
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<ByteSize>,
    /// The most CPUs, such as 2 or 0.5
    #[arg(long, value_name = "N", value_parser = parse_cpus)]
    pub cpus: Option<MilliCpus>,
    /// How many GPUs
    #[arg(long, value_name = "N")]
    pub gpus: Option<u16>,
    /// Refuse the job where less room is left, such as 50G, in the working directory or the folder of --needs-path
    #[arg(long, value_name = "SIZE")]
    pub needs: Option<ByteSize>,
    /// The folder in which --needs looks for room
    #[arg(long, value_name = "DIR", requires = "needs")]
    pub needs_path: Option<OsString>,
    /// The most processes and threads
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub pids: Option<u32>,
    /// The most open files of a process
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub files: Option<u32>,
    /// The largest core dump; 0 makes none
    #[arg(long, value_name = "SIZE")]
    pub core: Option<ByteSize>,
    /// End the job after this time, such as 90 (seconds), 10m, 2h or 1d
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub time_limit: Option<u32>,
    /// Seconds between TERM and KILL when the job is ended
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=i64::from(MAX_GRACE_SECONDS)))]
    pub grace: Option<u32>,
    /// The nice value
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=i64::from(MAX_NICE)))]
    pub nice: Option<u8>,
    /// Where it runs, local, slurm or auto; without it, where its kind says. At Slurm, and with auto, its streams are files:
    /// /dev/null, unless --stdin, --stdout and --stderr name others
    #[arg(long, value_name = "EXECUTOR", conflicts_with = "capture")]
    pub executor: Option<ExecutorChoice>,
    /// At Slurm: the cluster, where there are several
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<ClusterName>,
    /// At Slurm: the partition
    #[arg(long, value_name = "NAME")]
    pub partition: Option<Partition>,
    /// At Slurm: the account of Slurm's that pays
    #[arg(long, value_name = "NAME")]
    pub slurm_account: Option<SlurmAccount>,
    /// At Slurm: the quality of service
    #[arg(long, value_name = "NAME")]
    pub qos: Option<Qos>,
    /// At Slurm: how many nodes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub nodes: Option<u32>,
    /// At Slurm: how many tasks; --cpus is for each of them, --memory for each node
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub tasks: Option<u32>,
    /// At Slurm: a feature that each node has to have; may be given several times
    #[arg(long, value_name = "FEATURE", value_delimiter = ',')]
    pub constraint: Vec<Feature>,
    /// At Slurm: what it waits for: after, afterok, afternotok or afterany, a colon and a job's id; may be given several
    /// times
    #[arg(long, value_name = "WHEN:ID", value_delimiter = ',')]
    pub dependency: Vec<Dependency>,
    /// At Slurm: one job for each of these indices, such as 0-9 or 1,3,5-7, which is `SLURM_ARRAY_TASK_ID` there and stands
    /// for %a in the names of --stdin, --stdout and --stderr; prints the jobs' ids, one a line
    #[arg(long, value_name = "INDICES", requires = "detach")]
    pub array: Option<String>,
    /// At Slurm: wait until it is released
    #[arg(long)]
    pub hold: bool,
    /// At Slurm: run it again where a node fails or somebody asks for it (deputyctl job requeue). For kinds that allow it
    #[arg(long)]
    pub requeue: bool,
    /// At Slurm: speak with the job while it runs, by srun: its standard input, output and error are as for a job here. For
    /// kinds that allow it
    #[arg(long, conflicts_with_all = ["detach", "array", "hold", "requeue", "dependency", "script"])]
    pub interactive: bool,
    /// With --interactive: give the job a terminal of its own, shown on this one
    #[arg(long, short, requires = "interactive", conflicts_with_all = ["stdin", "stdout", "stderr", "merge", "capture"])]
    pub terminal: bool,
    /// The program (an absolute path, or a plain name that is looked up as the OS account) and its arguments; with
    /// --script only the arguments
    #[arg(value_name = "CMD", required_unless_present = "script", trailing_var_arg = true)]
    pub command: Vec<OsString>,
}

pub(super) fn check_variable(variable: OsString) -> Result<OsString, &'static str> {
    match variable.as_encoded_bytes().iter().position(|&byte| byte == b'=') {
        Some(1..) => Ok(variable),
        _ => Err("a variable is given as NAME=VALUE"),
    }
}

pub(super) fn parse_cpus(text: &str) -> Result<MilliCpus, &'static str> {
    let cpus: Option<f64> = text.parse().ok();
    cpus.and_then(MilliCpus::from_cpus).ok_or("a number of CPUs is above 0: 2, 0.5")
}

/// A time in seconds.
pub(super) fn parse_time(text: &str) -> Result<u32, &'static str> {
    const WHAT: &str = "a time is a number of seconds, or has a unit: 90, 10m, 2h, 1d";
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(WHAT),
    };
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(WHAT);
    }
    let number: u32 = digits.parse().map_err(|_| WHAT)?;
    number.checked_mul(unit).filter(|seconds| *seconds > 0).ok_or(WHAT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_needs_a_name() {
        assert!(check_variable("A=b=c".into()).is_ok());
        assert!(check_variable("A=".into()).is_ok());
        assert!(check_variable("=b".into()).is_err());
        assert!(check_variable("A".into()).is_err());
    }

    #[test]
    fn times_and_cpus_are_read_as_people_write_them() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("10m", 600), ("2h", 7200), ("1d", 86_400)] {
            assert_eq!(parse_time(text), Ok(seconds), "{text}");
        }
        for text in ["", "0", "0m", "m", "-1", "1.5h", "1hh", "1w", "+5", "99999999d"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
        assert_eq!(parse_cpus("0.5"), Ok(MilliCpus(500)));
        for text in ["0", "-1", "nan", "inf", "two", ""] {
            assert!(parse_cpus(text).is_err(), "{text}");
        }
    }
}
