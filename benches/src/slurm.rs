//! What a submission to Slurm costs through Deputy, beside `sbatch` by the user himself; and how often Slurm is asked where
//! jobs stand and what that costs its controller, beside one question for each job.
//!
//! All jobs are held, so that nothing but submissions and questions happens. Questions are counted twice: by programs that
//! take note of each call, and by the controller itself (`sdiag`). One question for each job is asked for a sample of them.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use crate::contender::{PORTAL, USER, portal};
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

/// For how many jobs one question for each is asked.
const SAMPLE: usize = 200;

/// Rounds that are not counted.
const WARM_UP: usize = 3;

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// How often each was measured.
    pub rounds: usize,
    /// Median of a submission by the user's own `sbatch`, in nanoseconds.
    pub sbatch_ns: u64,
    /// Median of a process of the user's that does nothing, started as `sbatch` is, in nanoseconds.
    pub nothing_ns: u64,
    /// Median of one by `deputyctl`, in nanoseconds.
    pub deputy_ns: u64,
    /// Median of one by an application that is connected to the bus, as portals are, in nanoseconds.
    pub connected_ns: u64,
    /// How many jobs were followed.
    pub followed: u32,
    /// How long those took to come to Slurm that were submitted as an array, in milliseconds; 0 if there were none.
    pub array_ms: u64,
    /// How many of Slurm's programs asked about them in one minute.
    pub questions: u64,
    /// What the controller had from that minute.
    pub together: Load,
    /// How many would ask, with one for each job.
    pub one_for_each: u64,
    /// What the controller had from one question for each of so many.
    pub sample: usize,
    /// That.
    pub apart: Load,
}

/// What Slurm's controller had to do.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Load {
    /// Calls for lists of jobs.
    pub calls: u64,
    /// Its CPU time, in milliseconds.
    pub cpu_ms: u64,
}

impl Load {
    /// What it has while this is done.
    fn of(work: impl FnOnce() -> Result<()>) -> Result<Self> {
        let reset = Command::new("sdiag").arg("--reset").output().context("sdiag")?;
        ensure!(reset.status.success(), "sdiag --reset: {}", String::from_utf8_lossy(&reset.stderr));
        let before = controller_cpu_ms()?;
        work()?;
        let cpu_ms = controller_cpu_ms()? - before;
        let said = Command::new("sdiag").output().context("sdiag")?;
        let calls = job_lists(&String::from_utf8_lossy(&said.stdout));
        Ok(Self { calls, cpu_ms })
    }

    /// As much as so many times this, in so many parts.
    fn times(self, times: u64, parts: u64) -> Self {
        Self { calls: self.calls * times / parts, cpu_ms: self.cpu_ms * times / parts }
    }
}

/// How many calls for lists of jobs `sdiag` has counted.
fn job_lists(said: &str) -> u64 {
    let by_type = said.split("Remote Procedure Call statistics by user").next().unwrap_or_default();
    let lines = by_type.lines().map(str::trim).filter(|line| line.starts_with("REQUEST_JOB_"));
    lines
        .filter(|line| line.starts_with("REQUEST_JOB_INFO") || line.starts_with("REQUEST_JOB_USER_INFO"))
        .filter_map(|line| line.split("count:").nth(1)?.split_whitespace().next()?.parse::<u64>().ok())
        .sum()
}

/// The CPU time that the controller has used until now.
fn controller_cpu_ms() -> Result<u64> {
    let pid = fs::read_to_string("/run/deputy-sandbox/slurmctld.pid").context("the controller's pid")?;
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim()))?;
    // Behind the name, which can have anything in it: user and system time are the 12th and 13th, in hundredths of a second.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(ticks * 10)
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
    let mut portal = portal(&["--submits"])?;
    let mut measured = [const { Vec::new() }; 4];
    for round in 0..WARM_UP + rounds {
        let once = [time(USER, &own)?, time(USER, &["true"])?, time(PORTAL, &deputy)?, portal.ask(1, 1)?];
        for (all, one) in measured.iter_mut().zip(once) {
            all.extend((round >= WARM_UP).then_some(one));
        }
    }
    let [sbatch_ns, nothing_ns, deputy_ns, connected_ns] = measured.map(|mut all| quantile(&mut all, 50));
    // By Deputy; and one more by the portal, when it began.
    let submitted = u32::try_from(2 * (WARM_UP + rounds) + 1)?;
    let mut array_ms = 0;
    if followed > submitted {
        let begun = Instant::now();
        let indices = format!("1-{}", followed - submitted);
        let array = [&deputy[..8], &["--array", &indices], &deputy[8..]].concat();
        time(PORTAL, &array)?;
        at_slurm(u32::try_from(WARM_UP + rounds)? + followed)?;
        array_ms = u64::try_from(begun.elapsed().as_millis())?;
    }
    count_calls()?;
    fs::write(SETTINGS, format!("{settings}\n{operator}programs = \"{COUNTED}\"\n"))?;
    // The first question by the new settings.
    std::thread::sleep(Duration::from_secs(15));
    fs::write(CALLS, "")?;
    let together = Load::of(|| {
        std::thread::sleep(MINUTE);
        Ok(())
    })?;
    let questions = fs::read_to_string(CALLS)?.lines().count() as u64;
    let jobs = numbers(SAMPLE)?;
    ensure!(!jobs.is_empty(), "Slurm has no job to ask about");
    let apart = Load::of(|| {
        for job in &jobs {
            // As JupyterHub's batchspawner asks.
            time(USER, &["squeue", "--noheader", &format!("--jobs={job}"), "--format=%T %B"])?;
        }
        Ok(())
    })?;
    let followed = followed.max(submitted);
    let one_for_each = u64::from(followed) * 60 / POLL_SECONDS;
    let sample = jobs.len();
    Ok(Report {
        rounds,
        sbatch_ns,
        nothing_ns,
        deputy_ns,
        connected_ns,
        followed,
        array_ms,
        questions,
        together,
        one_for_each,
        sample,
        apart,
    })
}

