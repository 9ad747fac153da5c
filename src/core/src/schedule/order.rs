//! In which order accounts are looked at.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use super::{DUE_HALF_LIVES, DUE_STARTS, Moment, Scheduler};

/// Where an account stands; the least is the first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rank {
    /// Since when its first job has been due, if it is.
    due: Option<Moment>,
    /// CPU time of late by weight, in milliseconds: what differs by less is equal.
    counted: u64,
    /// The CPUs of its running jobs by weight, where that is equal.
    cpus: f64,
    /// When its first job came, where all is equal.
    number: u64,
    account: usize,
}

impl Eq for Rank {}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        // Who is due is before who is not, the one with the earlier time first.
        let due = |rank: &Self| (rank.due.is_none(), rank.due);
        due(self)
            .cmp(&due(other))
            .then(self.counted.cmp(&other.counted))
            .then(self.cpus.total_cmp(&other.cpus))
            .then(self.number.cmp(&other.number))
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The accounts with waiting jobs, in order.
pub(super) struct Order(BinaryHeap<Reverse<Rank>>);

impl Order {
    pub fn pop(&mut self) -> Option<usize> {
        self.0.pop().map(|Reverse(rank)| rank.account)
    }

    pub fn push(&mut self, rank: Rank) {
        self.0.push(Reverse(rank));
    }
}

/// Rounded milliseconds. What is more than can be counted is the most.
fn millis(seconds: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
    let millis = (seconds * 1000.0).round() as u64;
    millis
}

impl Scheduler {
    pub(super) fn order(&self) -> Order {
        let growth = self.fading.growth(self.now);
        Order(self.with_line.iter().map(|account| Reverse(self.rank_at(*account, growth))).collect())
    }

    pub(super) fn rank(&self, account: usize) -> Rank {
        self.rank_at(account, self.fading.growth(self.now))
    }

    fn rank_at(&self, index: usize, growth: f64) -> Rank {
        let account = &self.accounts[index];
        let weight = self
            .applications
            .get(&account.owner.application)
            .map_or(1.0, |application| application.policy.weight(&account.owner.account));
        let (since, starts) = account.line.first_since;
        let waited = self.now.seconds_since(since) >= f64::from(DUE_HALF_LIVES) * self.fading.half_life();
        let accounts = u64::try_from(self.with_line.len()).unwrap_or(u64::MAX);
        let passed = self.starts - starts >= DUE_STARTS.saturating_mul(accounts);
        Rank {
            due: (waited && passed).then_some(since),
            counted: millis(account.share.counted(&self.fading, growth) / growth / weight),
            cpus: account.share.cpus() / weight,
            number: account.line.first_number(),
            account: index,
        }
    }
}
