//! The lists of `squeue` and `sacct`, line by line.
//!
//! A line that is not of the form that was asked for takes the word from its own job and from no other. While there is
//! such a line, that a job is not in the list means nothing: the line may have been about it.

use std::collections::{BTreeMap, BTreeSet};

use super::SlurmJobId;
use super::answer::job_number;

/// A list, as far as it can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing<T> {
    jobs: BTreeMap<SlurmJobId, T>,
    /// Those about which a line says what cannot be read.
    doubtful: BTreeSet<SlurmJobId>,
    strange: Vec<String>,
}

/// What a list says about a job.
#[derive(Debug, PartialEq, Eq)]
pub enum Listed<'a, T> {
    /// This.
    As(&'a T),
    /// It is not there.
    Absent,
    /// Nothing that can be relied on.
    NoNews,
}

impl<'a, T> Listed<'a, T> {
    /// What is not this is not there.
    #[must_use]
    pub fn filter(self, wanted: impl FnOnce(&T) -> bool) -> Self {
        match self {
            Listed::As(entry) if !wanted(entry) => Listed::Absent,
            other => other,
        }
    }

    /// The entry, if there is one.
    pub fn entry(&self) -> Option<&'a T> {
        match self {
            Listed::As(entry) => Some(entry),
            _ => None,
        }
    }
}

impl<T> Default for Listing<T> {
    fn default() -> Self {
        Self { jobs: BTreeMap::new(), doubtful: BTreeSet::new(), strange: Vec::new() }
    }
}

impl<T> Listing<T> {
    /// What it says about a job.
    pub fn about(&self, job: SlurmJobId) -> Listed<'_, T> {
        match self.jobs.get(&job) {
            _ if self.doubtful.contains(&job) => Listed::NoNews,
            Some(entry) => Listed::As(entry),
            None if self.strange.is_empty() => Listed::Absent,
            None => Listed::NoNews,
        }
    }

    /// The lines that could not be read, each cut off.
    pub fn strange(&self) -> &[String] {
        &self.strange
    }

    /// Takes note of a line that cannot be read; `id` is where its job's number is.
    fn doubt(&mut self, id: Option<SlurmJobId>, line: &str) {
        self.doubtful.extend(id);
        self.strange.push(line.chars().take(200).collect());
    }
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
    /// Where its script runs, or did; empty where it never had a node.
    pub host: String,
    /// How often it was put back into the queue after it had begun.
    pub restarts: u32,
    /// When its latest run began, or is to begin, seconds since 1970; none where that is not said.
    pub started: Option<u64>,
    /// When it ended, seconds since 1970; of one that has not, when it will at the latest, if that is known.
    pub(super) ended: Option<u64>,
    /// For how long it has run, or did, whole seconds.
    pub(super) elapsed_seconds: u64,
    /// For what it waits.
    pub reason: String,
}

/// The list of `squeue`. Parts of arrays and the like are left out, since none of them is a job of Deputy's. A number that
/// comes twice is read neither time.
pub fn queue(output: &str) -> Listing<Queued> {
    let mut listing = Listing::default();
    for line in output.lines() {
        let id = line.split('|').next().unwrap_or_default();
        if is_part(id) {
            continue;
        }
        let id = job_number(id);
        match id.zip(queued(line)) {
            Some((id, job)) => {
                if listing.jobs.insert(id, job).is_some() {
                    listing.doubt(Some(id), line);
                }
            }
            None => listing.doubt(id, line),
        }
    }
    listing
}

/// Whether this is the number of a part: of an array, or of a job that has several.
fn is_part(id: &str) -> bool {
    let whole = id.split(['_', '+']).next().filter(|whole| *whole != id);
    whole.is_some_and(|whole| job_number(whole).is_some())
}

