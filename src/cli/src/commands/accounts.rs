//! Accounts and roles.

use std::process::ExitCode;

use serde_json::Value;
use zbus::{OwnedObjectPath, Variant};

use super::{Context, block_on, import, pages, passwords, record_of};
use crate::bus::{Bus, CallOptions};
use crate::confirm::confirm;
use crate::failure::Failure;
use crate::options::{
    AccountCommand, AccountTarget, ByOption, ListAccountsOptions, PersonOptions, RoleCommand,
};
use crate::value::{self, Dictionary, Record};

const ACCOUNT: [&str; 11] = [
    "application",
    "account",
    "status",
    "role",
    "email",
    "first_name",
    "last_name",
    "created",
    "last_login",
    "reason",
    "limits",
];

/// The options of a call about an application, and who acts.
pub fn options<'a>(application: &'a str, by: &'a ByOption) -> CallOptions<'a> {
    let mut options = by.options();
    options.insert("application", application.into());
    options
}

fn of_target(target: &AccountTarget) -> CallOptions<'_> {
    options(target.application.as_str(), &target.by)
}

/// Adds what is given.
pub fn texts<'a>(
    options: &mut CallOptions<'a>,
    given: impl IntoIterator<Item = (&'a str, Option<&'a String>)>,
) {
    for (name, value) in given {
        if let Some(value) = value {
            options.insert(name, value.as_str().into());
        }
    }
}

/// Adds what is known of a person.
pub fn person<'a>(options: &mut CallOptions<'a>, person: &'a PersonOptions) {
    let given =
        [("email", &person.email), ("first_name", &person.first_name), ("last_name", &person.last_name)];
    texts(options, given.map(|(name, value)| (name, value.as_ref())));
}

/// `account`.
pub fn account(context: &Context, command: AccountCommand) -> Result<ExitCode, Failure> {
    match command {
        AccountCommand::Add { target, person: whose, role, group } => {
            let mut options = of_target(&target);
            person(&mut options, &whose);
            let group = group.map(String::from);
            texts(&mut options, [("role", role.as_ref()), ("group", group.as_ref())]);
            change(context, &target, "Create", options, "added")
        }
        AccountCommand::Register { mut target, person: whose, group } => {
            // Whoever registers acts for nobody.
            target.by.by = None;
            let mut options = of_target(&target);
            person(&mut options, &whose);
            let group = group.map(String::from);
            texts(&mut options, [("group", group.as_ref())]);
            change(context, &target, "Register", options, "registered; it waits to be approved")
        }
        AccountCommand::Password { target, temporary, answers_fd } => {
            passwords::set(context, &target, temporary, answers_fd)
        }
        AccountCommand::Reset(target) => passwords::reset(context, &target),
        AccountCommand::Approve(target) => {
            change(context, &target, "Approve", of_target(&target), "approved")
        }
        AccountCommand::Reject { target, reason } => changed(
            context,
            &target,
            "Reject",
            &(target.account.as_str(), reason, of_target(&target)),
            "rejected",
        ),
        AccountCommand::Edit { target, person: whose } => {
            let mut options = of_target(&target);
            person(&mut options, &whose);
            change(context, &target, "Edit", options, "edited")
        }
        AccountCommand::Limit { target, limits } => {
            let mut options = of_target(&target);
            let given = [
                ("jobs", limits.jobs.map(Variant::from)),
                ("cpus", limits.cpus.map(Variant::from)),
                ("memory", limits.memory.map(|memory| memory.0.into())),
                ("gpus", limits.gpus.map(Variant::from)),
            ];
            options.extend(given.into_iter().filter_map(|(name, value)| Some((name, value?))));
            change(context, &target, "SetLimits", options, "limits set")
        }
        AccountCommand::Deactivate { target, reason, cancel_jobs } => {
            let mut options = of_target(&target);
            texts(&mut options, [("reason", reason.as_ref())]);
            options.insert("cancel_jobs", cancel_jobs.into());
            change(context, &target, "Deactivate", options, "deactivated")
        }
        AccountCommand::Reactivate(target) => {
            change(context, &target, "Reactivate", of_target(&target), "reactivated")
        }
        AccountCommand::Delete(target) => {
            confirm(context.yes, &format!("Delete the account {} for good?", target.account))?;
            change(context, &target, "Delete", of_target(&target), "deleted")
        }
        AccountCommand::Remains(target) => block_on(remains(context, &target)),
        AccountCommand::Import { application, file, dry_run, by } => {
            block_on(import::import(context, &application, &file, dry_run, &by))
        }
        AccountCommand::List(options) => block_on(listed(context, &options)),
        AccountCommand::Show(target) => block_on(async {
            let body = (target.account.as_str(), of_target(&target));
            let found: Dictionary = Bus::connect().await?.call("Accounts", "Get", &body).await?;
            context.output.record(&value::record(&found), &ACCOUNT)?;
            Ok(ExitCode::SUCCESS)
        }),
        AccountCommand::ActFor { target, reason } => block_on(async {
            let body = (target.account.as_str(), reason.as_str(), of_target(&target));
            let session: OwnedObjectPath = Bus::connect().await?.call("Accounts", "ActFor", &body).await?;
            context.output.done(session.as_str(), &record_of([("session", session.as_str())]))?;
            Ok(ExitCode::SUCCESS)
        }),
    }
}

