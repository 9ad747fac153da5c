//! Where a job stands, by what the queue and the accounting say together, or the queue alone.

use serde::{Deserialize, Serialize};

use super::listing::{Accounted, Exit, Listed, Queued};
use crate::job::{EndCause, JobEnd, Usage};

/// Slurm's word for a job that somebody cancelled.
pub const CANCELLED: &str = "CANCELLED";

/// Its word for a run after which there is another one.
const REQUEUED: &str = "REQUEUED";
const FAILED: &str = "FAILED";

/// Its words for a job that is over.
const ENDED: [&str; 10] = [
    "BOOT_FAIL",
    CANCELLED,
    "COMPLETED",
    "DEADLINE",
    FAILED,
    "LAUNCH_FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "TIMEOUT",
];

/// The signal with which it ends one, and one whose time is up.
pub const TERM: i32 = 15;

/// How a job ended, by Slurm's word.
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

/// What Slurm says of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Where it stands.
    pub state: SlurmState,
    /// How often it was put back into the queue after it had begun; 0 where Slurm's queue does not have it any more.
    pub restarts: u32,
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
    Running {
        /// Where its script does; empty where that is not told.
        host: String,
    },
    /// A run ends of a job that was put back into the queue. It is not told which one: the run that had to make room, or the
    /// one after it.
    Completing,
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
    /// What an exit code and a signal tell. `sacct` shows exit codes without their highest bit, so that of most codes it
    /// is not known which of two it was.
    fn from_exit(exit: Exit) -> Self {
        match exit {
            // No signal has this number; it is how Slurm says that memory ran out.
            Exit { signal: 125, .. } => Own::Known(JobEnd::Signaled { signal: 9, core: false }),
            Exit { signal: signal @ 1.., .. } => Own::Known(JobEnd::Signaled { signal, core: false }),
            Exit { code: code @ 1.., .. } => Own::OneOfTwo(code),
            _ => Own::Nothing,
        }
    }

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

/// What is said of the job of this name and user by both answers; none where they do not tell. What is somebody else's, or
/// another job's, is not there.
pub fn standing(
    name: &str,
    uid: u32,
    queued: Listed<'_, Queued>,
    accounted: Listed<'_, Accounted>,
) -> Option<Standing> {
    let queued = queued.filter(|queued| queued.uid == uid && queued.name == name);
    let accounted = accounted.filter(|accounted| accounted.uid == Some(uid) && accounted.name == name);
    let restarts = queued.entry().map_or(0, |queued| queued.restarts);
    Some(Standing { state: state(queued, accounted)?, restarts })
}

fn state(queued: Listed<'_, Queued>, accounted: Listed<'_, Accounted>) -> Option<SlurmState> {
    if queued == Listed::NoNews {
        return None;
    }
    let queued = queued.entry();
    if let Some(open) = queued.and_then(open) {
        return Some(open);
    }
    if let Some(state) = queued.and_then(|queued| between_runs(queued, accounted.entry())) {
        return Some(state);
    }
    match accounted {
        Listed::NoNews => None,
        Listed::As(accounted) => Some(by_accounting(accounted, queued.map_or(0, |queued| queued.status))),
        // It ended, and the accounting will hear of it.
        Listed::Absent if queued.is_some() => Some(SlurmState::Unsettled),
        Listed::Absent => Some(SlurmState::Gone),
    }
}

/// What the queue alone says of a job that has not ended.
pub fn open(queued: &Queued) -> Option<SlurmState> {
    match queued.state.as_str() {
        "PENDING" | "CONFIGURING" | REQUEUED | "REQUEUE_HOLD" | "REQUEUE_FED" | "SPECIAL_EXIT"
        | "RESV_DEL_HOLD" => Some(SlurmState::Waiting { reason: queued.reason.clone() }),
        "COMPLETING" if queued.restarts > 0 => Some(SlurmState::Completing),
        "RUNNING" | "COMPLETING" | "SUSPENDED" | "STOPPED" | "SIGNALING" | "STAGE_OUT" | "RESIZING" => {
            Some(SlurmState::Running { host: queued.host.clone() })
        }
        _ => None,
    }
}

