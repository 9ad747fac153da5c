//! `.Applications`: what root wrote down, as far as it can be used.

use std::collections::BTreeMap;
use std::sync::Arc;

use deputy_core::application::Trust;
use deputy_core::{ApplicationName, Denial};

use crate::authority::{About, Call, Grant, Granted};
use crate::bus::options::parse;
use crate::bus::record::{Record, findings};
use crate::directory::{Registered, Snapshot};

/// `Applications.List`.
pub async fn list(call: Call, (): ()) -> Result<Granted<(Vec<Record>,)>, Denial> {
    let grant = call.authorize_any(About::default()).await?;
    let names = match grant.maybe_application() {
        Some(own) => vec![own.name.clone()],
        None => grant.snapshot.names(),
    };
    let records = names.iter().filter_map(|name| record(&grant.snapshot, name)).collect();
    Ok(grant.answer((records,)))
}

/// `Applications.Get`.
pub async fn get(call: Call, (name,): (String,)) -> Result<Granted<(Record,)>, Denial> {
    let (grant, name) = one(&call, &name).await?;
    let record = record(&grant.snapshot, &name).ok_or_else(Denial::not_found)?;
    Ok(grant.answer((record,)))
}

/// `Applications.Check`.
pub async fn check(call: Call, (name,): (String,)) -> Result<Granted<(Vec<Record>,)>, Denial> {
    let (grant, name) = one(&call, &name).await?;
    if grant.snapshot.get(&name).is_none() {
        return Err(Denial::not_found());
    }
    // What is wrong with the machine's settings concerns every application.
    let machine = grant.snapshot.settings_denial.clone().map(Into::into);
    let own = grant.snapshot.findings(Some(&name));
    let records = findings(machine.iter().chain(&own));
    Ok(grant.answer((records,)))
}

/// Decides a call about one application, whose file may be wrong.
async fn one(call: &Call, name: &str) -> Result<(Grant, ApplicationName), Denial> {
    let name: ApplicationName = parse("name", name)?;
    let grant = call.authorize_any(About::default()).await?;
    if grant.maybe_application().is_some_and(|own| own.name != name) {
        return Err(Denial::not_found());
    }
    Ok((grant, name))
}

fn record(snapshot: &Snapshot, name: &ApplicationName) -> Option<Record> {
    let record = Record::new().text("name", name);
    Some(match snapshot.get(name)? {
        Ok(registered) => describe(record, &registered),
        Err(denial) => record
            .with("valid", false)
            .text("rule", denial.rule)
            .text("message", denial.message)
            .text("remedy", denial.remedy),
    })
}

fn describe(record: Record, registered: &Arc<Registered>) -> Record {
    let policy = &registered.policy;
    let kinds: Vec<String> = policy.kinds.keys().map(ToString::to_string).collect();
    let roots: Vec<String> = policy.roots.iter().map(|root| root.path.clone()).collect();
    let roles: BTreeMap<String, Vec<String>> = policy
        .roles
        .all()
        .map(|(name, role)| (name.to_owned(), role.permissions.iter().map(|one| one.to_string()).collect()))
        .collect();
    record
        .with("valid", true)
        .maybe("service_uid", registered.service_uid)
        .text("trust", if policy.trust == Trust::Application { "application" } else { "session" })
        .with("login", !policy.authentication.is_empty())
        .with("kinds", kinds)
        .with("roles", roles)
        .with("roots", roots)
        .maybe("link_rule", policy.link.rule.clone())
}
