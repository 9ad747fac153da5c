//! How long what jobs wrote is kept, and how much of it.
//!
//! Only jobs that have output captured keep their folders when they have ended. The oldest goes first: when its time is
//! over, when its application has too many, and when a new job needs the room.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use deputy_core::settings::{OutputSettings, RetentionSettings};
use deputy_core::{ApplicationName, Code, Denial, JobId, OsUid};

use crate::store::{Job, JobState, Timestamp};

/// Which jobs have output, and how much room it has.
#[derive(Debug, Default)]
pub struct Shelf {
    /// Those that run, with the most that they can write.
    running: HashMap<JobId, Piece>,
    /// Those that have ended, by number.
    kept: BTreeMap<u64, Ended>,
    by_uid: BTreeSet<(u32, u64)>,
    by_application: HashMap<ApplicationName, BTreeSet<u64>>,
    /// Those whose folders are to be removed.
    going: Vec<JobId>,
    /// What those that run may write, and those that are kept wrote: of one OS account, and of all.
    of_uid: HashMap<u32, u64>,
    in_all: u64,
}

#[derive(Debug, Clone, Copy)]
struct Piece {
    uid: u32,
    bytes: u64,
}

#[derive(Debug)]
struct Ended {
    id: JobId,
    application: ApplicationName,
    at: Timestamp,
    piece: Piece,
}

impl Shelf {
    /// Makes room for a job that begins and may write so many bytes. Older output goes if it has to; if that is not
    /// enough nothing goes.
    pub fn begin(
        &mut self,
        id: &JobId,
        uid: OsUid,
        bytes: u64,
        settings: &OutputSettings,
    ) -> Result<(), Denial> {
        let uid = uid.raw();
        let running = |only: Option<u32>| -> u64 {
            let pieces = self.running.values().filter(|piece| only.is_none_or(|uid| piece.uid == uid));
            pieces.map(|piece| piece.bytes).sum()
        };
        for (bound, now, rule) in [
            (settings.os_account.0, running(Some(uid)), "deputy.toml: output.os_account"),
            (settings.machine.0, running(None), "deputy.toml: output.machine"),
        ] {
            if now.saturating_add(bytes) > bound {
                return Err(Denial::new(
                    Code::Busy,
                    rule,
                    "the jobs that run now may write as much captured output as can be kept",
                )
                .remedy("wait for some of them to end, or have the job write to a file of its own"));
            }
        }
        while self.of_uid.get(&uid).copied().unwrap_or_default() + bytes > settings.os_account.0 {
            let oldest = self.by_uid.range((uid, 0)..=(uid, u64::MAX)).next().map(|(_, number)| *number);
            let Some(number) = oldest else { break };
            self.give_up(number);
        }
        while self.in_all + bytes > settings.machine.0 {
            let Some(number) = self.kept.keys().next().copied() else { break };
            self.give_up(number);
        }
        self.count(Piece { uid, bytes });
        self.running.insert(id.clone(), Piece { uid, bytes });
        Ok(())
    }

    /// A job that was begun, or one that ran when the daemon was started: it counts, whatever the bounds are.
    pub fn runs(&mut self, id: &JobId, uid: OsUid, bytes: u64) {
        if !self.running.contains_key(id) {
            let piece = Piece { uid: uid.raw(), bytes };
            self.count(piece);
            self.running.insert(id.clone(), piece);
        }
    }

    /// A job has ended. Its folder is kept if it has one with output in it.
    pub fn end(&mut self, job: &Job) {
        let begun = self.running.remove(&job.id);
        if let Some(piece) = begun {
            self.uncount(piece);
        }
        let bytes = match &job.state {
            JobState::Ended { captured, .. } => {
                let written = captured.output.saturating_add(captured.error);
                begun.map_or(written, |piece| piece.bytes.min(written))
            }
            // What there is of it is not known; what there can be is.
            JobState::Lost { .. } => begun.map_or(0, |piece| piece.bytes),
            _ => return,
        };
        let piece = Piece { uid: job.os.uid.raw(), bytes };
        self.count(piece);
        self.by_uid.insert((piece.uid, job.number));
        self.by_application.entry(job.application.clone()).or_default().insert(job.number);
        let ended = Ended {
            id: job.id.clone(),
            application: job.application.clone(),
            at: job.ended.unwrap_or_default(),
            piece,
        };
        self.kept.insert(job.number, ended);
    }

    /// Gives up what is due at this moment.
    pub fn look(&mut self, now: Timestamp, settings: &RetentionSettings) {
        let lifetime = settings.seconds.saturating_mul(1_000_000);
        let old = |ended: &Ended| ended.at.0.saturating_add(lifetime) <= now.0;
        let due: Vec<u64> =
            self.kept.iter().filter(|(_, ended)| old(ended)).map(|(number, _)| *number).collect();
        let most = usize::try_from(settings.jobs).unwrap_or(usize::MAX);
        let crowds = self.by_application.values().flat_map(|numbers| {
            numbers.iter().take(numbers.len().saturating_sub(most)).copied().collect::<Vec<_>>()
        });
        let too_many: Vec<u64> = crowds.collect();
        for number in due.into_iter().chain(too_many) {
            self.give_up(number);
        }
    }

    /// Those whose folders are to be removed, at most so many. They stay so until [`Shelf::gone`].
    pub fn going(&self, most: usize) -> Vec<JobId> {
        self.going.iter().take(most).cloned().collect()
    }

