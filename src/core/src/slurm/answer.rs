//! What Slurm's programs say, read strictly: a line that is not of the form that was asked for is an error of the whole
//! answer, and an error is never "gone".

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::SlurmJobId;
use crate::job::{EndCause, JobEnd, Usage};

/// An answer is not of the form that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{program} answered a line that it was not asked for: {line:?}")]
pub struct AnswerError {
    program: &'static str,
    line: String,
}

fn strange(program: &'static str, line: &str) -> AnswerError {
    AnswerError { program, line: line.chars().take(200).collect() }
}

/// How a job ended, by Slurm's accounting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// How.
    pub end: JobEnd,
    /// Why it was ended, where it did not end by itself.
    pub cause: Option<EndCause>,
    /// What it used.
    pub usage: Usage,
    /// When, microseconds since 1970.
    pub ended_us: u64,
}

/// Where a job stands, by Slurm's word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SlurmState {
    /// It waits.
    Waiting {
        /// For what, in Slurm's word.
        reason: String,
    },
    /// It runs.
    Running,
    /// The queue no longer has it running, and the accounting does not have its end yet.
    Unsettled,
    /// It ended.
    Ended(Ended),
    /// It was given up before it ran.
    NeverRan {
        /// Slurm's word.
        state: String,
    },
    /// Slurm ended it in a way that has no exit: a node failed, say.
    Failed {
        /// Slurm's word.
        state: String,
    },
    /// Neither the queue nor the accounting has it.
    Gone,
}

/// The number that `sbatch --parsable` says: alone, or with a cluster behind it.
pub fn submitted(output: &str) -> Option<SlurmJobId> {
    let line = output.strip_suffix('\n').unwrap_or(output);
    let number = line.split_once(';').map_or(line, |(number, _)| number);
    job_number(number)
}

fn job_number(text: &str) -> Option<SlurmJobId> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| digits && *number > 0).map(SlurmJobId)
}

/// The numbers of a look-up, one a line.
pub fn found(output: &str) -> Result<Vec<SlurmJobId>, AnswerError> {
    output.lines().map(|line| job_number(line.trim()).ok_or_else(|| strange("the look-up", line))).collect()
}

/// Words with which `sbatch` says that it does not know what became of a submission: no refusal of Slurm's is among them.
const NO_ANSWER: [&str; 8] = [
    "contact slurm controller",
    "timed out",
    "Zero Bytes",
    "Connection",
    "connection",
    "ransport endpoint",
    "Communication",
    "Unexpected message",
];

/// What Slurm said against a submission; none where what it said is no answer.
pub fn refusal(error: &str) -> Option<String> {
    if NO_ANSWER.iter().any(|word| error.contains(word)) {
        return None;
    }
    let words: Vec<&str> = error
        .lines()
        .map(|line| line.trim().trim_start_matches("sbatch: ").trim_start_matches("error: "))
        .collect();
    // The last line is the controller's; those before it are sbatch's own.
    let shown: String = words.last()?.chars().filter(|character| !character.is_control()).take(300).collect();
    (!shown.is_empty()).then_some(shown)
}

/// A job in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued {
    /// Whose it is.
    pub uid: u32,
    /// Its name.
    pub name: String,
    /// Slurm's word.
    pub state: String,
    /// How its script ended, as the kernel says it (`wait(2)`): a number that the accounting has only in part.
    pub status: u32,
    /// For what it waits.
    pub reason: String,
}

/// The answer of `squeue`: parts of arrays and the like are left out, since none of them is a job of Deputy's. A number
/// that comes twice is an error.
pub fn queue(output: &str) -> Result<BTreeMap<SlurmJobId, Queued>, AnswerError> {
    let mut jobs = BTreeMap::new();
    for line in output.lines() {
        let mut fields = line.splitn(6, '|');
        let mut field = || fields.next().ok_or_else(|| strange("squeue", line));
        let (id, uid, name) = (field()?, field()?, field()?);
        let (state, status, reason) = (field()?, field()?, field()?);
        let word = !state.is_empty() && state.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
        let (Ok(uid), Ok(status), true, Some(reason)) =
            (uid.parse(), status.parse(), word, reason.strip_suffix('|'))
        else {
            return Err(strange("squeue", line));
        };
        let Some(id) = job_number(id) else { continue };
        let reason = reason.chars().filter(|character| !character.is_control()).take(60).collect();
        if jobs
            .insert(id, Queued { uid, name: name.to_owned(), state: state.to_owned(), status, reason })
            .is_some()
        {
            return Err(strange("squeue", line));
        }
    }
    Ok(jobs)
}

