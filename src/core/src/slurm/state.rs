//! Where a job stands, by what the queue and the accounting say together.

use serde::{Deserialize, Serialize};

use super::listing::{Accounted, Exit, Listed, Queued};
use crate::job::{EndCause, JobEnd, Usage};

/// Slurm's word for a job that somebody cancelled.
pub const CANCELLED: &str = "CANCELLED";

/// Its word for a run after which there is another one.
const REQUEUED: &str = "REQUEUED";

/// The signal with which it ends one, and one whose time is up.
pub const TERM: i32 = 15;

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

fn by_accounting(job: &Accounted, status: u32) -> SlurmState {
    let Some(ended) = job.ended else { return SlurmState::Unsettled };
    let shown = job.state.clone();
    let own = Own::from_status(status)
        .or(|| job.batch.map_or(Own::Nothing, Own::from_exit))
        .or(|| Own::from_exit(job.exit));
    let (by_itself, signal, cause) = match job.state.as_str() {
        "COMPLETED" => (Some(JobEnd::Exited { code: 0 }), 0, None),
        // Not 0, and 0 without its highest bit.
        "FAILED" => (Some(JobEnd::Exited { code: 128 }), 0, None),
        // One that never ran has no first step.
        CANCELLED | "DEADLINE" if job.batch.is_none() && job.elapsed_seconds == 0 => {
            return SlurmState::NeverRan { state: shown };
        }
        CANCELLED => (None, TERM, Some(EndCause::Cancelled)),
        "TIMEOUT" => (None, TERM, Some(EndCause::TimeLimit)),
        "OUT_OF_MEMORY" => (None, 9, Some(EndCause::OutOfMemory)),
        "PENDING" | "RUNNING" | "SUSPENDED" | "RESIZING" | REQUEUED => return SlurmState::Unsettled,
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
            let queued = queue(&format!("5|1001|n|{state}|{status}|n1|0|3|NonZeroExitCode|"));
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
            let queued = queue(&format!("5|1001|n|CANCELLED|{status}|localhost|0|3|Resources|"));
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
        let queued = queue("5|1001|n|COMPLETED|0|n1|0|3|None|");
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
        assert_eq!(said("5|1001|n|COMPLETING|0|n1|1|16|None|", put_back), Some(SlurmState::Completing));
        let waits = Some(SlurmState::Waiting { reason: "BeginTime".into() });
        assert_eq!(said("5|1001|n|PENDING|0|n/a|1|138|BeginTime|", put_back), waits);
        assert_eq!(said("5|1001|n|PENDING|768|n/a|1|N/A|BeginTime|", put_back), waits);
        let runs = Some(SlurmState::Running { host: "n1".into() });
        assert_eq!(said("5|1001|n|RUNNING|0|n1|1|138|None|", put_back), runs);
        // It was cancelled where it waited.
        let never = Some(SlurmState::NeverRan { state: CANCELLED.to_owned() });
        for cancelled in ["5|1001|n|CANCELLED|0|n/a|1|40|BeginTime|", "5|1001|n|CANCELLED|0|n1|1|16|None|"] {
            assert_eq!(said(cancelled, put_back), never, "{cancelled}");
        }
        // Its last run was cancelled, and the accounting will have that.
        let last = "5|1001|n|CANCELLED|0|n1|1|138|None|";
        assert_eq!(said(last, put_back), Some(SlurmState::Unsettled));
        // The accounting does not have the last run yet, whatever it says of the one before.
        let ended = "5|1001|n|FAILED|768|n1|1|138|NonZeroExitCode|";
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
        let row = "5|1001|n|NODE_FAIL|0|n1|0|138|NodeDown|";
        assert_eq!(told(row, node_fail), Standing { state: failed, restarts: 0 });
        assert_eq!(told("", put_back), Standing { state: SlurmState::Unsettled, restarts: 0 });
        // Neither is the count of somebody else's job.
        let strangers = "5|1002|n|RUNNING|0|n1|1|138|None|";
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
        let runs = queue("5|1001|n|RUNNING|0|n1|0|3|None|");
        assert_eq!(
            state("n", 1001, runs.about(FIVE), Listed::NoNews),
            Some(SlurmState::Running { host: "n1".into() })
        );
    }
}
