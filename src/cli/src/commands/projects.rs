//! Projects, and explanations of decisions.

use std::os::unix::ffi::OsStrExt as _;
use std::process::ExitCode;

use deputy_core::names::ApplicationName;
use deputy_core::project::ProjectKey;
use serde_json::Value;
use zbus::Variant;

use super::{Context, block_on, list, record_of};
use crate::bus::{Bus, CallOptions};
use crate::confirm::confirm;
use crate::escape;
use crate::failure::Failure;
use crate::options::{
    ByOption, CreateProjectOptions, ExplainOptions, ProjectCommand, ProjectDefaultsOptions, ProjectTarget,
};
use crate::value::{self, Dictionary};

const PROJECT: [&str; 11] = [
    "project",
    "access",
    "public",
    "os_user",
    "uid",
    "open_jobs",
    "umask",
    "os_group",
    "group",
    "folder",
    "created",
];

/// What is not in step with the members of a project: who, where it is one of them, and why.
const FINDINGS: [&str; 4] = ["account", "code", "message", "remedy"];

/// `project`.
pub fn project(context: &Context, command: ProjectCommand) -> Result<ExitCode, Failure> {
    match command {
        ProjectCommand::Create(options) => block_on(create(context, options)),
        ProjectCommand::Show { target, subject } => block_on(show(context, &target, subject.as_deref())),
        ProjectCommand::List { application, subject, owner, public: false } => {
            let filters = [
                ("application", Some(application.to_string())),
                ("subject", subject),
                ("owner", owner.map(String::from)),
            ];
            block_on(list(context, "Projects", &filters, &PROJECT))
        }
        ProjectCommand::List { application, public: true, .. } => block_on(public(context, &application)),
        ProjectCommand::Share { target, account, access, by } => block_on(async {
            let call = (target.project.to_string(), account.as_str(), access.as_str(), of(&target, &by));
            let findings: Vec<Dictionary> = Bus::connect().await?.call("Projects", "Share", &call).await?;
            let what = format!("shared with {account} ({})", access.as_str());
            in_step(context, &target.project.to_string(), &sentence(&target.project, &what), &findings)
        }),
        ProjectCommand::Unshare { target, account, by } => block_on(async {
            let call = (target.project.to_string(), account.as_str(), of(&target, &by));
            let findings: Vec<Dictionary> = Bus::connect().await?.call("Projects", "Unshare", &call).await?;
            let what = format!("no longer shared with {account}");
            in_step(context, &target.project.to_string(), &sentence(&target.project, &what), &findings)
        }),
        ProjectCommand::Folder { target, path, subject } => {
            block_on(folder(context, &target, path.unwrap_or_default().as_bytes(), subject))
        }
        ProjectCommand::Publish { target, private, by } => block_on(async {
            let call = (target.project.to_string(), !private, of(&target, &by));
            let () = Bus::connect().await?.call("Projects", "Publish", &call).await?;
            done(context, &target.project, if private { "private" } else { "public" })
        }),
        ProjectCommand::Edit { target, defaults, by } => block_on(async {
            let mut options = of(&target, &by);
            add_defaults(&mut options, &defaults);
            let call = (target.project.to_string(), options);
            let () = Bus::connect().await?.call("Projects", "Edit", &call).await?;
            done(context, &target.project, "changed")
        }),
        ProjectCommand::HandOver { target, account, by } => {
            confirm(context.yes, &format!("Give {} to {account}?", target.project))?;
            block_on(async {
                let call = (target.project.to_string(), account.as_str(), of(&target, &by));
                let (new, findings): (String, Vec<Dictionary>) =
                    Bus::connect().await?.call("Projects", "HandOver", &call).await?;
                in_step(context, &new, &sentence(&target.project, &format!("{new} now")), &findings)
            })
        }
        ProjectCommand::Delete { target, by } => {
            confirm(context.yes, &format!("Delete the project {}? Its files stay.", target.project))?;
            block_on(async {
                let call = (target.project.to_string(), of(&target, &by));
                let () = Bus::connect().await?.call("Projects", "Delete", &call).await?;
                done(context, &target.project, "deleted")
            })
        }
    }
}

fn done(context: &Context, project: &ProjectKey, what: &str) -> Result<ExitCode, Failure> {
    let record = record_of([("project", project.to_string().as_str())]);
    context.output.done(&sentence(project, what), &record)?;
    Ok(ExitCode::SUCCESS)
}

fn sentence(project: &ProjectKey, what: &str) -> String {
    escape::text(&format!("the project {project} is {what}"))
}

/// Says what was done, and what on this machine does not follow it. The exit status says whether everything does.
fn in_step(
    context: &Context,
    project: &str,
    sentence: &str,
    findings: &[Dictionary],
) -> Result<ExitCode, Failure> {
    let findings = value::records(findings);
    context.output.done_with(sentence, record_of([("project", project)]), &findings, &FINDINGS)?;
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn of<'a>(target: &'a ProjectTarget, by: &'a ByOption) -> CallOptions<'a> {
    let mut options = CallOptions::from([("application", target.application.as_str().into())]);
    if let Some(by) = &by.by {
        options.insert("by", by.as_str().into());
    }
    options
}

fn add_defaults<'a>(options: &mut CallOptions<'a>, defaults: &'a ProjectDefaultsOptions) {
    if let Some(umask) = &defaults.umask {
        options.insert("umask", umask.as_str().into());
    }
    if let Some(group) = &defaults.os_group {
        options.insert("os_group", group.as_str().into());
    }
}

