//! A client of the D-Bus interface, as any user, in the test's own process.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use zbus::{Connection, DynamicType, MessageStream, OwnedVariant, Type, Variant};

use crate::acting::{acting_as, ids};

const SERVICE: &str = "org.deputy.Deputy1";
const ROOT: &str = "/org/deputy/Deputy1";

/// The prefix of the names of Deputy's errors.
const ERRORS: &str = "org.deputy.Deputy1.Error.";

/// A record as it came.
pub type Dictionary = BTreeMap<String, OwnedVariant>;

/// The options of a call.
pub type Options = BTreeMap<&'static str, Variant<'static>>;

/// Why a call was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failed {
    /// It was refused, with this code.
    Refused(String),
    /// There is no answer: whether it was done is not known.
    Unknown(String),
}

impl Failed {
    /// The code, where it was refused.
    pub fn code(&self) -> &str {
        match self {
            Failed::Refused(code) => code,
            Failed::Unknown(error) => panic!("no answer: {error}"),
        }
    }
}

/// One connection to the bus.
#[derive(Debug, Clone)]
pub struct Client(Connection);

/// Options, each a name and a text.
pub fn options(pairs: &[(&'static str, &str)]) -> Options {
    pairs.iter().map(|(name, text)| (*name, Variant::from((*text).to_owned()))).collect()
}

/// A text of a record.
pub fn text(record: &Dictionary, name: &str) -> Option<String> {
    record.get(name).and_then(|value| value.try_clone().ok()).and_then(|value| String::try_from(value).ok())
}

/// Does something on the bus as this user, on a thread of its own.
pub fn on_bus<R: Send>(user: &str, work: impl AsyncFnOnce(Client) -> R + Send) -> R {
    acting_as(ids(user), || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let connection = Connection::system().await.expect("the bus");
            work(Client(connection)).await
        })
    })
}

impl Client {
    /// Everything that comes to this connection from now on.
    pub fn messages(&self) -> MessageStream {
        MessageStream::from(&self.0)
    }

    /// Calls a method of the main object, `Interface.Method`.
    pub async fn call<B, R>(&self, method: &str, body: &B) -> Result<R, Failed>
    where
        B: Serialize + DynamicType,
        R: DeserializeOwned + Type,
    {
        self.call_at(ROOT, method, body).await
    }

    /// Calls a method of a job or session.
    pub async fn call_at<B, R>(&self, path: &str, method: &str, body: &B) -> Result<R, Failed>
    where
        B: Serialize + DynamicType,
        R: DeserializeOwned + Type,
    {
        let (interface, member) = method.split_once('.').expect("Interface.Method");
        let interface = format!("{SERVICE}.{interface}");
        let called = self.0.call_method(Some(SERVICE), path, Some(interface.as_str()), member, body).await;
        match called {
            Ok(reply) => Ok(reply.body().deserialize().expect("an answer of its type")),
            Err(zbus::Error::MethodError(name, ..)) => match name.strip_prefix(ERRORS) {
                Some(code) => Err(Failed::Refused(code.to_owned())),
                None => Err(Failed::Unknown(name.to_string())),
            },
            Err(error) => Err(Failed::Unknown(error.to_string())),
        }
    }
}
