//! Pages of accounts against what looking at every account finds, and what they cost.

use std::collections::{BTreeMap, BTreeSet};

use deputy_core::account::Status;
use deputy_core::{AccountName, ApplicationName, GroupName, SessionId};

use super::accounts::{AccountFilter, AccountSort};
use super::walk::Work;
use crate::store::change::{Actor, Authentication, Body, Change};
use crate::store::clock::Timestamp;
use crate::store::open::{self, Prepared};
use crate::store::page::PageRequest;
use crate::store::record::Account;
use crate::store::{Directories, Options, Store};

/// Half of the accounts were made before, half after.
const MIDDLE: Timestamp = Timestamp(500_000_000);
const FAR: Timestamp = Timestamp(u64::MAX / 4);
const ROLES: [&str; 3] = ["user", "viewer", "head"];

fn demo() -> ApplicationName {
    ApplicationName::new("demo").unwrap()
}

fn named(name: &str) -> AccountName {
    AccountName::new(name).unwrap()
}

fn group(name: &str) -> GroupName {
    GroupName::new(name).unwrap()
}

/// Numbers that look random and are the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }
}

fn created(name: &str, role: &str) -> Change {
    Change::AccountCreated {
        application: demo(),
        account: named(name),
        email: Some(format!("{name}@example.org")),
        first_name: None,
        last_name: None,
        role: role.to_owned(),
        group: None,
        first: false,
    }
}

fn registered(name: &str, role: &str) -> Change {
    Change::AccountRegistered {
        application: demo(),
        account: named(name),
        email: None,
        first_name: Some("Ada".to_owned()),
        last_name: None,
        role: role.to_owned(),
        group: None,
    }
}

fn logged_in(name: &str, number: u64) -> Change {
    let mut random = [0; SessionId::BYTES];
    random[..8].copy_from_slice(&number.to_be_bytes());
    Change::SessionOpened {
        id: SessionId::from_random(random),
        application: demo(),
        account: named(name),
        service_uid: 990,
        how: Authentication::Os {},
        expires: FAR,
        ends: None,
        idle_seconds: None,
    }
}

fn deactivated(name: &str) -> Change {
    Change::AccountDeactivated { application: demo(), account: named(name), reason: "gone".to_owned() }
}

/// A store with so many accounts of every sort, made at random moments.
fn filled(place: &tempfile::TempDir, count: u64, numbers: &mut Numbers) -> Store {
    let directories = Directories { ledger: place.path().join("ledger"), view: place.path().join("view") };
    let options = || Options { boot: "one".to_owned(), ..Options::default() };
    let mut changes = Vec::new();
    for name in ["small", "large"] {
        changes.push(Change::GroupCreated { application: demo(), group: group(name), description: None });
    }
    // In the same order as the names of none of the others.
    for number in 0..count {
        let name = format!("u{}", number * 7919 % count);
        let role = numbers.one_of(&["user", "user", "user", "user", "viewer", "viewer", "viewer", "head"]);
        match numbers.below(8) {
            0 => changes.push(registered(&name, role)),
            1 => {
                changes.push(registered(&name, role));
                let (application, account) = (demo(), named(&name));
                changes.push(Change::AccountRejected { application, account, reason: "who?".to_owned() });
            }
            2 | 3 => {
                changes.push(created(&name, role));
                if numbers.below(2) == 0 {
                    changes.push(logged_in(&name, number));
                }
                changes.push(deactivated(&name));
            }
            _ => {
                changes.push(created(&name, role));
                if numbers.below(2) == 0 {
                    changes.push(logged_in(&name, number));
                }
            }
        }
        let joins = match numbers.below(40) {
            0 => Some("small"),
            1..=20 => Some("large"),
            _ => None,
        };
        if let Some(joins) = joins {
            let (application, account) = (demo(), named(&name));
            changes.push(Change::MemberAdded { application, account, group: group(joins), role: None });
        }
    }
    let mut at = Timestamp(1);
    let step = 2 * MIDDLE.0 / changes.len() as u64;
    let bodies = changes.into_iter().map(|change| {
        at.0 += numbers.below(2) * step;
        Body { at, actor: Actor::daemon("test"), change }
    });
    let Prepared { mut writer, .. } = open::prepare(&directories, options()).unwrap();
    writer.import(bodies.collect()).unwrap();
    writer.close().unwrap();
    drop(writer);
    Store::open_with(&directories, options()).unwrap().0
}

