//! The pool of OS accounts.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use deputy_core::names::{AccountName, ApplicationName};

use super::accounts::ByOption;

/// An account and its lease.
#[derive(Debug, Args)]
pub struct PoolTarget {
    /// The application
    #[arg(value_name = "APP")]
    pub application: ApplicationName,
    /// The account
    #[arg(value_name = "NAME")]
    pub account: AccountName,
}

/// How leases and groups are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum PoolFormat {
    /// A JSON array
    #[default]
    Json,
    /// LDIF, with an entry for each account and each group
    Ldif,
}

/// What to do with the pool.
#[derive(Debug, Subcommand)]
pub enum PoolCommand {
    /// List the leases, and what is in quarantine (root only)
    #[command(after_help = "Example:\n  sudo deputyctl pool list")]
    List,
    /// Lease an OS account to an account, and link it
    #[command(after_help = "Example:\n  deputyctl pool lease portal ada")]
    Lease {
        /// For which account
        #[command(flatten)]
        target: PoolTarget,
        /// Replace a link to another OS account; projects keep the one that they pinned
        #[arg(long)]
        relink: bool,
        /// Who acts
        #[command(flatten)]
        by: ByOption,
    },
    /// Take a lease back: lists what is left of it, or puts it into quarantine, and after that frees it (root only)
    #[command(after_help = "Example:\n  sudo deputyctl pool return portal ada")]
    Return {
        /// Whose
        #[command(flatten)]
        target: PoolTarget,
    },
    /// List the OS groups of projects, with those in them (root only)
    #[command(after_help = "Example:\n  sudo deputyctl pool groups")]
    Groups,
    /// Print all leases and groups of projects, for another host or a directory (root only)
    #[command(
        after_help = "Examples:\n  sudo deputyctl pool export > leases.json\n  sudo deputyctl pool export --format ldif \
                      --base dc=example,dc=org > leases.ldif"
    )]
    Export {
        /// How they are written
        #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
        format: PoolFormat,
        /// Below what the LDIF's entries are
        #[arg(long, value_name = "DN", default_value = "dc=deputy")]
        base: String,
    },
    /// Take over the leases and the groups' numbers of another host (root only)
    #[command(after_help = "Example:\n  sudo deputyctl pool import leases.json")]
    Import {
        /// What 'pool export' printed there, in either form
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}
