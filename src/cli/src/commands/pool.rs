//! The pool: leases by `deputyd`, everything else by root over the launcher's socket.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use deputy_core::ids::{OsGid, OsUid};
use deputy_core::job::OsIdentity;
use deputy_core::message::{LauncherReply, LauncherRequest, MAX_IMPORT, Returned};
use deputy_core::pool::{PoolRecord, PoolState};
use deputy_core::{AccountName, ApplicationName, Code, OsUserName};
use serde::{Deserialize, Serialize};

use super::accounts::options as call_options;
use super::{Context, block_on, record_of};
use crate::bus::Bus;
use crate::escape;
use crate::failure::Failure;
use crate::launcher::{self, is_root, needs_root, unexpected};
use crate::options::{ByOption, PoolCommand, PoolFormat, PoolTarget};
use crate::value::Record;

const LEASE: [&str; 8] = ["application", "account", "os_user", "uid", "gid", "state", "since", "home"];

/// What marks the line of an LDIF entry that has the whole lease.
const MARK: &str = "description: deputy-pool ";

/// `pool`.
pub fn pool(context: &Context, command: PoolCommand) -> Result<ExitCode, Failure> {
    match command {
        PoolCommand::Lease { target, relink, by } => block_on(lease(context, &target, relink, &by)),
        _ if !is_root() => Err(needs_root("see and change the pool's leases")),
        PoolCommand::List => list(context),
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

/// A lease in a file.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exported {
    application: ApplicationName,
    account: AccountName,
    os_user: OsUserName,
    uid: OsUid,
    gid: OsGid,
    home: String,
    state: PoolState,
    /// Microseconds since 1970.
    since: u64,
}

impl From<PoolRecord> for Exported {
    fn from(record: PoolRecord) -> Self {
        let PoolRecord { application, account, os_account, home, state, since, .. } = record;
        let OsIdentity { name: os_user, uid, gid } = os_account;
        Self { application, account, os_user, uid, gid, home, state, since: since.saturating_mul(1_000_000) }
    }
}

impl From<Exported> for PoolRecord {
    fn from(lease: Exported) -> Self {
        let Exported { application, account, os_user, uid, gid, home, state, since } = lease;
        Self {
            version: Self::VERSION,
            os_account: OsIdentity { name: os_user, uid, gid },
            home,
            home_made: false,
            application,
            account,
            state,
            since: since / 1_000_000,
        }
    }
}

fn export(format: PoolFormat, base: &str) -> Result<ExitCode, Failure> {
    let leases: Vec<Exported> = records()?.into_iter().map(Exported::from).collect();
    let text = match format {
        PoolFormat::Json => serde_json::to_string_pretty(&leases).map(|text| text + "\n"),
        PoolFormat::Ldif => leases.iter().map(|lease| entries(lease, base)).collect(),
    };
    let text = text.map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// The LDIF of a lease (RFC 2849, RFC 2307): the account, and its group. Only a lease has entries that name anybody.
fn entries(lease: &Exported, base: &str) -> serde_json::Result<String> {
    let Exported { os_user, uid, gid, home, .. } = lease;
    let whole = ascii(&serde_json::to_string(lease)?);
    let account = format!(
        "dn: uid={os_user},{base}\nobjectClass: account\nobjectClass: posixAccount\nuid: {os_user}\ncn: {os_user}\n\
         uidNumber: {uid}\ngidNumber: {gid}\nhomeDirectory: {home}\n{MARK}{whole}\n\n"
    );
    let group =
        format!("dn: cn={os_user},{base}\nobjectClass: posixGroup\ncn: {os_user}\ngidNumber: {gid}\n\n");
    Ok(if lease.state == PoolState::Leased { account + &group } else { format!("# {MARK}{whole}\n\n") })
}

/// JSON in which everything beyond ASCII is escaped: LDIF takes nothing else as it is.
fn ascii(json: &str) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() {
            text.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(text, "\\u{unit:04x}");
            }
        }
    }
    text
}