/// A job and its steps in the accounting.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounted {
    /// Whose it is.
    pub uid: Option<u32>,
    /// Its name.
    pub name: String,
    /// Slurm's word, the first one.
    pub state: String,
    exit: Exit,
    batch: Option<Exit>,
    untold: bool,
    elapsed_seconds: u64,
    user_us: u64,
    system_us: u64,
    max_rss_kib: u64,
    ended: Option<u64>,
}

/// An exit code and a signal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Exit {
    code: u8,
    signal: i32,
}

impl Exit {
    fn parse(text: &str) -> Option<Self> {
        let (code, signal) = text.split_once(':')?;
        Some(Self { code: code.parse().ok()?, signal: signal.parse().ok()? })
    }

    /// The end that this tells. `sacct` shows exit codes without their highest bit, so that of most codes it is not
    /// known which of two it was.
    fn end(self) -> Own {
        match self {
            // No signal has this number; it is how Slurm says that memory ran out.
            Self { signal: 125, .. } => Own::Known(JobEnd::Signaled { signal: 9, core: false }),
            Self { signal: 1.., .. } => Own::Known(JobEnd::Signaled { signal: self.signal, core: false }),
            Self { code: 1.., .. } => Own::OneOfTwo(self.code),
            _ => Own::Nothing,
        }
    }
}

/// How a job's script itself ended.
enum Own {
    /// Exactly so.
    Known(JobEnd),
    /// With this exit code or 128 more.
    OneOfTwo(u8),
    /// It is not told, or it ended well.
    Nothing,
}

impl Own {
    /// What the kernel's number says.
    fn from_status(status: u32) -> Self {
        match (status >> 8 & 0xff, status & 0x7f) {
            (0, 0) => Own::Nothing,
            (_, 125) => Own::Known(JobEnd::Signaled { signal: 9, core: false }),
            (_, signal @ 1..) => {
                Own::Known(JobEnd::Signaled { signal: signal.cast_signed(), core: status & 0x80 != 0 })
            }
            // It has eight bits.
            (code, _) => Own::Known(JobEnd::Exited { code: u8::try_from(code).unwrap_or(u8::MAX) }),
        }
    }

    /// The first of these that tells something.
    fn or(self, other: impl FnOnce() -> Self) -> Self {
        match self {
            Own::Nothing => other(),
            known => known,
        }
    }
}

/// The answer of `sacct`.
pub fn accounting(output: &str) -> Result<BTreeMap<SlurmJobId, Accounted>, AnswerError> {
    let mut jobs: BTreeMap<SlurmJobId, Accounted> = BTreeMap::new();
    for line in output.lines() {
        let fields: Vec<&str> = line.split('|').collect();
        let [id, uid, name, state, exit, elapsed, user, system, rss, ended] = fields[..] else {
            return Err(strange("sacct", line));
        };
        let (number, step) = id.split_once('.').map_or((id, None), |(number, step)| (number, Some(step)));
        let Some(id) = job_number(number) else { continue };
        let bad = || strange("sacct", line);
        // A step whose end nobody told has none.
        let untold = exit.is_empty() && step.is_some();
        let exit = if untold { Exit::default() } else { Exit::parse(exit).ok_or_else(bad)? };
        let rss = if rss.is_empty() { 0 } else { kibibytes(rss).ok_or_else(bad)? };
        let job = jobs.entry(id).or_default();
        job.max_rss_kib = job.max_rss_kib.max(rss);
        if let Some(step) = step {
            if step == "batch" {
                job.batch = Some(exit);
                job.untold = untold;
            }
            continue;
        }
        job.uid = Some(uid.parse().map_err(|_| bad())?);
        name.clone_into(&mut job.name);
        state.split(' ').next().unwrap_or_default().clone_into(&mut job.state);
        job.exit = exit;
        job.elapsed_seconds = elapsed.parse().map_err(|_| bad())?;
        job.user_us = cpu_time(user).ok_or_else(bad)?;
        job.system_us = cpu_time(system).ok_or_else(bad)?;
        // "Unknown" while it has not ended.
        job.ended = ended.parse().ok();
    }
    Ok(jobs)
}