/// Every account, with the groups that it is in.
fn everyone(store: &Store) -> Vec<(Account, BTreeSet<GroupName>)> {
    let mut page = PageRequest::first(1000);
    let mut all = Vec::new();
    loop {
        let found = store.all_accounts(&page).unwrap();
        for account in found.items {
            let memberships = store.memberships(&demo(), &account.name).unwrap();
            all.push((account, memberships.into_iter().map(|one| one.group).collect()));
        }
        page.after = found.next;
        if page.after.is_none() {
            return all;
        }
    }
}

fn matches(account: &Account, groups: &BTreeSet<GroupName>, filter: &AccountFilter) -> bool {
    let text = |text: &String| {
        account.name.as_str().contains(text.as_str())
            || account.email.as_ref().is_some_and(|email| email.contains(text.as_str()))
            || account.first_name.as_ref().is_some_and(|name| name.contains(text.as_str()))
    };
    let unused =
        |since: Timestamp| account.created < since && account.last_login.is_none_or(|login| login < since);
    filter.name_start.as_ref().is_none_or(|start| account.name.as_str().starts_with(start.as_str()))
        && filter.role.as_ref().is_none_or(|role| *role == account.role)
        && filter.status.is_none_or(|status| status == account.status)
        && filter.group.as_ref().is_none_or(|group| groups.contains(group))
        && filter.text.as_ref().is_none_or(text)
        && filter.unused_since.is_none_or(unused)
}

/// The names that a list has to have, in its order.
fn expected(all: &[(Account, BTreeSet<GroupName>)], filter: &AccountFilter) -> Vec<AccountName> {
    let mut found: Vec<&Account> =
        all.iter().filter(|(account, groups)| matches(account, groups, filter)).map(|one| &one.0).collect();
    found.sort_by_key(|account| {
        let login = account.last_login.unwrap_or_default();
        let moments = match filter.sort {
            AccountSort::Name => [Timestamp(0), Timestamp(0)],
            AccountSort::Created => [account.created, Timestamp(0)],
            AccountSort::LastLogin => [login, account.created],
        };
        (moments, account.name.clone())
    });
    if filter.descending {
        found.reverse();
    }
    found.into_iter().map(|account| account.name.clone()).collect()
}

/// Filters with one condition, and with each two that can stand together.
fn filters() -> Vec<AccountFilter> {
    let none = AccountFilter::default;
    let mut one: Vec<AccountFilter> = Vec::new();
    one.extend(Status::ALL.map(|status| AccountFilter { status: Some(status), ..none() }));
    one.extend(ROLES.map(|role| AccountFilter { role: Some(role.to_owned()), ..none() }));
    one.extend(["small", "large"].map(|name| AccountFilter { group: Some(group(name)), ..none() }));
    one.extend(["17", "Ada", "no such"].map(|text| AccountFilter { text: Some(text.to_owned()), ..none() }));
    one.push(AccountFilter { name_start: Some("u1".to_owned()), ..none() });
    one.push(AccountFilter { unused_since: Some(MIDDLE), ..none() });
    let mut all = vec![none()];
    for (at, first) in one.iter().enumerate() {
        all.push(first.clone());
        for second in &one[at + 1..] {
            all.push(AccountFilter {
                name_start: second.name_start.clone().or(first.name_start.clone()),
                role: second.role.clone().or(first.role.clone()),
                status: second.status.or(first.status),
                group: second.group.clone().or(first.group.clone()),
                text: second.text.clone().or(first.text.clone()),
                unused_since: second.unused_since.or(first.unused_since),
                ..none()
            });
        }
    }
    all
}

fn in_every_order(filter: &AccountFilter) -> Vec<AccountFilter> {
    let sorts = [AccountSort::Name, AccountSort::Created, AccountSort::LastLogin];
    let both = |sort| [false, true].map(|descending| AccountFilter { sort, descending, ..filter.clone() });
    sorts.into_iter().flat_map(both).collect()
}

