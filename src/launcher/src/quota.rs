//! Quotas that the kernel does not know, told by a program of root's that runs as the OS account.
//!
//! What it says is the OS account's own affair: whoever has the account could make the program say something else, and
//! deceives nobody but himself by it.

use std::ffi::CString;
use std::fmt::Display;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use deputy_core::denial::{Code, Denial};
use deputy_core::job::JobEnd;
use deputy_core::message::QuotaRequest;
use deputy_core::quota::QuotaUsage;
use deputy_core::quota_settings::{self, MAX_OUTPUT};
use deputy_core::settings::Settings;
use deputy_sys::limits::Limits;
use deputy_wire::Peer;

use crate::agent::decide::{Decision, decide};
use crate::shepherd::environment;
use crate::tool::Tool;

/// What the first program that fits says. It may be asked by whoever could have a file agent for this, and about the roots
/// that such an agent would have.
pub fn told(settings: &Settings, request: &QuotaRequest, peer: Peer) -> Result<Vec<QuotaUsage>, Denial> {
    let QuotaRequest { of, root, filesystem } = request;
    let command = settings.quota.command(filesystem, root).ok_or_else(Denial::not_found)?;
    let decision = decide(settings, of, Some(peer.uid))?;
    if !decision.roots.iter().any(|of_account| of_account.path.as_os_str().as_bytes() == root) {
        return Err(Denial::new(Code::PathOutside, "roots", "this is no root of the account's"));
    }
    let program = command.argv.first().map(String::as_str).unwrap_or_default();
    let (uid, gid) = (decision.credentials.uid, decision.credentials.gid);
    tracing::info!(
        event = "quota_program",
        application = %of.application,
        account = %of.account,
        os_user = %of.os_account.name,
        uid = uid.raw(),
        program,
        root = %String::from_utf8_lossy(root),
        peer_uid = peer.uid,
        peer_pid = peer.pid,
    );
    let argv = command.argv(of.os_account.name.as_str(), uid, gid, root);
    let seconds = Duration::from_secs(command.seconds.into());
    let told = output(Path::new(program), argv, seconds, decision)
        .and_then(|output| quota_settings::parse(&output, uid, gid));
    told.map_err(|why| {
        Denial::new(Code::QuotaCommandFailed, "deputy.toml: quota.commands", format!("{program}: {why}"))
            .remedy("run the program as the OS account, and compare what it writes with deputy.toml(5)")
    })
}

/// What the program writes, if it ends well; else why not, in words.
fn output(program: &Path, argv: Vec<Vec<u8>>, time: Duration, decision: Decision) -> Result<Vec<u8>, String> {
    let words = |error: &dyn Display| error.to_string();
    let tool = Tool {
        program,
        argv: argv.into_iter().map(CString::new).collect::<Result<_, _>>().map_err(|error| words(&error))?,
        environment: environment::build(&decision.entry, &[], std::iter::empty()),
        credentials: decision.credentials,
        input: None,
        umask: 0o077,
        limits: Limits::current().map_err(|error| words(&error))?,
        no_new_privileges: true,
        time,
        most: MAX_OUTPUT,
    };
    let said = tool.run().map_err(|error| words(&error))?;
    match said.end {
        JobEnd::Exited { code: 0 } => Ok(said.output),
        JobEnd::Exited { code } => Err(format!("it ended with status {code}")),
        JobEnd::Signaled { signal, .. } => Err(format!("signal {signal} ended it")),
        JobEnd::LaunchFailed { step, .. } => Err(format!("it could not be started: {step}")),
    }
}
