//! Times as people write and read them.

use std::str::FromStr;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

/// Until when something holds: seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry(pub u64);

impl FromStr for Expiry {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text, Timestamp::now())
    }
}

impl Expiry {
    fn parse(text: &str, now: Timestamp) -> Result<Self, &'static str> {
        const WHAT: &str =
            "expected a time (2031-01-31, 2031-01-31T12:00:00Z) or a span from now (90d, 12h, '1 year')";
        let when = if let Ok(when) = text.parse::<Timestamp>() {
            when
        } else if let Ok(date) = text.parse::<Date>() {
            date.to_zoned(TimeZone::UTC).map_err(|_| WHAT)?.timestamp()
        } else {
            let span: Span = text.parse().map_err(|_| WHAT)?;
            now.to_zoned(TimeZone::UTC).checked_add(span).map_err(|_| WHAT)?.timestamp()
        };
        if when <= now {
            return Err("that time has passed");
        }
        u64::try_from(when.as_second()).map(Self).map_err(|_| WHAT)
    }
}

/// Seconds since 1970, now.
pub fn now_seconds() -> u64 {
    u64::try_from(Timestamp::now().as_second()).unwrap_or_default()
}

/// A time in microseconds since 1970, to the second, in UTC.
pub fn show_micros(micros: u64) -> String {
    i64::try_from(micros / 1_000_000).map_or_else(|_| micros.to_string(), |seconds| show(seconds, micros))
}

/// A time in seconds since 1970, in UTC.
pub fn show_seconds(seconds: u64) -> String {
    i64::try_from(seconds).map_or_else(|_| seconds.to_string(), |signed| show(signed, seconds))
}

fn show(seconds: i64, raw: u64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| raw.to_string(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_dates_and_spans_are_understood_and_the_past_is_refused() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let parse = |text| Expiry::parse(text, now).map(|expiry| expiry.0);
        assert_eq!(parse("90d"), Ok(1_700_000_000 + 90 * 86400));
        assert_eq!(parse("12h"), Ok(1_700_000_000 + 12 * 3600));
        assert_eq!(parse("1 year"), Ok(1_700_000_000 + 366 * 86400));
        assert_eq!(parse("2031-01-31"), Ok(1_927_584_000));
        assert_eq!(parse("2031-01-31T00:00:10Z"), Ok(1_927_584_010));
        for text in ["", "x", "0s", "-3d", "2020-01-01", "1700000000"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_is_shown_in_utc() {
        assert_eq!(show_micros(1_700_000_000_999_999), "2023-11-14T22:13:20Z");
        assert_eq!(show_seconds(u64::MAX), u64::MAX.to_string());
    }
}
