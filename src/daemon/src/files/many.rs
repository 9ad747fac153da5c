//! Many files at once.

use std::os::fd::OwnedFd;

use deputy_core::Denial;
use deputy_core::message::{FileReply, FileRequest, MAX_OPEN, OpenHow, OpenedOne};

use super::{Asked, Ready, agents, ask, calls, check, ready, refused, shown};
use crate::authority::{Call, Granted};
use crate::bus::options::Options;
use crate::bus::record::Record;

/// The most files of one call: as many descriptors as the system bus takes in a message.
const MAX_FILES: usize = 16;

/// `Files.OpenMany`.
pub async fn open_many(
    call: Call,
    (subject, paths, mut options): (String, Vec<Vec<u8>>, Options),
) -> Result<Granted<(Vec<zbus::OwnedFd>, Vec<Record>)>, Denial> {
    let how = calls::how(&mut options)?;
    let asked = Asked::take(options)?;
    if paths.len() > MAX_FILES {
        return Err(Denial::invalid(format!("at most {MAX_FILES} files at once")));
    }
    let ready = ready(&call, &subject, asked).await?;
    let Opened { files, results } = open(&call, &ready, paths, how).await?;
    let results = results.iter().map(|refusal| refusal.as_ref().map(shown::refusal).unwrap_or_default());
    Ok(ready.grant.answer((files.into_iter().map(Into::into).collect(), results.collect())))
}

/// What became of several files.
pub struct Opened {
    /// Those that were opened, in the order of the paths.
    pub files: Vec<OwnedFd>,
    /// Of each path, why it was not opened.
    pub results: Vec<Option<Denial>>,
}

/// Has the agent open them, [`MAX_OPEN`] at most, and looks at each descriptor that comes back.
pub async fn open(call: &Call, ready: &Ready, paths: Vec<Vec<u8>>, how: OpenHow) -> Result<Opened, Denial> {
    if paths.len() > MAX_OPEN {
        return Err(Denial::invalid(format!("at most {MAX_OPEN} files at once")));
    }
    let request = FileRequest::OpenMany { paths, how };
    let answer = ask(call, ready, &request).await?;
    let FileRequest::OpenMany { paths, .. } = request else { return Err(agents::lost()) };
    let FileReply::OpenedMany(told) = answer.reply else { return Err(agents::lost()) };
    if told.len() != paths.len() {
        return Err(agents::lost());
    }
    let mut came = answer.descriptors.into_iter();
    let (mut files, mut results) = (Vec::with_capacity(came.len()), Vec::with_capacity(paths.len()));
    for (one, path) in told.into_iter().zip(paths) {
        results.push(match one {
            OpenedOne::Opened => {
                files.push(check(came.next().into_iter().collect(), how)?);
                call.daemon.file_log.done(call, &ready.whose, how.write.then_some(path));
                None
            }
            OpenedOne::Failed { errno } => Some(refused(errno, "")),
            OpenedOne::Denied(denial) => Some(denial),
        });
    }
    match came.next() {
        None => Ok(Opened { files, results }),
        Some(_) => Err(agents::lost()),
    }
}
