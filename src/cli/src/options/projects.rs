//! Projects, and explanations of decisions.

use std::ffi::OsString;

use clap::{Args, Subcommand};
use deputy_core::names::{AccountName, ApplicationName, KindName, OsGroupName, ProjectName};
use deputy_core::project::{ProjectAccess, ProjectKey};
use deputy_core::size::{ByteSize, MilliCpus};
use deputy_core::slurm::{ClusterName, ExecutorChoice, Partition, Qos, SlurmAccount};

use super::accounts::ByOption;
use super::run::{parse_cpus, parse_time};

/// What to do with projects.
#[derive(Debug, Subcommand)]
pub enum ProjectCommand {
    /// Create a project; its owner's OS account is pinned
    #[command(after_help = "Example:\n  deputyctl project create portal alice apoferritin --umask 027")]
    Create(CreateProjectOptions),
    /// Show one project
    #[command(after_help = "Example:\n  deputyctl project show portal alice/apoferritin")]
    Show {
        /// Which one
        #[command(flatten)]
        target: ProjectTarget,
        /// As this account (or the path of its session) sees it
        #[arg(long, value_name = "SUBJECT")]
        subject: Option<String>,
    },
    /// List projects
    #[command(
        after_help = "Examples:\n  deputyctl project list portal --subject alice\n  deputyctl project list portal --public"
    )]
    List {
        /// The application
        #[arg(value_name = "APP")]
        application: ApplicationName,
        /// Only those that this account (or the path of its session) owns or is a member of
        #[arg(long, value_name = "SUBJECT")]
        subject: Option<String>,
        /// Only those of this owner
        #[arg(long, value_name = "NAME")]
        owner: Option<AccountName>,
        /// Only those that every account sees
        #[arg(long)]
        public: bool,
    },
    /// Make an account a member: read (see the records) or write (run jobs too, as its own OS account)
    #[command(after_help = "Example:\n  deputyctl project share portal alice/apoferritin bob write")]
    Share {
        /// Which one
        #[command(flatten)]
        target: ProjectTarget,
        /// The account
        #[arg(value_name = "NAME")]
        account: AccountName,
        /// read or write
        #[arg(value_name = "ACCESS")]
        access: ProjectAccess,
        /// Who acts
        #[command(flatten)]
        by: ByOption,
    },
    /// End a membership
    #[command(after_help = "Example:\n  deputyctl project unshare portal alice/apoferritin bob")]
    Unshare {
        /// Which one
        #[command(flatten)]
        target: ProjectTarget,
        /// The account
        #[arg(value_name = "NAME")]
        account: AccountName,
        /// Who acts
        #[command(flatten)]
        by: ByOption,
    },
    /// Make the folder that its members share, as the owner, beneath a root with shared = true; again, to bring it and
    /// the project's OS group into step
    #[command(
        after_help = "Examples:\n  deputyctl project folder portal alice/apoferritin /data/projects/apoferritin\n  \
                      deputyctl project folder portal alice/apoferritin"
    )]
    Folder {
        /// Which one
        #[command(flatten)]
        target: ProjectTarget,
        /// Where; it has to be new. Left out: the folder that the project has
        #[arg(value_name = "PATH")]
        path: Option<OsString>,
        /// The owner's session, where the application's word is not enough
        #[arg(long, value_name = "SUBJECT")]
        subject: Option<String>,
    },
    /// Let every account of the application see that the project is there; --private takes that back
    #[command(after_help = "Example:\n  deputyctl project publish portal alice/apoferritin")]
    Publish {
        /// Which one
        #[command(flatten)]
        target: ProjectTarget,
        /// Only its members see it
        #[arg(long)]
        private: bool,
        /// Who acts
        #[command(flatten)]
        by: ByOption,
    },
    /// Change what its jobs begin with
    #[command(
        after_help = "Example:\n  deputyctl project edit portal alice/apoferritin --umask 007 --os-group lab1"
    )]
    Edit {
        /// Which one
        #[command(flatten)]
        target: ProjectTarget,
        /// What its jobs begin with
        #[command(flatten)]
        defaults: ProjectDefaultsOptions,
        /// Who acts
        #[command(flatten)]
        by: ByOption,
    },
    /// Give the project to another account, which has to be linked
    #[command(after_help = "Example:\n  deputyctl project hand-over portal alice/apoferritin bob")]
    HandOver {
        /// Which one
        #[command(flatten)]
        target: ProjectTarget,
        /// The account
        #[arg(value_name = "NAME")]
        account: AccountName,
        /// Who acts
        #[command(flatten)]
        by: ByOption,
    },
    /// Delete the project's record; no file is touched
    #[command(after_help = "Example:\n  deputyctl project delete portal alice/apoferritin --yes")]
    Delete {
        /// Which one
        #[command(flatten)]
        target: ProjectTarget,
        /// Who acts
        #[command(flatten)]
        by: ByOption,
    },
}

