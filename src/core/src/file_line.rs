//! The lines that a file agent writes to a pipe while it works at something long: one JSON object each.
//!
//! A byte string is text in which a backslash is doubled and each byte that is not part of valid UTF-8 is `\xNN`; that
//! text is then written as JSON. So each name has exactly one form.

use std::fmt::Write as _;

use crate::byte_text::byte_text;
use crate::message::FileEntry;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileLine<'a> {
    /// An entry of a folder.
    Entry(&'a FileEntry),
    /// How far the work is: how many things, how many bytes, and at what it is now.
    Progress {
        /// Things that were dealt with.
        done: u64,
        /// Bytes of them.
        bytes: u64,
        /// The name of the latest.
        name: &'a [u8],
    },
    /// Something that could not be copied, and was left out.
    LeftOut {
        /// Its name.
        name: &'a [u8],
        /// Its sort.
        kind: &'a str,
    },
    /// The end: all is done.
    Result {
        /// How many things.
        done: u64,
        /// Bytes of them.
        bytes: u64,
        /// How many were left out.
        left_out: u64,
    },
    /// The end: the kernel refused.
    Failed {
        /// The error number.
        errno: i32,
        /// The name at which it did.
        name: &'a [u8],
        /// Where there was no room: how much there is, in words that follow those of the error.
        room: &'a str,
    },
    /// The end: Deputy refused, with this code.
    Denied {
        /// The code.
        code: &'a str,
        /// Why.
        message: &'a str,
    },
}

impl FileLine<'_> {
    /// The line, with its line feed.
    pub fn to_json(&self) -> String {
        let mut line = Object(String::with_capacity(160));
        match self {
            FileLine::Entry(entry) => {
                line.bytes("name", &entry.name);
                if let Some(stat) = &entry.stat {
                    line.text("kind", stat.kind.as_str());
                    line.number("mode", stat.mode);
                    line.number("uid", stat.uid);
                    line.number("gid", stat.gid);
                    line.number("size", stat.size);
                    line.number("allocated", stat.allocated);
                    line.number("inode", stat.inode);
                    line.number("links", stat.links);
                    line.number("modified", stat.modified.seconds);
                    line.number("modified_ns", stat.modified.nanoseconds);
                }
            }
            FileLine::Progress { done, bytes, name } => {
                line.number("done", done);
                line.number("bytes", bytes);
                line.bytes("name", name);
            }
            FileLine::LeftOut { name, kind } => {
                line.bytes("left_out", name);
                line.text("kind", kind);
            }
            FileLine::Result { done, bytes, left_out } => {
                line.text("result", "done");
                line.number("done", done);
                line.number("bytes", bytes);
                line.number("left_out", left_out);
            }
            FileLine::Failed { errno, name, room } => {
                line.text("result", "failed");
                line.number("errno", errno);
                line.bytes("name", name);
                if !room.is_empty() {
                    line.text("room", room);
                }
            }
            FileLine::Denied { code, message } => {
                line.text("result", "denied");
                line.text("code", code);
                line.text("message", message);
            }
        }
        line.end()
    }
}

struct Object(String);

impl Object {
    fn key(&mut self, key: &str) {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        // Writing to a String cannot fail.
        let _ = write!(self.0, "\"{key}\":");
    }

    fn number(&mut self, key: &str, value: impl std::fmt::Display) {
        self.key(key);
        let _ = write!(self.0, "{value}");
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        self.0.push('"');
        for c in value.chars() {
            match c {
                '"' => self.0.push_str("\\\""),
                '\\' => self.0.push_str("\\\\"),
                c if c.is_control() => {
                    let _ = write!(self.0, "\\u{:04x}", u32::from(c));
                }
                c => self.0.push(c),
            }
        }
        self.0.push('"');
    }

    fn bytes(&mut self, key: &str, value: &[u8]) {
        self.text(key, &byte_text(value));
    }

    fn end(mut self) -> String {
        self.0.push_str("}\n");
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_one_form_in_one_line() {
        let line = FileLine::Progress { done: 1, bytes: 2, name: b"a\nb\"\\\xff\x1b" }.to_json();
        assert_eq!(line, "{\"done\":1,\"bytes\":2,\"name\":\"a\\u000ab\\\"\\\\\\\\\\\\xff\\u001b\"}\n");
        let plain = FileEntry { name: b"x".to_vec(), stat: None };
        assert_eq!(FileLine::Entry(&plain).to_json(), "{\"name\":\"x\"}\n");
    }
}
