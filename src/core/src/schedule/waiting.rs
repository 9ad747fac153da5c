//! The jobs that wait, account by account.

use std::collections::BTreeMap;

use super::amount::{Amount, Resource};
use super::fair_share::Fading;
use super::{Candidate, Moment, Scheduler};

/// The waiting jobs of one account, first come first.
#[derive(Debug, Default)]
pub(super) struct Line {
    jobs: BTreeMap<u64, Candidate>,
    /// Since when the first has been the first, and how many jobs had been started before that.
    pub first_since: (Moment, u64),
}

impl Line {
    pub fn first(&self) -> Option<&Candidate> {
        self.jobs.first_key_value().map(|(_, candidate)| candidate)
    }

    /// The number of the first, which tells when it came.
    pub fn first_number(&self) -> u64 {
        self.jobs.first_key_value().map_or(u64::MAX, |(number, _)| *number)
    }

    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Candidate> {
        self.jobs.values()
    }
}

impl Scheduler {
    /// A job waits from now on.
    pub(super) fn enqueue(&mut self, account: usize, number: u64, candidate: Candidate) {
        self.waiting.insert(candidate.job.clone(), (account, number));
        self.applications.entry(candidate.owner.application.clone()).or_default().waiting += 1;
        let line = &mut self.accounts[account].line;
        if number < line.first_number() {
            line.first_since = (self.now, self.starts);
        }
        line.jobs.insert(number, candidate);
        self.with_line.insert(account);
    }

    /// The first of an account's line leaves it.
    pub(super) fn leave_line(&mut self, account: usize) -> Option<Candidate> {
        let number = self.accounts[account].line.first_number();
        let candidate = self.remove_waiting(account, number)?;
        self.waiting.remove(&candidate.job);
        Some(candidate)
    }

    pub(super) fn remove_waiting(&mut self, account: usize, number: u64) -> Option<Candidate> {
        let line = &mut self.accounts[account].line;
        let was_first = line.first_number() == number;
        let candidate = line.jobs.remove(&number)?;
        if was_first {
            line.first_since = (self.now, self.starts);
        }
        if line.is_empty() {
            self.with_line.remove(&account);
        }
        if let Some(application) = self.applications.get_mut(&candidate.owner.application) {
            application.waiting -= 1;
        }
        Some(candidate)
    }

    /// Counts in the units of another origin or half-life, and forgets the accounts that have nothing.
    pub(super) fn rebase(&mut self, fading: Fading) {
        let growth = self.fading.growth(self.now);
        let accounts = std::mem::take(&mut self.accounts);
        let mut moved = vec![usize::MAX; accounts.len()];
        for (old, mut account) in accounts.into_iter().enumerate() {
            if account.line.is_empty()
                && account.used == Amount::default()
                && account.share.is_nothing(growth)
            {
                self.account_of.remove(&account.owner);
                continue;
            }
            account.share.rebase(growth);
            moved[old] = self.accounts.len();
            self.account_of.insert(account.owner.clone(), self.accounts.len());
            self.accounts.push(account);
        }
        self.fading = fading;
        self.with_line = self.with_line.iter().map(|old| moved[*old]).collect();
        for (account, _) in self.waiting.values_mut() {
            *account = moved[*account];
        }
        for running in self.running.values_mut() {
            running.account = moved[running.account];
            let cpus = running.candidate.need.of(Resource::Cpus);
            self.accounts[running.account].share.start(cpus, self.fading.growth(running.started));
        }
    }
}
