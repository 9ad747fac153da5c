//! The passwords with a store, as after a crash or a restart.

use super::*;
use crate::store::Directories;

struct Place {
    folder: tempfile::TempDir,
    store: Store,
    passwords: Passwords,
}

async fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let directories = Directories { ledger: folder.path().join("ledger"), view: folder.path().join("view") };
    let (store, _) = tokio::task::block_in_place(|| Store::open(&directories)).unwrap();
    let passwords = Passwords::open(&folder.path().join("secrets")).unwrap();
    let change = Change::AccountCreated {
        application: app(),
        account: ann(),
        email: None,
        first_name: None,
        last_name: None,
        role: "user".into(),
        group: None,
        first: false,
    };
    store.commit(change, Actor::daemon("test")).await.unwrap();
    Place { folder, store, passwords }
}

fn app() -> ApplicationName {
    "demo".parse().unwrap()
}

fn ann() -> AccountName {
    "ann".parse().unwrap()
}

fn secret(text: &str) -> Secret {
    Secret::new(Zeroizing::new(text.as_bytes().to_vec()))
}

impl Place {
    async fn set(&self, password: &str, replaces: Option<String>) -> Result<String, Denial> {
        let account = self.store.account(&app(), &ann()).unwrap().unwrap();
        let new = New { password: &secret(password), temporary: false, replaces, policy: None };
        self.passwords.set(&self.store, &account, new, Actor::daemon("test")).await
    }

    async fn is(&self, password: &str) -> bool {
        self.passwords.verify(&self.store, &app(), &ann(), secret(password)).await.unwrap().is_some()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hash_that_the_ledger_does_not_know_is_not_in_force_and_the_old_one_is() {
    let place = place().await;
    place.set("old", None).await.unwrap();
    // As if the power had gone between the hash and the ledger's record.
    let hash = place.passwords.hasher.hash(secret("lost")).await.unwrap();
    let mut hashes = place.passwords.kept(&app(), &ann()).await.unwrap();
    hashes.insert(0, Kept { generation: "0123456789abcdef".into(), hash });
    place.passwords.put(&app(), &ann(), hashes).await.unwrap();
    assert!(!place.is("lost").await);
    assert!(place.is("old").await);
    place.set("new", None).await.unwrap();
    assert!(place.is("new").await && !place.is("old").await && !place.is("lost").await);
    assert_eq!(place.passwords.kept(&app(), &ann()).await.unwrap().len(), 2, "the lost one is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_replace_the_same_password_one_does() {
    let place = place().await;
    let first = place.set("first", None).await.unwrap();
    let (one, other) =
        tokio::join!(place.set("one", Some(first.clone())), place.set("other", Some(first.clone())));
    assert_eq!([&one, &other].iter().filter(|result| result.is_ok()).count(), 1);
    let lost = [one.as_ref().err(), other.as_ref().err()].into_iter().flatten().next().unwrap();
    assert_eq!(lost.code, Code::Conflict);
    assert_eq!((place.is("one").await, place.is("other").await), (one.is_ok(), other.is_ok()));
    assert!(!place.is("first").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_file_nobody_gets_in_and_a_password_can_be_set_anew() {
    let mut place = place().await;
    place.set("old", None).await.unwrap();
    place.passwords.close();
    assert!(!place.is("old").await);
    assert_eq!(place.set("new", None).await.unwrap_err().code, Code::Disk);
    std::fs::remove_file(place.folder.path().join("secrets/passwords")).unwrap();
    place.passwords = Passwords::open(&place.folder.path().join("secrets")).unwrap();
    assert!(!place.is("old").await);
    place.set("new", None).await.unwrap();
    assert!(place.is("new").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forgotten_leaves_the_file() {
    let place = place().await;
    place.set("old", None).await.unwrap();
    place.passwords.forget(&app(), &ann()).await.unwrap();
    assert!(place.passwords.kept(&app(), &ann()).await.unwrap().is_empty());
    assert!(!place.is("old").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_is_no_way_around_the_waiting() {
    let place = place().await;
    let denied = |code| Change::Denied {
        code,
        rule: "authentication".into(),
        method: PASSWORD_METHOD.into(),
        application: Some(app()),
        account: Some(ann()),
        os_user: None,
        argv: Vec::new(),
    };
    for _ in 0..7 {
        place.store.commit(denied(Code::AuthenticationFailed), Actor::daemon("test")).await.unwrap();
        place.store.commit(denied(Code::PasswordMustChange), Actor::daemon("test")).await.unwrap();
    }
    tokio::task::block_in_place(|| place.passwords.recall(&place.store)).unwrap();
    let begin = |account: &str| {
        place.passwords.throttle.begin(&app(), &account.parse().unwrap(), None, Instant::now()).unwrap().delay
    };
    assert_eq!(begin("ann"), Duration::from_secs(4));
    assert_eq!(begin("ben"), Duration::ZERO);
}

#[test]
fn temporary_passwords_are_long_differ_and_are_strong() {
    let (first, second) = (temporary().unwrap(), temporary().unwrap());
    let text = first.text().unwrap();
    assert_ne!(first.bytes(), second.bytes());
    assert_eq!(text.len(), 23);
    assert_eq!(text.matches('-').count(), 3);
    assert!(zxcvbn::zxcvbn(text, &[]).score() >= zxcvbn::Score::Four);
    let pipe = hand_out(&first).unwrap();
    assert_eq!(Secret::read(pipe).unwrap().bytes(), first.bytes());
}
