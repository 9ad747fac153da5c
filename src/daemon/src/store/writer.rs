//! The one thread that writes: it takes all changes that wait, checks them, and puts them on disk together.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::change::{self, Actor, Body, Change};
use super::error::StoreError;
use super::ledger::{Appender, GROUP_BYTES, GROUP_RECORDS, MAX_BODY};
use super::open::{CLEAN_MARK, CleanMark};
use super::view::{Draft, Place};
use super::{Committed, Inner, rules};

/// What a change's sender is told.
pub(crate) type Answer = oneshot::Sender<Result<Committed, StoreError>>;

/// What the writer is asked.
pub(crate) enum Request {
    /// Commit a change.
    Commit(Box<(Change, Actor)>, Answer),
    /// Look whether strangers were counted.
    Wake,
    /// End in order, and tell how that went.
    Close(oneshot::Sender<Result<(), StoreError>>),
}

/// The writer's own things. They are let go when it ends: the locks last.
pub(crate) struct Writer {
    pub inner: Arc<Inner>,
    pub appender: Appender,
    pub place: Place,
    pub strangers_every: Duration,
    pub gather: Duration,
    pub _ledger_lock: super::folder::Lock,
}

/// The changes of one group that passed their checks.
struct Group<'v> {
    draft: Draft<'v>,
    bodies: Vec<Vec<u8>>,
    bytes: usize,
    answers: Vec<(Option<Answer>, Committed)>,
}

impl Writer {
    /// Works until it is told to close, or nobody is left to ask.
    pub fn run(mut self, requests: &Receiver<Request>) {
        loop {
            let due = [self.inner.strangers.due_in(self.strangers_every), self.view_due_in()];
            let first = match due.into_iter().flatten().min() {
                None => requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(wait) => requests.recv_timeout(wait),
            };
            let (waiting, close) = match first {
                Ok(request) => gather(request, requests),
                Err(RecvTimeoutError::Timeout) => (Vec::new(), None),
                Err(RecvTimeoutError::Disconnected) => {
                    let _ = self.close();
                    return;
                }
            };
            self.commit(waiting, close.is_some());
            self.settle_what_is_due();
            if let Some(answer) = close {
                let result = self.close();
                // The locks go first: who hears the answer may open the store again.
                drop(self);
                let _ = answer.send(result);
                return;
            }
        }
    }

    /// How long until the view's database is to be given what has been gathered for it.
    fn view_due_in(&self) -> Option<Duration> {
        // Where nothing is written any more there is nothing to wait for either.
        self.inner.view.due_in(self.gather).filter(|_| self.inner.stopped().is_none())
    }

    /// Gives the view's database what has been gathered for it. Nobody waits for that but who comes meanwhile.
    fn settle_what_is_due(&self) {
        if self.view_due_in() == Some(Duration::ZERO)
            && let Err(error) = self.inner.view.settle()
        {
            // The changes are on disk, so they were acknowledged; but nothing can be checked against this view any
            // more. The next start makes it anew.
            self.inner.stop(error.to_string());
        }
    }

    /// Checks what waits, writes it as one group, and answers.
    fn commit(&mut self, waiting: Vec<(Change, Actor, Answer)>, last: bool) {
        let inner = Arc::clone(&self.inner);
        if let Some(why) = inner.stopped() {
            for (_, _, answer) in waiting {
                let _ = answer.send(Err(StoreError::ReadOnly(why.clone())));
            }
            return;
        }
        let mut group =
            Group { draft: Draft::new(&inner.view), bodies: Vec::new(), bytes: 0, answers: Vec::new() };
        if (last || inner.strangers.due_in(self.strangers_every) == Some(Duration::ZERO))
            && let Some(change) = inner.strangers.take()
        {
            self.add(&mut group, change, Actor::daemon("count strangers"), None);
        }
        for (change, actor, answer) in waiting {
            self.add(&mut group, change, actor, Some(answer));
            if group.bytes >= GROUP_BYTES || group.bodies.len() >= GROUP_RECORDS {
                let next = Group {
                    draft: Draft::new(&inner.view),
                    bodies: Vec::new(),
                    bytes: 0,
                    answers: Vec::new(),
                };
                self.write(std::mem::replace(&mut group, next));
            }
        }
        self.write(group);
    }

