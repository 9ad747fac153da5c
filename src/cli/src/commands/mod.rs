//! What each command does.

mod accounts;
mod completion;
mod consent;
mod files;
mod groups;
mod import;
mod install;
mod jobs;
mod link_import;
mod links;
mod log_file;
mod logs;
mod metrics;
mod passwords;
mod pool;
mod pool_file;
mod projects;
mod queue;
mod rebind;
mod records;
mod resources;
mod run;
mod store;
mod submit;

use std::process::ExitCode;

use serde_json::Value;
use zbus::Variant;

use crate::bus::{Bus, CallOptions};
use crate::failure::Failure;
use crate::options::{Command, GlobalOptions, LoginMethod, Options};
use crate::output::Output;
use crate::value::{self, Dictionary, Record};

/// The most records of a page.
const PAGE: u32 = 1000;

/// The columns of a table of findings.
const FINDING: [&str; 4] = ["severity", "code", "message", "remedy"];

/// What a command needs beside its own options.
struct Context {
    output: Output,
    json: bool,
    yes: bool,
}

/// Does what the command line asks for. The result is the exit status.
pub fn execute(options: Options) -> Result<ExitCode, Failure> {
    let GlobalOptions { json, yes, .. } = options.global;
    let context = Context { output: Output::new(options.global), json, yes };
    match options.command {
        Command::Status => records::status(&context),
        Command::Application(command) => records::application(&context, command),
        Command::Setup(options) => passwords::setup(&context, options),
        Command::Account(command) => accounts::account(&context, command),
        Command::Group(command) => groups::group(&context, command),
        Command::Role(command) => accounts::role(&context, command),
        Command::Link(command) => links::link(&context, command),
        Command::Project(command) => projects::project(&context, command),
        Command::Explain(options) => projects::explain(&context, &options),
        Command::Login(options) if options.method == LoginMethod::Password => {
            passwords::login(&context, &options)
        }
        Command::Login(options) => links::login(&context, options),
        Command::Session(command) => jobs::session(&context, command),
        Command::Consent(command) => consent::consent(&context, command),
        Command::Pool(command) => pool::pool(&context, command),
        Command::Rebind(command) => rebind::rebind(&context, command),
        Command::Run(options) => run::run(&context, &options),
        Command::Submit(options) => submit::submit(&context, &options),
        Command::Job(command) => jobs::job(&context, command),
        Command::Queue(options) => queue::queue(&context, options),
        Command::Resources(options) => resources::resources(&context, options),
        Command::File(command) => files::file(&context, command),
        Command::Quota(options) => files::quota(&context, options),
        Command::Alert(command) => files::alert(&context, command),
        Command::Metrics(options) => metrics::metrics(&context, &options),
        Command::Store(command) => store::store(&context, command),
        Command::Completion { shell } => completion::completion(shell),
    }
}

/// Runs what waits for `deputyd` or for signals, on this one thread.
///
/// What still blocks afterwards (a question nobody answers, a terminal nobody types on) is left behind.
fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let result = runtime.block_on(future);
    runtime.shutdown_background();
    result
}

/// Prints every page of a list that `deputyd` has.
async fn list(
    context: &Context,
    interface: &str,
    filters: &[(&'static str, Option<String>)],
    columns: &[&str],
) -> Result<ExitCode, Failure> {
    let filters: Vec<_> =
        filters.iter().map(|(name, value)| (*name, value.clone().map(Variant::from))).collect();
    pages(context, interface, "List", None, &filters, columns).await
}

/// Prints every page of what a method lists; `of` is its first argument, where it has one beside the options.
async fn pages(
    context: &Context,
    interface: &str,
    method: &str,
    of: Option<&str>,
    filters: &[(&'static str, Option<Variant<'static>>)],
    columns: &[&str],
) -> Result<ExitCode, Failure> {
    let bus = Bus::connect().await?;
    let mut printed = context.output.list(columns);
    let mut cursor = String::new();
    loop {
        let mut options = CallOptions::from([("limit", PAGE.into())]);
        for (name, value) in filters {
            if let Some(value) = value {
                options.insert(name, value.clone());
            }
        }
        if !cursor.is_empty() {
            options.insert("cursor", cursor.as_str().into());
        }
        let (page, next): (Vec<Dictionary>, String) = match of {
            Some(of) => bus.call(interface, method, &(of, options)).await?,
            None => bus.call(interface, method, &(options,)).await?,
        };
        printed.page(&value::records(&page))?;
        // A cursor that does not move would never end.
        if next.is_empty() || next == cursor {
            break;
        }
        cursor = next;
    }
    printed.end()?;
    Ok(ExitCode::SUCCESS)
}

/// Prints what a check found; the exit status says whether there are errors.
fn findings(context: &Context, found: &[Dictionary]) -> Result<ExitCode, Failure> {
    let found = value::records(found);
    context.output.records(&found, &FINDING)?;
    Ok(if found.iter().any(is_error) { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn is_error(finding: &Record) -> bool {
    finding.get("severity").and_then(Value::as_str) == Some("error")
}

/// A record of these texts.
fn record_of<const N: usize>(fields: [(&str, &str); N]) -> Record {
    fields.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
}
