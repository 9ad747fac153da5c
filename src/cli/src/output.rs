//! What is printed on standard output: JSON, tables, sentences.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal as _, Write as _};

use deputy_core::denial::Code;
use serde_json::Value;

use crate::failure::Failure;
use crate::options::{GlobalOptions, When};
use crate::table::{self, Shade};
use crate::value::Record;

/// How to print.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
    style: table::Style,
}

impl Output {
    /// Printing as the command line and the terminal have it.
    pub fn new(global: GlobalOptions) -> Self {
        let terminal = io::stdout().is_terminal();
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let color = !global.json && wants_color(global.color, terminal, no_color);
        Self { json: global.json, style: table::Style { fit: terminal, color } }
    }

    /// Prints a sentence, or the record that says the same.
    pub fn done(self, sentence: &str, record: &Record) -> Result<(), Failure> {
        if self.json { self.json(&Value::Object(record.clone())) } else { print(&format!("{sentence}\n")) }
    }

    /// The same with what was found: a table behind the sentence, or one more field of the record.
    pub fn done_with(
        self,
        sentence: &str,
        mut record: Record,
        findings: &[Record],
        columns: &[&str],
    ) -> Result<(), Failure> {
        let all = findings.iter().cloned().map(Value::Object).collect();
        record.insert("findings".to_owned(), Value::Array(all));
        self.done(sentence, &record)?;
        if self.json || findings.is_empty() { Ok(()) } else { self.records(findings, columns) }
    }

    /// Prints one record, the fields of `order` first.
    pub fn record(self, record: &Record, order: &[&str]) -> Result<(), Failure> {
        if self.json {
            return self.json(&Value::Object(record.clone()));
        }
        print(&table::of_record(record, order, self.style))?;
        self.legend(&table::shades(record, None))
    }

    /// Begins a list of records, whose table has those of these columns that the records have.
    pub fn list<'a>(self, columns: &'a [&'a str]) -> List<'a> {
        List { output: self, columns, printed: 0, shades: BTreeSet::new() }
    }

    /// Prints a whole list.
    pub fn records(self, records: &[Record], columns: &[&str]) -> Result<(), Failure> {
        let mut list = self.list(columns);
        list.page(records)?;
        list.end()
    }

    /// Says what the colours mean that were shown.
    fn legend(self, shown: &BTreeSet<Shade>) -> Result<(), Failure> {
        if !self.style.color || shown.is_empty() {
            return Ok(());
        }
        print(&table::legend(shown))
    }

    fn json(self, value: &Value) -> Result<(), Failure> {
        debug_assert!(self.json);
        print(&format!("{value}\n"))
    }
}

/// Whether colours are wanted: asked for outright, or by a terminal where `NO_COLOR` does not say otherwise.
fn wants_color(asked: When, terminal: bool, no_color: bool) -> bool {
    match asked {
        When::Always => true,
        When::Never => false,
        When::Auto => terminal && !no_color,
    }
}

/// A list that is printed page by page, so that its length does not matter.
pub struct List<'a> {
    output: Output,
    columns: &'a [&'a str],
    printed: usize,
    shades: BTreeSet<Shade>,
}

impl List<'_> {
    /// Prints one page.
    pub fn page(&mut self, records: &[Record]) -> Result<(), Failure> {
        if records.is_empty() {
            return Ok(());
        }
        if self.output.json {
            let mut text = String::new();
            for record in records {
                text.push_str(if self.printed == 0 { "[\n" } else { ",\n" });
                text.push_str(&Value::Object(record.clone()).to_string());
                self.printed += 1;
            }
            return print(&text);
        }
        self.printed += records.len();
        self.shades.extend(records.iter().flat_map(|record| table::shades(record, Some(self.columns))));
        print(&table::of_records(records, self.columns, self.output.style))
    }

    /// Ends the list.
    pub fn end(self) -> Result<(), Failure> {
        match (self.output.json, self.printed) {
            (true, 0) => print("[]\n"),
            (true, _) => print("\n]\n"),
            (false, 0) => note("none"),
            (false, _) => self.output.legend(&self.shades),
        }
    }
}

/// Writes to standard output. A reader that has gone away ends the program as it would end any other.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        // The runtime ignores SIGPIPE (13), so its end is made by hand.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(128 + 13),
        Err(error) => Err(Failure::new(Code::Disk, format!("cannot write to standard output: {error}"))
            .remedy("what was to be printed is not there in full; make room and ask again")),
    }
}

/// Writes a remark that is not part of the result to standard error.
pub fn note(text: &str) -> Result<(), Failure> {
    writeln!(io::stderr().lock(), "{text}").map_err(Failure::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_unless_somebody_says_otherwise() {
        for (asked, terminal, no_color, expected) in [
            (When::Auto, true, false, true),
            (When::Auto, false, false, false),
            (When::Auto, true, true, false),
            (When::Always, false, true, true),
            (When::Never, true, false, false),
        ] {
            assert_eq!(wants_color(asked, terminal, no_color), expected, "{asked:?} {terminal} {no_color}");
        }
        let global = GlobalOptions { json: true, color: When::Always, ..GlobalOptions::default() };
        assert!(!Output::new(global).style.color, "JSON has no colours");
    }
}
