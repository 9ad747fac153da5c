//! The queue.

use clap::Args;
use deputy_core::names::ApplicationName;

/// What to show of the queue.
#[derive(Debug, Args)]
#[command(
    after_help = "An application's service user sees his application's own jobs; an administrator sees all.\n\nExamples:\n  \
                  deputyctl queue\n  deputyctl queue --app portal --json"
)]
pub struct QueueOptions {
    /// Only this application
    #[arg(long = "app", value_name = "APPLICATION")]
    pub application: Option<ApplicationName>,
}
