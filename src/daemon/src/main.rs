//! `deputyd`: the unprivileged daemon that applications talk to, on the system bus.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use deputyd::daemon::Places;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    // Names and values in log lines are escaped where they are logged; lines go to the journal as they are.
    let filter = EnvFilter::try_from_env("DEPUTY_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .without_time()
        .with_writer(std::io::stderr)
        .init();
    if std::env::args_os().len() > 1 {
        eprintln!("deputyd takes no arguments; see deputyd(8)");
        return ExitCode::from(2);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "no runtime");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(deputyd::life::run(Places::default())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "deputyd ends");
            ExitCode::FAILURE
        }
    }
}
