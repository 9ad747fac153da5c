//! Which job starts next: capacity of the machine, ceilings, fair share between accounts, leases of GPUs.
//!
//! A value that is told what happens (a job is submitted, ends, is given up) and answers which jobs start. It reads no
//! clock: callers bring the time. The same events at the same times give the same answers.
//!
//! **The order.** Within an account, first come first served. Between accounts, whose CPU time of late, divided by the
//! account's weight, is the least; running jobs count as they go. A first job of an account that others were preferred
//! to for very long ([`DUE_HALF_LIVES`], [`DUE_STARTS`]) is due: it goes before all that are not.
//!
//! **Who is held up.** A job that a ceiling of its account, group or application holds up holds nobody else up but
//! those below the same ceiling. The first job that the machine holds up reserves its need: another may start only if,
//! in each resource that both use, enough is left for the reservation. So small jobs fill gaps, and cannot keep a
//! large one from starting.
//!
//! **The cost** of an event is one look at each account that has waiting jobs, and the logarithm of that number for
//! each job that is looked at; the number of waiting jobs does not matter.

mod amount;
mod fair_share;
mod lease;
mod order;
mod scope;
mod shown;
#[cfg(test)]
mod tests;
mod waiting;

use std::collections::{BTreeSet, HashMap};

pub use amount::{Amount, Most, Resource};
pub use lease::GpuLeases;
pub use scope::Hold;
pub use shown::{OwnerUse, Waiting};

use fair_share::{Fading, Share};
use scope::{GroupKey, Reservations, Scope, Scopes};
use waiting::Line;

use crate::denial::{Code, Denial};
use crate::ids::JobId;
use crate::names::{AccountName, ApplicationName, GroupName};
use crate::queue::{Ceilings, GpuIndex, QueuePolicy};

/// For so many half-lives a first job of an account has others preferred to it before it is due.
pub const DUE_HALF_LIVES: u32 = 2;

/// Besides, so many jobs for each account that waits.
pub const DUE_STARTS: u64 = 100;

/// Numbers below are of jobs that waited before a restart.
const FIRST_SUBMITTED: u64 = 1 << 32;

/// A time that never goes back, in microseconds from where the caller likes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    /// Seconds since another moment; below 0 if that is later.
    pub fn seconds_since(self, earlier: Moment) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "microseconds of a machine's uptime are exact")]
        let micros = self.0.abs_diff(earlier.0) as f64;
        if self >= earlier { micros / 1e6 } else { -micros / 1e6 }
    }
}

/// Whose job it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountKey {
    /// The application.
    pub application: ApplicationName,
    /// The account.
    pub account: AccountName,
}

/// A job as the queue sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its id.
    pub job: JobId,
    /// Whose it is.
    pub owner: AccountKey,
    /// The groups of its account when it was accepted.
    pub groups: Vec<GroupName>,
    /// What it needs.
    pub need: Amount,
}

impl Candidate {
    /// The same, with a need of this number of GPUs.
    #[must_use]
    pub fn with_gpus(mut self, gpus: u16) -> Self {
        self.need = self.need.with_gpus(gpus);
        self
    }
}

/// A job that starts now, with the GPUs that are its own until it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The job.
    pub job: JobId,
    /// Its GPUs.
    pub gpus: Vec<GpuIndex>,
}

/// A job that runs, as far as the queue is concerned.
#[derive(Debug, Clone)]
struct Running {
    candidate: Candidate,
    account: usize,
    gpus: Vec<GpuIndex>,
    started: Moment,
}

/// One account that has, or lately had, jobs.
#[derive(Debug)]
struct Account {
    owner: AccountKey,
    /// Its own ceilings, where somebody has said what they are.
    limits: Option<Most>,
    share: Share,
    used: Amount,
    line: Line,
}

#[derive(Debug, Default)]
struct Application {
    policy: QueuePolicy,
    used: Amount,
    waiting: usize,
}

