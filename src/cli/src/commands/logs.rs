//! `job logs`: what a job wrote to a captured stream.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use deputy_core::ids::JobId;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;

use super::block_on;
use super::log_file::LogFile;
use crate::bus::{Bus, JOB_PREFIX};
use crate::failure::Failure;
use crate::options::ByOption;
use crate::value::Dictionary;

/// For how long `deputyd` may be away while a job is followed: an upgrade takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often it is looked for meanwhile.
const RETRY: Duration = Duration::from_millis(250);

/// `job logs`.
pub fn logs(
    job: &JobId,
    stream: &str,
    follow: bool,
    offset: u64,
    by: &ByOption,
) -> Result<ExitCode, Failure> {
    let path = format!("{JOB_PREFIX}{job}");
    block_on(async {
        let bus = Bus::connect().await?;
        let record: Dictionary = bus.call_at(&path, "Job", "Get", &()).await?;
        if record.contains_key(stream) {
            let file = LogFile::of(&record, stream, by)?;
            return file.print(&bus, &path, follow, offset).await;
        }
        let mut position = Position { offset, last: Vec::new() };
        let mut away = Duration::ZERO;
        loop {
            // Asked before the reading: what is written before the end is then read.
            let ended = !follow || has_ended(&bus, &path).await.unwrap_or(false);
            let mut options = by.options();
            options.insert("follow", follow.into());
            options.insert("offset", position.offset.into());
            let opened: Result<zbus::OwnedFd, Failure> =
                bus.call_at(&path, "Job", "Output", &(stream, options)).await;
            match opened {
                Ok(pipe) => {
                    let begun = position.offset;
                    copy(Receiver::from_owned_fd(pipe.into())?, &mut position).await?;
                    if ended {
                        return Ok(ExitCode::SUCCESS);
                    }
                    if position.offset > begun {
                        away = Duration::ZERO;
                    }
                }
                Err(failure) if follow && failure.code == "DaemonUnavailable" && away < PATIENCE => {}
                Err(failure) => return Err(failure),
            }
            // The pipe ended: either the job did, which the next look tells, or deputyd went away.
            if !has_ended(&bus, &path).await.unwrap_or(false) {
                away += RETRY;
                if away > PATIENCE {
                    return Err(Failure::unavailable("deputyd tells nothing more about the job"));
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    })
}

pub(super) async fn has_ended(bus: &Bus, path: &str) -> Result<bool, Failure> {
    let job: Dictionary = bus.call_at(path, "Job", "Get", &()).await?;
    Ok(job.contains_key("ended"))
}

/// Copies to standard output until the pipe ends.
async fn copy(mut pipe: Receiver, position: &mut Position) -> Result<(), Failure> {
    let mut buffer = vec![0; 64 * 1024];
    let mut output = std::io::stdout();
    loop {
        let count = pipe.read(&mut buffer).await?;
        if count == 0 {
            output.flush()?;
            return Ok(());
        }
        position.seen(&buffer[..count]);
        output.write_all(&buffer[..count])?;
        output.flush()?;
    }
}

/// Where the next byte is in the whole of the job's output.
struct Position {
    offset: u64,
    /// The latest bytes, in which a line of Deputy's may have begun.
    last: Vec<u8>,
}

/// What stands before and behind the number of bytes that are left out.
const LINE: (&[u8], &[u8]) = (b"\n[deputy: ", b" bytes left out]\n");

/// The longest such line.
const MAX_LINE: usize = 64;

impl Position {
    /// Counts what was read; a line of Deputy's stands for the bytes that it tells of.
    fn seen(&mut self, bytes: &[u8]) {
        self.offset += bytes.len() as u64;
        self.last.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(found) = find(&self.last[at..], LINE.0) {
            let start = at + found;
            let digits = &self.last[start + LINE.0.len()..];
            let length = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let number =
                std::str::from_utf8(&digits[..length]).ok().and_then(|text| text.parse::<u64>().ok());
            if let Some(number) = number
                && digits[length..].starts_with(LINE.1)
            {
                let line = LINE.0.len() + length + LINE.1.len();
                self.offset = (self.offset + number).saturating_sub(line as u64);
                at = start + line;
            } else if LINE.1.starts_with(&digits[length..]) && self.last.len() - start < MAX_LINE {
                // The rest of it may come.
                at = start;
                break;
            } else {
                at = start + 1;
            }
        }
        let keep = self.last.len().saturating_sub(MAX_LINE);
        self.last.drain(..at.max(keep));
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_counts_as_the_bytes_that_it_stands_for_however_it_arrives() {
        let text = b"head\n[deputy: 996 bytes left out]\ntail\n[deputy: x]\n[deputy: 5 bytes left out]\n.";
        let expected = 4 + 996 + 4 + "\n[deputy: x]".len() as u64 + 5 + 1;
        for size in 1..=text.len() {
            let mut position = Position { offset: 100, last: Vec::new() };
            text.chunks(size).for_each(|chunk| position.seen(chunk));
            assert_eq!(position.offset, 100 + expected, "pieces of {size}");
            assert!(position.last.len() <= 2 * MAX_LINE);
        }
    }
}