/// The numbers of so many jobs.
fn numbers(most: usize) -> Result<Vec<String>> {
    let queue = Command::new("squeue").args(["--noheader", "--format=%i"]).output().context("squeue")?;
    let text = String::from_utf8(queue.stdout)?;
    Ok(text.split_whitespace().take(most).map(str::to_owned).collect())
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
    let mut text = format!("One submission; medians of {}.\n\n", report.rounds);
    let _ = writeln!(text, "{:34} {:>8.2} ms", "sbatch by the user", ms(report.sbatch_ns));
    let _ = writeln!(text, "{:34} {:>8.2} ms", "deputyctl run --executor slurm", ms(report.deputy_ns));
    let _ = writeln!(
        text,
        "{:34} {:>8.2} times, {:+.2} ms",
        "",
        ratio(report.deputy_ns, report.sbatch_ns),
        ms(report.deputy_ns) - ms(report.sbatch_ns)
    );
    // What comes before the program of a process is not in it.
    let sbatch_itself = report.sbatch_ns.saturating_sub(report.nothing_ns);
    let _ = writeln!(text, "{:34} {:>8.2} ms", "a process that does nothing", ms(report.nothing_ns));
    let _ = writeln!(text, "{:34} {:>8.2} ms", "sbatch without that", ms(sbatch_itself));
    let _ = writeln!(text, "{:34} {:>8.2} ms", "Jobs.Run, by a connected portal", ms(report.connected_ns));
    let _ = writeln!(text, "{:34} {:+14.2} ms", "", ms(report.connected_ns) - ms(sbatch_itself));
    if report.array_ms > 0 {
        let each = ratio(report.array_ms, u64::from(report.followed));
        let _ = writeln!(text, "{:34} {each:>8.2} ms for each job", "deputyctl run --array, at Slurm");
    }
    let apart = report.apart.times(report.one_for_each, report.sample as u64);
    let _ = writeln!(
        text,
        "\nQuestions to Slurm in a minute about {} jobs that wait: programs started, calls to its controller,",
        report.followed
    );
    let _ = writeln!(text, "and that one's CPU time, with whatever else it does.\n");
    let mut row = |what: &str, programs: u64, load: Load| {
        let _ = writeln!(text, "{what:34} {programs:>8} {:>8} {:>8} ms", load.calls, load.cpu_ms);
    };
    row("Deputy, asking for all", report.questions, report.together);
    row(&format!("one for each, every {POLL_SECONDS} s"), report.one_for_each, apart);
    let _ = writeln!(
        text,
        "\nThe second row is {} such questions, times {:.1}.",
        report.sample,
        ratio(report.one_for_each, report.sample as u64)
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_type_and_once() {
        let said = "Remote Procedure Call statistics by message type\n\
                    \tREQUEST_JOB_INFO                        ( 2003) count:12     ave_time:30     total_time:360\n\
                    \tREQUEST_PARTITION_INFO                  ( 2009) count:3      ave_time:3      total_time:9\n\
                    \tREQUEST_JOB_INFO_SINGLE                 ( 2021) count:5      ave_time:3      total_time:15\n\n\
                    Remote Procedure Call statistics by user\n\
                    \troot            (       0) count:99     ave_time:3      total_time:9\n";
        assert_eq!(job_lists(said), 17);
        assert_eq!(Load { calls: 200, cpu_ms: 100 }.times(10_000, 200).calls, 10_000);
    }
}
