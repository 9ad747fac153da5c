//! Random schedules with crashes, compared with the naive reference.

use proptest::prelude::*;

use super::model::{Entry, Model, Stage};
use super::*;
use crate::size::ByteSize;

#[derive(Debug, Clone)]
enum Event {
    Submit {
        account: u8,
        cpus: u32,
        memory: u64,
        gpus: u16,
    },
    /// One of those that run ends, having used this part of its CPUs.
    End {
        which: usize,
        used: f64,
    },
    /// One of those that wait is given up.
    GiveUp {
        which: usize,
    },
    /// The daemon dies, and begins again from the records.
    Crash,
}

fn events() -> impl Strategy<Value = Vec<(u64, Event)>> {
    let submit = (0..6u8, 1..=4u32, 0..=3u64, 0..=3u16)
        .prop_map(|(account, cpus, memory, gpus)| Event::Submit { account, cpus, memory, gpus });
    let end = (any::<usize>(), 0.0..1.0).prop_map(|(which, used)| Event::End { which, used });
    let event = prop_oneof![
        6 => submit,
        5 => end,
        1 => any::<usize>().prop_map(|which| Event::GiveUp { which }),
        1 => Just(Event::Crash),
    ];
    prop::collection::vec((1..30_000_011u64, event), 1..90)
}

#[derive(Debug, Clone)]
struct Setting {
    most: Most,
    gpus: u16,
    policy: QueuePolicy,
    half_life: u64,
}

fn ceilings() -> impl Strategy<Value = Ceilings> {
    let cpus = prop::option::of((4..12u32).prop_map(|cpus| MilliCpus(cpus * 1000)));
    let memory = prop::option::of((3..9u64).prop_map(ByteSize));
    (prop::option::of(1..7u32), cpus, memory, prop::option::of(3..5u16))
        .prop_map(|(jobs, cpus, memory, gpus)| Ceilings { jobs, cpus, memory, gpus })
}

fn settings() -> impl Strategy<Value = Setting> {
    let weights = prop::collection::btree_map(0..6u8, 0.3..4.0f64, 0..3);
    let most = (1..8u32, 4..12u32, 3..9u64).prop_map(|(jobs, cpus, memory)| {
        Most::new(Some(jobs), Some(MilliCpus(cpus * 1000)), Some(ByteSize(memory)), None)
    });
    (most, 3..6u16, ceilings(), ceilings(), ceilings(), weights, 7..300u64).prop_map(
        |(most, gpus, total, account, group, weights, half_life)| {
            let weights = weights.into_iter().map(|(account, weight)| (name(account), weight)).collect();
            let policy = QueuePolicy { waiting: 25, total, account, group, weights };
            Setting { most: most.with_gpus(gpus), gpus, policy, half_life }
        },
    )
}

fn name(account: u8) -> AccountName {
    format!("account{account}").parse().unwrap()
}

/// Of two applications; some are in one group, some in two, some in none.
fn candidate(number: u64, account: u8, cpus: u32, memory: u64, gpus: u16) -> Candidate {
    let application = if account % 3 == 2 { "other" } else { "demo" };
    let groups: &[&str] = match account % 4 {
        0 => &["red"],
        1 => &["red", "blue"],
        2 => &["blue"],
        _ => &[],
    };
    Candidate {
        job: id(number),
        owner: AccountKey { application: application.parse().unwrap(), account: name(account) },
        groups: groups.iter().map(|group| group.parse().unwrap()).collect(),
        need: Amount::of_job(Some(MilliCpus(cpus * 1000)), Some(ByteSize(memory)), gpus),
    }
}

struct Schedule {
    scheduler: Scheduler,
    model: Model,
    now: Moment,
}

impl Schedule {
    fn new(setting: &Setting) -> Self {
        let model = Model {
            most: setting.most,
            gpus: setting.gpus,
            half_life: f64::from(u32::try_from(setting.half_life).unwrap()),
            policy: setting.policy.clone(),
            entries: Vec::new(),
            starts: 0,
        };
        let scheduler = Self::empty(setting, Moment(0));
        Self { scheduler, model, now: Moment(0) }
    }

    fn empty(setting: &Setting, now: Moment) -> Scheduler {
        let mut scheduler = Scheduler::new(now);
        scheduler.set_capacity(setting.most, setting.gpus);
        scheduler.set_half_life(setting.half_life, now);
        for application in ["demo", "other"] {
            scheduler.set_policy(&application.parse().unwrap(), setting.policy.clone());
        }
        scheduler
    }

    fn in_stage(&self, stage: impl Fn(&Stage) -> bool) -> Vec<usize> {
        (0..self.model.entries.len()).filter(|index| stage(&self.model.entries[*index].stage)).collect()
    }