/// `[DAYS-[HOURS:]]MINUTES:SECONDS[.MILLISECONDS]` in microseconds.
fn cpu_time(text: &str) -> Option<u64> {
    let (days, rest) =
        text.split_once('-').map_or((0, text), |(days, rest)| (days.parse().unwrap_or(u64::MAX), rest));
    let (whole, fraction) = rest.split_once('.').unwrap_or((rest, "0"));
    let seconds =
        whole.split(':').try_fold(0u64, |sum, part| sum.checked_mul(60)?.checked_add(part.parse().ok()?))?;
    let milli: u64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    days.checked_mul(86_400)?.checked_add(seconds)?.checked_mul(1_000_000)?.checked_add(milli * 1000)
}

/// A number with a unit, such as `1308K` or `1.50G`; without one it is bytes.
fn kibibytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let in_kib: f64 = match &text[digits.len()..] {
        "" => 1.0 / 1024.0,
        "K" => 1.0,
        "M" => 1024.0,
        "G" => 1024.0 * 1024.0,
        "T" => 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    let number: f64 = digits.parse().ok()?;
    let kib = number * in_kib;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
    (0.0..1e15).contains(&kib).then_some(kib as u64)
}

/// Where the job of this name and user stands, by both answers. What is somebody else's, or another job's, is not there.
pub fn state(name: &str, uid: u32, queued: Option<&Queued>, accounted: Option<&Accounted>) -> SlurmState {
    let queued = queued.filter(|queued| queued.uid == uid && queued.name == name);
    match queued.map(|queued| queued.state.as_str()) {
        Some(
            "PENDING" | "CONFIGURING" | "REQUEUED" | "REQUEUE_HOLD" | "REQUEUE_FED" | "SPECIAL_EXIT"
            | "RESV_DEL_HOLD",
        ) => SlurmState::Waiting { reason: queued.map(|queued| queued.reason.clone()).unwrap_or_default() },
        Some("RUNNING" | "COMPLETING" | "SUSPENDED" | "STOPPED" | "SIGNALING" | "STAGE_OUT" | "RESIZING") => {
            SlurmState::Running
        }
        in_queue => {
            match accounted.filter(|accounted| accounted.uid == Some(uid) && accounted.name == name) {
                Some(accounted) => by_accounting(accounted, queued.map_or(0, |queued| queued.status)),
                // It ended, and the accounting will hear of it.
                None if in_queue.is_some() => SlurmState::Unsettled,
                None => SlurmState::Gone,
            }
        }
    }
}

/// Whether the queue says that a job has not ended, so that the accounting need not be asked.
pub fn is_open(queued: &Queued) -> bool {
    matches!(
        state(&queued.name, queued.uid, Some(queued), None),
        SlurmState::Waiting { .. } | SlurmState::Running
    )
}

