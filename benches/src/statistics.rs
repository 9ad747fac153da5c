//! The few numbers that are made of many.

/// The value below which this many percent lie; 0 of nothing.
pub fn quantile(samples: &mut [u64], percent: usize) -> u64 {
    samples.sort_unstable();
    let last = samples.len().saturating_sub(1);
    samples.get((last * percent).div_ceil(100)).copied().unwrap_or(0)
}

/// How many times as much.
#[expect(clippy::cast_precision_loss, reason = "two or three digits of it are shown")]
pub fn ratio(of: u64, to: u64) -> f64 {
    of as f64 / to.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_occurred() {
        assert_eq!(quantile(&mut [3, 1, 2], 50), 2);
        assert_eq!(quantile(&mut [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 90), 10);
        assert_eq!(quantile(&mut [7], 90), 7);
        assert_eq!(quantile(&mut [], 50), 0);
    }
}
