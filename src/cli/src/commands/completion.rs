//! Scripts that complete the command line.

use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_complete::aot::{Bash, Fish, Zsh, generate};

use crate::failure::Failure;
use crate::options::{Options, Shell};
use crate::output;

/// Prints the script of a shell.
pub fn completion(shell: Shell) -> Result<ExitCode, Failure> {
    let mut command = Options::command();
    let mut script = Vec::new();
    match shell {
        Shell::Bash => generate(Bash, &mut command, "deputyctl", &mut script),
        Shell::Zsh => generate(Zsh, &mut command, "deputyctl", &mut script),
        Shell::Fish => generate(Fish, &mut command, "deputyctl", &mut script),
    }
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
