//! The connection to `deputyd`.

use std::collections::HashMap;
use std::io::IsTerminal as _;

use serde::Serialize;
use zbus::proxy::{CacheProperties, MethodFlags};
use zbus::wire::DynamicDeserialize;
use zbus::{Connection, DynamicType, Proxy, Variant};

use crate::failure::Failure;

/// The well-known name.
pub const NAME: &str = "org.deputy.Deputy1";
/// The one object that has every interface but those of jobs and sessions.
pub const PATH: &str = "/org/deputy/Deputy1";
/// What stands before a job's id in its path.
pub const JOB_PREFIX: &str = "/org/deputy/Deputy1/job/";
/// What stands before a session's id in its path.
pub const SESSION_PREFIX: &str = "/org/deputy/Deputy1/session/";

/// The options of a call.
pub type CallOptions<'a> = HashMap<&'a str, Variant<'a>>;

/// A connection; clones are the same one.
#[derive(Clone)]
pub struct Bus {
    connection: Connection,
    interactive: bool,
}

impl Bus {
    /// Connects to the system bus. polkit may ask the person if there is one at a terminal.
    pub async fn connect() -> Result<Self, Failure> {
        let connection = Connection::system().await?;
        Ok(Self { connection, interactive: std::io::stdin().is_terminal() })
    }

    /// Calls a method of the main object.
    pub async fn call<B, R>(&self, interface: &str, method: &str, body: &B) -> Result<R, Failure>
    where
        B: Serialize + DynamicType,
        R: for<'d> DynamicDeserialize<'d>,
    {
        self.call_at(PATH, interface, method, body).await
    }

    /// Calls a method of a job or session.
    pub async fn call_at<B, R>(
        &self,
        path: &str,
        interface: &str,
        method: &str,
        body: &B,
    ) -> Result<R, Failure>
    where
        B: Serialize + DynamicType,
        R: for<'d> DynamicDeserialize<'d>,
    {
        let proxy: Proxy<'_> = zbus::proxy::Builder::new(&self.connection)
            .destination(NAME)
            .path(path)
            .interface(format!("{NAME}.{interface}"))
            .cache_properties(CacheProperties::No)
            .build()
            .await?;
        let flags = if self.interactive { MethodFlags::ALLOW_INTERACTIVE_AUTH } else { MethodFlags::empty() };
        let reply = proxy.call_with_flags(method, flags, body).await?;
        reply.ok_or_else(|| Failure::unavailable("deputyd did not answer"))
    }
}