/// What it means that a job has ended which was put back into the queue, where the accounting has no row of that end.
fn between_runs(queued: &Queued, accounted: Option<&Accounted>) -> Option<SlurmState> {
    if queued.restarts == 0 {
        return None;
    }
    let given_up = matches!(queued.state.as_str(), CANCELLED | "DEADLINE");
    let never_ran = SlurmState::NeverRan { state: queued.state.clone() };
    let earlier = |row: &Accounted| row.ended.zip(queued.started).is_some_and(|(ended, begun)| ended < begun);
    match accounted {
        // It waited for a further run.
        _ if given_up && queued.host.is_empty() => Some(never_ran),
        // The row is of an earlier run; that of the last one is on its way.
        Some(row) if earlier(row) => Some(SlurmState::Unsettled),
        // The run that was to make room was still ending.
        Some(row) if given_up && row.state == REQUEUED => Some(never_ran),
        _ => None,
    }
}

/// Where the job of this name and user stands at a cluster without accounting, by the queue alone; none where it does not
/// tell. Of a job that has ended it has the whole exit, for as long as it keeps it.
pub fn by_queue_alone(name: &str, uid: u32, queued: Listed<'_, Queued>) -> Option<Standing> {
    match queued.filter(|queued| queued.uid == uid && queued.name == name) {
        Listed::NoNews => None,
        Listed::Absent => Some(Standing { state: SlurmState::Gone, restarts: 0 }),
        Listed::As(queued) => {
            let state = open(queued).or_else(|| by_queue(queued))?;
            Some(Standing { state, restarts: queued.restarts })
        }
    }
}

/// A word that is not known is no end.
fn by_queue(job: &Queued) -> Option<SlurmState> {
    let own = Own::from_status(job.status);
    let over = Over {
        state: &job.state,
        // A failure has an exit, and nothing of it is hidden here.
        untold: job.state == FAILED && matches!(own, Own::Nothing),
        own,
        // One that waits to run again has no node, but may have the time of the run before.
        never_ran: job.host.is_empty() && (job.elapsed_seconds == 0 || job.restarts > 0),
        usage: Usage { wall_us: job.elapsed_seconds.saturating_mul(1_000_000), ..Usage::default() },
        ended: job.ended,
    };
    let known = ENDED.contains(&job.state.as_str());
    known.then(|| over.state())
}

fn by_accounting(job: &Accounted, status: u32) -> SlurmState {
    let own = Own::from_status(status)
        .or(|| job.batch.map_or(Own::Nothing, Own::from_exit))
        .or(|| Own::from_exit(job.exit));
    let usage = Usage {
        user_us: job.user_us,
        system_us: job.system_us,
        max_rss_kib: job.max_rss_kib,
        wall_us: job.elapsed_seconds.saturating_mul(1_000_000),
        ..Usage::default()
    };
    let over = Over {
        state: &job.state,
        own,
        // One that never ran has no first step.
        never_ran: job.batch.is_none() && job.elapsed_seconds == 0,
        untold: job.untold,
        usage,
        ended: job.ended,
    };
    over.state()
}

/// What is told of a job that is over.
struct Over<'a> {
    /// Slurm's word.
    state: &'a str,
    own: Own,
    never_ran: bool,
    /// Whether nobody told an end of its script, so that nothing said of it means nothing.
    untold: bool,
    usage: Usage,
    /// Seconds since 1970.
    ended: Option<u64>,
}

