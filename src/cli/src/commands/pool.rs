//! The pool: leases by `deputyd`, everything else by root over the launcher's socket.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use deputy_core::Code;
use deputy_core::message::{LauncherReply, LauncherRequest, MAX_IMPORT, Returned};
use deputy_core::pool::PoolRecord;
use deputy_core::project_group::GroupRecord;

use super::accounts::options as call_options;
use super::{Context, block_on, pool_file, record_of};
use crate::bus::Bus;
use crate::escape;
use crate::failure::Failure;
use crate::launcher::{self, is_root, needs_root, unexpected};
use crate::options::{ByOption, PoolCommand, PoolFormat, PoolTarget};
use crate::value::Record;

const LEASE: [&str; 8] = ["application", "account", "os_user", "uid", "gid", "state", "since", "home"];

const GROUP: [&str; 6] = ["group", "gid", "application", "project", "members", "since"];

/// `pool`.
pub fn pool(context: &Context, command: PoolCommand) -> Result<ExitCode, Failure> {
    match command {
        PoolCommand::Lease { target, relink, by } => block_on(lease(context, &target, relink, &by)),
        _ if !is_root() => Err(needs_root("see and change the pool's leases")),
        PoolCommand::List => list(context),
        PoolCommand::Groups => list_groups(context),
        PoolCommand::Return { target } => give_back(context, target),
        PoolCommand::Export { format, base } => export(format, &base),
        PoolCommand::Import { file } => import(context, &file),
    }
}

async fn lease(
    context: &Context,
    target: &PoolTarget,
    relink: bool,
    by: &ByOption,
) -> Result<ExitCode, Failure> {
    let PoolTarget { application, account } = target;
    let mut asked = call_options(application.as_str(), by);
    asked.insert("pool", true.into());
    asked.insert("relink", relink.into());
    let call = (account.as_str(), "", asked);
    let (state, _): (String, String) = Bus::connect().await?.call("Links", "Request", &call).await?;
    let sentence = format!("{account} of {application} has an OS account of the pool; the link is {state}");
    let record =
        record_of([("application", application.as_str()), ("account", account.as_str()), ("state", &state)]);
    context.output.done(&escape::text(&sentence), &record)?;
    Ok(ExitCode::SUCCESS)
}

/// All records, a page at a time.
fn records() -> Result<Vec<PoolRecord>, Failure> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let LauncherReply::Pool(page) = launcher::ask(&LauncherRequest::ListPool { after })? else {
            return Err(unexpected());
        };
        all.extend(page.records);
        after = page.next;
        if after.is_none() {
            return Ok(all);
        }
    }
}

fn list(context: &Context) -> Result<ExitCode, Failure> {
    let mut printed = context.output.list(&LEASE);
    printed.page(&records()?.iter().map(record).collect::<Vec<_>>())?;
    printed.end()?;
    Ok(ExitCode::SUCCESS)
}

/// All groups of projects, a page at a time.
fn groups() -> Result<Vec<GroupRecord>, Failure> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let LauncherReply::Groups(page) = launcher::ask(&LauncherRequest::ListGroups { after })? else {
            return Err(unexpected());
        };
        all.extend(page.groups);
        after = page.next;
        if after.is_none() {
            return Ok(all);
        }
    }
}

fn list_groups(context: &Context) -> Result<ExitCode, Failure> {
    let shown = |group: &GroupRecord| {
        let members: Vec<&str> = group.members.iter().map(|one| one.os_account.name.as_str()).collect();
        let mut record = record_of([
            ("group", group.name.as_str()),
            ("application", group.application.as_str()),
            ("project", group.project.to_string().as_str()),
            ("members", members.join(",").as_str()),
        ]);
        record.insert("gid".into(), group.gid.raw().into());
        record.insert("since".into(), group.since.saturating_mul(1_000_000).into());
        record
    };
    let mut printed = context.output.list(&GROUP);
    printed.page(&groups()?.iter().map(shown).collect::<Vec<_>>())?;
    printed.end()?;
    Ok(ExitCode::SUCCESS)
}

fn give_back(context: &Context, target: PoolTarget) -> Result<ExitCode, Failure> {
    let PoolTarget { application, account } = target;
    let request = LauncherRequest::ReturnPool { application, account };
    let LauncherReply::Returned(Returned { record: lease, left, more }) = launcher::ask(&request)? else {
        return Err(unexpected());
    };
    if left.is_empty() {
        let sentence = format!("{} is {}", lease.os_account, lease.state);
        context.output.done(&escape::text(&sentence), &record(&lease))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut message = format!("{} stays {}, because something of it is left:", lease.os_account, lease.state);
    for one in &left {
        message.push_str("\n  ");
        message.push_str(&escape::text(&one.to_string()));
    }
    if more {
        message.push_str("\n  and more");
    }
    Err(Failure::new(Code::NotEmpty, message).remedy("end, move or remove what is listed, then ask again"))
}

/// A lease with the field names and the times of the D-Bus dictionaries.
fn record(lease: &PoolRecord) -> Record {
    let mut record = record_of([
        ("application", lease.application.as_str()),
        ("account", lease.account.as_str()),
        ("os_user", lease.os_account.name.as_str()),
        ("state", lease.state.as_str()),
        ("home", &lease.home),
    ]);
    record.insert("uid".into(), lease.os_account.uid.raw().into());
    record.insert("gid".into(), lease.os_account.gid.raw().into());
    record.insert("since".into(), lease.since.saturating_mul(1_000_000).into());
    record
}

fn export(format: PoolFormat, base: &str) -> Result<ExitCode, Failure> {
    let text = pool_file::write(records()?, groups()?, format, base)
        .map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn import(context: &Context, file: &Path) -> Result<ExitCode, Failure> {
    let bad = |error: String| {
        Failure::new(Code::InvalidArgument, format!("{}: {error}", file.display()))
            .remedy("give what 'deputyctl pool export' printed, as it was printed")
    };
    let text = fs::read_to_string(file).map_err(|error| bad(error.to_string()))?;
    let (leases, groups) = pool_file::parse(&text).map_err(|error| bad(error.to_string()))?;
    if leases.is_empty() && groups.is_empty() {
        return Err(bad("there is no lease and no group in it".into()));
    }
    let leases = leases
        .chunks(MAX_IMPORT)
        .map(|part| (part.len(), LauncherRequest::ImportPool { records: part.to_vec() }));
    let groups = groups
        .chunks(MAX_IMPORT)
        .map(|part| (part.len(), LauncherRequest::ImportGroups { groups: part.to_vec() }));
    let mut done = 0;
    for (count, request) in leases.chain(groups) {
        match launcher::ask(&request) {
            Ok(LauncherReply::Done) => done += count,
            Ok(_) => return Err(unexpected()),
            Err(failure) => {
                crate::output::note(&format!("{done} leases and groups were imported before this:"))?;
                return Err(failure);
            }
        }
    }
    let mut record = Record::new();
    record.insert("imported".into(), done.into());
    context.output.done(&format!("{done} leases and groups are here as well"), &record)?;
    Ok(ExitCode::SUCCESS)
}
