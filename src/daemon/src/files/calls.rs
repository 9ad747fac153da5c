//! The methods, one by one.

use std::os::fd::AsFd as _;

use deputy_core::Denial;
use deputy_core::acl::Acl;
use deputy_core::message::{FileReply, FileRequest, FileTime, OpenHow, RenameHow};
use zbus::OwnedFd;

use super::agents::{self, KeptFile};
use super::{Asked, check, note_loss, perform, quota, ready, record, shown, with_quota};
use crate::authority::{Call, Granted};
use crate::bus::options::{Options, parse};
use crate::bus::record::Record;

/// A path.
type Bytes = Vec<u8>;

/// A call that answers nothing but that it is done.
async fn done(
    call: Call,
    subject: String,
    options: Options,
    request: FileRequest,
) -> Result<Granted<()>, Denial> {
    let (ready, answer) = perform(&call, &subject, options, request).await?;
    match answer.reply {
        FileReply::Done => Ok(ready.grant.answer(())),
        _ => Err(agents::lost()),
    }
}

fn mode(options: &mut Options) -> Result<Option<u32>, Denial> {
    options.text("mode")?.map(|text| octal(&text)).transpose()
}

fn octal(text: &str) -> Result<u32, Denial> {
    let digits = !text.is_empty() && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    digits
        .then(|| u32::from_str_radix(text, 8).ok())
        .flatten()
        .filter(|mode| *mode <= 0o7777)
        .ok_or_else(|| Denial::invalid("a mode is octal, 0 to 7777"))
}

/// How a file is to be opened; without a word it is read.
pub(super) fn how(options: &mut Options) -> Result<OpenHow, Denial> {
    let how = OpenHow {
        read: options.flag("read")?,
        write: options.flag("write")?,
        create: options.flag("create")?,
        exclusive: options.flag("exclusive")?,
        append: options.flag("append")?,
        truncate: options.flag("truncate")?,
        mode: mode(options)?,
        keep: false,
    };
    Ok(OpenHow { read: how.read || !how.write, ..how })
}

/// `Files.Open`.
pub async fn open(
    call: Call,
    (subject, path, mut options): (String, Bytes, Options),
) -> Result<Granted<(OwnedFd, String)>, Denial> {
    let how = OpenHow { keep: options.flag("keep")?, ..how(&mut options)? };
    let (ready, answer) = perform(&call, &subject, options, FileRequest::Open { path, how }).await?;
    let FileReply::Opened { handle } = answer.reply else { return Err(agents::lost()) };
    let file = check(answer.descriptors, how)?;
    if handle.is_some() != how.keep {
        return Err(agents::lost());
    }
    let handle = handle.map(|handle| format!("{}-{handle}", answer.agent)).unwrap_or_default();
    Ok(ready.grant.answer((file.into(), handle)))
}

/// `Files.Commit`.
pub async fn commit(
    call: Call,
    (subject, handle, mut options): (String, String, Options),
) -> Result<Granted<()>, Denial> {
    let discard = options.flag("discard")?;
    let numbers = handle.split_once('-').and_then(|(agent, handle)| {
        Some(KeptFile { agent: agent.parse().ok()?, handle: handle.parse().ok()? })
    });
    let kept =
        numbers.ok_or_else(|| Denial::invalid("a handle is what Files.Open gave with the option keep"))?;
    let ready = ready(&call, &subject, Asked::take(options)?).await?;
    match call.daemon.files.commit(&ready.whose, kept, discard, ready.deadline).await? {
        FileReply::Done => {
            call.daemon.file_log.done(&call, &ready.whose, None);
            Ok(ready.grant.answer(()))
        }
        FileReply::Failed { errno } => Err(with_quota(&call, &ready, errno).await),
        FileReply::Denied(denial) => Err(denial),
        _ => Err(agents::lost()),
    }
}

