//! The daemon as one value: what the calls share.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use deputy_core::{Code, Denial};
use rustix::fs::{Mode, OFlags, open};

use crate::alerts::Alerts;
use crate::audit::Audit;
use crate::authentication::Conversations;
use crate::directory::Directory;
use crate::explain::Rate;
use crate::files::FileAgents;
use crate::files::record::FileLog;
use crate::jobs::signals::Subscribers;
use crate::jobs::track::Tracker;
use crate::launcher::Launcher;
use crate::limits::Ceiling;
use crate::metrics::Counters;
use crate::passwords::Passwords;
use crate::polkit::Authorizer;
use crate::projects::Turns;
use crate::query::tickets::Tickets;
use crate::store::{Directories, Store, StoreError};

/// Where things are. The defaults are the machine's; tests use others.
#[derive(Debug, Clone)]
pub struct Places {
    /// The bus's address; `None` for the system bus.
    pub bus: Option<String>,
    /// The configuration.
    pub etc: PathBuf,
    /// The launcher's socket.
    pub launcher: PathBuf,
    /// The store.
    pub store: Directories,
    /// The folder with the hashes of passwords.
    pub secrets: PathBuf,
    /// Where the PAM module asks.
    pub query: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            bus: None,
            etc: deputy_etc::ETC_DEPUTY.into(),
            launcher: deputy_wire::LAUNCHER_SOCKET.into(),
            store: Directories::default(),
            secrets: "/var/lib/deputy/secrets".into(),
            query: deputy_core::message::query::QUERY_SOCKET.into(),
        }
    }
}

/// What one uid may have at once, and all together.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Calls that are not answered yet. A portal launches side by side; a person does not.
    pub calls: Ceiling,
    /// Conversations.
    pub conversations: Ceiling,
    /// Questions of the PAM module.
    pub queries: Ceiling,
    /// Passwords that are being read.
    pub passwords: Ceiling,
    /// Pipes of `Job.Watch`.
    pub watches: Ceiling,
    /// Pipes of `Job.Output`.
    pub outputs: Ceiling,
    /// Sockets of `Files.Channel`.
    pub channels: Ceiling,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            calls: Ceiling::new("calls", 256, 1024),
            conversations: Ceiling::new("conversations", 64, 256),
            queries: Ceiling::new("questions of PAM", 64, 256),
            passwords: Ceiling::new("passwords", 64, 256),
            watches: Ceiling::new("watched jobs", 1024, 8192),
            outputs: Ceiling::new("outputs that are read", 128, 1024),
            // What waits in them unread counts against the descriptors that this process may have.
            channels: Ceiling::new("channels for files", 8, 32),
        }
    }
}

/// What the calls share.
pub struct Daemon {
    /// The state.
    pub store: Store,
    /// The applications.
    pub directory: Directory,
    /// The root side.
    pub launcher: Launcher,
    /// The machine's administrator.
    pub authorizer: Box<dyn Authorizer>,
    /// The records of refusals.
    pub audit: Audit,
    /// The jobs that are not ended.
    pub tracker: Tracker,
    /// The conversations that were begun.
    pub conversations: Conversations,
    /// The passwords of accounts.
    pub passwords: Passwords,
    /// What was proved to the PAM module, and has opened no session yet.
    pub tickets: Tickets,
    /// The processes that touch files.
    pub files: FileAgents,
    /// Who changes the members of projects.
    pub projects: Turns,
    /// What one uid may have at once.
    pub limits: Limits,
    /// The connections that hear of jobs.
    pub subscribers: Arc<Subscribers>,
    /// What is done with files and not recorded yet.
    pub file_log: FileLog,
    /// Who used quotas lately, and who hears of alerts.
    pub alerts: Alerts,
    /// How often explanations are asked for.
    pub explanations: Rate,
    /// What happened since the start.
    pub counters: Arc<Counters>,
    null: Arc<OwnedFd>,
}

impl Daemon {
    /// From its parts. Needs a runtime: background tasks start here.
    pub fn new(
        store: Store,
        directory: Directory,
        launcher: Launcher,
        authorizer: Box<dyn Authorizer>,
        passwords: Passwords,
    ) -> Result<Arc<Self>, Denial> {
        // The one path outside the daemon's own folders, opened once: what a job has where nothing was given to it.
        let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| Denial::internal(format!("/dev/null: {error}")))?;
        let null = Arc::new(null);
        Ok(Arc::new_cyclic(|daemon| {
            let subscribers = Arc::new(Subscribers::new(daemon.clone(), "connections that hear of jobs"));
            let counters = Arc::new(Counters::default());
            Self {
                audit: Audit::start(store.clone(), Arc::clone(&counters)),
                tracker: Tracker::new(
                    store.clone(),
                    launcher.clone(),
                    daemon.clone(),
                    Arc::clone(&null),
                    Arc::clone(&subscribers),
                ),
                subscribers,
                conversations: Conversations::default(),
                passwords,
                tickets: Tickets::default(),
                files: FileAgents::default(),
                projects: Turns::default(),
                file_log: FileLog::start(store.clone()),
                alerts: Alerts::new(daemon.clone()),
                limits: Limits::default(),
                explanations: Rate::default(),
                counters,
                store,
                directory,
                launcher,
                authorizer,
                null,
            }
        }))
    }

    /// `/dev/null`, for reading and writing.
    pub fn null(&self) -> &OwnedFd {
        &self.null
    }

    /// Ends in order: what is known is recorded, then the store is closed.
    pub async fn close(&self) {
        self.tracker.stop();
        self.file_log.close().await;
        self.audit.close().await;
        self.passwords.close();
        if let Err(error) = self.store.clone().close().await {
            tracing::error!(%error, "the store could not be closed in order");
        }
    }
}

impl From<StoreError> for Denial {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict { what, why, .. } => {
                Denial::new(Code::Conflict, what, format!("the {what} cannot be changed so: {why}"))
                    .remedy("look at its present state first")
            }
            StoreError::NotFound { .. } => Denial::not_found(),
            StoreError::NotActive { status, .. } => crate::acting::not_active(status),
            StoreError::ActorChanged { .. } => {
                Denial::new(Code::Conflict, "acting account", "the acting account was changed meanwhile")
                    .remedy("look at its role and status, and try again")
            }
            StoreError::LastSuperuser { .. } => Denial::new(
                Code::LastSuperuser,
                "last superuser",
                "the application would be left without an active superuser",
            )
            .remedy("make another account superuser first"),
            StoreError::NotEmpty { ref remaining, .. } => {
                Denial::new(Code::NotEmpty, "remains", format!("it cannot be deleted: {remaining}"))
                    .remedy("remove what remains, or hand it over, first")
            }
            StoreError::TooLarge { .. } => Denial::invalid("the request is too large to be recorded"),
            StoreError::Cursor => Denial::invalid(error.to_string()),
            StoreError::Disk { .. } | StoreError::ReadOnly(_) => {
                tracing::error!(%error, "store");
                Denial::new(Code::Disk, "ledger", "the change could not be put on disk, and was not made")
                    .remedy("look at the space and health of the disk below /var/lib/deputy, then restart deputyd")
            }
            other => {
                tracing::error!(error = %other, "store");
                Denial::internal("the store failed")
            }
        }
    }
}
