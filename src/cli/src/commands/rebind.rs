//! `rebind`: by root, over the launcher's socket.

use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::process::ExitCode;

use deputy_core::byte_text::byte_text;
use deputy_core::message::{LauncherReply, LauncherRequest, RebindReply, RebindRequest};
use deputy_core::quota::human_bytes;
use deputy_core::rebind::{Problem, RebindEnd, RebindPlan, RebindState, Share};
use serde_json::{Value, json};

use super::Context;
use crate::confirm::confirm;
use crate::escape;
use crate::failure::Failure;
use crate::launcher::{self, is_root, needs_root, unexpected};
use crate::options::{CarryOptions, RebindCommand, RebindPlanOptions};
use crate::output;
use crate::value::Record;

const LISTED: [&str; 7] = ["id", "state", "path", "from", "to", "files", "made"];
const SHOWN: [&str; 15] = [
    "id",
    "state",
    "done",
    "entries",
    "path",
    "from",
    "to",
    "to_uid",
    "groups",
    "files",
    "bytes",
    "made",
    "owners",
    "os_groups",
    "problems",
];
const ENDED: [&str; 4] = ["moved", "already", "left", "problems"];

/// `rebind`.
pub fn rebind(context: &Context, command: RebindCommand) -> Result<ExitCode, Failure> {
    if !is_root() {
        return Err(needs_root("move trees to other OS accounts"));
    }
    match command {
        RebindCommand::Plan(options) => plan(context, options),
        RebindCommand::Apply(options) => carry(context, options, true),
        RebindCommand::Undo(options) => carry(context, options, false),
        RebindCommand::List => list(context),
        RebindCommand::Show { id } => {
            let (found, heard) = ask(context, RebindRequest::Show { id })?;
            let RebindReply::Found { plan, state, done } = found else { return Err(unexpected()) };
            show(context, &plan, state, done, heard)
        }
        RebindCommand::Forget { id } => {
            confirm(
                context.yes,
                &format!("Remove the records of {id}? What was applied cannot be undone then."),
            )?;
            let sentence = format!("{id} is forgotten");
            let record = Record::from_iter([("id".to_owned(), id.as_str().into())]);
            ask(context, RebindRequest::Forget { id })?;
            context.output.done(&sentence, &record)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Asks, and tells a terminal how far the work is. Problems are told as they come, or kept for JSON.
fn ask(context: &Context, request: RebindRequest) -> Result<(RebindReply, Vec<Value>), Failure> {
    let mut heard = Vec::new();
    let mut last = None;
    let mut progress = Progress::new();
    launcher::follow(&LauncherRequest::Rebind(request), |reply| {
        let LauncherReply::Rebind(reply) = reply else { return Err(unexpected()) };
        match reply {
            RebindReply::Progress { done, of } => progress.show(done, of),
            RebindReply::Problems(problems) => {
                progress.clear();
                for problem in problems {
                    if context.json {
                        heard.push(json_of(&problem));
                    } else {
                        output::note(&line_of(&problem))?;
                    }
                }
            }
            reply => {
                last = Some(reply);
                return Ok(true);
            }
        }
        Ok(false)
    })?;
    progress.clear();
    last.map(|last| (last, heard)).ok_or_else(unexpected)
}

fn plan(context: &Context, options: RebindPlanOptions) -> Result<ExitCode, Failure> {
    let RebindPlanOptions { path, from, to, group, leave_linked } = options;
    let path = path.as_os_str().as_bytes().to_vec();
    let (planned, heard) = ask(context, RebindRequest::Plan { path, from, to, groups: group, leave_linked })?;
    let RebindReply::Planned(plan) = planned else { return Err(unexpected()) };
    show(context, &plan, RebindState::Planned, 0, heard)
}

fn carry(context: &Context, options: CarryOptions, there: bool) -> Result<ExitCode, Failure> {
    let CarryOptions { id, while_running } = options;
    let question = if there {
        format!("Carry out {id}? The files that it lists get another owner.")
    } else {
        format!("Undo {id}? The files that it lists get their first owners back.")
    };
    confirm(context.yes, &question)?;
    let request = if there {
        RebindRequest::Apply { id, while_running }
    } else {
        RebindRequest::Undo { id, while_running }
    };
    let (ended, heard) = ask(context, request)?;
    let RebindReply::Ended(RebindEnd { changed, already, left }) = ended else { return Err(unexpected()) };
    let mut record = Record::new();
    for (name, value) in [("moved", changed), ("already", already), ("left", left)] {
        record.insert(name.into(), value.into());
    }
    if context.json {
        record.insert("problems".into(), heard.into());
    }
    context.output.record(&record, &ENDED)?;
    Ok(if left == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn list(context: &Context) -> Result<ExitCode, Failure> {
    let mut printed = context.output.list(&LISTED);
    let mut plans = Vec::new();
    launcher::follow(&LauncherRequest::Rebind(RebindRequest::List), |reply| match reply {
        LauncherReply::Rebind(RebindReply::Found { plan, state, .. }) => {
            plans.push(listed(&plan, state));
            Ok(false)
        }
        LauncherReply::Rebind(RebindReply::Done) => Ok(true),
        _ => Err(unexpected()),
    })?;
    printed.page(&plans)?;
    printed.end()?;
    Ok(ExitCode::SUCCESS)
}

fn show(
    context: &Context,
    plan: &RebindPlan,
    state: RebindState,
    done: u64,
    heard: Vec<Value>,
) -> Result<ExitCode, Failure> {
    let mut record = listed(plan, state);
    let groups = plan.groups.iter().map(|group| format!("{}={}", group.old, group.new));
    record.insert("groups".into(), groups.collect::<Vec<_>>().into());
    record.insert("to_uid".into(), plan.to.uid.raw().into());
    record.insert("entries".into(), plan.entries.into());
    record.insert("done".into(), done.into());
    record.insert("owners".into(), shares(context, &plan.owners));
    record.insert("os_groups".into(), shares(context, &plan.os_groups));
    record.insert("bytes".into(), amount(context, plan.moved.bytes));
    record.insert("problems".into(), if context.json { heard.into() } else { plan.problems.into() });
    context.output.record(&record, &SHOWN)?;
    Ok(ExitCode::SUCCESS)
}

fn listed(plan: &RebindPlan, state: RebindState) -> Record {
    let from: Vec<String> = plan
        .from
        .iter()
        .map(|source| source.name.as_ref().map_or_else(|| source.uid.to_string(), ToString::to_string))
        .collect();
    let record = json!({
        "id": plan.id.as_str(),
        "state": state.as_str(),
        "path": plan.path,
        "from": from,
        "to": plan.to.name.as_str(),
        "files": plan.moved.files,
        "made": plan.made.saturating_mul(1_000_000),
    });
    if let Value::Object(record) = record { record } else { Record::new() }
}

fn amount(context: &Context, bytes: u64) -> Value {
    if context.json { bytes.into() } else { human_bytes(bytes).into() }
}

fn shares(context: &Context, shares: &[Share]) -> Value {
    if context.json {
        return shares
            .iter()
            .map(|share| json!({"id": share.id, "files": share.files, "bytes": share.bytes}))
            .collect();
    }
    let words = |share: &Share| format!("{}: {} files, {}", share.id, share.files, human_bytes(share.bytes));
    shares.iter().map(words).collect::<Vec<_>>().into()
}

fn json_of(problem: &Problem) -> Value {
    json!({
        "kind": problem.kind.as_str(),
        "path": byte_text(&problem.path),
        "detail": problem.detail,
        "in_the_way": problem.in_the_way,
    })
}

fn line_of(problem: &Problem) -> String {
    let Problem { kind, path, detail, in_the_way } = problem;
    let path = escape::text(&byte_text(path));
    let before = if *in_the_way { "in the way: " } else { "" };
    let behind = if detail.is_empty() { String::new() } else { format!(" ({})", escape::text(detail)) };
    format!("{before}{}: ./{path}{behind}", kind.as_str())
}

/// How far the work is, on a terminal.
struct Progress {
    shown: bool,
    terminal: bool,
}

impl Progress {
    fn new() -> Self {
        Self { shown: false, terminal: io::stderr().is_terminal() }
    }

    fn show(&mut self, done: u64, of: Option<u64>) {
        if self.terminal {
            let of = of.map_or_else(String::new, |of| format!(" of {of}"));
            // It is a courtesy; what counts is told at the end.
            let _ = write!(io::stderr().lock(), "\r{done}{of} entries\x1b[K");
            self.shown = true;
        }
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}
