//! Signals: told on the bus to the connections that asked for them, and to nobody else. `Jobs.StateChanged` is here; that
//! of alerts goes the same way.
//!
//! A signal always has a destination. Who may hear of a job is decided for each signal anew, by the uid that the bus
//! knows of the connection: the application's own, or the owner of the OS account. What waits to be sent is bounded;
//! beyond that signals are lost. Who must not lose a state watches by a descriptor (`Job.Watch`) or looks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use deputy_core::{ApplicationName, Code, Denial, OsUid};
use tokio::sync::mpsc;
use zbus::{Connection, Message};

use super::shown::{record, state_of};
use crate::authority::{About, Call, Grant, Granted, Ground};
use crate::bus::caller::Caller;
use crate::bus::introspection::job_path;
use crate::bus::options::Options;
use crate::bus::{INTERFACES, ROOT};
use crate::daemon::Daemon;
use crate::limits::{Ceiling, Place};
use crate::store::Job;

/// The most signals that wait to be sent.
const QUEUE: usize = 1024;

/// What of a job is too long for each of its signals; `Job.Get` has it.
const LEFT_OUT: [&str; 2] = ["argv", "directory"];

/// The connections that asked.
pub struct Subscribers {
    daemon: Weak<Daemon>,
    places: Ceiling,
    /// By unique name, which the bus never gives twice.
    known: Mutex<HashMap<Arc<str>, Subscriber>>,
    queue: mpsc::Sender<Message>,
    waiting: Mutex<Option<mpsc::Receiver<Message>>>,
    connection: OnceLock<Connection>,
}

struct Subscriber {
    uid: u32,
    _place: Place,
}

