//! `file`, `quota` and `alert`.

mod list;
mod progress;
mod quota;
mod transfer;

pub use quota::{alert, bar, quota};

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::process::ExitCode;

use deputy_core::denial::Code;
use deputy_core::quota::human_bytes;
use serde_json::Value;
use zbus::Variant;

use self::progress::Progress;
use super::{Context, block_on, record_of};
use crate::bus::{Bus, CallOptions};
use crate::escape;
use crate::failure::Failure;
use crate::options::{FileCommand, FileSubject};
use crate::output;
use crate::value::{self, Dictionary, Record};

const STAT: [&str; 12] = [
    "kind",
    "mode",
    "uid",
    "gid",
    "size",
    "allocated",
    "links",
    "inode",
    "device",
    "modified",
    "changed",
    "accessed",
];
const PLACE: [&str; 7] = ["path", "filesystem", "size", "free", "files_free", "writable", "quotas"];
/// `file`.
pub fn file(context: &Context, command: FileCommand) -> Result<ExitCode, Failure> {
    block_on(async {
        let bus = Bus::connect().await?;
        match command {
            FileCommand::Ls { subject, path } => {
                list::list(context, &Caller::new(bus, subject), &path).await?;
            }
            FileCommand::Cat { subject, path } => {
                let mut file = Caller::new(bus, subject).open(&path, &[]).await?.0;
                transfer::copy(&mut file, &mut io::stdout().lock(), &mut Progress::none())?;
            }
            FileCommand::Get { subject, path, local } => {
                transfer::get(&Caller::new(bus, subject), &path, &local).await?;
            }
            FileCommand::Put { subject, local, path, mode, no_replace } => {
                transfer::put(&Caller::new(bus, subject), &local, &path, mode, no_replace).await?;
            }
            FileCommand::Mkdir { subject, path, parents, mode } => {
                let mut more = vec![("parents", parents.into())];
                more.extend(mode.map(|mode| ("mode", mode.into())));
                Caller::new(bus, subject).on("MakeDirectory", &path, more).await?;
            }
            FileCommand::Rm { subject, path, recursive, force } => {
                let (caller, more) = (Caller::new(bus, subject), vec![("missing_ok", force.into())]);
                if recursive {
                    let body = (caller.name(), path.as_bytes(), caller.options(more));
                    caller.long(context, "RemoveTree", &body).await?;
                } else {
                    caller.on("Remove", &path, more).await?;
                }
            }
            FileCommand::Mv { subject, from, to, no_replace, exchange } => {
                let caller = Caller::new(bus, subject);
                let more = vec![("no_replace", no_replace.into()), ("exchange", exchange.into())];
                let body = (caller.name(), from.as_bytes(), to.as_bytes(), caller.options(more));
                caller.bus.call::<_, ()>("Files", "Rename", &body).await?;
            }
            FileCommand::Cp { subject, from, to, resume } => {
                let caller = Caller::new(bus, subject);
                let options = caller.options(vec![("resume", resume.into())]);
                let body = (caller.name(), from.as_bytes(), to.as_bytes(), options);
                caller.long(context, "CopyTree", &body).await?;
            }
            FileCommand::Chmod { subject, mode, path } => {
                let caller = Caller::new(bus, subject);
                let body = (caller.name(), path.as_bytes(), mode.as_str(), caller.options(Vec::new()));
                caller.bus.call::<_, ()>("Files", "SetMode", &body).await?;
            }
            FileCommand::Acl { subject, path, default, set } => {
                let caller = Caller::new(bus, subject);
                let options = caller.options(vec![("default", default.into())]);
                if let Some(acl) = set {
                    let body = (caller.name(), path.as_bytes(), acl.as_str(), options);
                    caller.bus.call::<_, ()>("Files", "SetAcl", &body).await?;
                } else {
                    let body = (caller.name(), path.as_bytes(), options);
                    let (acl,): (String,) = caller.bus.call("Files", "GetAcl", &body).await?;
                    context.output.done(&acl.replace(',', "\n"), &record_of([("acl", acl.as_str())]))?;
                }
            }
            FileCommand::Du { subject, path } => {
                let caller = Caller::new(bus, subject);
                let body = (caller.name(), path.as_bytes(), caller.options(Vec::new()));
                caller.long(context, "DiskUsage", &body).await?;
            }
            FileCommand::Df { subject } => {
                let places = Caller::new(bus, subject).places().await?;
                context.output.records(&value::records(&places), &PLACE)?;
            }
            FileCommand::Stat { subject, path, follow } => {
                let caller = Caller::new(bus, subject);
                let body = (caller.name(), path.as_bytes(), caller.options(vec![("follow", follow.into())]));
                let found: Dictionary = caller.bus.call("Files", "Stat", &body).await?;
                context.output.record(&with_octal_mode(context, value::record(&found)), &STAT)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// A subject and a connection.
struct Caller {
    bus: Bus,
    subject: FileSubject,
}

impl Caller {
    fn new(bus: Bus, subject: FileSubject) -> Self {
        Self { bus, subject }
    }

    fn name(&self) -> &str {
        self.subject.account.as_deref().unwrap_or_default()
    }

    /// What every call says, and more. A flag that is not set says nothing.
    fn options(&self, more: Vec<(&'static str, Variant<'static>)>) -> CallOptions<'static> {
        let mut options: CallOptions<'static> =
            more.into_iter().filter(|(_, value)| *value != Variant::from(false)).collect();
        if let Some(app) = &self.subject.app {
            options.insert("application", app.to_string().into());
        }
        if let Some(project) = &self.subject.project {
            options.insert("project", project.clone().into());
        }
        if let Some(deadline) = self.subject.deadline {
            options.insert("deadline_seconds", deadline.into());
        }
        options
    }

    async fn on(
        &self,
        method: &str,
        path: &OsStr,
        more: Vec<(&'static str, Variant<'static>)>,
    ) -> Result<(), Failure> {
        self.bus.call("Files", method, &(self.name(), path.as_bytes(), self.options(more))).await
    }

    async fn open(&self, path: &OsStr, flags: &[&'static str]) -> Result<(File, String), Failure> {
        self.open_with(path, flags.iter().map(|flag| (*flag, true.into())).collect()).await
    }

    async fn open_with(
        &self,
        path: &OsStr,
        more: Vec<(&'static str, Variant<'static>)>,
    ) -> Result<(File, String), Failure> {
        let body = (self.name(), path.as_bytes(), self.options(more));
        let (file, handle): (zbus::OwnedFd, String) = self.bus.call("Files", "Open", &body).await?;
        Ok((OwnedFd::from(file).into(), handle))
    }

    async fn places(&self) -> Result<Vec<Dictionary>, Failure> {
        self.bus.call("Files", "Quota", &(self.name(), self.options(Vec::new()))).await
    }

    /// A failed write, with how much room there is where that is why.
    async fn with_room(&self, error: &io::Error) -> Failure {
        let mut words = error.to_string();
        let full = [io::ErrorKind::QuotaExceeded, io::ErrorKind::StorageFull].contains(&error.kind());
        // That the quota could not be asked for is not what went wrong.
        if full && let Ok(places) = self.places().await {
            words.push_str(&quota::room(&value::records(&places)));
        }
        Failure::new(Code::FileError, words)
    }

    /// Something long: how far it is goes to a terminal's standard error, the result to standard output.
    async fn long<B>(&self, context: &Context, method: &str, body: &B) -> Result<(), Failure>
    where
        B: serde::Serialize + zbus::DynamicType,
    {
        let pipe: zbus::OwnedFd = self.bus.call("Files", method, body).await?;
        let mut progress = Progress::new(None);
        for line in BufReader::new(File::from(OwnedFd::from(pipe))).lines() {
            let line: Record = serde_json::from_str(&line?)
                .map_err(|error| Failure::new(Code::Internal, format!("a line of the work: {error}")))?;
            let text = |name: &str| line.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            match text("result").as_str() {
                "done" => {
                    progress.end();
                    let bytes = line.get("bytes").and_then(Value::as_u64).unwrap_or_default();
                    let words = format!("{} things, {}", line["done"], human_bytes(bytes));
                    return context.output.done(&words, &line);
                }
                "failed" | "denied" => {
                    progress.end();
                    return Err(broken_off(&line));
                }
                _ if line.contains_key("left_out") => {
                    output::note(&format!(
                        "left out: {} ({})",
                        escape::text(&text("left_out")),
                        text("kind")
                    ))?;
                }
                _ => progress.show(line.get("done").and_then(Value::as_u64).unwrap_or_default()),
            }
        }
        Err(ended_early())
    }
}

/// Why something long ended without having been done, by its last line.
fn broken_off(last: &Record) -> Failure {
    let text = |name: &str| last.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    if text("result") == "denied" {
        return Failure::new(Code::NoConsent, text("message"))
            .remedy("try again: consent and policy are read anew");
    }
    let errno = last.get("errno").and_then(Value::as_i64).and_then(|errno| i32::try_from(errno).ok());
    let why = io::Error::from_raw_os_error(errno.unwrap_or_default());
    Failure::new(Code::FileError, format!("{}: {why}{}", text("name"), text("room")))
}

fn ended_early() -> Failure {
    Failure::new(Code::FileAgentLost, "the file agent ended before the work was done")
        .remedy("look what is there, and try again")
}

/// Modes as people write them; JSON has the number.
fn with_octal_mode(context: &Context, mut record: Record) -> Record {
    if !context.json
        && let Some(mode) = record.get("mode").and_then(Value::as_u64)
    {
        record.insert("mode".into(), format!("{mode:04o}").into());
    }
    record
}
