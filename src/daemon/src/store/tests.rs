//! The store on a disk that fails, and beneath a view that fails.

use deputy_core::{AccountName, ApplicationName};

use super::change::{Actor, Change};
use super::error::StoreError;
use super::open::{self, Prepared};
use super::view::{Rows, keys};
use super::{AccountFilter, AccountSort, Directories, Options, PageRequest, Store};

fn create(name: &str) -> Change {
    Change::AccountCreated {
        application: ApplicationName::new("demo").unwrap(),
        account: AccountName::new(name).unwrap(),
        email: None,
        first_name: None,
        last_name: None,
        role: "user".to_owned(),
        group: None,
        first: false,
    }
}

fn has(store: &Store, name: &str) -> bool {
    store.account(&ApplicationName::new("demo").unwrap(), &AccountName::new(name).unwrap()).unwrap().is_some()
}

fn directories(place: &tempfile::TempDir) -> Directories {
    Directories { ledger: place.path().join("ledger"), view: place.path().join("view") }
}

#[test]
fn a_refused_write_reaches_the_caller_and_not_the_state() {
    let place = tempfile::tempdir().unwrap();
    let Prepared { mut writer, .. } = open::prepare(&directories(&place), Options::default()).unwrap();
    let actor = || Actor::daemon("test");
    writer.commit_own(create("alice"), actor()).unwrap();
    let faults = writer.appender.faults();

    faults.0.lock().unwrap().write_after = Some(50);
    assert!(matches!(writer.commit_own(create("bob"), actor()), Err(StoreError::Disk { step: "write", .. })));
    faults.0.lock().unwrap().write_after = None;
    // The refused change is not in the way of the same one.
    writer.commit_own(create("bob"), actor()).unwrap();

    faults.0.lock().unwrap().sync = true;
    let refused = writer.commit_own(create("carol"), actor());
    assert!(matches!(refused, Err(StoreError::Disk { step: "fdatasync", .. })));
    faults.0.lock().unwrap().sync = false;
    assert!(matches!(writer.commit_own(create("carol"), actor()), Err(StoreError::ReadOnly(_))));
    assert!(writer.inner.stopped().unwrap().contains("fdatasync"));
    writer.close().unwrap();
    drop(writer);

    let (store, report) = Store::open(&directories(&place)).unwrap();
    assert_eq!(report.last_number, 2);
    assert!(has(&store, "alice") && has(&store, "bob") && !has(&store, "carol"));
    store.commit_blocking(create("carol"), actor()).unwrap();
    store.close_blocking().unwrap();
}

#[test]
fn a_failed_view_loses_nothing_and_ends_the_writing() {
    let place = tempfile::tempdir().unwrap();
    let Prepared { mut writer, .. } = open::prepare(&directories(&place), Options::default()).unwrap();
    writer.commit_own(create("alice"), Actor::daemon("test")).unwrap();
    writer.inner.view.shut().unwrap();
    assert!(writer.commit_own(create("bob"), Actor::daemon("test")).is_err());
    drop(writer);
    let (store, _) = Store::open(&directories(&place)).unwrap();
    assert!(has(&store, "alice") && !has(&store, "bob"));
    store.close_blocking().unwrap();
}

/// A row that is no record, found while the store works.
#[test]
fn a_row_that_is_no_record_fails_who_asks_stops_the_store_and_is_gone_at_the_next_start() {
    let demo = || ApplicationName::new("demo").unwrap();
    let alice = || AccountName::new("alice").unwrap();
    let (account, entry) = (keys::account(&demo(), &alice()), {
        let order = keys::sorted_accounts(&demo(), "", keys::BY_LOGIN);
        keys::sorted_account(order, &[0; 16], &alice())
    });
    for key in [account, entry] {
        let place = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(&directories(&place)).unwrap();
        store.commit_blocking(create("alice"), Actor::daemon("test")).unwrap();
        let tip = store.inner.index.read().tip;
        store.inner.view.show(Rows::from([(key, Some(b"{".to_vec()))]), tip);
        let filter = AccountFilter { sort: AccountSort::LastLogin, ..AccountFilter::default() };
        let asked = [
            store.account(&demo(), &alice()).err(),
            store.accounts(&demo(), &filter, &PageRequest::default()).err(),
        ];
        let failed = asked.into_iter().flatten().next().expect("one of the questions meets the row");
        assert!(matches!(&failed, StoreError::View(_)), "{failed}");
        // From then on nothing is answered from it, and nothing is decided by it.
        assert!(matches!(store.all_links(None, &PageRequest::default()), Err(StoreError::View(_))));
        let refused = store.commit_blocking(create("bob"), Actor::daemon("test"));
        assert!(matches!(refused, Err(StoreError::ReadOnly(_))));
        assert!(failed.to_string().contains(&store.stopped().expect("it stopped")));
        store.close_blocking().unwrap();

        let (store, report) = Store::open(&directories(&place)).unwrap();
        assert!(report.view_rebuilt.is_some(), "{report:?}");
        assert_eq!((report.last_number, has(&store, "alice"), has(&store, "bob")), (1, true, false));
        store.close_blocking().unwrap();
    }
}

#[test]
fn a_record_of_a_newer_program_stops_the_start_and_is_not_skipped() {
    for (version, body) in
        [(2, "{}"), (1, r#"{"at":1,"actor":{"caller_uid":0,"action":"x"},"change":{"new":{}}}"#)]
    {
        let place = tempfile::tempdir().unwrap();
        let Prepared { mut writer, .. } = open::prepare(&directories(&place), Options::default()).unwrap();
        writer.commit_own(create("alice"), Actor::daemon("test")).unwrap();
        writer.appender.append(version, &[body.as_bytes().to_vec()]).unwrap();
        drop(writer);
        match Store::open(&directories(&place)) {
            Err(StoreError::Newer(damage)) => assert_eq!(damage.record, 2),
            other => panic!("{:?}", other.map(|(_, report)| report)),
        }
        let report = super::verify(&directories(&place).ledger).unwrap();
        assert_eq!((report.whole, report.damage.map(|damage| damage.record)), (false, Some(2)));
    }
}