/// One project.
#[derive(Debug, Args)]
pub struct ProjectTarget {
    /// The application
    #[arg(value_name = "APP")]
    pub application: ApplicationName,
    /// The project
    #[arg(value_name = "OWNER/NAME")]
    pub project: ProjectKey,
}

/// What a project's jobs begin with.
#[derive(Debug, Args)]
pub struct ProjectDefaultsOptions {
    /// Permission bits to take away beside the login's own, in octal
    #[arg(long, value_name = "MASK")]
    pub umask: Option<String>,
    /// The group of new files: one of the OS account's own
    #[arg(long, value_name = "GROUP")]
    pub os_group: Option<OsGroupName>,
}

/// A new project.
#[derive(Debug, Args)]
pub struct CreateProjectOptions {
    /// The application
    #[arg(value_name = "APP")]
    pub application: ApplicationName,
    /// The account that is to own it, or the path of its session
    #[arg(value_name = "SUBJECT")]
    pub subject: String,
    /// Its name
    #[arg(value_name = "NAME")]
    pub name: ProjectName,
    /// Let every account of the application see that it is there
    #[arg(long)]
    pub public: bool,
    /// What its jobs begin with
    #[command(flatten)]
    pub defaults: ProjectDefaultsOptions,
}

/// A decision to explain.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  deputyctl explain portal alice --kind batch -- /usr/bin/python3 /opt/app/run.py x\n  \
                  deputyctl explain portal alice --kind refine --executor slurm --partition gpu --gpus 2 -- /opt/em/bin/refine\n  \
                  deputyctl explain portal alice --path /data/lab1/results --write"
)]
pub struct ExplainOptions {
    /// The application
    #[arg(value_name = "APP")]
    pub application: ApplicationName,
    /// The account
    #[arg(value_name = "NAME")]
    pub account: AccountName,
    /// The kind of job
    #[arg(long, value_name = "K", conflicts_with = "path")]
    pub kind: Option<KindName>,
    /// The project that the job or the files belong to
    #[arg(long, value_name = "OWNER/NAME")]
    pub project: Option<ProjectKey>,
    /// Say whether the account may read what is at this path, instead of what would become of a job
    #[arg(long, value_name = "PATH", conflicts_with = "command")]
    pub path: Option<OsString>,
    /// Whether it may change it, or make it where it is not there
    #[arg(long, requires = "path")]
    pub write: bool,
    /// What the job asks for
    #[command(flatten)]
    pub asked: ExplainedOptions,
    /// The program and its arguments
    #[arg(value_name = "CMD", required_unless_present = "path", trailing_var_arg = true)]
    pub command: Vec<OsString>,
}

/// What a job asks for about which a decision is explained, as with 'run'.
#[derive(Debug, Args)]
pub struct ExplainedOptions {
    /// Where it runs: local, slurm or auto
    #[arg(long, value_name = "EXECUTOR", conflicts_with = "path")]
    pub executor: Option<ExecutorChoice>,
    /// The most memory
    #[arg(long, value_name = "SIZE", conflicts_with = "path")]
    pub memory: Option<ByteSize>,
    /// The most CPUs
    #[arg(long, value_name = "N", value_parser = parse_cpus, conflicts_with = "path")]
    pub cpus: Option<MilliCpus>,
    /// How many GPUs
    #[arg(long, value_name = "N", conflicts_with = "path")]
    pub gpus: Option<u16>,
    /// The longest time
    #[arg(long, value_name = "TIME", value_parser = parse_time, conflicts_with = "path")]
    pub time_limit: Option<u32>,
    /// At Slurm: the cluster
    #[arg(long, value_name = "NAME", conflicts_with = "path")]
    pub cluster: Option<ClusterName>,
    /// At Slurm: the partition
    #[arg(long, value_name = "NAME", conflicts_with = "path")]
    pub partition: Option<Partition>,
    /// At Slurm: the account of Slurm's that pays
    #[arg(long, value_name = "NAME", conflicts_with = "path")]
    pub slurm_account: Option<SlurmAccount>,
    /// At Slurm: the quality of service
    #[arg(long, value_name = "NAME", conflicts_with = "path")]
    pub qos: Option<Qos>,
    /// At Slurm: how many nodes
    #[arg(long, value_name = "N", conflicts_with = "path")]
    pub nodes: Option<u32>,
    /// At Slurm: how many tasks
    #[arg(long, value_name = "N", conflicts_with = "path")]
    pub tasks: Option<u32>,
    /// At Slurm: run it again where a node fails or somebody asks for it
    #[arg(long, conflicts_with = "path")]
    pub requeue: bool,
}