#[test]
fn pages_joined_are_what_looking_at_every_account_finds_and_none_costs_more_than_its_bound() {
    /// As much as a group that is put in order here; a page may end with one row that costs two look-ups.
    const BOUND: usize = 101 * 20;
    const LAST: usize = 2 * 20;
    let place = tempfile::tempdir().unwrap();
    let mut numbers = Numbers(11);
    let store = filled(&place, 2000, &mut numbers);
    let all = everyone(&store);
    assert_eq!(all.len(), 2000);
    let (mut compared, mut short) = (0, 0);
    for filter in filters().iter().flat_map(in_every_order) {
        let limit = numbers.one_of(&[9, 30, 100, 1000]);
        let bound = numbers.one_of(&[300, 1000, BOUND]);
        let mut page = PageRequest::first(limit);
        let mut names = Vec::new();
        loop {
            let mut work = Work::of(bound);
            let found = store.accounts_within(&demo(), &filter, &page, &mut work).unwrap();
            let (rows, look_ups) = work.done;
            let small = filter.group == Some(group("small")) && filter.sort != AccountSort::Name;
            let most = if small { BOUND } else { bound + LAST };
            assert!(rows + 20 * look_ups <= most, "{rows} rows, {look_ups} look-ups for {filter:?}");
            assert!(found.items.len() <= limit);
            short += usize::from(found.items.len() < limit && found.next.is_some());
            names.extend(found.items.into_iter().map(|account| account.name));
            page.after = found.next;
            if page.after.is_none() {
                break;
            }
        }
        assert_eq!(names, expected(&all, &filter), "{filter:?}");
        compared += names.len();
    }
    assert!(compared > 100_000 && short > 100, "{compared} names compared, {short} pages came short");
}

#[test]
fn a_page_of_100_costs_no_more_than_2200_rows_however_rare_its_accounts() {
    let place = tempfile::tempdir().unwrap();
    let store = filled(&place, 3000, &mut Numbers(5));
    let mut bounds = BTreeSet::new();
    for filter in filters().iter().flat_map(in_every_order) {
        let mut work = Work::for_items(100);
        store.accounts_within(&demo(), &filter, &PageRequest::first(100), &mut work).unwrap();
        bounds.insert(work.done.0 + 20 * work.done.1);
    }
    assert!(bounds.last().is_some_and(|most| (2000..=2200).contains(most)), "{bounds:?}");
}

#[test]
fn changes_between_pages_show_no_account_twice_and_lose_none() {
    let place = tempfile::tempdir().unwrap();
    let mut numbers = Numbers(3);
    let store = filled(&place, 1000, &mut numbers);
    let commit = |change| store.commit_blocking(change, Actor::daemon("test")).is_ok();
    let (mut session, mut new) = (1_000_000, 0);
    let mut kept = 0;
    for filter in [
        AccountFilter::default(),
        AccountFilter { status: Some(Status::Active), ..AccountFilter::default() },
        AccountFilter { status: Some(Status::Deactivated), ..AccountFilter::default() },
        AccountFilter { role: Some("viewer".to_owned()), ..AccountFilter::default() },
        AccountFilter { group: Some(group("small")), ..AccountFilter::default() },
        AccountFilter { group: Some(group("large")), ..AccountFilter::default() },
        AccountFilter { text: Some("7".to_owned()), ..AccountFilter::default() },
    ]
    .iter()
    .flat_map(in_every_order)
    {
        let before = everyone(&store);
        let mut touched = BTreeSet::new();
        let mut listed: BTreeMap<AccountName, usize> = BTreeMap::new();
        let mut page = PageRequest::first(20);
        loop {
            let found = store.accounts_within(&demo(), &filter, &page, &mut Work::of(600)).unwrap();
            for account in found.items {
                *listed.entry(account.name).or_default() += 1;
            }
            page.after = found.next;
            if page.after.is_none() {
                break;
            }
            for _ in 0..2 {
                let name = numbers.one_of(&before.iter().map(|(one, _)| &one.name).collect::<Vec<_>>());
                touched.insert(name.clone());
                new += 1;
                session += 1;
                let (application, account) = (demo(), name.clone());
                let change = match numbers.below(6) {
                    0 => created(&format!("u{}new{new}", numbers.below(1000)), "viewer"),
                    1 => deactivated(name.as_str()),
                    2 => Change::AccountReactivated { application, account },
                    3 => Change::AccountDeleted { application, account },
                    _ => logged_in(name.as_str(), session),
                };
                // What cannot be done in the account's state is refused, and nothing has changed.
                commit(change);
            }
        }
        for (name, times) in &listed {
            // Only who logs in meanwhile moves to another place of that order.
            let moved = filter.sort == AccountSort::LastLogin && touched.contains(name);
            assert!(*times == 1 || moved, "{name} is listed {times} times for {filter:?}");
        }
        for (account, groups) in &before {
            if matches(account, groups, &filter) && !touched.contains(&account.name) {
                assert!(listed.contains_key(&account.name), "{} is lost for {filter:?}", account.name);
                kept += 1;
            }
        }
    }
    assert!(kept > 5000, "{kept}");
}
