//! Accounts and groups in the store: what each change needs to find, lists against a plain model, and races.

mod store_common;

use std::sync::Barrier;

use deputy_core::account::{Status, Step};
use deputy_core::queue::Ceilings;
use deputy_core::size::MilliCpus;
use deputy_core::{GroupName, SessionId};
use deputyd::store::{
    Account, AccountFilter, AccountSort, Acting, Actor, Authentication, Change, JobFilter, PageRequest,
    Scope, Store, StoreError, Timestamp, rebuild,
};
use store_common::{
    Dice, account, activate, actor, application, create, directories, ended, open, options, queue,
};

fn commit(store: &Store, change: Change) -> Result<(), StoreError> {
    store.commit_blocking(change, actor()).map(drop)
}

fn group(name: &str) -> GroupName {
    GroupName::new(name).unwrap()
}

/// A change of this sort to this account.
fn change(step: Step, name: &str) -> Change {
    let (application, account) = (application("demo"), account(name));
    match step {
        Step::Create => create("demo", name),
        Step::Register => Change::AccountRegistered {
            application,
            account,
            email: None,
            first_name: None,
            last_name: None,
            role: "user".to_owned(),
            group: None,
        },
        Step::Approve => Change::AccountApproved { application, account },
        Step::Reject => Change::AccountRejected { application, account, reason: "no".to_owned() },
        Step::Edit => Change::AccountEdited {
            application,
            account,
            email: Some(String::new()),
            first_name: Some("Ada".to_owned()),
            last_name: None,
        },
        Step::SetRole => set_role(name, "user", "viewer"),
        Step::Deactivate => Change::AccountDeactivated { application, account, reason: "left".to_owned() },
        Step::Reactivate => Change::AccountReactivated { application, account },
        Step::Delete => Change::AccountDeleted { application, account },
    }
}

fn set_role(name: &str, from: &str, to: &str) -> Change {
    Change::RoleChanged {
        application: application("demo"),
        account: account(name),
        group: None,
        from: Some(from.to_owned()),
        to: Some(to.to_owned()),
    }
}

fn session(name: &str, number: u64, expires: Timestamp, how: Authentication) -> Change {
    let mut random = [0; SessionId::BYTES];
    random[..8].copy_from_slice(&number.to_be_bytes());
    Change::SessionOpened {
        id: SessionId::from_random(random),
        application: application("demo"),
        account: account(name),
        service_uid: 990,
        how,
        expires,
        ends: None,
        idle_seconds: None,
    }
}

fn vouched() -> Authentication {
    Authentication::Vouched { issuer: String::new(), subject: String::new() }
}

const FAR: Timestamp = Timestamp(u64::MAX / 2);

fn status(store: &Store, name: &str) -> Option<Status> {
    store.account(&application("demo"), &account(name)).unwrap().map(|account| account.status)
}

/// Brings a new account into a status.
fn bring(store: &Store, name: &str, to: Option<Status>) {
    let steps: &[Step] = match to {
        None => &[],
        Some(Status::Pending) => &[Step::Register],
        Some(Status::Active) => &[Step::Create],
        Some(Status::Rejected) => &[Step::Register, Step::Reject],
        Some(Status::Deactivated) => &[Step::Create, Step::Deactivate],
    };
    for step in steps {
        commit(store, change(*step, name)).unwrap();
    }
}

#[test]
fn limits_are_of_accounts_that_are_there_and_survive_edits_and_a_rebuild() {
    let place = tempfile::tempdir().unwrap();
    let (store, _) = open(place.path()).unwrap();
    let limited = |name: &str, jobs: Option<u32>| Change::AccountLimited {
        application: application("demo"),
        account: account(name),
        limits: Ceilings { jobs, cpus: jobs.map(|jobs| MilliCpus(jobs * 500)), ..Ceilings::default() },
    };
    assert!(matches!(commit(&store, limited("absent", Some(1))), Err(StoreError::NotFound { .. })));
    bring(&store, "rejected", Some(Status::Rejected));
    assert!(matches!(commit(&store, limited("rejected", Some(1))), Err(StoreError::Conflict { .. })));
    for status in [Status::Pending, Status::Active, Status::Deactivated] {
        bring(&store, &format!("{status}"), Some(status));
        commit(&store, limited(&format!("{status}"), Some(3))).unwrap();
    }
    commit(&store, change(Step::Edit, "active")).unwrap();
    commit(&store, limited("pending", None)).unwrap();
    let limits = |store: &Store, name: &str| {
        store.account(&application("demo"), &account(name)).unwrap().map(|account| account.limits.jobs)
    };
    let all =
        |store: &Store| ["pending", "active", "deactivated", "rejected"].map(|name| limits(store, name));
    let expected = [Some(None), Some(Some(3)), Some(Some(3)), Some(None)];
    assert_eq!(all(&store), expected);
    store.close_blocking().unwrap();
    rebuild(&directories(place.path()), options()).unwrap();
    let (store, _) = open(place.path()).unwrap();
    assert_eq!(all(&store), expected);
    let cpus = store.account(&application("demo"), &account("active")).unwrap().unwrap().limits.cpus;
    assert_eq!(cpus, Some(MilliCpus(1500)));
}

