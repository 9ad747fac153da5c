//! The store alone, with very many accounts: `deputy-bench store FOLDER` fills it and `deputy-bench ask FOLDER` asks it,
//! as the user whose the folder shall be. Two processes, so that the memory of the one that asks is its own.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use deputy_core::account::Status;
use deputy_core::{AccountName, ApplicationName, GroupName};
use deputyd::store::{AccountFilter, AccountSort, Actor, Change, Directories, PageRequest, Store, Timestamp};
use serde::{Deserialize, Serialize};

use crate::processes::Resident;
use crate::statistics::quantile;

/// What filling found.
#[derive(Debug, Serialize, Deserialize)]
pub struct Filled {
    /// How many were added in a second, many at once.
    pub added_per_second: u64,
    /// A commit alone, nanoseconds: the middle one.
    pub commit_ns: u64,
}

/// What asking found.
#[derive(Debug, Serialize, Deserialize)]
pub struct Asked {
    /// How many accounts there were.
    pub accounts: u64,
    /// A look-up by name, nanoseconds: the middle one, and the one of a hundred.
    pub look_up_ns: [u64; 2],
    /// A page of 100 by each filter and order, nanoseconds.
    pub pages: Vec<PageTime>,
    /// In memory before the store was opened.
    pub before: Resident,
    /// When it was open.
    pub opened: Resident,
    /// After the look-ups.
    pub looked_up: Resident,
    /// After the pages.
    pub paged: Resident,
}

/// The slowest of the first pages of a filter.
#[derive(Debug, Serialize, Deserialize)]
pub struct PageTime {
    /// Which accounts, in which order.
    pub filter: String,
    /// How many accounts the first page had.
    pub items: usize,
    /// Its time, nanoseconds.
    pub nanoseconds: u64,
}

const FIRST: [&str; 16] = [
    "Ada", "Bruno", "Chiara", "Dmitri", "Elif", "Farid", "Greta", "Hiroshi", "Ines", "Jakub", "Kavita",
    "Liam", "Mei", "Noor", "Olga", "Pedro",
];
const LAST: [&str; 16] = [
    "Almeida",
    "Berger",
    "Castellanos",
    "Dubois",
    "Eriksson",
    "Fischer",
    "Grigoryan",
    "Haddad",
    "Ivanova",
    "Johansson",
    "Kowalczyk",
    "Lindqvist",
    "Moreau",
    "Nakamura",
    "Okonkwo",
    "Petrov",
];

/// How many changes are under way at once.
const AT_ONCE: u64 = 1000;
/// How many commits and look-ups are measured one by one. So many look-ups meet nearly every part of the view.
const SINGLE: u64 = 1000;
const LOOK_UPS: u64 = 100_000;
/// How many pages of each list are read.
const PAGES: usize = 5;

/// A number that looks random.
fn mixed(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20
}

/// The names are in another order than that in which they come.
fn name_of(number: u64) -> Result<AccountName> {
    Ok(AccountName::new(format!("{:05x}-{number}", mixed(number) >> 24))?)
}

/// An account: one in a thousand waits to be approved, one in ten has another role, one in a hundred is in the group.
fn created(application: &ApplicationName, number: u64) -> Result<Change> {
    let pick = |words: &[&'static str; 16], shift: u32| {
        words[usize::try_from(mixed(number) >> shift & 15).unwrap_or_default()]
    };
    let (first, last) = (pick(&FIRST, 0), pick(&LAST, 10));
    let application = application.clone();
    let account = name_of(number)?;
    let email =
        Some(format!("{}.{}{}@example.org", first.to_lowercase(), last.to_lowercase(), mixed(number) % 997));
    let (first_name, last_name) = (Some(first.to_owned()), Some(last.to_owned()));
    let role = if number % 10 == 3 { "viewer" } else { "user" }.to_owned();
    let group = (number % 100 == 5).then(|| GroupName::new("lab")).transpose()?;
    Ok(if number % 1000 == 7 {
        Change::AccountRegistered { application, account, email, first_name, last_name, role, group }
    } else {
        Change::AccountCreated {
            application,
            account,
            email,
            first_name,
            last_name,
            role,
            group,
            first: false,
        }
    })
}

fn open(folder: &Path) -> Result<Store> {
    let places = Directories { ledger: folder.join("ledger"), view: folder.join("view") };
    Ok(Store::open(&places)?.0)
}

/// Fills a store in this folder.
pub fn fill(folder: &Path, accounts: u64) -> Result<Filled> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let store = open(folder)?;
    let filled = runtime.block_on(filled(&store, accounts))?;
    store.close_blocking()?;
    Ok(filled)
}

async fn filled(store: &Store, accounts: u64) -> Result<Filled> {
    let application = ApplicationName::new("demo")?;
    let actor = || Actor::daemon("bench");
    for name in ["lab", "lab2"] {
        let group = GroupName::new(name)?;
        let change = Change::GroupCreated { application: application.clone(), group, description: None };
        store.commit(change, actor()).await?;
    }
    let mut alone = Vec::new();
    for number in 0..SINGLE {
        let begun = Instant::now();
        store.commit(created(&application, number)?, actor()).await?;
        alone.push(nanoseconds(begun));
    }
    let begun = Instant::now();
    let tasks = (0..AT_ONCE).map(|task| {
        let application = &application;
        async move {
            let mut number = SINGLE + task;
            while number < accounts {
                store.commit(created(application, number)?, actor()).await?;
                number += AT_ONCE;
            }
            Ok::<_, anyhow::Error>(())
        }
    });
    futures_util::future::try_join_all(tasks).await?;
    let seconds = begun.elapsed().as_secs_f64();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let added_per_second = ((accounts - SINGLE) as f64 / seconds) as u64;
    // A small group, too.
    for number in 0..50 {
        let (application, group) = (application.clone(), GroupName::new("lab2")?);
        let account = name_of(number * 7919 % accounts)?;
        store.commit(Change::MemberAdded { application, account, group, role: None }, actor()).await?;
    }
    Ok(Filled { added_per_second, commit_ns: quantile(&mut alone, 50) })
}

