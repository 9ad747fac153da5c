//! Links.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use deputy_core::names::{AccountName, ApplicationName, OsUserName};

use super::accounts::ByOption;

/// An account and the OS account it is, or is to be, linked to.
#[derive(Debug, Args)]
pub struct LinkTarget {
    /// The application
    #[arg(value_name = "APP")]
    pub application: ApplicationName,
    /// The account
    #[arg(value_name = "NAME")]
    pub account: AccountName,
    /// The OS account
    #[arg(value_name = "OS_USER")]
    pub os_user: OsUserName,
}

/// What to do with links.
#[derive(Debug, Subcommand)]
pub enum LinkCommand {
    /// Check whether an account can be linked to an OS account, or all links; exit status 1 if there are errors
    #[command(
        after_help = "Examples:\n  deputyctl link check portal alice ann\n  deputyctl link check portal --all\n  \
                      deputyctl link check --all-applications"
    )]
    Check(CheckOptions),
    /// Link an account to an OS account, whose owner answers for it here and now
    #[command(
        after_help = "Examples:\n  deputyctl link add portal alice ann\n  deputyctl link add portal alice ann \
                      --answers-fd 3 3< answers"
    )]
    Add {
        /// What to link
        #[command(flatten)]
        target: LinkTarget,
        /// Read the answers from this descriptor, one per line, instead of from the terminal
        #[arg(long, value_name = "N")]
        answers_fd: Option<u32>,
    },
    /// Ask for a link, and print the code with which the OS account's owner consents
    #[command(
        after_help = "Examples:\n  deputyctl link request portal alice ann\n  deputyctl link request portal alice ann --renew"
    )]
    Request(RequestOptions),
    /// Ask for many links; root consents to each. Without root each waits for its owner
    #[command(
        after_help = "Examples:\n  deputyctl link import portal links.csv --dry-run\n  sudo deputyctl link import portal \
                      --nextpyp /opt/nextpyp/user-processors\n\nThe file has a first line 'account,os_user' and a line for each link."
    )]
    Import(ImportOptions),
    /// List links
    #[command(after_help = "Example:\n  deputyctl link list portal --os-user ann")]
    List {
        /// Only those of this application
        #[arg(value_name = "APP")]
        application: Option<ApplicationName>,
        /// Only those of this account
        #[arg(long, value_name = "NAME")]
        account: Option<AccountName>,
        /// Only those to this OS account
        #[arg(long, value_name = "OS_USER")]
        os_user: Option<OsUserName>,
        /// Only those in this state: waiting, active, stale, expired, revoked
        #[arg(long)]
        state: Option<String>,
    },
    /// Remove an account's link
    #[command(
        after_help = "Examples:\n  deputyctl link remove portal alice --yes\n  deputyctl link remove portal alice --end-jobs"
    )]
    Remove {
        /// The application
        #[arg(value_name = "APP")]
        application: ApplicationName,
        /// The account
        #[arg(value_name = "NAME")]
        account: AccountName,
        /// End what runs under it too
        #[arg(long)]
        end_jobs: bool,
        /// Who acts
        #[command(flatten)]
        by: ByOption,
    },
}

/// A check of one link, or of all.
#[derive(Debug, Args)]
pub struct CheckOptions {
    /// The application
    #[arg(value_name = "APP", required_unless_present = "all_applications")]
    pub application: Option<ApplicationName>,
    /// The account
    #[arg(value_name = "NAME", required_unless_present_any = ["all", "all_applications"])]
    pub account: Option<AccountName>,
    /// The OS account
    #[arg(value_name = "OS_USER", required_unless_present_any = ["all", "all_applications"])]
    pub os_user: Option<OsUserName>,
    /// Check every link of the application
    #[arg(long, conflicts_with_all = ["account", "os_user"])]
    pub all: bool,
    /// Check every link of every application that the caller sees
    #[arg(long, conflicts_with_all = ["application", "account", "os_user", "all", "by"])]
    pub all_applications: bool,
    /// Who acts
    #[command(flatten)]
    pub by: ByOption,
}

/// A link that is asked for.
#[derive(Debug, Args)]
pub struct RequestOptions {
    /// What to link
    #[command(flatten)]
    pub target: LinkTarget,
    /// Have a code also where a consent still holds, so that it holds longer
    #[arg(long)]
    pub renew: bool,
    /// Replace a link to another OS account; projects keep the one that they pinned
    #[arg(long)]
    pub relink: bool,
    /// Who acts
    #[command(flatten)]
    pub by: ByOption,
}

/// Many links.
#[derive(Debug, Args)]
pub struct ImportOptions {
    /// The application
    #[arg(value_name = "APP")]
    pub application: ApplicationName,
    /// The list of accounts and OS accounts
    #[arg(value_name = "FILE.csv", required_unless_present = "nextpyp")]
    pub file: Option<PathBuf>,
    /// A folder of nextPYP's setuid user-processors: the owner of each, for the account of the same name
    #[arg(long, value_name = "DIR", conflicts_with = "file")]
    pub nextpyp: Option<PathBuf>,
    /// Only say what would come of it
    #[arg(long)]
    pub dry_run: bool,
    /// Who acts
    #[command(flatten)]
    pub by: ByOption,
}
