//! Tables for people: cells are escaped, times are dates, and the width is the terminal's.

use std::collections::BTreeSet;

use comfy_table::presets::NOTHING;
use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table};
use serde_json::Value;

use crate::value::Record;
use crate::{escape, time};

/// Fields that are times: microseconds since 1970.
const TIMES: [&str; 14] = [
    "created",
    "ended",
    "ends",
    "expires",
    "last_login",
    "made",
    "queued",
    "requested",
    "since",
    "started",
    "authenticated",
    "changed",
    "begun",
    "opened",
];

/// How a table looks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Style {
    /// Whether it has to fit a terminal; elsewhere lines are as long as they are.
    pub fit: bool,
    /// Whether it may have colours.
    pub color: bool,
}

/// A table of records with those of the columns that any of them has.
pub fn of_records(records: &[Record], columns: &[&str], style: Style) -> String {
    let columns: Vec<_> = columns
        .iter()
        .copied()
        .filter(|column| records.iter().any(|record| record.contains_key(*column)))
        .collect();
    let mut table = empty(style);
    table.set_header(columns.iter().map(|column| heading(&column.to_uppercase().replace('_', " "), style)));
    for record in records {
        table.add_row(columns.iter().map(|column| {
            let value = record.get(*column).unwrap_or(&Value::Null);
            colored(column, value, style)
        }));
    }
    finish(&table)
}

/// One record, a field per line: those of `order` first, then the others.
pub fn of_record(record: &Record, order: &[&str], style: Style) -> String {
    let mut table = empty(style);
    let first = order.iter().filter_map(|name| record.get_key_value(*name));
    let rest = record.iter().filter(|(name, _)| !order.contains(&name.as_str()));
    for (name, value) in first.chain(rest) {
        table.add_row([heading(&escape::text(&name.replace('_', " ")), style), colored(name, value, style)]);
    }
    finish(&table)
}

/// A value as a cell shows it.
pub fn cell(name: &str, value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(truth) => if *truth { "yes" } else { "no" }.to_owned(),
        Value::Number(number) => match number.as_u64() {
            Some(micros) if TIMES.contains(&name) => time::show_micros(micros),
            _ => number.to_string(),
        },
        Value::String(text) => escape::text(text),
        Value::Array(items) => items.iter().map(|item| cell(name, item)).collect::<Vec<_>>().join(" "),
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| format!("{}={}", escape::text(key), cell(key, value)))
            .collect::<Vec<_>>()
            .join(" "),
    }
}

fn empty(style: Style) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    if style.fit {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    } else {
        table.force_no_tty();
        table.set_content_arrangement(ContentArrangement::Disabled);
    }
    if style.color {
        table.enforce_styling();
    }
    table
}

fn heading(text: &str, style: Style) -> Cell {
    if style.color { Cell::new(text).add_attribute(Attribute::Bold) } else { Cell::new(text) }
}

/// What a colour says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shade {
    /// It can be used, or runs.
    Good,
    /// It waits, or is worth a look.
    Waiting,
    /// It cannot be used, or failed.
    Bad,
}

impl Shade {
    fn color(self) -> Color {
        match self {
            Shade::Good => Color::Green,
            Shade::Waiting => Color::Yellow,
            Shade::Bad => Color::Red,
        }
    }
}

/// How a field of a record is shown: accounts and jobs by their status, links and jobs by their state, findings by
/// their severity, sessions by who acts in them.
fn shade(name: &str, value: &Value) -> Option<Shade> {
    // A job's exit status.
    if let ("status" | "exit_code", Some(number)) = (name, value.as_i64()) {
        return (number != 0).then_some(Shade::Bad);
    }
    match (name, value.as_str()?) {
        ("severity", "error")
        | ("state", "stale" | "lost" | "abandoned" | "revoked" | "expired")
        | ("status", "rejected" | "deactivated")
        | ("result" | "state", "refused") => Some(Shade::Bad),
        ("severity", "warning")
        | ("state", "waiting" | "queued")
        | ("status", "pending")
        | ("how", "act-for") => Some(Shade::Waiting),
        ("state", "active" | "running")
        | ("status", "active")
        | ("how", "os" | "password" | "vouched")
        | ("result", "added" | "to be added") => Some(Shade::Good),
        _ => None,
    }
}