fn by_accounting(job: &Accounted, status: u32) -> SlurmState {
    let Some(ended) = job.ended else { return SlurmState::Unsettled };
    let shown = job.state.clone();
    let own = Own::from_status(status).or(|| job.batch.map_or(Own::Nothing, Exit::end)).or(|| job.exit.end());
    let (by_itself, signal, cause) = match job.state.as_str() {
        "COMPLETED" => (Some(JobEnd::Exited { code: 0 }), 0, None),
        // Not 0, and 0 without its highest bit.
        "FAILED" => (Some(JobEnd::Exited { code: 128 }), 0, None),
        // One that never ran has no first step.
        "CANCELLED" | "DEADLINE" if job.batch.is_none() && job.elapsed_seconds == 0 => {
            return SlurmState::NeverRan { state: shown };
        }
        "CANCELLED" => (None, 15, Some(EndCause::Cancelled)),
        "TIMEOUT" => (None, 15, Some(EndCause::TimeLimit)),
        "OUT_OF_MEMORY" => (None, 9, Some(EndCause::OutOfMemory)),
        "PENDING" | "RUNNING" | "SUSPENDED" | "RESIZING" | "REQUEUED" => return SlurmState::Unsettled,
        _ => return SlurmState::Failed { state: shown },
    };
    let end = match own {
        Own::Known(end) => end,
        Own::OneOfTwo(code) => {
            return SlurmState::Failed { state: format!("{shown} ({code} or {})", u16::from(code) + 128) };
        }
        // What Slurm ended has the signal that it sends, where nobody told the script's own end: a cancel that meets
        // the launch of the script leaves it so.
        Own::Nothing => match by_itself {
            Some(_) if job.untold => return SlurmState::Failed { state: shown },
            Some(end) => end,
            None => JobEnd::Signaled { signal, core: false },
        },
    };
    let usage = Usage {
        user_us: job.user_us,
        system_us: job.system_us,
        max_rss_kib: job.max_rss_kib,
        wall_us: job.elapsed_seconds.saturating_mul(1_000_000),
        ..Usage::default()
    };
    SlurmState::Ended(Ended { end, cause, usage, ended_us: ended.saturating_mul(1_000_000) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_number_is_a_submission() {
        assert_eq!(submitted("17\n"), Some(SlurmJobId(17)));
        assert_eq!(submitted("17;cluster\n"), Some(SlurmJobId(17)));
        for text in
            ["", "\n", "0", "-1", "+1", " 1", "1 ", "1\n2", "Submitted batch job 1", "99999999999", "1_2"]
        {
            assert_eq!(submitted(text), None, "{text:?}");
        }
        assert_eq!(found("5\n7\n"), Ok(vec![SlurmJobId(5), SlurmJobId(7)]));
        assert_eq!(found(""), Ok(vec![]));
        assert!(found("slurm_load_jobs error: x\n").is_err());
    }

    #[test]
    fn a_refusal_is_slurms_words_and_silence_is_none() {
        let said = "sbatch: error: invalid partition specified: nope\n\
                    sbatch: error: Batch job submission failed: Invalid partition name specified\n";
        assert_eq!(
            refusal(said).as_deref(),
            Some("Batch job submission failed: Invalid partition name specified")
        );
        for silence in [
            "",
            "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
            "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
            "sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received",
        ] {
            assert_eq!(refusal(silence), None, "{silence}");
        }
    }

    #[test]
    fn a_queue_of_another_form_is_no_queue() {
        let jobs = queue(
            "5|1001|n|PENDING|0|Resources|\n6_[1-9]|1001|n|PENDING|0|Priority|\n7|1002|n|RUNNING|0|None|\n",
        )
        .unwrap();
        assert_eq!(jobs.len(), 2);
        assert_eq!(jobs[&SlurmJobId(5)].reason, "Resources");
        assert!(is_open(&jobs[&SlurmJobId(7)]));
        for bad in [
            "slurm_load_jobs error: Unable to contact slurm controller",
            "5|1001|n|PENDING",
            "5|1001|n|PENDING|0|Resources",
            "5|1001|n|PENDING|0:0|Resources|",
            "5|x|n|PENDING|0|y|",
            "5|1001|n|pending|0|y|",
            "5|1001|n||0|y|",
            "5|1001|n|RUNNING|0|None|\n5|1001|n|COMPLETED|0|None|",
        ] {
            assert!(queue(bad).is_err(), "{bad}");
        }
    }

    fn one(rows: &str) -> SlurmState {
        let accounted = accounting(rows).unwrap();
        state("n", 1001, None, accounted.get(&SlurmJobId(5)))
    }

    fn end_of(rows: &str) -> (JobEnd, Option<EndCause>) {
        match one(rows) {
            SlurmState::Ended(ended) => (ended.end, ended.cause),
            other => panic!("{rows}: {other:?}"),
        }
    }

    #[test]
    fn ends_are_exact() {
        let signaled = |signal| JobEnd::Signaled { signal, core: false };
        for (rows, end, cause) in [
            (
                "5|1001|n|COMPLETED|0:0|101|00:00.003|00:00:00||9\n5.batch||batch|COMPLETED|0:0|101|00:00.003|00:00:00|1308K|9",
                JobEnd::Exited { code: 0 },
                None,
            ),
            ("5|1001|n|FAILED|0:0|0|00:00|00:00||9", JobEnd::Exited { code: 128 }, None),
            (
                "5|1001|n|FAILED|0:9|0|00:00|00:00||9\n5.batch||batch|CANCELLED|0:9|0|00:00|00:00||9",
                signaled(9),
                None,
            ),
            (
                "5|1001|n|CANCELLED by 1001|0:0|4|00:00|00:00||9\n5.batch||batch|CANCELLED|0:15|4|00:00|00:00||9",
                signaled(15),
                Some(EndCause::Cancelled),
            ),
            // As it is where the cancel met the launch of the script.
            (
                "5|1001|n|CANCELLED by 0|0:0|0|00:00|00:00||9\n5.batch||batch|CANCELLED||3|00:00|00:00||9",
                signaled(15),
                Some(EndCause::Cancelled),
            ),
            (
                "5|1001|n|TIMEOUT|0:0|60|00:00|00:00||9\n5.batch||batch|CANCELLED|0:15|60|00:00|00:00||9",
                signaled(15),
                Some(EndCause::TimeLimit),
            ),
            ("5|1001|n|OUT_OF_MEMORY|0:125|6|00:00|00:00||9", signaled(9), Some(EndCause::OutOfMemory)),
        ] {
            assert_eq!(end_of(rows), (end, cause), "{rows}");
        }
    }

    #[test]
    fn an_exit_code_is_the_kernels_and_never_guessed() {
        let rows = "5|1001|n|FAILED|127:0|0|00:00|00:00||9";
        let accounted = accounting(rows).unwrap();
        let with = |status: u32, state: &str| {
            let queued = queue(&format!("5|1001|n|{state}|{status}|NonZeroExitCode|")).unwrap();
            state_of(queued.get(&SlurmJobId(5)), accounted.get(&SlurmJobId(5)))
        };
        let code = |code| (JobEnd::Exited { code }, None);
        assert_eq!(with(255 << 8, "FAILED"), Some(code(255)));
        assert_eq!(with(127 << 8, "FAILED"), Some(code(127)));
        assert_eq!(with(6 | 0x80, "FAILED"), Some((JobEnd::Signaled { signal: 6, core: true }, None)));
        // The accounting alone cannot tell.
        assert_eq!(one(rows), SlurmState::Failed { state: "FAILED (127 or 255)".to_owned() });
    }

    fn state_of(
        queued: Option<&Queued>,
        accounted: Option<&Accounted>,
    ) -> Option<(JobEnd, Option<EndCause>)> {
        match state("n", 1001, queued, accounted) {
            SlurmState::Ended(ended) => Some((ended.end, ended.cause)),
            _ => None,
        }
    }

    #[test]
    fn what_never_ran_failed_without_an_exit_or_has_not_ended_is_that() {
        let word = |state: &str| state.to_owned();
        assert_eq!(
            one("5|1001|n|CANCELLED by 0|0:0|0|00:00|00:00||9"),
            SlurmState::NeverRan { state: word("CANCELLED") }
        );
        assert_eq!(
            one("5|1001|n|NODE_FAIL|0:0|7|00:00|00:00||9"),
            SlurmState::Failed { state: word("NODE_FAIL") }
        );
        // As it is where the controller died beside it.
        let untold = "5|1001|n|COMPLETED|0:0|14|00:00|00:00||9\n5.batch||batch|COMPLETED||14|00:00|00:00||9";
        assert_eq!(one(untold), SlurmState::Failed { state: word("COMPLETED") });
        assert_eq!(one("5|1001|n|RUNNING|0:0|7|00:00|00:00||Unknown"), SlurmState::Unsettled);
        // Somebody else's job of that number is nobody's answer, nor is another one of the same user.
        assert_eq!(one("5|1001|m|COMPLETED|0:0|7|00:00|00:00||9"), SlurmState::Gone);
        assert_eq!(one("5|1002|n|COMPLETED|0:0|7|00:00|00:00||9"), SlurmState::Gone);
        assert_eq!(one(""), SlurmState::Gone);
        let queued = queue("5|1001|n|COMPLETED|0|None|").unwrap();
        assert_eq!(state("n", 1001, queued.get(&SlurmJobId(5)), None), SlurmState::Unsettled);
        assert_eq!(state("n", 1002, queued.get(&SlurmJobId(5)), None), SlurmState::Gone);
    }

    #[test]
    fn an_accounting_of_another_form_is_none() {
        for bad in [
            "Slurm accounting storage is disabled",
            "5|1001|n|COMPLETED|0|1|00:00|00:00||9",
            "5|1001|n|COMPLETED|0:0|x|00:00|00:00||9",
            "5|1001|n|COMPLETED|0:0|1|00:00|00:00|12Q|9",
            "5||n|COMPLETED|0:0|1|00:00|00:00||9",
            "5|1001|n|COMPLETED|0:0|1|ab|00:00||9",
        ] {
            assert!(accounting(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_and_sizes_are_as_slurm_writes_them() {
        assert_eq!(cpu_time("00:00.003"), Some(3000));
        assert_eq!(cpu_time("00:00:07"), Some(7_000_000));
        assert_eq!(cpu_time("1-02:03:04"), Some(93_784_000_000));
        assert_eq!(cpu_time("03:04.5"), Some(184_500_000));
        assert_eq!(cpu_time("x"), None);
        assert_eq!(
            (kibibytes("1308K"), kibibytes("1.50G"), kibibytes("2048")),
            (Some(1308), Some(1_572_864), Some(2))
        );
    }
}
