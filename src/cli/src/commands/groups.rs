//! Groups of accounts.

use std::process::ExitCode;

use zbus::Variant;

use super::accounts::{options, texts};
use super::{Context, block_on, pages, record_of};
use crate::bus::{Bus, CallOptions};
use crate::confirm::confirm;
use crate::failure::Failure;
use crate::options::{GroupCommand, GroupTarget};

const GROUP: [&str; 5] = ["application", "group", "members", "description", "created"];
const MEMBER: [&str; 5] = ["application", "group", "account", "role", "since"];

fn of_target(target: &GroupTarget) -> CallOptions<'_> {
    options(target.application.as_str(), &target.by)
}

/// `group`.
pub fn group(context: &Context, command: GroupCommand) -> Result<ExitCode, Failure> {
    let text = |value: Option<&str>| value.map(|value| Variant::from(value.to_owned()));
    match command {
        GroupCommand::Create { target, description } => {
            let mut options = of_target(&target);
            texts(&mut options, [("description", description.as_ref())]);
            changed(context, &target, "Create", &(target.group.as_str(), options), "created")
        }
        GroupCommand::Delete(target) => {
            confirm(context.yes, &format!("Delete the group {} for good?", target.group))?;
            changed(context, &target, "Delete", &(target.group.as_str(), of_target(&target)), "deleted")
        }
        GroupCommand::List { application, by } => {
            let filters = [("application", text(Some(application.as_str()))), ("by", text(by.by.as_deref()))];
            block_on(pages(context, "Groups", "List", None, &filters, &GROUP))
        }
        GroupCommand::Members(target) => {
            let filters = [
                ("application", text(Some(target.application.as_str()))),
                ("by", text(target.by.by.as_deref())),
            ];
            block_on(pages(context, "Groups", "Members", Some(target.group.as_str()), &filters, &MEMBER))
        }
        GroupCommand::Add { target, account, role } => {
            let mut options = of_target(&target);
            texts(&mut options, [("role", role.as_ref())]);
            let body = (target.group.as_str(), account.as_str(), options);
            changed(context, &target, "Add", &body, &format!("{account} added"))
        }
        GroupCommand::Remove { target, account } => {
            let body = (target.group.as_str(), account.as_str(), of_target(&target));
            changed(context, &target, "Remove", &body, &format!("{account} removed"))
        }
    }
}

fn changed<B: serde::Serialize + zbus::DynamicType>(
    context: &Context,
    target: &GroupTarget,
    method: &str,
    body: &B,
    done: &str,
) -> Result<ExitCode, Failure> {
    let (application, group) = (target.application.as_str(), target.group.as_str());
    block_on(async {
        let () = Bus::connect().await?.call("Groups", method, body).await?;
        let record = record_of([("application", application), ("group", group)]);
        context.output.done(&format!("group {group} of {application}: {done}"), &record)?;
        Ok(ExitCode::SUCCESS)
    })
}
