//! Projects in the store: of changes that contradict each other one wins, and only what is pinned queues a job.

mod store_common;

use deputy_core::OsGid;
use deputy_core::project::{ProjectAccess, ProjectKey};
use deputyd::store::{
    Change, PageRequest, ProjectDefaults, ProjectEvent, ProjectGroup, ProjectScope, Store, StoreError,
};
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

#[tokio::test]
async fn a_project_has_one_group_and_one_folder_and_the_group_is_for_those_who_work_in_it() {
    let place = tempfile::tempdir().unwrap();
    let (store, _) = open(place.path()).unwrap();
    for name in ["alice", "bob", "carol", "dora"] {
        commit(&store, create("demo", name)).await.unwrap();
    }
    commit(&store, change("alice/p", created(1001))).await.unwrap();
    commit(&store, change("alice/p", shared("bob", ProjectAccess::Write, 1002))).await.unwrap();
    commit(&store, change("alice/p", shared("carol", ProjectAccess::Read, 1003))).await.unwrap();
    let unlinked = ProjectEvent::Shared { account: account("dora"), access: ProjectAccess::Write, os: None };
    commit(&store, change("alice/p", unlinked)).await.unwrap();
    let gid = OsGid::new(70_001).unwrap();
    let group = ProjectGroup { gid, name: "dg70001".parse().unwrap() };
    for event in [ProjectEvent::Grouped { group }, ProjectEvent::FolderMade { path: "/data/p".into() }] {
        commit(&store, change("alice/p", event.clone())).await.unwrap();
        let refused = commit(&store, change("alice/p", event.clone())).await;
        assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{refused:?}");
        assert!(commit(&store, change("alice/absent", event)).await.is_err());
    }
    let project = |key_: &str| store.project(&application("demo"), &key(key_)).unwrap().unwrap();
    let found = project("alice/p");
    let workers: Vec<_> = found.workers().into_iter().map(|one| (one.account, one.os_account)).collect();
    assert_eq!(workers, [(account("alice"), os("alice", 1001)), (account("bob"), os("bob", 1002))]);
    for (name, expected) in
        [("alice", Some(gid)), ("bob", Some(gid)), ("carol", None), ("dora", None), ("eve", None)]
    {
        assert_eq!(found.gid_for(&account(name)), expected, "{name}");
    }
    // Both go with the project.
    let to = ProjectEvent::HandedOver { to: account("bob"), os: os("bob", 1002) };
    commit(&store, change("alice/p", to)).await.unwrap();
    let found = project("bob/p");
    assert_eq!(found.gid_for(&account("alice")), None);
    assert_eq!(found.folder, Some("/data/p".into()));
    let left: Vec<_> = store.remaining(&application("demo"), &account("bob")).unwrap();
    let left: Vec<_> = left.iter().map(|one| (one.what, one.name.as_str())).collect();
    assert_eq!(left, [("project-folder", "/data/p"), ("project-group", "dg70001"), ("project", "bob/p")]);
}