/// The leases in a file of either form.
fn parse(text: &str) -> Result<Vec<PoolRecord>, serde_json::Error> {
    let leases: Vec<Exported> = if text.trim_start().starts_with('[') {
        serde_json::from_str(text)?
    } else {
        // A line that goes on begins with a blank.
        let unfolded = text.replace("\r\n", "\n").replace("\n ", "");
        let lines = unfolded.lines().filter_map(|line| line.trim_start_matches("# ").strip_prefix(MARK));
        lines.map(serde_json::from_str).collect::<Result<_, _>>()?
    };
    Ok(leases.into_iter().map(PoolRecord::from).collect())
}

fn import(context: &Context, file: &Path) -> Result<ExitCode, Failure> {
    let bad = |error: String| {
        Failure::new(Code::InvalidArgument, format!("{}: {error}", file.display()))
            .remedy("give what 'deputyctl pool export' printed, as it was printed")
    };
    let text = fs::read_to_string(file).map_err(|error| bad(error.to_string()))?;
    let leases = parse(&text).map_err(|error| bad(error.to_string()))?;
    if leases.is_empty() {
        return Err(bad("there is no lease in it".into()));
    }
    let mut done = 0;
    for part in leases.chunks(MAX_IMPORT) {
        match launcher::ask(&LauncherRequest::ImportPool { records: part.to_vec() }) {
            Ok(LauncherReply::Done) => done += part.len(),
            Ok(_) => return Err(unexpected()),
            Err(failure) => {
                crate::output::note(&format!(
                    "{done} of {} leases were imported before this:",
                    leases.len()
                ))?;
                return Err(failure);
            }
        }
    }
    let mut record = Record::new();
    record.insert("imported".into(), done.into());
    context.output.done(&format!("{done} leases are here as well"), &record)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(uid: u32, account: &str, state: PoolState) -> PoolRecord {
        PoolRecord {
            version: PoolRecord::VERSION,
            os_account: OsIdentity {
                name: format!("dp{uid}").parse().unwrap(),
                uid: OsUid::new(uid).unwrap(),
                gid: OsGid::new(uid).unwrap(),
            },
            home: format!("/home/pool/dp{uid}"),
            home_made: false,
            application: "portal".parse().unwrap(),
            account: account.parse().unwrap(),
            state,
            since: 7,
        }
    }

    #[test]
    fn what_is_exported_is_what_is_imported_in_both_forms() {
        let leases = [
            lease(70_001, "ada", PoolState::Leased),
            lease(70_002, "zoë😀@example.org", PoolState::Leased),
            lease(70_003, "gone", PoolState::Quarantined),
        ];
        let exported: Vec<Exported> = leases.iter().cloned().map(Exported::from).collect();
        assert_eq!(parse(&serde_json::to_string_pretty(&exported).unwrap()).unwrap(), leases);
        let ldif: String = exported.iter().map(|lease| entries(lease, "dc=x").unwrap()).collect();
        assert!(
            ldif.is_ascii() && ldif.contains("uidNumber: 70002\n") && ldif.contains("dn: cn=dp70001,dc=x\n")
        );
        assert!(!ldif.contains("uidNumber: 70003"), "nobody has it");
        assert_eq!(parse(&ldif).unwrap(), leases);
        let folded = ldif.replace("deputy-pool {", "deputy-pool {\n ").replace('\n', "\r\n");
        assert_eq!(parse(&folded).unwrap(), leases);
    }

    #[test]
    fn a_file_that_says_more_or_other_than_leases_is_refused() {
        let good = serde_json::to_string(&[Exported::from(lease(70_001, "ada", PoolState::Leased))]).unwrap();
        for (from, to) in
            [("70001,", "0,"), ("\"ada\"", "\"a/b\""), ("\"leased\"", "\"mine\""), ("[{", "[{\"x\":1,")]
        {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good);
            assert!(parse(&bad).is_err(), "{bad}");
        }
    }
}
