//! One line for each event, on standard error, which is the journal's.
//!
//! A subscriber of our own, because the root side takes few dependencies: it knows events only, no spans. Values are
//! escaped, so that no name can begin a line, a colour or a field of its own.

use std::fmt::{self, Write as _};
use std::io::Write as _;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// The longest value of a field, in characters, before it is cut.
const MAX_VALUE: usize = 512;

struct Journal;

/// Sends what this process logs to standard error.
pub fn start() {
    // A second call in the same process changes nothing.
    let _ = tracing::subscriber::set_global_default(Journal);
}

struct Line(String);

impl Line {
    fn field(&mut self, name: &str, value: &str) {
        let _ = write!(self.0, " {name}=");
        let plain =
            !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:@+,".contains(&b));
        if plain && value.len() <= MAX_VALUE {
            self.0.push_str(value);
        } else {
            let cut: String = value.chars().take(MAX_VALUE).collect();
            let _ = write!(self.0, "\"{}\"", cut.escape_default());
        }
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.field(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.field(field.name(), &format!("{value:?}"));
    }
}

impl Subscriber for Journal {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= Level::INFO
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        line.0.push('\n');
        // One write, so that lines of several processes do not mix; there is nobody to tell if it fails.
        let _ = std::io::stderr().write_all(line.0.as_bytes());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_begin_a_line_or_a_colour() {
        let mut line = Line(String::new());
        line.field("account", "a\n<0>INFO uid=0\u{1b}[31m");
        assert_eq!(line.0, " account=\"a\\n<0>INFO uid=0\\u{1b}[31m\"");
        let mut line = Line(String::new());
        line.field("account", &"x".repeat(10_000));
        assert!(line.0.len() < 600);
    }
}
