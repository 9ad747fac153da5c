//! What a job writes to captured streams: kept in its folder, with bounded memory and disk, whatever it writes.
//!
//! A stream's file keeps true offsets. It has the beginning and the latest bytes, half of the bound each (and what
//! fills their blocks); what lies between is punched out of it as the job writes on. What is not there is written down
//! beside it, before it goes: see [`LeftOut`].

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

use deputy_core::size::ByteSize;
use deputy_core::stream::{Captured, CapturedStream, LeftOut};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::{Errno, ioctl_fionread, read};

/// What a pipe holds, and so the most that one read gives.
const CHUNK: usize = 64 * 1024;

/// How many reads a stream has before the shepherd looks at everything else again.
const TURN: usize = 16;

/// What is punched out begins and ends with a block.
const BLOCK: u64 = 4096;

/// The captured streams of a job.
#[derive(Default)]
pub struct Pumps {
    pumps: Vec<Pump>,
    buffer: Vec<u8>,
}

struct Pump {
    stream: CapturedStream,
    /// None after its end.
    pipe: Option<OwnedFd>,
    kept: Kept,
}

impl Pumps {
    /// Adds a stream: what comes out of the pipe, which never makes anybody wait, goes into these files.
    pub fn add(&mut self, stream: CapturedStream, pipe: OwnedFd, files: Files, bound: ByteSize) {
        self.buffer.resize(CHUNK, 0);
        let kept = Kept::new(files, bound.0);
        self.pumps.push(Pump { stream, pipe: Some(pipe), kept });
    }

    /// What to wait for.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.pumps.iter().filter_map(|pump| pump.pipe.as_ref()).map(AsFd::as_fd)
    }

    /// Moves what is there now, of each stream as much as leaves time for other things.
    pub fn serve(&mut self) {
        for pump in &mut self.pumps {
            pump.read_up_to(TURN * CHUNK, &mut self.buffer);
        }
    }

    /// Moves what is left in the pipes when nothing of the job is left, puts all on disk and says how much it was.
    /// Somebody who is not of the job may still have a pipe and write; he is not waited for.
    pub fn finish(&mut self) -> Captured {
        let mut captured = Captured::default();
        for pump in &mut self.pumps {
            let left = pump.pipe.as_ref().map_or(Ok(0), ioctl_fionread).unwrap_or(0);
            pump.read_up_to(usize::try_from(left).unwrap_or(usize::MAX), &mut self.buffer);
            pump.pipe = None;
            if let Err(error) = pump.kept.files.bytes.sync_data() {
                tracing::error!(event = "captured_not_synced", stream = pump.stream.as_str(), error = %error);
            }
            match pump.stream {
                CapturedStream::Output => captured.output = pump.kept.total,
                CapturedStream::Error => captured.error = pump.kept.total,
            }
        }
        captured
    }
}

impl Pump {
    fn read_up_to(&mut self, most: usize, buffer: &mut [u8]) {
        let mut left = most;
        while left > 0 {
            let Some(pipe) = &self.pipe else { return };
            match read(pipe, &mut *buffer) {
                Ok(0) => self.pipe = None,
                Ok(count) => {
                    self.kept.append(&buffer[..count]);
                    left = left.saturating_sub(count);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(errno) => {
                    tracing::error!(event = "capture_failed", stream = self.stream.as_str(), error = %errno);
                    self.pipe = None;
                }
            }
        }
    }
}

/// Where one stream is kept.
#[derive(Debug)]
pub struct Files {
    /// Its bytes.
    pub bytes: File,
    /// What is left out of them.
    pub left_out: File,
}

/// One stream, as far as it is kept.
struct Kept {
    files: Files,
    /// Half of the bound.
    half: u64,
    /// Where the beginning ends.
    head: u64,
    /// Whether the file system can give back the middle of a file; else only the beginning is kept.
    keeps_latest: bool,
    total: u64,
    left_out: LeftOut,
    /// Up to where what is left out has been given back.
    punched: u64,
    complained: bool,
}

impl Kept {
    fn new(files: Files, bound: u64) -> Self {
        let keeps_latest = punch(&files.bytes, 0..BLOCK).is_ok();
        let head = if keeps_latest { (bound / 2).next_multiple_of(BLOCK) } else { bound };
        Self {
            files,
            half: bound / 2,
            head,
            keeps_latest,
            total: 0,
            left_out: LeftOut::default(),
            punched: 0,
            complained: false,
        }
    }

