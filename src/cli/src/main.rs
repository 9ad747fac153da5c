//! `deputyctl`: the command line of Deputy, an ordinary client of its D-Bus interface (and of the launcher, for what
//! only root or an OS account's owner may do).
#![forbid(unsafe_code)]

mod answers;
mod bus;
mod commands;
mod confirm;
mod converse;
mod escape;
mod failure;
mod launcher;
#[cfg(test)]
mod manual;
mod memory;
mod options;
mod output;
mod signals;
mod table;
mod terminal;
mod time;
mod value;

use std::io::Write as _;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, FromArgMatches as _};

use options::Options;

fn main() -> ExitCode {
    let options = match parse() {
        Ok(options) => options,
        Err(status) => return status,
    };
    let with_rule = options.global.verbose || options.global.json;
    match commands::execute(options) {
        Ok(status) => status,
        Err(failure) => {
            // Where standard error fails too, the exit status is all that is left to say.
            let _ = std::io::stderr().lock().write_all(failure.report(with_rule).as_bytes());
            ExitCode::from(failure.status)
        }
    }
}

/// The command line, or the exit status after help, version or the error have been printed. A wrong `run` exits with
/// 125: 2 could be the job's own.
fn parse() -> Result<Options, ExitCode> {
    let mut command = Options::command();
    let words: Vec<_> = std::env::args_os().collect();
    if words.iter().any(|word| word == "--color=never")
        || words.windows(2).any(|two| two == ["--color", "never"])
    {
        command = command.color(clap::ColorChoice::Never);
    }
    command.try_get_matches().and_then(|matches| Options::from_arg_matches(&matches)).map_err(|error| {
        // Whether it could be printed or not, the exit status says what it was.
        let _ = error.print();
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
            _ if options::asks_to_run(std::env::args_os().skip(1)) => ExitCode::from(failure::FAILED),
            _ => ExitCode::from(2),
        }
    })
}
