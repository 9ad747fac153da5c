//! What was proved a moment ago: a ticket opens one session, so that nobody who may ask about accounts can open a
//! session for one that did not prove who it is.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use deputy_core::{AccountName, ApplicationName, Denial, Nonce};

use crate::random;

/// For how long a ticket is good: a person may be asked for a new password in between.
const LIFETIME: Duration = Duration::from_secs(300);

/// The most tickets at once; the oldest go first.
const MAX: usize = 4096;

/// Who proved what to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proved {
    /// The uid that asked.
    pub uid: u32,
    /// The application.
    pub application: ApplicationName,
    /// The account.
    pub account: AccountName,
    /// What the password is called.
    pub generation: String,
}

/// The tickets.
#[derive(Default)]
pub struct Tickets(Mutex<HashMap<String, (Instant, Proved)>>);

impl Tickets {
    /// A ticket.
    pub fn give(&self, proved: Proved) -> Result<String, Denial> {
        let ticket = Nonce::from_random(random::bytes()?).as_str().to_owned();
        let now = Instant::now();
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|_, (given, _)| now.saturating_duration_since(*given) < LIFETIME);
        if held.len() >= MAX {
            let oldest = held.iter().min_by_key(|(_, (given, _))| *given).map(|(ticket, _)| ticket.clone());
            oldest.and_then(|ticket| held.remove(&ticket));
        }
        held.insert(ticket.clone(), (now, proved));
        Ok(ticket)
    }

    /// What a ticket of this uid's proved, once; nothing if it is another's, about something else, or too old.
    pub fn take(
        &self,
        ticket: &str,
        uid: u32,
        application: &ApplicationName,
        account: &AccountName,
    ) -> Option<Proved> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (given, proved) = held.remove(ticket)?;
        drop(held);
        let is_it = proved.uid == uid && proved.application == *application && proved.account == *account;
        (is_it && given.elapsed() < LIFETIME).then_some(proved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_good_once_for_who_got_it() {
        let tickets = Tickets::default();
        let proved = Proved {
            uid: 7,
            application: "demo".parse().unwrap(),
            account: "ann".parse().unwrap(),
            generation: "g".into(),
        };
        let (demo, ann) = (proved.application.clone(), proved.account.clone());
        let (other, ben) = ("other".parse().unwrap(), "ben".parse().unwrap());
        for (uid, application, account) in [(8, &demo, &ann), (7, &other, &ann), (7, &demo, &ben)] {
            let ticket = tickets.give(proved.clone()).unwrap();
            assert_eq!(tickets.take(&ticket, uid, application, account), None);
            assert_eq!(tickets.take(&ticket, 7, &demo, &ann), None, "it was used up");
        }
        let ticket = tickets.give(proved.clone()).unwrap();
        assert_eq!(tickets.take("", 7, &demo, &ann), None);
        assert_eq!(tickets.take(&ticket, 7, &demo, &ann), Some(proved.clone()));
        assert_eq!(tickets.take(&ticket, 7, &demo, &ann), None);
        for _ in 0..MAX + 10 {
            tickets.give(proved.clone()).unwrap();
        }
        assert_eq!(tickets.0.lock().unwrap().len(), MAX);
    }
}