    /// Takes what the job wrote. Never fails: what cannot be kept is left out.
    fn append(&mut self, bytes: &[u8]) {
        let start = self.total;
        let end = start + bytes.len() as u64;
        self.total = end;
        self.make_room(end);
        // What of these bytes comes before what is left out, and what behind it.
        let out = if self.left_out.count() == 0 { end..end } else { self.left_out.start..self.left_out.end };
        for part in [start..end.min(out.start), start.max(out.end)..end] {
            if part.start < part.end {
                self.write(bytes, start, part);
            }
        }
    }

    /// Gives up what is in the way of the latest bytes.
    fn make_room(&mut self, end: u64) {
        let upto = if self.keeps_latest {
            // Up to the bound everything is kept: the beginning and the latest meet.
            (end - end.min(self.half)) / BLOCK * BLOCK
        } else {
            end
        };
        if upto <= self.head.max(self.left_out.end) {
            return;
        }
        let start = if self.left_out.count() == 0 { self.head } else { self.left_out.start };
        self.leave_out(LeftOut { start, end: upto });
    }

    /// Writes down what is left out, then gives it back.
    fn leave_out(&mut self, left_out: LeftOut) {
        self.left_out = left_out;
        if let Err(error) = self.files.left_out.write_all_at(&left_out.to_bytes(), 0) {
            self.complain(&error);
        }
        if !self.keeps_latest {
            return;
        }
        let from = self.punched.max(left_out.start).next_multiple_of(BLOCK);
        let upto = left_out.end / BLOCK * BLOCK;
        if from >= upto {
            return;
        }
        match punch(&self.files.bytes, from..upto) {
            Ok(()) => self.punched = upto,
            Err(errno) => self.complain(&errno.into()),
        }
    }

    /// Writes a part of the bytes that begin at `start`. What does not go is left out, with all between it and what is
    /// left out already: one range is enough to say on a disk that is full.
    fn write(&mut self, bytes: &[u8], start: u64, part: Range<u64>) {
        // Both are within the bytes.
        let within = |offset: u64| usize::try_from(offset - start).unwrap_or(bytes.len());
        let mut at = part.start;
        while at < part.end {
            match self.files.bytes.write_at(&bytes[within(at)..within(part.end)], at) {
                Ok(0) => break,
                Ok(count) => at += count as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.complain(&error);
                    break;
                }
            }
        }
        if at < part.end {
            let start = if self.left_out.count() == 0 { at } else { self.left_out.start.min(at) };
            self.leave_out(LeftOut { start, end: self.left_out.end.max(part.end) });
        }
    }

    fn complain(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.complained, true) {
            tracing::error!(event = "captured_output_left_out", at = self.total, error = %error);
        }
    }
}

