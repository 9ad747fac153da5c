//! Measures the store: commits one at a time and many at once, look-ups, pages, and opening with many accounts.
//!
//! `cargo run --release -p deputyd --example store_bench [-- FOLDER [ACCOUNTS]]`

use std::path::PathBuf;
use std::time::{Duration, Instant};

use deputy_core::account::Status;
use deputy_core::{AccountName, ApplicationName};
use deputyd::store::{
    AccountFilter, AccountSort, Actor, Change, Directories, Options, PageRequest, Store, Timestamp,
};

fn create(application: &ApplicationName, number: u64) -> Change {
    // One in a thousand waits to be approved.
    if number % 1000 == 7 {
        return Change::AccountRegistered {
            application: application.clone(),
            account: AccountName::new(format!("user-{number:09}")).expect("a name"),
            email: Some(format!("user-{number}@example.org")),
            first_name: None,
            last_name: None,
            role: "user".to_owned(),
            group: None,
        };
    }
    Change::AccountCreated {
        application: application.clone(),
        account: AccountName::new(format!("user-{number:09}")).expect("a name"),
        email: Some(format!("user-{number}@example.org")),
        first_name: None,
        last_name: None,
        role: "user".to_owned(),
        group: None,
        first: false,
    }
}

fn rate(what: &str, count: u64, time: Duration) {
    #[expect(clippy::cast_precision_loss, reason = "a rate to read")]
    let each = time.as_secs_f64() * 1e6 / count as f64;
    println!("{what}: {count} in {time:.2?}, {each:.1} us each, {:.0}/s", 1e6 / each);
}

/// The first page of 100 in each order, of all and of the few that differ from the others.
fn filtered(store: &Store, application: &ApplicationName) {
    let few = AccountFilter { status: Some(Status::Pending), ..AccountFilter::default() };
    let most = AccountFilter { status: Some(Status::Active), ..AccountFilter::default() };
    let unused = AccountFilter { unused_since: Some(Timestamp::now()), ..AccountFilter::default() };
    for (what, filter) in [("pending", few), ("active", most), ("unused", unused)] {
        for sort in [AccountSort::Name, AccountSort::Created, AccountSort::LastLogin] {
            for descending in [false, true] {
                let filter = AccountFilter { sort, descending, ..filter.clone() };
                let begun = Instant::now();
                let found = store.accounts(application, &filter, &PageRequest::first(100)).expect("read");
                println!(
                    "{what} by {sort:?}, descending {descending}: {} in {:.2?}",
                    found.items.len(),
                    begun.elapsed()
                );
            }
        }
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().unwrap_or_else(|| "store-bench".to_owned()));
    let accounts: u64 = arguments.next().map_or(100_000, |n| n.parse().expect("a number of accounts"));
    std::fs::create_dir_all(&folder).expect("the folder can be made");
    let places = Directories { ledger: folder.join("ledger"), view: folder.join("view") };
    let application = ApplicationName::new("demo").expect("a name");
    let begun = Instant::now();
    let (store, report) = Store::open(&places).expect("the store opens");
    println!("open: {} records in {:.2?}, {:?}", report.last_number, begun.elapsed(), report.view_rebuilt);
    let mut next = report.last_number;

    let mut times = Vec::new();
    for _ in 0..2000 {
        let begun = Instant::now();
        store.commit(create(&application, next), Actor::daemon("bench")).await.expect("committed");
        times.push(begun.elapsed());
        next += 1;
    }
    rate("commits, 1 in flight", 2000, times.iter().sum());
    times.sort_unstable();
    println!("  median {:.2?}, 99th of 100 {:.2?}", times[1000], times[1980]);

    for in_flight in [8_u64, 64, 1000] {
        let count = if in_flight == 1000 { accounts } else { 20_000 };
        let begun = Instant::now();
        let tasks: Vec<_> = (0..in_flight)
            .map(|task| {
                let (store, application) = (store.clone(), application.clone());
                tokio::spawn(async move {
                    let mut number = task;
                    while number < count {
                        let change = create(&application, next + number);
                        store.commit(change, Actor::daemon("bench")).await.expect("committed");
                        number += in_flight;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("the task ends");
        }
        next += count;
        rate(&format!("commits, {in_flight} in flight"), count, begun.elapsed());
    }

    let begun = Instant::now();
    for number in 0..100_000 {
        let name = AccountName::new(format!("user-{:09}", number * 7919 % next)).expect("a name");
        assert!(store.account(&application, &name).expect("read").is_some());
    }
    rate("look-ups of an account", 100_000, begun.elapsed());
    let begun = Instant::now();
    let mut page = PageRequest::first(100);
    for _ in 0..100 {
        page.after = store.accounts(&application, &AccountFilter::default(), &page).expect("read").next;
    }
    rate("pages of 100 accounts", 100, begun.elapsed());
    filtered(&store, &application);

    let begun = Instant::now();
    store.close().await.expect("closed");
    println!("close: {:.2?}", begun.elapsed());
    let begun = Instant::now();
    let (store, report) = Store::open(&places).expect("the store opens");
    println!("open after an orderly end: {} records in {:.2?}", report.last_number, begun.elapsed());
    store.close().await.expect("closed");
    let begun = Instant::now();
    let options = Options { check_rows: u64::MAX, ..Options::default() };
    let (store, report) = Store::open_with(&places, options).expect("the store opens");
    println!("the same, all rows compared: {} records in {:.2?}", report.last_number, begun.elapsed());
    store.close().await.expect("closed");
    let begun = Instant::now();
    let options = Options { boot: "another".to_owned(), check_rows: 0, ..Options::default() };
    std::fs::remove_file(places.view.join("state.json")).expect("the view is forgotten");
    let (store, report) = Store::open_with(&places, options).expect("the store opens");
    println!("open with a new view: {} records in {:.2?}", report.caught_up, begun.elapsed());
    store.close().await.expect("closed");
}
