//! `.Alerts`: quotas that are nearly used up, told before a write fails.
//!
//! Who has run a job or touched a file is looked at a little later, one after the other: nobody is looked at who does
//! nothing, and a look costs one file agent. Every `Files.Quota` is a look too. A threshold that is crossed is recorded
//! once, and then told; it is over when the use has gone well below it, so that what goes up and down around it is no
//! storm.

mod calls;

pub use calls::{list, subscribe, unsubscribe};

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, PoisonError, Weak};
use std::time::Duration;

use deputy_core::Denial;
use deputy_core::quota::{Amount, Whose as Counted};
use tokio::time::Instant;

use crate::daemon::Daemon;
use crate::files::Whose;
use crate::files::quota::{self, Told};
use crate::jobs::signals::Subscribers;
use crate::store::{Actor, Alert, Argument, Change, Committed, JobState, PageRequest, QuotaOf, StoreError};

/// The most that wait to be looked at. Who uses something later is looked at then.
const MAX_WAITING: usize = 4096;

/// How often it is looked whether it is time for a look: the least that `check_seconds` can be.
const STEP: Duration = Duration::from_secs(10);

/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many percent below its threshold the use has to be for an alert to be over.
const BELOW: u64 = 5;

/// The most alerts of one account that are looked at.
const MAX_ALERTS: usize = 1000;

/// Who is to be looked at, and who hears of what is found.
pub struct Alerts {
    /// The connections that hear of alerts.
    pub subscribers: Subscribers,
    waiting: Mutex<HashSet<Whose>>,
}

impl Alerts {
    /// Nobody yet.
    pub fn new(daemon: Weak<Daemon>) -> Self {
        Self {
            subscribers: Subscribers::new(daemon, "connections that hear of alerts"),
            waiting: Mutex::default(),
        }
    }

    /// Somebody uses files, or runs a job.
    pub fn note(&self, whose: &Whose) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < MAX_WAITING && !waiting.contains(whose) {
            // The umask is the agent's: for a look it makes no difference.
            waiting.insert(Whose { umask: None, ..whose.clone() });
        }
    }

    fn take(&self) -> HashSet<Whose> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Looks, as long as there is a daemon.
pub async fn watch(daemon: Weak<Daemon>) {
    let mut ran: HashSet<Whose> = HashSet::new();
    let mut latest = Instant::now();
    loop {
        tokio::time::sleep(STEP).await;
        let Some(daemon) = daemon.upgrade() else { return };
        // Root may have changed it meanwhile.
        let pause = daemon.directory.snapshot().settings.quota.check_seconds;
        if latest.elapsed() < Duration::from_secs(pause.into()) {
            continue;
        }
        latest = Instant::now();
        let mut wanted = daemon.alerts.take();
        // Those whose jobs run, and those whose jobs ran the time before: these have ended meanwhile.
        let running = running(&daemon);
        wanted.extend(std::mem::replace(&mut ran, running.clone()));
        wanted.extend(running);
        for whose in wanted {
            match quota::places(&daemon, &whose, b"", PATIENCE).await {
                Ok(told) => observe(&daemon, &whose, &told).await,
                // An account without roots, say, has none.
                Err(denial) => tracing::debug!(account = %whose.account, why = %denial.message, "no quotas"),
            }
        }
    }
}

fn running(daemon: &Daemon) -> HashSet<Whose> {
    let mut found = HashSet::new();
    daemon.tracker.each(|job| {
        if found.len() < MAX_WAITING && !matches!(job.state, JobState::Queued {}) {
            found.insert(Whose {
                application: job.application.clone(),
                account: job.account.clone(),
                os: job.os.clone(),
                umask: None,
                project_group: None,
            });
        }
    });
    found
}

/// What an alert is about.
type Key = (Argument, Counted, QuotaOf);

/// Compares what was told with the alerts that there are, records what is different, and tells those who asked.
pub async fn observe(daemon: &Daemon, whose: &Whose, told: &[Told]) {
    if let Err(denial) = try_to_observe(daemon, whose, told).await {
        tracing::warn!(account = %whose.account, why = %denial.message, "alerts could not be looked at");
    }
}

