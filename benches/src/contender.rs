//! Who is measured.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

/// The OS account that everything runs as.
pub const USER: &str = "alice";
/// The application's service user.
pub const PORTAL: &str = "portal";
/// The program.
pub const PROGRAM: &str = "/bin/true";

/// Names in the report.
pub const DEPUTY: &str = "deputy";
/// The reference with the same PAM calls.
pub const LIMIT: &str = "limit";
/// `runuser`.
pub const RUNUSER: &str = "runuser";
/// `sudo -n`.
pub const SUDO: &str = "sudo";

/// Something that runs a program as an OS account.
pub trait Contender {
    /// Its name in the report.
    fn name(&self) -> &'static str;
    /// What it is.
    fn what(&self) -> &'static str;
    /// Whether its throughput is measured as well.
    fn runs_side_by_side(&self) -> bool {
        false
    }
    /// So many launches, at most so many at once; the nanoseconds of all.
    fn launch(&mut self, count: usize, width: usize) -> Result<u64>;
}

/// All of them, ready.
pub fn all() -> Result<Vec<Box<dyn Contender>>> {
    let limit = |mode: &str| -> Result<Process> {
        let mut command = Command::new("deputy-bench-limit");
        command.args([mode, USER, PROGRAM]);
        Process::start(command)
    };
    let mut portal = Command::new("runuser");
    portal.args(["-u", PORTAL, "--", "deputy-bench", "portal"]);
    Ok(vec![
        Box::new(LongLived {
            name: DEPUTY,
            what: "D-Bus, PAM account and session, durable records",
            side_by_side: true,
            process: Process::start(portal)?,
        }),
        Box::new(LongLived {
            name: LIMIT,
            what: "in C: fork, the same PAM calls, fork, exec",
            side_by_side: true,
            process: limit("pam")?,
        }),
        Box::new(LongLived {
            name: "bare",
            what: "in C: fork, initgroups, set ids, exec",
            side_by_side: false,
            process: limit("bare")?,
        }),
        Box::new(Once {
            name: "setpriv",
            what: "setpriv --reuid --regid --init-groups",
            argv: vec!["setpriv", "--reuid", USER, "--regid", USER, "--init-groups", "--", PROGRAM],
        }),
        Box::new(Once {
            name: RUNUSER,
            what: "runuser -u",
            argv: vec!["runuser", "-u", USER, "--", PROGRAM],
        }),
        Box::new(Once {
            name: SUDO,
            what: "sudo -n -u",
            argv: vec!["sudo", "-n", "-u", USER, "--", PROGRAM],
        }),
    ])
}

/// A program that stays and is told "COUNT WIDTH", and answers with nanoseconds.
struct Process {
    _child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(mut command: Command) -> Result<Self> {
        let name = format!("{command:?}");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| name.clone())?;
        let input = child.stdin.take().context("a pipe")?;
        let output = BufReader::new(child.stdout.take().context("a pipe")?);
        let mut process = Self { _child: child, input, output };
        process.ask(1, 1).with_context(|| name.clone())?;
        Ok(process)
    }

    fn ask(&mut self, count: usize, width: usize) -> Result<u64> {
        writeln!(self.input, "{count} {width}")?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        line.trim().parse().context("it ended, or answered something else than a number")
    }
}

struct LongLived {
    name: &'static str,
    what: &'static str,
    side_by_side: bool,
    process: Process,
}

impl Contender for LongLived {
    fn name(&self) -> &'static str {
        self.name
    }

    fn what(&self) -> &'static str {
        self.what
    }

    fn runs_side_by_side(&self) -> bool {
        self.side_by_side
    }

    fn launch(&mut self, count: usize, width: usize) -> Result<u64> {
        self.process.ask(count, width)
    }
}

/// A command that is started for each launch.
struct Once {
    name: &'static str,
    what: &'static str,
    argv: Vec<&'static str>,
}

impl Contender for Once {
    fn name(&self) -> &'static str {
        self.name
    }

    fn what(&self) -> &'static str {
        self.what
    }

    fn launch(&mut self, count: usize, _: usize) -> Result<u64> {
        let start = Instant::now();
        for _ in 0..count {
            let status = Command::new(self.argv[0]).args(&self.argv[1..]).stdin(Stdio::null()).status()?;
            ensure!(status.success(), "{:?}: {status}", self.argv);
        }
        Ok(u64::try_from(start.elapsed().as_nanos())?)
    }
}
