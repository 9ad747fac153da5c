//! The launcher's folders of jobs that need none any more.
//!
//! A job's folder goes when its end is in the ledger, many at a time and in a quiet moment ([`forget_when_quiet`]). This
//! process or the launcher may die between the two, so what is left over is looked for at each start, and whenever the
//! launcher did not answer ([`tidy_up`]).

use std::time::Duration;

use deputy_core::JobId;
use deputy_core::message::{LauncherReply, LauncherRequest, MAX_FORGET};
use thiserror::Error;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::sleep;

use super::track::{Tracker, told_to_stop};
use crate::launcher::{ANSWER, Launcher, LauncherError};
use crate::store::{Job, JobState, StoreError, Timestamp};

/// How long no job has to have ended before folders are removed. To remove them costs as much as half a launch, and a file
/// system like ext4 that does not hand inodes out again for some minutes looks at each of them whenever it makes one; so it
/// does not happen while jobs are launched one after the other.
const QUIET: Duration = Duration::from_secs(5);

/// How many folders may wait for that; beyond it the oldest go.
const WAIT_AT_MOST: usize = 4096;

/// How long complaints are gathered before it is looked what they are about.
const GATHER: Duration = Duration::from_millis(200);

/// For how long a job that was given up keeps its tombstone, microseconds: longer than a child of the launcher's can
/// take to read a request that was sent before, with everything that it brings.
const TOMBSTONE_US: u64 = 30_000_000;

/// How often it is looked whether tombstones are old enough, while there are any.
const LOOK: Duration = Duration::from_secs(5);

/// How long a launcher that does not answer is given before the next try.
const RETRY: Duration = Duration::from_secs(2);

#[derive(Debug, Error)]
enum Untidy {
    #[error(transparent)]
    Launcher(#[from] LauncherError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What becomes of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Folder {
    Stays,
    StaysForNow,
    Goes,
}

fn folder_of(job: &Job, now: Timestamp) -> Folder {
    match &job.state {
        state if state.is_open() => Folder::Stays,
        JobState::Abandoned { .. } => {
            let ended = job.ended.unwrap_or_default().0;
            if now.0.saturating_sub(ended) < TOMBSTONE_US { Folder::StaysForNow } else { Folder::Goes }
        }
        _ if job.spec.streams.captures() && job.forgotten.is_none() => Folder::Stays,
        _ => Folder::Goes,
    }
}

/// Tells the launcher which jobs' ends are in the ledger: all of them when nothing has ended for a while, or when this
/// process ends; the oldest when there are many.
pub(super) async fn forget_when_quiet(
    launcher: Launcher,
    mut ended: mpsc::Receiver<JobId>,
    mut stopped: watch::Receiver<bool>,
    untidy: std::sync::Arc<Notify>,
) {
    let mut waiting = Vec::new();
    while !waiting.is_empty() || ended.recv_many(&mut waiting, MAX_FORGET).await > 0 {
        let all = tokio::select! {
            received = ended.recv_many(&mut waiting, MAX_FORGET) => received == 0,
            () = sleep(QUIET) => true,
            () = told_to_stop(&mut stopped) => true,
        };
        while !waiting.is_empty() && (all || waiting.len() > WAIT_AT_MOST) {
            let jobs = waiting.drain(..waiting.len().min(MAX_FORGET)).collect();
            if let Err(error) = launcher.ask(&LauncherRequest::Forget { jobs }, &[], ANSWER).await {
                tracing::warn!(%error, "the launcher could not be told which jobs are recorded; trying again later");
                untidy.notify_one();
            }
        }
    }
}

/// Looks for folders that should have gone: at the start, and when it is said that there may be some.
pub(super) async fn tidy_up(tracker: Tracker) {
    let mut stopped = tracker.0.stopping.subscribe();
    let mut again = Some(Duration::ZERO);
    loop {
        let due = async {
            match again {
                Some(pause) => sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            () = tracker.0.untidy.notified() => sleep(GATHER).await,
            () = told_to_stop(&mut stopped) => return,
        }
        again = match look(&tracker).await {
            Ok(0) => None,
            Ok(_) => Some(LOOK),
            Err(error) => {
                tracing::warn!(%error, "it could not be found out which jobs' folders are left over");
                Some(RETRY)
            }
        };
    }
}

/// Removes what is left over. Answers how many folders are to go later.
async fn look(tracker: &Tracker) -> Result<usize, Untidy> {
    let (mut after, mut later) = (None, 0);
    loop {
        let page = tracker.0.launcher.ask(&LauncherRequest::Folders { after }, &[], ANSWER).await?;
        let LauncherReply::Folders { jobs: page } = page else { return Err(LauncherError::Foreign.into()) };
        let Some(last) = page.last().cloned() else { return Ok(later) };
        let now = Timestamp::now();
        let mut going = Vec::new();
        for id in page {
            // A folder of which the ledger knows nothing is not ours to judge.
            let Some(job) = tracker.0.store.job(&id)? else { continue };
            match folder_of(&job, now) {
                Folder::Stays => {}
                Folder::StaysForNow => later += 1,
                Folder::Goes => going.push(id),
            }
        }
        if !going.is_empty() {
            tracing::info!(count = going.len(), "folders of jobs that are recorded were left over");
            tracker.0.launcher.ask(&LauncherRequest::Forget { jobs: going }, &[], ANSWER).await?;
        }
        after = Some(last);
    }
}

#[cfg(test)]
mod tests {
    use super::super::shown::tests::job;
    use super::*;
    use deputy_core::stream::Output;

    #[test]
    fn a_folder_goes_when_nobody_needs_it_and_a_tombstone_no_sooner_than_it_is_safe() {
        let now = Timestamp(1_000_000_000);
        assert_eq!(folder_of(&job(JobState::Running {}), now), Folder::Stays);
        let lost = JobState::Lost { cause: "x".into() };
        let mut ended = job(lost);
        assert_eq!(folder_of(&ended, now), Folder::Goes);
        ended.spec.streams.output = Output::Captured;
        assert_eq!(folder_of(&ended, now), Folder::Stays);
        ended.forgotten = Some(now);
        assert_eq!(folder_of(&ended, now), Folder::Goes);
        let mut given_up = job(JobState::Abandoned { cause: "x".into() });
        for (at, expected) in [
            (now.0 - TOMBSTONE_US, Folder::Goes),
            (now.0 - TOMBSTONE_US + 1, Folder::StaysForNow),
            // The machine's clock was set back.
            (now.0 + 1, Folder::StaysForNow),
        ] {
            given_up.ended = Some(Timestamp(at));
            assert_eq!(folder_of(&given_up, now), expected, "{at}");
        }
    }
}
