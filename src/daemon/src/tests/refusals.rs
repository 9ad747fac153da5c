//! Who may not, and what he is told.

use super::harness::{ANN, DEMO, Harness, STRANGER, STRICT, code, face, linking, none, ok, option};
use crate::bus::ROOT;
use crate::launcher::double::answer;
use crate::polkit::{Action, Answer};
use crate::store::Change;
use deputy_core::message::{JobState, LauncherReply};

fn running() -> Harness {
    Harness::new(linking(|_, _, socket| {
        answer(&socket, &LauncherReply::Job(JobState::Running));
        std::thread::sleep(std::time::Duration::from_secs(2));
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn not_there_and_not_yours_are_the_same_bytes() {
    let harness = running();
    harness.linked(DEMO, "alice").await;
    let job = harness.run(DEMO, "alice", &["/bin/true"]).await.unwrap();
    let vouched = harness.call(DEMO, "Authentication.Vouch", &("alice", none())).await;
    let session = vouched.body().deserialize::<(zbus::OwnedObjectPath,)>().unwrap().0.to_string();
    let absent = "a".repeat(16);
    let absent = format!("{ROOT}/job/{absent}");
    let no_session = format!("{ROOT}/session/{}", "a".repeat(32));
    let expected = face(&harness.call_at(STRICT, &absent, "Job.Get", &()).await);

    for uid in [STRICT, STRANGER] {
        for path in [job.as_str(), &absent, &format!("{ROOT}/job/x"), "/nowhere"] {
            for method in ["Job.Get", "Job.Watch"] {
                assert_eq!(
                    face(&harness.call_at(uid, path, method, &()).await),
                    expected,
                    "{uid} {path} {method}"
                );
            }
            let cancelled = harness.call_at(uid, path, "Job.Cancel", &(none(),)).await;
            assert_eq!(face(&cancelled), expected, "{uid} {path}");
            assert_eq!(
                face(&harness.call_at(uid, path, "Job.Signal", &(15, none())).await),
                expected,
                "{uid} {path}"
            );
        }
        for path in [session.as_str(), &no_session, "/nowhere"] {
            for method in ["Session.Get", "Session.Close"] {
                assert_eq!(
                    face(&harness.call_at(uid, path, method, &()).await),
                    expected,
                    "{uid} {path} {method}"
                );
            }
        }
        for (account, application) in [("alice", "demo"), ("nobody", "demo"), ("alice", "absent")] {
            let unlinked =
                harness.call(uid, "Links.Unlink", &(account, option("application", application))).await;
            assert_eq!(face(&unlinked), expected, "{uid} {account} {application}");
        }
    }
    for application in ["demo", "absent"] {
        let options = || option("application", application);
        assert_eq!(face(&harness.call(STRICT, "Accounts.Get", &("alice", options())).await), expected);
        assert_eq!(face(&harness.call(STRICT, "Accounts.List", &(options(),)).await), expected);
        assert_eq!(face(&harness.call(STRICT, "Applications.Get", &(application,)).await), expected);
        let run = harness.call(STRICT, "Jobs.Run", &("alice", vec![b"/bin/true".to_vec()], options())).await;
        assert_eq!(face(&run), expected);
    }
    assert_eq!(face(&harness.call(STRICT, "Accounts.Get", &("alice", none())).await), expected);
    for subject in [&session, &no_session, "/x"] {
        let run = harness.call(STRICT, "Jobs.Run", &(subject, vec![b"/bin/true".to_vec()], none())).await;
        assert_eq!(face(&run), expected, "{subject}");
    }
    // The one whose it is, and the owner of the OS account, see it.
    ok(&harness.call_at(DEMO, &job, "Job.Get", &()).await);
    ok(&harness.call_at(ANN, &job, "Job.Get", &()).await);
    ok(&harness.call_at(DEMO, &session, "Session.Get", &()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_told_the_same_whatever_there_is() {
    let harness = running();
    harness.linked(DEMO, "alice").await;
    let known = harness.call(STRANGER, "Accounts.Get", &("alice", option("application", "demo"))).await;
    let absent = harness.call(STRANGER, "Accounts.Get", &("bob", option("application", "absent"))).await;
    assert_eq!(face(&known), face(&absent));
    assert_eq!(code(&known), "NotAuthorized");
    assert_eq!(
        code(&harness.call(STRANGER, "Jobs.Run", &("alice", vec![vec![b'x']], none())).await),
        "NotAuthorized"
    );
    let lists = harness.call(STRANGER, "Jobs.List", &(none(),)).await;
    let (jobs, _): (Vec<std::collections::BTreeMap<String, zbus::OwnedVariant>>, String) =
        lists.body().deserialize().unwrap();
    assert!(jobs.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn introspection_and_properties_tell_nothing() {
    let harness = running();
    harness.linked(DEMO, "alice").await;
    let job = harness.run(DEMO, "alice", &["/bin/true"]).await.unwrap();
    let absent = format!("{ROOT}/job/{}", "b".repeat(16));
    let xml = |message: &zbus::Message| message.body().deserialize::<(String,)>().unwrap().0;
    let introspect = "org.freedesktop.DBus.Introspectable.Introspect";
    let shown = xml(&harness.call_at(STRANGER, &job, introspect, &()).await);
    assert_eq!(shown, xml(&harness.call_at(STRANGER, &absent, introspect, &()).await));
    assert!(!xml(&harness.call_at(STRANGER, ROOT, introspect, &()).await).contains("<node name"));
    let set = ("org.deputy.Deputy1.Manager", "Version", zbus::Variant::from("x"));
    assert_eq!(code(&harness.call(0, "org.freedesktop.DBus.Properties.Set", &set).await), "PropertyReadOnly");
    let all = harness.call_at(STRANGER, &job, "org.freedesktop.DBus.Properties.GetAll", &("x",)).await;
    let all: (std::collections::BTreeMap<String, zbus::OwnedVariant>,) = all.body().deserialize().unwrap();
    assert!(all.0.is_empty());
    ok(&harness.call(STRANGER, "org.freedesktop.DBus.Peer.Ping", &()).await);
    assert_eq!(code(&harness.call(0, "Manager.Absent", &()).await), "UnknownMethod");
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_are_looked_at_before_anything_happens() {
    let harness = running();
    let refused = [
        harness.call(DEMO, "Accounts.Create", &("alice",)).await,
        harness.call(DEMO, "Accounts.Create", &("alice", "text")).await,
        harness.call(DEMO, "Accounts.Create", &("../x", none())).await,
        harness.call(DEMO, "Accounts.Create", &("alice", option("colour", "red"))).await,
        harness.call(DEMO, "Accounts.Create", &("alice", option("role", "a b"))).await,
        harness.call(DEMO, "Accounts.List", &(option("limit", 0u32),)).await,
        harness.call(DEMO, "Accounts.List", &(option("cursor", "zz"),)).await,
        harness
            .call(DEMO, "Jobs.Run", &("alice", vec![vec![b'x']], option("directory", b"x".to_vec())))
            .await,
        harness.call(0, "Accounts.List", &(none(),)).await,
    ];
    for message in refused {
        assert_eq!(code(&message), "InvalidArgument");
    }
    assert!(harness.requests.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_recorded_and_those_of_strangers_only_counted() {
    let harness = running();
    ok(&harness.call(DEMO, "Accounts.Create", &("alice", none())).await);
    assert_eq!(harness.run(DEMO, "alice", &["/bin/true"]).await, Err("NotLinked".into()));
    for _ in 0..50 {
        assert_eq!(
            code(&harness.call(STRANGER, "Accounts.List", &(option("application", "demo"),)).await),
            "NotAuthorized"
        );
    }
    let denials = harness.denials().await;
    let [Change::Denied { code, method, account, argv, .. }] = denials.as_slice() else {
        panic!("{denials:?}")
    };
    assert_eq!((code.as_str(), method.as_str()), ("NotLinked", "Jobs.Run"));
    assert_eq!(account.as_ref().unwrap().as_str(), "alice");
    assert_eq!(argv.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn polkit_decides_for_administrators_and_is_not_asked_on_the_ordinary_way() {
    let harness = running();
    harness.linked(DEMO, "alice").await;
    harness.run(DEMO, "alice", &["/bin/true"]).await.unwrap();
    assert!(harness.polkit.asked.lock().unwrap().is_empty());
    let list = async || harness.call(STRANGER, "Accounts.List", &(option("application", "demo"),)).await;
    for answer in [Answer::No, Answer::Challenge, Answer::Unreachable] {
        *harness.polkit.answer.lock().unwrap() = answer;
        assert_eq!(code(&list().await), "NotAuthorized");
    }
    *harness.polkit.answer.lock().unwrap() = Answer::Yes;
    ok(&list().await);
    let asked = harness.polkit.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 4);
    assert!(asked.iter().all(|(action, details)| {
        *action == Action::View && details.application.as_deref() == Some("demo")
    }));
    // Root is not asked about; and running stays the application's own.
    *harness.polkit.answer.lock().unwrap() = Answer::Unreachable;
    ok(&harness.call(0, "Accounts.List", &(option("application", "demo"),)).await);
    let run = harness
        .call(0, "Jobs.Run", &("alice", vec![b"/bin/true".to_vec()], option("application", "demo")))
        .await;
    assert_eq!(code(&run), "NotAuthorized");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_file_says_so_polkit_is_asked_before_each_job() {
    let harness = running();
    harness.linked(DEMO, "alice").await;
    let text = harness.files.lock().unwrap()["demo"].clone();
    harness.files.lock().unwrap().insert("demo".into(), format!("ask_polkit = [\"run\"]\n{text}"));
    assert_eq!(harness.run(DEMO, "alice", &["/bin/true", "x y"]).await, Err("NotAuthorized".into()));
    let (action, details) = harness.polkit.asked.lock().unwrap().pop().unwrap();
    assert_eq!(action, Action::Run);
    assert_eq!(details.os_user.as_deref(), Some("ann"));
    assert_eq!(details.kind.as_deref(), Some("batch"));
    assert_eq!(details.command.as_deref(), Some("/bin/true x y"));
    assert_eq!(harness.requests.lock().unwrap().len(), 1, "only the link was asked for");
    *harness.polkit.answer.lock().unwrap() = Answer::Yes;
    harness.run(DEMO, "alice", &["/bin/true"]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_became_invalid_stops_its_application_at_once() {
    let harness = running();
    harness.linked(DEMO, "alice").await;
    harness.files.lock().unwrap().insert("demo".into(), "service_uid = 900\nbroken = 1".into());
    assert_eq!(harness.run(DEMO, "alice", &["/bin/true"]).await, Err("NotAuthorized".into()));
    let check = harness.call(0, "Applications.Check", &("demo",)).await;
    let (findings,): (Vec<std::collections::BTreeMap<String, zbus::OwnedVariant>>,) =
        check.body().deserialize().unwrap();
    assert_eq!(findings.len(), 1);
}
