//! The options of `metrics`.

use std::path::PathBuf;

/// Where the figures go.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  deputyctl metrics --output /run/deputy-metrics/deputy.prom")]
pub struct MetricsOptions {
    /// Write them into this file instead, which is replaced as a whole
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}
