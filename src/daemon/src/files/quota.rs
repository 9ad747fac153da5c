//! Space and quotas: what the file agent says, and what the programs that `deputy.toml` names say about the rest.

use std::time::Duration;

use deputy_core::message::{FilePlace, FileReply, FileRequest, LauncherReply, LauncherRequest, QuotaRequest};
use deputy_core::{Denial, space};
use tokio::time::Instant;

use super::agents::{self, Whose};
use crate::daemon::Daemon;
use crate::launcher::LauncherError;
use crate::store::Timestamp;

/// How long a program's answer may take to come, beyond what the program has.
const WAY: Duration = Duration::from_secs(10);

/// One place, and why what a program should have said about it is missing.
pub type Told = (FilePlace, Option<Denial>);

/// Of every root (an empty path), or of one folder.
pub async fn places(
    daemon: &Daemon,
    whose: &Whose,
    path: &[u8],
    deadline: Duration,
) -> Result<Vec<Told>, Denial> {
    let end = Instant::now() + deadline;
    let request = FileRequest::Quota { path: path.to_vec() };
    let places = match daemon.files.call(&daemon.launcher, whose, &request, deadline).await?.reply {
        FileReply::Places(places) => places,
        FileReply::Failed { errno } => return Err(super::refused(errno, "")),
        FileReply::Denied(denial) => return Err(denial),
        _ => return Err(agents::lost()),
    };
    let settings = daemon.directory.snapshot();
    let mut told = Vec::with_capacity(places.len());
    for mut place in places {
        let command = settings.settings.quota.command(&place.filesystem, &place.root);
        let missing = match command {
            None => None,
            Some(command) => {
                let wait = Duration::from_secs(command.seconds.into()) + WAY;
                ask(daemon, whose, &mut place, wait.min(end.saturating_duration_since(Instant::now())))
                    .await
                    .err()
            }
        };
        told.push((place, missing));
    }
    Ok(told)
}

/// Takes what a program says about a place instead of what the kernel said of the same quotas.
async fn ask(daemon: &Daemon, whose: &Whose, place: &mut FilePlace, wait: Duration) -> Result<(), Denial> {
    let request = LauncherRequest::TellQuota(QuotaRequest {
        of: whose.files_request(),
        root: place.root.clone(),
        filesystem: place.filesystem.clone(),
    });
    let LauncherReply::Quotas(told) = daemon.launcher.ask(&request, &[], wait).await? else {
        return Err(LauncherError::Foreign.into());
    };
    place.quotas.retain(|known| told.iter().all(|quota| quota.whose != known.whose));
    place.quotas.extend(told);
    Ok(())
}

/// Whether a job's folder has the room that it says it needs. What cannot be known is a refusal too: the job asked for
/// certainty.
pub async fn check_needs(daemon: &Daemon, whose: &Whose, path: &[u8], needs: u64) -> Result<(), Denial> {
    let now = Timestamp::now().0 / 1_000_000;
    for (place, missing) in places(daemon, whose, path, super::deadline()).await? {
        if let Some(denial) = missing {
            return Err(denial);
        }
        space::check_needs(&place, needs, now)?;
    }
    Ok(())
}