async fn try_to_observe(daemon: &Daemon, whose: &Whose, told: &[Told]) -> Result<(), Denial> {
    let page = PageRequest::first(MAX_ALERTS);
    let mut known = daemon.store.alerts(&whose.application, Some(&whose.account), &page)?.items;
    // In a project the account may be another OS account, of whose quotas this look says nothing.
    known.retain(|alert| alert.os == whose.os);
    let thresholds = daemon.directory.snapshot().settings.quota.thresholds.clone();
    for (key, (threshold, used, limit)) in changes(&known, told, &thresholds) {
        let (place, counted, of) = key;
        let change = Change::QuotaAlert {
            application: whose.application.clone(),
            account: whose.account.clone(),
            os: whose.os.clone(),
            place: place.clone(),
            whose: counted,
            of,
            threshold,
            used,
            limit,
        };
        match daemon.store.commit(change, Actor::daemon("look at quotas")).await {
            Ok(Committed { at, .. }) => {
                let alert = Alert {
                    application: whose.application.clone(),
                    account: whose.account.clone(),
                    os: whose.os.clone(),
                    place,
                    whose: counted,
                    of,
                    threshold,
                    used,
                    limit,
                    since: at,
                };
                calls::tell(&daemon.alerts.subscribers, &alert);
            }
            // Somebody else looked at the same time, or the account has gone.
            Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The alerts that have to change: to which threshold (0: none any more), how much is used, of how much.
fn changes(known: &[Alert], told: &[Told], thresholds: &[u8]) -> BTreeMap<Key, (u8, u64, u64)> {
    let mut changes = BTreeMap::new();
    let mut seen: HashSet<(u64, Counted)> = HashSet::new();
    let mut present: HashSet<Key> = HashSet::new();
    let standing = |key: &Key| {
        let same = |alert: &&Alert| (&alert.place, alert.whose, alert.of) == (&key.0, key.1, key.2);
        known.iter().find(same).map_or(0, |alert| alert.threshold)
    };
    for (place, _) in told {
        for quota in &place.quotas {
            // Two roots of one file system have one quota.
            if !seen.insert((place.device, quota.whose)) {
                continue;
            }
            for (of, amount) in [(QuotaOf::Space, &quota.space), (QuotaOf::Files, &quota.files)] {
                let key = (Argument(place.root.clone()), quota.whose, of);
                let now = standing(&key);
                present.insert(key.clone());
                let next = threshold(amount, now, thresholds);
                if next != now {
                    changes.insert(key, (next, amount.used, amount.limit().unwrap_or_default()));
                }
            }
        }
    }
    // A quota that is no more has no alert; of a place that could not be looked at nothing is known.
    let looked_at =
        |place: &Argument| told.iter().any(|(told, missing)| told.root == place.0 && missing.is_none());
    for alert in known.iter().filter(|alert| looked_at(&alert.place)) {
        let key = (alert.place.clone(), alert.whose, alert.of);
        if !present.contains(&key) {
            changes.insert(key, (0, 0, 0));
        }
    }
    changes
}

/// The threshold that counts, of one that counted before.
fn threshold(amount: &Amount, before: u8, thresholds: &[u8]) -> u8 {
    let percent = amount.percent().unwrap_or_default();
    let highest = |percent: u64| {
        thresholds.iter().copied().filter(|threshold| u64::from(*threshold) <= percent).max().unwrap_or(0)
    };
    let reached = highest(percent);
    // What went down a little stays where it was.
    if reached < before { highest(percent + BELOW).min(before) } else { reached }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Timestamp;
    use deputy_core::message::FilePlace;
    use deputy_core::quota::QuotaUsage;
    use deputy_core::{OsGid, OsUid};

    fn user() -> Counted {
        Counted::User(OsUid::new(1001).unwrap())
    }

    fn place(root: &str, device: u64, quotas: &[(Counted, u64)]) -> Told {
        let quota = |(whose, used): &(Counted, u64)| QuotaUsage {
            whose: *whose,
            space: Amount { used: *used, hard: Some(1000), ..Amount::default() },
            files: Amount::default(),
        };
        let place = FilePlace {
            path: root.into(),
            root: root.into(),
            filesystem: "xfs".into(),
            device,
            writable: true,
            size: 0,
            free: 0,
            files: 0,
            files_free: 0,
            quotas: quotas.iter().map(quota).collect(),
        };
        (place, None)
    }

    fn standing(root: &str, whose: Counted, threshold: u8) -> Alert {
        Alert {
            application: "demo".parse().unwrap(),
            account: "ada".parse().unwrap(),
            os: crate::tests::harness::ann(),
            place: root.into(),
            whose,
            of: QuotaOf::Space,
            threshold,
            used: 0,
            limit: 1000,
            since: Timestamp(0),
        }
    }

    #[test]
    fn a_threshold_is_crossed_once_and_over_well_below_it() {
        let amount = |used| Amount { used, hard: Some(1000), ..Amount::default() };
        let mut now = 0;
        let mut told = Vec::new();
        for used in [0, 790, 800, 810, 799, 760, 800, 949, 950, 1000, 949, 901, 899, 750, 749, 751, 799, 2000]
        {
            let next = threshold(&amount(used), now, &[80, 95]);
            if next != now {
                told.push((used, next));
            }
            now = next;
        }
        assert_eq!(told, [(800, 80), (950, 95), (899, 80), (749, 0), (2000, 95)]);
        // Without a limit there is nothing to be near.
        assert_eq!(threshold(&Amount { used: 5, ..Amount::default() }, 95, &[80, 95]), 0);
        assert_eq!(threshold(&amount(1000), 0, &[]), 0);
    }

    #[test]
    fn one_quota_of_two_roots_is_one_alert() {
        let told = [place("/data/a", 7, &[(user(), 900)]), place("/data/b", 7, &[(user(), 900)])];
        let found = changes(&[], &told, &[80, 95]);
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            [(("/data/a".into(), user(), QuotaOf::Space), (80, 900, 1000))]
        );
        let told = [place("/data/a", 7, &[(user(), 900)]), place("/data/b", 8, &[(user(), 960)])];
        assert_eq!(changes(&[], &told, &[80, 95]).len(), 2);
        let known = [standing("/data/a", user(), 80), standing("/data/b", user(), 95)];
        assert!(changes(&known, &told, &[80, 95]).is_empty());
    }

    #[test]
    fn what_could_not_be_looked_at_stays_and_what_has_gone_is_over() {
        let group = Counted::Group(OsGid::new(7).unwrap());
        let known = [standing("/data/a", user(), 80), standing("/data/a", group, 95)];
        assert!(changes(&known, &[], &[80, 95]).is_empty());
        let (place, _) = place("/data/a", 7, &[(user(), 900)]);
        let unknown = (place.clone(), Some(Denial::internal("the program failed")));
        assert!(changes(&known, &[unknown], &[80, 95]).is_empty());
        let found = changes(&known, &[(place, None)], &[80, 95]);
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            [(("/data/a".into(), group, QuotaOf::Space), (0, 0, 0))]
        );
    }
}
