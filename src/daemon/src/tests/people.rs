//! Conversations, sessions and links, with a launcher that plays the person.

use std::time::Duration;

use super::harness::{ANN, DEMO, Harness, STRICT, ann, code, face, linking, none, ok, option, text};
use crate::launcher::double::answer;
use deputy_core::consent::GivenBy;
use deputy_core::message::{
    Authenticated, JobState, LauncherReply, LauncherRequest, LinkState, Purpose, Withdrawn,
};
use deputy_core::{Denial, LinkCode};
use zbus::{OwnedFd, OwnedObjectPath};

/// Everybody who has an account here answers well, but for the one called mallory.
fn well() -> Harness {
    Harness::new(linking(|request, descriptors, socket| match request {
        LauncherRequest::Converse(asked) => {
            assert_eq!(descriptors.len(), 1);
            let reply = if asked.os_user.as_str() == "ann" && asked.account.as_str() != "mallory" {
                LauncherReply::Authenticated(Authenticated {
                    purpose: asked.purpose,
                    os_account: ann(),
                    expires: None,
                })
            } else {
                LauncherReply::Denied(Denial::authentication_failed())
            };
            std::thread::sleep(Duration::from_millis(50));
            answer(&socket, &reply);
        }
        LauncherRequest::Run(_) => {
            answer(&socket, &LauncherReply::Job(JobState::Running));
            std::thread::sleep(Duration::from_secs(1));
        }
        other => panic!("{other:?}"),
    }))
}

fn socket() -> OwnedFd {
    let (ours, theirs) = deputy_wire::pair().unwrap();
    // The test's own end is not needed; it only must not be seen as closed.
    std::mem::forget(ours);
    theirs.into()
}

async fn begin(harness: &Harness, uid: u32, account: &str, purpose: &str) -> String {
    let options = if purpose == "link" { option("os_user", "ann") } else { none() };
    let begun = harness.call(uid, "Authentication.Begin", &(account, purpose, socket(), options)).await;
    ok(&begun);
    begun.body().deserialize::<(String,)>().unwrap().0
}

