//! Byte strings as text: names and paths need not be UTF-8.

use std::fmt::Write as _;

/// The one form of a byte string in JSON: text, in which a backslash is doubled and each byte that is not part of
/// valid UTF-8 is `\xNN`.
pub fn byte_text(bytes: &[u8]) -> String {
    let mut form = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '\\' {
                form.push('\\');
            }
            form.push(c);
        }
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(form, "\\x{byte:02x}");
        }
    }
    form
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_string_has_its_own_form() {
        assert_eq!(byte_text(b"plain"), "plain");
        assert_eq!(byte_text(b"a\\xff"), "a\\\\xff");
        assert_eq!(byte_text(b"a\xff\xc3\xa4"), "a\\xffä");
        assert_ne!(byte_text(b"\\xff"), byte_text(b"\xff"));
    }
}