/// The queue of one machine.
#[derive(Debug)]
pub struct Scheduler {
    machine: Scope,
    gpus: GpuLeases,
    fading: Fading,
    now: Moment,
    applications: HashMap<ApplicationName, Application>,
    groups: HashMap<GroupKey, Amount>,
    accounts: Vec<Account>,
    account_of: HashMap<AccountKey, usize>,
    /// The accounts with waiting jobs.
    with_line: BTreeSet<usize>,
    /// Of which account a waiting job is, and its number there.
    waiting: HashMap<JobId, (usize, u64)>,
    running: HashMap<JobId, Running>,
    submitted: u64,
    starts: u64,
}

impl Scheduler {
    /// An empty machine with no bounds but the number of GPUs: none.
    pub fn new(now: Moment) -> Self {
        Self {
            machine: Scope { most: Most::new(None, None, None, Some(0)), ..Scope::default() },
            gpus: GpuLeases::default(),
            fading: Fading::new(3600, now),
            now,
            applications: HashMap::new(),
            groups: HashMap::new(),
            accounts: Vec::new(),
            account_of: HashMap::new(),
            with_line: BTreeSet::new(),
            waiting: HashMap::new(),
            running: HashMap::new(),
            submitted: 0,
            starts: 0,
        }
    }

    /// The machine has so much from now on, this number of GPUs included. What runs goes on.
    pub fn set_capacity(&mut self, most: Most, gpus: u16) {
        self.machine.most = most.with_gpus(gpus);
        self.gpus.set_count(gpus);
    }

    /// Used CPU time counts half after so long from now on.
    pub fn set_half_life(&mut self, seconds: u64, now: Moment) {
        self.advance(now);
        let changed = Fading::new(seconds, self.now);
        if changed.half_life().total_cmp(&self.fading.half_life()).is_ne() {
            self.rebase(changed);
        }
    }

    /// What root's file says about the queue of an application.
    pub fn set_policy(&mut self, application: &ApplicationName, policy: QueuePolicy) {
        self.applications.entry(application.clone()).or_default().policy = policy;
    }

    /// The ceilings of one account, below those of root's file. What runs goes on.
    pub fn set_limits(&mut self, owner: &AccountKey, limits: Ceilings) {
        let account = self.account(owner);
        self.accounts[account].limits = Some(limits.into());
    }

    /// Whether [`Scheduler::set_limits`] was told of this account.
    pub fn knows_limits(&self, owner: &AccountKey) -> bool {
        self.own_limits(owner).is_some()
    }

    fn own_limits(&self, owner: &AccountKey) -> Option<Most> {
        self.account_of.get(owner).and_then(|account| self.accounts[*account].limits)
    }

    /// An account used so many CPU seconds at an earlier time. What is said to be later than now is as of now: the machine's
    /// clock was set back.
    pub fn charge(&mut self, owner: &AccountKey, cpu_seconds: f64, at: Moment, now: Moment) {
        let growth = self.fading.growth(at.min(now));
        let account = self.account(owner);
        self.accounts[account].share.charge(cpu_seconds, growth);
    }

    /// Refuses what could never start, and what there is no place for.
    pub fn check(&self, candidate: &Candidate) -> Result<(), Denial> {
        let need = candidate.need;
        let lacking = |most: Most| most.lacks(Amount::default(), need).map(|r| (r, most.of(r)));
        let never = |rule: String, whose: &str, (resource, most): (Resource, Option<u64>)| {
            let (wanted, most) = (resource.words(need.of(resource)), resource.words(most.unwrap_or(0)));
            Denial::new(
                Code::NeverFits,
                rule,
                format!("the job needs {wanted}, and {whose} never has more than {most}"),
            )
            .remedy("ask for less, or have the administrator raise it")
        };
        if let Some(lack) = lacking(self.machine.most) {
            return Err(never(format!("executor.local.capacity.{}", lack.0), "this machine", lack));
        }
        if let Some(lack) = self.own_limits(&candidate.owner).and_then(lacking) {
            return Err(never(format!("the account's limits: {}", lack.0), "the account", lack));
        }
        let Some(application) = self.applications.get(&candidate.owner.application) else { return Ok(()) };
        let policy = &application.policy;
        let owners = [
            ("total", "the application", policy.total),
            ("account", "an account", policy.account),
            ("group", "a group", policy.group),
        ];
        for (key, whose, ceilings) in owners {
            if key == "group" && candidate.groups.is_empty() {
                continue;
            }
            if let Some(lack) = lacking(ceilings.into()) {
                return Err(never(format!("queue.{key}.{}", lack.0), whose, lack));
            }
        }
        Ok(())
    }

