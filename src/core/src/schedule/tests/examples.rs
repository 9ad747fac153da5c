//! One rule each, refusals first.

use super::*;

#[test]
fn what_could_never_start_is_refused_with_the_rule() {
    let mut scheduler = machine(4, 8, 2);
    let rule = |scheduler: &mut Scheduler, candidate: Candidate| {
        let denial = scheduler.submit(candidate, Moment(0)).unwrap_err();
        assert_eq!(denial.code, Code::NeverFits);
        denial.rule
    };
    assert_eq!(rule(&mut scheduler, job(1, "ann", 9, 0)), "executor.local.capacity.cpus");
    assert_eq!(rule(&mut scheduler, job(1, "ann", 1, 3)), "executor.local.capacity.gpus");
    let policy = QueuePolicy {
        total: Ceilings { cpus: Some(MilliCpus(4000)), ..Ceilings::default() },
        account: Ceilings { cpus: Some(MilliCpus(2000)), ..Ceilings::default() },
        group: Ceilings { gpus: Some(0), ..Ceilings::default() },
        ..QueuePolicy::default()
    };
    scheduler.set_policy(&"demo".parse().unwrap(), policy);
    assert_eq!(rule(&mut scheduler, job(1, "ann", 5, 0)), "queue.total.cpus");
    assert_eq!(rule(&mut scheduler, job(1, "ann", 3, 0)), "queue.account.cpus");
    let in_group = Candidate { groups: vec!["lab".parse().unwrap()], ..job(1, "ann", 1, 1) };
    assert_eq!(rule(&mut scheduler, in_group), "queue.group.gpus");
    // In no group, no group's ceiling holds.
    assert!(scheduler.submit(job(1, "ann", 1, 1), Moment(0)).unwrap().is_some());
}

#[test]
fn a_machine_without_gpus_gives_none() {
    let mut scheduler = Scheduler::new(Moment(0));
    let denial = scheduler.submit(job(1, "ann", 1, 1), Moment(0)).unwrap_err();
    assert_eq!((denial.code, denial.rule.as_str()), (Code::NeverFits, "executor.local.capacity.gpus"));
    assert_eq!(denial.message, "the job needs 1 GPUs, and this machine never has more than 0 GPUs");
}

#[test]
fn more_than_may_wait_are_refused_and_a_place_is_free_again() {
    let mut scheduler = machine(1, 8, 0);
    scheduler.set_policy(&"demo".parse().unwrap(), QueuePolicy { waiting: 2, ..QueuePolicy::default() });
    assert!(scheduler.submit(job(1, "ann", 1, 0), Moment(0)).unwrap().is_some());
    for number in [2, 3] {
        assert_eq!(scheduler.submit(job(number, "ann", 1, 0), Moment(0)), Ok(None));
    }
    let full = scheduler.submit(job(4, "bob", 1, 0), Moment(0)).unwrap_err();
    assert_eq!(full.code, Code::QueueFull);
    // Another application has its own places.
    let other = Candidate { owner: owner("other", "ann"), ..job(5, "ann", 1, 0) };
    assert_eq!(scheduler.submit(other, Moment(0)), Ok(None));
    // Given up while it waits: the place is free.
    assert!(scheduler.end(&id(3), None, Moment(1)));
    assert!(!scheduler.end(&id(3), None, Moment(1)));
    assert_eq!(scheduler.submit(job(4, "bob", 1, 0), Moment(1)), Ok(None));
}

#[test]
fn a_ceiling_of_ones_own_holds_nobody_else_up() {
    let mut scheduler = machine(10, 10, 0);
    let policy = QueuePolicy { account: jobs_at_most(1), ..QueuePolicy::default() };
    scheduler.set_policy(&"demo".parse().unwrap(), policy);
    assert!(scheduler.submit(job(1, "ann", 1, 0), Moment(0)).unwrap().is_some());
    assert_eq!(scheduler.submit(job(2, "ann", 1, 0), Moment(0)), Ok(None));
    assert_eq!(scheduler.submit(job(3, "bob", 1, 0), Moment(0)), Ok(None));
    assert_eq!(ids(&scheduler.starts(Moment(0))), [id(3)]);
    let waiting = scheduler.waiting_jobs(None, 10);
    assert_eq!((waiting.len(), &waiting[0].hold), (1, &Hold::Account(Resource::Jobs)));
    assert_eq!(waiting[0].hold.to_string(), "ceiling: account.jobs");
    scheduler.end(&id(1), Some(0.0), Moment(5));
    assert_eq!(ids(&scheduler.starts(Moment(5))), [id(2)]);
}

