//! Deputy's own records.

use std::path::PathBuf;

use clap::Subcommand;

/// What to do with Deputy's records. The work is done by `deputy-store`, as the user `deputy`.
#[derive(Debug, Clone, Subcommand)]
pub enum StoreCommand {
    /// Verify the ledger's chain of records from beginning to end; deputyd may run
    #[command(after_help = "Example:\n  sudo deputyctl store verify")]
    Verify,
    /// Build the view (the indexes) again from the ledger; deputyd must not run
    #[command(after_help = "Example:\n  sudo deputyctl store rebuild")]
    Rebuild,
    /// Write all records to standard output, as JSON lines; deputyd may run
    #[command(after_help = "Examples:
  sudo deputyctl store export > deputy.jsonl
  sudo deputyctl store export --with-passwords /root/deputy-with-passwords.jsonl")]
    Export {
        /// Write into this new file instead, which only root can read, and the hashes of accounts' own passwords with the
        /// records: who has them can try passwords at leisure
        #[arg(long, value_name = "FILE")]
        with_passwords: Option<PathBuf>,
    },
    /// Read what 'export' wrote from standard input into an empty store; deputyd must not run. Never touches consent
    #[command(after_help = "Example:\n  sudo deputyctl store import --yes < deputy.jsonl")]
    Import,
}
