//! `deputy-launcher`: the only long-lived root process of Deputy.
//!
//! It accepts, checks the peer, forks, and knows nothing else. Each request is read, decided and carried out by a
//! child of its own, from root-owned files, the name service and consent alone:
//!
//! | child | module |
//! | --- | --- |
//! | conversation: PAM with a person, in a fresh address space | [`conversation`] |
//! | shepherd: one job, from decision to exit record | [`shepherd`] |
//! | file agent: files as the user, for as long as they are used | [`agent`] |
//! | examiner: what speaks for and against a link | [`examiner`] |
//! | the owner's word on links onto himself | [`owner`] |
//! | leases of the pool, and the name service's map | [`pool`] |
//! | trees that go to another OS account | [`rebind`] |
//! | everything else: consents, attaching, forgetting | [`request`] |
#![forbid(unsafe_code)]

mod agent;
mod consents;
mod conversation;
mod durable;
mod examiner;
mod holders;
mod journal;
mod listen;
mod modules;
mod obstacle;
mod offers;
mod owner;
mod pam;
mod paths;
mod pool;
mod quota;
mod rebind;
mod request;
mod roots;
mod rules;
mod serve;
mod shepherd;
mod tool;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let name = arguments.next();
    let arguments: Vec<_> = arguments.collect();
    // What a person who starts it by hand wants to know, before anything needs root.
    match arguments.iter().map(|argument| argument.to_str()).collect::<Vec<_>>()[..] {
        [] => {}
        [Some("--version")] => {
            println!("deputy-launcher {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        [Some("--help")] => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("deputy-launcher takes no arguments; see deputy-launcher --help");
            return ExitCode::from(2);
        }
    }
    journal::start();
    if name.is_some_and(|name| name.as_encoded_bytes() == conversation::PROGRAM_NAME.to_bytes()) {
        conversation::main();
    }
    match serve::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(event = "launcher_failed", error = %error);
            ExitCode::FAILURE
        }
    }
}

const HELP: &str = "\
Usage: deputy-launcher

The root process of Deputy. It answers on /run/deputy/launcher.sock (for deputyd and
root) and /run/deputy/owner.sock (for everybody, about themselves), and forks one child
for each request. systemd starts it; it takes no arguments and reads no environment but
that of socket activation.

  --help     print this
  --version  print the version

See deputyctl(1) for what people use.";
