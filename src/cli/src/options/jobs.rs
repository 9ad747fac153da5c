//! Running commands, jobs, logins and sessions.

use std::ffi::OsString;

use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::{Args, Subcommand, ValueEnum};
use deputy_core::ids::JobId;
use deputy_core::names::{AccountName, ApplicationName, KindName};
use deputy_core::project::ProjectKey;
use zbus::OwnedObjectPath;

use super::accounts::ByOption;
use crate::bus;

/// One run of a command.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  deputyctl run --app portal --account alice -- id\n  deputyctl run --app portal --account \
                  alice --cwd /data/lab1 --env LANG=C -- sort in.txt > out.txt",
    after_long_help = "Examples:\n  deputyctl run --app portal --account alice -- id\n  deputyctl run --app portal \
                       --account alice --cwd /data/lab1 --env LANG=C -- sort in.txt > out.txt\n\n\
                       Standard input, output and error are handed to the job as they are; a terminal is not: its bytes \
                       are copied, so that a job never holds it.\n\nThe first SIGINT, SIGTERM or SIGHUP cancels the job; \
                       a second one ends deputyctl.\n\nExit status: the job's own; 128+N if signal N ended it; 125 if \
                       Deputy refused or failed; 126 if the command cannot be executed; 127 if it is not there."
)]
pub struct RunOptions {
    /// The application
    #[arg(long = "app", value_name = "APP")]
    pub application: ApplicationName,
    /// The account
    #[arg(long, value_name = "NAME")]
    pub account: AccountName,
    /// The account's session, as 'deputyctl login' printed it; not needed where the application vouches
    #[arg(long, value_name = "PATH", value_parser = parse_session)]
    pub session: Option<OwnedObjectPath>,
    /// The kind of job, on which policy decides
    #[arg(long, value_name = "K")]
    pub kind: Option<KindName>,
    /// The project that it belongs to: it runs as the OS account that was pinned there
    #[arg(long, value_name = "OWNER/NAME")]
    pub project: Option<ProjectKey>,
    /// The working directory; without it, the home directory
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<OsString>,
    /// A variable of the job's environment; may be given several times
    #[arg(long = "env", value_name = "K=V", value_parser = OsStringValueParser::new().try_map(check_variable))]
    pub environment: Vec<OsString>,
    /// The program (an absolute path, or a plain name that is looked up as the OS account) and its arguments
    #[arg(value_name = "CMD", required = true, trailing_var_arg = true)]
    pub command: Vec<OsString>,
}

/// What to do with jobs.
#[derive(Debug, Subcommand)]
pub enum JobCommand {
    /// List jobs, the latest first
    #[command(after_help = "Example:\n  deputyctl job list portal --state running")]
    List {
        /// Only those of this application
        #[arg(value_name = "APP")]
        application: Option<ApplicationName>,
        /// Only those of this account
        #[arg(long, value_name = "NAME")]
        account: Option<AccountName>,
        /// Only those in this state: queued, running, done, lost, abandoned
        #[arg(long)]
        state: Option<String>,
    },
    /// Show one job
    #[command(after_help = "Example:\n  deputyctl job show abcdefghijklmnop")]
    Show {
        /// The job's id, or its D-Bus path
        #[arg(value_name = "ID", value_parser = parse_job)]
        job: JobId,
    },
    /// Cancel a job: TERM now, KILL after the grace
    #[command(after_help = "Example:\n  deputyctl job cancel abcdefghijklmnop --grace 30")]
    Cancel {
        /// The job's id, or its D-Bus path
        #[arg(value_name = "ID", value_parser = parse_job)]
        job: JobId,
        /// Seconds between the two signals (10 if not given)
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=3600))]
        grace: Option<u32>,
    },
}

/// A login.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  deputyctl login portal alice\n  deputyctl login portal alice --method password\n  \
                  session=$(deputyctl login portal alice --answers-fd 3 3< answers)"
)]
pub struct LoginOptions {
    /// The application
    #[arg(value_name = "APP")]
    pub application: ApplicationName,
    /// The account
    #[arg(value_name = "NAME")]
    pub account: AccountName,
    /// By what
    #[arg(long, value_enum, default_value_t = LoginMethod::Os)]
    pub method: LoginMethod,
    /// Read the answers from this descriptor, one per line, instead of from the terminal
    #[arg(long, value_name = "N")]
    pub answers_fd: Option<u32>,
}

/// By what an account proves itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LoginMethod {
    /// What the login of the linked OS account asks for
    Os,
    /// A password of the account's own, kept by Deputy
    Password,
}

/// What to do with sessions.
#[derive(Debug, Subcommand)]
pub enum SessionCommand {
    /// List the sessions of an application
    #[command(after_help = "Example:\n  deputyctl session list portal --account alice")]
    List {
        /// The application
        #[arg(value_name = "APP")]
        application: ApplicationName,
        /// Only those of this account
        #[arg(long, value_name = "NAME")]
        account: Option<AccountName>,
        /// Who acts
        #[command(flatten)]
        by: ByOption,
    },
    /// Keep a session alive, as any use of it does
    #[command(after_help = "Example:\n  deputyctl session extend \"$session\"")]
    Extend {
        /// The session's path, as 'deputyctl login' printed it
        #[arg(value_name = "PATH", value_parser = parse_session)]
        session: OwnedObjectPath,
    },
    /// Show a session
    #[command(after_help = "Example:\n  deputyctl session show \"$session\"")]
    Show {
        /// The session's path, as 'deputyctl login' printed it
        #[arg(value_name = "PATH", value_parser = parse_session)]
        session: OwnedObjectPath,
    },
    /// Close a session
    #[command(after_help = "Example:\n  deputyctl session close \"$session\"")]
    Close {
        /// The session's path, as 'deputyctl login' printed it
        #[arg(value_name = "PATH", value_parser = parse_session)]
        session: OwnedObjectPath,
    },
}

fn check_variable(variable: OsString) -> Result<OsString, &'static str> {
    match variable.as_encoded_bytes().iter().position(|&byte| byte == b'=') {
        Some(1..) => Ok(variable),
        _ => Err("a variable is given as NAME=VALUE"),
    }
}

fn parse_session(text: &str) -> Result<OwnedObjectPath, &'static str> {
    const WHAT: &str = "a session is named by the path that 'deputyctl login' printed";
    if !text.starts_with(bus::SESSION_PREFIX) {
        return Err(WHAT);
    }
    OwnedObjectPath::try_from(text).map_err(|_| WHAT)
}

fn parse_job(text: &str) -> Result<JobId, deputy_core::ids::TokenError> {
    text.strip_prefix(bus::JOB_PREFIX).unwrap_or(text).parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_named_by_its_id_or_path_and_by_nothing_else() {
        let id = "abcdefghijklmnop";
        assert_eq!(parse_job(id).unwrap().as_str(), id);
        assert_eq!(parse_job(&format!("{}{id}", bus::JOB_PREFIX)).unwrap().as_str(), id);
        assert!(parse_job("../x").is_err());
    }

    #[test]
    fn a_session_is_a_path_of_sessions() {
        assert!(parse_session("/org/deputy/Deputy1/session/abc").is_ok());
        for text in [
            "/org/deputy/Deputy1/job/abc",
            "/org/deputy/Deputy1/session/",
            "/org/deputy/Deputy1/session/a b",
            "x",
        ] {
            assert!(parse_session(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_variable_needs_a_name() {
        assert!(check_variable("A=b=c".into()).is_ok());
        assert!(check_variable("A=".into()).is_ok());
        assert!(check_variable("=b".into()).is_err());
        assert!(check_variable("A".into()).is_err());
    }
}
