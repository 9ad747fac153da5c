//! Sizes in bytes and numbers of CPUs, as people write them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A text is not a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a size is a number of bytes, with K, M, G or T for powers of 1024: \"512M\"")]
pub struct SizeError;

/// A number of bytes. In TOML and on the command line `512M` is written for 512 times 1024 squared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = SizeError;
    fn from_str(text: &str) -> Result<Self, SizeError> {
        let digits = text.trim_end_matches(['K', 'M', 'G', 'T']);
        let shift = match &text[digits.len()..] {
            "" => 0,
            "K" => 10,
            "M" => 20,
            "G" => 30,
            "T" => 40,
            _ => return Err(SizeError),
        };
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(SizeError);
        }
        let number: u64 = digits.parse().map_err(|_| SizeError)?;
        number.checked_mul(1 << shift).map(Self).ok_or(SizeError)
    }
}

impl fmt::Display for ByteSize {
    /// The largest unit that leaves a whole number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(40, "T"), (30, "G"), (20, "M"), (10, "K")] {
            if self.0 != 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

/// A number, or a text with a unit.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u64),
    Text(String),
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Only formats for people can tell what comes; the others have the number.
        if !deserializer.is_human_readable() {
            return u64::deserialize(deserializer).map(Self);
        }
        match Written::deserialize(deserializer).map_err(|_| serde::de::Error::custom(SizeError))? {
            Written::Number(bytes) => Ok(Self(bytes)),
            Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

/// CPUs in thousandths: 1500 is one and a half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MilliCpus(pub u32);

impl MilliCpus {
    /// The most that can be written down.
    const MAX: f64 = 1_000_000.0;

    /// From a number of CPUs above 0, rounded up to a thousandth.
    pub fn from_cpus(cpus: f64) -> Option<Self> {
        // What is a whole number of thousandths stays that, whatever the last bit of the product is.
        let milli = (cpus * 1000.0 - 1e-6).ceil().max(1.0);
        // Between 1 and 10^9 the conversion is exact.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
        (cpus > 0.0 && cpus <= Self::MAX).then_some(Self(milli as u32))
    }
}

impl fmt::Display for MilliCpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(self.0) / 1000.0)
    }
}

impl Serialize for MilliCpus {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.serialize_f64(f64::from(self.0) / 1000.0);
        }
        serializer.serialize_u32(self.0)
    }
}

impl<'de> Deserialize<'de> for MilliCpus {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return u32::deserialize(deserializer).map(Self);
        }
        let cpus = f64::deserialize(deserializer)?;
        Self::from_cpus(cpus).ok_or_else(|| serde::de::Error::custom("a number of CPUs is above 0: 1, 0.5"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_shown_as_people_write_them() {
        for (text, bytes) in [("0", 0), ("17", 17), ("1K", 1024), ("512M", 512 << 20), ("3T", 3 << 40)] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)));
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
        for text in ["", "M", "-1", "1.5G", "1g", "1 G", "1KK", "99999999999T", "+1"] {
            assert_eq!(text.parse::<ByteSize>(), Err(SizeError), "{text}");
        }
    }

    #[test]
    fn parts_of_a_cpu_are_thousandths() {
        assert_eq!(MilliCpus::from_cpus(1.5), Some(MilliCpus(1500)));
        assert_eq!(MilliCpus::from_cpus(0.0001), Some(MilliCpus(1)));
        for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(MilliCpus::from_cpus(wrong), None);
        }
        assert_eq!(MilliCpus(500).to_string(), "0.5");
        // As many as were written down are read again.
        for milli in 1..=20_000 {
            assert_eq!(MilliCpus::from_cpus(f64::from(milli) / 1000.0), Some(MilliCpus(milli)));
        }
    }
}
