//! One line for each event, with its values as fields where standard error is the journal's.

use std::fmt;

use deputy_core::journal::{Entry, Level as Urgency};
use deputy_wire::journal::{is_stderr_the_journal, tell};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry};

struct Journal;

/// Sends what the daemon logs to the journal with fields, or to standard error. `DEPUTY_LOG` says what is of interest.
pub fn start() {
    let filter = EnvFilter::try_from_env("DEPUTY_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    if is_stderr_the_journal() {
        Registry::default().with(filter).with(Journal).init();
    } else {
        // Names and values in log lines are escaped where they are logged.
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(false)
            .without_time()
            .with_writer(std::io::stderr)
            .init();
    }
}

struct Values(Entry);

impl Values {
    fn take(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.0.message(value),
            name => self.0.value(name, value),
        }
    }
}

impl Visit for Values {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let shown = format!("{value:?}");
        // Texts that were escaped where they are logged: the quotes around them are no part of the value.
        let inner = shown.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(&shown);
        self.take(field, inner);
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = match *event.metadata().level() {
            Level::ERROR => Urgency::Error,
            Level::WARN => Urgency::Warn,
            Level::INFO => Urgency::Info,
            Level::DEBUG | Level::TRACE => Urgency::Debug,
        };
        let mut values = Values(Entry::new(level));
        event.record(&mut values);
        tell(&values.0, "deputyd", true);
    }
}
