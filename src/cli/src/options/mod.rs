//! The command line: what can be asked for, and the words of `--help` and of the manual page.

mod accounts;
mod consent;
mod files;
mod jobs;
mod links;
mod metrics;
mod pool;
mod projects;
mod queue;
mod rebind;
mod records;
mod resources;
mod run;
mod store;
mod submit;

use clap::{Parser, Subcommand, ValueEnum};

pub use accounts::{
    AccountCommand, AccountTarget, ByOption, GroupCommand, GroupTarget, ListAccountsOptions, PersonOptions,
    RoleCommand, SetupOptions, Sort,
};
pub use consent::{ConsentCommand, GiveOptions, GrantOptions, RevokeOptions};
pub use files::{AlertCommand, FileCommand, FileSubject, QuotaFormat, QuotaOptions};
pub use jobs::{JobCommand, LoginMethod, LoginOptions, SessionCommand, signal_name};
pub use links::{CheckOptions, ImportOptions, LinkCommand, LinkTarget, RequestOptions};
pub use metrics::MetricsOptions;
pub use pool::{PoolCommand, PoolFormat, PoolTarget};
pub use projects::{
    CreateProjectOptions, ExplainOptions, ProjectCommand, ProjectDefaultsOptions, ProjectTarget,
};
pub use queue::QueueOptions;
pub use rebind::{CarryOptions, RebindCommand, RebindPlanOptions};
pub use records::{ApplicationCommand, InstallOptions};
pub use resources::ResourcesOptions;
pub use run::RunOptions;
pub use store::StoreCommand;
pub use submit::SubmitOptions;

/// What `--help` says after the commands, and the manual page under the same heading.
pub const EXIT_STATUS: &str = "\
Exit status:
  0        done
  1        a check found errors
  2        the command line is wrong ('run': 125)
  125      Deputy refused or failed; standard error has 'deputyctl: CODE: message' and the remedy
  'run'    the job's own status; 128+N if signal N ended it; 126 if the command cannot be
           executed; 127 if it is not there";

/// How `--json` writes what is not text.
pub const JSON_FORM: &str = "\
With --json each command prints one JSON value: an object for one record, an array for a list. The names of the \
fields are those of the D-Bus dictionaries. Times are microseconds since 1970. Byte strings (arguments, paths) are \
text in which a backslash is written \\\\ and each byte that is not part of valid UTF-8 is written \\xNN, so that every \
byte string has exactly one form.";

/// Act for an application's accounts as their own OS accounts.
///
/// deputyctl is an ordinary client of Deputy's D-Bus interface: what it may do is what its caller may do.
#[derive(Debug, Parser)]
#[command(name = "deputyctl", version, after_long_help = format!("{EXIT_STATUS}\n\n{JSON_FORM}"), max_term_width = 110)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Options {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// What holds for every command.
    #[command(flatten)]
    pub global: GlobalOptions,
}

/// What holds for every command.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct GlobalOptions {
    /// Print JSON instead of tables and sentences
    #[arg(long, global = true, display_order = 900)]
    pub json: bool,
    /// Whether to print in colours; by itself on a terminal only, and not where the variable `NO_COLOR` is set
    #[arg(long, global = true, display_order = 901, value_enum, value_name = "WHEN", default_value_t = When::Auto)]
    pub color: When,
    /// Say also by which rule something was refused
    #[arg(long, global = true, display_order = 902)]
    pub verbose: bool,
    /// Answer yes where a terminal would be asked for confirmation
    #[arg(long, global = true, display_order = 903)]
    pub yes: bool,
}

