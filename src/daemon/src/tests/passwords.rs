//! Accounts that prove themselves by a password of their own.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd as StdFd;

use zbus::{Message, OwnedFd, OwnedObjectPath, Variant};

use super::harness::{DEMO, Harness, KEEPER, STRICT, code, face, linking, none, ok, option, text};
use crate::store::{AuditFilter, PageRequest};

const GOOD: &str = "violet harbour seven kites";
const BETTER: &str = "oblique tundra marzipan bell";

type Options = BTreeMap<&'static str, Variant<'static>>;

fn harness() -> Harness {
    Harness::new(linking(|_, _, _| {}))
}

/// Adds to the keeper's file.
fn with(harness: &Harness, text: &str) {
    harness.files.lock().unwrap().get_mut("keeper").unwrap().extend(["\n", text]);
}

/// A pipe out of which a password comes.
fn pipe(password: &str) -> OwnedFd {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(password.as_bytes()).unwrap();
    StdFd::from(reader).into()
}

fn new_password(password: &str) -> Options {
    let fd: zbus::Fd<'static> = StdFd::from(pipe(password)).into();
    option("new_password", fd)
}

fn of_keeper() -> Options {
    option("application", "keeper")
}

/// An account of the keeper's, made by root.
async fn account(harness: &Harness, name: &str) {
    ok(&harness.call(0, "Accounts.Create", &(name, of_keeper())).await);
}

async fn set(harness: &Harness, name: &str, password: &str, temporary: bool) -> Message {
    let mut options = of_keeper();
    options.insert("temporary", temporary.into());
    harness.call(0, "Accounts.SetPassword", &(name, pipe(password), options)).await
}

async fn log_in(harness: &Harness, name: &str, password: &str) -> Message {
    harness.call(KEEPER, "Authentication.Password", &(name, pipe(password), none())).await
}

fn session(message: &Message) -> String {
    ok(message);
    message.body().deserialize::<(OwnedObjectPath,)>().unwrap().0.to_string()
}

async fn is_live(harness: &Harness, path: &str) -> bool {
    let answer = harness.call_at(KEEPER, path, "Session.Get", &()).await;
    answer.message_type() == zbus::message::Type::MethodReturn
}