    fn step(&mut self, setting: &Setting, event: &Event) {
        match event {
            Event::Submit { account, cpus, memory, gpus } => {
                let number = u64::try_from(self.model.entries.len()).unwrap();
                self.submit(candidate(number, *account, *cpus, *memory, *gpus));
            }
            Event::End { which, used } => {
                let running = self.in_stage(|stage| matches!(stage, Stage::Runs { .. }));
                if !running.is_empty() {
                    self.end(running[which % running.len()], *used);
                }
            }
            Event::GiveUp { which } => {
                let waiting = self.in_stage(|stage| *stage == Stage::Waits);
                if !waiting.is_empty() {
                    let index = waiting[which % waiting.len()];
                    assert!(self.scheduler.end(&self.model.entries[index].candidate.job, None, self.now));
                    self.model.entries[index].stage = Stage::GivenUp;
                }
            }
            Event::Crash => self.crash(setting),
        }
        self.model.note_firsts(self.now);
        let starts = self.scheduler.starts(self.now);
        self.started(starts);
        self.model.check();
        let waiting = self.in_stage(|stage| *stage == Stage::Waits);
        let shown = self.scheduler.waiting_jobs(None, usize::MAX);
        assert_eq!((shown.len(), self.scheduler.waiting()), (waiting.len(), waiting.len()));
        assert!(shown.iter().all(|waiting| waiting.hold != Hold::Nothing), "who can start has started");
        assert_eq!(self.scheduler.used(), self.model.used(|_| true));
    }

    fn submit(&mut self, candidate: Candidate) {
        let waiting = self.in_stage(|stage| *stage == Stage::Waits);
        let of_application = waiting
            .iter()
            .filter(|index| {
                self.model.entries[**index].candidate.owner.application == candidate.owner.application
            })
            .count();
        let entry = Entry { candidate: candidate.clone(), stage: Stage::Waits, first_since: None };
        match self.scheduler.submit(candidate, self.now) {
            Err(denial) if denial.code == Code::QueueFull => {
                assert!(of_application >= 25);
            }
            Err(denial) => assert_eq!(denial.code, Code::NeverFits),
            Ok(start) => {
                self.model.entries.push(entry);
                self.model.note_firsts(self.now);
                self.started(start.into_iter().collect());
            }
        }
    }

    /// Each start has to be the one that the reference names, and the reference names no other.
    fn started(&mut self, starts: Vec<Start>) {
        for start in starts {
            let index = self.model.next(self.now).expect("the reference starts nothing");
            let entry = &mut self.model.entries[index];
            assert_eq!(entry.candidate.job, start.job, "the reference starts another one");
            entry.stage = Stage::Runs { since: self.now, gpus: start.gpus };
            self.model.starts += 1;
            self.model.note_firsts(self.now);
        }
    }

    fn end(&mut self, index: usize, used: f64) {
        let Entry { candidate, stage, .. } = &mut self.model.entries[index];
        let Stage::Runs { since, .. } = *stage else { return };
        let cpus = f64::from(u32::try_from(candidate.need.of(Resource::Cpus)).unwrap()) / 1000.0;
        let cpu_seconds = used * cpus * self.now.seconds_since(since);
        assert!(self.scheduler.end(&candidate.job, Some(cpu_seconds), self.now));
        *stage = Stage::Ended { since, until: self.now, cpu_seconds };
    }

    fn crash(&mut self, setting: &Setting) {
        self.scheduler = Self::empty(setting, self.now);
        self.model.starts = 0;
        // Leases first.
        for entry in &mut self.model.entries {
            entry.first_since = None;
            match entry.stage.clone() {
                Stage::Runs { since, gpus } => {
                    assert_eq!(self.scheduler.restore(entry.candidate.clone(), &gpus, since, self.now), []);
                }
                Stage::Ended { until: at, cpu_seconds, .. } | Stage::Charged { at, cpu_seconds } => {
                    entry.stage = Stage::Charged { at, cpu_seconds };
                    self.scheduler.charge(&entry.candidate.owner, cpu_seconds, at, self.now);
                }
                Stage::Waits | Stage::GivenUp => {}
            }
        }
        for (number, entry) in (0..).zip(&self.model.entries) {
            if entry.stage == Stage::Waits {
                self.scheduler.resubmit(entry.candidate.clone(), number, self.now);
            }
        }
    }

    /// No more jobs come: each that waits starts after some ends.
    fn drain(&mut self) {
        loop {
            let running = self.in_stage(|stage| matches!(stage, Stage::Runs { .. }));
            let Some(first) = running.first() else { break };
            self.now = Moment(self.now.0 + 1_000_003);
            self.end(*first, 1.0);
            let starts = self.scheduler.starts(self.now);
            self.started(starts);
            self.model.check();
        }
        assert_eq!(self.scheduler.waiting(), 0, "every job that can fit starts");
        assert_eq!(self.scheduler.running(), 0);
        assert_eq!(self.scheduler.gpus().holders().count(), 0);
        assert_eq!(self.scheduler.used(), Amount::default());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_schedules_with_crashes_are_those_of_the_reference(setting in settings(), events in events()) {
        let mut schedule = Schedule::new(&setting);
        for (pause, event) in &events {
            schedule.now = Moment(schedule.now.0 + pause);
            schedule.step(&setting, event);
        }
        schedule.drain();
    }
}
