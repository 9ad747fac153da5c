//! From a message to its row of the table, and from the row's answer to a message.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use deputy_core::{Code, Denial};
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::Semaphore;
use zbus::message::{Flags, Type};
use zbus::names::{InterfaceName, MemberName};
use zbus::{Connection, Message, MessageStream, Variant};

use super::caller::{Caller, Callers};
use super::introspection::{self, Path};
use super::table::{self, Object};
use super::{INTERFACES, NAME, reply};
use crate::authority::Call;
use crate::daemon::Daemon;

/// The most calls that are worked on at once, whoever calls.
const MAX_CALLS: usize = 2048;

const BUS: &str = "org.freedesktop.DBus";
const UNKNOWN_METHOD: &str = "org.freedesktop.DBus.Error.UnknownMethod";
const UNKNOWN_PROPERTY: &str = "org.freedesktop.DBus.Error.UnknownProperty";
const READ_ONLY: &str = "org.freedesktop.DBus.Error.PropertyReadOnly";

/// Why the router ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The bus closed the connection.
    Closed,
    /// Somebody else has the name now.
    NameLost,
}

/// Serves one connection.
pub struct Router {
    daemon: Arc<Daemon>,
    connection: Connection,
    callers: Arc<Callers>,
    slots: Arc<Semaphore>,
}

impl Router {
    /// For a connection.
    pub fn new(daemon: Arc<Daemon>, connection: Connection) -> Self {
        Self { daemon, connection, callers: Arc::default(), slots: Arc::new(Semaphore::new(MAX_CALLS)) }
    }

    /// Reads the connection until it ends. Each call has a task of its own: one that waits holds up nobody.
    pub async fn run(self, mut stream: MessageStream) -> End {
        while let Some(message) = stream.next().await {
            match message {
                Ok(message) if message.message_type() == Type::MethodCall => self.call(message).await,
                Ok(message) if message.message_type() == Type::Signal => {
                    if self.signal(&message) {
                        return End::NameLost;
                    }
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "a message from the bus cannot be read"),
            }
        }
        End::Closed
    }

    /// Takes in a signal of the bus's; true if it says that the name is lost.
    fn signal(&self, message: &Message) -> bool {
        let header = message.header();
        if header.sender().is_none_or(|sender| sender.as_str() != BUS) {
            return false;
        }
        let body = message.body();
        match header.member().map(MemberName::as_str) {
            Some("NameLost") => body.deserialize::<(&str,)>().is_ok_and(|(name,)| name == NAME),
            Some("NameOwnerChanged") => {
                if let Ok((name, _, "")) = body.deserialize::<(&str, &str, &str)>()
                    && name.starts_with(':')
                {
                    self.callers.forget(name);
                    self.daemon.subscribers.forget(name);
                    self.daemon.alerts.subscribers.forget(name);
                }
                false
            }
            _ => false,
        }
    }

    async fn call(&self, message: Message) {
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            let denial = Denial::new(Code::Busy, "calls", "too many calls are being worked on")
                .remedy("try again in a moment");
            send(&self.connection, &message, reply::denied(&message.header(), &denial)).await;
            return;
        };
        let (daemon, connection) = (Arc::clone(&self.daemon), self.connection.clone());
        let callers = Arc::clone(&self.callers);
        tokio::spawn(async move {
            let _slot = slot;
            let header = message.header();
            let Some(sender) = header.sender() else { return };
            let answer = match callers.look_up(&connection, sender.as_str()).await {
                Ok(caller) => answer(&daemon, caller, &message).await,
                Err(denial) => reply::denied(&header, &denial),
            };
            send(&connection, &message, answer).await;
        });
    }
}

async fn send(connection: &Connection, call: &Message, answer: zbus::Result<Message>) {
    if call.primary_header().flags().contains(Flags::NO_REPLY_EXPECTED) {
        return;
    }
    let sent = match answer {
        Ok(answer) => connection.send(&answer).await,
        Err(error) => Err(error),
    };
    if let Err(error) = sent {
        tracing::warn!(%error, "an answer could not be sent");
    }
}