#[tokio::test(flavor = "multi_thread")]
async fn one_answer_for_all_who_do_not_get_in() {
    let harness = harness();
    for name in ["ann", "gone", "bare"] {
        account(&harness, name).await;
    }
    for name in ["ann", "gone"] {
        ok(&set(&harness, name, GOOD, false).await);
    }
    ok(&harness.call(0, "Accounts.Deactivate", &("gone", of_keeper())).await);
    ok(&harness.call(KEEPER, "Accounts.Register", &("pending", none())).await);
    let wrong = log_in(&harness, "ann", "another").await;
    assert_eq!(code(&wrong), "AuthenticationFailed");
    for (name, password) in
        [("nobody", GOOD), ("gone", GOOD), ("bare", GOOD), ("bare", ""), ("pending", GOOD), ("ann", "")]
    {
        assert_eq!(face(&log_in(&harness, name, password).await), face(&wrong), "{name}");
    }
    // Nor does the application that has no passwords tell anything, and a stranger less.
    for (uid, expected) in [(STRICT, "MethodNotAllowed"), (DEMO, "MethodNotAllowed"), (4000, "NotAuthorized")]
    {
        let answer = harness.call(uid, "Authentication.Password", &("ann", pipe(GOOD), none())).await;
        assert_eq!(code(&answer), expected);
    }
    session(&log_in(&harness, "ann", GOOD).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_and_sessions_outlive_a_restart_and_the_hash_is_not_in_the_ledger() {
    let mut harness = harness();
    account(&harness, "ann").await;
    ok(&set(&harness, "ann", GOOD, false).await);
    let path = session(&log_in(&harness, "ann", &format!("{GOOD}\n")).await);
    harness.restart().await;
    let shown = harness.call_at(KEEPER, &path, "Session.Get", &()).await;
    assert_eq!(text(&shown, "how").unwrap(), "password");
    session(&log_in(&harness, "ann", GOOD).await);
    assert_eq!(code(&log_in(&harness, "ann", BETTER).await), "AuthenticationFailed");
    let page = harness.daemon.store.audit(1, &AuditFilter::default(), &PageRequest::first(1000)).unwrap();
    let ledger = serde_json::to_string(&page.items).unwrap();
    assert!(ledger.contains("password-set"), "{ledger}");
    assert!(!ledger.contains("argon2") && !ledger.contains(GOOD));
    let file = std::fs::read_to_string(harness.folder.path().join("secrets/passwords")).unwrap();
    assert!(file.contains("$argon2id$v=19$m=19456,t=2,p=1$") && !file.contains(GOOD));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_temporary_password_is_told_once_and_has_to_be_replaced() {
    let harness = harness();
    account(&harness, "ann").await;
    ok(&set(&harness, "ann", GOOD, false).await);
    let before = session(&log_in(&harness, "ann", GOOD).await);
    let reset = harness.call(0, "Accounts.ResetPassword", &("ann", of_keeper())).await;
    ok(&reset);
    let (fd,) = reset.body().deserialize::<(OwnedFd,)>().unwrap();
    let mut temporary = String::new();
    std::fs::File::from(StdFd::from(fd)).read_to_string(&mut temporary).unwrap();
    assert_eq!(temporary.len(), 23, "{temporary}");
    // The reset has ended what was there.
    assert!(!is_live(&harness, &before).await);
    assert_eq!(code(&log_in(&harness, "ann", GOOD).await), "AuthenticationFailed");
    assert_eq!(code(&log_in(&harness, "ann", &temporary).await), "PasswordMustChange");
    let replace = |password: &str, new: &str| {
        let arguments = ("ann", pipe(password), new_password(new));
        let harness = &harness;
        async move { harness.call(KEEPER, "Authentication.Password", &arguments).await }
    };
    for weak in ["password1", "keeper-ann", "", "a\nb", &temporary, GOOD] {
        let refused = replace(&temporary, weak).await;
        assert_eq!(code(&refused), "PasswordWeak", "{weak:?}");
    }
    assert_eq!(code(&replace("wrong", BETTER).await), "AuthenticationFailed");
    let path = session(&replace(&temporary, BETTER).await);
    assert!(is_live(&harness, &path).await);
    assert_eq!(code(&log_in(&harness, "ann", &temporary).await), "AuthenticationFailed");
    // Replacing one's own password ends the sessions that others may have with the old one.
    let last = session(&replace(BETTER, "fern quartz umbrella ninety").await);
    assert!(!is_live(&harness, &path).await);
    assert!(is_live(&harness, &last).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_weak_is_refused_with_the_reason_in_words() {
    let harness = harness();
    let mut options = of_keeper();
    options.insert("last_name", "Featherstonehaugh".into());
    ok(&harness.call(0, "Accounts.Create", &("ann", options)).await);
    for weak in ["correcthorse1", "Featherstonehaugh", "featherstonehaugh1", "qwertyuiop"] {
        let refused = set(&harness, "ann", weak, false).await;
        assert_eq!(code(&refused), "PasswordWeak", "{weak}");
        let (message, _, remedy): (String, String, String) = refused.body().deserialize().unwrap();
        assert!(message.contains("too easy to guess") && !message.contains(weak), "{message}");
        assert!(!remedy.is_empty());
    }
    assert_eq!(code(&log_in(&harness, "ann", "qwertyuiop").await), "AuthenticationFailed");
    // Where the file asks for less, less is enough.
    with(&harness, "[passwords]\nminimum_score = 0\nhistory = 0");
    ok(&set(&harness, "ann", "qwertyuiop", false).await);
    ok(&set(&harness, "ann", "qwertyuiop", false).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_session_rests_on_ends_it() {
    let harness = harness();
    for name in ["ann", "ben"] {
        account(&harness, name).await;
        ok(&set(&harness, name, GOOD, false).await);
    }
    let ben = session(&log_in(&harness, "ben", GOOD).await);
    let ann = session(&log_in(&harness, "ann", GOOD).await);
    ok(&set(&harness, "ann", BETTER, false).await);
    assert!(!is_live(&harness, &ann).await);
    let ann = session(&log_in(&harness, "ann", BETTER).await);
    ok(&harness.call(0, "Accounts.Deactivate", &("ann", of_keeper())).await);
    assert!(!is_live(&harness, &ann).await);
    ok(&harness.call(0, "Accounts.Reactivate", &("ann", of_keeper())).await);
    assert!(!is_live(&harness, &ann).await);
    let ann = session(&log_in(&harness, "ann", BETTER).await);
    let actor = crate::store::Actor::daemon("test");
    let (application, name) = ("keeper".parse().unwrap(), "ann".parse().unwrap());
    crate::sessions::end_all(&harness.daemon, actor, &application, &name, "test").await.unwrap();
    assert!(!is_live(&harness, &ann).await);
    assert!(is_live(&harness, &ben).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_session_ends_and_a_used_one_lives_to_its_end() {
    let harness = harness();
    account(&harness, "ann").await;
    ok(&set(&harness, "ann", GOOD, false).await);
    with(&harness, "[sessions]\nidle_seconds = 2\nlifetime_seconds = 6");
    let idle = session(&log_in(&harness, "ann", GOOD).await);
    let used = session(&log_in(&harness, "ann", GOOD).await);
    let ends = number(&harness.call_at(KEEPER, &used, "Session.Get", &()).await, "ends");
    let begun = std::time::Instant::now();
    let mut latest = 0;
    while is_live(&harness, &idle).await {
        ok(&harness.call_at(KEEPER, &used, "Session.Extend", &()).await);
        latest = number(&harness.call_at(KEEPER, &used, "Session.Get", &()).await, "expires");
        assert!(latest <= ends);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(latest > 0);
    assert_eq!(code(&harness.call_at(KEEPER, &idle, "Session.Extend", &()).await), "NotFound");
    // Nobody else extends or sees it.
    for uid in [STRICT, 4000] {
        assert_eq!(code(&harness.call_at(uid, &used, "Session.Extend", &()).await), "NotFound");
    }
    let listed = harness.call(KEEPER, "Authentication.Sessions", &(none(),)).await;
    ok(&listed);
    let body = listed.body();
    let (sessions, _): (Vec<BTreeMap<String, zbus::OwnedVariant>>, String) = body.deserialize().unwrap();
    let paths: Vec<String> = sessions.iter().map(|session| string(&session["path"])).collect();
    assert_eq!(paths, std::slice::from_ref(&used));
    while is_live(&harness, &used).await {
        assert!(begun.elapsed() < std::time::Duration::from_secs(60), "no end whatever happens");
        let _ = harness.call_at(KEEPER, &used, "Session.Extend", &()).await;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(!is_live(&harness, &used).await);
}

fn string(value: &zbus::OwnedVariant) -> String {
    <&str>::try_from(&**value).unwrap().to_owned()
}

fn number(message: &Message, key: &str) -> u64 {
    ok(message);
    let body = message.body();
    let (record,): (BTreeMap<String, zbus::OwnedVariant>,) = body.deserialize().unwrap();
    u64::try_from(&*record[key]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_trusts_the_application_needs_no_session() {
    let harness = harness();
    account(&harness, "ann").await;
    let run = |kind: &'static str| {
        let argv = vec![b"/bin/true".to_vec()];
        let harness = &harness;
        async move { code(&harness.call(KEEPER, "Jobs.Run", &("ann", argv, option("kind", kind))).await) }
    };
    assert_eq!(run("batch").await, "SessionRequired");
    assert_eq!(run("unknown").await, "SessionRequired");
    // No session is asked for; the account has no link, which is the next thing that is looked at.
    assert_eq!(run("flow").await, "NotLinked");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_person_has_no_login() {
    let harness = harness();
    harness.files.lock().unwrap().insert(
        "own".into(),
        "service_user = \"uid904\"\nmode = \"single-user\"\nauthentication = [\"os\"]\n[kinds.batch]\ncommands = [\"*\"]".into(),
    );
    ok(&harness.call(904, "Accounts.Create", &("me", none())).await);
    assert_eq!(code(&harness.call(904, "Authentication.Vouch", &("me", none())).await), "MethodNotAllowed");
    let password = harness.call(904, "Authentication.Password", &("me", pipe(GOOD), none())).await;
    assert_eq!(code(&password), "MethodNotAllowed");
    let (_ours, theirs) = deputy_wire::pair().unwrap();
    let begun =
        harness.call(904, "Authentication.Begin", &("me", "login", OwnedFd::from(theirs), none())).await;
    assert_eq!(code(&begun), "MethodNotAllowed");
    let argv = vec![b"/bin/true".to_vec()];
    assert_eq!(code(&harness.call(904, "Jobs.Run", &("me", argv, none())).await), "NotLinked");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_vouched_is_recorded_and_the_session_ends_with_the_link() {
    let harness = harness();
    harness.linked(DEMO, "ann").await;
    let expiry = crate::store::Timestamp::now().0 + 60_000_000;
    let mut options = option("issuer", "https://login.example");
    options.insert("subject", "4711".into());
    options.insert("expiry", expiry.into());
    let vouched = harness.call(DEMO, "Authentication.Vouch", &("ann", options)).await;
    let path = session(&vouched);
    let shown = harness.call_at(DEMO, &path, "Session.Get", &()).await;
    assert_eq!(text(&shown, "issuer").unwrap(), "https://login.example");
    assert_eq!(text(&shown, "subject").unwrap(), "4711");
    assert_eq!(number(&shown, "ends"), expiry);
    assert!(number(&harness.call(DEMO, "Accounts.Get", &("ann", none())).await, "last_login") > 0);
    for over in [0u64, 1] {
        let refused = harness.call(DEMO, "Authentication.Vouch", &("ann", option("expiry", over))).await;
        assert_eq!(code(&refused), "InvalidArgument");
    }
    ok(&harness.call(DEMO, "Links.Unlink", &("ann", none())).await);
    assert_eq!(code(&harness.call_at(DEMO, &path, "Session.Get", &()).await), "NotFound");
}
