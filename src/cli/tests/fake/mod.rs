//! A private bus with a stand-in for `deputyd`, which answers as the names in the calls ask it to.
#![allow(dead_code, reason = "each file of tests uses its own part")]

mod jobs;

use std::collections::HashMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use deputy_core::Nonce;
use deputy_core::message::Purpose;
use deputy_core::message::conversation::{ClientFrame, Hello, ServerFrame};
use futures_util::StreamExt as _;
use tempfile::TempDir;
use zbus::message::{Flags, Type};
use zbus::{Connection, Message, MessageStream, OwnedVariant, Variant};

pub type Options = HashMap<String, OwnedVariant>;

/// What the stand-in was called for: method, and whether polkit might have asked.
pub type Calls = Arc<Mutex<Vec<(String, bool)>>>;

pub struct Bus {
    address: String,
    daemon: Child,
    _folder: TempDir,
    pub calls: Calls,
    pub jobs: jobs::Jobs,
}

impl Bus {
    /// A bus on which nobody has Deputy's name.
    pub fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("bus");
        let address = format!("unix:path={}", socket.display());
        let config = folder.path().join("bus.conf");
        fs::write(
            &config,
            format!(
                "<busconfig><listen>{address}</listen><auth>EXTERNAL</auth><policy context='default'>\
                 <allow send_destination='*'/><allow receive_sender='*'/><allow own='*'/><allow user='*'/></policy></busconfig>"
            ),
        )
        .unwrap();
        let daemon = Command::new("dbus-daemon")
            .args(["--nofork", "--nopidfile", "--nosyslog", "--config-file"])
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_for(&socket);
        Self { address, daemon, _folder: folder, calls: Calls::default(), jobs: jobs::Jobs::default() }
    }

    /// A bus with the stand-in.
    pub fn new() -> Self {
        let bus = Self::empty();
        let (address, calls, jobs) = (bus.address.clone(), bus.calls.clone(), bus.jobs.clone());
        let (ready, wait) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(serve(&address, &ready, &calls, &jobs));
        });
        wait.recv_timeout(Duration::from_secs(10)).unwrap();
        bus
    }

    /// `deputyctl` on this bus.
    pub fn deputyctl(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_deputyctl"));
        command.args(words).env_clear().env("DBUS_SYSTEM_BUS_ADDRESS", &self.address).stdin(Stdio::null());
        command
    }

    /// The same line for a shell.
    pub fn line(&self, words: &str) -> String {
        format!("DBUS_SYSTEM_BUS_ADDRESS={} {} {words}", self.address, env!("CARGO_BIN_EXE_deputyctl"))
    }

    /// Runs `deputyctl` to its end: exit status, standard output, standard error.
    pub fn run(&self, words: &[&str]) -> (i32, String, String) {
        outcome(self.deputyctl(words).output().unwrap())
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

pub fn outcome(output: std::process::Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn wait_for(path: &Path) {
    for _ in 0..1000 {
        // The file is there before anybody listens.
        if UnixStream::connect(path).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("nobody listens on {}", path.display());
}

async fn serve(address: &str, ready: &mpsc::Sender<()>, calls: &Calls, jobs: &jobs::Jobs) {
    let connection = zbus::connection::Builder::address(address).build().await.unwrap();
    let mut messages = MessageStream::from(connection.clone());
    connection.request_name("org.deputy.Deputy1").await.unwrap();
    ready.send(()).unwrap();
    while let Some(Ok(message)) = messages.next().await {
        if message.message_type() == Type::MethodCall {
            let (method, interactive) = {
                let header = message.header();
                let interface = header.interface().map(ToString::to_string).unwrap_or_default();
                let method =
                    format!("{}.{}", interface.rsplit('.').next().unwrap(), header.member().unwrap());
                (method, header.primary().flags().contains(Flags::ALLOW_INTERACTIVE_AUTH))
            };
            calls.lock().unwrap().push((method.clone(), interactive));
            answer(&connection, &message, &method, jobs).await;
        }
    }
}

/// A dictionary.
pub fn dictionary<const N: usize>(
    fields: [(&'static str, Variant<'static>); N],
) -> HashMap<&'static str, Variant<'static>> {
    HashMap::from(fields)
}

pub async fn refuse(connection: &Connection, message: &Message, code: &str, body: (&str, &str, &str)) {
    let name = format!("org.deputy.Deputy1.Error.{code}");
    connection.reply_error(&message.header(), name, &body).await.unwrap();
}

async fn answer(connection: &Connection, message: &Message, method: &str, jobs: &jobs::Jobs) {
    let header = message.header();
    let body = message.body();
    match method {
        "Manager.Status" => {
            let status = dictionary([("version", "9.9\u{1b}[2J".into()), ("launcher", true.into())]);
            connection.reply(&header, &status).await.unwrap();
        }
        "Applications.Check" => {
            let name: String = body.deserialize().unwrap();
            let severity = if name == "broken" { "error" } else { "warning" };
            let finding = dictionary([
                ("code", "some-code".into()),
                ("severity", severity.into()),
                ("message", "a sentence".into()),
                ("remedy", "do it".into()),
            ]);
            connection.reply(&header, &vec![finding]).await.unwrap();
        }
        "Accounts.Create" => {
            let (account, options): (String, Options) = body.deserialize().unwrap();
            assert!(options.contains_key("application"));
            match account.as_str() {
                "taken" => {
                    refuse(connection, message, "Conflict", ("it\nexists", "unique", "take another")).await;
                }
                _ => connection.reply(&header, &()).await.unwrap(),
            }
        }
        "Accounts.List" => {
            let options: Options = body.deserialize().unwrap();
            let second = options.contains_key("cursor");
            let account = dictionary([
                ("account", if second { "bob" } else { "alice" }.into()),
                ("created", 0u64.into()),
            ]);
            connection.reply(&header, &(vec![account], if second { "" } else { "alice" })).await.unwrap();
        }
        "Links.List" => connection.reply(&header, &(Vec::<Options>::new(), "")).await.unwrap(),
        "Links.Request" => connection.reply(&header, &("waiting", "abcde23456")).await.unwrap(),
        "Authentication.Begin" => {
            let (account, purpose, socket, options): (String, String, zbus::OwnedFd, Options) =
                body.deserialize().unwrap();
            let os_user = options
                .get("os_user")
                .map_or("ann".to_owned(), |name| name.try_clone().unwrap().try_into().unwrap());
            std::thread::spawn(move || converse(&socket.into(), &account, &purpose, &os_user));
            connection.reply(&header, &"conversation").await.unwrap();
        }
        "Authentication.Finish" => {
            let outcome = dictionary([("session", "/org/deputy/Deputy1/session/abc".into())]);
            connection.reply(&header, &outcome).await.unwrap();
        }
        _ => jobs.answer(connection, message, method).await,
    }
}

/// The conversation process: the password is `hunter2`, then the code is 42.
fn converse(socket: &OwnedFd, account: &str, purpose: &str, os_user: &str) -> Option<()> {
    let say = |frame: ServerFrame| deputy_wire::send(socket, &frame.encode(), &[]).ok();
    let hear = || ClientFrame::decode(&deputy_wire::receive(socket).ok()??.bytes).ok();
    let nonce = Nonce::from_random([7; 20]);
    say(ServerFrame::Hello(Hello {
        purpose: if purpose == "link" { Purpose::Link } else { Purpose::Login },
        application: "portal".parse().unwrap(),
        account: account.parse().unwrap(),
        os_user: os_user.parse().unwrap(),
        nonce: nonce.clone(),
    }))?;
    (hear()? == ClientFrame::Nonce(nonce)).then_some(())?;
    say(ServerFrame::Secret("Pass\u{1b}[8mword: ".into()))?;
    let ClientFrame::Answer(password) = hear()? else { return None };
    say(ServerFrame::Info("almost".into()))?;
    say(ServerFrame::Visible("Code: ".into()))?;
    let ClientFrame::Answer(code) = hear()? else { return None };
    if *password == b"hunter2" && *code == b"42" {
        say(ServerFrame::Success)
    } else {
        say(ServerFrame::Failure(deputy_core::Denial::authentication_failed()))
    }
}
