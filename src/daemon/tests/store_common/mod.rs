//! What the store's tests share.
#![allow(dead_code, reason = "each test program uses a part of it")]

pub mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use deputy_core::consent::GivenBy;
use deputy_core::job::{Enforcement, JobEnd, OsIdentity, Usage};
use deputy_core::stream::Captured;
use deputy_core::{AccountName, ApplicationName, JobId, KindName, OsGid, OsUid, OsUserName};
use deputyd::store::{
    Actor, Argument, AuditFilter, Change, Directories, Entry, JobFilter, JobTimes, OpenReport, Options, Page,
    PageRequest, Scope, Store, StoreError, Timestamp,
};

pub fn application(name: &str) -> ApplicationName {
    ApplicationName::new(name).unwrap()
}

pub fn account(name: &str) -> AccountName {
    AccountName::new(name).unwrap()
}

pub fn os(name: &str, id: u32) -> OsIdentity {
    OsIdentity {
        name: OsUserName::new(name).unwrap(),
        uid: OsUid::new(id).unwrap(),
        gid: OsGid::new(id).unwrap(),
    }
}

pub fn job_id(number: u32) -> JobId {
    let mut random = [0; JobId::BYTES];
    random[..4].copy_from_slice(&number.to_be_bytes());
    JobId::from_random(random)
}

pub fn actor() -> Actor {
    Actor {
        caller_uid: 990,
        bus_name: Some(":1.42".to_owned()),
        application: Some(application("demo")),
        by: None,
        action: "test".to_owned(),
        rule: None,
    }
}

pub fn create(app: &str, name: &str) -> Change {
    Change::AccountCreated {
        application: application(app),
        account: account(name),
        email: Some(format!("{name}@example.org")),
        first_name: None,
        last_name: None,
        role: "user".to_owned(),
        group: None,
        first: false,
    }
}

pub fn activate(app: &str, name: &str, id: u32) -> Change {
    Change::LinkActivated {
        application: application(app),
        account: account(name),
        os: os(name, id),
        given_by: GivenBy::Root,
        expires: None,
    }
}

pub fn queue(app: &str, name: &str, uid: u32, number: u32) -> Change {
    Change::JobQueued {
        id: job_id(number),
        application: application(app),
        account: account(name),
        os: os(name, uid),
        kind: KindName::new("batch").unwrap(),
        argv: vec![Argument::from("/bin/echo"), Argument(vec![0xff, b'x'])],
        cwd: None,
        project: None,
        session: None,
        spec: Box::default(),
    }
}

pub fn ended(number: u32, code: u8) -> Change {
    Change::JobEnded {
        id: job_id(number),
        end: JobEnd::Exited { code },
        cause: None,
        usage: Usage::default(),
        captured: Captured::default(),
        enforcement: Enforcement::default(),
        ended: Timestamp(7),
        times: JobTimes::default(),
    }
}

pub fn directories(place: &Path) -> Directories {
    Directories { ledger: place.join("ledger"), view: place.join("view") }
}

pub fn options() -> Options {
    Options { boot: "this".to_owned(), ..Options::default() }
}

pub fn open(place: &Path) -> Result<(Store, OpenReport), StoreError> {
    Store::open_with(&directories(place), options())
}

/// Everything that the store answers, as text, for comparisons.
pub fn dump(store: &Store) -> Vec<String> {
    fn all<T: std::fmt::Debug>(query: impl Fn(&PageRequest) -> Page<T>) -> Vec<String> {
        let mut lines = Vec::new();
        let mut page = PageRequest::first(1000);
        loop {
            let found = query(&page);
            lines.extend(found.items.iter().map(|item| format!("{item:?}")));
            page.after = found.next;
            if page.after.is_none() {
                return lines;
            }
        }
    }
    let mut lines = all(|page| store.all_accounts(page).unwrap());
    lines.extend(all(|page| store.all_links(None, page).unwrap()));
    lines.extend(all(|page| store.all_sessions(page).unwrap()));
    lines.extend(all(|page| store.open_jobs(page).unwrap()));
    lines.extend(all(|page| {
        store.jobs(&Scope::Application(application("demo")), &JobFilter::default(), page).unwrap()
    }));
    for uid in 1001..1010 {
        let scope = Scope::OsUid(OsUid::new(uid).unwrap());
        lines.extend(all(|page| store.links(&scope, None, page).unwrap()));
        lines.extend(all(|page| store.jobs(&scope, &JobFilter::default(), page).unwrap()));
    }
    lines
}

/// The records of the whole ledger.
pub fn entries(store: &Store) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut page = PageRequest::first(1000);
    loop {
        let found = store.audit(1, &AuditFilter::default(), &page).unwrap();
        entries.extend(found.items);
        page.after = found.next;
        if page.after.is_none() {
            return entries;
        }
    }
}

/// Checks that the state is exactly what the ledger says, no half of a change: by a second, plain reading of the
/// records.
pub fn check_state(store: &Store) {
    let entries = entries(store);
    assert!(entries.iter().zip(1..).all(|(entry, number)| entry.number == number), "numbers without gaps");
    let mut accounts = BTreeSet::new();
    let mut links = BTreeSet::new();
    let mut jobs = BTreeMap::new();
    for entry in &entries {
        match &entry.change {
            Change::AccountCreated { account, .. } => assert!(accounts.insert(account.to_string())),
            Change::LinkActivated { account, .. } => assert!(links.insert(account.to_string())),
            Change::JobQueued { id, .. } => assert!(jobs.insert(id.to_string(), "queued").is_none()),
            Change::JobEnded { id, .. } => assert_eq!(jobs.insert(id.to_string(), "ended"), Some("queued")),
            _ => {}
        }
    }
    let application = application("demo");
    for name in &accounts {
        let account = account(name);
        assert!(store.account(&application, &account).unwrap().is_some(), "account {name}");
        assert_eq!(
            store.link(&application, &account).unwrap().is_some(),
            links.contains(name),
            "link of {name}"
        );
    }
    for (id, state) in &jobs {
        assert_eq!(store.job(&id.parse().unwrap()).unwrap().unwrap().state.as_str(), *state, "job {id}");
    }
    let mut page = PageRequest::first(1000);
    let (mut listed, mut open) = (0, 0);
    loop {
        let found =
            store.jobs(&Scope::Application(application.clone()), &JobFilter::default(), &page).unwrap();
        listed += found.items.len();
        page.after = found.next;
        if page.after.is_none() {
            break;
        }
    }
    loop {
        let found = store.open_jobs(&page).unwrap();
        open += found.items.len();
        page.after = found.next;
        if page.after.is_none() {
            break;
        }
    }
    assert_eq!((listed, open), (jobs.len(), jobs.values().filter(|state| **state == "queued").count()));
}

/// A small generator of numbers, so that the tests need no other; not for secrets.
pub struct Dice(pub u64);

impl Dice {
    /// Seeded with the time, and told, so that a failure can be looked at again.
    pub fn thrown() -> Self {
        let seed = Timestamp::now().0 | 1;
        println!("dice: {seed}");
        Self(seed)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}
