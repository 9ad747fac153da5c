//! Running commands, jobs, logins and sessions.

use clap::{Args, Subcommand, ValueEnum};
use deputy_core::ids::JobId;
use deputy_core::names::{AccountName, ApplicationName};
use deputy_core::slurm::ClusterName;
use zbus::OwnedObjectPath;

use super::accounts::ByOption;
use crate::bus;

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
        /// Only those in this state: queued, starting, running, ending, done, lost, abandoned
        #[arg(long)]
        state: Option<String>,
        /// Only those of this array
        #[arg(long, value_name = "ID", value_parser = parse_job)]
        array: Option<JobId>,
        /// Only those at this cluster of Slurm's
        #[arg(long, value_name = "NAME")]
        cluster: Option<ClusterName>,
    },
    /// Show one job
    #[command(after_help = "Example:\n  deputyctl job show abcdefghijklmnop")]
    Show {
        /// The job's id, or its D-Bus path
        #[arg(value_name = "ID", value_parser = parse_job)]
        job: JobId,
    },
    /// Cancel a job, or a whole array: TERM now, KILL after the grace
    #[command(
        after_help = "Examples:\n  deputyctl job cancel abcdefghijklmnop --grace 30\n  deputyctl job cancel --array ponmlkjihgfedcba"
    )]
    Cancel {
        /// The job's id, or its D-Bus path
        #[arg(value_name = "ID", value_parser = parse_job, required_unless_present = "array")]
        job: Option<JobId>,
        /// Cancel each job of this array that has not ended, instead
        #[arg(long, value_name = "ID", value_parser = parse_job, conflicts_with_all = ["job", "grace"])]
        array: Option<JobId>,
        /// Seconds between the two signals (10 if not given)
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=3600))]
        grace: Option<u32>,
        /// Who acts
        #[command(flatten)]
        by: ByOption,
    },
    /// Print what a job wrote to a captured stream, or to a file
    #[command(
        after_help = "Examples:\n  deputyctl job logs abcdefghijklmnop\n  deputyctl job logs -f --stderr abcdefghijklmnop",
        after_long_help = "Examples:\n  deputyctl job logs abcdefghijklmnop\n  deputyctl job logs -f --stderr \
                           abcdefghijklmnop\n\nOf what is longer than policy lets Deputy keep there are the beginning and \
                           the latest; a line '[deputy: N bytes left out]' stands for the rest.\n\nA file is read as the \
                           job's OS account: by its owner as himself, and through the application beneath the roots of its \
                           policy."
    )]
    Logs {
        /// The job's id, or its D-Bus path
        #[arg(value_name = "ID", value_parser = parse_job)]
        job: JobId,
        /// Go on until the job has ended
        #[arg(short, long)]
        follow: bool,
        /// What it wrote to standard error, instead of standard output
        #[arg(long)]
        stderr: bool,
        /// Begin at this byte
        #[arg(long, value_name = "BYTE", default_value_t = 0)]
        offset: u64,
        /// Who acts
        #[command(flatten)]
        by: ByOption,
    },
    /// Wait until a job has ended; the exit status is the job's own
    #[command(after_help = "Example:\n  deputyctl job wait abcdefghijklmnop")]
    Wait {
        /// The job's id, or its D-Bus path
        #[arg(value_name = "ID", value_parser = parse_job)]
        job: JobId,
    },
    /// Have a job that waits at Slurm wait until it is released
    #[command(after_help = "Example:\n  deputyctl job hold abcdefghijklmnop")]
    Hold {
        /// The job's id, or its D-Bus path
        #[arg(value_name = "ID", value_parser = parse_job)]
        job: JobId,
        /// Who acts
        #[command(flatten)]
        by: ByOption,
    },
    /// Let a job that is held at Slurm go on
    #[command(after_help = "Example:\n  deputyctl job release abcdefghijklmnop")]
    Release {
        /// The job's id, or its D-Bus path
        #[arg(value_name = "ID", value_parser = parse_job)]
        job: JobId,
        /// Who acts
        #[command(flatten)]
        by: ByOption,
    },
    /// Have a job that runs at Slurm run again, where it was submitted with --requeue
    #[command(after_help = "Example:\n  deputyctl job requeue abcdefghijklmnop")]
    Requeue {
        /// The job's id, or its D-Bus path
        #[arg(value_name = "ID", value_parser = parse_job)]
        job: JobId,
        /// Who acts
        #[command(flatten)]
        by: ByOption,
    },
    /// Send a signal to a job's first process
    #[command(after_help = "Example:\n  deputyctl job signal abcdefghijklmnop USR1")]
    Signal {
        /// The job's id, or its D-Bus path
        #[arg(value_name = "ID", value_parser = parse_job)]
        job: JobId,
        /// The signal, by its name or number
        #[arg(value_name = "SIGNAL", value_parser = parse_signal)]
        signal: i32,
        /// Who acts
        #[command(flatten)]
        by: ByOption,
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

pub(super) fn parse_session(text: &str) -> Result<OwnedObjectPath, &'static str> {
    const WHAT: &str = "a session is named by the path that 'deputyctl login' printed";
    if !text.starts_with(bus::SESSION_PREFIX) {
        return Err(WHAT);
    }
    OwnedObjectPath::try_from(text).map_err(|_| WHAT)
}

