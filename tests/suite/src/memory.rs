//! Looking for a secret in a process's memory.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

/// Whether these bytes are in others.
pub fn contains(haystack: &[u8], needle: &str) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle.as_bytes())
}

/// Whether a process has these bytes anywhere in its memory.
pub fn memory_contains(pid: &str, needle: &str) -> bool {
    let (looked_at, found) = search_memory(pid, needle).expect("root reads memory");
    assert!(looked_at > 1_000_000, "the memory of {pid} could be read");
    found
}

/// How much of a process's memory could be read, and whether the bytes are in it.
pub fn search_memory(pid: &str, needle: &str) -> std::io::Result<(usize, bool)> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let mut looked_at = 0;
    for line in maps.lines().filter(|line| !line.ends_with("[vvar]") && !line.ends_with("[vsyscall]")) {
        let mut fields = line.split([' ', '-']);
        let mut address = || u64::from_str_radix(fields.next().unwrap_or_default(), 16).unwrap_or(0);
        let (start, end) = (address(), address());
        let mut bytes = vec![0; usize::try_from(end - start).expect("a length")];
        // What cannot be read (guard pages) holds nothing.
        if memory.read_exact_at(&mut bytes, start).is_ok() {
            looked_at += bytes.len();
            if contains(&bytes, needle) {
                return Ok((looked_at, true));
            }
        }
    }
    Ok((looked_at, false))
}
