//! `/etc/passwd` and `/etc/group`, as far as the question goes whether they have a name or an id.

/// Looks for one name and one id in the lines of such a file, which come in pieces. Needs no memory.
///
/// Both files have the name in the first field and the id in the third.
#[derive(Debug, Clone)]
pub struct Scan<'a> {
    name: &'a [u8],
    id: u32,
    found: bool,
    line: Line,
}

/// What is known of the line so far.
#[derive(Debug, Clone, Copy)]
struct Line {
    field: u8,
    /// Bytes of the name that agree; `None` after one that does not.
    agree: Option<usize>,
    /// The third field's number; `None` if it is none.
    number: Option<u32>,
    digits: u8,
    begun: bool,
}

const NEW_LINE: Line = Line { field: 0, agree: Some(0), number: Some(0), digits: 0, begun: false };

impl<'a> Scan<'a> {
    /// Nothing is found yet.
    pub fn new(name: &'a [u8], id: u32) -> Self {
        Self { name, id, found: false, line: NEW_LINE }
    }

    /// Takes the next bytes of the file.
    pub fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            match byte {
                b'\n' => self.end_line(),
                b':' => self.line.field = self.line.field.saturating_add(1),
                // glibc skips blanks at a line's beginning.
                b' ' | b'\t' | 0x0b | 0x0c | b'\r' if !self.line.begun => {}
                _ => self.in_field(byte),
            }
        }
    }

    /// Whether a line has the name or the id; call it after the last bytes.
    pub fn found(&mut self) -> bool {
        self.end_line();
        self.found
    }

    fn in_field(&mut self, byte: u8) {
        let line = &mut self.line;
        line.begun = true;
        match line.field {
            0 => {
                line.agree = line.agree.filter(|&at| self.name.get(at) == Some(&byte)).map(|at| at + 1);
            }
            2 if byte.is_ascii_digit() => {
                line.digits = 1;
                let digit = u32::from(byte - b'0');
                line.number = line.number.and_then(|n| n.checked_mul(10)?.checked_add(digit));
            }
            2 => line.number = None,
            _ => {}
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::replace(&mut self.line, NEW_LINE);
        let name = line.begun && line.agree == Some(self.name.len());
        let id = line.digits > 0 && line.number == Some(self.id);
        self.found |= name || id;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str =
        "root:x:0:0:root:/root:/bin/sh\n  bob:x:1001:100::/:\n+::::::\n\nlast:x:77:1::/:/bin/sh";

    fn has(name: &str, id: u32) -> bool {
        let whole = {
            let mut scan = Scan::new(name.as_bytes(), id);
            scan.add(FILE.as_bytes());
            scan.found()
        };
        let mut pieces = Scan::new(name.as_bytes(), id);
        FILE.as_bytes().chunks(3).for_each(|piece| pieces.add(piece));
        assert_eq!(pieces.found(), whole);
        whole
    }

    #[test]
    fn names_and_ids_are_found_wherever_they_stand() {
        for (name, id) in
            [("root", 5), ("bob", 5), ("last", 5), ("nobody", 0), ("nobody", 1001), ("nobody", 77)]
        {
            assert!(has(name, id), "{name} {id}");
        }
    }

    #[test]
    fn nothing_else_is_taken_for_one() {
        for (name, id) in
            [("roo", 5), ("root:", 5), ("rootx", 5), ("x", 5), ("", 5), ("nobody", 100), ("nobody", 7)]
        {
            assert!(!has(name, id), "{name} {id}");
        }
    }
}
