//! The rules once more, naively: everything is computed from the list of all jobs, each time.

use super::*;

/// What became of a job.
#[derive(Debug, Clone, PartialEq)]
pub enum Stage {
    Waits,
    Runs {
        since: Moment,
        gpus: Vec<GpuIndex>,
    },
    Ended {
        since: Moment,
        until: Moment,
        cpu_seconds: f64,
    },
    /// Its usage is known, when exactly it came about is not.
    Charged {
        at: Moment,
        cpu_seconds: f64,
    },
    GivenUp,
}

#[derive(Debug, Clone)]
pub struct Entry {
    pub candidate: Candidate,
    pub stage: Stage,
    /// Since when it has been its account's first, and how many had been started by then.
    pub first_since: Option<(Moment, u64)>,
}

/// The machine.
pub struct Model {
    pub most: Most,
    pub gpus: u16,
    pub half_life: f64,
    pub policy: QueuePolicy,
    pub entries: Vec<Entry>,
    pub starts: u64,
}

impl Model {
    fn running(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| matches!(entry.stage, Stage::Runs { .. }))
    }

    pub fn used(&self, of: impl Fn(&Candidate) -> bool) -> Amount {
        let mut used = Amount::default();
        for entry in self.running().filter(|entry| of(&entry.candidate)) {
            used.add(entry.candidate.need);
        }
        used
    }

    fn firsts(&self) -> Vec<usize> {
        let mut seen = BTreeSet::new();
        (0..self.entries.len())
            .filter(|index| self.entries[*index].stage == Stage::Waits)
            .filter(|index| seen.insert(self.entries[*index].candidate.owner.clone()))
            .collect()
    }

    /// To be called after each event.
    pub fn note_firsts(&mut self, now: Moment) {
        let firsts = self.firsts();
        for index in firsts {
            let starts = self.starts;
            self.entries[index].first_since.get_or_insert((now, starts));
        }
    }

    fn counted(&self, owner: &AccountKey, now: Moment) -> u64 {
        let h = self.half_life;
        let weight_at = |at: Moment| (at.seconds_since(now) / h).exp2();
        let between =
            |from: Moment, to: Moment| h / std::f64::consts::LN_2 * (weight_at(to) - weight_at(from));
        let of_owner = self.entries.iter().filter(|entry| entry.candidate.owner == *owner);
        let seconds: f64 = of_owner
            .map(|entry| match entry.stage {
                Stage::Waits | Stage::GivenUp => 0.0,
                Stage::Runs { since, .. } => cpus(&entry.candidate) * between(since, now),
                Stage::Charged { at, cpu_seconds } => cpu_seconds * weight_at(at),
                Stage::Ended { since, until, cpu_seconds } if until > since => {
                    cpu_seconds * between(since, until) / until.seconds_since(since)
                }
                Stage::Ended { until, cpu_seconds, .. } => cpu_seconds * weight_at(until),
            })
            .sum();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small numbers of tests")]
        let millis = (seconds / self.policy.weight(&owner.account) * 1000.0).round() as u64;
        millis
    }

    /// The first of each account in the order in which they are looked at.
    fn ordered(&self, now: Moment) -> Vec<usize> {
        let firsts = self.firsts();
        let accounts = u64::try_from(firsts.len()).unwrap();
        let mut ranked: Vec<_> = firsts
            .into_iter()
            .map(|index| {
                let Entry { candidate, first_since, .. } = &self.entries[index];
                let (since, starts) = first_since.unwrap();
                let due = now.seconds_since(since) >= f64::from(DUE_HALF_LIVES) * self.half_life
                    && self.starts - starts >= DUE_STARTS * accounts;
                let used = self.used(|other| other.owner == candidate.owner).of(Resource::Cpus);
                let weight = self.policy.weight(&candidate.owner.account);
                let milli_cpus = f64::from(u32::try_from(used).unwrap()) / weight;
                let due = if due { (0, since) } else { (1, Moment(0)) };
                (due, self.counted(&candidate.owner, now), milli_cpus, index)
            })
            .collect();
        ranked.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)).then(a.2.total_cmp(&b.2)).then(a.3.cmp(&b.3)));
        ranked.into_iter().map(|ranked| ranked.3).collect()
    }

    /// Which waiting job starts next, if any.
    pub fn next(&self, now: Moment) -> Option<usize> {
        // What is reserved in each scope, by its name.
        let mut reserved: HashMap<String, Amount> = HashMap::new();
        for index in self.ordered(now) {
            let candidate = &self.entries[index].candidate;
            let own = self.used(|other| other.owner == candidate.owner);
            if too_little(self.policy.account.into(), own, candidate.need, None) {
                continue;
            }
            let in_groups = candidate.groups.iter().map(|group| {
                let used = self.used(|other| {
                    other.owner.application == candidate.owner.application && other.groups.contains(group)
                });
                (
                    format!("group {group} of {}", candidate.owner.application),
                    used,
                    Most::from(self.policy.group),
                )
            });
            let of_application = self.used(|other| other.owner.application == candidate.owner.application);
            let application = (
                format!("application {}", candidate.owner.application),
                of_application,
                Most::from(self.policy.total),
            );
            let machine = ("machine".to_owned(), self.used(|_| true), self.most);
            let levels = [in_groups.collect::<Vec<_>>(), vec![application], vec![machine]];
            let held_at = levels.iter().position(|level| {
                level.iter().any(|(name, used, most)| {
                    too_little(*most, *used, candidate.need, reserved.get(name).copied())
                })
            });
            let Some(held_at) = held_at else { return Some(index) };
            for (name, ..) in levels.into_iter().take(held_at + 1).flatten() {
                reserved.entry(name).or_insert(candidate.need);
            }
        }
        None
    }

    /// What must always be true of the jobs that run.
    pub fn check(&self) {
        let within = |used: Amount, most: Most, whose: &str| {
            for resource in Resource::ALL {
                let most = most.of(resource).unwrap_or(u64::MAX);
                assert!(used.of(resource) <= most, "{whose}: {resource}");
            }
        };
        within(self.used(|_| true), self.most, "machine");
        let mut leased = BTreeSet::new();
        for entry in self.running() {
            let Stage::Runs { gpus, .. } = &entry.stage else { continue };
            assert_eq!(u64::try_from(gpus.len()).unwrap(), entry.candidate.need.of(Resource::Gpus));
            for gpu in gpus {
                assert!(gpu.0 < self.gpus && leased.insert(*gpu), "GPU {gpu} is leased twice");
            }
            let Candidate { owner, groups, .. } = &entry.candidate;
            let of_application = self.used(|other| other.owner.application == owner.application);
            within(of_application, self.policy.total.into(), "application");
            within(self.used(|other| other.owner == *owner), self.policy.account.into(), "account");
            for group in groups {
                let used = self.used(|other| {
                    other.owner.application == owner.application && other.groups.contains(group)
                });
                within(used, self.policy.group.into(), "group");
            }
            let earlier = self.entries.iter().take_while(|other| other.candidate.job != entry.candidate.job);
            let overtaken = earlier
                .filter(|other| other.candidate.owner == *owner && other.stage == Stage::Waits)
                .count();
            assert_eq!(overtaken, 0, "an account's jobs start in the order in which they came");
        }
    }
}

fn cpus(candidate: &Candidate) -> f64 {
    f64::from(u32::try_from(candidate.need.of(Resource::Cpus)).unwrap()) / 1000.0
}

/// Whether too little would be left, of something that the job needs.
fn too_little(most: Most, used: Amount, need: Amount, reserved: Option<Amount>) -> bool {
    Resource::ALL.into_iter().any(|resource| {
        let Some(most) = most.of(resource) else { return false };
        let reserved = reserved.map_or(0, |reserved| reserved.of(resource));
        need.of(resource) > 0 && used.of(resource) + need.of(resource) + reserved > most
    })
}
