//! Runs of many jobs: who gets how much, and that everybody gets something.

use std::collections::HashMap;

use super::*;

/// Runs jobs to their ends. Each account always has `backlog` jobs of `length` seconds waiting while the run lasts.
struct Run {
    scheduler: Scheduler,
    ends: Vec<(Moment, JobId, f64)>,
    lengths: HashMap<JobId, (String, f64)>,
    cpu: HashMap<String, f64>,
    number: u64,
    now: Moment,
}

impl Run {
    fn new(scheduler: Scheduler) -> Self {
        Self {
            scheduler,
            ends: Vec::new(),
            lengths: HashMap::new(),
            cpu: HashMap::new(),
            number: 0,
            now: Moment(0),
        }
    }

    fn submit(&mut self, account: &str, cpus: u32, length: f64) -> JobId {
        self.number += 1;
        let candidate = job(self.number, account, cpus, 0);
        let id = candidate.job.clone();
        self.lengths.insert(id.clone(), (account.to_owned(), length));
        let start = self.scheduler.submit(candidate, self.now).unwrap();
        self.started(start.into_iter().collect());
        id
    }

    fn started(&mut self, starts: Vec<Start>) {
        for start in starts {
            let length = self.lengths[&start.job].1;
            let end = Moment(self.now.0 + seconds(length).0);
            self.ends.push((end, start.job, length));
        }
    }

    /// Moves on to the next end. `used` of a job's length is CPU time.
    fn step(&mut self, used: f64) -> bool {
        let Some(next) = (0..self.ends.len()).min_by_key(|index| self.ends[*index].0) else { return false };
        let (at, id, length) = self.ends.swap_remove(next);
        self.now = at;
        *self.cpu.entry(self.lengths[&id].0.clone()).or_default() += length * used;
        assert!(self.scheduler.end(&id, Some(length * used), at));
        let starts = self.scheduler.starts(at);
        self.started(starts);
        true
    }

    fn has_started(&self, id: &JobId) -> bool {
        !self.scheduler.is_waiting(id)
    }
}

/// Lengths that are not all the same, from 0.5 to 1.5 times the mean.
fn length(number: u64, mean: f64) -> f64 {
    let step = f64::from(u32::try_from(number * 7 % 11).unwrap());
    mean * (0.5 + step / 10.0)
}

/// Two accounts whose jobs are of different lengths and numbers, until the first has none left.
fn ratio(weights: &[(&str, f64)]) -> f64 {
    let mut scheduler = machine(4, 4, 0);
    let weights = weights.iter().map(|(name, weight)| (name.parse().unwrap(), *weight)).collect();
    scheduler.set_policy(&"demo".parse().unwrap(), QueuePolicy { weights, ..QueuePolicy::default() });
    let mut run = Run::new(scheduler);
    for number in 0..4000 {
        run.submit("ann", 1, length(number, 3.0));
    }
    for number in 0..1000 {
        run.submit("bob", 1, length(number, 5.0));
    }
    while run
        .scheduler
        .waiting_jobs(None, 5000)
        .iter()
        .any(|waiting| waiting.candidate.owner.account.as_str() == "bob")
        && run
            .scheduler
            .waiting_jobs(None, 5000)
            .iter()
            .any(|waiting| waiting.candidate.owner.account.as_str() == "ann")
    {
        for _ in 0..20 {
            run.step(1.0);
        }
    }
    run.cpu["ann"] / run.cpu["bob"]
}

#[test]
fn two_accounts_with_unequal_backlogs_get_equal_cpu_time() {
    let ratio = ratio(&[]);
    assert!((0.95..1.05).contains(&ratio), "{ratio}");
}

#[test]
fn accounts_get_cpu_time_in_proportion_to_their_weights() {
    let ratio = ratio(&[("ann", 3.0), ("bob", 1.5)]);
    assert!((1.9..2.1).contains(&ratio), "{ratio}");
}

#[test]
fn a_large_job_starts_however_many_small_ones_come() {
    let mut run = Run::new(machine(100, 8, 0));
    for _ in 0..8 {
        run.submit("ann", 1, 10.0);
    }
    let large = run.submit("large", 8, 1.0);
    let mut ends = 0;
    while !run.has_started(&large) {
        for account in ["ann", "bob", "cal"] {
            run.submit(account, 1, 10.0);
        }
        assert!(run.step(1.0));
        ends += 1;
        assert!(ends <= 8, "no more jobs end before it than ran when it came");
    }
}

#[test]
fn jobs_that_use_no_cpu_time_cannot_keep_others_waiting_for_ever() {
    let mut scheduler = machine(1, 8, 0);
    scheduler.set_half_life(10, Moment(0));
    let mut run = Run::new(scheduler);
    run.scheduler.charge(&owner("demo", "bob"), 1e6, Moment(0), Moment(0));
    run.submit("ann", 1, 1.0);
    let waiting = run.submit("bob", 1, 1.0);
    let mut ends = 0;
    while !run.has_started(&waiting) {
        run.submit("ann", 1, 1.0);
        // All of Ann's jobs sleep: she never counts as one who used anything.
        assert!(run.step(0.0));
        ends += 1;
        assert!(ends <= 2 * DUE_STARTS + 2, "still waiting after {ends} ends");
    }
    assert!(ends > 50, "and yet who used less goes first: {ends}");
}

#[test]
fn a_group_s_ceiling_starves_none_of_its_large_jobs() {
    let mut scheduler = machine(100, 100, 0);
    let group = Ceilings { cpus: Some(MilliCpus(4000)), ..Ceilings::default() };
    scheduler.set_policy(&"demo".parse().unwrap(), QueuePolicy { group, ..QueuePolicy::default() });
    let in_lab = |candidate: Candidate| Candidate { groups: vec!["lab".parse().unwrap()], ..candidate };
    let mut running = std::collections::VecDeque::new();
    for number in 0..4 {
        scheduler.submit(in_lab(job(number, "ann", 1, 0)), Moment(0)).unwrap().unwrap();
        running.push_back(id(number));
    }
    scheduler.submit(in_lab(job(100, "bob", 4, 0)), Moment(0)).unwrap();
    for step in 1..=4 {
        assert!(scheduler.is_waiting(&id(100)));
        let now = seconds(f64::from(u32::try_from(step).unwrap()));
        scheduler.submit(in_lab(job(10 + step, "ann", 1, 0)), now).unwrap();
        scheduler.end(&running.pop_front().unwrap(), None, now);
        let started = ids(&scheduler.starts(now));
        assert_eq!(started, if step == 4 { vec![id(100)] } else { vec![] });
    }
    // Who is in no such group is not held up by any of it.
    scheduler.submit(job(200, "cal", 10, 0), seconds(5.0)).unwrap();
    assert_eq!(ids(&scheduler.starts(seconds(5.0))), [id(200)]);
}