fn change(
    context: &Context,
    target: &AccountTarget,
    method: &str,
    options: CallOptions<'_>,
    done: &str,
) -> Result<ExitCode, Failure> {
    changed(context, target, method, &(target.account.as_str(), options), done)
}

fn changed<B: serde::Serialize + zbus::DynamicType>(
    context: &Context,
    target: &AccountTarget,
    method: &str,
    body: &B,
    done: &str,
) -> Result<ExitCode, Failure> {
    let (application, account) = (target.application.as_str(), target.account.as_str());
    block_on(async {
        let () = Bus::connect().await?.call("Accounts", method, body).await?;
        let record = record_of([("application", application), ("account", account)]);
        context.output.done(&format!("account {account} of {application}: {done}"), &record)?;
        Ok(ExitCode::SUCCESS)
    })
}

async fn remains(context: &Context, target: &AccountTarget) -> Result<ExitCode, Failure> {
    let body = (target.account.as_str(), of_target(target));
    let found: Vec<Dictionary> = Bus::connect().await?.call("Accounts", "DeletionReport", &body).await?;
    context.output.records(&value::records(&found), &["what", "name"])?;
    Ok(if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

async fn listed(context: &Context, asked: &ListAccountsOptions) -> Result<ExitCode, Failure> {
    let text = |value: Option<&str>| value.map(|value| Variant::from(value.to_owned()));
    let filters = [
        ("application", text(Some(asked.application.as_str()))),
        ("by", text(asked.by.by.as_deref())),
        ("status", text(asked.status.map(deputy_core::account::Status::as_str))),
        ("role", text(asked.role.as_deref())),
        ("group", text(asked.group.as_ref().map(deputy_core::names::GroupName::as_str))),
        ("text", text(asked.text.as_deref())),
        ("unused_days", asked.unused_days.map(Variant::from)),
        ("sort", text(asked.sort.map(crate::options::Sort::as_str))),
        ("descending", asked.desc.then(|| Variant::from(true))),
    ];
    pages(context, "Accounts", "List", None, &filters, &ACCOUNT).await
}

/// `role`.
pub fn role(context: &Context, command: RoleCommand) -> Result<ExitCode, Failure> {
    match command {
        RoleCommand::List { application } => block_on(async {
            let body = (application.as_str(),);
            let found: Dictionary = Bus::connect().await?.call("Applications", "Get", &body).await?;
            context.output.records(&roles(value::record(&found)), &["role", "permissions"])?;
            Ok(ExitCode::SUCCESS)
        }),
        RoleCommand::Set { target, role, group } => set(context, &target, &role, group.map(String::from)),
        RoleCommand::Take { target, group } => set(context, &target, "", Some(group.into())),
    }
}

fn set(
    context: &Context,
    target: &AccountTarget,
    role: &str,
    group: Option<String>,
) -> Result<ExitCode, Failure> {
    let mut options = of_target(target);
    texts(&mut options, [("group", group.as_ref())]);
    let place = group.as_ref().map(|group| format!(" in the group {group}")).unwrap_or_default();
    let done = if role.is_empty() { format!("no role{place}") } else { format!("role {role}{place}") };
    changed(context, target, "SetRole", &(target.account.as_str(), role, options), &done)
}

/// The roles of an application's record, one record each.
fn roles(mut application: Record) -> Vec<Record> {
    let Some(Value::Object(roles)) = application.remove("roles") else { return Vec::new() };
    let of = |(role, permissions): (String, Value)| {
        [("role".to_owned(), role.into()), ("permissions".to_owned(), permissions)].into_iter().collect()
    };
    roles.into_iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_applications_roles_are_a_list() {
        assert!(roles(Record::new()).is_empty());
        let Value::Object(record) = json!({"name": "demo", "roles": {"viewer": ["view_jobs"], "x": []}})
        else {
            panic!()
        };
        let found: Vec<Value> = roles(record).into_iter().map(Value::Object).collect();
        assert_eq!(
            found,
            [
                json!({"role": "viewer", "permissions": ["view_jobs"]}),
                json!({"role": "x", "permissions": []})
            ]
        );
    }
}
