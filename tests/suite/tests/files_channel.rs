//! `Files.Channel`: many files through a socket, which gives no more than calls on the bus do.
#![forbid(unsafe_code)]

use std::fs::{self, File, Permissions};
use std::io::{Read as _, Write as _, pipe};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use deputy_core::message::{LauncherReply, MAX_OPEN};
use deputy_suite::Fake;
use deputy_suite::client::{Client, Failed, Options, on_bus, options};
use deputy_suite::machine::install_application;
use deputy_suite::portal::{application, flags, policy};
use deputy_suite::requests::withdrawal;
use serde_json::Value;

/// One test at a time: an application that one installs ends the agents of all.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The application's end of a channel.
struct Channel(OwnedFd);

impl Channel {
    async fn open(client: &Client, subject: &str, options: Options) -> Result<Self, Failed> {
        let (socket,): (zbus::OwnedFd,) = client.call("Files.Channel", &(subject, options)).await?;
        Ok(Self(socket.into()))
    }

    fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
        deputy_wire::send(&self.0, bytes, descriptors).expect("sent");
    }

    /// The next answer and its files; none where the channel was closed.
    fn next(&self) -> Option<(Value, Vec<File>)> {
        let packet = deputy_wire::receive_up_to(&self.0, MAX_OPEN).expect("an answer")?;
        let answer = serde_json::from_slice(&packet.bytes).expect("JSON");
        Some((answer, packet.descriptors.into_iter().map(File::from).collect()))
    }

    fn ask(&self, paths: &[&str]) -> (Value, Vec<File>) {
        let request = paths.join("\0") + "\0";
        self.send(request.as_bytes(), &[]);
        self.next().expect("an answer")
    }

    /// The code with which a request is refused, after which there is nothing more.
    fn is_refused(&self, request: &[u8]) -> String {
        self.send(request, &[]);
        self.is_closed_with()
    }

    fn is_closed_with(&self) -> String {
        let (answer, files) = self.next().expect("an answer");
        assert!(files.is_empty());
        assert!(self.next().is_none(), "it was not closed after {answer}");
        assert!(!answer["message"].as_str().unwrap_or_default().is_empty(), "{answer}");
        answer["error"].as_str().expect("a code").to_owned()
    }
}

const FILE: &str = "/data/bus/through";

fn with_file(name: &str) -> String {
    let user = application(name);
    fs::write(FILE, "text").expect("a file");
    user
}

#[test]
fn a_channel_is_refused_as_each_of_its_requests_would_be() {
    let _turn = turn();
    let user = with_file("refusedchannel");
    on_bus(&user, async |client: Client| {
        for (subject, options, code) in [
            ("ada", flags(&["write", "keep"]), "InvalidArgument"),
            ("ada", options(&[("project", "ada/none")]), "NotFound"),
            ("nobody", Options::new(), "NotFound"),
        ] {
            let refused = Channel::open(&client, subject, options).await.err().expect("refused");
            assert_eq!(refused.code(), code);
        }
    });
    let refused =
        on_bus("carol", async |client: Client| Channel::open(&client, "ada", Options::new()).await.err());
    assert_eq!(refused.expect("refused").code(), "NotAuthorized");
}

#[test]
fn what_is_no_request_is_refused_and_closes_the_channel() {
    let _turn = turn();
    let user = with_file("wrongchannel");
    on_bus(&user, async |client: Client| {
        let path = format!("{FILE}\0");
        for request in [FILE.as_bytes().to_vec(), path.repeat(MAX_OPEN + 1).into_bytes()] {
            let channel = Channel::open(&client, "ada", Options::new()).await.expect("a channel");
            assert_eq!(channel.is_refused(&request), "InvalidArgument");
        }
        // Descriptors are not taken, one or several; nor is what does not fit into a packet.
        let (reader, _writer) = pipe().expect("a pipe");
        for (count, code) in [(1, "InvalidArgument"), (2, "BadMessage")] {
            let channel = Channel::open(&client, "ada", Options::new()).await.expect("a channel");
            channel.send(path.as_bytes(), &vec![reader.as_fd(); count]);
            assert_eq!(channel.is_closed_with(), code);
        }
        let channel = Channel::open(&client, "ada", Options::new()).await.expect("a channel");
        let long = format!("/{}\0", "x".repeat(70_000));
        rustix::net::send(&channel.0, long.as_bytes(), rustix::net::SendFlags::empty()).expect("sent");
        assert_eq!(channel.is_closed_with(), "BadMessage");
    });
}