async fn create(context: &Context, new: CreateProjectOptions) -> Result<ExitCode, Failure> {
    let mut options =
        CallOptions::from([("application", new.application.as_str().into()), ("public", new.public.into())]);
    add_defaults(&mut options, &new.defaults);
    let call = (new.subject.as_str(), new.name.as_str(), options);
    let key: String = Bus::connect().await?.call("Projects", "Create", &call).await?;
    context
        .output
        .done(&escape::text(&format!("the project {key} is created")), &record_of([("project", &key)]))?;
    Ok(ExitCode::SUCCESS)
}

/// `project folder`. The exit status says whether every member is in the group.
async fn folder(
    context: &Context,
    target: &ProjectTarget,
    path: &[u8],
    subject: Option<String>,
) -> Result<ExitCode, Failure> {
    let subject = subject.unwrap_or_else(|| target.project.owner.to_string());
    let options = CallOptions::from([("application", target.application.as_str().into())]);
    let call = (subject.as_str(), target.project.to_string(), path, options);
    let left_out: Vec<Dictionary> = Bus::connect().await?.call("Projects", "ShareFolder", &call).await?;
    if left_out.is_empty() {
        return done(context, &target.project, "in step with its members, and so is its folder");
    }
    let mut printed = context.output.list(&FINDINGS);
    printed.page(&value::records(&left_out))?;
    printed.end()?;
    Ok(ExitCode::from(1))
}

async fn show(context: &Context, target: &ProjectTarget, subject: Option<&str>) -> Result<ExitCode, Failure> {
    let mut options = CallOptions::from([("application", target.application.as_str().into())]);
    if let Some(subject) = subject {
        options.insert("subject", subject.into());
    }
    let call = (target.project.to_string(), options);
    let found: Dictionary = Bus::connect().await?.call("Projects", "Get", &call).await?;
    context.output.record(&value::record(&found), &PROJECT)?;
    Ok(ExitCode::SUCCESS)
}

/// The projects that every account sees.
async fn public(context: &Context, application: &ApplicationName) -> Result<ExitCode, Failure> {
    let bus = Bus::connect().await?;
    let mut printed = context.output.list(&PROJECT);
    let mut cursor = String::new();
    loop {
        let options = CallOptions::from([
            ("application", application.as_str().into()),
            ("public", true.into()),
            ("cursor", cursor.as_str().into()),
        ]);
        let (page, next): (Vec<Dictionary>, String) = bus.call("Projects", "List", &(options,)).await?;
        printed.page(&value::records(&page))?;
        if next.is_empty() || next == cursor {
            break;
        }
        cursor = next;
    }
    printed.end()?;
    Ok(ExitCode::SUCCESS)
}

/// `explain`. The exit status says whether it would be allowed.
pub fn explain(context: &Context, question: &ExplainOptions) -> Result<ExitCode, Failure> {
    let argv: Vec<Vec<u8>> = question.command.iter().map(|word| word.as_bytes().to_vec()).collect();
    let mut options = CallOptions::from([
        ("application", question.application.as_str().into()),
        ("account", question.account.as_str().into()),
    ]);
    if let Some(path) = &question.path {
        options.insert("path", path.as_bytes().into());
        options.insert("access", if question.write { "write" } else { "read" }.into());
    } else {
        options.insert("argv", argv.into());
    }
    let asked = &question.asked;
    let text = |value: Option<String>| value.map(Variant::from);
    for (key, value) in [
        ("executor", asked.executor.map(|executor| executor.as_str().into())),
        ("memory", asked.memory.map(|size| size.0.into())),
        ("cpus", asked.cpus.map(|cpus| (f64::from(cpus.0) / 1000.0).into())),
        ("gpus", asked.gpus.map(|gpus| u32::from(gpus).into())),
        ("time_limit_seconds", asked.time_limit.map(Variant::from)),
        ("cluster", text(asked.cluster.clone().map(String::from))),
        ("partition", text(asked.partition.clone().map(String::from))),
        ("requeue", asked.requeue.then(|| true.into())),
        ("slurm_account", text(asked.slurm_account.clone().map(String::from))),
        ("qos", text(asked.qos.clone().map(String::from))),
        ("nodes", asked.nodes.map(Variant::from)),
        ("tasks", asked.tasks.map(Variant::from)),
    ] {
        if let Some(value) = value {
            options.insert(key, value);
        }
    }
    if let Some(kind) = &question.kind {
        options.insert("kind", kind.as_str().into());
    }
    if let Some(project) = &question.project {
        options.insert("project", project.to_string().into());
    }
    block_on(async {
        let found: Dictionary = Bus::connect().await?.call("Manager", "Explain", &(options,)).await?;
        let record = value::record(&found);
        context.output.record(
            &record,
            &["allowed", "executor", "chosen", "cluster", "code", "message", "rule", "remedy"],
        )?;
        let allowed = record.get("allowed").and_then(Value::as_bool).unwrap_or(false);
        Ok(if allowed { ExitCode::SUCCESS } else { ExitCode::from(1) })
    })
}