#[test]
fn limits_of_one_account_lower_what_policy_gives_and_hold_nobody_else() {
    let mut scheduler = machine(10, 10, 0);
    let policy = QueuePolicy { account: jobs_at_most(2), ..QueuePolicy::default() };
    scheduler.set_policy(&"demo".parse().unwrap(), policy);
    assert!(!scheduler.knows_limits(&owner("demo", "ann")));
    let limits = Ceilings { cpus: Some(MilliCpus(3000)), ..jobs_at_most(1) };
    scheduler.set_limits(&owner("demo", "ann"), limits);
    assert!(scheduler.knows_limits(&owner("demo", "ann")));
    let never = scheduler.submit(job(1, "ann", 4, 0), Moment(0)).unwrap_err();
    assert_eq!((never.code, never.rule.as_str()), (Code::NeverFits, "the account's limits: cpus"));
    assert!(scheduler.submit(job(2, "ann", 3, 0), Moment(0)).unwrap().is_some());
    assert_eq!(scheduler.submit(job(3, "ann", 1, 0), Moment(0)), Ok(None));
    assert_eq!(scheduler.waiting_jobs(None, 10)[0].hold, Hold::Account(Resource::Jobs));
    assert_eq!(scheduler.submit(job(4, "bob", 4, 0), Moment(0)), Ok(None));
    assert_eq!(ids(&scheduler.starts(Moment(0))), [id(4)]);
    // More than policy gives is still what policy gives.
    scheduler.set_limits(&owner("demo", "ann"), jobs_at_most(9));
    assert_eq!(scheduler.submit(job(5, "ann", 1, 0), Moment(0)), Ok(None));
    assert_eq!(ids(&scheduler.starts(Moment(0))), [id(3)]);
    scheduler.set_limits(&owner("demo", "ann"), Ceilings::default());
    assert!(scheduler.starts(Moment(0)).is_empty());
}

#[test]
fn small_jobs_fill_gaps_but_leave_the_first_in_line_what_it_needs() {
    // Four CPUs, two GPUs: three CPUs are used. Cal's job needs four CPUs and is first.
    let mut scheduler = machine(10, 4, 2);
    assert!(scheduler.submit(job(1, "ann", 3, 0), Moment(0)).unwrap().is_some());
    assert_eq!(scheduler.submit(job(2, "cal", 4, 0), seconds(1.0)), Ok(None));
    // It would fit, and would make Cal wait longer.
    assert_eq!(scheduler.submit(job(3, "bob", 1, 0), seconds(1.0)), Ok(None));
    assert_eq!(scheduler.starts(seconds(2.0)), []);
    let holds: Vec<Hold> = scheduler.waiting_jobs(None, 10).into_iter().map(|waiting| waiting.hold).collect();
    assert_eq!(holds, [Hold::Machine(Resource::Cpus), Hold::FairShare(Resource::Cpus)]);
    scheduler.end(&id(1), None, seconds(3.0));
    assert_eq!(ids(&scheduler.starts(seconds(3.0))), [id(2)]);
    scheduler.end(&id(2), None, seconds(4.0));
    assert_eq!(ids(&scheduler.starts(seconds(4.0))), [id(3)]);
}

#[test]
fn who_waits_for_a_gpu_leaves_the_cpus_that_it_does_not_need() {
    let mut scheduler = machine(10, 4, 1);
    let first = scheduler.submit(job(1, "ann", 1, 1), Moment(0)).unwrap().unwrap();
    assert_eq!(first.gpus, [GpuIndex(0)]);
    assert_eq!(scheduler.submit(job(2, "bob", 1, 1), Moment(0)), Ok(None));
    for number in 3..6 {
        assert_eq!(scheduler.submit(job(number, "cal", 1, 0), Moment(0)), Ok(None));
    }
    // Two CPUs beside the one that Bob's job will need.
    assert_eq!(ids(&scheduler.starts(Moment(0))), [id(3), id(4)]);
    scheduler.end(&id(1), None, Moment(1));
    let next = scheduler.starts(Moment(1));
    assert_eq!(ids(&next), [id(2), id(5)]);
    assert_eq!(next[0].gpus, [GpuIndex(0)]);
}

#[test]
fn used_time_counts_half_after_a_half_life() {
    let first_after = |when: f64| {
        let mut scheduler = machine(1, 1, 0);
        scheduler.set_half_life(100, Moment(0));
        scheduler.charge(&owner("demo", "ann"), 100.0, seconds(0.0), seconds(0.0));
        scheduler.charge(&owner("demo", "bob"), 60.0, seconds(when), seconds(when));
        scheduler.submit(job(1, "cal", 1, 0), seconds(when)).unwrap();
        scheduler.submit(job(2, "ann", 1, 0), seconds(when)).unwrap();
        scheduler.submit(job(3, "bob", 1, 0), seconds(when)).unwrap();
        scheduler.end(&id(1), None, seconds(when));
        ids(&scheduler.starts(seconds(when)))
    };
    // 100 is 60 after 73.7 seconds.
    assert_eq!(first_after(73.0), [id(3)]);
    assert_eq!(first_after(74.5), [id(2)]);
}