/// Whether to do something that a terminal shows and a file does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum When {
    /// On a terminal
    #[default]
    Auto,
    /// Always, but with --json
    Always,
    /// Never
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show whether Deputy runs, and its version
    #[command(after_help = "Example:\n  deputyctl status --json")]
    Status,
    /// Applications registered with Deputy
    #[command(subcommand)]
    Application(ApplicationCommand),
    /// Make the first account of an application, its superuser
    Setup(SetupOptions),
    /// Accounts of one application
    #[command(subcommand)]
    Account(AccountCommand),
    /// Groups of an application's accounts, laboratories for instance
    #[command(subcommand)]
    Group(GroupCommand),
    /// Roles: what accounts may do in their application
    #[command(subcommand)]
    Role(RoleCommand),
    /// Links from accounts to OS accounts
    #[command(subcommand)]
    Link(LinkCommand),
    /// Projects of an application's accounts
    #[command(subcommand)]
    Project(ProjectCommand),
    /// Say whether a job would be allowed, by which rule, and what could be done; exit status 1 if not
    Explain(ExplainOptions),
    /// What the owners of OS accounts, and root, have consented to
    #[command(subcommand)]
    Consent(ConsentCommand),
    /// OS accounts that are leased to accounts whose people have none
    #[command(subcommand)]
    Pool(PoolCommand),
    /// Move trees of files from one OS account to another (root only)
    #[command(subcommand)]
    Rebind(RebindCommand),
    /// Run a command as the account's own OS account
    Run(Box<RunOptions>),
    /// Submit a script to Slurm as sbatch does, for programs that have templates for batch systems
    Submit(Box<SubmitOptions>),
    /// Jobs: runs of commands
    #[command(subcommand)]
    Job(JobCommand),
    /// Show what the machine has for jobs, who uses it, and who waits why
    Queue(QueueOptions),
    /// Show what there is for jobs, on this machine and at Slurm, and what of it is free
    Resources(ResourcesOptions),
    /// Files, as the account's own OS account
    #[command(subcommand)]
    File(FileCommand),
    /// Show the quotas of the folders that the application may use
    Quota(QuotaOptions),
    /// Quotas that are nearly used up
    #[command(subcommand)]
    Alert(AlertCommand),
    /// Print figures for a monitoring system to read (administrators only)
    Metrics(MetricsOptions),
    /// Prove who an account's user is, and print the session's path
    Login(LoginOptions),
    /// Sessions: authenticated accounts, for a limited time
    #[command(subcommand)]
    Session(SessionCommand),
    /// Deputy's own records: verify, rebuild, export, import (root only)
    #[command(subcommand)]
    Store(StoreCommand),
    /// Print a script that completes deputyctl's command line
    #[command(after_help = "Example:\n  deputyctl completion bash > /etc/bash_completion.d/deputyctl")]
    Completion {
        /// For which shell
        shell: Shell,
    },
}

/// The shells whose completion can be printed.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Shell {
    /// GNU Bash
    Bash,
    /// The Z shell
    Zsh,
    /// fish
    Fish,
}

/// Whether the words of a command line ask for `run`: only the global switches can stand before it.
pub fn asks_to_run(mut words: impl Iterator<Item = std::ffi::OsString>) -> bool {
    while let Some(word) = words.next() {
        if word == "--color" {
            // The one switch whose value is a word of its own.
            words.next();
        } else if !word.as_encoded_bytes().starts_with(b"-") {
            return word == "run";
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn run_is_found_behind_global_switches_only() {
        let asks = |line: &str| asks_to_run(line.split(' ').map(Into::into));
        assert!(asks("run --nonsense"));
        assert!(asks("--json --color never run"));
        assert!(asks("--color=always run"));
        assert!(!asks("--color run job"));
        assert!(!asks("job run"));
        assert!(!asks("--run"));
    }

    #[test]
    fn the_command_of_a_job_keeps_its_own_switches() {
        for line in [
            "deputyctl run --app a --account b -- ls -l --json",
            "deputyctl run --app a --account b ls -l --json",
        ] {
            let options = Options::parse_from(line.split(' '));
            let Command::Run(run) = options.command else { panic!() };
            assert_eq!(run.command, ["ls", "-l", "--json"]);
            assert!(!options.global.json);
        }
    }

    #[test]
    fn every_command_that_does_something_has_help_with_an_example() {
        fn walk(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "{path}");
            let mut leaves = command.get_subcommands().filter(|sub| !sub.is_hide_set()).peekable();
            if leaves.peek().is_none() {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Example"), "{path} has no example");
            }
            leaves.for_each(|sub| walk(sub, &path));
        }
        walk(&Options::command(), "");
    }
}
