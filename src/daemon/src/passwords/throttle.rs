//! How tries are slowed down, so that passwords cannot be guessed, and nobody is kept out by somebody else's guesses.
//!
//! Wrong tries are counted for an account *and the origin that the application names* (the address of its user). After a
//! few of them each further try waits before it is looked at, longer each time, up to a bound; nothing is ever
//! locked. At most four of one account and origin wait at once, so that trying side by side gains little. Who comes
//! from elsewhere has a count of his own. What one application's users try wrongly in all makes its refusals slower,
//! and nothing else: right passwords are answered at once.
//!
//! Names of accounts that do not exist are counted as all others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use deputy_core::{AccountName, ApplicationName, Code, Denial};

/// So many wrong tries are free.
const FREE: u32 = 5;

/// The longest wait before a try.
const LONGEST: Duration = Duration::from_secs(16);

/// After this long without a wrong try the count is halved.
const HALF_LIFE: Duration = Duration::from_secs(300);

/// The most tries of one account and origin at once.
const AT_ONCE: u32 = 4;

/// The most counts that are remembered; those that are longest ago are forgotten first.
const MAX_COUNTS: usize = 65_536;

/// From so many wrong tries on, an application's refusals take longer.
const MANY: u32 = 300;

/// The least time of a refusal, and after many of them.
const REFUSAL: Duration = Duration::from_secs(1);
const SLOW_REFUSAL: Duration = Duration::from_secs(4);

/// For what tries are counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    application: ApplicationName,
    account: AccountName,
    /// `None`: what is known of times before the start, when origins were not kept.
    origin: Option<String>,
}

#[derive(Debug, Clone, Copy)]
struct Count {
    wrong: u32,
    latest: Instant,
    at_once: u32,
}

impl Count {
    fn new(now: Instant) -> Self {
        Self { wrong: 0, latest: now, at_once: 0 }
    }

    /// The wrong tries that still count.
    fn weight(&self, now: Instant) -> u32 {
        let halvings = now.saturating_duration_since(self.latest).as_secs() / HALF_LIFE.as_secs();
        self.wrong.checked_shr(u32::try_from(halvings).unwrap_or(u32::MAX)).unwrap_or(0)
    }

    fn add(&mut self, now: Instant) {
        self.wrong = self.weight(now).saturating_add(1);
        self.latest = now;
    }
}

#[derive(Debug, Default)]
struct Counts {
    accounts: HashMap<Key, Count>,
    applications: HashMap<ApplicationName, Count>,
}

/// The counts. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Throttle(Arc<Mutex<Counts>>);

/// One try that is being worked on.
#[derive(Debug)]
pub struct Try {
    throttle: Throttle,
    key: Key,
    /// How long it has to wait before it is looked at.
    pub delay: Duration,
}

impl Throttle {
    /// Begins a try.
    pub fn begin(
        &self,
        application: &ApplicationName,
        account: &AccountName,
        origin: Option<String>,
        now: Instant,
    ) -> Result<Try, Denial> {
        let key = Key {
            application: application.clone(),
            account: account.clone(),
            origin: Some(origin.unwrap_or_default()),
        };
        let before = Key { origin: None, ..key.clone() };
        let mut counts = self.counts();
        let before = counts.accounts.get(&before).map_or(0, |count| count.weight(now));
        let count = counts.accounts.entry(key.clone()).or_insert_with(|| Count::new(now));
        if count.at_once >= AT_ONCE {
            return Err(Denial::new(
                Code::TooManyTries,
                "tries of one account and origin",
                "as many tries onto this account as may wait are waiting",
            )
            .remedy(
                "try again in a few seconds; give the option origin, so that others are not in the way",
            ));
        }
        count.at_once += 1;
        let delay = delay(count.weight(now).saturating_add(before));
        counts.forget_some(now);
        drop(counts);
        Ok(Try { throttle: self.clone(), key, delay })
    }

    /// Counts a wrong try of the time before the start.
    pub fn remember(
        &self,
        application: &ApplicationName,
        account: &AccountName,
        ago: Duration,
        now: Instant,
    ) {
        let key = Key { application: application.clone(), account: account.clone(), origin: None };
        let at = now.checked_sub(ago).unwrap_or(now);
        let mut counts = self.counts();
        counts.accounts.entry(key).or_insert_with(|| Count::new(at)).add(at);
        counts.applications.entry(application.clone()).or_insert_with(|| Count::new(at)).add(at);
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn forget_some(&mut self, now: Instant) {
        if self.accounts.len() <= MAX_COUNTS {
            return;
        }
        self.accounts.retain(|_, count| count.at_once > 0 || count.weight(now) > 0);
        if self.accounts.len() > MAX_COUNTS {
            // Still full: so many accounts are being guessed at that the latest half of them has to do.
            let mut times: Vec<_> = self.accounts.values().map(|count| count.latest).collect();
            let middle = times.len() / 2;
            let (_, median, _) = times.select_nth_unstable(middle);
            let median = *median;
            self.accounts.retain(|_, count| count.at_once > 0 || count.latest > median);
        }
    }
}

impl Try {
    /// The password was wrong, or there is none. Gives the least time that the refusal has to take.
    pub fn wrong(self, now: Instant) -> Duration {
        let mut counts = self.throttle.counts();
        if let Some(count) = counts.accounts.get_mut(&self.key) {
            count.add(now);
        }
        let application =
            counts.applications.entry(self.key.application.clone()).or_insert_with(|| Count::new(now));
        application.add(now);
        if application.wrong > MANY { SLOW_REFUSAL } else { REFUSAL }
    }