#[test]
fn what_is_recorded_as_later_than_now_counts_as_of_now() {
    // The machine's clock was set back by years while the daemon was away.
    let future = seconds(1e9);
    let mut scheduler = machine(2, 2, 0);
    scheduler.set_half_life(3600, Moment(0));
    scheduler.restore(job(1, "ann", 1, 0), &[], future, Moment(0));
    scheduler.charge(&owner("demo", "ann"), 10.0, future, Moment(0));
    scheduler.charge(&owner("demo", "bob"), 1000.0, Moment(0), Moment(0));
    scheduler.submit(job(2, "cal", 1, 0), Moment(0)).unwrap();
    scheduler.submit(job(3, "bob", 1, 0), Moment(0)).unwrap();
    scheduler.submit(job(4, "ann", 1, 0), Moment(0)).unwrap();
    scheduler.end(&id(1), Some(5.0), seconds(10.0));
    assert_eq!(
        ids(&scheduler.starts(seconds(10.0))),
        [id(4)],
        "15 seconds of ann's are less than bob's 1000"
    );
}

#[test]
fn numbers_stay_right_over_a_thousand_half_lives() {
    let mut scheduler = machine(1, 1, 0);
    scheduler.set_half_life(1, Moment(0));
    scheduler.charge(&owner("demo", "ann"), 1.0, seconds(0.0), Moment(0));
    scheduler.submit(job(1, "cal", 1, 0), Moment(0)).unwrap();
    scheduler.submit(job(2, "ann", 1, 0), Moment(0)).unwrap();
    for at in 1..1100 {
        assert_eq!(scheduler.starts(seconds(f64::from(at))), []);
    }
    let now = seconds(1100.0);
    scheduler.charge(&owner("demo", "bob"), 0.5, now, now);
    scheduler.submit(job(3, "bob", 1, 0), now).unwrap();
    scheduler.end(&id(1), Some(1100.0), now);
    assert_eq!(ids(&scheduler.starts(now)), [id(2)]);
    scheduler.end(&id(2), Some(0.0), now);
    assert_eq!(ids(&scheduler.starts(now)), [id(3)]);
    assert_eq!(scheduler.accounts.len(), 3);
    scheduler.end(&id(3), Some(0.0), now);
    scheduler.starts(seconds(1200.0));
    assert_eq!(scheduler.accounts.len(), 0, "accounts that have nothing are forgotten");
}

#[test]
fn jobs_that_ran_before_a_restart_keep_their_gpus() {
    let mut scheduler = machine(10, 10, 3);
    assert_eq!(scheduler.restore(job(1, "ann", 1, 1), &[GpuIndex(1)], Moment(0), Moment(0)), []);
    let next = scheduler.submit(job(2, "bob", 1, 2), Moment(0)).unwrap().unwrap();
    assert_eq!(next.gpus, [GpuIndex(0), GpuIndex(2)]);
    // Damaged records: the GPU is free only when both have ended.
    assert_eq!(scheduler.restore(job(3, "cal", 1, 1), &[GpuIndex(1)], Moment(0), Moment(0)), [GpuIndex(1)]);
    scheduler.end(&id(2), None, Moment(1));
    scheduler.end(&id(1), None, Moment(1));
    assert_eq!(scheduler.gpus().free().collect::<Vec<_>>(), [GpuIndex(0), GpuIndex(2)]);
    scheduler.end(&id(3), None, Moment(1));
    assert_eq!(scheduler.gpus().free().count(), 3);
}

#[test]
fn fewer_gpus_than_before_are_given_to_nobody_until_enough_are_back() {
    let mut scheduler = machine(10, 10, 2);
    let had = scheduler.submit(job(1, "ann", 1, 2), Moment(0)).unwrap().unwrap();
    assert_eq!(had.gpus.len(), 2);
    scheduler.set_capacity(Most::default(), 1);
    assert_eq!(scheduler.submit(job(2, "bob", 1, 1), Moment(0)), Ok(None));
    assert_eq!(scheduler.starts(Moment(0)), []);
    scheduler.end(&id(1), None, Moment(1));
    assert_eq!(scheduler.starts(Moment(1))[0].gpus, [GpuIndex(0)]);
}