    /// A job was accepted. Answers its start if nobody waits and it fits; otherwise it waits from now on, and
    /// [`Scheduler::starts`] tells when it starts.
    pub fn submit(&mut self, candidate: Candidate, now: Moment) -> Result<Option<Start>, Denial> {
        self.check(&candidate)?;
        self.advance(now);
        let account = self.account(&candidate.owner);
        if self.waiting.is_empty() && self.hold(account, &candidate, &mut Reservations::default()).is_none() {
            return Ok(self.start(account, candidate));
        }
        self.wait(account, candidate)?;
        Ok(None)
    }

    /// The same, but it waits whatever is free: it is not known yet what runs.
    pub fn submit_behind(&mut self, candidate: Candidate, now: Moment) -> Result<(), Denial> {
        self.check(&candidate)?;
        self.advance(now);
        let account = self.account(&candidate.owner);
        self.wait(account, candidate)
    }

    fn wait(&mut self, account: usize, candidate: Candidate) -> Result<(), Denial> {
        let name = &candidate.owner.application;
        let application = self.applications.entry(name.clone()).or_default();
        if application.waiting >= usize::try_from(application.policy.waiting).unwrap_or(usize::MAX) {
            return Err(Denial::new(
                Code::QueueFull,
                format!("applications.d/{name}.toml: queue.waiting"),
                format!("{} jobs of the application wait already", application.waiting),
            )
            .remedy("wait until some have started, or have the administrator raise queue.waiting"));
        }
        self.submitted += 1;
        self.enqueue(account, FIRST_SUBMITTED + self.submitted, candidate);
        Ok(())
    }

    /// A job that was accepted before a restart waits again, whatever the ceilings are by now. `number` is its place
    /// among those that do; all of them come before jobs that are submitted.
    pub fn resubmit(&mut self, candidate: Candidate, number: u32, now: Moment) {
        self.advance(now);
        let account = self.account(&candidate.owner);
        self.enqueue(account, u64::from(number), candidate);
    }

    /// A job runs already, since then, with these GPUs, as its record says. Answers the GPUs that another job has by
    /// its record too. As with [`Scheduler::charge`], it cannot have started later than now.
    pub fn restore(
        &mut self,
        mut candidate: Candidate,
        gpus: &[GpuIndex],
        started: Moment,
        now: Moment,
    ) -> Vec<GpuIndex> {
        candidate.need = candidate.need.with_gpus(u16::try_from(gpus.len()).unwrap_or(u16::MAX));
        let account = self.account(&candidate.owner);
        let twice = self.gpus.restore(&candidate.job, gpus);
        self.run(account, candidate, gpus.to_vec(), started.min(now));
        twice
    }

    /// The jobs that start now, in this order.
    pub fn starts(&mut self, now: Moment) -> Vec<Start> {
        self.advance(now);
        let mut started = Vec::new();
        if self.machine_is_full() {
            return started;
        }
        let mut reservations = Reservations::default();
        let mut order = self.order();
        while let Some(account) = order.pop() {
            let Some(candidate) = self.accounts[account].line.first() else { continue };
            if self.hold(account, candidate, &mut reservations).is_some() {
                continue;
            }
            let Some(candidate) = self.leave_line(account) else { continue };
            started.extend(self.start(account, candidate));
            if self.machine_is_full() {
                break;
            }
            if !self.accounts[account].line.is_empty() {
                order.push(self.rank(account));
            }
        }
        started
    }

