//! One line for each event, with its values as fields where standard error is the journal's.
//!
//! A subscriber of our own, because the root side takes few dependencies: it knows events only, no spans.

use std::fmt;

use deputy_core::journal::{Entry, Level as Urgency};
use deputy_wire::journal::{is_stderr_the_journal, tell};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

struct Journal {
    with_fields: bool,
}

/// Sends what this process and its children log to the journal, or to standard error.
pub fn start() {
    // A second call in the same process changes nothing.
    let _ = tracing::subscriber::set_global_default(Journal { with_fields: is_stderr_the_journal() });
}

struct Values(Entry);

impl Visit for Values {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.value(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.value(field.name(), &format!("{value:?}"));
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
        let level = match *event.metadata().level() {
            Level::ERROR => Urgency::Error,
            Level::WARN => Urgency::Warn,
            _ => Urgency::Info,
        };
        let mut values = Values(Entry::new(level));
        event.record(&mut values);
        tell(&values.0, "deputy-launcher", self.with_fields);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
