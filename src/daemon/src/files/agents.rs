//! The file agents that this daemon talks to: one for each account and OS account while it is used.
//!
//! An agent does one call at a time. One that does not answer in time, or answers what it should not, is left alone: it
//! ends by itself, and the next call has another one. What is long gets an agent of its own.

use std::collections::HashMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deputy_core::job::OsIdentity;
use deputy_core::message::{
    FileReply, FileRequest, FilesRequest, IDLE_SECONDS, LauncherReply, LauncherRequest,
};
use deputy_core::{AccountName, ApplicationName, Code, Denial, OsGid};
use tokio::time::{Instant, timeout, timeout_at};

use crate::launcher::{ANSWER, Channel, Launcher, LauncherError};

/// An agent that was not used for so long is not used again: it may be about to end.
const IDLE: Duration = Duration::from_secs((IDLE_SECONDS * 2 / 3) as u64);

/// The most agents that are remembered; of more, those that are idle are let go.
const MAX_AGENTS: usize = 256;

/// For whom an agent is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Whose {
    /// The application.
    pub application: ApplicationName,
    /// Its account.
    pub account: AccountName,
    /// The OS account: that of its link, or of its project.
    pub os: OsIdentity,
    /// The umask of what is made.
    pub umask: Option<u32>,
    /// The group of the project.
    pub project_group: Option<OsGid>,
}

impl Whose {
    /// What the launcher is told about it.
    pub fn files_request(&self) -> FilesRequest {
        FilesRequest {
            application: self.application.clone(),
            account: self.account.clone(),
            os_account: self.os.clone(),
            idle_seconds: None,
            umask: self.umask,
            project_group: self.project_group,
        }
    }
}

/// A file that an agent keeps for a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptFile {
    /// Which agent.
    pub agent: u64,
    /// The agent's handle.
    pub handle: u32,
}

/// What an agent answered.
#[derive(Debug)]
pub struct Answer {
    /// The answer, which is no refusal.
    pub reply: FileReply,
    /// What came with it.
    pub descriptors: Vec<OwnedFd>,
    /// Which agent it was.
    pub agent: u64,
}

/// A connection to an agent.
#[derive(Debug)]
struct Connected {
    number: u64,
    channel: Channel,
    used: Instant,
    /// How many files it keeps.
    kept: usize,
}

/// The agents of one.
#[derive(Debug, Default)]
struct Of {
    present: Option<Connected>,
    /// Those that do nothing any more but commit what they keep.
    retired: Vec<Connected>,
}

/// All of them.
#[derive(Debug, Default)]
pub struct FileAgents(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    of: HashMap<Whose, Arc<tokio::sync::Mutex<Of>>>,
    latest: u64,
}