/// The signals of Linux by name, from 1 on.
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// Other names of the same signals.
const ALIASES: [(&str, &str); 4] = [("IOT", "ABRT"), ("CLD", "CHLD"), ("POLL", "IO"), ("INFO", "PWR")];

/// The first and the last real-time signal, as the C library counts: it keeps two of the kernel's for its threads.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// The number of a signal by its name, with or without SIG, or as a number.
fn parse_signal(text: &str) -> Result<i32, &'static str> {
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let name = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, known)| known);
    let named = (1..).zip(SIGNALS).find(|(_, known)| *known == name).map(|(number, _)| number);
    named
        .or_else(|| real_time(name))
        .or_else(|| text.parse().ok().filter(|number| (1..=RTMAX).contains(number)))
        .ok_or("a signal is a number from 1 to 64, or a name such as TERM, USR1, STOP or RTMIN+1")
}

/// The number of `RTMIN`, `RTMIN+N`, `RTMAX` or `RTMAX-N`.
fn real_time(name: &str) -> Option<i32> {
    // Digits alone: a second sign is none.
    let count = |rest: &str, sign| match rest.strip_prefix(sign) {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse::<i32>().ok(),
        Some(_) => None,
        None => rest.is_empty().then_some(0),
    };
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        RTMIN.checked_add(count(rest, '+')?)?
    } else {
        RTMAX.checked_sub(count(name.strip_prefix("RTMAX")?, '-')?)?
    };
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

/// A signal as people know it.
pub fn signal_name(number: i32) -> String {
    let known = usize::try_from(number - 1).ok().and_then(|at| SIGNALS.get(at));
    match (known, number) {
        (Some(name), _) => format!("SIG{name}"),
        (None, RTMIN) => "SIGRTMIN".to_owned(),
        (None, RTMAX) => "SIGRTMAX".to_owned(),
        (None, RTMIN..=RTMAX) => format!("SIGRTMIN+{}", number - RTMIN),
        (None, _) => format!("signal {number}"),
    }
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
    fn what_is_no_signal_is_refused() {
        for text in [
            "0",
            "65",
            "-1",
            "",
            "SIG",
            "NOSUCH",
            "SIGSIGTERM",
            "TERM ",
            "RTMIN+31",
            "RTMAX-31",
            "RTMIN-1",
            "RTMAX+1",
            "RTMIN+",
            "RTMIN+-1",
            "RTMIN++1",
            "RTMIN1",
            "RT",
            "RTMIN+99999999999",
        ] {
            assert!(parse_signal(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_signal_has_a_name_or_a_number() {
        for (text, number) in [
            ("term", 15),
            ("SIGUSR1", 10),
            ("9", 9),
            ("64", 64),
            ("SYS", 31),
            ("hup", 1),
            ("SIGCLD", 17),
            ("poll", 29),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("rtmin+30", 64),
            ("RTMAX", 64),
            ("SIGRTMAX-1", 63),
        ] {
            assert_eq!(parse_signal(text), Ok(number), "{text}");
        }
        // Each is told by a name that is understood again, but for the two of the C library.
        for number in (1..=64).filter(|number| ![32, 33].contains(number)) {
            assert_eq!(parse_signal(&signal_name(number)), Ok(number));
        }
        assert_eq!(
            (signal_name(17), signal_name(40), signal_name(33)),
            ("SIGCHLD".into(), "SIGRTMIN+6".into(), "signal 33".into())
        );
    }
}
