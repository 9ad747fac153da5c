//! A whole Deputy in private namespaces: its own accounts, PAM services, system bus, polkit, launcher and
//! daemon, started in well under two seconds and gone without a trace afterwards.
//!
//! Four roles share one program:
//!
//! | role | module | what it does |
//! | --- | --- | --- |
//! | outer | [`outer`] | makes the namespaces, waits, passes signals and the exit status on |
//! | cleaner | [`cleaner`] | outlives a killed sandbox just long enough to remove its cgroup |
//! | init | [`init`] | process 1 inside: builds the root, starts and supervises the services, runs the command |
//! | exec | [`exec`] | the last step before a program: default signals, own session, no stray descriptors |
#![forbid(unsafe_code)]

pub mod accounts;
pub mod cleaner;
pub mod exec;
pub mod files;
pub mod init;
pub mod mounts;
pub mod options;
pub mod outer;
pub mod root;
pub mod services;
pub mod slurm;
pub mod supervisor;

use std::ffi::OsString;
use std::process::ExitCode;

/// Deputy-sandbox's own failure, as opposed to the command's: the same number that `env` and `timeout` use.
pub const OWN_FAILURE: u8 = 125;

/// The whole program. Which role it plays is told by the first argument.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let role = arguments.get(1).and_then(|argument| argument.to_str()).unwrap_or_default();
    let result = match role {
        exec::ROLE => exec::run(&arguments[2..]),
        cleaner::ROLE => cleaner::run(&arguments[2..]),
        init::ROLE => init::run(&arguments[2..]),
        _ => outer::run(&arguments),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("deputy-sandbox: {error:#}");
            ExitCode::from(OWN_FAILURE)
        }
    }
}
