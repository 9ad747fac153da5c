//! `deputyd`: the unprivileged daemon that applications talk to, on the system bus.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use deputyd::daemon::Places;

fn main() -> ExitCode {
    deputyd::journal::start();
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
