//! The life of the program: open, serve, take the name, end in order.

use std::fmt::Write as _;
use std::io;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use deputy_core::Denial;
use sd_notify::{NotifyState, notify};
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use zbus::connection::Builder;
use zbus::fdo::{RequestNameFlags, RequestNameReply};
use zbus::{Connection, MessageStream};

use crate::alerts;
use crate::bus::NAME;
use crate::bus::router::{End, Router};
use crate::clock_watch::{ClockWatch, Step};
use crate::daemon::{Daemon, Places};
use crate::directory::{Directory, EtcSource};
use crate::launcher::Launcher;
use crate::passwords::{self, Passwords};
use crate::polkit::Polkit;
use crate::projects;
use crate::query;
use crate::sessions;
use crate::store::{Store, StoreError};

/// How many messages may wait to be looked at.
const QUEUE: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// How often the store is looked at for a failure that nobody may have asked about.
const LOOK: Duration = Duration::from_secs(1);

/// How often the chain's head goes to the journal.
const HEAD: Duration = Duration::from_secs(3600);

/// How long calls that are being answered may take at the end.
const LAST_CALLS: Duration = Duration::from_secs(2);

/// Why the program ends before its time.
#[derive(Debug, Error)]
pub enum Fatal {
    /// It runs as root.
    #[error("deputyd runs as the user deputy, never as root: it needs no right that root has")]
    Root,
    /// The store does not open.
    #[error("the store does not open: {0}")]
    Store(#[from] StoreError),
    /// The bus cannot be reached, or refuses.
    #[error("the bus: {0}")]
    Bus(#[from] zbus::Error),
    /// Somebody else has the name.
    #[error("the name {NAME} belongs to somebody else on this bus")]
    NameTaken,
    /// The passwords' file does not open.
    #[error("{0}")]
    Passwords(#[from] passwords::OpenError),
    /// Part of the daemon cannot be made.
    #[error("{}", .0.message)]
    Denied(Denial),
    /// A signal handler or the like.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The connection ended.
    #[error("the bus closed the connection")]
    Closed,
    /// The name was lost.
    #[error("the name {NAME} was lost")]
    NameLost,
    /// The store stopped.
    #[error("the store takes no more changes: {0}")]
    StoreStopped(String),
}

/// A daemon that serves a bus.
pub struct Serving {
    /// What it is.
    pub daemon: Arc<Daemon>,
    /// Its connection.
    pub connection: Connection,
    router: tokio::task::JoinHandle<End>,
    /// What was last noticed about the machine's clock; `systemctl status` shows it until the next reload.
    clock: Option<Step>,
}

impl Serving {
    /// Connects, serves, and then takes the name, in this order: who sees the name is answered.
    pub async fn start(places: &Places) -> Result<Self, Fatal> {
        let builder = match &places.bus {
            None => Builder::system(),
            Some(address) => Builder::address(address.as_str()),
        };
        let connection = builder.max_queued(QUEUE).build().await?;
        let stream = MessageStream::from(&connection);
        let (directories, secrets) = (places.store.clone(), places.secrets.clone());
        let opened = tokio::task::spawn_blocking(move || {
            let (store, report) = Store::open(&directories)?;
            let last_recorded = store.last_recorded()?;
            Ok::<_, Fatal>((store, report, last_recorded, Passwords::open(&secrets)?))
        });
        let (store, report, last_recorded, passwords) =
            opened.await.map_err(|error| Fatal::Io(io::Error::other(error)))??;
        tracing::info!(
            records = report.last_number,
            created = report.created,
            cut_tail = ?report.cut_tail,
            view_rebuilt = ?report.view_rebuilt,
            "store open"
        );
        let daemon = Daemon::new(
            store,
            Directory::new(EtcSource::new(&places.etc)),
            Launcher::new(&places.launcher),
            Box::new(Polkit::new(connection.clone())),
            passwords,
        )
        .map_err(Fatal::Denied)?;
        // Before anybody can use one.
        let clock = last_recorded.and_then(|last| ClockWatch::new().behind(last));
        if let Some(step) = clock {
            sessions::end_all_for_the_clock(&daemon.store).await;
            tracing::warn!(event = "clock_was_set", message = %step);
        }
        let jobs = daemon.tracker.take_up()?;
        let applications = daemon.directory.snapshot().names().len();
        tracing::info!(jobs, applications, "taken up");
        tokio::spawn(projects::reconcile(Arc::clone(&daemon)));
        // Without it, logins through PAM fail closed; everything else works.
        match query::listen(&places.query) {
            Ok(listener) => drop(tokio::spawn(query::serve(Arc::clone(&daemon), listener))),
            Err(error) => tracing::error!(%error, path = %places.query.display(), "no questions of PAM"),
        }
        Ok(Self { clock, ..Self::serve(daemon, connection, stream).await? })
    }

    /// Serves a daemon on a connection.
    pub async fn serve(
        daemon: Arc<Daemon>,
        connection: Connection,
        stream: MessageStream,
    ) -> Result<Self, Fatal> {
        let router = tokio::spawn(Router::new(Arc::clone(&daemon), connection.clone()).run(stream));
        let bus = Some("org.freedesktop.DBus");
        let path = "/org/freedesktop/DBus";
        // Unique names that vanish, so that what was learnt about them can be forgotten.
        let rule = "type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg2=''";
        connection.call_method(bus, path, bus, "AddMatch", &(rule,)).await?;
        daemon.subscribers.send_by(&connection);
        daemon.alerts.subscribers.send_by(&connection);
        // Nobody may replace us, and we replace nobody.
        let flags = RequestNameFlags::DO_NOT_QUEUE;
        let reply = connection.call_method(bus, path, bus, "RequestName", &(NAME, flags)).await?;
        match reply.body().deserialize()? {
            RequestNameReply::PrimaryOwner | RequestNameReply::AlreadyOwner => {}
            RequestNameReply::InQueue | RequestNameReply::Exists => return Err(Fatal::NameTaken),
        }
        tokio::spawn(sessions::sweep(daemon.store.clone()));
        tokio::spawn(alerts::watch(Arc::downgrade(&daemon)));
        let recalling = Arc::clone(&daemon);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = recalling.passwords.recall(&recalling.store) {
                tracing::warn!(%error, "wrong tries of the time before the start are not known");
            }
        });
        Ok(Self { daemon, connection, router, clock: None })
    }

    /// Serves until there is a reason to end.
    pub async fn wait(&mut self) -> Result<(), Fatal> {
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let watchdog = sd_notify::watchdog_enabled().map(|period| period / 2);
        let mut alive = tokio::time::interval(watchdog.unwrap_or(Duration::from_secs(3600)));
        let mut look = tokio::time::interval(LOOK);
        let mut head = tokio::time::interval(HEAD);
        let mut clock = ClockWatch::new();
        loop {
            tokio::select! {
                _ = term.recv() => return Ok(()),
                _ = int.recv() => return Ok(()),
                _ = hangup.recv() => self.look_at_files(),
                end = &mut self.router => return Err(match end {
                    Ok(End::NameLost) => Fatal::NameLost,
                    Ok(End::Closed) => Fatal::Closed,
                    Err(error) => Fatal::Io(io::Error::other(error)),
                }),
                _ = alive.tick() => if watchdog.is_some() { tell(&[NotifyState::Watchdog]); },
                _ = look.tick() => {
                    if let Some(why) = self.daemon.store.stopped() {
                        return Err(Fatal::StoreStopped(why));
                    }
                    if let Some(step) = clock.look() {
                        self.clock_was_set(step).await;
                    }
                }
                _ = head.tick() => {
                    let (number, hash) = self.daemon.store.head();
                    tracing::info!(number, hash, "head of the ledger");
                }
            }
        }
    }

    async fn clock_was_set(&mut self, step: Step) {
        if matches!(step, Step::Back(_)) {
            sessions::end_all_for_the_clock(&self.daemon.store).await;
        }
        tracing::warn!(event = "clock_was_set", message = %step);
        self.clock = Some(step);
        self.tell_status(0);
    }

    fn tell_status(&self, findings: usize) {
        let applications = self.daemon.directory.snapshot().names().len();
        tell(&[NotifyState::Status(&serving_status(applications, findings, self.clock))]);
    }

    /// Says what is wrong with root's files now. They are in force as soon as they are written; this is for whoever wants
    /// to hear of it at once (`systemctl reload`).
    fn look_at_files(&mut self) {
        self.clock = None;
        let snapshot = self.daemon.directory.snapshot();
        let findings = snapshot.findings(None);
        for finding in &findings {
            tracing::warn!(code = %finding.code, message = ?finding.message, remedy = ?finding.remedy, "finding");
        }
        let applications = snapshot.names().len();
        tracing::info!(applications, findings = findings.len(), "looked at the configuration");
        self.tell_status(findings.len());
    }

    /// Ends in order.
    pub async fn end(self) {
        // No call comes in any more; those that are being answered finish or are cut off with the connection.
        let bus = Some("org.freedesktop.DBus");
        let released =
            self.connection.call_method(bus, "/org/freedesktop/DBus", bus, "ReleaseName", &(NAME,)).await;
        if let Err(error) = released {
            tracing::debug!(%error, "the name could not be released");
        }
        self.router.abort();
        let deadline = Instant::now() + LAST_CALLS;
        while self.daemon.limits.calls.taken() > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.daemon.close().await;
    }
}

/// The program. Why it ends before its time is told to the service manager, too: `systemctl status` shows it.
pub async fn run(places: Places) -> Result<(), Fatal> {
    let result = live(places).await;
    if let Err(why) = &result {
        let status = why.to_string().replace('\n', " ");
        tell(&[NotifyState::Status(&status)]);
    }
    result
}

async fn live(places: Places) -> Result<(), Fatal> {
    if rustix::process::geteuid().is_root() {
        return Err(Fatal::Root);
    }
    let mut serving = Serving::start(&places).await?;
    // Before anybody may send one: it would end the program.
    let _heard = signal(SignalKind::hangup())?;
    tell(&[NotifyState::Ready]);
    serving.tell_status(0);
    tracing::info!(name = NAME, socket = %Path::new(&places.launcher).display(), "serving");
    let result = serving.wait().await;
    tell(&[NotifyState::Stopping, NotifyState::Status("ending")]);
    serving.end().await;
    result
}

fn serving_status(applications: usize, findings: usize, clock: Option<Step>) -> String {
    let mut status = format!("serving {applications} applications");
    if findings > 0 {
        let _ = write!(status, "; {findings} findings, which the journal has");
    }
    if let Some(step) = clock {
        let _ = write!(status, "; {step}");
    }
    status
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = notify(state) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