/// The colours in which a record is shown; of these columns only, where some are named.
pub fn shades(record: &Record, columns: Option<&[&str]>) -> BTreeSet<Shade> {
    let shown = record.iter().filter(|(name, _)| columns.is_none_or(|all| all.contains(&name.as_str())));
    shown.filter_map(|(name, value)| shade(name, value)).collect()
}

/// A line that says what these colours mean.
pub fn legend(shown: &BTreeSet<Shade>) -> String {
    let words = shown.iter().map(|shade| {
        let (number, name, meaning) = match shade {
            Shade::Good => (10, "green", "in use"),
            Shade::Waiting => (11, "yellow", "waits, or is worth a look"),
            Shade::Bad => (9, "red", "out of use, or failed"),
        };
        format!("\x1b[38;5;{number}m{name}\x1b[39m {meaning}")
    });
    format!("\n{}\n", words.collect::<Vec<_>>().join("; "))
}

fn colored(name: &str, value: &Value, style: Style) -> Cell {
    let text = cell(name, value);
    match shade(name, value) {
        Some(shade) if style.color => Cell::new(text).fg(shade.color()),
        _ => Cell::new(text),
    }
}

/// The table's lines without the border's space around them.
fn finish(table: &Table) -> String {
    let mut text = String::new();
    for line in table.lines() {
        let line = line.trim_end();
        text.push_str(line.strip_prefix(' ').unwrap_or(line));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn records() -> Vec<Record> {
        let Value::Array(items) = json!([
            {"account": "alice", "state": "active", "requested": 1_700_000_000_000_000u64},
            {"account": "b\u{1b}[2J", "state": "waiting", "requested": 0},
        ]) else {
            panic!()
        };
        items.into_iter().map(|item| item.as_object().unwrap().clone()).collect()
    }

    #[test]
    fn columns_that_no_record_has_are_left_out_and_cells_are_escaped() {
        let table = of_records(&records(), &["account", "code", "state", "requested"], Style::default());
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), ["ACCOUNT", "STATE", "REQUESTED"]);
        assert!(lines[1].starts_with("alice"), "{table}");
        assert!(lines[1].ends_with("2023-11-14T22:13:20Z"), "{table}");
        assert!(lines[2].contains("b\\x1b[2J"), "{table}");
        assert!(!table.contains('\x1b'));
    }

    #[test]
    fn a_record_has_its_important_fields_first() {
        let text = of_record(&records()[0], &["state"], Style::default());
        assert!(text.starts_with("state"), "{text}");
        assert_eq!(text.lines().count(), 3);
    }

    #[test]
    fn what_cannot_be_used_is_red_and_the_legend_names_what_was_shown() {
        for (name, value, expected) in [
            ("status", json!("active"), Some(Shade::Good)),
            ("status", json!("pending"), Some(Shade::Waiting)),
            ("status", json!("deactivated"), Some(Shade::Bad)),
            ("status", json!(0), None),
            ("status", json!(143), Some(Shade::Bad)),
            ("state", json!("running"), Some(Shade::Good)),
            ("state", json!("done"), None),
            ("state", json!("revoked"), Some(Shade::Bad)),
            ("how", json!("act-for"), Some(Shade::Waiting)),
            ("severity", json!("error"), Some(Shade::Bad)),
            // A name is not a status, whatever it says.
            ("account", json!("active"), None),
            ("message", json!("error"), None),
        ] {
            assert_eq!(shade(name, &value), expected, "{name} {value}");
        }
        let color = Style { color: true, ..Style::default() };
        let table = of_records(&records(), &["account", "state"], color);
        assert!(
            table.contains("\x1b[38;5;10m active") && table.contains("\x1b[38;5;11m waiting"),
            "{table:?}"
        );
        let mut shown: BTreeSet<Shade> = BTreeSet::new();
        for record in records() {
            shown.extend(shades(&record, Some(&["account", "state"])));
            assert!(shades(&record, Some(&["account"])).is_empty());
        }
        let legend = legend(&shown);
        assert!(
            legend.contains("mgreen") && legend.contains("myellow") && !legend.contains("red"),
            "{legend:?}"
        );
    }
}