/// Asks the store that was filled in this folder.
pub fn ask(folder: &Path) -> Result<Asked> {
    let before = Resident::of("self")?;
    let store = open(folder)?;
    let asked = asked(&store, before)?;
    store.close_blocking()?;
    Ok(asked)
}

fn asked(store: &Store, before: Resident) -> Result<Asked> {
    let application = ApplicationName::new("demo")?;
    let opened = Resident::of("self")?;
    let accounts = store.account_count(&application)?;
    let mut look_ups = Vec::new();
    for number in 0..LOOK_UPS {
        let name = name_of(number * 7919 % accounts)?;
        let begun = Instant::now();
        let account = store.account(&application, &name)?;
        look_ups.push(nanoseconds(begun));
        ensure!(account.is_some(), "{name} is not there");
    }
    let looked_up = Resident::of("self")?;
    let look_up_ns = [quantile(&mut look_ups, 50), quantile(&mut look_ups, 99)];
    let mut pages = Vec::new();
    for (name, filter) in filters() {
        for sort in [AccountSort::Name, AccountSort::Created, AccountSort::LastLogin] {
            for descending in [false, true] {
                let filter = AccountFilter { sort, descending, ..filter.clone() };
                let order = if descending { ", backwards" } else { "" };
                pages.push(slowest(store, &application, &filter, format!("{name} by {sort:?}{order}"))?);
            }
        }
    }
    Ok(Asked { accounts, look_up_ns, pages, before, opened, looked_up, paged: Resident::of("self")? })
}

/// The slowest of the first pages.
fn slowest(
    store: &Store,
    application: &ApplicationName,
    filter: &AccountFilter,
    name: String,
) -> Result<PageTime> {
    let mut found = PageTime { filter: name, items: 0, nanoseconds: 0 };
    let mut page = PageRequest::first(100);
    for _ in 0..PAGES {
        let begun = Instant::now();
        let part = store.accounts(application, filter, &page)?;
        let took = nanoseconds(begun);
        if took > found.nanoseconds {
            (found.items, found.nanoseconds) = (part.items.len(), took);
        }
        page.after = part.next;
        if page.after.is_none() {
            break;
        }
    }
    Ok(found)
}

/// One condition, and two of them.
fn filters() -> Vec<(String, AccountFilter)> {
    let none = AccountFilter::default;
    let group = |name: &str| GroupName::new(name).ok();
    let text = |text: &str| Some(text.to_owned());
    let one = [
        ("pending", AccountFilter { status: Some(Status::Pending), ..none() }),
        ("active", AccountFilter { status: Some(Status::Active), ..none() }),
        ("deactivated", AccountFilter { status: Some(Status::Deactivated), ..none() }),
        ("role user", AccountFilter { role: text("user"), ..none() }),
        ("role viewer", AccountFilter { role: text("viewer"), ..none() }),
        ("role superuser", AccountFilter { role: text("superuser"), ..none() }),
        ("text moreau", AccountFilter { text: text("moreau"), ..none() }),
        ("text that nobody has", AccountFilter { text: text("nobody has this"), ..none() }),
        ("unused now", AccountFilter { unused_since: Some(Timestamp::now()), ..none() }),
        (
            "unused for 90 days",
            AccountFilter {
                unused_since: Some(Timestamp(Timestamp::now().0 - 90 * 86_400_000_000)),
                ..none()
            },
        ),
        ("group of 10,000", AccountFilter { group: group("lab"), ..none() }),
        ("group of 50", AccountFilter { group: group("lab2"), ..none() }),
        ("name a1...", AccountFilter { name_start: text("a1"), ..none() }),
    ];
    let mut all = vec![("all".to_owned(), none())];
    for (at, (name, first)) in one.iter().enumerate() {
        all.push(((*name).to_owned(), first.clone()));
        for (other, second) in &one[at + 1..] {
            all.push((
                format!("{name} and {other}"),
                AccountFilter {
                    name_start: second.name_start.clone().or(first.name_start.clone()),
                    role: second.role.clone().or(first.role.clone()),
                    status: second.status.or(first.status),
                    group: second.group.clone().or(first.group.clone()),
                    text: second.text.clone().or(first.text.clone()),
                    unused_since: second.unused_since.or(first.unused_since),
                    ..none()
                },
            ));
        }
    }
    all
}

fn nanoseconds(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Runs `deputy-bench store` and `deputy-bench ask` as `deputy`.
pub fn measured_as_deputy(folder: &Path, accounts: u64) -> Result<(Filled, Asked)> {
    let run = |arguments: &[&str]| {
        let output = crate::accounts::as_deputy("deputy-bench").args(arguments).arg(folder).output();
        let output = output.context("setpriv")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(output.stdout)
    };
    let filled = serde_json::from_slice(&run(&["store", "--accounts", &accounts.to_string()])?)?;
    Ok((filled, serde_json::from_slice(&run(&["ask"])?)?))
}