    /// The password was right: what was tried from this origin before is forgiven.
    pub fn right(self) {
        let mut counts = self.throttle.counts();
        if let Some(count) = counts.accounts.get_mut(&self.key) {
            count.wrong = 0;
        }
        let before = Key { origin: None, ..self.key.clone() };
        counts.accounts.remove(&before);
    }
}

impl Drop for Try {
    fn drop(&mut self) {
        let mut counts = self.throttle.counts();
        if let Some(count) = counts.accounts.get_mut(&self.key) {
            count.at_once = count.at_once.saturating_sub(1);
            if count.at_once == 0 && count.wrong == 0 {
                counts.accounts.remove(&self.key);
            }
        }
    }
}

/// The wait before a try after so many wrong ones.
fn delay(wrong: u32) -> Duration {
    match wrong.checked_sub(FREE) {
        None => Duration::ZERO,
        Some(more) => Duration::from_secs(1 << more.min(4)).min(LONGEST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app() -> ApplicationName {
        "demo".parse().unwrap()
    }

    fn begin(throttle: &Throttle, account: &str, origin: Option<&str>, now: Instant) -> Result<Try, Denial> {
        throttle.begin(&app(), &account.parse().unwrap(), origin.map(str::to_owned), now)
    }

    fn fail(throttle: &Throttle, account: &str, origin: Option<&str>, times: u32, now: Instant) {
        for _ in 0..times {
            begin(throttle, account, origin, now).unwrap().wrong(now);
        }
    }

    #[test]
    fn wrong_tries_make_the_next_ones_wait_up_to_a_bound() {
        let throttle = Throttle::default();
        let now = Instant::now();
        let mut delays = Vec::new();
        for _ in 0..12 {
            let attempt = begin(&throttle, "ann", None, now).unwrap();
            delays.push(attempt.delay.as_secs());
            attempt.wrong(now);
        }
        assert_eq!(delays, [0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 16, 16]);
        let later = now + HALF_LIFE * 2;
        assert_eq!(begin(&throttle, "ann", None, later).unwrap().delay, Duration::ZERO);
    }

    #[test]
    fn nobody_waits_for_what_others_try() {
        let throttle = Throttle::default();
        let now = Instant::now();
        fail(&throttle, "ann", Some("198.51.100.7"), 50, now);
        let waiting: Vec<_> =
            (0..AT_ONCE).map(|_| begin(&throttle, "ann", Some("198.51.100.7"), now).unwrap()).collect();
        assert_eq!(begin(&throttle, "ann", Some("198.51.100.7"), now).unwrap_err().code, Code::TooManyTries);
        // The person herself comes from elsewhere; another account has nothing to do with it.
        assert_eq!(begin(&throttle, "ann", Some("192.0.2.1"), now).unwrap().delay, Duration::ZERO);
        assert_eq!(begin(&throttle, "ben", Some("198.51.100.7"), now).unwrap().delay, Duration::ZERO);
        let other = throttle.begin(&"other".parse().unwrap(), &"ann".parse().unwrap(), None, now).unwrap();
        assert_eq!(other.delay, Duration::ZERO);
        drop(waiting);
        assert_eq!(begin(&throttle, "ann", Some("198.51.100.7"), now).unwrap().delay, LONGEST);
    }

    #[test]
    fn a_right_password_is_forgiven_what_was_before() {
        let throttle = Throttle::default();
        let now = Instant::now();
        fail(&throttle, "ann", None, 7, now);
        throttle.remember(&app(), &"ann".parse().unwrap(), Duration::ZERO, now);
        begin(&throttle, "ann", None, now).unwrap().right();
        assert_eq!(begin(&throttle, "ann", None, now).unwrap().delay, Duration::ZERO);
        assert!(throttle.counts().accounts.is_empty());
    }

    #[test]
    fn what_was_tried_before_the_start_counts_for_every_origin() {
        let throttle = Throttle::default();
        let now = Instant::now();
        for _ in 0..6 {
            throttle.remember(&app(), &"ann".parse().unwrap(), Duration::from_secs(10), now);
        }
        assert_eq!(begin(&throttle, "ann", Some("192.0.2.1"), now).unwrap().delay.as_secs(), 2);
    }

    #[test]
    fn many_wrong_tries_of_an_application_make_its_refusals_slower() {
        let throttle = Throttle::default();
        let now = Instant::now();
        let mut least = Duration::ZERO;
        for number in 0..=MANY {
            least = begin(&throttle, &format!("a{number}"), None, now).unwrap().wrong(now);
            if number < MANY {
                assert_eq!(least, REFUSAL);
            }
        }
        assert_eq!(least, SLOW_REFUSAL);
        // A right password of whomever is not kept waiting.
        assert_eq!(begin(&throttle, "ann", None, now).unwrap().delay, Duration::ZERO);
    }

    #[test]
    fn memory_is_bounded() {
        let throttle = Throttle::default();
        let now = Instant::now();
        for number in 0..u32::try_from(MAX_COUNTS).unwrap() + 10 {
            let at = now + Duration::from_millis(u64::from(number));
            begin(&throttle, &format!("a{number}"), None, at).unwrap().wrong(at);
        }
        let counts = throttle.counts();
        assert!(counts.accounts.len() <= MAX_COUNTS);
        assert!(counts.accounts.len() > MAX_COUNTS / 3);
    }
}