    /// Takes a change into the group, or answers why not.
    fn add(&self, group: &mut Group<'_>, change: Change, actor: Actor, answer: Option<Answer>) {
        let at = self.inner.clock.now();
        let number = self.appender.tip().number + 1 + group.bodies.len() as u64;
        let body = Body { at, actor, change };
        let bytes = serde_json::to_vec(&body).expect("changes have string keys only");
        let checked = if bytes.len() > MAX_BODY {
            Err(StoreError::TooLarge { bytes: bytes.len(), limit: MAX_BODY })
        } else {
            rules::check_acting(&body.actor, &group.draft)
                .and_then(|()| rules::apply(&body.change, number, at, &mut group.draft))
        };
        match checked {
            Ok(()) => {
                group.bytes += bytes.len();
                group.bodies.push(bytes);
                group.answers.push((answer, Committed { number, at }));
            }
            Err(error) => {
                if let Some(answer) = answer {
                    let _ = answer.send(Err(error));
                }
            }
        }
    }

    /// Puts a group on disk, shows it in the view, and answers its senders.
    fn write(&mut self, group: Group<'_>) {
        if group.bodies.is_empty() {
            return;
        }
        let result = self.appender.append(change::VERSION, &group.bodies);
        if let Err(error) = result {
            for (answer, _) in group.answers {
                if let Some(answer) = answer {
                    let _ = answer.send(Err(same_error(&error)));
                }
            }
            if let Some(why) = self.appender.failed() {
                self.inner.stop(why.to_owned());
            }
            return;
        }
        self.inner.view.show(group.draft.into_rows(), self.appender.tip());
        for (answer, committed) in group.answers {
            if let Some(answer) = answer {
                let _ = answer.send(Ok(committed));
            }
        }
    }

    /// Commits one change of the store's own, before the thread runs.
    pub fn commit_own(&mut self, change: Change, actor: Actor) -> Result<Committed, StoreError> {
        let (answer, mut result) = oneshot::channel();
        self.commit(vec![(change, actor, answer)], false);
        // The answer is there already; the caller may be an async task, which must not block on a channel.
        result.try_recv().unwrap_or(Err(StoreError::Closed))
    }

    /// Commits records that another store exported, as they were.
    pub fn import(&mut self, entries: Vec<Body>) -> Result<(), StoreError> {
        let inner = Arc::clone(&self.inner);
        let mut draft = Draft::new(&inner.view);
        let mut bodies = Vec::with_capacity(entries.len());
        let mut number = self.appender.tip().number;
        for body in entries {
            number += 1;
            rules::apply(&body.change, number, body.at, &mut draft)?;
            let bytes = serde_json::to_vec(&body).expect("changes have string keys only");
            if bytes.len() > MAX_BODY {
                return Err(StoreError::TooLarge { bytes: bytes.len(), limit: MAX_BODY });
            }
            bodies.push(bytes);
        }
        self.appender.append(change::VERSION, &bodies)?;
        inner.view.show(draft.into_rows(), self.appender.tip());
        inner.view.settle()
    }

    /// Leaves the marks of an orderly end.
    pub fn close(&mut self) -> Result<(), StoreError> {
        self.inner.check_stop.store(true, std::sync::atomic::Ordering::Relaxed);
        if self.inner.stopped().is_some() {
            // Whether it was the view that failed or the disk: the next start makes the view anew.
            return self.place.forget();
        }
        let index = self.inner.index.read();
        let mark = CleanMark::new(index.identity, &index.tip);
        drop(index);
        self.inner.folder.replace(CLEAN_MARK, &serde_json::to_vec(&mark).expect("the mark is plain data"))?;
        self.place.close(&self.inner.view)
    }
}

/// A change, who made it, and whom to answer.
type Waiting = (Change, Actor, Answer);

/// Everything that waits behind `first`, up to one group, or to a request to close.
fn gather(
    first: Request,
    requests: &Receiver<Request>,
) -> (Vec<Waiting>, Option<oneshot::Sender<Result<(), StoreError>>>) {
    let mut waiting = Vec::new();
    let mut next = first;
    loop {
        match next {
            Request::Commit(asked, answer) => {
                let (change, actor) = *asked;
                waiting.push((change, actor, answer));
            }
            Request::Wake => {}
            Request::Close(answer) => return (waiting, Some(answer)),
        }
        if waiting.len() >= GROUP_RECORDS {
            return (waiting, None);
        }
        next = match requests.try_recv() {
            Ok(request) => request,
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => return (waiting, None),
        };
    }
}

/// The same error for another sender: all of a group share its fate.
fn same_error(error: &StoreError) -> StoreError {
    match error {
        StoreError::Disk { step, source } => StoreError::Disk { step, source: same_io(source) },
        StoreError::Io { path, source } => StoreError::Io { path: path.clone(), source: same_io(source) },
        other => StoreError::ReadOnly(other.to_string()),
    }
}

fn same_io(error: &std::io::Error) -> std::io::Error {
    match error.raw_os_error() {
        Some(number) => std::io::Error::from_raw_os_error(number),
        None => std::io::Error::new(error.kind(), error.to_string()),
    }
}
