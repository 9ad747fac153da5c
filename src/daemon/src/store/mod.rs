//! The store: typed changes in, typed records out.
//!
//! A **ledger** (append-only, chained by hashes, on disk before the answer) is the truth and the audit log; a **view**
//! of it answers questions. Which formats and which database those are is known only in here.
//!
//! [`Store::commit`] checks a change against the state, together with all changes that wait at the same time, and
//! answers when it is on disk and visible to readers. Reads are short and do not block on writes.

mod argument;
mod change;
mod clock;
mod error;
pub(crate) mod folder;
mod job;
mod ledger;
mod open;
mod page;
mod projects;
mod query;
mod record;
mod replay;
mod rules;
mod strangers;
#[cfg(test)]
mod tests;
mod tools;
mod view;
mod writer;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use deputy_core::Code;
use tokio::sync::{Semaphore, oneshot};

pub use argument::Argument;
pub use change::{Acting, Actor, Authentication, Change, Entry, FileChange, JobTimes, QuotaOf};
pub use clock::{Clock, SystemClock, Timestamp};
pub use error::{Damage, StoreError};
pub use job::{Job, JobSpec, JobState, NULL, no_input, no_output};
pub use page::{Cursor, MAX_PAGE, Page, PageRequest};
pub use projects::{
    MAX_MEMBERS, Project, ProjectDefaults, ProjectEvent, ProjectGroup, ProjectMember, ProjectScope,
};
pub use query::{AccountFilter, AccountSort, AuditFilter, JobFilter, Scope};
pub use record::{Account, Alert, Group, Link, LinkState, Membership, PasswordFact, Remaining, Session};
pub use tools::{Tail, VerifyReport, export, export_after, import, rebuild, verify};

use folder::Folder;
use ledger::SharedIndex;
use view::View;
use writer::Request;

/// The most changes that wait for the writer; who comes later waits for his turn first.
const MAX_WAITING: usize = 4096;

/// Where the store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directories {
    /// The ledger's folder; what counts.
    pub ledger: PathBuf,
    /// The view's folder; it can be thrown away while the daemon is down.
    pub view: PathBuf,
}

impl Default for Directories {
    fn default() -> Self {
        Self { ledger: "/var/lib/deputy/ledger".into(), view: "/var/lib/deputy/view".into() }
    }
}

/// How the store works. The defaults are for the daemon; tests use others.
#[derive(Clone)]
pub struct Options {
    /// A segment that has reached this size is closed and a new one begun.
    pub segment_bytes: u64,
    /// How much of the ledger, from its end, is verified before [`Store::open`] returns; the rest in the background.
    pub check_bytes: u64,
    /// Up to how many rows of the view are compared with its mark before [`Store::open`] returns.
    pub check_rows: u64,
    /// How often refusals to strangers are recorded.
    pub strangers_every: Duration,
    /// How long rows are gathered before the view's database gets them.
    pub gather: Duration,
    /// What tells this boot of the machine from others.
    pub boot: String,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
}

impl Default for Options {
    fn default() -> Self {
        // Without a boot id every start counts as a new boot: slower, never wrong.
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map_or_else(|_| format!("unknown-{}", Timestamp::now()), |id| id.trim().to_owned());
        Self {
            segment_bytes: 16 << 20,
            check_bytes: 256 << 20,
            check_rows: 1_000_000,
            strangers_every: Duration::from_secs(60),
            gather: Duration::from_millis(100),
            boot,
            clock: Arc::new(SystemClock),
        }
    }
}

/// What opening the store found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenReport {
    /// Whether a new ledger was made.
    pub created: bool,
    /// The number of the last record.
    pub last_number: u64,
    /// An unfinished, never acknowledged end that was cut off: its size, and the file that keeps it.
    pub cut_tail: Option<(u64, Option<String>)>,
    /// Why the view was made anew; `None` if it was used as it was.
    pub view_rebuilt: Option<String>,
    /// How many records the view had not seen (all, where it was made anew).
    pub caught_up: u64,
}

/// That a change is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The number of its record.
    pub number: u64,
    /// The time in its record.
    pub at: Timestamp,
}

/// What the store's handles and its threads share.
pub(crate) struct Inner {
    folder: Arc<Folder>,
    index: SharedIndex,
    view: View,
    strangers: strangers::Strangers,
    clock: Arc<dyn Clock>,
    boot: String,
    stopped: Mutex<Option<String>>,
    check_stop: AtomicBool,
}

impl Inner {
    /// Why no change is taken any more.
    fn stopped(&self) -> Option<String> {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner).clone();
        stopped.or_else(|| self.view.failure())
    }

    /// Takes no more changes. The first reason stays.
    fn stop(&self, why: String) {
        tracing::error!(%why, "the store takes no more changes");
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
    }
}

