//! What the store's tests share.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::path::Path;

use deputy_core::consent::GivenBy;
use deputy_core::job::{JobEnd, OsIdentity, Usage};
use deputy_core::{AccountName, ApplicationName, JobId, KindName, OsGid, OsUid, OsUserName};
use deputyd::store::{
    Actor, Argument, Change, Directories, OpenReport, Options, Store, StoreError, Timestamp,
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
    }
}

pub fn ended(number: u32, code: u8) -> Change {
    Change::JobEnded {
        id: job_id(number),
        end: JobEnd::Exited { code },
        usage: Usage::default(),
        ended: Timestamp(7),
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
