//! What `Job.Watch` tells: one JSON line per state, and the end of the file after the last.

use std::os::fd::OwnedFd;

use serde::Deserialize;
use tokio::net::unix::pipe::Receiver;

use deputy_core::Code;

use crate::bus::Bus;
use crate::escape;
use crate::failure::Failure;

/// A line longer than this is no line of `deputyd`'s: a job's arguments have at most 4 MiB, a byte at most 6 letters.
const MAX_LINE: usize = 32 * 1024 * 1024;

/// The pipe.
pub struct Watch {
    pipe: Receiver,
    pending: Vec<u8>,
}

/// What the pipe told.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// Another state that is not the last.
    State(String),
    /// The job ended.
    Ended(End),
    /// The job has no end of its own: nobody knows it, or it never ran.
    Lost(Failure),
    /// The pipe ended before the job.
    Broken,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// The exit status for a shell.
    pub status: u8,
    /// The step before the command's first instruction that failed, and its errno.
    failed: Option<(String, Option<i32>)>,
}

/// Those fields of a line that matter here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Line {
    state: String,
    status: Option<i32>,
    exit_code: Option<i32>,
    signal: Option<i32>,
    failed_step: Option<String>,
    errno: Option<i32>,
    code: Option<String>,
    cause: Option<String>,
    rule: Option<String>,
    remedy: Option<String>,
}

impl Watch {
    /// A pipe for a job that is to be run, and the end of it that the job's states are told on.
    pub fn pipe() -> Result<(Self, OwnedFd), Failure> {
        let (reader, writer) = std::io::pipe()?;
        Ok((Self { pipe: Receiver::from_owned_fd(reader.into())?, pending: Vec::new() }, writer.into()))
    }

    /// Begins to watch a job.
    pub async fn open(bus: &Bus, job: &str) -> Result<Self, Failure> {
        let pipe: zbus::OwnedFd = bus.call_at(job, "Job", "Watch", &()).await?;
        Ok(Self { pipe: Receiver::from_owned_fd(pipe.into())?, pending: Vec::new() })
    }

    /// Waits for the next line. Nothing is lost if this is dropped before it is done.
    pub async fn next(&mut self) -> Result<Event, Failure> {
        loop {
            if let Some(end) = self.pending.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                return event(&line);
            }
            if self.pending.len() > MAX_LINE {
                return Err(Failure::new(Code::BadMessage, "deputyd tells no end of a line about the job"));
            }
            self.pipe.readable().await?;
            match self.pipe.try_read_buf(&mut self.pending) {
                Ok(0) => return Ok(Event::Broken),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn event(line: &[u8]) -> Result<Event, Failure> {
    let line: Line = serde_json::from_slice(line).map_err(|error| {
        Failure::new(
            Code::BadMessage,
            format!("deputyd told something about the job that is no JSON: {error}"),
        )
        .remedy("use a deputyctl of the same release as deputyd")
    })?;
    match line.state.as_str() {
        "done" => ended(line).map(Event::Ended),
        "lost" => {
            let cause = line.cause.unwrap_or_else(|| "its end was not recorded".to_owned());
            Ok(Event::Lost(Failure::job_lost(format!("the job is lost: {cause}"))))
        }
        "abandoned" => {
            let cause = line.cause.unwrap_or_else(|| "it was given up before it started".to_owned());
            Ok(Event::Lost(Failure::new(Code::LaunchFailed, format!("the job never ran: {cause}"))))
        }
        _ => Ok(Event::State(line.state)),
    }
}

/// The end; or, if Deputy refused the job after it was accepted, that refusal.
fn ended(line: Line) -> Result<End, Failure> {
    if let Some(code) = line.code {
        let denial =
            Failure::new(Code::Internal, line.cause.unwrap_or_else(|| "the job was refused".to_owned()));
        return Err(Failure { code, rule: line.rule.unwrap_or_default(), ..denial }
            .remedy(line.remedy.unwrap_or_default()));
    }
    let status = line.status.or(line.exit_code).or(line.signal.map(|signal| 128 + signal));
    let status = status.and_then(|status| u8::try_from(status).ok());
    let failed = line.failed_step.map(|step| (step, line.errno));
    match (status, line.cause) {
        (Some(status), _) => Ok(End { status, failed }),
        (None, Some(cause)) => Err(Failure::new(Code::LaunchFailed, cause)),
        (None, None) => Err(Failure::new(Code::BadMessage, "deputyd does not say how the job ended")),
    }
}

impl End {
    /// What to say about a command that never ran.
    pub fn words(&self, command: &str) -> Option<String> {
        let (step, errno) = self.failed.as_ref()?;
        let why =
            errno.map(|errno| format!(": {}", std::io::Error::from_raw_os_error(errno))).unwrap_or_default();
        let failure =
            Failure::new(Code::LaunchFailed, format!("{}: {step} failed{why}", escape::text(command)));
        let failure = match step.as_str() {
            "exec" => failure.remedy("name a program that the OS account can execute"),
            "chdir" => failure.remedy("choose a working directory (--cwd) that the OS account can enter"),
            _ => failure.remedy("the launcher's journal has the details: journalctl -u deputy-launcher"),
        };
        Some(failure.report(false).trim_end().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(line: &str) -> Result<u8, String> {
        match event(line.as_bytes()) {
            Ok(Event::Ended(end)) => Ok(end.status),
            Ok(other) => panic!("{other:?}"),
            Err(failure) => Err(failure.code),
        }
    }

    #[test]
    fn the_end_is_the_status_that_a_shell_would_report() {
        assert_eq!(status(r#"{"state":"done","status":7,"exit_code":7}"#), Ok(7));
        assert_eq!(status(r#"{"state":"done","status":143,"signal":15,"core":false}"#), Ok(143));
        assert_eq!(status(r#"{"state":"done","signal":9}"#), Ok(137));
        assert_eq!(status(r#"{"state":"done","status":127,"failed_step":"exec","errno":2}"#), Ok(127));
        assert_eq!(status(r#"{"state":"done","code":"NoConsent","cause":"no"}"#), Err("NoConsent".into()));
        assert_eq!(status(r#"{"state":"done"}"#), Err("BadMessage".into()));
        assert_eq!(status("{"), Err("BadMessage".into()));
    }

    #[test]
    fn states_before_the_end_are_states_and_a_lost_job_is_a_failure() {
        assert_eq!(
            event(br#"{"state":"running","argv":["x"],"new_field":{}}"#),
            Ok(Event::State("running".into()))
        );
        let Ok(Event::Lost(failure)) = event(br#"{"state":"lost","cause":"power\u001b"}"#) else { panic!() };
        assert_eq!(failure.status, 125);
        assert!(!failure.report(false).contains('\x1b'));
    }

    #[test]
    fn a_command_that_never_ran_is_told_with_step_and_reason() {
        let Ok(Event::Ended(end)) =
            event(br#"{"state":"done","status":126,"failed_step":"chdir","errno":13}"#)
        else {
            panic!()
        };
        let words = end.words("x\x1b").unwrap();
        assert!(
            words.starts_with("deputyctl: LaunchFailed: x\\x1b: chdir failed: Permission denied"),
            "{words}"
        );
        assert!(words.contains("\nremedy: "), "{words}");
    }
}