/// `Files.Stat`.
pub async fn stat(
    call: Call,
    (subject, path, mut options): (String, Bytes, Options),
) -> Result<Granted<(Record,)>, Denial> {
    let follow = options.flag("follow")?;
    let (ready, answer) = perform(&call, &subject, options, FileRequest::Stat { path, follow }).await?;
    match answer.reply {
        FileReply::Stat(found) => Ok(ready.grant.answer((shown::stat(&found),))),
        _ => Err(agents::lost()),
    }
}

/// `Files.List`.
pub async fn list(
    call: Call,
    (subject, path, mut options): (String, Bytes, Options),
) -> Result<Granted<(Vec<Record>, bool)>, Denial> {
    let after = options.bytes("after")?.unwrap_or_default();
    let limit = options.page()?.limit;
    let limit = u32::try_from(limit).unwrap_or(u32::MAX);
    let (ready, answer) = perform(&call, &subject, options, FileRequest::List { path, after, limit }).await?;
    match answer.reply {
        FileReply::Entries { entries, more } => {
            Ok(ready.grant.answer((entries.into_iter().map(shown::entry).collect(), more)))
        }
        _ => Err(agents::lost()),
    }
}

/// `Files.MakeDirectory`.
pub async fn make_directory(
    call: Call,
    (subject, path, mut options): (String, Bytes, Options),
) -> Result<Granted<()>, Denial> {
    let request =
        FileRequest::MakeDirectory { path, mode: mode(&mut options)?, parents: options.flag("parents")? };
    done(call, subject, options, request).await
}

/// `Files.Remove`.
pub async fn remove(
    call: Call,
    (subject, path, mut options): (String, Bytes, Options),
) -> Result<Granted<()>, Denial> {
    let request = FileRequest::Remove { path, missing_ok: options.flag("missing_ok")? };
    done(call, subject, options, request).await
}

/// `Files.Rename`.
pub async fn rename(
    call: Call,
    (subject, from, to, mut options): (String, Bytes, Bytes, Options),
) -> Result<Granted<()>, Denial> {
    let how = match (options.flag("no_replace")?, options.flag("exchange")?) {
        (false, false) => RenameHow::Replace,
        (true, false) => RenameHow::NoReplace,
        (false, true) => RenameHow::Exchange,
        (true, true) => return Err(Denial::invalid("no_replace and exchange do not go together")),
    };
    done(call, subject, options, FileRequest::Rename { from, to, how }).await
}

/// `Files.Symlink`.
pub async fn symlink(
    call: Call,
    (subject, target, path, options): (String, Bytes, Bytes, Options),
) -> Result<Granted<()>, Denial> {
    done(call, subject, options, FileRequest::Symlink { target, path }).await
}

/// `Files.ReadLink`.
pub async fn read_link(
    call: Call,
    (subject, path, options): (String, Bytes, Options),
) -> Result<Granted<(Bytes,)>, Denial> {
    let (ready, answer) = perform(&call, &subject, options, FileRequest::ReadLink { path }).await?;
    match answer.reply {
        FileReply::Target(target) => Ok(ready.grant.answer((target,))),
        _ => Err(agents::lost()),
    }
}

/// `Files.Link`.
pub async fn link(
    call: Call,
    (subject, from, to, options): (String, Bytes, Bytes, Options),
) -> Result<Granted<()>, Denial> {
    done(call, subject, options, FileRequest::Link { from, to }).await
}

/// `Files.SetMode`.
pub async fn set_mode(
    call: Call,
    (subject, path, mode, options): (String, Bytes, String, Options),
) -> Result<Granted<()>, Denial> {
    let request = FileRequest::SetMode { path, mode: octal(&mode)? };
    done(call, subject, options, request).await
}

/// `Files.SetGroup`.
pub async fn set_group(
    call: Call,
    (subject, path, gid, options): (String, Bytes, u32, Options),
) -> Result<Granted<()>, Denial> {
    done(call, subject, options, FileRequest::SetGroup { path, gid }).await
}

