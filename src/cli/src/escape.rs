//! Text from elsewhere, made safe for a terminal.
//!
//! Names, messages, prompts and arguments come from other people and other programs. Written as they are they could
//! move the cursor, change the window's title, or make a refusal look like a success.

use std::fmt::Write as _;

/// The text with everything that a terminal would act on, or that cannot be seen, written as `\n`, `\t`, `\x1b` or
/// `\u{202e}`. What can be seen stays as it is.
pub fn text(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        push(&mut safe, c);
    }
    safe
}

/// The same for several lines: line feeds stay, and a carriage return before one goes.
pub fn lines(text: &str) -> String {
    text.lines().map(self::text).collect::<Vec<_>>().join("\n")
}

fn push(safe: &mut String, c: char) {
    let written = match c {
        '\n' => safe.write_str("\\n"),
        '\t' => safe.write_str("\\t"),
        '\r' => safe.write_str("\\r"),
        c if (c as u32) < 0x100 && c.is_control() => write!(safe, "\\x{:02x}", c as u32),
        c if is_hidden(c) => write!(safe, "\\u{{{:x}}}", c as u32),
        c => safe.write_char(c),
    };
    // Writing to a String cannot fail.
    let _ = written;
}

/// Characters without a shape of their own that change how, or in which direction, others are shown; tags and the
/// separators that some programs take for line ends.
fn is_hidden(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_act_on_is_shown_instead() {
        let hostile = "a\x1b]0;title\x07b\r\ndeputyctl: done\u{9b}31m\x7f";
        let safe = text(hostile);
        assert_eq!(safe, "a\\x1b]0;title\\x07b\\r\\ndeputyctl: done\\x9b31m\\x7f");
        for c in (0..0x20).chain(0x7f..0xa0).filter_map(char::from_u32) {
            assert!(text(&c.to_string()).chars().all(|c| !c.is_control()), "{c:?}");
        }
    }

    #[test]
    fn what_cannot_be_seen_is_shown() {
        assert_eq!(text("a\u{202e}b\u{200b}c\u{2028}"), "a\\u{202e}b\\u{200b}c\\u{2028}");
    }

    #[test]
    fn what_can_be_seen_stays() {
        let seen = "Jürgen 日本 DOMAIN\\ann \"x\" 🙂";
        assert_eq!(text(seen), seen);
    }

    #[test]
    fn line_feeds_of_several_lines_stay() {
        assert_eq!(lines("a\r\nb\x1bc\n"), "a\nb\\x1bc");
    }
}