impl Over<'_> {
    fn state(self) -> SlurmState {
        let Some(ended) = self.ended else { return SlurmState::Unsettled };
        let shown = self.state.to_owned();
        let (by_itself, signal, cause) = match self.state {
            "COMPLETED" => (Some(JobEnd::Exited { code: 0 }), 0, None),
            // Not 0, and 0 without its highest bit.
            FAILED => (Some(JobEnd::Exited { code: 128 }), 0, None),
            CANCELLED | "DEADLINE" if self.never_ran => return SlurmState::NeverRan { state: shown },
            CANCELLED => (None, TERM, Some(EndCause::Cancelled)),
            "TIMEOUT" => (None, TERM, Some(EndCause::TimeLimit)),
            "OUT_OF_MEMORY" => (None, 9, Some(EndCause::OutOfMemory)),
            "PENDING" | "RUNNING" | "SUSPENDED" | "RESIZING" | REQUEUED => return SlurmState::Unsettled,
            _ => return SlurmState::Failed { state: shown },
        };
        let end = match self.own {
            Own::Known(end) => end,
            Own::OneOfTwo(code) => {
                return SlurmState::Failed {
                    state: format!("{shown} ({code} or {})", u16::from(code) + 128),
                };
            }
            // What Slurm ended has the signal that it sends, where nobody told the script's own end: a cancel that meets
            // the launch of the script leaves it so.
            Own::Nothing => match by_itself {
                Some(_) if self.untold => return SlurmState::Failed { state: shown },
                Some(end) => end,
                None => JobEnd::Signaled { signal, core: false },
            },
        };
        SlurmState::Ended(Ended { end, cause, usage: self.usage, ended_us: ended.saturating_mul(1_000_000) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::SlurmJobId;
    use super::super::listing::{accounting, queue};
    use super::*;

    const FIVE: SlurmJobId = SlurmJobId(5);

    fn state(
        name: &str,
        uid: u32,
        queued: Listed<'_, Queued>,
        accounted: Listed<'_, Accounted>,
    ) -> Option<SlurmState> {
        standing(name, uid, queued, accounted).map(|standing| standing.state)
    }

    fn one(rows: &str) -> SlurmState {
        state("n", 1001, Listed::Absent, accounting(rows).about(FIVE)).unwrap()
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
        let accounted = accounting(rows);
        let with = |status: u32, state: &str| {
            let queued = queue(&format!("5|1001|n|{state}|{status}|n1|0|3|N/A|0:00|NonZeroExitCode|"));
            state_of(queued.about(FIVE), accounted.about(FIVE))
        };
        let code = |code| (JobEnd::Exited { code }, None);
        assert_eq!(with(255 << 8, "FAILED"), Some(code(255)));
        assert_eq!(with(127 << 8, "FAILED"), Some(code(127)));
        assert_eq!(with(6 | 0x80, "FAILED"), Some((JobEnd::Signaled { signal: 6, core: true }, None)));
        // The accounting alone cannot tell.
        assert_eq!(one(rows), SlurmState::Failed { state: "FAILED (127 or 255)".to_owned() });
    }

    fn state_of(
        queued: Listed<'_, Queued>,
        accounted: Listed<'_, Accounted>,
    ) -> Option<(JobEnd, Option<EndCause>)> {
        match state("n", 1001, queued, accounted) {
            Some(SlurmState::Ended(ended)) => Some((ended.end, ended.cause)),
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
        // As it is where srun gave one back that waited.
        for status in ["-1", "-2"] {
            let queued = queue(&format!("5|1001|n|CANCELLED|{status}|localhost|0|3|N/A|0:00|Resources|"));
            let cancelled = accounting("5|1001|n|CANCELLED by 1001|0:0|0|00:00|00:00||9");
            assert_eq!(
                state("n", 1001, queued.about(FIVE), cancelled.about(FIVE)),
                Some(SlurmState::NeverRan { state: word("CANCELLED") })
            );
        }
        // Somebody else's job of that number is nobody's answer, nor is another one of the same user.
        assert_eq!(one("5|1001|m|COMPLETED|0:0|7|00:00|00:00||9"), SlurmState::Gone);
        assert_eq!(one("5|1002|n|COMPLETED|0:0|7|00:00|00:00||9"), SlurmState::Gone);
        assert_eq!(one(""), SlurmState::Gone);
        let queued = queue("5|1001|n|COMPLETED|0|n1|0|3|N/A|0:00|None|");
        let of = |uid| state("n", uid, queued.about(FIVE), Listed::Absent);
        assert_eq!((of(1001), of(1002)), (Some(SlurmState::Unsettled), Some(SlurmState::Gone)));
    }

    #[test]
    fn of_a_job_that_was_put_back_only_the_end_of_its_last_run_counts() {
        let told = |queued: &str, accounted: &str| {
            let (queued, accounted) = (queue(queued), accounting(accounted));
            standing("n", 1001, queued.about(FIVE), accounted.about(FIVE)).unwrap()
        };
        let said = |queued: &str, accounted: &str| {
            let Standing { state, restarts } = told(queued, accounted);
            assert_eq!(restarts, 1, "{queued}");
            Some(state)
        };
        // As Slurm says it from the moment of the requeue on.
        let put_back =
            "5|1001|n|REQUEUED|0:0|1|00:00|00:00||17\n5.batch||batch|CANCELLED|0:15|1|00:00|00:00||17";
        assert_eq!(
            said("5|1001|n|COMPLETING|0|n1|1|16|N/A|0:00|None|", put_back),
            Some(SlurmState::Completing)
        );
        let waits = Some(SlurmState::Waiting { reason: "BeginTime".into() });
        assert_eq!(said("5|1001|n|PENDING|0|n/a|1|138|N/A|0:00|BeginTime|", put_back), waits);
        assert_eq!(said("5|1001|n|PENDING|768|n/a|1|N/A|N/A|0:00|BeginTime|", put_back), waits);
        let runs = Some(SlurmState::Running { host: "n1".into() });
        assert_eq!(said("5|1001|n|RUNNING|0|n1|1|138|N/A|0:00|None|", put_back), runs);
        // It was cancelled where it waited.
        let never = Some(SlurmState::NeverRan { state: CANCELLED.to_owned() });
        for cancelled in [
            "5|1001|n|CANCELLED|0|n/a|1|40|N/A|0:00|BeginTime|",
            "5|1001|n|CANCELLED|0|n1|1|16|N/A|0:00|None|",
        ] {
            assert_eq!(said(cancelled, put_back), never, "{cancelled}");
        }
        // Its last run was cancelled, and the accounting will have that.
        let last = "5|1001|n|CANCELLED|0|n1|1|138|N/A|0:00|None|";
        assert_eq!(said(last, put_back), Some(SlurmState::Unsettled));
        // The accounting does not have the last run yet, whatever it says of the one before.
        let ended = "5|1001|n|FAILED|768|n1|1|138|N/A|0:00|NonZeroExitCode|";
        for earlier in ["REQUEUED", "NODE_FAIL", "PREEMPTED", "COMPLETED"] {
            let row = format!("5|1001|n|{earlier}|0:0|1|00:00|00:00||17");
            assert_eq!(said(ended, &row), Some(SlurmState::Unsettled), "{earlier}");
        }
        let last = "5|1001|n|FAILED|3:0|0|00:00|00:00||138\n5.batch||batch|FAILED|3:0|0|00:00|00:00||138";
        let Some(SlurmState::Ended(last)) = said(ended, last) else { panic!("it has ended") };
        assert_eq!((last.end, last.ended_us), (JobEnd::Exited { code: 3 }, 138_000_000));
        // Of one that was never put back this is as ever.
        let node_fail = "5|1001|n|NODE_FAIL|0:0|1|00:00|00:00||17";
        let failed = SlurmState::Failed { state: "NODE_FAIL".into() };
        let row = "5|1001|n|NODE_FAIL|0|n1|0|138|N/A|0:00|NodeDown|";
        assert_eq!(told(row, node_fail), Standing { state: failed, restarts: 0 });
        assert_eq!(told("", put_back), Standing { state: SlurmState::Unsettled, restarts: 0 });
        // Neither is the count of somebody else's job.
        let strangers = "5|1002|n|RUNNING|0|n1|1|138|N/A|0:00|None|";
        assert_eq!(told(strangers, ""), Standing { state: SlurmState::Gone, restarts: 0 });
    }

    #[test]
    fn a_list_that_cannot_be_relied_on_says_nothing_and_never_gone() {
        let (silent, nine) = (Listed::<Accounted>::NoNews, accounting("9|x"));
        assert_eq!(state("n", 1001, Listed::Absent, silent), None);
        assert_eq!(state("n", 1001, Listed::Absent, nine.about(FIVE)), None);
        assert_eq!(state("n", 1001, queue("x").about(FIVE), Listed::Absent), None);
        // The accounting alone would tell one of two codes, where the queue tells the code.
        let ended = accounting("5|1001|n|FAILED|127:0|0|00:00|00:00||9");
        assert_eq!(state("n", 1001, queue("5|x").about(FIVE), ended.about(FIVE)), None);
        let runs = queue("5|1001|n|RUNNING|0|n1|0|3|N/A|0:00|None|");
        assert_eq!(
            state("n", 1001, runs.about(FIVE), Listed::NoNews),
            Some(SlurmState::Running { host: "n1".into() })
        );
    }

    fn alone(row: &str) -> Option<SlurmState> {
        by_queue_alone("n", 1001, queue(row).about(FIVE)).map(|standing| standing.state)
    }

    #[test]
    fn a_queue_alone_tells_the_whole_exit_and_never_a_success_by_guess() {
        let (timeout, cancelled, memory) = (EndCause::TimeLimit, EndCause::Cancelled, EndCause::OutOfMemory);
        let signaled = |signal, core| JobEnd::Signaled { signal, core };
        for (row, end, cause) in [
            ("COMPLETED|0|n1|0|3|9|0:01|None|", JobEnd::Exited { code: 0 }, None),
            ("FAILED|768|n1|0|3|9|0:01|NonZeroExitCode|", JobEnd::Exited { code: 3 }, None),
            ("FAILED|65280|n1|0|3|9|0:01|NonZeroExitCode|", JobEnd::Exited { code: 255 }, None),
            ("FAILED|134|n1|0|3|9|0:01|JobLaunchFailure|", signaled(6, true), None),
            ("CANCELLED|15|n1|0|3|9|0:01|None|", signaled(15, false), Some(cancelled)),
            ("CANCELLED|0|n1|0|3|9|0:01|None|", signaled(15, false), Some(cancelled)),
            ("TIMEOUT|15|n1|0|3|9|0:01|TimeLimit|", signaled(15, false), Some(timeout)),
            ("OUT_OF_MEMORY|125|n1|0|3|9|0:01|OutOfMemory|", signaled(9, false), Some(memory)),
        ] {
            let usage = Usage { wall_us: 1_000_000, ..Usage::default() };
            let ended = Ended { end, cause, usage, ended_us: 9_000_000 };
            assert_eq!(alone(&format!("5|1001|n|{row}")), Some(SlurmState::Ended(ended)), "{row}");
        }
        let word = |state: &str| state.to_owned();
        for (row, state) in [
            ("FAILED|0|n1|0|3|9|0:01|NonZeroExitCode|", SlurmState::Failed { state: word("FAILED") }),
            ("FAILED|4294967294|n1|0|3|9|0:01|None|", SlurmState::Failed { state: word("FAILED") }),
            ("NODE_FAIL|0|n1|0|3|9|0:01|None|", SlurmState::Failed { state: word("NODE_FAIL") }),
            ("CANCELLED|0|n/a|0|3|9|0:00|JobHeldUser|", SlurmState::NeverRan { state: word(CANCELLED) }),
            // While it waited to run again.
            ("CANCELLED|0|n/a|1|40|9|0:07|BeginTime|", SlurmState::NeverRan { state: word(CANCELLED) }),
            ("COMPLETED|0|n1|0|3|N/A|0:01|None|", SlurmState::Unsettled),
            ("COMPLETING|0|n1|0|3|9|0:01|None|", SlurmState::Running { host: word("n1") }),
            ("PENDING|0|n/a|0|3|N/A|0:00|Priority|", SlurmState::Waiting { reason: word("Priority") }),
        ] {
            assert_eq!(alone(&format!("5|1001|n|{row}")), Some(state), "{row}");
        }
        // What is not there, or somebody else's, is not there; what is not told, or by no known word, is no end.
        for absent in
            ["", "5|1002|n|COMPLETED|0|n1|0|3|9|0:01|None|", "5|1001|m|COMPLETED|0|n1|0|3|9|0:01|None|"]
        {
            assert_eq!(alone(absent), Some(SlurmState::Gone), "{absent}");
        }
        for silent in ["5|x", "5|1001|n|COMPLETED|0|n1|None|", "5|1001|n|NEW_WORD|0|n1|0|3|9|0:01|None|"] {
            assert_eq!(alone(silent), None, "{silent}");
        }
    }
}