impl Subscribers {
    /// None yet.
    pub fn new(daemon: Weak<Daemon>, what: &'static str) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        Self {
            daemon,
            places: Ceiling::new(what, 64, 512),
            known: Mutex::default(),
            queue,
            waiting: Mutex::new(Some(waiting)),
            connection: OnceLock::new(),
        }
    }

    /// Sends what is told from now on by this connection.
    pub fn send_by(&self, connection: &Connection) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut waiting) = waiting else { return };
        let _ = self.connection.set(connection.clone());
        let connection = connection.clone();
        tokio::spawn(async move {
            while let Some(signal) = waiting.recv().await {
                if let Err(error) = connection.send(&signal).await {
                    tracing::debug!(%error, "a signal could not be sent");
                }
            }
        });
    }

    /// One more.
    pub async fn add(&self, caller: &Caller) -> Result<(), Denial> {
        let place = self.places.enter(caller.uid)?;
        self.lock()
            .entry(Arc::clone(&caller.bus_name))
            .or_insert(Subscriber { uid: caller.uid, _place: place });
        // One that left before it was put down here would never be told to have left.
        if !self.is_there(&caller.bus_name).await {
            self.forget(&caller.bus_name);
            return Err(Denial::new(Code::Busy, "connection", "the connection has left the bus"));
        }
        Ok(())
    }

    async fn is_there(&self, name: &str) -> bool {
        let Some(connection) = self.connection.get() else { return false };
        let bus = Some("org.freedesktop.DBus");
        let asked = connection.call_method(bus, "/org/freedesktop/DBus", bus, "NameHasOwner", &(name,)).await;
        asked.is_ok_and(|answer| answer.body().deserialize::<bool>().is_ok_and(|there| there))
    }

    /// The connection left the bus, or asks for no more.
    pub fn forget(&self, name: &str) {
        self.lock().remove(name);
    }

    /// Tells a job's present state to those who asked and may hear of it.
    pub fn tell(&self, job: &Job) {
        self.tell_those_of(&job.application, job.os.uid, |name| signal(name, job));
    }

    /// Sends those who asked what belongs to an application and an OS account; `signal` makes it for one of them.
    pub fn tell_those_of(
        &self,
        application: &ApplicationName,
        owner: OsUid,
        signal: impl Fn(&str) -> zbus::Result<Message>,
    ) {
        let known = self.lock();
        if known.is_empty() {
            return;
        }
        let Some(daemon) = self.daemon.upgrade() else { return };
        let applications = daemon.directory.snapshot();
        let may_hear = |uid: u32| match applications.of_uid(uid) {
            Some(own) => own.name == *application,
            None => uid == owner.raw(),
        };
        for (name, _) in known.iter().filter(|(_, subscriber)| may_hear(subscriber.uid)) {
            match signal(name) {
                // One that finds no room is lost.
                Ok(signal) => drop(self.queue.try_send(signal)),
                Err(error) => tracing::warn!(%error, "a signal could not be written"),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Subscriber>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn signal(to: &str, job: &Job) -> zbus::Result<Message> {
    let path = zbus::ObjectPath::try_from(job_path(&job.id))?;
    let details = LEFT_OUT.iter().fold(record(job), |record, key| record.without(key));
    Message::signal(ROOT, format!("{INTERFACES}Jobs"), "StateChanged").destination(to).build(&(
        path,
        state_of(job),
        details,
    ))
}

/// `Jobs.Subscribe`.
pub async fn subscribe(call: Call, (options,): (Options,)) -> Result<Granted<()>, Denial> {
    options.finish()?;
    let grant = call.authorize_any(About::application(None)).await?;
    only_for_those_it_belongs_to(&grant, "Jobs.Subscribe", "watch a job by Job.Watch")?;
    call.daemon.subscribers.add(&call.caller).await?;
    Ok(grant.answer(()))
}

/// Who administers the machine looks, and is not told.
pub fn only_for_those_it_belongs_to(grant: &Grant, method: &str, instead: &str) -> Result<(), Denial> {
    if grant.ground != Ground::Administrator {
        return Ok(());
    }
    let why = "signals go to applications and to the owners of OS accounts";
    Err(Denial::new(Code::NotAuthorized, method, why).remedy(instead))
}

/// `Jobs.Unsubscribe`.
pub async fn unsubscribe(call: Call, (options,): (Options,)) -> Result<Granted<()>, Denial> {
    options.finish()?;
    let grant = call.authorize_any(About::application(None)).await?;
    call.daemon.subscribers.forget(&call.caller.bus_name);
    Ok(grant.answer(()))
}

#[cfg(test)]
mod tests {
    use super::super::shown::tests::job;
    use super::*;
    use crate::store::JobState;
    use crate::tests::harness::{DEMO, Harness, STRICT, linking};

    fn know(subscribers: &Subscribers, name: &str, uid: u32) {
        let subscriber = Subscriber { uid, _place: subscribers.places.enter(uid).unwrap() };
        subscribers.lock().insert(name.into(), subscriber);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn only_who_may_hear_of_a_job_does_and_what_waits_is_bounded() {
        let harness = Harness::new(linking(|_, _, _| {}));
        let subscribers = Subscribers::new(Arc::downgrade(&harness.daemon), "tests");
        let job = job(JobState::Running {});
        let owner = job.os.uid.raw();
        for (name, uid) in [(":1.1", STRICT), (":1.2", owner + 1), (":1.3", DEMO), (":1.4", owner)] {
            know(&subscribers, name, uid);
        }
        subscribers.tell(&job);
        let mut waiting = subscribers.waiting.lock().unwrap().take().unwrap();
        let mut told = Vec::new();
        while let Ok(signal) = waiting.try_recv() {
            told.push(signal.header().destination().unwrap().to_string());
        }
        told.sort();
        assert_eq!(told, [":1.3", ":1.4"]);
        subscribers.forget(":1.3");
        subscribers.forget(":1.4");
        subscribers.tell(&job);
        assert!(waiting.try_recv().is_err());
        // Nobody takes what waits: it is lost, and nobody waits for it.
        know(&subscribers, ":1.5", DEMO);
        for _ in 0..2 * QUEUE {
            subscribers.tell(&job);
        }
        assert_eq!(waiting.len(), QUEUE);
        assert_eq!(subscribers.places.taken(), 3);
    }
}