/// `Files.SetTimes`.
pub async fn set_times(
    call: Call,
    (subject, path, mut options): (String, Bytes, Options),
) -> Result<Granted<()>, Denial> {
    let time = |micros: Option<u64>| {
        micros.map(|micros| FileTime {
            // A number of microseconds has fewer seconds than the type holds.
            seconds: i64::try_from(micros / 1_000_000).unwrap_or(i64::MAX),
            nanoseconds: u32::try_from(micros % 1_000_000).unwrap_or(0) * 1000,
        })
    };
    let request = FileRequest::SetTimes {
        path,
        accessed: time(options.moment("accessed")?),
        modified: time(options.moment("modified")?),
    };
    done(call, subject, options, request).await
}

/// `Files.GetAcl`.
pub async fn get_acl(
    call: Call,
    (subject, path, mut options): (String, Bytes, Options),
) -> Result<Granted<(String,)>, Denial> {
    let request = FileRequest::GetAcl { path, default: options.flag("default")? };
    let (ready, answer) = perform(&call, &subject, options, request).await?;
    match answer.reply {
        FileReply::Acl(acl) => {
            Ok(ready.grant.answer((acl.as_ref().map(Acl::to_string).unwrap_or_default(),)))
        }
        _ => Err(agents::lost()),
    }
}

/// `Files.SetAcl`.
pub async fn set_acl(
    call: Call,
    (subject, path, acl, mut options): (String, Bytes, String, Options),
) -> Result<Granted<()>, Denial> {
    let acl: Option<Acl> = if acl.is_empty() { None } else { Some(parse("acl", &acl)?) };
    let request = FileRequest::SetAcl { path, default: options.flag("default")?, acl };
    done(call, subject, options, request).await
}

/// `Files.Quota`.
pub async fn quotas(
    call: Call,
    (subject, options): (String, Options),
) -> Result<Granted<(Vec<Record>,)>, Denial> {
    let ready = ready(&call, &subject, Asked::take(options)?).await?;
    let told = quota::places(&call.daemon, &ready.whose, b"", ready.deadline).await;
    let told = match told {
        Ok(told) => told,
        Err(denial) => {
            note_loss(&call, &ready, &denial).await;
            return Err(denial);
        }
    };
    crate::alerts::observe(&call.daemon, &ready.whose, &told).await;
    let os_user = ready.whose.os.name.clone();
    Ok(ready.grant.answer((told.into_iter().map(|told| shown::place(told, &os_user)).collect(),)))
}

/// Begins something long; the pipe has its lines.
async fn begin(
    call: Call,
    subject: String,
    options: Options,
    request: FileRequest,
) -> Result<Granted<(OwnedFd,)>, Denial> {
    let ready = ready(&call, &subject, Asked::take(options)?).await?;
    let (reader, writer) = agents::pipe()?;
    let daemon = &call.daemon;
    let change = record::change(&request);
    daemon.files.begin(&daemon.launcher, &ready.whose, &request, writer.as_fd(), ready.deadline).await?;
    daemon.file_log.done(&call, &ready.whose, change);
    Ok(ready.grant.answer((reader.into(),)))
}

/// `Files.ListStream`.
pub async fn list_stream(
    call: Call,
    (subject, path, options): (String, Bytes, Options),
) -> Result<Granted<(OwnedFd,)>, Denial> {
    begin(call, subject, options, FileRequest::ListStream { path }).await
}

/// `Files.RemoveTree`.
pub async fn remove_tree(
    call: Call,
    (subject, path, mut options): (String, Bytes, Options),
) -> Result<Granted<(OwnedFd,)>, Denial> {
    let request = FileRequest::RemoveTree { path, missing_ok: options.flag("missing_ok")? };
    begin(call, subject, options, request).await
}

/// `Files.DiskUsage`.
pub async fn disk_usage(
    call: Call,
    (subject, path, options): (String, Bytes, Options),
) -> Result<Granted<(OwnedFd,)>, Denial> {
    begin(call, subject, options, FileRequest::DiskUsage { path }).await
}

/// `Files.CopyTree`.
pub async fn copy_tree(
    call: Call,
    (subject, from, to, mut options): (String, Bytes, Bytes, Options),
) -> Result<Granted<(OwnedFd,)>, Denial> {
    let request = FileRequest::CopyTree { from, to, resume: options.flag("resume")? };
    begin(call, subject, options, request).await
}