#[test]
fn each_file_has_its_own_result_and_only_what_was_asked_for() {
    let _turn = turn();
    let user = with_file("channel");
    fs::create_dir_all("/data/bus/channelled").expect("a folder");
    fs::set_permissions("/data/bus/channelled", Permissions::from_mode(0o777)).expect("a mode");
    let path = |number: usize| format!("/data/bus/channelled/{number}");
    for number in 0..MAX_OPEN {
        fs::write(path(number), number.to_string()).expect("a file");
    }
    fs::set_permissions(path(3), Permissions::from_mode(0o600)).expect("a mode");
    std::os::unix::fs::symlink("/etc/passwd", "/data/bus/outward").ok();
    on_bus(&user, async |client: Client| {
        let channel = Channel::open(&client, "ada", Options::new()).await.expect("a channel");
        let all: Vec<String> = (0..MAX_OPEN).map(path).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        for _ in 0..3 {
            let (answer, files) = channel.ask(&all);
            assert_eq!(files.len(), MAX_OPEN - 1);
            let opened = (0..MAX_OPEN).filter(|number| *number != 3);
            for (mut file, number) in files.into_iter().zip(opened) {
                assert_eq!(answer["results"][number], Value::Null);
                let mut held = String::new();
                file.read_to_string(&mut held).expect("read");
                assert_eq!(held, number.to_string());
                assert!(file.write_all(b"x").is_err());
            }
            let refused = &answer["results"][3];
            assert_eq!(refused["error"], "FileError");
            assert!(refused["message"].as_str().is_some_and(|message| message.starts_with("EACCES: ")));
        }
        let (answer, files) = channel.ask(&[
            "/etc/passwd",
            "/data/bus/outward",
            "/data/bus/../../etc/passwd",
            "/data/bus",
            "relative",
            FILE,
            "",
        ]);
        let codes: Vec<&str> = answer["results"]
            .as_array()
            .expect("results")
            .iter()
            .map(|result| result["error"].as_str().unwrap_or("opened"))
            .collect();
        let outside = "PathOutside";
        assert_eq!(codes, [outside, outside, outside, "FileError", outside, "opened", outside]);
        assert_eq!(files.len(), 1);

        // The next request may be on its way while the answer to the one before is not read yet.
        let request = format!("{FILE}\0");
        channel.send(request.as_bytes(), &[]);
        channel.send(request.as_bytes(), &[]);
        assert_eq!((channel.next().expect("one").1.len(), channel.next().expect("two").1.len()), (1, 1));
        let writing =
            Channel::open(&client, "ada", flags(&["write", "create", "exclusive"])).await.expect("a channel");
        let (answer, mut files) = writing.ask(&["/data/bus/channelled/new", FILE]);
        assert!(answer["results"][1]["message"].as_str().is_some_and(|text| text.starts_with("EEXIST: ")));
        files[0].write_all(b"new").expect("written");
        assert!(files[0].read(&mut [0]).is_err());
        assert_eq!(fs::read_to_string("/data/bus/channelled/new").expect("made"), "new");
    });
}

#[test]
fn one_application_has_eight_of_them_and_a_closed_one_gives_its_place_back() {
    let _turn = turn();
    let user = with_file("manychannels");
    on_bus(&user, async |client: Client| {
        let mut channels = Vec::new();
        for _ in 0..8 {
            channels.push(Channel::open(&client, "ada", Options::new()).await.expect("a channel"));
        }
        let refused = Channel::open(&client, "ada", Options::new()).await.err().expect("one too many");
        assert_eq!(refused.code(), "Busy");
        channels.pop();
        loop {
            match Channel::open(&client, "ada", Options::new()).await {
                Ok(channel) => break channels.push(channel),
                Err(refused) => assert_eq!(refused.code(), "Busy"),
            }
        }
        assert!(channels.iter().all(|channel| channel.ask(&[FILE]).1.len() == 1));
    });
}

fn channel(user: &str, subject: &str, options: Options) -> Channel {
    on_bus(user, async |client: Client| Channel::open(&client, subject, options).await.expect("a channel"))
}

/// Opens a channel, does something that takes its ground away, and has the code of the next request's refusal.
fn refused_after(user: &str, subject: &str, change: impl FnOnce()) -> String {
    let channel = channel(user, subject, Options::new());
    assert_eq!(channel.ask(&[FILE]).1.len(), 1);
    change();
    channel.is_refused(format!("{FILE}\0").as_bytes())
}

#[test]
fn a_channel_ends_with_the_consent() {
    let _turn = turn();
    let user = with_file("channelrevoked");
    let code = refused_after(&user, "ada", || {
        let answers = Fake::daemon().ask(&withdrawal("channelrevoked", "ada", "alice", false), &[]);
        assert!(matches!(answers.replies[..], [LauncherReply::Withdrawn(_)]), "{answers:?}");
    });
    assert_eq!(code, "NoConsent");
}

#[test]
fn a_channel_ends_with_the_session_that_it_is_for() {
    let _turn = turn();
    let user = with_file("channelsession");
    let (session,): (zbus::OwnedObjectPath,) = on_bus(&user, async |client: Client| {
        client.call("Authentication.Vouch", &("ada", Options::new())).await.expect("a session")
    });
    let code = refused_after(&user, session.as_str(), || {
        on_bus(&user, async |client: Client| {
            client.call_at::<_, ()>(session.as_str(), "Session.Close", &()).await.expect("closed");
        });
    });
    assert_eq!(code, "NotFound");
}

#[test]
fn a_channel_ends_with_the_account_and_its_permission() {
    let _turn = turn();
    let user = with_file("channelaccount");
    let set_role = |role: &str| {
        on_bus(&user, async |client: Client| {
            client.call::<_, ()>("Accounts.SetRole", &("ada", role, Options::new())).await.expect("a role");
        });
    };
    assert_eq!(refused_after(&user, "ada", || set_role("viewer")), "PermissionMissing");
    set_role("user");
    let code = refused_after(&user, "ada", || {
        on_bus(&user, async |client: Client| {
            client.call::<_, ()>("Accounts.Deactivate", &("ada", Options::new())).await.expect("done");
        });
    });
    assert_eq!(code, "AccountNotActive");
}

#[test]
fn a_channel_sees_a_policy_that_changes_under_it() {
    let _turn = turn();
    let user = with_file("channelpolicy");
    fs::set_permissions(FILE, Permissions::from_mode(0o666)).expect("a mode");
    let channel = channel(&user, "ada", flags(&["write"]));
    assert_eq!(channel.ask(&[FILE]).1.len(), 1);
    install_application("channelpolicy", &policy("channelpolicy", "read-only"));
    let (answer, files) = channel.ask(&[FILE]);
    assert_eq!((answer["results"][0]["error"].as_str(), files.len()), (Some("RootReadOnly"), 0));
}