impl FileAgents {
    fn of(&self, whose: &Whose) -> Arc<tokio::sync::Mutex<Of>> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if table.of.len() >= MAX_AGENTS && !table.of.contains_key(whose) {
            // What is locked is in use.
            table.of.retain(|_, of| of.try_lock().map_or(true, |of| of.is_in_use()));
        }
        Arc::clone(table.of.entry(whose.clone()).or_default())
    }

    fn number(&self) -> u64 {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.latest += 1;
        table.latest
    }

    /// Does one call. A refusal, the kernel's included, is an error.
    pub async fn call(
        &self,
        launcher: &Launcher,
        whose: &Whose,
        request: &FileRequest,
        deadline: Duration,
    ) -> Result<Answer, Denial> {
        let end = Instant::now() + deadline;
        let of = self.of(whose);
        let mut of = timeout_at(end, of.lock()).await.map_err(|_| busy())?;
        for attempt in 0.. {
            // Taken out: whatever breaks off this call, an answer of which it is not known is nobody else's.
            let known = of.present.take().filter(|agent| agent.used.elapsed() < IDLE || agent.kept > 0);
            let fresh = known.is_none();
            let mut agent = match known {
                Some(agent) => agent,
                None => self.start(launcher, whose, end).await?,
            };
            match agent.channel.ask_agent(request, None).await {
                Ok(()) => {}
                // It had ended before, so that nothing was asked.
                Err(_) if !fresh && attempt == 0 => continue,
                Err(error) => return Err(error.into()),
            }
            let (reply, descriptors) = agent.answer(end).await?;
            if let FileReply::Stale(denial) = reply {
                // It has done nothing. Another one decides by what holds now.
                if agent.kept > 0 {
                    of.retired.push(agent);
                }
                if attempt == 0 {
                    continue;
                }
                return Err(denial);
            }
            if matches!(reply, FileReply::Opened { handle: Some(_) }) {
                agent.kept += 1;
            }
            agent.used = Instant::now();
            let number = agent.number;
            of.present = Some(agent);
            return Ok(Answer { reply, descriptors, agent: number });
        }
        Err(busy())
    }

    /// Has a kept file written to the disk, or only kept no longer.
    /// The agent's answer is that it is done, or the refusal of the kernel's or of Deputy's.
    pub async fn commit(
        &self,
        whose: &Whose,
        kept: KeptFile,
        discard: bool,
        deadline: Duration,
    ) -> Result<FileReply, Denial> {
        let end = Instant::now() + deadline;
        let of = self.of(whose);
        let mut of = timeout_at(end, of.lock()).await.map_err(|_| busy())?;
        let Of { present, retired } = &mut *of;
        let retired_at = retired.iter().position(|agent| agent.number == kept.agent);
        let mut agent = match retired_at {
            Some(index) => retired.swap_remove(index),
            None => match present.take() {
                Some(agent) if agent.number == kept.agent => agent,
                other => {
                    *present = other;
                    return Err(Denial::not_found());
                }
            },
        };
        agent
            .channel
            .ask_agent(&FileRequest::Commit { handle: kept.handle, discard }, None)
            .await
            .map_err(|_| lost())?;
        let (reply, _) = agent.answer(end).await?;
        if let FileReply::Stale(denial) = reply {
            return Err(denial);
        }
        agent.kept = agent.kept.saturating_sub(1);
        agent.used = Instant::now();
        match retired_at {
            None => *present = Some(agent),
            Some(_) if agent.kept > 0 => retired.push(agent),
            Some(_) => {}
        }
        Ok(reply)
    }

    /// Begins something long in an agent of its own, which writes to the pipe and ends.
    pub async fn begin(
        &self,
        launcher: &Launcher,
        whose: &Whose,
        request: &FileRequest,
        pipe: BorrowedFd<'_>,
        deadline: Duration,
    ) -> Result<(), Denial> {
        let end = Instant::now() + deadline;
        let agent = self.start(launcher, whose, end).await?;
        agent.channel.ask_agent(request, Some(pipe)).await?;
        match agent.answer(end).await?.0 {
            FileReply::Begun => Ok(()),
            FileReply::Stale(denial) => Err(denial),
            other => done(other),
        }
    }

    async fn start(&self, launcher: &Launcher, whose: &Whose, end: Instant) -> Result<Connected, Denial> {
        let start = async {
            let channel = launcher.request(&LauncherRequest::Files(whose.files_request()), &[]).await?;
            match timeout(ANSWER, channel.reply()).await {
                Err(_) => Err(LauncherError::TimedOut),
                Ok(reply) => match reply?.ok_or(LauncherError::Ended)? {
                    LauncherReply::Done => Ok(channel),
                    _ => Err(LauncherError::Foreign),
                },
            }
        };
        let channel = timeout_at(end, start).await.map_err(|_| LauncherError::TimedOut)??;
        Ok(Connected { number: self.number(), channel, used: Instant::now(), kept: 0 })
    }
}

impl Of {
    fn is_in_use(&self) -> bool {
        !self.retired.is_empty()
            || self.present.as_ref().is_some_and(|agent| agent.kept > 0 || agent.used.elapsed() < IDLE)
    }
}

impl Connected {
    async fn answer(&self, end: Instant) -> Result<(FileReply, Vec<OwnedFd>), Denial> {
        match timeout_at(end, self.channel.agents_answer()).await {
            Ok(Ok(Some(answer))) => Ok(answer),
            Ok(Ok(None) | Err(_)) | Err(_) => Err(lost()),
        }
    }
}

fn done(reply: FileReply) -> Result<(), Denial> {
    match reply {
        FileReply::Done => Ok(()),
        FileReply::Failed { errno } => Err(super::refused(errno, "")),
        FileReply::Denied(denial) => Err(denial),
        _ => Err(lost()),
    }
}

/// The agent's owner can stop and kill it, as every process of his.
pub fn lost() -> Denial {
    Denial::new(
        Code::FileAgentLost,
        "file agent",
        "the file agent ended or did not answer in time: whether it was done is not known",
    )
    .remedy("look what is there, and try again; deadline_seconds gives slow file systems more time")
}

fn busy() -> Denial {
    Denial::new(Code::Busy, "file agent", "the account's file agent is busy with other calls")
        .remedy("try again later")
}

/// A pipe for a long call: the reading end, and the writing one.
pub fn pipe() -> Result<(OwnedFd, OwnedFd), Denial> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|error| Denial::internal(format!("a pipe: {error}")))?;
    Ok((reader, writer))
}