fn punch(file: &File, range: Range<u64>) -> Result<(), Errno> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(file, flags, range.start, range.end - range.start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    fn files() -> (Files, File, File) {
        let (bytes, left_out) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let (of_bytes, of_left_out) = (bytes.try_clone().unwrap(), left_out.try_clone().unwrap());
        (Files { bytes, left_out }, of_bytes, of_left_out)
    }

    fn byte_at(offset: u64) -> u8 {
        // Never zero, which a hole would be, and without a period that a block has.
        u8::try_from(offset % 251).unwrap() + 1
    }

    fn bytes_of(range: Range<u64>) -> Vec<u8> {
        range.map(byte_at).collect()
    }

    fn left_out(file: &File) -> LeftOut {
        let mut bytes = [0; LeftOut::BYTES];
        match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => LeftOut::from_bytes(bytes),
            Err(_) => LeftOut::default(),
        }
    }

    /// Writes so many bytes in chunks of this size, and looks at all that is kept after each.
    fn check(bound: u64, total: u64, chunk: u64) {
        let (files, bytes, beside) = files();
        let mut kept = Kept::new(files, bound);
        assert!(kept.keeps_latest, "the file system of the temporary folder can punch holes");
        let mut at = 0;
        while at < total {
            let end = (at + chunk).min(total);
            kept.append(&bytes_of(at..end));
            at = end;
            let out = left_out(&beside);
            let case = format!("bound {bound}, chunk {chunk}, at {at}: {out:?}");
            assert_eq!(bytes.metadata().unwrap().len().max(out.end), at, "{case}");
            if at <= bound {
                assert_eq!(out.count(), 0, "{case}");
            } else {
                assert!(out.count() == 0 || out.start >= bound / 2 && out.end <= at - bound / 2, "{case}");
                assert!(at - out.count() <= bound + 3 * BLOCK, "{case}");
                assert!(bytes.metadata().unwrap().blocks() * 512 <= bound + 4 * BLOCK, "{case}");
            }
            for part in [0..if out.count() == 0 { at } else { out.start }, out.end..at] {
                let mut read = vec![0; usize::try_from(part.end - part.start).unwrap()];
                bytes.read_exact_at(&mut read, part.start).unwrap();
                assert!(read == bytes_of(part), "{case}");
            }
        }
        assert_eq!(kept.total, total);
    }

    #[test]
    fn the_beginning_and_the_latest_are_kept_at_their_offsets() {
        for bound in [0, 1, 10_000, 65_536] {
            for chunk in [777, 4096, 65_536] {
                check(bound, 200_000, chunk);
            }
        }
        check(4096, 10_000, 37);
        check(9000, 30_000, 37);
    }

    #[test]
    fn where_holes_cannot_be_punched_the_beginning_is_kept() {
        let (files, bytes, beside) = files();
        let mut kept = Kept::new(files, 10_000);
        (kept.keeps_latest, kept.head) = (false, 10_000);
        for start in [0, 7000, 14_000] {
            kept.append(&bytes_of(start..start + 7000));
        }
        assert_eq!(bytes.metadata().unwrap().len(), 10_000);
        assert_eq!(left_out(&beside), LeftOut { start: 10_000, end: 21_000 });
        assert_eq!(kept.total, 21_000);
    }

    #[test]
    fn what_a_full_disk_did_not_take_is_left_out_and_the_rest_goes_on() {
        let (files, _, beside) = files();
        let full =
            Files { bytes: std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap(), ..files };
        let mut kept = Kept::new(full, 100_000);
        kept.append(&bytes_of(0..1000));
        assert_eq!(left_out(&beside), LeftOut { start: 0, end: 1000 });
        let (room, bytes, _) = self::files();
        kept.files.bytes = room.bytes;
        kept.append(&bytes_of(1000..3000));
        assert_eq!(left_out(&beside), LeftOut { start: 0, end: 1000 });
        let mut read = [0; 2000];
        bytes.read_exact_at(&mut read, 1000).unwrap();
        assert_eq!(read.to_vec(), bytes_of(1000..3000));
        assert_eq!(kept.total, 3000);
    }

    #[test]
    fn who_still_has_the_pipe_when_the_job_has_ended_is_not_waited_for() {
        let (reader, mut writer) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&reader, true).unwrap();
        let (files, bytes, _) = files();
        let mut pumps = Pumps::default();
        pumps.add(CapturedStream::Error, reader.into(), files, ByteSize(1 << 20));
        io::Write::write_all(&mut writer, b"the last words").unwrap();
        assert_eq!(pumps.descriptors().count(), 1);
        assert_eq!(pumps.finish(), Captured { output: 0, error: 14 });
        assert_eq!(bytes.metadata().unwrap().len(), 14);
        assert_eq!(pumps.descriptors().count(), 0);
    }
}
