//! A line of the journal and the fields beside it, as values: `systemd-journald` takes them by its
//! [native protocol](https://systemd.io/JOURNAL_NATIVE_PROTOCOL/), and where there is none the line goes to standard
//! error. Values are escaped, so that no name can begin a line, a colour or a field of its own.

use std::fmt::Write as _;

/// The longest value, in characters, before it is cut.
const MAX_VALUE: usize = 512;

/// How urgent it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Something did not work that should have.
    Error,
    /// Something may be wrong.
    Warn,
    /// What happens in ordinary life.
    Info,
    /// For whoever looks for a fault.
    Debug,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Level::Error => "ERROR",
            Level::Warn => "WARN",
            Level::Info => "INFO",
            Level::Debug => "DEBUG",
        }
    }

    /// As `syslog(3)` has it.
    fn priority(self) -> char {
        match self {
            Level::Error => '3',
            Level::Warn => '4',
            Level::Info => '6',
            Level::Debug => '7',
        }
    }
}

/// One event: its line, and each of its values as a field `DEPUTY_NAME`.
#[derive(Debug)]
pub struct Entry {
    level: Level,
    line: String,
    fields: Vec<(String, String)>,
}

impl Entry {
    /// Without values.
    pub fn new(level: Level) -> Self {
        Self { level, line: level.word().to_owned(), fields: Vec::new() }
    }

    /// With a sentence of the program's own.
    pub fn message(&mut self, message: &str) {
        let _ = write!(self.line, " {}", escaped(message));
    }

    /// With this value. `name` is the program's own.
    pub fn value(&mut self, name: &str, value: &str) {
        let plain =
            !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:@+,".contains(&b));
        let shown = escaped(value);
        let _ = if plain && value.len() <= MAX_VALUE {
            write!(self.line, " {name}={shown}")
        } else {
            write!(self.line, " {name}=\"{shown}\"")
        };
        let name =
            name.bytes().map(|b| if b.is_ascii_alphanumeric() { b.to_ascii_uppercase() } else { b'_' });
        let name: String = name.map(char::from).collect();
        self.fields.push((format!("DEPUTY_{name}"), shown));
    }

    /// What goes to standard error, with the end of the line.
    pub fn line(&self) -> String {
        format!("{}\n", self.line)
    }

    /// What goes to the journal's socket, as one datagram. `program`: whose it is.
    pub fn datagram(&self, program: &str) -> Vec<u8> {
        // No value has a newline in it, so that none needs the protocol's other form.
        let mut text = format!(
            "MESSAGE={}\nPRIORITY={}\nSYSLOG_IDENTIFIER={program}\n",
            self.line,
            self.level.priority()
        );
        for (name, value) in &self.fields {
            let _ = writeln!(text, "{name}={value}");
        }
        text.into_bytes()
    }
}

fn escaped(value: &str) -> String {
    value.chars().take(MAX_VALUE).collect::<String>().escape_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_begin_a_line_or_a_colour_or_a_field() {
        let mut entry = Entry::new(Level::Info);
        entry.value("account", "a\n<0>INFO uid=0\u{1b}[31m\nDEPUTY_JOB=another");
        let line = " account=\"a\\n<0>INFO uid=0\\u{1b}[31m\\nDEPUTY_JOB=another\"";
        assert_eq!(entry.line(), format!("INFO{line}\n"));
        let datagram = String::from_utf8(entry.datagram("deputyd")).unwrap();
        let names: Vec<_> = datagram.lines().map(|line| line.split_once('=').unwrap().0).collect();
        assert_eq!(names, ["MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "DEPUTY_ACCOUNT"]);
    }

    #[test]
    fn a_long_value_is_cut() {
        let mut entry = Entry::new(Level::Warn);
        entry.value("account", &"x".repeat(10_000));
        assert!(entry.line().len() < 600);
        assert!(entry.datagram("deputyd").len() < 1300);
    }

    #[test]
    fn each_value_is_a_field() {
        let mut entry = Entry::new(Level::Error);
        entry.message("denied");
        entry.value("application", "demo");
        entry.value("os.user", "");
        let expected = "MESSAGE=ERROR denied application=demo os.user=\"\"\nPRIORITY=3\n\
                        SYSLOG_IDENTIFIER=deputy-launcher\nDEPUTY_APPLICATION=demo\nDEPUTY_OS_USER=\n";
        assert_eq!(String::from_utf8(entry.datagram("deputy-launcher")).unwrap(), expected);
    }
}
