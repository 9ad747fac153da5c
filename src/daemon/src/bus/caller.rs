//! Who calls: the uid, by the bus's word and nobody else's.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use deputy_core::Denial;
use zbus::Connection;
use zbus::fdo::ConnectionCredentials;

/// The most connections whose uid is remembered.
const MAX_REMEMBERED: usize = 4096;

/// The sender of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The uid of the connection's owner.
    pub uid: u32,
    /// The connection's unique name.
    pub bus_name: Arc<str>,
}

/// The uids of connections. A unique name is never given twice while a bus lives, so what was learnt stays true.
#[derive(Debug, Default)]
pub struct Callers(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    uids: HashMap<Arc<str>, u32>,
    order: VecDeque<Arc<str>>,
}

impl Callers {
    /// The sender's uid: remembered, or asked from the bus.
    pub async fn look_up(&self, connection: &Connection, sender: &str) -> Result<Caller, Denial> {
        if let Some(caller) = self.remembered(sender) {
            return Ok(caller);
        }
        let credentials = credentials(connection, sender).await.map_err(|error| {
            // The usual cause: the caller left the bus already.
            Denial::internal(format!("the bus does not say who {sender} is: {error}"))
        })?;
        let uid = credentials
            .unix_user_id()
            .ok_or_else(|| Denial::internal(format!("the bus does not know the uid of {sender}")))?;
        Ok(self.remember(sender, uid))
    }

    fn remembered(&self, sender: &str) -> Option<Caller> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.uids.get_key_value(sender).map(|(name, &uid)| Caller { uid, bus_name: Arc::clone(name) })
    }

    fn remember(&self, sender: &str, uid: u32) -> Caller {
        let bus_name: Arc<str> = sender.into();
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.uids.insert(Arc::clone(&bus_name), uid).is_none() {
            inner.order.push_back(Arc::clone(&bus_name));
        }
        while inner.uids.len() > MAX_REMEMBERED {
            let Some(oldest) = inner.order.pop_front() else { break };
            inner.uids.remove(&oldest);
        }
        Caller { uid, bus_name }
    }

    /// The connection is gone.
    pub fn forget(&self, name: &str) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.uids.remove(name).is_some() {
            inner.order.retain(|known| &**known != name);
        }
    }
}

async fn credentials(connection: &Connection, sender: &str) -> zbus::Result<ConnectionCredentials> {
    let bus = Some("org.freedesktop.DBus");
    let reply = connection
        .call_method(bus, "/org/freedesktop/DBus", bus, "GetConnectionCredentials", &(sender,))
        .await?;
    reply.body().deserialize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_the_oldest_goes_first() {
        let callers = Callers::default();
        for number in 0..=MAX_REMEMBERED {
            callers.remember(&format!(":1.{number}"), 1000);
        }
        assert_eq!(callers.remembered(":1.0"), None);
        assert_eq!(callers.remembered(":1.1").map(|caller| caller.uid), Some(1000));
        callers.forget(":1.1");
        assert_eq!(callers.remembered(":1.1"), None);
        let inner = callers.0.lock().unwrap();
        assert_eq!(inner.uids.len(), inner.order.len());
    }
}
