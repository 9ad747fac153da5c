//! Projects in the store: of changes that contradict each other one wins, and only what is pinned queues a job.

mod store_common;

use deputy_core::project::{ProjectAccess, ProjectKey};
use deputyd::store::{Change, PageRequest, ProjectDefaults, ProjectEvent, ProjectScope, Store, StoreError};
use store_common::{account, actor, application, create, directories, ended, open, os, queue};

fn change(project: &str, event: ProjectEvent) -> Change {
    Change::Project { application: application("demo"), project: key(project), event }
}

fn key(text: &str) -> ProjectKey {
    text.parse().unwrap()
}

fn created(uid: u32) -> ProjectEvent {
    ProjectEvent::Created { os: os("alice", uid), public: false, defaults: ProjectDefaults::default() }
}

fn shared(name: &str, access: ProjectAccess, uid: u32) -> ProjectEvent {
    ProjectEvent::Shared { account: account(name), access, os: Some(os(name, uid)) }
}

async fn commit(store: &Store, change: Change) -> Result<(), StoreError> {
    store.commit(change, actor()).await.map(drop)
}

/// A job of an account in a project, as this OS account.
fn queued(project: &str, name: &str, os_user: &str, uid: u32, number: u32) -> Change {
    let mut change = queue("demo", name, uid, number);
    let Change::JobQueued { project: belongs_to, os: identity, .. } = &mut change else { panic!() };
    *belongs_to = Some(key(project));
    *identity = os(os_user, uid);
    change
}

#[tokio::test]
async fn what_contradicts_the_state_is_refused_and_one_of_two_wins() {
    let place = tempfile::tempdir().unwrap();
    let (store, _) = open(place.path()).unwrap();
    assert!(commit(&store, change("alice/p", created(1001))).await.is_err(), "nobody of that name");
    for name in ["alice", "bob", "carol"] {
        commit(&store, create("demo", name)).await.unwrap();
    }
    let both = tokio::join!(
        commit(&store, change("alice/p", created(1001))),
        commit(&store, change("alice/p", created(1002)))
    );
    assert_ne!(both.0.is_ok(), both.1.is_ok(), "{both:?}");
    let pinned = store.project(&application("demo"), &key("alice/p")).unwrap().unwrap().os;
    assert_eq!(pinned, if both.0.is_ok() { os("alice", 1001) } else { os("alice", 1002) });
    for event in [
        shared("alice", ProjectAccess::Write, 1001),
        shared("nobody", ProjectAccess::Write, 1009),
        ProjectEvent::Unshared { account: account("bob") },
        ProjectEvent::HandedOver { to: account("nobody"), os: os("nobody", 1009) },
    ] {
        assert!(commit(&store, change("alice/p", event.clone())).await.is_err(), "{event:?}");
    }
    assert!(commit(&store, change("alice/absent", ProjectEvent::Deleted {})).await.is_err());
    // What a member had pinned stays, whatever he is linked to when his access changes.
    commit(&store, change("alice/p", shared("bob", ProjectAccess::Read, 1003))).await.unwrap();
    commit(&store, change("alice/p", shared("bob", ProjectAccess::Write, 1004))).await.unwrap();
    let project = store.project(&application("demo"), &key("alice/p")).unwrap().unwrap();
    assert_eq!(project.identity(&account("bob")), Some(&os("bob", 1003)));
    // Handed over to one and deleted at once: one of the two.
    let to = ProjectEvent::HandedOver { to: account("carol"), os: os("carol", 1005) };
    let both = tokio::join!(
        commit(&store, change("alice/p", to)),
        commit(&store, change("alice/p", ProjectEvent::Deleted {}))
    );
    assert_ne!(both.0.is_ok(), both.1.is_ok(), "{both:?}");
}

#[tokio::test]
async fn a_job_is_queued_only_as_what_the_project_pinned_and_keeps_the_project() {
    let place = tempfile::tempdir().unwrap();
    let (store, _) = open(place.path()).unwrap();
    for name in ["alice", "bob", "carol"] {
        commit(&store, create("demo", name)).await.unwrap();
    }
    commit(&store, change("alice/p", created(1001))).await.unwrap();
    commit(&store, change("alice/p", shared("bob", ProjectAccess::Write, 1002))).await.unwrap();
    commit(&store, change("alice/p", shared("carol", ProjectAccess::Read, 1003))).await.unwrap();
    for (name, os_user, uid) in
        [("alice", "alice", 1009), ("bob", "alice", 1001), ("bob", "bob", 1001), ("carol", "carol", 1003)]
    {
        let refused = commit(&store, queued("alice/p", name, os_user, uid, 1)).await;
        assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{name} as {os_user}: {refused:?}");
    }
    commit(&store, queued("alice/p", "bob", "bob", 1002, 1)).await.unwrap();
    assert!(commit(&store, change("alice/p", ProjectEvent::Deleted {})).await.is_err());
    store.close().await.unwrap();

    // The same from the ledger alone.
    std::fs::remove_dir_all(directories(place.path()).view).unwrap();
    let (store, _) = open(place.path()).unwrap();
    let project = store.project(&application("demo"), &key("alice/p")).unwrap().unwrap();
    assert_eq!((project.open_jobs, project.members.len()), (1, 2));
    let of = |scope: ProjectScope| {
        store.projects(&application("demo"), &scope, &PageRequest { limit: 10, after: None }).unwrap().items
    };
    assert_eq!(of(ProjectScope::Of(account("carol"))), of(ProjectScope::All));
    assert!(of(ProjectScope::Public).is_empty());
    commit(&store, ended(1, 0)).await.unwrap();
    commit(&store, change("alice/p", ProjectEvent::Published { public: true })).await.unwrap();
    assert_eq!(of(ProjectScope::Public).len(), 1);
    commit(&store, change("alice/p", ProjectEvent::Deleted {})).await.unwrap();
    assert!(of(ProjectScope::Public).is_empty() && of(ProjectScope::Of(account("bob"))).is_empty());
}