    /// Their folders are removed.
    pub fn gone(&mut self, ids: &[JobId]) {
        let gone: BTreeSet<&JobId> = ids.iter().collect();
        self.going.retain(|id| !gone.contains(id));
    }

    fn give_up(&mut self, number: u64) {
        let Some(ended) = self.kept.remove(&number) else { return };
        self.uncount(ended.piece);
        self.by_uid.remove(&(ended.piece.uid, number));
        if let Some(numbers) = self.by_application.get_mut(&ended.application) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.by_application.remove(&ended.application);
            }
        }
        self.going.push(ended.id);
    }

    fn count(&mut self, piece: Piece) {
        *self.of_uid.entry(piece.uid).or_default() += piece.bytes;
        self.in_all += piece.bytes;
    }

    fn uncount(&mut self, piece: Piece) {
        self.in_all -= piece.bytes;
        if let Some(bytes) = self.of_uid.get_mut(&piece.uid) {
            *bytes -= piece.bytes;
            if *bytes == 0 {
                self.of_uid.remove(&piece.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::shown::tests::job;
    use super::*;
    use deputy_core::job::{Enforcement, JobEnd, Usage};
    use deputy_core::size::ByteSize;
    use deputy_core::stream::Captured;

    const SETTINGS: OutputSettings =
        OutputSettings { stream: ByteSize(10), os_account: ByteSize(100), machine: ByteSize(150) };

    fn id(number: u8) -> JobId {
        JobId::from_random([number; 10])
    }

    fn uid(raw: u32) -> OsUid {
        OsUid::new(raw).unwrap()
    }

    fn ended(number: u8, of: u32, bytes: u64, seconds: u64) -> Job {
        let state = JobState::Ended {
            end: JobEnd::Exited { code: 0 },
            cause: None,
            usage: Usage::default(),
            captured: Captured { output: bytes, error: 0 },
            enforcement: Enforcement::default(),
        };
        let mut job = job(state);
        job.id = id(number);
        job.number = number.into();
        job.os.uid = uid(of);
        job.ended = Some(Timestamp(seconds * 1_000_000));
        job
    }

    #[test]
    fn what_cannot_fit_is_refused_and_costs_nobody_his_output() {
        let mut shelf = Shelf::default();
        shelf.end(&ended(1, 1001, 50, 0));
        shelf.begin(&id(2), uid(1001), 60, &SETTINGS).unwrap();
        assert_eq!(shelf.going(9), [id(1)], "the oldest goes first");
        shelf.end(&ended(3, 1002, 40, 0));
        let refused = shelf.begin(&id(4), uid(1001), 50, &SETTINGS).unwrap_err();
        assert_eq!((refused.code, refused.rule.as_str()), (Code::Busy, "deputy.toml: output.os_account"));
        shelf.begin(&id(5), uid(1003), 50, &SETTINGS).unwrap();
        let refused = shelf.begin(&id(6), uid(1004), 50, &SETTINGS).unwrap_err();
        assert_eq!(refused.rule, "deputy.toml: output.machine");
        assert_eq!(shelf.going(9), [id(1)]);
        // Another's goes where all together have too much.
        shelf.begin(&id(7), uid(1004), 10, &SETTINGS).unwrap();
        assert_eq!(shelf.going(9), [id(1), id(3)]);
    }

    #[test]
    fn a_job_that_runs_never_goes_and_an_ended_one_when_its_time_is_over() {
        let mut shelf = Shelf::default();
        let settings = RetentionSettings { seconds: 10, jobs: 2 };
        shelf.begin(&id(9), uid(1001), 10, &SETTINGS).unwrap();
        shelf.end(&ended(1, 1001, 5, 100));
        shelf.look(Timestamp(109_999_999), &settings);
        assert!(shelf.going(9).is_empty());
        shelf.look(Timestamp(110_000_000), &settings);
        assert_eq!(shelf.going(9), [id(1)]);
        shelf.gone(&[id(1)]);
        for number in 2..6 {
            shelf.end(&ended(number, 1001, 1, 200));
        }
        shelf.look(Timestamp(0), &settings);
        assert_eq!(shelf.going(9), [id(2), id(3)], "two are kept");
        shelf.look(Timestamp(u64::MAX), &settings);
        assert_eq!(shelf.going(9).len(), 4);
        assert_eq!((shelf.in_all, shelf.running.len()), (10, 1));
        assert!(shelf.kept.is_empty() && shelf.by_uid.is_empty() && shelf.by_application.is_empty());
        // It writes less than it could: the rest is free again.
        shelf.end(&ended(9, 1001, 3, 0));
        assert_eq!((shelf.in_all, shelf.of_uid[&1001]), (3, 3));
    }

    #[test]
    fn a_lost_jobs_output_counts_as_much_as_it_can_be() {
        let mut shelf = Shelf::default();
        shelf.runs(&id(1), uid(1001), 20);
        let mut lost = ended(1, 1001, 0, 0);
        lost.state = JobState::Lost { cause: String::new() };
        shelf.end(&lost);
        assert_eq!(shelf.in_all, 20);
        let mut abandoned = ended(2, 1001, 0, 0);
        abandoned.state = JobState::Abandoned { cause: String::new() };
        shelf.runs(&id(2), uid(1001), 20);
        shelf.end(&abandoned);
        assert_eq!(shelf.in_all, 20);
    }
}
