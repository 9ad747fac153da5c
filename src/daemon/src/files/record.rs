//! The record of what is done with files: one a minute for each account, whatever the number of calls.
//!
//! A hundred thousand calls must not be a hundred thousand records that wait for the disk. So each account's calls of a
//! minute are one record, with a number for each method and the first changes by their paths. What the kernel refuses is
//! counted there too: it is the kernel's decision, and no rule of Deputy's. Refusals by a rule have records of their own.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deputy_core::message::FileRequest;
use deputy_core::{AccountName, ApplicationName, OsUserName};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::agents::Whose;
use crate::authority::{About, Call};
use crate::store::{Actor, Argument, Change, FileChange, Store, Timestamp};

/// How often records are written.
const EVERY: Duration = Duration::from_secs(60);

/// The most changes that one record tells.
const MAX_CHANGES: usize = 32;

/// The most bytes of a path there.
const MAX_PATH: usize = 512;

/// The most accounts that are counted at once; with the next one all are written at once.
const MAX_ACCOUNTS: usize = 1024;

/// Who did something.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    caller_uid: u32,
    application: ApplicationName,
    account: AccountName,
    os_user: Option<OsUserName>,
}

#[derive(Debug, Default)]
struct Counted {
    since: Timestamp,
    calls: BTreeMap<String, u64>,
    refused: BTreeMap<String, u64>,
    changes: Vec<FileChange>,
}

/// What was counted and is not recorded yet.
#[derive(Debug, Default)]
struct Shared {
    open: Mutex<HashMap<Key, Counted>>,
    full: Notify,
}

/// Takes what is done.
pub struct FileLog {
    store: Store,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl FileLog {
    /// Starts the task that writes.
    pub fn start(store: Store) -> Self {
        let shared = Arc::new(Shared::default());
        let (writer, counted) = (store.clone(), Arc::clone(&shared));
        let task = tokio::spawn(async move {
            loop {
                // Whichever comes first.
                let _ = tokio::time::timeout(EVERY, counted.full.notified()).await;
                write(&writer, counted.take()).await;
            }
        });
        Self { store, shared, task }
    }

    /// A call was done; what it changed, if anything.
    pub fn done(&self, call: &Call, whose: &Whose, change: Option<Vec<u8>>) {
        let key = Key {
            caller_uid: call.caller.uid,
            application: whose.application.clone(),
            account: whose.account.clone(),
            os_user: Some(whose.os.name.clone()),
        };
        self.shared.count(key, &call.method.name(), change);
    }

    /// The kernel refused. Whether it was counted: not, where it is not known whose call it was.
    pub fn refused(&self, caller_uid: u32, method: &str, about: &About) -> bool {
        let (Some(application), Some(account)) = (about.application.clone(), about.account.clone()) else {
            return false;
        };
        let key = Key { caller_uid, application, account, os_user: about.os_user.clone() };
        self.shared.with(key, |counted| *counted.refused.entry(method.to_owned()).or_default() += 1);
        true
    }

    /// Writes what is counted, and ends.
    pub async fn close(&self) {
        self.task.abort();
        write(&self.store, self.shared.take()).await;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Counted>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> HashMap<Key, Counted> {
        std::mem::take(&mut *self.lock())
    }

    fn with(&self, key: Key, count: impl FnOnce(&mut Counted)) {
        let mut open = self.lock();
        if open.len() >= MAX_ACCOUNTS {
            self.full.notify_one();
        }
        let new = || Counted { since: Timestamp::now(), ..Counted::default() };
        count(open.entry(key).or_insert_with(new));
    }

    fn count(&self, key: Key, method: &str, change: Option<Vec<u8>>) {
        self.with(key, |counted| {
            *counted.calls.entry(method.to_owned()).or_default() += 1;
            if let Some(mut path) = change
                && counted.changes.len() < MAX_CHANGES
            {
                path.truncate(MAX_PATH);
                counted.changes.push(FileChange { method: method.to_owned(), path: Argument(path) });
            }
        });
    }
}

async fn write(store: &Store, counted: HashMap<Key, Counted>) {
    let records = counted.into_iter().map(|(key, counted)| {
        let Key { caller_uid, application, account, os_user } = key;
        let Counted { since, calls, refused, changes } = counted;
        let actor = Actor {
            caller_uid,
            application: Some(application.clone()),
            ..Actor::daemon("record what was done with files")
        };
        store.commit(
            Change::FilesUsed { application, account, os_user, since, calls, refused, changes },
            actor,
        )
    });
    for written in futures_util::future::join_all(records).await {
        if let Err(error) = written {
            tracing::error!(%error, "what was done with files could not be recorded");
        }
    }
}

/// The path that a request changes something at; none if it only looks.
pub fn change(request: &FileRequest) -> Option<Vec<u8>> {
    match request {
        FileRequest::Open { path, how } => (how.write || how.create).then(|| path.clone()),
        FileRequest::MakeDirectory { path, .. }
        | FileRequest::Remove { path, .. }
        | FileRequest::RemoveTree { path, .. }
        | FileRequest::Symlink { path, .. }
        | FileRequest::SetMode { path, .. }
        | FileRequest::SetGroup { path, .. }
        | FileRequest::SetTimes { path, .. }
        | FileRequest::SetAcl { path, .. }
        | FileRequest::Rename { from: path, .. } => Some(path.clone()),
        FileRequest::ShareFolder(share) => Some(share.path.clone()),
        FileRequest::Link { to, .. } | FileRequest::CopyTree { to, .. } => Some(to.clone()),
        FileRequest::Stat { .. }
        | FileRequest::OpenMany { .. }
        | FileRequest::List { .. }
        | FileRequest::ListStream { .. }
        | FileRequest::ReadLink { .. }
        | FileRequest::GetAcl { .. }
        | FileRequest::DiskUsage { .. }
        | FileRequest::Quota { .. }
        | FileRequest::Commit { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_calls_are_one_record_with_the_first_changes() {
        let shared = Shared::default();
        let key = || Key {
            caller_uid: 1,
            application: "demo".parse().unwrap(),
            account: "ada".parse().unwrap(),
            os_user: Some("alice".parse().unwrap()),
        };
        for number in 0..100_000 {
            shared.count(key(), "Files.Remove", Some(format!("/data/{number}").into_bytes()));
        }
        shared.count(key(), "Files.Remove", Some(vec![b'x'; 5000]));
        shared.count(key(), "Files.Stat", None);
        let counted = shared.take();
        assert_eq!(counted.len(), 1);
        let counted = &counted[&key()];
        assert_eq!(counted.calls["Files.Remove"], 100_001);
        assert_eq!(counted.calls["Files.Stat"], 1);
        assert_eq!(counted.changes.len(), MAX_CHANGES);
        assert_eq!(counted.changes[1].path, Argument(b"/data/1".to_vec()));
        assert!(shared.take().is_empty());
        shared.count(key(), "Files.Open", Some(vec![b'x'; 5000]));
        assert_eq!(shared.take()[&key()].changes[0].path.0.len(), MAX_PATH);
    }
}
