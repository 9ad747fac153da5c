//! A file agent, spoken to directly: by a `deputyd` that has been taken over.

use std::fs::File;
use std::io::{ErrorKind, Read as _, pipe};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use deputy_core::message::{
    FileReply, FileRequest, FilesRequest, LauncherReply, LauncherRequest, OpenHow, decode, encode,
};
use deputy_core::{Code, Denial};
use deputy_wire::WireError;

use crate::acting::{identity, ids};
use crate::line::Line;
use crate::requests::{account, app};

/// A connection to an agent.
#[derive(Debug)]
pub struct FileAgent(Line);

/// What an agent is asked for, for an account of `application`.
pub fn files_of(application: &str, account_name: &str, os_user: &str) -> FilesRequest {
    FilesRequest {
        application: app(application),
        account: account(account_name),
        os_account: identity(os_user),
        idle_seconds: None,
        umask: None,
        project_group: None,
    }
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// With this answer.
    Answer(FileReply),
    /// The kernel refused.
    Errno(i32),
    /// Deputy refused.
    Refused(Code),
    /// The agent ended, since what it was started under has changed.
    Stale(Code),
    /// The agent ended without an answer.
    Gone,
}

impl FileAgent {
    /// Has one started.
    pub fn start(request: &FilesRequest) -> Result<Self, Denial> {
        let line = Line::to_launcher(ids("deputy")).expect("the launcher's socket");
        line.send(&encode(&LauncherRequest::Files(request.clone())).expect("a message"), &[]);
        match line.next() {
            Some(LauncherReply::Done) => Ok(Self(line)),
            Some(LauncherReply::Denied(denial)) => Err(denial),
            other => panic!("no agent: {other:?}"),
        }
    }

    /// The connection, on which anything can be said.
    pub fn line(&self) -> &Line {
        &self.0
    }

    /// One of an account of `demo`'s.
    pub fn of(account_name: &str, os_user: &str) -> Self {
        Self::start(&files_of("demo", account_name, os_user)).expect("an agent")
    }

    /// One call with these descriptors, and what came with the answer.
    pub fn ask(&self, request: &FileRequest, given: &[BorrowedFd<'_>]) -> Option<(FileReply, Vec<OwnedFd>)> {
        self.0.send(&encode(request).expect("a message"), given);
        let packet = loop {
            match deputy_wire::receive(&self.0) {
                Err(WireError::Io(error)) if error.kind() == ErrorKind::Interrupted => {}
                other => break other.expect("an answer")?,
            }
        };
        Some((decode(&packet.bytes).expect("an answer is a message"), packet.descriptors))
    }

    /// One call that brings no descriptor.
    pub fn call(&self, request: &FileRequest) -> Ended {
        match self.ask(request, &[]) {
            None => Ended::Gone,
            Some((FileReply::Failed { errno }, _)) => Ended::Errno(errno),
            Some((FileReply::Denied(denial), _)) => Ended::Refused(denial.code),
            Some((FileReply::Stale(denial), _)) => Ended::Stale(denial.code),
            Some((answer, _)) => Ended::Answer(answer),
        }
    }

    /// Opens a file.
    pub fn open(&self, path: impl AsRef<[u8]>, how: OpenHow) -> Result<File, Ended> {
        let request = FileRequest::Open { path: path.as_ref().to_vec(), how };
        match self.ask(&request, &[]) {
            Some((FileReply::Opened { .. }, descriptors)) => {
                let [file]: [OwnedFd; 1] = descriptors.try_into().expect("one descriptor");
                Ok(file.into())
            }
            None => Err(Ended::Gone),
            Some((FileReply::Failed { errno }, _)) => Err(Ended::Errno(errno)),
            Some((FileReply::Denied(denial), _)) => Err(Ended::Refused(denial.code)),
            Some((FileReply::Stale(denial), _)) => Err(Ended::Stale(denial.code)),
            Some(other) => panic!("{other:?}"),
        }
    }

    /// What a file holds.
    pub fn read(&self, path: impl AsRef<[u8]>) -> Result<String, Ended> {
        let mut file = self.open(path, for_reading())?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).expect("its bytes");
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A long call; its lines.
    pub fn long(&self, request: &FileRequest) -> Result<Vec<serde_json::Value>, Ended> {
        let (mut reader, writer) = pipe().expect("a pipe");
        let answer = self.ask(request, &[writer.as_fd()]);
        drop(writer);
        match answer {
            Some((FileReply::Begun, _)) => {}
            None => return Err(Ended::Gone),
            Some((FileReply::Failed { errno }, _)) => return Err(Ended::Errno(errno)),
            Some((FileReply::Denied(denial), _)) => return Err(Ended::Refused(denial.code)),
            Some((FileReply::Stale(denial), _)) => return Err(Ended::Stale(denial.code)),
            Some(other) => panic!("{other:?}"),
        }
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("lines of text");
        Ok(text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect())
    }
}

/// For reading.
pub fn for_reading() -> OpenHow {
    OpenHow { read: true, ..OpenHow::default() }
}

/// For writing a file that is made if it is not there.
pub fn for_writing() -> OpenHow {
    OpenHow { write: true, create: true, ..OpenHow::default() }
}

/// What is known of something, links at the end not followed.
pub fn stat(path: impl AsRef<[u8]>) -> FileRequest {
    FileRequest::Stat { path: path.as_ref().to_vec(), follow: false }
}
