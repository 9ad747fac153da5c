//! Who is measured.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use crate::processes;

/// The OS account that everything runs as.
pub const USER: &str = "alice";
/// The application's service user.
pub const PORTAL: &str = "portal";
/// The program.
pub const PROGRAM: &str = "/bin/true";

/// Names in the report.
pub const DEPUTY: &str = "deputy";
/// The same, by a client that watches its job with a second call.
pub const TWO_CALLS: &str = "two calls";
/// The reference with the same PAM calls.
pub const LIMIT: &str = "limit";
/// `runuser`.
pub const RUNUSER: &str = "runuser";
/// `systemd-run`, where systemd is there to be asked.
pub const SYSTEMD_RUN: &str = "systemd-run";
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
    /// The processes that its launches are the work of, by name; none where they are not known.
    fn processes(&self) -> Result<Vec<(&'static str, Vec<i32>)>> {
        Ok(Vec::new())
    }
    /// So many launches, at most so many at once; the nanoseconds of all.
    fn launch(&mut self, count: usize, width: usize) -> Result<u64>;
}

/// Whether systemd is the first process here (`sd_booted(3)`).
pub fn systemd_booted() -> bool {
    std::path::Path::new("/run/systemd/system").is_dir()
}

/// Who cannot be measured here, and why.
pub type Missing = (&'static str, &'static str);

/// All of them.
pub struct Contenders {
    /// Those that can be measured here.
    pub ready: Vec<Box<dyn Contender>>,
    /// The others.
    pub missing: Vec<Missing>,
}

/// Makes all of them ready.
pub fn all() -> Result<Contenders> {
    let limit = |mode: &str| -> Result<Process> {
        let mut command = Command::new("deputy-bench-limit");
        command.args([mode, USER, PROGRAM]);
        Process::start(command)
    };
    let mut all: Vec<Box<dyn Contender>> = vec![
        Box::new(LongLived {
            name: DEPUTY,
            what: "D-Bus, PAM account and session, durable records",
            side_by_side: true,
            daemons: true,
            process: portal(&[])?,
        }),
        Box::new(LongLived {
            name: TWO_CALLS,
            what: "the same, watched with a second call",
            side_by_side: false,
            daemons: true,
            process: portal(&["--two-calls"])?,
        }),
        Box::new(LongLived {
            name: LIMIT,
            what: "in C: fork, the same PAM calls, fork, exec",
            side_by_side: true,
            daemons: false,
            process: limit("pam")?,
        }),
        Box::new(LongLived {
            name: "bare",
            what: "in C: fork, initgroups, set ids, exec",
            side_by_side: false,
            daemons: false,
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
    ];
    let mut missing = Vec::new();
    if std::path::Path::new("/usr/bin/sudo").is_file() {
        all.push(Box::new(Once {
            name: SUDO,
            what: "sudo -n -u",
            argv: vec!["sudo", "-n", "-u", USER, "--", PROGRAM],
        }));
    } else {
        missing.push((SUDO, "not measured: it is not installed here"));
    }
    if systemd_booted() {
        all.push(Box::new(Once {
            name: SYSTEMD_RUN,
            what: "systemd-run --uid --wait",
            argv: vec!["systemd-run", "--quiet", "--collect", "--wait", "--uid", USER, "--", PROGRAM],
        }));
    } else {
        missing.push((SYSTEMD_RUN, "not measured: systemd is not the first process here (BENCH=container)"));
    }
    Ok(Contenders { ready: all, missing })
}

/// The connected client, as the application's service user.
pub fn portal(more: &[&str]) -> Result<Process> {
    let mut command = Command::new("runuser");
    command.args(["-u", PORTAL, "--", "deputy-bench", "portal"]).args(more);
    Process::start(command)
}

/// A program that stays and is told "COUNT WIDTH", and answers with nanoseconds.
pub struct Process {
    child: Child,
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
        let mut process = Self { child, input, output };
        process.ask(1, 1).with_context(|| name.clone())?;
        Ok(process)
    }

    /// So many, at most so many at once; the nanoseconds of all.
    pub fn ask(&mut self, count: usize, width: usize) -> Result<u64> {
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
    /// Whether Deputy's daemons do the work, and the process only asks.
    daemons: bool,
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

    fn processes(&self) -> Result<Vec<(&'static str, Vec<i32>)>> {
        if !self.daemons {
            return Ok(vec![("itself", vec![i32::try_from(self.process.child.id())?])]);
        }
        let all = ["deputyd", "deputy-launcher", "dbus-daemon"];
        // Of the launcher the first only: the others are its children, and are counted with it when it has waited.
        all.into_iter()
            .map(|name| {
                let mut pids = processes::named(name)?;
                pids.truncate(if name == "deputy-launcher" { 1 } else { pids.len() });
                Ok((name, pids))
            })
            .collect()
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
