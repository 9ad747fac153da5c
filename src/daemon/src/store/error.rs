//! What can go wrong in the store.

use std::path::PathBuf;

use deputy_core::Code;
use deputy_core::account::Status;
use thiserror::Error;

/// A place in the ledger that does not verify.
#[derive(Debug, Clone, PartialEq, Eq, Error, serde::Serialize)]
#[error("segment {segment}, record {record}, byte {offset}: {what}")]
pub struct Damage {
    /// The segment's file name.
    pub segment: String,
    /// The number of the record that does not verify (the first that cannot be trusted).
    pub record: u64,
    /// The byte in the segment where that record begins, or should begin.
    pub offset: u64,
    /// What is wrong there.
    pub what: String,
}

/// Why the store did not do what it was asked.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The change contradicts the state: what it makes is there already, or has moved on.
    #[error("{what} {key}: {why}")]
    Conflict {
        /// The sort of thing: account, link, session, job.
        what: &'static str,
        /// Its key.
        key: String,
        /// Why the change does not fit.
        why: &'static str,
    },
    /// What the change or the query is about is not there.
    #[error("there is no {what} {key}")]
    NotFound {
        /// The sort of thing: account, link, session, job.
        what: &'static str,
        /// Its key.
        key: String,
    },
    /// The account is not active.
    #[error("account {key} is {status}")]
    NotActive {
        /// Application and account.
        key: String,
        /// Where it stands.
        status: Status,
    },
    /// The acting account is no longer what it was when the call was allowed.
    #[error("the acting account {key} was changed meanwhile")]
    ActorChanged {
        /// Application and account.
        key: String,
    },
    /// The application would have no active superuser any more.
    #[error("account {key} is the last active superuser of its application")]
    LastSuperuser {
        /// Application and account.
        key: String,
    },
    /// Something remains of what was to be deleted.
    #[error("{key} cannot be deleted: {remaining}")]
    NotEmpty {
        /// What was to be deleted.
        key: String,
        /// What remains, in words.
        remaining: String,
    },
    /// A record would be larger than the ledger takes.
    #[error("a record of {bytes} bytes is larger than the {limit} bytes that the ledger takes")]
    TooLarge {
        /// The size of the record's body.
        bytes: usize,
        /// The largest that is taken.
        limit: usize,
    },
    /// A cursor that this query did not give out.
    #[error("this page cursor does not belong to this query")]
    Cursor,
    /// The disk did not take the change; it did not happen.
    #[error("the ledger could not be written ({step}): {source}")]
    Disk {
        /// Which step failed.
        step: &'static str,
        /// The operating system's word.
        source: std::io::Error,
    },
    /// After a failure the store takes no more changes until it is opened again.
    #[error("the store takes no changes until the daemon is started again: {0}")]
    ReadOnly(String),
    /// The ledger does not verify.
    #[error(
        "the ledger is damaged: {0}; restore it from a backup, or ask for help with the whole folder kept"
    )]
    Damaged(Damage),
    /// A record is of a version or sort that this program does not know.
    #[error("the ledger was written by a newer program: {0}")]
    Newer(Damage),
    /// Another process has the store open.
    #[error("{path} is in use by another process (the daemon, or a tool)")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A folder or file is not one that the store may trust.
    #[error("{path}: {why}")]
    Untrusted {
        /// The folder or file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A call on a folder or file failed.
    #[error("{path}: {source}")]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// The operating system's word.
        source: std::io::Error,
    },
    /// The view failed; the ledger is not concerned. It is made anew at the next start.
    #[error("the view of the ledger failed: {0}")]
    View(String),
    /// A line of an import is not a record of an export.
    #[error("line {line} of the import: {what}")]
    Import {
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        what: String,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// The stable code under which callers see this.
    pub fn code(&self) -> Code {
        match self {
            Self::Conflict { .. } | Self::ActorChanged { .. } => Code::Conflict,
            Self::NotActive { .. } => Code::AccountNotActive,
            Self::LastSuperuser { .. } => Code::LastSuperuser,
            Self::NotEmpty { .. } => Code::NotEmpty,
            Self::NotFound { .. } => Code::NotFound,
            Self::TooLarge { .. } | Self::Cursor | Self::Import { .. } => Code::InvalidArgument,
            Self::Disk { .. } | Self::ReadOnly(_) => Code::Disk,
            _ => Code::Internal,
        }
    }

    pub(crate) fn io(path: impl Into<PathBuf>, source: impl Into<std::io::Error>) -> Self {
        Self::Io { path: path.into(), source: source.into() }
    }
}