fn is_host(text: &str) -> bool {
    text.len() <= 255 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// The number of an end, of 16 bits. Others are Slurm's words for none, as of what `srun` gave back while it waited.
fn status(text: &str) -> Option<u32> {
    let number: i64 = text.parse().ok()?;
    Some(u16::try_from(number).unwrap_or(0).into())
}

/// Whole seconds of a time that the queue tells; none where it has a word instead, as where a clock was set back.
fn elapsed(text: &str) -> u64 {
    cpu_time(text).map_or(0, |micros| micros / 1_000_000)
}

fn queued(line: &str) -> Option<Queued> {
    let mut fields = line.splitn(11, '|').skip(1);
    let mut field = || fields.next();
    let (uid, name) = (field()?.parse().ok()?, field()?.to_owned());
    let (state, status, host) = (field()?, status(field()?)?, field()?);
    let (restarts, started) = (field()?.parse().ok()?, field()?.parse().ok());
    let (ended, elapsed_seconds, reason) =
        (field()?.parse().ok(), elapsed(field()?), field()?.strip_suffix('|')?);
    let word = !state.is_empty() && state.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    let reason = reason.chars().filter(|character| !character.is_control()).take(60).collect();
    // "n/a" while it has none; and a time that is none is "N/A".
    let host = if is_host(host) { host.to_owned() } else { String::new() };
    let state = state.to_owned();
    word.then_some(Queued {
        uid,
        name,
        state,
        status,
        host,
        restarts,
        started,
        ended,
        elapsed_seconds,
        reason,
    })
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
    pub(super) exit: Exit,
    pub(super) batch: Option<Exit>,
    pub(super) untold: bool,
    pub(super) elapsed_seconds: u64,
    pub(super) user_us: u64,
    pub(super) system_us: u64,
    pub(super) max_rss_kib: u64,
    pub(super) ended: Option<u64>,
}

/// An exit code and a signal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Exit {
    pub code: u8,
    pub signal: i32,
}

impl Exit {
    fn parse(text: &str) -> Option<Self> {
        let (code, signal) = text.split_once(':')?;
        Some(Self { code: code.parse().ok()?, signal: signal.parse().ok()? })
    }
}

/// The list of `sacct`: jobs, each with its steps.
pub fn accounting(output: &str) -> Listing<Accounted> {
    let mut listing = Listing::default();
    for line in output.lines() {
        let id = line.split(['.', '|']).next().unwrap_or_default();
        let id = job_number(id);
        let read = id.and_then(|id| add(listing.jobs.entry(id).or_default(), line));
        if read.is_none() {
            listing.doubt(id, line);
        }
    }
    // Steps alone are no job.
    listing.jobs.retain(|_, job| job.uid.is_some());
    listing
}

