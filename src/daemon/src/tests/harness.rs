//! A daemon without a bus: calls go straight to the router.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use deputy_core::consent::GivenBy;
use deputy_core::job::OsIdentity;
use deputy_core::message::{LauncherReply, LauncherRequest, LinkState, Withdrawn};
use deputy_core::{Finding, OsGid, OsUid};
use futures_util::future::BoxFuture;
use serde::Serialize;
use tempfile::TempDir;
use zbus::message::Type;
use zbus::{DynamicType, Message};

use crate::bus::caller::Caller;
use crate::bus::options::Options;
use crate::bus::router::answer;
use crate::bus::{INTERFACES, ROOT};
use crate::daemon::Daemon;
use crate::directory::Directory;
use crate::directory::double::Texts;
use crate::launcher::double::{answer as reply, launcher};
use crate::passwords::Passwords;
use crate::polkit::{Action, Answer, Authorizer, Details};
use crate::store::{AuditFilter, Change, Directories, PageRequest, Store};

/// The application that vouches for its users.
pub const DEMO: u32 = 900;
/// The application whose users log in.
pub const STRICT: u32 = 901;
/// The application whose accounts have passwords of their own.
pub const KEEPER: u32 = 903;
/// Nobody's service user.
pub const STRANGER: u32 = 4000;
/// The OS account of the person.
pub const ANN: u32 = 1001;

const FILES: &[(&str, &str)] = &[
    (
        "demo",
        "service_uid = 900\ntrust = \"application\"\nenvironment = [\"APP_*\"]\n[kinds.batch]\ncommands = [\"*\"]",
    ),
    (
        "keeper",
        "service_uid = 903\nauthentication = [\"password\"]\n[kinds.batch]\ncommands = [\"*\"]\n\
         [kinds.flow]\ncommands = [\"*\"]\ntrust = \"application\"",
    ),
    ("strict", "service_uid = 901\nauthentication = [\"os\"]\n[kinds.batch]\ncommands = [\"/bin/true\"]"),
];

/// polkit's double: one answer for all, and what was asked.
#[derive(Clone)]
pub struct Polkit {
    pub answer: Arc<Mutex<Answer>>,
    pub asked: Arc<Mutex<Vec<(Action, Details)>>>,
}

impl Authorizer for Polkit {
    fn findings(&self) -> BoxFuture<'_, Vec<Finding>> {
        Box::pin(async { Vec::new() })
    }
    fn check<'a>(
        &'a self,
        _: &'a Message,
        action: Action,
        details: &'a Details,
        _: bool,
    ) -> BoxFuture<'a, Answer> {
        self.asked.lock().unwrap().push((action, details.clone()));
        let answer = *self.answer.lock().unwrap();
        Box::pin(async move { answer })
    }
}

/// A daemon with doubles.
pub struct Harness {
    pub daemon: Arc<Daemon>,
    pub polkit: Polkit,
    pub files: Arc<Mutex<std::collections::BTreeMap<String, String>>>,
    pub requests: Arc<Mutex<Vec<LauncherRequest>>>,
    pub folder: TempDir,
}

/// Ann, as the launcher pins her.
pub fn ann() -> OsIdentity {
    OsIdentity { name: "ann".parse().unwrap(), uid: OsUid::new(ANN).unwrap(), gid: OsGid::new(ANN).unwrap() }
}

/// A launcher that links at once, and leaves the rest to the test.
pub fn linking(
    then: impl Fn(LauncherRequest, Vec<OwnedFd>, OwnedFd) + Send + Sync + 'static,
) -> impl Fn(LauncherRequest, Vec<OwnedFd>, OwnedFd) + Send + Sync + 'static {
    move |request, descriptors, socket| match request {
        LauncherRequest::RequestLink(_) => {
            let state = LinkState::Active { given_by: GivenBy::Owner, expires: None, renewal: None };
            reply(&socket, &LauncherReply::Link { os_account: ann(), state });
        }
        LauncherRequest::Withdraw(_) => {
            let done = Withdrawn { removed: true, ..Withdrawn::default() };
            reply(&socket, &LauncherReply::Withdrawn(done));
        }
        LauncherRequest::Forget { .. } => reply(&socket, &LauncherReply::Done),
        LauncherRequest::Folders { .. } => reply(&socket, &LauncherReply::Folders { jobs: Vec::new() }),
        other => then(other, descriptors, socket),
    }
}

impl Harness {
    /// With this launcher.
    pub fn new(script: impl Fn(LauncherRequest, Vec<OwnedFd>, OwnedFd) + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        launcher(folder.path(), move |request, descriptors, socket| {
            seen.lock().unwrap().push(request.clone());
            script(request, descriptors, socket);
        });
        let polkit = Polkit { answer: Arc::new(Mutex::new(Answer::No)), asked: Arc::default() };
        let texts = Texts::new(FILES);
        let files = Arc::clone(&texts.files);
        let daemon = open(&folder, texts, &polkit);
        Self { daemon, polkit, files, requests, folder }
    }

    /// Ends the daemon and starts it again over the same store.
    pub async fn restart(&mut self) {
        self.daemon.close().await;
        let texts = Texts { files: Arc::clone(&self.files) };
        self.daemon = open(&self.folder, texts, &self.polkit);
        self.daemon.tracker.take_up().unwrap();
    }

