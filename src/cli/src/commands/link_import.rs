//! `link import`: many links, from a list or from a folder of nextPYP's.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::ExitCode;

use deputy_core::denial::Code;
use deputy_core::message::{Asking, ConsentRequest, LauncherReply, LauncherRequest};
use deputy_core::names::{AccountName, ApplicationName, OsUserName};
use serde_json::Value;

use super::{Context, accounts, block_on};
use crate::bus::{Bus, CallOptions};
use crate::failure::Failure;
use crate::launcher::{self, is_root, unexpected};
use crate::options::ImportOptions;
use crate::output::note;
use crate::value::{self, Dictionary, Record};

/// How many rows go into one call.
const PART: usize = 200;

const RESULT: [&str; 7] = ["account", "os_user", "state", "code", "error", "message", "remedy"];

/// The bit of a program that runs as its owner.
const SETUID: u32 = 0o4000;

/// One link of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    account: AccountName,
    os_user: OsUserName,
}

/// `link import`. The exit status says whether a row was refused.
pub fn import(context: &Context, options: &ImportOptions) -> Result<ExitCode, Failure> {
    let rows = match (&options.nextpyp, &options.file) {
        (Some(folder), _) => owners(folder)?,
        (None, Some(file)) => {
            let text = fs::read_to_string(file).map_err(|error| {
                Failure::new(Code::InvalidArgument, format!("{}: {error}", file.display()))
            })?;
            list(&text)?
        }
        (None, None) => Vec::new(),
    };
    let results = block_on(async {
        let bus = Bus::connect().await?;
        let mut results = Vec::new();
        for part in rows.chunks(PART) {
            let checked = ask(&bus, options, part, true).await?;
            if options.dry_run {
                results.extend(checked);
                continue;
            }
            // Root's consent is for what is possible at all; the rest is told as it is.
            let (possible, refused): (Vec<_>, Vec<_>) =
                part.iter().cloned().zip(checked).partition(|(_, result)| !is_refused(result));
            results.extend(refused.into_iter().map(|(_, result)| result));
            let possible: Vec<Row> = possible.into_iter().map(|(row, _)| row).collect();
            if is_root() {
                possible.iter().try_for_each(|row| grant(&options.application, row))?;
            }
            results.extend(ask(&bus, options, &possible, false).await?);
        }
        Ok(results)
    })?;
    context.output.records(&results, &RESULT)?;
    Ok(if results.iter().any(is_refused) { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn is_refused(result: &Record) -> bool {
    result.get("state").and_then(Value::as_str) == Some("refused")
}

async fn ask(bus: &Bus, asked: &ImportOptions, rows: &[Row], dry_run: bool) -> Result<Vec<Record>, Failure> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<CallOptions<'_>> = rows
        .iter()
        .map(|row| {
            CallOptions::from([
                ("account", row.account.as_str().into()),
                ("os_user", row.os_user.as_str().into()),
            ])
        })
        .collect();
    let mut options = accounts::options(asked.application.as_str(), &asked.by);
    options.insert("dry_run", dry_run.into());
    let results: Vec<Dictionary> = bus.call("Links", "Import", &(rows, options)).await?;
    Ok(value::records(&results))
}

/// Root's own consent goes straight to the launcher: nothing that passes through `deputyd` could give it.
fn grant(application: &ApplicationName, row: &Row) -> Result<(), Failure> {
    let request = LauncherRequest::Grant(ConsentRequest {
        application: application.clone(),
        account: row.account.clone(),
        os_user: row.os_user.clone(),
        expires: None,
        asking: Asking::Link,
    });
    match launcher::ask(&request)? {
        LauncherReply::Link { .. } => Ok(()),
        _ => Err(unexpected()),
    }
}

/// The rows of a list whose first line says `account,os_user`. Neither name can have a comma or a quote.
fn list(text: &str) -> Result<Vec<Row>, Failure> {
    let wrong = |number: usize, what: &str| {
        Failure::new(Code::InvalidArgument, format!("line {number}: {what}")).remedy(
            "the first line is account,os_user; each other line has these two names with a comma between",
        )
    };
    let mut lines = (1..).zip(text.lines().map(str::trim));
    match lines.next() {
        Some((_, "account,os_user")) => {}
        _ => return Err(wrong(1, "the first line is not account,os_user")),
    }
    let mut rows = Vec::new();
    for (number, line) in lines.filter(|(_, line)| !line.is_empty()) {
        let (account, os_user) = line.split_once(',').ok_or_else(|| wrong(number, "there is no comma"))?;
        let account = account.trim().parse().map_err(|error| wrong(number, &format!("account: {error}")))?;
        let os_user = os_user.trim().parse().map_err(|error| wrong(number, &format!("os_user: {error}")))?;
        rows.push(Row { account, os_user });
    }
    Ok(rows)
}

/// The owners of the setuid programs in a folder, each for the account of the same name.
fn owners(folder: &Path) -> Result<Vec<Row>, Failure> {
    let failed =
        |error: std::io::Error| Failure::new(Code::InvalidArgument, format!("{}: {error}", folder.display()));
    let mut rows = Vec::new();
    let mut entries = fs::read_dir(folder).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        // Of the entry itself: a link into somewhere else is not one of nextPYP's.
        let found = entry.metadata().map_err(failed)?;
        if !found.is_file() || found.permissions().mode() & SETUID == 0 {
            note(&format!("{}: not a setuid program, left out", entry.path().display()))?;
            continue;
        }
        let user = nix::unistd::User::from_uid(found.uid().into()).map_err(|errno| failed(errno.into()))?;
        let names = user.and_then(|user| {
            Some(Row { account: user.name.parse().ok()?, os_user: user.name.parse().ok()? })
        });
        match names {
            Some(row) if found.uid() != 0 && !rows.contains(&row) => rows.push(row),
            Some(_) => {
                note(&format!(
                    "{}: root's, or one more of the same owner, left out",
                    entry.path().display()
                ))?;
            }
            None => note(&format!(
                "{}: uid {} has no name that an account can have, left out",
                entry.path().display(),
                found.uid()
            ))?,
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_taken_whole_or_refused_with_the_line() {
        let rows = list("account,os_user\nann@lab, ann\n\nbob,bob\r\n").unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].account.as_str(), rows[0].os_user.as_str()), ("ann@lab", "ann"));
        for (text, line) in [
            ("", "line 1"),
            ("ann,ann\n", "line 1"),
            ("account,os_user\nann\n", "line 2"),
            ("account,os_user\nann,ann\n../x,ann\n", "line 3"),
            ("account,os_user\nann,a,b\n", "line 2"),
            ("account,os_user\n\"ann\",ann\n", "line 2"),
        ] {
            let failure = list(text).unwrap_err();
            assert!(failure.message.contains(line), "{text:?}: {failure}");
        }
    }

    #[test]
    fn only_setuid_programs_name_an_owner() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("user-processor-a"), "x").unwrap();
        std::os::unix::fs::symlink("/bin/su", folder.path().join("link")).unwrap();
        assert_eq!(owners(folder.path()).unwrap(), []);
        assert!(owners(&folder.path().join("absent")).is_err());
    }
}
