//! The store as the daemon uses it: what is committed is found again, and what contradicts the state is refused.

mod store_common;

use deputy_core::Code;
use deputyd::store::{
    AccountFilter, AuditFilter, Change, JobFilter, JobState, LinkState, PageRequest, Scope, StoreError,
    Timestamp,
};
use store_common::{
    account, activate, actor, application, create, directories, ended, job_id, open, options, os, queue,
};

#[tokio::test]
async fn what_was_committed_is_there_after_each_way_of_coming_back() {
    let place = tempfile::tempdir().unwrap();
    let (store, report) = open(place.path()).unwrap();
    assert!(report.created);
    for change in [create("demo", "alice"), activate("demo", "alice", 1001), queue("demo", "alice", 1001, 1)]
    {
        store.commit(change, actor()).await.unwrap();
    }
    let before = store.job(&job_id(1)).unwrap().unwrap();
    store.close().await.unwrap();

    let (store, report) = open(place.path()).unwrap();
    assert_eq!((report.last_number, report.view_rebuilt, report.caught_up), (3, None, 0));
    assert_eq!(store.job(&job_id(1)).unwrap().unwrap(), before);
    store.commit(ended(1, 7), actor()).await.unwrap();
    store.close().await.unwrap();

    std::fs::remove_dir_all(directories(place.path()).view).unwrap();
    let (store, report) = open(place.path()).unwrap();
    assert_eq!((report.last_number, report.caught_up), (4, 4));
    assert!(report.view_rebuilt.is_some());
    let job = store.job(&job_id(1)).unwrap().unwrap();
    assert_eq!(job.state.as_str(), "ended");
    assert_eq!(job.argv, before.argv);
    let link = store.link(&application("demo"), &account("alice")).unwrap().unwrap();
    assert_eq!((link.state, link.os), (LinkState::Active, os("alice", 1001)));
    let entries = store.audit(1, &AuditFilter::default(), &PageRequest::default()).unwrap().items;
    assert_eq!(entries.iter().map(|e| e.number).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(entries.iter().all(|entry| entry.actor == actor()));
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_the_same_time_one_wins() {
    let place = tempfile::tempdir().unwrap();
    let (store, _) = open(place.path()).unwrap();
    let together = async |change: Change| {
        let tasks: Vec<_> = (0..32)
            .map(|_| {
                let (store, change) = (store.clone(), change.clone());
                tokio::spawn(async move { store.commit(change, actor()).await })
            })
            .collect();
        let mut won = 0;
        for task in tasks {
            match task.await.unwrap() {
                Ok(_) => won += 1,
                Err(StoreError::Conflict { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
        won
    };
    assert_eq!(together(create("demo", "alice")).await, 1);
    assert_eq!(together(activate("demo", "alice", 1001)).await, 1);
    assert_eq!(together(queue("demo", "alice", 1001, 1)).await, 1);
    assert_eq!(together(ended(1, 0)).await, 1);
    let lost = Change::JobLost { id: job_id(1), cause: "late".to_owned() };
    assert_eq!(together(lost).await, 0);
    assert_eq!(store.last_number(), 4);
    assert!(matches!(store.job(&job_id(1)).unwrap().unwrap().state, JobState::Ended { .. }));
}

#[tokio::test]
async fn changes_need_what_they_are_about() {
    let place = tempfile::tempdir().unwrap();
    let (store, _) = open(place.path()).unwrap();
    for change in [activate("demo", "nobody", 1001), queue("demo", "nobody", 1001, 1), ended(1, 0)] {
        assert!(matches!(store.commit(change, actor()).await, Err(StoreError::NotFound { .. })));
    }
    store.commit(create("demo", "alice"), actor()).await.unwrap();
    // Another application's account of the same name is another account.
    assert!(matches!(
        store.commit(activate("other", "alice", 1001), actor()).await,
        Err(StoreError::NotFound { .. })
    ));
    assert!(store.account(&application("other"), &account("alice")).unwrap().is_none());
}

#[tokio::test]
async fn a_job_goes_back_only_if_it_asked_for_that_and_each_time_once_and_ends_once() {
    let place = tempfile::tempdir().unwrap();
    let (store, _) = open(place.path()).unwrap();
    let asks = |number: u32| {
        let mut change = queue("demo", "alice", 1001, number);
        let Change::JobQueued { spec, .. } = &mut change else { panic!() };
        spec.slurm.requeue = number == 1;
        change
    };
    let started = |number: u32, at: u64| Change::JobStarted {
        id: job_id(number),
        starting: None,
        started: Some(Timestamp(at)),
    };
    let back = |number: u32, requeues: u32| Change::JobRequeued { id: job_id(number), requeues };
    for change in [create("demo", "alice"), asks(1), asks(2), started(1, 3), started(2, 3)] {
        store.commit(change, actor()).await.unwrap();
    }
    for wrong in [back(2, 1), back(1, 0)] {
        assert!(matches!(store.commit(wrong, actor()).await, Err(StoreError::Conflict { .. })));
    }
    store.commit(back(1, 1), actor()).await.unwrap();
    let job = store.job(&job_id(1)).unwrap().unwrap();
    assert_eq!((job.state, job.started, job.requeues), (JobState::Queued {}, None, 1));
    assert!(matches!(store.commit(back(1, 1), actor()).await, Err(StoreError::Conflict { .. })));
    for change in [started(1, 5), back(1, 3), ended(1, 7)] {
        store.commit(change, actor()).await.unwrap();
    }
    for late in [back(1, 4), started(1, 9), ended(1, 0)] {
        assert!(matches!(store.commit(late, actor()).await, Err(StoreError::Conflict { .. })));
    }
    let before = store.job(&job_id(1)).unwrap().unwrap();
    assert_eq!((before.state.as_str(), before.requeues), ("ended", 3));
    store.close().await.unwrap();
    std::fs::remove_dir_all(directories(place.path()).view).unwrap();
    let (store, _) = open(place.path()).unwrap();
    assert_eq!(store.job(&job_id(1)).unwrap().unwrap(), before);
    assert_eq!(store.job(&job_id(2)).unwrap().unwrap().state, JobState::Running {});
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_link_goes_through_its_states_and_is_found_by_its_uid() {
    let place = tempfile::tempdir().unwrap();
    let (store, _) = open(place.path()).unwrap();
    let (app, name) = (application("demo"), account("alice"));
    store.commit(create("demo", "alice"), actor()).await.unwrap();
    let request = |id| Change::LinkRequested {
        application: app.clone(),
        account: name.clone(),
        os: os("alice", id),
        code: None,
        expires: None,
    };
    let by_uid = |id| {
        let scope = Scope::OsUid(os("alice", id).uid);
        store.links(&scope, None, &PageRequest::default()).unwrap().items.len()
    };
    store.commit(request(1001), actor()).await.unwrap();
    assert!(matches!(store.commit(request(1001), actor()).await, Err(StoreError::Conflict { .. })));
    // Consent for another OS account than the one asked for is no consent.
    assert!(matches!(
        store.commit(activate("demo", "alice", 1002), actor()).await,
        Err(StoreError::Conflict { .. })
    ));
    store.commit(activate("demo", "alice", 1001), actor()).await.unwrap();
    let (application, account) = (app.clone(), name.clone());
    let stale = Change::LinkStale { application, account, reason: "uid changed".to_owned() };
    store.commit(stale.clone(), actor()).await.unwrap();
    assert!(matches!(store.commit(stale, actor()).await, Err(StoreError::Conflict { .. })));
    assert_eq!((by_uid(1001), by_uid(1002)), (1, 0));
    store.commit(activate("demo", "alice", 1002), actor()).await.unwrap();
    assert_eq!((by_uid(1001), by_uid(1002)), (0, 1));
    let remove = Change::LinkRemoved { application: app.clone(), account: name.clone(), jobs_ended: 0 };
    store.commit(remove, actor()).await.unwrap();
    assert_eq!((by_uid(1001), by_uid(1002)), (0, 0));
    assert!(store.link(&app, &name).unwrap().is_none());
}

#[tokio::test]
async fn pages_cover_a_list_once_and_belong_to_their_query() {
    let place = tempfile::tempdir().unwrap();
    let (store, _) = open(place.path()).unwrap();
    for number in 0..25 {
        store.commit(create("demo", &format!("u{number:02}")), actor()).await.unwrap();
        store.commit(create("demo2", &format!("u{number:02}")), actor()).await.unwrap();
        store
            .commit(queue("demo", &format!("u{number:02}"), 1000 + number % 2, number), actor())
            .await
            .unwrap();
    }
    let mut names = Vec::new();
    let mut page = PageRequest::first(7);
    loop {
        let found = store.accounts(&application("demo"), &AccountFilter::default(), &page).unwrap();
        names.extend(found.items.into_iter().map(|a| a.name.to_string()));
        page.after = found.next;
        if page.after.is_none() {
            break;
        }
    }
    assert_eq!(names, (0..25).map(|n| format!("u{n:02}")).collect::<Vec<_>>());

    let scope = Scope::OsUid(os("x", 1001).uid);
    let first = store.jobs(&scope, &JobFilter::default(), &PageRequest::first(5)).unwrap();
    assert_eq!(first.items[0].id, job_id(23), "newest first");
    let foreign = PageRequest { limit: 5, after: first.next };
    let asked = store.jobs(&Scope::Application(application("demo")), &JobFilter::default(), &foreign);
    assert!(matches!(asked, Err(StoreError::Cursor)));

    store.commit(ended(3, 0), actor()).await.unwrap();
    assert_eq!(store.open_jobs(&PageRequest::default()).unwrap().items.len(), 24);
    let filter = JobFilter { states: vec!["ended".to_owned()], kind: None };
    let scope = Scope::Application(application("demo"));
    assert_eq!(store.jobs(&scope, &filter, &PageRequest::first(1)).unwrap().items[0].id, job_id(3));

    let filter = AuditFilter { job: Some(job_id(3)), ..AuditFilter::default() };
    assert_eq!(store.audit(1, &filter, &PageRequest::default()).unwrap().items.len(), 2);
}

#[tokio::test]
async fn strangers_are_counted_in_one_record() {
    let place = tempfile::tempdir().unwrap();
    let (store, _) = open(place.path()).unwrap();
    for _ in 0..1000 {
        store.count_stranger(Code::NotFound);
    }
    store.close().await.unwrap();
    let (store, report) = open(place.path()).unwrap();
    assert_eq!(report.last_number, 1);
    let entry = store.audit(1, &AuditFilter::default(), &PageRequest::default()).unwrap().items.remove(0);
    assert!(matches!(&entry.change, Change::StrangersDenied { codes, .. } if codes[&Code::NotFound] == 1000));
}

#[tokio::test]
async fn the_count_of_strangers_is_recorded_without_waiting_for_another_change() {
    let place = tempfile::tempdir().unwrap();
    let often = deputyd::store::Options { strangers_every: std::time::Duration::from_millis(1), ..options() };
    let (store, _) = deputyd::store::Store::open_with(&directories(place.path()), often).unwrap();
    store.count_stranger(Code::PeerNotAllowed);
    while store.last_number() == 0 {
        tokio::task::yield_now().await;
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn segments_are_closed_and_read_across() {
    let place = tempfile::tempdir().unwrap();
    let small = deputyd::store::Options { segment_bytes: 2000, ..options() };
    let (store, _) = deputyd::store::Store::open_with(&directories(place.path()), small.clone()).unwrap();
    for number in 0..40 {
        store.commit(create("demo", &format!("u{number}")), actor()).await.unwrap();
    }
    let segments = || {
        let names = std::fs::read_dir(directories(place.path()).ledger).unwrap();
        names.filter(|n| n.as_ref().unwrap().path().extension().is_some_and(|e| e == "ledger")).count()
    };
    assert!(segments() > 5);
    let page = store.audit(30, &AuditFilter::default(), &PageRequest::first(5)).unwrap();
    assert_eq!(page.items.iter().map(|e| e.number).collect::<Vec<_>>(), [30, 31, 32, 33, 34]);
    store.close().await.unwrap();
    std::fs::remove_dir_all(directories(place.path()).view).unwrap();
    // The older segments are verified in the background.
    let options = deputyd::store::Options { check_bytes: 4000, ..small };
    let (store, report) = deputyd::store::Store::open_with(&directories(place.path()), options).unwrap();
    assert_eq!(report.caught_up, 40);
    store.commit(create("demo", "one-more"), actor()).await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test]
async fn two_daemons_never_share_a_store() {
    let place = tempfile::tempdir().unwrap();
    let (store, _) = open(place.path()).unwrap();
    assert!(matches!(open(place.path()), Err(StoreError::Locked { .. })));
    let other = store.clone();
    store.close().await.unwrap();
    assert!(matches!(other.commit(create("demo", "late"), actor()).await, Err(StoreError::Closed)));
    open(place.path()).unwrap();
}