#[test]
fn every_step_from_every_status_is_as_the_rules_say() {
    let place = tempfile::tempdir().unwrap();
    let (store, _) = open(place.path()).unwrap();
    let from = [None].into_iter().chain(Status::ALL.map(Some));
    for (number, before) in from.enumerate() {
        for step in Step::ALL {
            let name = format!("a{number}-{step:?}");
            bring(&store, &name, before);
            assert_eq!(status(&store, &name), before);
            let result = commit(&store, change(step, &name));
            let after = status(&store, &name);
            if let Ok(expected) = step.from(before) {
                result.unwrap_or_else(|error| panic!("{step:?} from {before:?}: {error}"));
                assert_eq!(after, expected, "{step:?} from {before:?}");
            } else {
                let error = result.expect_err("a step that the rules do not have");
                assert!(
                    matches!(error, StoreError::Conflict { .. } | StoreError::NotFound { .. }),
                    "{error}"
                );
                assert_eq!(after, before, "{step:?} from {before:?}");
            }
        }
    }
    let edited = store.account(&application("demo"), &account("a2-Edit")).unwrap().unwrap();
    assert_eq!((edited.email, edited.first_name.as_deref()), (None, Some("Ada")));
}

#[test]
fn who_is_not_active_has_no_session_and_runs_no_job() {
    let place = tempfile::tempdir().unwrap();
    let (store, _) = open(place.path()).unwrap();
    for (number, status) in (0u32..).zip([Status::Pending, Status::Rejected, Status::Deactivated]) {
        let name = format!("x{status}");
        bring(&store, &name, Some(status));
        let opened = commit(&store, session(&name, number.into(), FAR, vouched()));
        assert!(matches!(opened, Err(StoreError::NotActive { .. })), "{opened:?}");
        let queued = commit(&store, queue("demo", &name, 1001, number));
        assert!(matches!(queued, Err(StoreError::NotActive { .. })), "{queued:?}");
    }
    // Sessions end with the deactivation; what is its own stays, and it comes back without its sessions.
    bring(&store, "ann", Some(Status::Active));
    commit(&store, session("ann", 77, FAR, vouched())).unwrap();
    commit(&store, queue("demo", "ann", 1001, 77)).unwrap();
    let found = store.sessions(&application("demo"), Some(&account("ann")), &PageRequest::default()).unwrap();
    assert_eq!(found.items.len(), 1);
    commit(&store, change(Step::Deactivate, "ann")).unwrap();
    let none = store.sessions(&application("demo"), Some(&account("ann")), &PageRequest::default()).unwrap();
    assert!(none.items.is_empty() && store.session(&found.items[0].id).unwrap().is_none());
    assert_eq!(store.open_jobs_of(&application("demo"), &account("ann")).unwrap().len(), 1);
    commit(&store, change(Step::Reactivate, "ann")).unwrap();
    assert!(store.session(&found.items[0].id).unwrap().is_none());
}

