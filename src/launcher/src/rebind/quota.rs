//! What the quotas of a destination say about what it gets.

use std::os::fd::{AsFd as _, OwnedFd};

use deputy_core::denial::{Code, Denial};
use deputy_core::quota::{QuotaUsage, Whose, human_bytes};
use deputy_core::rebind::{Problem, ProblemKind, Sum};

use super::tree::{failed, open_to_read};

/// What quotas say about what they are to hold more.
pub fn problems(top: &OwnedFd, wanted: &[(Whose, Sum)]) -> Result<Vec<Problem>, Denial> {
    let told = |error: std::io::Error| Denial::new(Code::FileError, "rebind", format!("the quota: {error}"));
    let opened = open_to_read(top).map_err(failed)?;
    let mut problems = Vec::new();
    for (whose, sum) in wanted {
        if let Some(usage) = deputy_sys::quota::of(opened.as_fd(), *whose).map_err(told)? {
            problems.extend(over(&usage, *sum));
        }
    }
    Ok(problems)
}

/// What is said where a quota would be passed. Root passes hard limits unhindered, so it is not the kernel who refuses.
fn over(usage: &QuotaUsage, sum: Sum) -> Vec<Problem> {
    let files = |files: u64| format!("{files} files");
    let mut problems = Vec::new();
    for (amount, more, of_files) in [(&usage.space, sum.bytes, false), (&usage.files, sum.files, true)] {
        let show = |amount: u64| if of_files { files(amount) } else { human_bytes(amount) };
        let then = amount.used.saturating_add(more);
        let past = |limit: Option<u64>| limit.filter(|limit| more > 0 && then > *limit);
        let (limit, sort, in_the_way) = match (past(amount.hard), past(amount.soft)) {
            (Some(hard), _) => (hard, "hard", true),
            (None, Some(soft)) => (soft, "soft", false),
            (None, None) => continue,
        };
        let detail = format!(
            "{} uses {} and gets {}, more than the {sort} limit of {}",
            usage.whose,
            show(amount.used),
            show(more),
            show(limit)
        );
        problems.push(Problem { kind: ProblemKind::Quota, path: Vec::new(), detail, in_the_way });
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use deputy_core::ids::OsUid;
    use deputy_core::quota::Amount;

    #[test]
    fn a_hard_limit_is_in_the_way_and_a_soft_one_is_told() {
        let amount = |used, soft, hard| Amount { used, soft, hard, grace_ends: None };
        let usage = |space, files| QuotaUsage { whose: Whose::User(OsUid::new(1001).unwrap()), space, files };
        let none = amount(5, None, None);
        let told = |usage: QuotaUsage, files, bytes| {
            let problems = over(&usage, Sum { files, bytes });
            problems.into_iter().map(|problem| problem.in_the_way).collect::<Vec<_>>()
        };
        assert_eq!(told(usage(none, none), u64::MAX, u64::MAX), [false; 0]);
        assert_eq!(told(usage(amount(90, None, Some(100)), none), 1, 10), [false; 0]);
        assert_eq!(told(usage(amount(90, None, Some(100)), none), 1, 11), [true]);
        assert_eq!(told(usage(amount(90, Some(95), Some(200)), none), 1, 11), [false]);
        assert_eq!(told(usage(none, amount(9, None, Some(9))), 1, 0), [true]);
        // Who gets nothing may be over already.
        assert_eq!(told(usage(amount(300, Some(95), Some(200)), none), 0, 0), [false; 0]);
    }
}