    /// A job ended, or will never run. Its resources and GPUs are free from now on. `cpu_seconds` is what it truly
    /// used, where that is known. False if the queue knows no such job.
    pub fn end(&mut self, job: &JobId, cpu_seconds: Option<f64>, now: Moment) -> bool {
        self.advance(now);
        if let Some((account, number)) = self.waiting.remove(job) {
            self.remove_waiting(account, number);
            return true;
        }
        let Some(Running { candidate, account, gpus, started }) = self.running.remove(job) else {
            return false;
        };
        self.gpus.give_back(job, &gpus);
        let ended = self.now.max(started);
        let cpus = candidate.need.of(Resource::Cpus);
        self.accounts[account].share.end(&self.fading, cpus, started, ended, cpu_seconds);
        self.accounts[account].used.take(candidate.need);
        self.machine.used.take(candidate.need);
        if let Some(application) = self.applications.get_mut(&candidate.owner.application) {
            application.used.take(candidate.need);
        }
        for group in candidate.groups {
            let key = (candidate.owner.application.clone(), group);
            if let Some(used) = self.groups.get_mut(&key) {
                used.take(candidate.need);
                if *used == Amount::default() {
                    self.groups.remove(&key);
                }
            }
        }
        true
    }

    fn machine_is_full(&self) -> bool {
        // Every job needs one of the places for jobs.
        self.waiting.is_empty() || self.machine.most.lacks(self.machine.used, Amount::least()).is_some()
    }

    /// What holds the first job of an account up.
    fn hold(&self, account: usize, candidate: &Candidate, reservations: &mut Reservations) -> Option<Hold> {
        let name = &candidate.owner.application;
        let (policy, used) = match self.applications.get(name) {
            Some(application) => (Some(&application.policy), application.used),
            None => (None, Amount::default()),
        };
        let most = |ceilings: Option<Ceilings>| ceilings.map(Most::from).unwrap_or_default();
        let own = self.accounts[account].limits.unwrap_or_default();
        let in_groups = most(policy.map(|policy| policy.group));
        let groups: Vec<(GroupKey, Scope)> = if in_groups.is_boundless() {
            Vec::new()
        } else {
            candidate
                .groups
                .iter()
                .map(|group| {
                    let key = (name.clone(), group.clone());
                    let used = self.groups.get(&key).copied().unwrap_or_default();
                    (key, Scope { used, most: in_groups })
                })
                .collect()
        };
        Scopes {
            application_name: name,
            account: &Scope {
                used: self.accounts[account].used,
                most: most(policy.map(|policy| policy.account)).and(own),
            },
            groups: &groups,
            application: &Scope { used, most: most(policy.map(|policy| policy.total)) },
            machine: &self.machine,
        }
        .hold(candidate.need, reservations)
    }

    /// Starts a job that nothing holds up. `None` if there are not so many GPUs, which its need was compared with.
    fn start(&mut self, account: usize, candidate: Candidate) -> Option<Start> {
        let wanted = u16::try_from(candidate.need.of(Resource::Gpus)).unwrap_or(u16::MAX);
        let gpus = self.gpus.lease(&candidate.job, wanted)?;
        let start = Start { job: candidate.job.clone(), gpus: gpus.clone() };
        self.starts += 1;
        self.run(account, candidate, gpus, self.now);
        Some(start)
    }

    fn run(&mut self, account: usize, candidate: Candidate, gpus: Vec<GpuIndex>, started: Moment) {
        let need = candidate.need;
        self.machine.used.add(need);
        self.accounts[account].used.add(need);
        let name = &candidate.owner.application;
        if !self.applications.contains_key(name) {
            self.applications.insert(name.clone(), Application::default());
        }
        if let Some(application) = self.applications.get_mut(name) {
            application.used.add(need);
        }
        for group in &candidate.groups {
            self.groups.entry((name.clone(), group.clone())).or_default().add(need);
        }
        self.accounts[account].share.start(need.of(Resource::Cpus), self.fading.growth(started));
        self.running.insert(candidate.job.clone(), Running { candidate, account, gpus, started });
    }

    /// The place of an account in the list; it is entered if it is new.
    fn account(&mut self, owner: &AccountKey) -> usize {
        if let Some(account) = self.account_of.get(owner) {
            return *account;
        }
        self.accounts.push(Account {
            owner: owner.clone(),
            limits: None,
            share: Share::default(),
            used: Amount::default(),
            line: Line::default(),
        });
        self.account_of.insert(owner.clone(), self.accounts.len() - 1);
        self.accounts.len() - 1
    }

    /// Moves the time on; never back.
    fn advance(&mut self, now: Moment) {
        self.now = self.now.max(now);
        if self.fading.is_old(self.now) {
            self.rebase(self.fading.with_origin(self.now));
        }
    }
}
