//! Making Deputy ready: the account and its link, as an administrator and the portal would.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::contender::{PORTAL, USER};

/// The application, as its file is called.
pub const APPLICATION: &str = "bench";

/// Makes the portal's account and links it; the application's rule gives the consent.
pub fn link_the_account() -> Result<()> {
    for arguments in
        [["account", "add", APPLICATION, USER].as_slice(), &["link", "request", APPLICATION, USER, USER]]
    {
        let output = Command::new("runuser")
            .args(["-u", PORTAL, "--", "deputyctl"])
            .args(arguments)
            .output()
            .context("runuser")?;
        ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
