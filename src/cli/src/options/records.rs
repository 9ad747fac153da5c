//! Applications.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use deputy_core::names::ApplicationName;

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
    /// Check a file and put it in place as an application's (root only)
    #[command(
        after_help = "Examples:\n  deputyctl application install portal.toml --dry-run\n  sudo deputyctl application \
                      install portal.toml --replace"
    )]
    Install(InstallOptions),
    /// Check an application's file; exit status 1 if it has errors
    #[command(after_help = "Example:\n  deputyctl application check portal --json")]
    Check {
        /// The application
        #[arg(value_name = "NAME")]
        application: ApplicationName,
    },
}

/// An application's file to be installed.
#[derive(Debug, Args)]
pub struct InstallOptions {
    /// The file; its name is the application's, with .toml
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The application's name, if it is not the file's
    #[arg(long)]
    pub name: Option<ApplicationName>,
    /// Put it in the place of the file that is installed
    #[arg(long)]
    pub replace: bool,
    /// Only check it
    #[arg(long)]
    pub dry_run: bool,
}