fn session(message: &zbus::Message) -> String {
    ok(message);
    let body = message.body();
    let (record,): (std::collections::BTreeMap<String, zbus::OwnedVariant>,) = body.deserialize().unwrap();
    let path: &zbus::ObjectPath<'_> = (&record["session"]).try_into().unwrap();
    path.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_links_logs_in_and_runs_a_job_where_the_applications_word_is_not_enough() {
    let harness = well();
    ok(&harness.call(0, "Accounts.Create", &("alice", option("application", "strict"))).await);
    assert_eq!(harness.run(STRICT, "alice", &["/bin/true"]).await, Err("SessionRequired".into()));
    assert_eq!(
        code(&harness.call(STRICT, "Authentication.Vouch", &("alice", none())).await),
        "MethodNotAllowed"
    );
    let id = begin(&harness, STRICT, "alice", "link").await;
    let finished = harness.call(STRICT, "Authentication.Finish", &(id.as_str(),)).await;
    assert_eq!(text(&finished, "os_user").unwrap(), "ann");
    // An outcome is told once.
    assert_eq!(code(&harness.call(STRICT, "Authentication.Finish", &(id,)).await), "NotFound");
    let id = begin(&harness, STRICT, "alice", "login").await;
    assert_eq!(code(&harness.call(DEMO, "Authentication.Finish", &(id.as_str(),)).await), "NotFound");
    let path = session(&harness.call(STRICT, "Authentication.Finish", &(id,)).await);
    harness.run(STRICT, &path, &["/bin/true"]).await.unwrap();
    assert_eq!(harness.run(STRICT, &path, &["/bin/false"]).await, Err("CommandNotAllowed".into()));
    assert_eq!(harness.run(DEMO, &path, &["/bin/true"]).await, Err("NotFound".into()));
    ok(&harness.call_at(STRICT, &path, "Session.Close", &()).await);
    assert_eq!(harness.run(STRICT, &path, &["/bin/true"]).await, Err("NotFound".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_there_not_linked_or_does_not_know_fails_alike() {
    let harness = well();
    for account in ["alice", "mallory", "unlinked"] {
        ok(&harness.call(0, "Accounts.Create", &(account, option("application", "strict"))).await);
    }
    ok(&harness.call(0, "Links.Request", &("mallory", "ann", option("application", "strict"))).await);
    let mut faces = Vec::new();
    for account in ["mallory", "unlinked", "nobody", "x1@lab.example"] {
        let id = begin(&harness, STRICT, account, "login").await;
        faces.push(face(&harness.call(STRICT, "Authentication.Finish", &(id,)).await));
    }
    // Even the right answers do not log in an account that has no link.
    let options = option("os_user", "ann");
    let begun = harness.call(STRICT, "Authentication.Begin", &("alice", "login", socket(), options)).await;
    let (id,): (String,) = begun.body().deserialize().unwrap();
    faces.push(face(&harness.call(STRICT, "Authentication.Finish", &(id,)).await));
    assert!(faces.windows(2).all(|pair| pair[0] == pair[1]), "{faces:?}");
    assert!(faces[0].0.ends_with("AuthenticationFailed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_needs_its_method_its_socket_and_a_name() {
    let harness = well();
    ok(&harness.call(0, "Accounts.Create", &("alice", option("application", "strict"))).await);
    let (reader, _writer) = std::io::pipe().unwrap();
    let (stream, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    for wrong in
        [OwnedFd::from(std::os::fd::OwnedFd::from(reader)), OwnedFd::from(std::os::fd::OwnedFd::from(stream))]
    {
        let begun = harness.call(STRICT, "Authentication.Begin", &("alice", "login", wrong, none())).await;
        assert_eq!(code(&begun), "InvalidArgument");
    }
    for (uid, account, purpose, expected) in [
        (DEMO, "alice", "login", "MethodNotAllowed"),
        (STRICT, "alice", "link", "InvalidArgument"),
        (STRICT, "alice", "other", "InvalidArgument"),
        (ANN, "alice", "login", "NotAuthorized"),
        (0, "alice", "login", "NotAuthorized"),
    ] {
        let begun = harness.call(uid, "Authentication.Begin", &(account, purpose, socket(), none())).await;
        assert_eq!(code(&begun), expected, "{uid} {account} {purpose}");
    }
    let options = option("os_user", "ann");
    let begun = harness.call(STRICT, "Authentication.Begin", &("nobody", "link", socket(), options)).await;
    assert_eq!(code(&begun), "NotFound");
    assert!(harness.requests.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_waits_until_its_owner_consents_and_goes_when_he_says_so() {
    let consented = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = std::sync::Arc::clone(&consented);
    let harness = Harness::new(move |request, _, socket| match request {
        LauncherRequest::RequestLink(_) => {
            let state = if seen.load(std::sync::atomic::Ordering::SeqCst) {
                LinkState::Active { given_by: GivenBy::Owner, expires: None, renewal: None }
            } else {
                LinkState::Waiting { code: LinkCode::from_random([7; 6]), expires: 4_000_000_000 }
            };
            answer(&socket, &LauncherReply::Link { os_account: ann(), state });
        }
        LauncherRequest::Run(_) => answer(&socket, &LauncherReply::Job(JobState::Running)),
        LauncherRequest::Attach { .. } => answer(&socket, &LauncherReply::Job(JobState::Lost)),
        LauncherRequest::Withdraw(_) => answer(&socket, &LauncherReply::Withdrawn(Withdrawn::default())),
        _ => answer(&socket, &LauncherReply::Done),
    });
    ok(&harness.call(DEMO, "Accounts.Create", &("alice", none())).await);
    for _ in 0..2 {
        let asked = harness.call(DEMO, "Links.Request", &("alice", "ann", none())).await;
        let (state, code): (String, String) = asked.body().deserialize().unwrap();
        assert_eq!((state.as_str(), code.len()), ("waiting", 10));
    }
    assert_eq!(code(&harness.call(DEMO, "Links.Request", &("alice", "bob", none())).await), "Conflict");
    assert_eq!(harness.run(DEMO, "alice", &["/bin/true"]).await, Err("NoConsent".into()));
    consented.store(true, std::sync::atomic::Ordering::SeqCst);
    harness.run(DEMO, "alice", &["/bin/true"]).await.unwrap();
    // The owner sees and removes it, without being anybody's service user.
    let list = harness.call(ANN, "Links.List", &(none(),)).await;
    let (links, _): (Vec<std::collections::BTreeMap<String, zbus::OwnedVariant>>, String) =
        list.body().deserialize().unwrap();
    assert_eq!(<&str>::try_from(&links[0]["state"]).unwrap(), "active");
    ok(&harness.call(ANN, "Links.Unlink", &("alice", option("application", "demo"))).await);
    assert_eq!(harness.run(DEMO, "alice", &["/bin/true"]).await, Err("NotLinked".into()));
    assert!(harness.requests.lock().unwrap().iter().any(|r| matches!(r, LauncherRequest::Withdraw(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_over_is_not_there() {
    let harness = well();
    harness.linked(DEMO, "alice").await;
    let vouch = async |micros: u64| {
        let options = option("expiry", crate::store::Timestamp::now().0 + micros);
        harness.call(DEMO, "Authentication.Vouch", &("alice", options)).await
    };
    let path = vouch(300_000).await.body().deserialize::<(OwnedObjectPath,)>().unwrap().0.to_string();
    harness.run(DEMO, &path, &["/bin/true"]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(harness.run(DEMO, &path, &["/bin/true"]).await, Err("NotFound".into()));
    assert_eq!(code(&harness.call_at(DEMO, &path, "Session.Get", &()).await), "NotFound");
    let past = harness.call(DEMO, "Authentication.Vouch", &("alice", option("expiry", 5u64))).await;
    assert_eq!(code(&past), "InvalidArgument");
    assert_eq!(Purpose::Login.as_str(), "login");
}
