//! `deputyd`: the unprivileged daemon that applications talk to, on the system bus.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use deputyd::daemon::Places;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match arguments.iter().map(|argument| argument.to_str()).collect::<Vec<_>>()[..] {
        [] => {}
        [Some("--help")] => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        [Some("--version")] => {
            println!("deputyd {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("deputyd takes no arguments; see deputyd --help");
            return ExitCode::from(2);
        }
    }
    deputyd::journal::start();
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

const HELP: &str = "\
Usage: deputyd

The daemon of Deputy. It answers on the system bus as org.deputy.Deputy1, and at
/run/deputyd/query.sock for pam_deputy.so. systemd starts it, as the user deputy; it
takes no arguments, and reads no file but those in /etc/deputy and its own.

  --help     print this
  --version  print the version

See deputyctl(1) for what people use.";