#[test]
fn an_account_is_deleted_only_when_nothing_remains() {
    let place = tempfile::tempdir().unwrap();
    let (store, _) = open(place.path()).unwrap();
    let (demo, ann) = (application("demo"), account("ann"));
    let member = |added: bool| {
        let (application, group, account) = (demo.clone(), group("lab"), ann.clone());
        if added {
            Change::MemberAdded { application, group, account, role: None }
        } else {
            Change::MemberRemoved { application, group, account }
        }
    };
    bring(&store, "ann", Some(Status::Active));
    commit(
        &store,
        Change::GroupCreated { application: demo.clone(), group: group("lab"), description: None },
    )
    .unwrap();
    commit(&store, member(true)).unwrap();
    commit(&store, activate("demo", "ann", 1001)).unwrap();
    commit(&store, queue("demo", "ann", 1001, 5)).unwrap();
    commit(&store, session("ann", 1, FAR, vouched())).unwrap();
    // One that is over is nothing.
    commit(&store, session("ann", 2, Timestamp(1), vouched())).unwrap();
    let left = || -> Vec<&str> {
        store.remaining(&demo, &ann).unwrap().into_iter().map(|remaining| remaining.what).collect()
    };
    assert_eq!(left(), ["job", "link", "session", "group"]);
    let group_gone = commit(&store, Change::GroupDeleted { application: demo.clone(), group: group("lab") });
    assert!(matches!(group_gone, Err(StoreError::NotEmpty { .. })), "{group_gone:?}");
    let ways = [
        ended(5, 0),
        Change::SessionClosed {
            id: store.sessions(&demo, Some(&ann), &PageRequest::default()).unwrap().items[0].id.clone(),
            reason: "closed".to_owned(),
        },
        Change::LinkRemoved { application: demo.clone(), account: ann.clone(), jobs_ended: 0 },
        member(false),
    ];
    for way in ways {
        let refused = commit(&store, change(Step::Delete, "ann"));
        assert!(matches!(refused, Err(StoreError::NotEmpty { .. })), "{refused:?}");
        commit(&store, way).unwrap();
    }
    assert!(left().is_empty());
    commit(&store, change(Step::Delete, "ann")).unwrap();
    assert_eq!(status(&store, "ann"), None);
    // Another one of that name has nothing of the first.
    commit(&store, create("demo", "ann")).unwrap();
    assert!(store.sessions(&demo, Some(&ann), &PageRequest::default()).unwrap().items.is_empty());
    let jobs =
        |scope: Scope| store.jobs(&scope, &JobFilter::default(), &PageRequest::default()).unwrap().items;
    assert!(jobs(Scope::Account(demo.clone(), ann.clone())).is_empty());
    assert_eq!(jobs(Scope::Application(demo.clone())).len(), 1);
    commit(&store, Change::GroupDeleted { application: demo, group: group("lab") }).unwrap();
}