    /// Ends the daemon, and starts it as if the machine had been started again.
    pub async fn boot_again(&mut self) {
        self.daemon.close().await;
        let texts = Texts { files: Arc::clone(&self.files) };
        self.daemon = open_in(&self.folder, texts, &self.polkit, "another boot".to_owned());
        self.daemon.tracker.take_up().unwrap();
    }

    /// A call on an object.
    pub async fn call_at<B: Serialize + DynamicType>(
        &self,
        uid: u32,
        path: &str,
        method: &str,
        body: &B,
    ) -> Message {
        let (interface, member) = method.rsplit_once('.').unwrap();
        let interface =
            if interface.contains('.') { interface.to_owned() } else { format!("{INTERFACES}{interface}") };
        let call = Message::method_call(path, member)
            .interface(interface.as_str())
            .sender(":1.7")
            .build(body)
            .unwrap();
        answer(&self.daemon, Caller { uid, bus_name: ":1.7".into() }, &call).await.unwrap()
    }

    /// A call on the root object.
    pub async fn call<B: Serialize + DynamicType>(&self, uid: u32, method: &str, body: &B) -> Message {
        self.call_at(uid, ROOT, method, body).await
    }

    /// An account, linked to Ann, in the caller's application.
    pub async fn linked(&self, uid: u32, account: &str) {
        ok(&self.call(uid, "Accounts.Create", &(account, none())).await);
        let linked = self.call(uid, "Links.Request", &(account, "ann", none())).await;
        assert_eq!(linked.body().deserialize::<(String, String)>().unwrap().0, "active");
    }

    /// Runs a command and gives the job's path.
    pub async fn run(&self, uid: u32, subject: &str, argv: &[&str]) -> Result<String, String> {
        let argv: Vec<Vec<u8>> = argv.iter().map(|word| word.as_bytes().to_vec()).collect();
        let answer = self.call(uid, "Jobs.Run", &(subject, argv, none())).await;
        match answer.message_type() {
            Type::Error => Err(code(&answer)),
            _ => Ok(answer.body().deserialize::<(zbus::OwnedObjectPath,)>().unwrap().0.to_string()),
        }
    }

    /// The state of a job, by the ledger, when it has come to one of these.
    pub async fn job_state(&self, path: &str, states: &[&str]) -> String {
        let id = path.rsplit('/').next().unwrap().parse().unwrap();
        for _ in 0..500 {
            let state = self.daemon.store.job(&id).unwrap().unwrap().state.as_str().to_owned();
            if states.contains(&state.as_str()) {
                return state;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{path} did not come to {states:?}");
    }

    /// The refusals in the ledger, after what waits was written.
    pub async fn denials(&self) -> Vec<Change> {
        self.daemon.audit.close().await;
        let filter = AuditFilter { denied: true, ..AuditFilter::default() };
        let page = self.daemon.store.audit(1, &filter, &PageRequest::first(1000)).unwrap();
        page.items.into_iter().map(|entry| entry.change).collect()
    }
}

fn open(folder: &TempDir, texts: Texts, polkit: &Polkit) -> Arc<Daemon> {
    open_in(folder, texts, polkit, crate::store::Options::default().boot)
}

fn open_in(folder: &TempDir, texts: Texts, polkit: &Polkit, boot: String) -> Arc<Daemon> {
    let places = Directories { ledger: folder.path().join("ledger"), view: folder.path().join("view") };
    for place in [&places.ledger, &places.view] {
        use std::os::unix::fs::DirBuilderExt as _;
        let _ = std::fs::DirBuilder::new().mode(0o700).create(place);
    }
    let options = crate::store::Options { boot, ..crate::store::Options::default() };
    let (store, _) = tokio::task::block_in_place(|| Store::open_with(&places, options)).unwrap();
    let launcher = crate::launcher::Launcher::new(folder.path().join("launcher.sock"));
    let passwords = tokio::task::block_in_place(|| Passwords::open(&folder.path().join("secrets"))).unwrap();
    Daemon::new(store, Directory::new(texts), launcher, Box::new(polkit.clone()), passwords).unwrap()
}

/// No options.
pub fn none() -> std::collections::BTreeMap<&'static str, zbus::Variant<'static>> {
    std::collections::BTreeMap::new()
}

/// One option.
pub fn option(
    key: &'static str,
    value: impl Into<zbus::Variant<'static>>,
) -> std::collections::BTreeMap<&'static str, zbus::Variant<'static>> {
    let mut options = none();
    options.insert(key, value.into());
    options
}

/// The code of a refusal.
pub fn code(message: &Message) -> String {
    assert_eq!(message.message_type(), Type::Error, "{message:?}");
    let header = message.header();
    let name = header.error_name().unwrap().as_str();
    name.rsplit('.').next().unwrap().to_owned()
}

/// Everything of an error that its receiver can tell apart from another.
pub fn face(message: &Message) -> (String, Vec<u8>) {
    assert_eq!(message.message_type(), Type::Error, "{message:?}");
    let name = message.header().error_name().unwrap().as_str().to_owned();
    (name, message.body().data().bytes().to_vec())
}

/// The answer is no refusal.
pub fn ok(message: &Message) {
    assert_eq!(message.message_type(), Type::MethodReturn, "{message:?}");
}

/// A record of an answer.
pub fn text(message: &Message, key: &str) -> Option<String> {
    ok(message);
    let body = message.body();
    let (mut options,): (Options,) = body.deserialize().unwrap();
    options.text(key).unwrap()
}
