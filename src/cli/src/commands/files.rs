//! `file` and `quota`.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::ExitCode;

use deputy_core::denial::Code;
use deputy_core::quota::human_bytes;
use serde_json::Value;
use zbus::Variant;

use super::{Context, block_on, record_of};
use crate::bus::{Bus, CallOptions};
use crate::escape;
use crate::failure::Failure;
use crate::options::{FileCommand, FileSubject};
use crate::output;
use crate::value::{self, Dictionary, Record};

/// The entries of one page.
const PAGE: u32 = 1000;

/// Bytes that are copied at once.
const CHUNK: usize = 1024 * 1024;

const ENTRY: [&str; 6] = ["mode", "uid", "gid", "size", "modified", "name"];
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
const PLACE: [&str; 6] = ["path", "size", "free", "files_free", "writable", "quotas"];
const QUOTA: [&str; 9] = [
    "path",
    "whose",
    "space_used",
    "space_soft",
    "space_hard",
    "files_used",
    "files_soft",
    "files_hard",
    "use",
];

/// `file`.
pub fn file(context: &Context, command: FileCommand) -> Result<ExitCode, Failure> {
    block_on(async {
        let bus = Bus::connect().await?;
        match command {
            FileCommand::Ls { subject, path } => list(context, &Caller::new(bus, subject), &path).await?,
            FileCommand::Cat { subject, path } => {
                let mut file = Caller::new(bus, subject).open(&path, &[]).await?.0;
                copy(&mut file, &mut io::stdout().lock(), &mut Progress::none())?;
            }
            FileCommand::Get { subject, path, local } => {
                get(&Caller::new(bus, subject), &path, &local).await?;
            }
            FileCommand::Put { subject, local, path, mode, no_replace } => {
                put(&Caller::new(bus, subject), &local, &path, mode, no_replace).await?;
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

/// `quota`.
pub fn quota(context: &Context, subject: FileSubject) -> Result<ExitCode, Failure> {
    block_on(async {
        let places = Caller::new(Bus::connect().await?, subject).places().await?;
        let mut records = Vec::new();
        for place in value::records(&places) {
            let quotas = place.get("quotas").and_then(Value::as_array).cloned().unwrap_or_default();
            for quota in quotas {
                let Value::Object(mut record) = quota else { continue };
                record.insert("path".into(), place.get("path").cloned().unwrap_or_default());
                if !context.json {
                    shown_quota(&mut record);
                }
                records.push(record);
            }
        }
        context.output.records(&records, &QUOTA)?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Bytes as people read them, and a bar.
fn shown_quota(record: &mut Record) {
    let number = |record: &Record, name: &str| record.get(name).and_then(Value::as_u64);
    if let (Some(used), Some(limit)) =
        (number(record, "space_used"), number(record, "space_hard").or_else(|| number(record, "space_soft")))
    {
        record.insert("use".into(), bar(used, limit).into());
    }
    for name in ["space_used", "space_soft", "space_hard"] {
        if let Some(bytes) = number(record, name) {
            record.insert(name.into(), human_bytes(bytes).into());
        }
    }
}

/// How full something is, in ten steps.
fn bar(used: u64, limit: u64) -> String {
    let percent = u128::from(used) * 100 / u128::from(limit.max(1));
    let full = usize::try_from(percent / 10).unwrap_or(10).min(10);
    format!("[{}{}] {percent} %", "#".repeat(full), ".".repeat(10 - full))
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
                "failed" => {
                    let errno =
                        line.get("errno").and_then(Value::as_i64).and_then(|errno| i32::try_from(errno).ok());
                    let why = io::Error::from_raw_os_error(errno.unwrap_or_default());
                    let name = escape::text(&text("name"));
                    return Err(Failure::new(Code::FileError, format!("{name}: {why}")));
                }
                "denied" => {
                    return Err(Failure::new(Code::NoConsent, escape::text(&text("message")))
                        .remedy("try again: consent and policy are read anew"));
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
        Err(Failure::new(Code::FileAgentLost, "the file agent ended before the work was done")
            .remedy("look what is there, and try again"))
    }
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

async fn list(context: &Context, caller: &Caller, path: &OsStr) -> Result<(), Failure> {
    let mut printed = context.output.list(&ENTRY);
    let mut after: Vec<u8> = Vec::new();
    loop {
        let options = caller.options(vec![("limit", PAGE.into()), ("after", after.clone().into())]);
        let body = (caller.name(), path.as_bytes(), options);
        let (page, more): (Vec<Dictionary>, bool) = caller.bus.call("Files", "List", &body).await?;
        let last = page.last().and_then(|entry| entry.get("name")).and_then(|name| name.try_clone().ok());
        let records: Vec<Record> =
            value::records(&page).into_iter().map(|record| with_octal_mode(context, record)).collect();
        printed.page(&records)?;
        match last.and_then(|name| Vec::<u8>::try_from(Variant::from(name)).ok()) {
            Some(name) if more && name > after => after = name,
            _ => break,
        }
    }
    printed.end()
}

/// The name beside a file, under which it comes into being.
fn beside(path: &OsStr) -> OsString {
    let mut name = path.to_owned();
    name.push(format!(".{}.part", std::process::id()));
    name
}

async fn get(caller: &Caller, path: &OsStr, local: &OsStr) -> Result<(), Failure> {
    let mut file = caller.open(path, &[]).await?.0;
    let size = file.metadata()?.len();
    let part = beside(local);
    let copied = || -> Result<(), Failure> {
        let mut here = File::create_new(&part)?;
        copy(&mut file, &mut here, &mut Progress::new(Some(size)))?;
        here.sync_all()?;
        Ok(std::fs::rename(&part, local)?)
    }();
    if copied.is_err() {
        // Nothing is left by half; that it could not be made is told already.
        let _ = std::fs::remove_file(&part);
    }
    copied
}

/// Writes beside, looks at the length, has it on the disk, and renames.
async fn put(
    caller: &Caller,
    local: &OsStr,
    path: &OsStr,
    mode: Option<String>,
    no_replace: bool,
) -> Result<(), Failure> {
    let mut here: Box<dyn Read> =
        if local == "-" { Box::new(io::stdin().lock()) } else { Box::new(File::open(local)?) };
    let size = if local == "-" { None } else { Some(Path::new(local).metadata()?.len()) };
    let part = beside(path);
    let mut flags: Vec<(&str, Variant<'static>)> =
        ["write", "create", "exclusive", "keep"].map(|flag| (flag, true.into())).into();
    flags.extend(mode.map(|mode| ("mode", mode.into())));
    let (mut file, handle) = caller.open_with(&part, flags).await?;
    let written = async {
        let count = copy(&mut here, &mut file, &mut Progress::new(size))?;
        if file.metadata()?.len() != count {
            return Err(Failure::new(Code::FileError, "the file is not as long as what was written"));
        }
        let body = (caller.name(), handle.as_str(), caller.options(Vec::new()));
        caller.bus.call::<_, ()>("Files", "Commit", &body).await?;
        let options = caller.options(vec![("no_replace", no_replace.into())]);
        let body = (caller.name(), part.as_bytes(), path.as_bytes(), options);
        caller.bus.call::<_, ()>("Files", "Rename", &body).await
    }
    .await;
    if written.is_err() {
        // What went wrong counts, and not that this did too.
        let _ = caller.on("Remove", &part, vec![("missing_ok", true.into())]).await;
    }
    written
}

/// Copies all, and tells how far it is.
fn copy(from: &mut dyn Read, to: &mut dyn Write, progress: &mut Progress) -> Result<u64, Failure> {
    let (mut buffer, mut copied) = (vec![0; CHUNK], 0);
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        to.write_all(&buffer[..count])?;
        copied += count as u64;
        progress.show(copied);
    }
    to.flush()?;
    progress.end();
    Ok(copied)
}

/// How far something is, on a terminal's standard error.
struct Progress {
    shown: bool,
    of: Option<u64>,
    latest: u64,
}

impl Progress {
    fn new(of: Option<u64>) -> Self {
        Self { shown: io::stderr().is_terminal(), of, latest: 0 }
    }

    fn none() -> Self {
        Self { shown: false, of: None, latest: 0 }
    }

    fn show(&mut self, now: u64) {
        // Not more often than can be seen.
        let step = self.of.map_or(CHUNK as u64, |of| (of / 100).max(CHUNK as u64));
        if !self.shown || now < self.latest + step && self.latest != 0 {
            return;
        }
        self.latest = now;
        let words = match self.of {
            Some(of) => format!("{} of {}", human_bytes(now), human_bytes(of)),
            None => now.to_string(),
        };
        // A terminal that takes nothing is no reason to stop.
        let _ = write!(io::stderr(), "\r\x1b[K{words}");
    }

    fn end(&self) {
        if self.shown && self.latest != 0 {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_full_as_what_it_shows_and_never_longer() {
        assert_eq!(bar(0, 100), "[..........] 0 %");
        assert_eq!(bar(55, 100), "[#####.....] 55 %");
        assert_eq!(bar(300, 100), "[##########] 300 %");
        assert_eq!(bar(u64::MAX, u64::MAX), "[##########] 100 %");
        assert_eq!(bar(1, 0), "[##########] 100 %");
    }
}