/// The answer to a call.
pub async fn answer(daemon: &Arc<Daemon>, caller: Caller, message: &Message) -> zbus::Result<Message> {
    let header = message.header();
    let interface = header.interface().map(InterfaceName::as_str).unwrap_or_default();
    let member = header.member().map(MemberName::as_str).unwrap_or_default();
    let path = header.path().and_then(|path| introspection::path(path.as_str()));
    if let Some(name) = interface.strip_prefix(INTERFACES) {
        let Some(method) = table::find(name, member) else { return unknown(message) };
        // Where there can be no such object the answer is that of an object that is not there.
        let id = match path {
            Some(Path::Object(object, id)) if object == method.object() => Some(id),
            _ => None,
        };
        let call = Call {
            daemon: Arc::clone(daemon),
            method,
            caller,
            message: message.clone(),
            id: id.clone().flatten(),
            about: Arc::new(Mutex::default()),
        };
        return match dispatch(call.clone(), id.is_some()).await {
            Ok(answer) => Ok(answer),
            Err(denial) => {
                record(&call, &denial);
                reply::denied(&header, &denial)
            }
        };
    }
    standard(interface, member, path, message)
}

async fn dispatch(call: Call, there: bool) -> Result<Message, Denial> {
    if !there {
        return Err(Denial::not_found());
    }
    let _place = call.daemon.limits.calls.enter(call.caller.uid)?;
    let method = call.method;
    // A fault in one call must not leave its caller without an answer.
    AssertUnwindSafe((method.handler)(call)).catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!(method = method.name(), "the method panicked");
        Err(Denial::internal("the call failed"))
    })
}

/// A call was refused.
pub fn record(call: &Call, denial: &Denial) {
    let uid = call.caller.uid;
    let known = uid == 0 || call.daemon.directory.snapshot().of_uid(uid).is_some();
    // Being busy is no decision, and its records would make it worse.
    let stranger = !known || denial.code == Code::Busy;
    let about = call.about.lock().unwrap_or_else(PoisonError::into_inner).clone();
    // The kernel's refusals are counted with what was done.
    let of_kernel = call.method.interface == "Files" && denial.code == Code::FileError;
    if of_kernel && call.daemon.file_log.refused(uid, &call.method.name(), &about) {
        return;
    }
    call.daemon.audit.denied(&call.method.name(), &call.caller, stranger, &about, denial);
}

fn unknown(message: &Message) -> zbus::Result<Message> {
    Message::error(&message.header(), UNKNOWN_METHOD).build(&("there is no such method",))
}

/// What every client library uses. Nothing of it depends on which jobs and sessions there are.
fn standard(interface: &str, member: &str, path: Option<Path>, message: &Message) -> zbus::Result<Message> {
    let header = message.header();
    let Some(path) = path else { return reply::denied(&header, &Denial::not_found()) };
    match (interface, member) {
        ("org.freedesktop.DBus.Introspectable", "Introspect") => {
            Message::method_return(&header).build(&(introspection::xml(&path),))
        }
        ("org.freedesktop.DBus.Peer", "Ping") => Message::method_return(&header).build(&()),
        ("org.freedesktop.DBus.Properties", "Get") => {
            let body = message.body();
            let value = match body.deserialize::<(&str, &str)>() {
                Ok((interface, name)) => properties(&path, interface).remove(name),
                Err(_) => None,
            };
            match value {
                Some(value) => Message::method_return(&header).build(&(value,)),
                None => Message::error(&header, UNKNOWN_PROPERTY).build(&("there is no such property",)),
            }
        }
        ("org.freedesktop.DBus.Properties", "GetAll") => {
            let body = message.body();
            let all = body.deserialize::<(&str,)>().map(|(interface,)| properties(&path, interface));
            Message::method_return(&header).build(&(all.unwrap_or_default(),))
        }
        ("org.freedesktop.DBus.Properties", "Set") => {
            Message::error(&header, READ_ONLY).build(&("no property can be written",))
        }
        _ => unknown(message),
    }
}

fn properties(path: &Path, interface: &str) -> BTreeMap<&'static str, Variant<'static>> {
    if *path != Path::Object(Object::Root, None) || interface.strip_prefix(INTERFACES) != Some("Manager") {
        return BTreeMap::new();
    }
    BTreeMap::from([
        ("Version", Variant::from(env!("CARGO_PKG_VERSION"))),
        ("Features", Variant::from(Vec::<String>::new())),
    ])
}
