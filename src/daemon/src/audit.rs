//! The record of every refusal.
//!
//! It does not hold up the answer: records go through a bounded queue and are committed in groups. Refusals to
//! callers who are nobody's service user are counted instead, so that a stranger cannot make the ledger grow.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use deputy_core::Denial;
use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::authority::About;
use crate::bus::caller::Caller;
use crate::metrics::Counters;
use crate::store::{Actor, Argument, Change, Store};

/// The most records that wait.
const WAITING: usize = 1024;

/// The most records that are committed together.
const GROUP: usize = 64;

/// The most bytes of a command that a record of a refusal keeps.
const MAX_ARGV: usize = 4096;

/// Takes records of refusals.
#[derive(Debug)]
pub struct Audit {
    store: StoreHandle,
    sender: Mutex<Option<mpsc::Sender<(Change, Actor)>>>,
    task: Mutex<Option<JoinHandle<()>>>,
    lost: AtomicU64,
    counters: Arc<Counters>,
}

struct StoreHandle(Store);

impl std::fmt::Debug for StoreHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

impl Audit {
    /// Starts the task that commits.
    pub fn start(store: Store, counters: Arc<Counters>) -> Self {
        let (sender, mut receiver) = mpsc::channel(WAITING);
        let writer = store.clone();
        let task = tokio::spawn(async move {
            let mut group = Vec::with_capacity(GROUP);
            while receiver.recv_many(&mut group, GROUP).await > 0 {
                let commits = group.drain(..).map(|(change, actor)| writer.commit(change, actor));
                for result in join_all(commits).await {
                    if let Err(error) = result {
                        tracing::error!(%error, "a refusal could not be recorded");
                    }
                }
            }
        });
        Self {
            store: StoreHandle(store),
            sender: Mutex::new(Some(sender)),
            task: Mutex::new(Some(task)),
            lost: AtomicU64::new(0),
            counters,
        }
    }

    /// Records a refusal. `stranger`: the caller is neither root nor an application's service user.
    pub fn denied(&self, method: &str, caller: &Caller, stranger: bool, about: &About, denial: &Denial) {
        tracing::info!(
            method,
            caller_uid = caller.uid,
            code = %denial.code,
            rule = ?denial.rule,
            application = about.application.as_ref().map(tracing::field::display),
            account = about.account.as_ref().map(|name| tracing::field::debug(name.as_str())),
            os_user = about.os_user.as_ref().map(|name| tracing::field::debug(name.as_str())),
            message = ?denial.message,
            "denied"
        );
        self.counters.refused(denial.code);
        if stranger {
            self.store.0.count_stranger(denial.code);
            return;
        }
        let change = Change::Denied {
            code: denial.code,
            rule: denial.rule.clone(),
            method: method.to_owned(),
            application: about.application.clone(),
            account: about.account.clone(),
            os_user: about.os_user.clone(),
            argv: bounded(&about.argv),
        };
        let actor = Actor {
            caller_uid: caller.uid,
            bus_name: Some(caller.bus_name.to_string()),
            application: about.application.clone(),
            by: about.acting.clone(),
            action: method.to_owned(),
            rule: None,
        };
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = sender.as_ref().is_some_and(|sender| sender.try_send((change, actor)).is_ok());
        if !taken {
            let lost = self.lost.fetch_add(1, Ordering::Relaxed) + 1;
            tracing::error!(lost, "refusals come faster than the disk takes their records");
        }
    }

    /// Commits what waits, and ends.
    pub async fn close(&self) {
        drop(self.sender.lock().unwrap_or_else(PoisonError::into_inner).take());
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            let _ = task.await;
        }
    }
}

fn bounded(argv: &[Vec<u8>]) -> Vec<Argument> {
    let mut left = MAX_ARGV;
    argv.iter()
        .map_while(|word| {
            let kept = &word[..word.len().min(left)];
            let more = left > 0;
            left -= kept.len();
            more.then(|| Argument(kept.to_vec()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_command_is_cut() {
        assert!(bounded(&[]).is_empty());
        let cut = bounded(&[b"/bin/x".to_vec(), vec![b'a'; 10_000], b"more".to_vec()]);
        assert_eq!(cut.len(), 2);
        assert_eq!(cut[1].0.len(), MAX_ARGV - 6);
    }
}