/// A handle of the open store; clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
    requests: mpsc::Sender<Request>,
    waiting: Arc<Semaphore>,
}

impl Store {
    /// Opens the store with the daemon's options; makes it where there is none.
    pub fn open(directories: &Directories) -> Result<(Self, OpenReport), StoreError> {
        Self::open_with(directories, Options::default())
    }

    /// Opens the store; makes it where there is none.
    ///
    /// Blocks: the end of the ledger is verified, an unacknowledged tail is put aside, and the view is caught up or
    /// made anew. Anything else that does not verify is an error, and nothing is changed.
    pub fn open_with(directories: &Directories, options: Options) -> Result<(Self, OpenReport), StoreError> {
        let open::Prepared { writer, unchecked, report } = open::prepare(directories, options)?;
        let inner = Arc::clone(&writer.inner);
        let (requests, receiver) = mpsc::channel();
        spawn("store-writer", move || writer.run(&receiver))?;
        if !unchecked.is_empty() {
            let inner = Arc::clone(&inner);
            spawn("store-check", move || open::check_older(&inner, &unchecked))?;
        }
        Ok((Self { inner, requests, waiting: Arc::new(Semaphore::new(MAX_WAITING)) }, report))
    }

    /// Commits a change. When this answers, the change is on disk and readers see it; or it did not happen, with the
    /// reason. (After [`StoreError::Disk`] a crash before the next start can still bring it back.) When the future is
    /// dropped before it answers, the change may happen or not.
    pub async fn commit(&self, change: Change, actor: Actor) -> Result<Committed, StoreError> {
        let _turn = self.waiting.acquire().await.map_err(|_| StoreError::Closed)?;
        let (answer, result) = oneshot::channel();
        self.requests
            .send(Request::Commit(Box::new((change, actor)), answer))
            .map_err(|_| StoreError::Closed)?;
        result.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Commits a change from a thread that may block.
    pub fn commit_blocking(&self, change: Change, actor: Actor) -> Result<Committed, StoreError> {
        let (answer, result) = oneshot::channel();
        self.requests
            .send(Request::Commit(Box::new((change, actor)), answer))
            .map_err(|_| StoreError::Closed)?;
        result.blocking_recv().unwrap_or(Err(StoreError::Closed))
    }

    /// Counts a refusal to a caller that is nobody's service user; one record a minute tells how many there were.
    pub fn count_stranger(&self, code: Code) {
        if self.inner.strangers.count(code, self.inner.clock.now()) {
            let _ = self.requests.send(Request::Wake);
        }
    }

    /// Why the store takes no more changes, if it does not: a failed disk, a view that failed, or damage found in the
    /// background. The daemon should end and be started again.
    pub fn stopped(&self) -> Option<String> {
        self.inner.stopped()
    }

    /// What tells this boot of the machine from others.
    pub fn boot(&self) -> &str {
        &self.inner.boot
    }

    /// The size of the ledger's segments together, in bytes.
    ///
    /// # Errors
    /// If its folder cannot be read.
    pub fn ledger_bytes(&self) -> Result<u64, StoreError> {
        let path = self.inner.folder.path();
        let sizes = std::fs::read_dir(path).and_then(|entries| {
            entries.map(|entry| Ok(entry?.metadata()?.len())).sum::<std::io::Result<u64>>()
        });
        sizes.map_err(|error| StoreError::io(path, error))
    }

    /// The chain's head, for the journal: the last record's number and its hash in hexadecimal.
    pub fn head(&self) -> (u64, String) {
        let tip = self.inner.index.read().tip;
        (tip.number, ledger::frame::hex(&tip.hash))
    }

    /// Ends the store in order: everything that waits is committed, the view is put on disk and marked clean, the
    /// locks are let go. Other handles answer [`StoreError::Closed`] from then on.
    pub async fn close(self) -> Result<(), StoreError> {
        let (answer, result) = oneshot::channel();
        self.requests.send(Request::Close(answer)).map_err(|_| StoreError::Closed)?;
        result.await.unwrap_or(Err(StoreError::Closed))
    }

    /// [`Store::close`] from a thread that may block.
    pub fn close_blocking(self) -> Result<(), StoreError> {
        let (answer, result) = oneshot::channel();
        self.requests.send(Request::Close(answer)).map_err(|_| StoreError::Closed)?;
        result.blocking_recv().unwrap_or(Err(StoreError::Closed))
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), StoreError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map(drop)
        .map_err(|e| StoreError::io(format!("thread {name}"), e))
}
