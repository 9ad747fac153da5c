//! Jobs whose streams are no descriptors, and what was captured of them.

use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

use deputy_core::Code;
use deputy_core::ids::JobId;
use deputy_core::job::{ExitRecord, JobEnd, Step};
use deputy_core::message::{JobState, LauncherReply, LauncherRequest, RunRequest, decode, encode};
use deputy_core::stream::{CapturedStream, Input, LeftOut, Output, Streams};

use crate::acting::ids;
use crate::fake::Answers;
use crate::line::Line;

/// From this file, or to it.
pub fn file(path: &str) -> Output {
    Output::File { path: path.into(), append: false }
}

/// Input from a file, output and errors wherever is said. No descriptor is needed for the input.
pub fn streams(input: &str, output: Output, error: Output) -> Streams {
    Streams { input: Input::File(input.into()), output, error }
}

/// Nothing to read, and everything captured.
pub fn all_captured() -> Streams {
    streams("/dev/null", Output::Captured, Output::Captured)
}

/// Sends a job with these descriptors and does not wait.
pub fn start(request: &RunRequest, descriptors: &[BorrowedFd<'_>]) -> Line {
    let line = Line::to_launcher(ids("deputy")).expect("the launcher's socket");
    line.send(&encode(&LauncherRequest::Run(request.clone())).expect("a message"), descriptors);
    line
}

/// Sends a job with these descriptors and waits for its end.
pub fn run(request: &RunRequest, descriptors: &[BorrowedFd<'_>]) -> Answers {
    Answers { replies: start(request, descriptors).rest(), output: String::new() }
}

/// The record of a job that ran.
pub fn record(answers: &Answers) -> ExitRecord {
    match answers.replies.last() {
        Some(LauncherReply::Job(JobState::Ended(record))) => record.clone(),
        other => panic!("no end: {other:?}"),
    }
}

/// The step and errno at which a job could not be started.
pub fn failed_at(answers: &Answers) -> (Step, i32) {
    match record(answers).end {
        JobEnd::LaunchFailed { step, errno } => (step, errno),
        other => panic!("it was started: {other:?}"),
    }
}

/// A captured stream, by the descriptors that the launcher hands out.
#[derive(Debug)]
pub struct CapturedFile {
    /// Its bytes.
    pub bytes: File,
    left_out: File,
}

impl CapturedFile {
    /// Asks for one.
    pub fn of(job: &JobId, stream: CapturedStream) -> Result<Self, Code> {
        let line = Line::to_launcher(ids("deputy")).expect("the launcher's socket");
        let request = LauncherRequest::Captured { job: job.clone(), stream };
        line.send(&encode(&request).expect("a message"), &[]);
        let packet = deputy_wire::receive(&line).expect("an answer").expect("an answer");
        match decode(&packet.bytes).expect("a message") {
            LauncherReply::Captured => {
                let [bytes, left_out]: [OwnedFd; 2] = packet.descriptors.try_into().expect("two descriptors");
                Ok(Self { bytes: bytes.into(), left_out: left_out.into() })
            }
            LauncherReply::Denied(denial) => Err(denial.code),
            other => panic!("{other:?}"),
        }
    }

    /// What is left out.
    pub fn left_out(&self) -> LeftOut {
        let mut bytes = [0; LeftOut::BYTES];
        self.left_out.read_exact_at(&mut bytes, 0).expect("what is left out");
        LeftOut::from_bytes(bytes)
    }

    /// How many bytes the file reaches to.
    pub fn size(&self) -> u64 {
        self.bytes.metadata().expect("its metadata").len()
    }

    /// What it has from one offset to another.
    pub fn read(&self, from: u64, to: u64) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(to - from).expect("a length")];
        self.bytes.read_exact_at(&mut bytes, from).expect("what is kept");
        bytes
    }

    /// All of it, which is kept.
    pub fn text(&self) -> String {
        assert_eq!(self.left_out().count(), 0);
        String::from_utf8(self.read(0, self.size())).expect("text")
    }
}

/// The text of a captured stream of which nothing is left out.
pub fn captured_text(job: &JobId, stream: CapturedStream) -> String {
    CapturedFile::of(job, stream).expect("a captured stream").text()
}