/// Adds a line to what is known of its job; none if it cannot be read.
fn add(job: &mut Accounted, line: &str) -> Option<()> {
    let fields: Vec<&str> = line.split('|').collect();
    let [id, uid, name, state, exit, elapsed, user, system, rss, ended] = fields[..] else {
        return None;
    };
    let step = id.split_once('.').map(|(_, step)| step);
    // A step whose end nobody told has none.
    let untold = exit.is_empty() && step.is_some();
    let exit = if untold { Exit::default() } else { Exit::parse(exit)? };
    let rss = if rss.is_empty() { 0 } else { kibibytes(rss)? };
    job.max_rss_kib = job.max_rss_kib.max(rss);
    if let Some(step) = step {
        if step == "batch" {
            job.batch = Some(exit);
            job.untold = untold;
        }
        return Some(());
    }
    job.uid = Some(uid.parse().ok()?);
    name.clone_into(&mut job.name);
    state.split(' ').next().unwrap_or_default().clone_into(&mut job.state);
    job.exit = exit;
    job.elapsed_seconds = elapsed.parse().ok()?;
    job.user_us = cpu_time(user)?;
    job.system_us = cpu_time(system)?;
    // "Unknown" while it has not ended.
    job.ended = ended.parse().ok();
    Some(())
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

#[cfg(test)]
mod tests {
    use super::*;

    const FIVE: SlurmJobId = SlurmJobId(5);
    const NINE: SlurmJobId = SlurmJobId(9);

    #[test]
    fn a_queue_has_jobs_and_no_parts_of_jobs() {
        let jobs = queue(
            "5|1001|n|PENDING|0|n1|0|3|N/A|0:00|Resources|\n6_[1-9]|1001|n|PENDING|0|Priority|\n8+1|1001|n|PENDING|0|n1|0|3|N/A|0:00|Priority|\n\
             7|1002|n|RUNNING|0|n1|0|3|N/A|0:00|None|\n",
        );
        assert_eq!((jobs.jobs.len(), jobs.strange().len()), (2, 0));
        assert_eq!(jobs.about(FIVE).entry().unwrap().reason, "Resources");
        assert_eq!(jobs.about(NINE), Listed::Absent);
    }

    #[test]
    fn a_strange_line_of_the_queue_takes_the_word_from_its_own_job_alone() {
        let good = "5|1001|n|PENDING|0|n1|0|3|N/A|0:00|Resources|\n";
        for bad in [
            "9|1001|n|PENDING",
            "9|1001|n|PENDING|0|n1|0|3|N/A|0:00|Resources",
            "9|1001|n|PENDING|0:0|n1|0|3|N/A|0:00|Resources|",
            "9|x|n|PENDING|0|n1|0|3|N/A|0:00|y|",
            "9|1001|n|pending|0|n1|0|3|N/A|0:00|y|",
            "9|1001|n||0|n1|0|3|N/A|0:00|y|",
            "9|1001|n|RUNNING|0|n1|0|3|N/A|0:00|None|\n9|1001|n|COMPLETED|0|n1|0|3|N/A|0:00|None|",
            "slurm_load_jobs error: Unable to contact slurm controller",
            "_9|1001|n|RUNNING|0|n1|0|3|N/A|0:00|None|",
            "",
            "|",
        ] {
            let jobs = queue(&format!("{bad}\n{good}{bad}\n"));
            assert!(jobs.about(FIVE).entry().is_some(), "{bad}");
            assert_eq!(jobs.about(NINE), Listed::NoNews, "{bad}");
            // Neither is any other job gone.
            assert_eq!(jobs.about(SlurmJobId(6)), Listed::NoNews, "{bad}");
            assert!(!jobs.strange().is_empty(), "{bad}");
        }
    }

    #[test]
    fn a_strange_line_of_the_accounting_takes_the_word_from_its_own_job_alone() {
        let good =
            "5|1001|n|COMPLETED|0:0|1|00:00|00:00||9\n5.batch||batch|COMPLETED|0:0|1|00:00|00:00|7K|9\n";
        assert_eq!(accounting(good).about(NINE), Listed::Absent);
        for bad in [
            "Slurm accounting storage is disabled",
            "9|1001|n|COMPLETED|0|1|00:00|00:00||9",
            "9|1001|n|COMPLETED|0:0|x|00:00|00:00||9",
            "9|1001|n|COMPLETED|0:0|1|00:00|00:00|12Q|9",
            "9||n|COMPLETED|0:0|1|00:00|00:00||9",
            "9|1001|n|COMPLETED|0:0|1|ab|00:00||9",
            "9|1001|n|COMPLETED|0:0|1|00:00|00:00||9\n9.batch||batch|COMPLETED|z|1|00:00|00:00||9",
            "9|1001|n|COMPLETED|0:0|1|00:00|00:00||9|more",
        ] {
            let jobs = accounting(&format!("{bad}\n{good}"));
            assert_eq!(jobs.about(FIVE).entry().unwrap().max_rss_kib, 7, "{bad}");
            assert_eq!(jobs.about(NINE), Listed::NoNews, "{bad}");
            assert_eq!(jobs.about(SlurmJobId(6)), Listed::NoNews, "{bad}");
        }
        // A step without its job is no job.
        assert_eq!(accounting("9.batch||batch|COMPLETED|0:0|1|00:00|00:00||9").about(NINE), Listed::Absent);
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
