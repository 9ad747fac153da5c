//! `Jobs.StateChanged`: to the connections that asked and may hear of the job, and to nobody else.
#![forbid(unsafe_code)]

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Duration;

use deputy_suite::client::{Client, Options, on_bus, options, text};
use deputy_suite::people::{command_as, ok};
use deputy_suite::requests::grant;
use deputy_suite::{deputyctl, need_the_sandbox};
use futures_util::StreamExt as _;
use zbus::{MessageStream, OwnedObjectPath, OwnedVariant};

type Details = std::collections::BTreeMap<String, OwnedVariant>;

fn linked(account: &str, os_user: &str) {
    ok(&deputyctl("portal", &["account", "add", "demo", account]));
    grant(account, os_user);
    ok(&deputyctl("portal", &["link", "request", "demo", account, os_user]));
}

fn run(account: &str) {
    ok(&deputyctl("portal", &["run", "--app", "demo", "--account", account, "--", "true"]));
}

async fn subscribe(client: &Client) {
    client.call::<_, ()>("Jobs.Subscribe", &(Options::new(),)).await.expect("subscribed");
}

/// What the signals of an account's jobs said until its job was done, or until nothing more came.
async fn states(messages: &mut MessageStream, account: &str) -> Vec<String> {
    let mut states = Vec::new();
    while let Ok(Some(message)) = tokio::time::timeout(Duration::from_secs(3), messages.next()).await {
        let message = message.expect("a message");
        let header = message.header();
        if header.member().is_none_or(|member| member.as_str() != "StateChanged") {
            continue;
        }
        assert!(header.destination().is_some_and(|to| to.starts_with(':')), "{header:?}");
        let (path, state, details): (OwnedObjectPath, String, Details) =
            message.body().deserialize().expect("the signal's arguments");
        assert_eq!(text(&details, "state").as_deref(), Some(state.as_str()));
        assert!(path.as_str().ends_with(&text(&details, "id").expect("its id")));
        assert!(!details.contains_key("argv"));
        if text(&details, "account").as_deref() == Some(account) {
            states.push(state);
            if states.last().is_some_and(|state| state == "done") {
                break;
            }
        }
    }
    states
}

#[test]
fn others_hear_nothing_and_who_asked_hears_each_state() {
    need_the_sandbox();
    linked("announced", "alice");
    // A stranger who matches everything, and did not ask.
    let mut stranger = command_as("carol", &["deputy-eavesdropper"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the eavesdropper");
    let mut lines = BufReader::new(stranger.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    let refused = on_bus("root", async |client| {
        client.call::<_, ()>("Jobs.Subscribe", &(Options::new(),)).await.expect_err("refused")
    });
    assert_eq!(refused.code(), "NotAuthorized");
    let unknown = on_bus("portal", async |client| {
        let wrong = options(&[("application", "demo")]);
        client.call::<_, ()>("Jobs.Subscribe", &(wrong,)).await.expect_err("refused")
    });
    assert_eq!(unknown.code(), "InvalidArgument");

    let heard = |user: &'static str| {
        move || {
            on_bus(user, async |client| {
                let mut messages = client.messages();
                subscribe(&client).await;
                // Twice is once.
                subscribe(&client).await;
                states(&mut messages, "announced").await
            })
        }
    };
    let (portal, owner, another_application, another_owner) = std::thread::scope(|scope| {
        let threads = ["portal", "alice", "otherportal", "bob"].map(|user| scope.spawn(heard(user)));
        std::thread::sleep(Duration::from_secs(1));
        run("announced");
        let [portal, owner, other, bob] = threads.map(|thread| thread.join().expect("no panic"));
        (portal, owner, other, bob)
    });
    assert!(another_application.is_empty(), "{another_application:?}");
    assert!(another_owner.is_empty(), "{another_owner:?}");
    for told in [&portal, &owner] {
        let whole = ["queued", "starting", "running", "done"];
        let short = ["queued", "starting", "done"];
        assert!(told[..] == whole || told[..] == short, "{told:?}");
    }
    drop(stranger.stdin.take());
    let told: Vec<String> = lines.map(Result::unwrap).collect();
    assert!(stranger.wait().unwrap().success());
    assert!(!told.iter().any(|line| line.starts_with("heard:")), "{told:?}");
}

#[test]
fn who_asks_for_no_more_hears_no_more_and_who_left_is_forgotten() {
    need_the_sandbox();
    linked("silenced", "alice");
    let (say, said) = std::sync::mpsc::channel();
    let told = std::thread::scope(|scope| {
        let listener = scope.spawn(|| {
            on_bus("portal", async |client| {
                let mut messages = client.messages();
                subscribe(&client).await;
                client.call::<_, ()>("Jobs.Unsubscribe", &(Options::new(),)).await.expect("no more");
                say.send(()).expect("a test that waits");
                states(&mut messages, "silenced").await
            })
        });
        said.recv().expect("unsubscribed");
        run("silenced");
        listener.join().expect("no panic")
    });
    assert!(told.is_empty(), "{told:?}");
    // One uid has room for 64 at once.
    for _ in 0..80 {
        on_bus("carol", async |client| subscribe(&client).await);
    }
}
