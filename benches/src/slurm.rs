//! What a submission to Slurm costs through Deputy, beside `sbatch` by the user himself; and how often Slurm is asked where
//! jobs stand, beside one question for each job.
//!
//! All jobs are held, so that nothing but submissions and questions happens.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use crate::contender::{PORTAL, USER};
use crate::deputy::APPLICATION;
use crate::statistics::{quantile, ratio};

/// Slurm's programs, each of which takes note that it was called.
const COUNTED: &str = "/etc/slurm/counted";
const CALLS: &str = "/srv/slurm-calls";
const SETTINGS: &str = "/etc/deputy/deputy.toml";

/// For how long questions are counted.
const MINUTE: Duration = Duration::from_secs(60);

/// How often who asks for each job by itself does that, in seconds: `JupyterHub`'s default.
const POLL_SECONDS: u64 = 30;

/// Rounds that are not counted.
const WARM_UP: usize = 3;

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// How often each was measured.
    pub rounds: usize,
    /// Median of a submission by the user's own `sbatch`, in nanoseconds.
    pub sbatch_ns: u64,
    /// Median of one by `deputyctl`, in nanoseconds.
    pub deputy_ns: u64,
    /// How many jobs were followed.
    pub followed: u32,
    /// How many of Slurm's programs asked about them in one minute.
    pub questions: u64,
    /// How many would, with one for each job.
    pub one_for_each: u64,
}

/// Measures. Needs root in a sandbox with Slurm, both daemons, and the person of the other measurements.
pub fn measure(rounds: usize, followed: u32) -> Result<Report> {
    let settings = fs::read_to_string(SETTINGS).unwrap_or_default();
    let operator = "[executor.slurm]\noperator = \"slurm\"\n";
    fs::write(SETTINGS, format!("{settings}\n{operator}"))?;
    fs::write("/srv/held.sh", "#!/bin/sh\ntrue\n")?;
    let own = [
        "sbatch",
        "--parsable",
        "--hold",
        "--export=NONE",
        "--chdir=/",
        "--output=/dev/null",
        "/srv/held.sh",
    ];
    let deputy = ["deputyctl", "run", "--app", APPLICATION, "--account", USER, "--hold", "--detach"];
    let deputy = [&deputy[..], &["--executor", "slurm", "--", "true"]].concat();
    let (mut by_own, mut by_deputy) = (Vec::new(), Vec::new());
    for round in 0..WARM_UP + rounds {
        let (one, other) = (time(USER, &own)?, time(PORTAL, &deputy)?);
        if round >= WARM_UP {
            by_own.push(one);
            by_deputy.push(other);
        }
    }
    let (sbatch_ns, deputy_ns) = (quantile(&mut by_own, 50), quantile(&mut by_deputy, 50));
    let submitted = u32::try_from(WARM_UP + rounds)?;
    if followed > submitted {
        let indices = format!("1-{}", followed - submitted);
        let array = [&deputy[..8], &["--array", &indices], &deputy[8..]].concat();
        time(PORTAL, &array)?;
        at_slurm(2 * submitted + (followed - submitted))?;
    }
    count_calls()?;
    fs::write(SETTINGS, format!("{settings}\n{operator}programs = \"{COUNTED}\"\n"))?;
    // The first question by the new settings.
    std::thread::sleep(Duration::from_secs(15));
    fs::write(CALLS, "")?;
    std::thread::sleep(MINUTE);
    let questions = fs::read_to_string(CALLS)?.lines().count() as u64;
    let followed = followed.max(submitted);
    let one_for_each = u64::from(followed) * 60 / POLL_SECONDS;
    Ok(Report { rounds, sbatch_ns, deputy_ns, followed, questions, one_for_each })
}

/// Waits until Slurm has so many jobs.
fn at_slurm(jobs: u32) -> Result<()> {
    let begun = Instant::now();
    loop {
        let queue = Command::new("squeue").args(["--noheader", "--format=%i"]).output().context("squeue")?;
        if queue.stdout.split(|&byte| byte == b'\n').count() > jobs as usize {
            return Ok(());
        }
        ensure!(begun.elapsed() < Duration::from_secs(1800), "the jobs did not come to Slurm in time");
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Puts programs in place that take note of each call.
fn count_calls() -> Result<()> {
    fs::create_dir_all(COUNTED)?;
    fs::write(CALLS, "")?;
    fs::set_permissions(CALLS, fs::Permissions::from_mode(0o666))?;
    for program in ["sbatch", "scancel", "scontrol", "squeue", "sacct"] {
        let path = format!("{COUNTED}/{program}");
        fs::write(&path, format!("#!/bin/sh\necho {program} >> {CALLS}\nexec /usr/bin/{program} \"$@\"\n"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// How long a command takes as somebody, in nanoseconds.
fn time(user: &str, command: &[&str]) -> Result<u64> {
    let begun = Instant::now();
    let output =
        Command::new("runuser").args(["-u", user, "--"]).args(command).output().context("runuser")?;
    let elapsed = begun.elapsed();
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(u64::try_from(elapsed.as_nanos())?)
}

/// The report as a table.
pub fn table(report: &Report) -> String {
    let ms = |nanoseconds: u64| ratio(nanoseconds, 1_000_000);
    let mut text = format!("One submission, as a process of its own; medians of {}.\n\n", report.rounds);
    let _ = writeln!(text, "{:34} {:>8.2} ms", "sbatch by the user", ms(report.sbatch_ns));
    let _ = writeln!(text, "{:34} {:>8.2} ms", "deputyctl run --executor slurm", ms(report.deputy_ns));
    let _ = writeln!(
        text,
        "{:34} {:>8.2} times, {:+.2} ms",
        "",
        ratio(report.deputy_ns, report.sbatch_ns),
        ms(report.deputy_ns) - ms(report.sbatch_ns)
    );
    let _ = writeln!(text, "\nQuestions to Slurm in a minute about {} jobs that wait.\n", report.followed);
    let _ = writeln!(text, "{:34} {:>8}", "Deputy, asking for all", report.questions);
    let _ =
        writeln!(text, "{:34} {:>8}", format!("one for each, every {POLL_SECONDS} s"), report.one_for_each);
    text
}
