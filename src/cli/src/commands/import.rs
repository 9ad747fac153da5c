//! `account import`: accounts from a file with comma separated values.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use deputy_core::denial::Code;
use deputy_core::names::{AccountName, ApplicationName, GroupName};
use serde::Deserialize;
use tokio::task::JoinSet;

use super::accounts::options;
use super::{Context, record_of};
use crate::bus::Bus;
use crate::failure::Failure;
use crate::options::ByOption;
use crate::output;
use crate::value::{Dictionary, Record};

/// How many calls are under way at once: the daemon commits them together.
const AT_ONCE: usize = 64;

/// One line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    account: String,
    #[serde(default)]
    email: String,
    #[serde(default)]
    first_name: String,
    #[serde(default)]
    last_name: String,
    #[serde(default)]
    role: String,
    #[serde(default)]
    group: String,
}

/// A line with its number, or what is wrong with it.
type Read1 = (u64, Result<Line, String>);

/// Reads the lines. What a line itself shows to be wrong is told without asking anybody.
fn read(source: impl Read) -> Result<Vec<Read1>, Failure> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(source);
    let wrong = |what: String| Failure::new(Code::InvalidArgument, what);
    let headers = reader.headers().map_err(|error| wrong(format!("the file cannot be read: {error}")))?;
    let headers = headers.clone();
    if !headers.iter().any(|name| name == "account") {
        return Err(wrong("the first line has to name the columns, account among them".to_owned())
            .remedy("columns: account, email, first_name, last_name, role, group"));
    }
    let mut seen = BTreeSet::new();
    let mut lines = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| wrong(format!("the file cannot be read: {error}")))?;
        let number = record.position().map_or(0, csv::Position::line);
        let line = record.deserialize::<Line>(Some(&headers)).map_err(|error| {
            wrong(format!("line {number}: {error}")).remedy("see deputyctl account import --help")
        })?;
        lines.push((number, check(line, &mut seen)));
    }
    Ok(lines)
}

fn check(line: Line, seen: &mut BTreeSet<String>) -> Result<Line, String> {
    AccountName::new(line.account.as_str()).map_err(|error| error.to_string())?;
    if !line.group.is_empty() {
        GroupName::new(line.group.as_str()).map_err(|error| format!("group: {error}"))?;
    }
    if !seen.insert(line.account.clone()) {
        return Err("the account is in an earlier line already".to_owned());
    }
    Ok(line)
}

/// `account import`.
pub async fn import(
    context: &Context,
    application: &ApplicationName,
    file: &Path,
    dry_run: bool,
    by: &ByOption,
) -> Result<ExitCode, Failure> {
    let lines = if file == Path::new("-") {
        read(std::io::stdin().lock())?
    } else {
        let opened = std::fs::File::open(file).map_err(|error| {
            Failure::new(Code::InvalidArgument, format!("{} cannot be read: {error}", file.display()))
        })?;
        read(opened)?
    };
    let bus = Bus::connect().await?;
    let mut printed = context.output.list(&["line", "account", "result", "message"]);
    let mut refused = 0;
    for part in lines.chunks(AT_ONCE) {
        let mut calls = JoinSet::new();
        for (at, (_, line)) in part.iter().enumerate() {
            let Ok(line) = line.clone() else { continue };
            let (bus, application, by) = (bus.clone(), application.to_string(), by.by.clone());
            calls.spawn(async move { (at, one(&bus, &application, by, &line, dry_run).await) });
        }
        let mut results: Vec<Result<&str, String>> =
            part.iter().map(|(_, line)| line.as_ref().map(|_| "").map_err(Clone::clone)).collect();
        while let Some(done) = calls.join_next().await {
            let (at, result) = done.map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
            results[at] = result;
        }
        let records: Vec<Record> = part
            .iter()
            .zip(&results)
            .map(|((number, line), result)| {
                let name = line.as_ref().map_or("", |line| line.account.as_str());
                let (result, message) = match result {
                    Ok(result) => (*result, ""),
                    Err(message) => ("refused", message.as_str()),
                };
                let mut record = record_of([("account", name), ("result", result), ("message", message)]);
                record.insert("line".to_owned(), (*number).into());
                record
            })
            .collect();
        refused += results.iter().filter(|result| result.is_err()).count();
        printed.page(&records)?;
    }
    printed.end()?;
    if !context.json {
        let what = if dry_run { "would be added, were there no others" } else { "added or there already" };
        output::note(&format!(
            "{} of {} lines {what}, {refused} refused",
            lines.len() - refused,
            lines.len()
        ))?;
    }
    Ok(if refused > 0 { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// Adds the account of one line; or looks whether it is there.
async fn one(
    bus: &Bus,
    application: &str,
    by: Option<String>,
    line: &Line,
    dry_run: bool,
) -> Result<&'static str, String> {
    let by = ByOption { by };
    let mut options = options(application, &by);
    if dry_run {
        let found: Result<Dictionary, _> =
            bus.call("Accounts", "Get", &(line.account.as_str(), options)).await;
        return match found {
            Ok(_) => Ok("there already"),
            Err(failure) if failure.code == Code::NotFound.as_str() => Ok("to be added"),
            Err(failure) => Err(failure.message),
        };
    }
    let details = [
        ("email", &line.email),
        ("first_name", &line.first_name),
        ("last_name", &line.last_name),
        ("role", &line.role),
        ("group", &line.group),
    ];
    for (name, value) in details {
        if !value.is_empty() {
            options.insert(name, value.as_str().into());
        }
    }
    let created: Result<(), Failure> =
        bus.call("Accounts", "Create", &(line.account.as_str(), options)).await;
    match created {
        Ok(()) => Ok("added"),
        Err(failure) if failure.code == Code::Conflict.as_str() => Ok("there already"),
        Err(failure) => Err(failure.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_the_column_or_with_another_is_refused() {
        assert!(read("name,email\na,b\n".as_bytes()).is_err());
        let failure = read("account,password\na,b\n".as_bytes()).unwrap_err();
        assert!(failure.message.contains("line 2") && failure.message.contains("password"), "{failure:?}");
        assert!(read("account,email\na\n".as_bytes()).is_err());
    }

    #[test]
    fn what_a_line_itself_shows_is_told_with_its_number() {
        let lines = read("email,account\n\"x, y\", ann \n,../b\n,ann\n,7\n".as_bytes()).unwrap();
        let numbers: Vec<u64> = lines.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [2, 3, 4, 5]);
        let first = lines[0].1.as_ref().unwrap();
        assert_eq!((first.account.as_str(), first.email.as_str()), ("ann", "x, y"));
        assert!(lines[1..].iter().all(|(_, line)| line.is_err()), "{lines:?}");
    }
}
