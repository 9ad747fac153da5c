//! What `sbatch` and a look-up say, read strictly: what is not of the form that was asked for is no answer.

use thiserror::Error;

use super::{ClusterName, SlurmJobId};

/// An answer is not of the form that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{program} answered a line that it was not asked for: {line:?}")]
pub struct AnswerError {
    program: &'static str,
    line: String,
}

/// The number that `sbatch --parsable` says: alone, or with a cluster behind it.
pub fn submitted(output: &str) -> Option<SlurmJobId> {
    let line = output.strip_suffix('\n').unwrap_or(output);
    let number = line.split_once(';').map_or(line, |(number, _)| number);
    job_number(number)
}

/// The cluster that stands behind the number: the submission went to one that Deputy did not name. A person's own defaults
/// can say so, and no option takes that out.
pub fn other_cluster(output: &str) -> Option<ClusterName> {
    output.strip_suffix('\n').unwrap_or(output).split_once(';')?.1.parse().ok()
}

fn strange(line: &str) -> AnswerError {
    AnswerError { program: "the look-up", line: line.chars().take(200).collect() }
}

/// A number that can be a job's.
pub(super) fn job_number(text: &str) -> Option<SlurmJobId> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| digits && *number > 0).map(SlurmJobId)
}

/// The numbers of a look-up, one a line.
pub fn found(output: &str) -> Result<Vec<SlurmJobId>, AnswerError> {
    output.lines().map(|line| job_number(line.trim()).ok_or_else(|| strange(line))).collect()
}

/// Words with which Slurm's programs say that they do not know what became of a request: no refusal of Slurm's is among
/// them.
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

/// Whether a program of Slurm's accounting said that there is none.
pub fn is_without_accounting(error: &str) -> bool {
    error.contains("accounting storage is disabled") || error.contains("supported accounting_storage plugin")
}

/// What Slurm said against a request; none where what it said is no answer.
pub fn refusal(error: &str) -> Option<String> {
    if NO_ANSWER.iter().any(|word| error.contains(word)) {
        return None;
    }
    let words: Vec<&str> = error
        .lines()
        .map(|line| {
            let line = line.trim();
            line.strip_prefix("sbatch: ").or_else(|| line.strip_prefix("scancel: ")).unwrap_or(line)
        })
        .map(|line| line.trim_start_matches("error: "))
        .collect();
    // The last line is the controller's; those before it are sbatch's own.
    let shown: String = words.last()?.chars().filter(|character| !character.is_control()).take(300).collect();
    (!shown.is_empty()).then_some(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_number_is_a_submission() {
        assert_eq!(submitted("17\n"), Some(SlurmJobId(17)));
        assert_eq!(submitted("17;cluster\n"), Some(SlurmJobId(17)));
        assert_eq!(other_cluster("17;cluster\n").map(String::from), Some("cluster".to_owned()));
        assert_eq!((other_cluster("17\n"), other_cluster("17;\n")), (None, None));
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
    fn a_cluster_without_accounting_says_so() {
        assert!(is_without_accounting("Slurm accounting storage is disabled\n"));
        let sacctmgr = "You are not running a supported accounting_storage plugin\n\
                        Only 'accounting_storage/slurmdbd' is supported.\n";
        assert!(is_without_accounting(sacctmgr));
        assert!(!is_without_accounting("sacct: error: Problem talking to the database: Connection refused"));
    }

    #[test]
    fn a_refusal_is_slurms_words_and_silence_is_none() {
        let said = "sbatch: error: invalid partition specified: nope\n\
                    sbatch: error: Batch job submission failed: Invalid partition name specified\n";
        assert_eq!(
            refusal(said).as_deref(),
            Some("Batch job submission failed: Invalid partition name specified")
        );
        let said = "scancel: error: Kill job error on job id 7: Invalid job id specified\n";
        assert_eq!(refusal(said).as_deref(), Some("Kill job error on job id 7: Invalid job id specified"));
        for silence in [
            "",
            "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
            "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
            "sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received",
        ] {
            assert_eq!(refusal(silence), None, "{silence}");
        }
    }
}
