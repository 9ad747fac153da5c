//! Confirmation of what cannot be undone.

use std::io::{self, IsTerminal as _, Write as _};

use deputy_core::denial::Code;

use crate::escape;
use crate::failure::Failure;

/// Asks whether to go ahead, where there is a person at a terminal to ask; `yes` answers beforehand.
pub fn confirm(yes: bool, question: &str) -> Result<(), Failure> {
    if yes || !io::stdin().is_terminal() {
        return Ok(());
    }
    write!(io::stderr().lock(), "{} [y/N] ", escape::lines(question))?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    Err(Failure::new(Code::InvalidArgument, "not confirmed; nothing was changed")
        .remedy("answer y, or give --yes"))
}
