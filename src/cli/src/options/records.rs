//! Applications and links.

use clap::{Args, Subcommand};
use deputy_core::names::{AccountName, ApplicationName, OsUserName};

/// What to do with applications.
#[derive(Debug, Subcommand)]
pub enum ApplicationCommand {
    /// List the applications
    #[command(after_help = "Example:\n  deputyctl application list")]
    List,
    /// Show one application
    #[command(after_help = "Example:\n  deputyctl application show portal")]
    Show {
        /// The application
        #[arg(value_name = "NAME")]
        application: ApplicationName,
    },
    /// Check an application's file; exit status 1 if it has errors
    #[command(after_help = "Example:\n  deputyctl application check portal --json")]
    Check {
        /// The application
        #[arg(value_name = "NAME")]
        application: ApplicationName,
    },
}

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
    /// Check whether an account can be linked to an OS account; exit status 1 if it cannot
    #[command(after_help = "Example:\n  deputyctl link check portal alice ann")]
    Check(LinkTarget),
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
    #[command(after_help = "Example:\n  deputyctl link request portal alice ann")]
    Request(LinkTarget),
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
    },
    /// Remove an account's link
    #[command(after_help = "Example:\n  deputyctl link remove portal alice --yes")]
    Remove {
        /// The application
        #[arg(value_name = "APP")]
        application: ApplicationName,
        /// The account
        #[arg(value_name = "NAME")]
        account: AccountName,
    },
}
