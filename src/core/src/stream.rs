//! Where a job's standard input comes from and where its output goes.

use serde::{Deserialize, Serialize};

/// Standard input.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// A descriptor that comes with the request.
    #[default]
    Descriptor,
    /// A file, opened as the user. A relative path is one below the working directory.
    File(Vec<u8>),
}

/// Standard output or error.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Output {
    /// A descriptor that comes with the request.
    #[default]
    Descriptor,
    /// A file, made or opened as the user.
    File {
        /// Its path. A relative one is one below the working directory.
        path: Vec<u8>,
        /// Whether what the file has stays, instead of being cut off.
        append: bool,
    },
    /// Kept in the job's folder, up to the bound that policy sets.
    Captured,
    /// For standard error: where standard output goes, in the order in which it is written.
    SameAsOutput,
}

/// The three of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streams {
    /// Standard input.
    pub input: Input,
    /// Standard output; never [`Output::SameAsOutput`].
    pub output: Output,
    /// Standard error.
    pub error: Output,
}

impl Streams {
    /// How many descriptors a request with these streams brings, in the order input, output, error.
    pub fn descriptors(&self) -> usize {
        usize::from(self.input == Input::Descriptor)
            + usize::from(self.output == Output::Descriptor)
            + usize::from(self.error == Output::Descriptor)
    }

    /// Whether anything is kept in the job's folder.
    pub fn captures(&self) -> bool {
        [&self.output, &self.error].contains(&&Output::Captured)
    }
}

/// A stream that can be captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CapturedStream {
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

impl CapturedStream {
    /// The name on the bus, the command line and in the job's folder.
    pub fn as_str(self) -> &'static str {
        match self {
            CapturedStream::Output => "stdout",
            CapturedStream::Error => "stderr",
        }
    }
}

/// What was captured of a job, each stream's number of bytes, kept or not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Captured {
    /// Bytes that the job wrote to a captured standard output.
    pub output: u64,
    /// Bytes that the job wrote to a captured standard error.
    pub error: u64,
}

/// What is not kept of a captured stream: one range of bytes of the whole, empty where everything is kept. It only
/// grows: its beginning moves back at most once, its end moves on as the job writes.
///
/// It is a file of its own beside the stream's, so that whoever has both descriptors can follow a job that runs: what
/// was read at an offset before this was read is the job's, unless this has it. The stream's file keeps true offsets;
/// the stream is as long as that file or as [`LeftOut::end`], whichever is more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// The first byte that is not kept.
    pub start: u64,
    /// The byte after the last that is not kept.
    pub end: u64,
}

impl LeftOut {
    /// The size of its file.
    pub const BYTES: usize = 16;

    /// How many bytes are left out.
    pub fn count(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether the byte at this offset is not kept.
    pub fn has(self, offset: u64) -> bool {
        (self.start..self.end).contains(&offset)
    }

    /// As its file has it: both numbers, little-endian.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.start.to_le_bytes());
        bytes[8..].copy_from_slice(&self.end.to_le_bytes());
        bytes
    }

    /// Reads its file.
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let (start, end) = bytes.split_at(8);
        let number = |half: &[u8]| half.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte));
        Self { start: number(start), end: number(end) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_read_as_it_was_written() {
        let left_out = LeftOut { start: 8 << 20, end: 0x0102_0304_0506_0708 };
        assert_eq!(LeftOut::from_bytes(left_out.to_bytes()), left_out);
        assert_eq!(LeftOut::from_bytes([0; LeftOut::BYTES]).count(), 0);
        assert!(left_out.has(8 << 20) && !left_out.has((8 << 20) - 1) && !left_out.has(left_out.end));
    }

    #[test]
    fn only_what_comes_with_the_request_counts() {
        assert_eq!(Streams::default().descriptors(), 3);
        let streams = Streams {
            input: Input::File(b"in".to_vec()),
            output: Output::Captured,
            error: Output::SameAsOutput,
        };
        assert_eq!((streams.descriptors(), streams.captures()), (0, true));
        assert!(!Streams::default().captures());
    }
}
