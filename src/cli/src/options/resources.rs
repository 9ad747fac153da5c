//! Resources.

use clap::Args;
use deputy_core::names::{AccountName, ApplicationName};

/// What to show of them.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  deputyctl resources\n  deputyctl resources --app portal --account ada\n  deputyctl resources --json"
)]
pub struct ResourcesOptions {
    /// The application; its service user need not name it
    #[arg(long = "app", value_name = "APPLICATION")]
    pub application: Option<ApplicationName>,
    /// Show also what Slurm grants this account's OS account
    #[arg(long, value_name = "NAME")]
    pub account: Option<AccountName>,
}
