//! Deputy's own records.

use clap::Subcommand;

/// What to do with Deputy's records. The work is done by `deputy-store`, as the user `deputy`.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum StoreCommand {
    /// Verify the ledger's chain of records from beginning to end; deputyd may run
    #[command(after_help = "Example:\n  sudo deputyctl store verify")]
    Verify,
    /// Build the view (the indexes) again from the ledger; deputyd must not run
    #[command(after_help = "Example:\n  sudo deputyctl store rebuild")]
    Rebuild,
    /// Write all records to standard output, as JSON lines; deputyd may run
    #[command(after_help = "Example:\n  sudo deputyctl store export > deputy.jsonl")]
    Export,
    /// Read what 'export' wrote from standard input into an empty store; deputyd must not run. Never touches consent
    #[command(after_help = "Example:\n  sudo deputyctl store import --yes < deputy.jsonl")]
    Import,
}
