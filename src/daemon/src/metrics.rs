//! `Manager.Metrics`: figures for whoever watches the machine. Counters begin anew with each start of the daemon.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use deputy_core::job::JobEnd;
use deputy_core::metrics::{self, Family};
use deputy_core::{Code, Denial};

use crate::authority::{About, Call, Granted};
use crate::daemon::Daemon;
use crate::jobs::shown::state_of;
use crate::manager::launcher_answers;
use crate::store::{JobState, PageRequest, Store, StoreError};

/// The records that are read at once.
const PAGE: usize = 1000;

/// What is counted while the daemon runs.
#[derive(Debug, Default)]
pub struct Counters {
    launches: AtomicU64,
    ends: Mutex<BTreeMap<&'static str, u64>>,
    refusals: Mutex<BTreeMap<&'static str, u64>>,
}

impl Counters {
    /// A job's program was started.
    pub fn launched(&self) {
        self.launches.fetch_add(1, Ordering::Relaxed);
    }

    /// A job is over.
    pub fn ended(&self, state: &JobState) {
        if let Some(how) = how_ended(state) {
            *locked(&self.ends).entry(how).or_default() += 1;
        }
    }

    /// A call was refused.
    pub fn refused(&self, code: Code) {
        *locked(&self.refusals).entry(code.as_str()).or_default() += 1;
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What became of a job, in one word; none while it is not over.
fn how_ended(state: &JobState) -> Option<&'static str> {
    Some(match state {
        JobState::Queued {} | JobState::Starting {} | JobState::Running {} | JobState::Ending { .. } => {
            return None;
        }
        JobState::Ended { end: JobEnd::Exited { code: 0 }, .. } => "exited",
        JobState::Ended { end: JobEnd::Exited { .. }, .. } => "failed",
        JobState::Ended { end: JobEnd::Signaled { .. }, .. } => "signaled",
        JobState::Ended { end: JobEnd::LaunchFailed { .. }, .. } => "launch-failed",
        JobState::Abandoned { .. } => "abandoned",
        JobState::Lost { .. } => "lost",
    })
}

/// A figure: its name, its labels, its value.
pub type Figure = (String, BTreeMap<String, String>, u64);

fn figure(family: Family, labels: &[(&str, &str)], value: u64) -> Figure {
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    (family.name.to_owned(), labels.collect(), value)
}

/// `Manager.Metrics`.
pub async fn metrics(call: Call, (): ()) -> Result<Granted<(Vec<Figure>,)>, Denial> {
    let grant = call.authorize_any(About::default()).await?;
    let daemon = &call.daemon;
    let mut figures = vec![figure(metrics::INFO, &[("version", env!("CARGO_PKG_VERSION"))], 1)];
    let names = grant.snapshot.names();
    let valid = names.iter().filter(|name| matches!(grant.snapshot.get(name), Some(Ok(_)))).count();
    figures.push(figure(metrics::APPLICATIONS, &[("valid", "yes")], valid as u64));
    figures.push(figure(metrics::APPLICATIONS, &[("valid", "no")], (names.len() - valid) as u64));
    figures.extend(recorded(&daemon.store).await?);
    figures.extend(of_jobs(daemon));
    let waiting = daemon.tracker.queue().waiting(&grant.snapshot);
    figures.push(figure(metrics::WAITING, &[], waiting as u64));
    figures.extend(counted(&daemon.counters));
    figures.push(figure(metrics::LEDGER_RECORDS, &[], daemon.store.last_number()));
    figures.push(figure(metrics::LEDGER_BYTES, &[], daemon.store.ledger_bytes()?));
    let up = launcher_answers(daemon).await == "answers";
    figures.push(figure(metrics::LAUNCHER, &[], u64::from(up)));
    Ok(grant.answer((figures,)))
}

/// What is counted anew from the records: a page at a time, and not by the threads that answer calls.
async fn recorded(store: &Store) -> Result<Vec<Figure>, Denial> {
    let store = store.clone();
    let counted = tokio::task::spawn_blocking(move || -> Result<Vec<Figure>, StoreError> {
        let accounts = tally(
            |page| store.all_accounts(page).map(|page| (page.items, page.next)),
            |account| (account.application.to_string(), account.status.as_str()),
        )?;
        let sessions = tally(
            |page| store.all_sessions(page).map(|page| (page.items, page.next)),
            |session| (session.application.to_string(), ""),
        )?;
        let accounts = accounts.iter().map(|((application, status), count)| {
            figure(metrics::ACCOUNTS, &[("application", application), ("status", status)], *count)
        });
        let sessions = sessions.iter().map(|((application, _), count)| {
            figure(metrics::SESSIONS, &[("application", application)], *count)
        });
        Ok(accounts.chain(sessions).collect())
    });
    Ok(counted.await.map_err(|error| Denial::internal(format!("the records: {error}")))??)
}

type Key = (String, &'static str);

fn tally<T>(
    read: impl Fn(&PageRequest) -> Result<(Vec<T>, Option<crate::store::Cursor>), StoreError>,
    key: impl Fn(&T) -> Key,
) -> Result<BTreeMap<Key, u64>, StoreError> {
    let mut counts = BTreeMap::new();
    let mut request = PageRequest::first(PAGE);
    loop {
        let (items, next) = read(&request)?;
        for item in &items {
            *counts.entry(key(item)).or_default() += 1;
        }
        match next {
            Some(next) => request.after = Some(next),
            None => return Ok(counts),
        }
    }
}

fn of_jobs(daemon: &Arc<Daemon>) -> Vec<Figure> {
    let mut counts: BTreeMap<Key, u64> = BTreeMap::new();
    daemon.tracker.each(|job| {
        if job.state.is_open() {
            *counts.entry((job.application.to_string(), state_of(job))).or_default() += 1;
        }
    });
    let shown = counts.iter().map(|((application, state), count)| {
        figure(metrics::JOBS, &[("application", application), ("state", state)], *count)
    });
    shown.collect()
}

fn counted(counters: &Counters) -> Vec<Figure> {
    let mut figures = vec![figure(metrics::LAUNCHES, &[], counters.launches.load(Ordering::Relaxed))];
    // What did not happen yet is 0: who watches for the first one needs a figure that rises.
    let mut ends: BTreeMap<_, _> =
        ["exited", "failed", "signaled", "launch-failed", "abandoned", "lost"].map(|how| (how, 0)).into();
    ends.extend(locked(&counters.ends).iter().map(|(how, count)| (*how, *count)));
    figures.extend(ends.iter().map(|(how, count)| figure(metrics::ENDS, &[("end", how)], *count)));
    let refusals = locked(&counters.refusals);
    figures.extend(refusals.iter().map(|(code, count)| figure(metrics::REFUSALS, &[("code", code)], *count)));
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_is_counted_once_and_only_when_it_is_over() {
        let counters = Counters::default();
        counters.ended(&JobState::Running {});
        counters.ended(&JobState::Lost { cause: "x".into() });
        counters.ended(&JobState::Lost { cause: "y".into() });
        counters.refused(Code::NotFound);
        counters.launched();
        let figures = counted(&counters);
        let value = |name: &str, label: &str| {
            let found = figures
                .iter()
                .find(|(found, labels, _)| found == name && labels.values().all(|value| value == label));
            found.map(|(_, _, value)| *value)
        };
        assert_eq!(value("deputy_launches", ""), Some(1));
        assert_eq!(value("deputy_job_ends", "lost"), Some(2));
        assert_eq!(value("deputy_job_ends", "exited"), Some(0));
        assert_eq!(value("deputy_refusals", "NotFound"), Some(1));
        assert_eq!(value("deputy_refusals", "Denied"), None);
    }
}
