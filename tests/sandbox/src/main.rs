//! `deputy-sandbox`: see the library beside it, and `deputy-sandbox --help`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    deputy_sandbox::main()
}
