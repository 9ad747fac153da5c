//! `submit`: what other programs' templates for batch systems call.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use deputy_core::names::{AccountName, ApplicationName, KindName};
use deputy_core::project::ProjectKey;
use deputy_core::slurm::ClusterName;
use zbus::OwnedObjectPath;

use super::jobs::parse_session;

/// One submission, query or cancel.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  deputyctl submit --app portal --account ada job.sh\n  deputyctl submit --app portal --query 1234\n  \
                  deputyctl submit --app portal --cancel 1234",
    after_long_help = "Examples:\n  deputyctl submit --app portal --account ada job.sh\n  deputyctl submit --app portal --query 1234\n  \
                       deputyctl submit --app portal --cancel 1234\n\nThe script is a file, or standard input. Its lines that \
                       begin with #SBATCH become typed requests, on which policy decides: partition, account, qos, nodes, \
                       ntasks, cpus-per-task, mem, time, gres (of GPUs), gpus-per-node, constraint, chdir, input, output, \
                       error, open-mode, job-name, hold, requeue and no-requeue; export, get-user-env and mail are passed over. Any other \
                       is an error.\n\nIt prints what sbatch would: 'Submitted batch job N', or with --parsable N alone. \
                       --query prints the state in Slurm's words and, of a job that runs, its node; nothing of one that has ended."
)]
pub struct SubmitOptions {
    /// The application
    #[arg(long = "app", value_name = "APP")]
    pub application: ApplicationName,
    /// The account
    #[arg(long, value_name = "NAME", required_unless_present_any = ["query", "cancel"])]
    pub account: Option<AccountName>,
    /// The account's session; not needed where the application vouches
    #[arg(long, value_name = "PATH", value_parser = parse_session)]
    pub session: Option<OwnedObjectPath>,
    /// The kind of job, on which policy decides
    #[arg(long, value_name = "K")]
    pub kind: Option<KindName>,
    /// The cluster, where there are several; with --query and --cancel, the one that gave the number
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<ClusterName>,
    /// The project that it belongs to
    #[arg(long, value_name = "OWNER/NAME")]
    pub project: Option<ProjectKey>,
    /// Pass these variables of this process's own on, as secrets; the kind has to allow them
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub pass: Vec<String>,
    /// Print the number alone
    #[arg(long)]
    pub parsable: bool,
    /// Print where the job with this number at Slurm stands
    #[arg(long, value_name = "N", conflicts_with_all = ["cancel", "script"])]
    pub query: Option<u32>,
    /// Cancel the job with this number at Slurm
    #[arg(long, value_name = "N", conflicts_with = "script")]
    pub cancel: Option<u32>,
    /// The script; standard input where none is named
    #[arg(value_name = "SCRIPT")]
    pub script: Option<PathBuf>,
    /// Its arguments
    #[arg(value_name = "ARG", trailing_var_arg = true)]
    pub arguments: Vec<OsString>,
}