#[test]
fn sessions_that_rest_on_a_link_end_with_it_and_no_others_do() {
    let place = tempfile::tempdir().unwrap();
    let (store, _) = open(place.path()).unwrap();
    let (demo, ann) = (application("demo"), account("ann"));
    bring(&store, "ann", Some(Status::Active));
    bring(&store, "helper", Some(Status::Active));
    let acting = |by: &str| Authentication::ActFor { by: account(by), reason: "ticket".to_owned() };
    let left = || {
        let found = store.sessions(&demo, Some(&ann), &PageRequest::default()).unwrap().items;
        let mut how: Vec<_> = found.iter().map(|session| format!("{:?}", session.how)).collect();
        how.sort();
        how.iter().map(|how| how.split([' ', '{']).next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let of_another = session("helper", 90, FAR, Authentication::Os {});
    commit(&store, of_another).unwrap();
    for (round, end) in (0..).zip([
        Change::LinkRevoked { application: demo.clone(), account: ann.clone() },
        Change::LinkStale { application: demo.clone(), account: ann.clone(), reason: "renamed".to_owned() },
        Change::LinkExpired { application: demo.clone(), account: ann.clone() },
        Change::LinkRemoved { application: demo.clone(), account: ann.clone(), jobs_ended: 0 },
    ]) {
        commit(&store, activate("demo", "ann", 1001)).unwrap();
        for (number, how) in (0..).zip([Authentication::Os {}, vouched(), acting("helper")]) {
            commit(&store, session("ann", 10 * round + number, FAR, how)).unwrap();
        }
        assert_eq!(left(), ["ActFor", "Os", "Vouched"], "{round}");
        commit(&store, end.clone()).unwrap();
        let expected: &[&str] = match end {
            Change::LinkExpired { .. } => &["ActFor", "Os", "Vouched"],
            Change::LinkRemoved { .. } => &[],
            _ => &["ActFor", "Vouched"],
        };
        assert_eq!(left(), expected, "{end:?}");
        for session in store.sessions(&demo, Some(&ann), &PageRequest::default()).unwrap().items {
            let change = Change::SessionClosed { id: session.id, reason: "closed".to_owned() };
            commit(&store, change).unwrap();
        }
    }
    let others = store.sessions(&demo, Some(&account("helper")), &PageRequest::default()).unwrap();
    assert_eq!(others.items.len(), 1);
}

#[test]
fn the_first_account_is_first_and_the_last_superuser_stays() {
    let place = tempfile::tempdir().unwrap();
    let (store, _) = open(place.path()).unwrap();
    let first = |name: &str| {
        let Change::AccountCreated { application, account, email, first_name, last_name, group, .. } =
            create("demo", name)
        else {
            panic!()
        };
        let role = "superuser".to_owned();
        Change::AccountCreated {
            application,
            account,
            email,
            first_name,
            last_name,
            role,
            group,
            first: true,
        }
    };
    commit(&store, first("root1")).unwrap();
    assert!(matches!(commit(&store, first("root2")), Err(StoreError::Conflict { .. })));
    let last = |store: &Store| {
        for change in [
            set_role("root1", "superuser", "administrator"),
            change(Step::Deactivate, "root1"),
            change(Step::Delete, "root1"),
        ] {
            let result = commit(store, change);
            assert!(matches!(result, Err(StoreError::LastSuperuser { .. })), "{result:?}");
        }
    };
    last(&store);
    // A deactivated one does not count.
    bring(&store, "root3", Some(Status::Active));
    commit(&store, set_role("root3", "user", "superuser")).unwrap();
    commit(&store, change(Step::Deactivate, "root3")).unwrap();
    last(&store);
    commit(&store, change(Step::Reactivate, "root3")).unwrap();
    commit(&store, set_role("root1", "superuser", "user")).unwrap();
    // Who decided did not know the present role.
    let stale = commit(&store, set_role("root1", "superuser", "viewer"));
    assert!(matches!(stale, Err(StoreError::Conflict { .. })), "{stale:?}");
}

#[test]
fn of_two_who_take_each_others_role_one_wins() {
    let place = tempfile::tempdir().unwrap();
    let (store, _) = open(place.path()).unwrap();
    bring(&store, "chief", Some(Status::Active));
    commit(&store, set_role("chief", "user", "superuser")).unwrap();
    for name in ["left", "right"] {
        bring(&store, name, Some(Status::Active));
        commit(&store, set_role(name, "user", "superuser")).unwrap();
    }
    let by = |name: &str| Actor {
        by: Some(Acting { account: account(name), role: "superuser".to_owned(), group: None, session: None }),
        ..actor()
    };
    for _ in 0..200 {
        let barrier = Barrier::new(2);
        let demote = |who: &'static str, whom: &'static str| {
            barrier.wait();
            store.commit_blocking(set_role(whom, "superuser", "user"), by(who))
        };
        let (left, right) = std::thread::scope(|scope| {
            let left = scope.spawn(|| demote("left", "right"));
            let right = scope.spawn(|| demote("right", "left"));
            (left.join().unwrap(), right.join().unwrap())
        });
        let (won, lost, loser) = match (left, right) {
            (Ok(_), Err(lost)) => ("left", lost, "right"),
            (Err(lost), Ok(_)) => ("right", lost, "left"),
            other => panic!("exactly one wins: {other:?}"),
        };
        assert!(matches!(lost, StoreError::ActorChanged { .. }), "{lost}");
        let role = |name: &str| store.account(&application("demo"), &account(name)).unwrap().unwrap().role;
        assert_eq!((role(won), role(loser)), ("superuser".to_owned(), "user".to_owned()));
        commit(&store, set_role(loser, "user", "superuser")).unwrap();
    }
}

/// What the lists have to say, found by looking at every account.
fn model(store: &Store, all: &[Account], filter: &AccountFilter) -> Vec<String> {
    let demo = application("demo");
    let mut found: Vec<&Account> = all
        .iter()
        .filter(|account| {
            filter.name_start.as_ref().is_none_or(|start| account.name.as_str().starts_with(start.as_str()))
                && filter.role.as_ref().is_none_or(|role| *role == account.role)
                && filter.status.is_none_or(|status| status == account.status)
                && filter.text.as_ref().is_none_or(|text| {
                    account.name.as_str().contains(text.as_str())
                        || account.email.as_ref().is_some_and(|email| email.contains(text.as_str()))
                })
                && filter
                    .group
                    .as_ref()
                    .is_none_or(|group| store.membership(&demo, group, &account.name).unwrap().is_some())
                && filter.unused_since.is_none_or(|since| {
                    account.created < since && account.last_login.is_none_or(|login| login < since)
                })
        })
        .collect();
    found.sort_by_key(|account| {
        let moment = match filter.sort {
            AccountSort::Name => Timestamp(0),
            AccountSort::Created => account.created,
            AccountSort::LastLogin => account.last_login.unwrap_or_default(),
        };
        // Those that logged in at the same moment, or never, are by age.
        let age = if filter.sort == AccountSort::LastLogin { account.created } else { Timestamp(0) };
        (moment, age, account.name.clone())
    });
    if filter.descending {
        found.reverse();
    }
    found.into_iter().map(|account| account.name.to_string()).collect()
}

fn listed(store: &Store, filter: &AccountFilter, limit: usize) -> Vec<String> {
    let mut page = PageRequest::first(limit);
    let mut names = Vec::new();
    loop {
        let found = store.accounts(&application("demo"), filter, &page).unwrap();
        assert!(found.items.len() <= limit);
        names.extend(found.items.iter().map(|account| account.name.to_string()));
        page.after = found.next;
        if page.after.is_none() {
            return names;
        }
    }
}

fn check_lists(store: &Store, middle: Timestamp) {
    let every = listed(store, &AccountFilter::default(), 1000);
    let all: Vec<Account> = every
        .iter()
        .map(|name| store.account(&application("demo"), &account(name)).unwrap().unwrap())
        .collect();
    assert_eq!(store.account_count(&application("demo")).unwrap(), all.len() as u64);
    let statuses = [None].into_iter().chain(Status::ALL.map(Some));
    let mut compared = 0;
    for status in statuses {
        for role in [None, Some("user"), Some("viewer"), Some("nobody")] {
            for group_name in [None, Some("lab")] {
                for (text, start, unused) in [
                    (None, None, None),
                    (Some("3"), None, None),
                    (None, Some("u1"), None),
                    (None, None, Some(middle)),
                ] {
                    for sort in [AccountSort::Name, AccountSort::Created, AccountSort::LastLogin] {
                        for descending in [false, true] {
                            let filter = AccountFilter {
                                name_start: start.map(str::to_owned),
                                role: role.map(str::to_owned),
                                status,
                                group: group_name.map(group),
                                text: text.map(str::to_owned),
                                unused_since: unused,
                                sort,
                                descending,
                            };
                            let expected = model(store, &all, &filter);
                            assert_eq!(listed(store, &filter, 7), expected, "{filter:?}");
                            compared += expected.len();
                        }
                    }
                }
            }
        }
    }
    assert!(compared > 1000, "{compared} names compared");
}

#[test]
fn lists_are_what_looking_at_every_account_finds() {
    let mut dice = Dice::thrown();
    let place = tempfile::tempdir().unwrap();
    let (store, _) = open(place.path()).unwrap();
    let demo = application("demo");
    commit(
        &store,
        Change::GroupCreated { application: demo.clone(), group: group("lab"), description: None },
    )
    .unwrap();
    // Another application's accounts and those of a name that begins with this one's are in none of the lists.
    commit(&store, create("demo2", "u1")).unwrap();
    let mut middle = Timestamp(0);
    for number in 0..60 {
        let name = format!("u{number}");
        let status = Status::ALL[usize::try_from(dice.below(4)).unwrap()];
        bring(&store, &name, Some(status));
        if status != Status::Rejected && dice.below(3) == 0 {
            commit(&store, set_role(&name, "user", "viewer")).unwrap();
        }
        if status == Status::Active && dice.below(2) == 0 {
            commit(&store, session(&name, number, FAR, vouched())).unwrap();
        }
        if dice.below(2) == 0 {
            let (application, account) = (demo.clone(), account(&name));
            commit(&store, Change::MemberAdded { application, group: group("lab"), account, role: None })
                .unwrap();
        }
        if number == 30 {
            middle = Timestamp::now();
        }
    }
    check_lists(&store, middle);
    store.close_blocking().unwrap();
    rebuild(&directories(place.path()), options()).unwrap();
    let (store, _) = open(place.path()).unwrap();
    check_lists(&store, middle);
}
