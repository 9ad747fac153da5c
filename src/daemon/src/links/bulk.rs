//! Many links at once: all of an application checked, and a list of them asked for.

use std::collections::BTreeMap;

use deputy_core::message::{Asking, LinkState as Asked};
use deputy_core::{AccountName, Code, Denial, Finding, FindingCode, OsUserName, Severity};
use zbus::OwnedVariant;

use super::calls::found;
use super::{ask, may_link, record};
use crate::accounts::page;
use crate::authority::{About, Call, Granted};
use crate::bus::options::{Options, parse};
use crate::bus::record::Record;
use crate::daemon::Daemon;
use crate::directory::Registered;
use crate::store::{Actor, Scope};

/// The most rows of one import; a longer list comes in parts.
const MAX_ROWS: usize = 500;

/// The most links that one call checks: each is a process of the launcher's.
const MAX_CHECKED: usize = 200;

/// `Links.CheckAll`.
pub async fn check_all(
    call: Call,
    (mut options,): (Options,),
) -> Result<Granted<(Vec<Record>, String)>, Denial> {
    let about = About::application(options.application()?).by(options.by()?);
    let mut request = page(options.page()?);
    options.finish()?;
    request.limit = request.limit.min(MAX_CHECKED);
    let grant = call.authorize(about).await?;
    let registered = grant.application()?.clone();
    let links = call.daemon.store.links(&Scope::Application(registered.name.clone()), None, &request)?;
    let mut records = Vec::new();
    for link in &links.items {
        let found = found(&call.daemon, &registered.name, &link.account, &link.os.name).await?;
        records.extend(found.iter().map(|finding| {
            Record::from(finding).text("account", &link.account).text("os_user", &link.os.name)
        }));
    }
    Ok(grant.answer((records, links.next.map(String::from).unwrap_or_default())))
}

/// One row of an import.
struct Row {
    account: AccountName,
    os_user: OsUserName,
}

fn rows(given: Vec<BTreeMap<String, OwnedVariant>>) -> Result<Vec<Row>, Denial> {
    if given.len() > MAX_ROWS {
        return Err(Denial::invalid(format!("at most {MAX_ROWS} rows at a time")));
    }
    let mut rows = Vec::with_capacity(given.len());
    for (number, mut row) in (1..).zip(given) {
        let mut text = |key: &str| -> Result<String, Denial> {
            let value =
                row.remove(key).ok_or_else(|| Denial::invalid(format!("row {number} has no {key}")))?;
            String::try_from(zbus::Variant::from(value))
                .map_err(|_| Denial::invalid(format!("row {number}: {key} is not a text")))
        };
        let (account, os_user) = (text("account")?, text("os_user")?);
        if let Some(key) = row.keys().next() {
            return Err(Denial::invalid(format!("row {number} has {key:?}; there are account and os_user")));
        }
        let named = |what: &str| format!("row {number}: {what}");
        rows.push(Row {
            account: parse(&named("account"), &account)?,
            os_user: parse(&named("os_user"), &os_user)?,
        });
    }
    Ok(rows)
}

/// `Links.Import`.
pub async fn import(
    call: Call,
    (given, mut options): (Vec<BTreeMap<String, OwnedVariant>>, Options),
) -> Result<Granted<(Vec<Record>,)>, Denial> {
    let about = About::application(options.application()?).by(options.by()?);
    let dry_run = options.flag("dry_run")?;
    options.finish()?;
    // A row that is none refuses all of them: half a list done is worse than none.
    let rows = rows(given)?;
    let mut grant = call.authorize(about.clone()).await?;
    let registered = grant.application()?.clone();
    if !dry_run {
        call.ask_too(&mut grant, About { application: Some(registered.name.clone()), ..about }).await?;
    }
    let mut results = Vec::with_capacity(rows.len());
    for row in &rows {
        let result = if dry_run {
            would_import(&call.daemon, &registered, row).await
        } else {
            import_one(&call.daemon, &registered, row, grant.actor()?).await
        };
        results.push(match result {
            Ok(record) => record,
            Err(denial) => Record::new()
                .text("state", "refused")
                .text("error", denial.code)
                .text("message", denial.message)
                .text("remedy", denial.remedy),
        });
    }
    let records = rows
        .iter()
        .zip(results)
        .map(|(row, result)| result.text("account", &row.account).text("os_user", &row.os_user))
        .collect();
    Ok(grant.answer((records,)))
}

/// What would come of a row: the refusal, or whether somebody's consent is needed.
async fn would_import(daemon: &Daemon, registered: &Registered, row: &Row) -> Result<Record, Denial> {
    may_link(daemon, &registered.name, &row.account, &row.os_user)?;
    let found = found(daemon, &registered.name, &row.account, &row.os_user).await?;
    let no_consent = Finding::from(Denial::new(Code::NoConsent, "", "")).code;
    let expired = Finding::from(Denial::new(Code::ConsentExpired, "", "")).code;
    let errors = || found.iter().filter(|finding| finding.severity == Severity::Error);
    let wants_consent = |finding: &&Finding| finding.code == no_consent || finding.code == expired;
    // That somebody has no room left is a reason to tell him, and none against his link.
    let is_quota = |finding: &&Finding| finding.code == FindingCode::QuotaExceeded.as_str();
    if let Some(finding) = errors().find(|finding| !wants_consent(finding) && !is_quota(finding)) {
        return Ok(Record::new()
            .text("state", "refused")
            .text("error", &finding.code)
            .text("message", &finding.message)
            .text("remedy", &finding.remedy));
    }
    let state = if errors().any(|finding| wants_consent(&finding)) { "waiting" } else { "active" };
    Ok(Record::new().text("state", state))
}

/// Asks for the link of a row.
async fn import_one(
    daemon: &Daemon,
    registered: &Registered,
    row: &Row,
    actor: Actor,
) -> Result<Record, Denial> {
    daemon.store.account(&registered.name, &row.account)?.ok_or_else(|| {
        Denial::new(Code::NotFound, "account", "the application has no such account")
            .remedy("create the account first: deputyctl account add")
    })?;
    may_link(daemon, &registered.name, &row.account, &row.os_user)?;
    let (os, state): (_, Asked) =
        ask(daemon, &registered.name, &row.account, &row.os_user, Asking::Link).await?;
    let link = record(daemon, actor, &registered.name, &row.account, os, state).await?;
    Ok(Record::new()
        .text("state", link.state.as_str())
        .maybe("code", link.code.map(String::from))
        .maybe("expires", link.expires.map(|at| at.0)))
}
