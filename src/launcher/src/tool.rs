//! A program of root's that runs as an OS account, and whose output is read.
//!
//! The way from here to the program is a job's (`deputy_sys::launch`): the same drop, nothing inherited. The process that
//! waits stays root and looks at nothing but the pipes. Time and output are bounded, and whatever the program leaves
//! behind is killed.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use deputy_core::job::{JobEnd, Step};
use deputy_etc::root_owned::{self, RootOwnedError};
use deputy_sys::launch::{self, Launch, LaunchResult};
use deputy_sys::limits::{Limits, ProcessCeilings};
use deputy_sys::process::{self, Wait};
use deputy_sys::streams::{OpenFor, Stream, above_stdio};
use deputy_sys::{Credentials, descendants};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use thiserror::Error;

/// The first and the longest pause between two looks whether the program, or what was killed, has gone. One that has closed
/// its streams is on its way out.
const PAUSES: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(2));

/// For how long: what waits for a file server that hangs cannot even be killed.
const HANGS: Duration = Duration::from_secs(5);

/// What is to run.
pub struct Tool<'a> {
    /// The program, an absolute path that has to be root's.
    pub program: &'a Path,
    /// Its words, of which the first is its name.
    pub argv: Vec<CString>,
    /// Its whole environment.
    pub environment: Vec<CString>,
    /// As whom.
    pub credentials: Credentials,
    /// What it reads on standard input; nothing if there is none.
    pub input: Option<OwnedFd>,
    /// The file mode creation mask.
    pub umask: u32,
    /// Resource limits.
    pub limits: Limits,
    /// Whether setuid programs have no effect.
    pub no_new_privileges: bool,
    /// How long it may take.
    pub time: Duration,
    /// The most bytes that it may write to either of its streams.
    pub most: usize,
}

/// How a program ended, and what it wrote.
#[derive(Debug)]
pub struct Said {
    /// How it ended.
    pub end: JobEnd,
    /// On standard output.
    pub output: Vec<u8>,
    /// On standard error.
    pub error: Vec<u8>,
}

/// Why there is no end of it and no output.
#[derive(Debug, Error)]
pub enum ToolError {
    /// It could be changed by somebody other than root, or is not there.
    #[error(transparent)]
    NotRoots(#[from] RootOwnedError),
    /// This process could not start it, or not hear it.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It never ran: a step before `execve`, or that itself, failed.
    #[error("it could not be started: {step}: {}", io::Error::from_raw_os_error(*errno))]
    NotStarted {
        /// The step.
        step: Step,
        /// Its errno.
        errno: i32,
    },
    /// It was killed on the way to `execve`.
    #[error("it was killed before it began")]
    Vanished,
    /// Its time was over.
    #[error("it took too long")]
    TooLong,
    /// It wrote more than it may.
    #[error("it wrote more than {0} bytes")]
    TooMuch(usize),
}

impl Tool<'_> {
    /// Runs it to its end.
    pub fn run(self) -> Result<Said, ToolError> {
        let end = Instant::now() + self.time;
        let most = self.most;
        root_owned::open_file(self.program)?;
        process::become_subreaper()?;
        let (output, to_output) = io::pipe()?;
        let (error, to_error) = io::pipe()?;
        let job = self.launch(to_output.into(), to_error.into())?;
        let started = launch::launch(&job)?;
        // It has its copies; ours would keep the pipes open.
        drop(job);
        let read = read_both([output.into(), error.into()], most, end);
        let ended = wait(started.pid, if read.is_ok() { end } else { Instant::now() });
        match launch::launch_result(started.report)? {
            LaunchResult::Executed => {}
            LaunchResult::Failed { step, errno } => return Err(ToolError::NotStarted { step, errno }),
            LaunchResult::Vanished => return Err(ToolError::Vanished),
        }
        let [output, error] = read?;
        let end = ended.ok_or(ToolError::TooLong)?;
        Ok(Said { end, output, error })
    }

    fn launch(self, output: OwnedFd, error: OwnedFd) -> io::Result<Launch> {
        let nothing = || Stream::File { path: c"/dev/null".to_owned(), open_for: OpenFor::Reading };
        let input = self.input.map_or_else(nothing, Stream::Descriptor);
        Ok(Launch {
            programs: vec![CString::new(self.program.as_os_str().as_bytes())?],
            script: None,
            argv: self.argv,
            environment: self.environment,
            credentials: self.credentials,
            directories: vec![c"/".to_owned()],
            streams: above_stdio([input, Stream::Descriptor(output), Stream::Descriptor(error)])?,
            terminal: false,
            cgroup: None,
            confinement: None,
            no_new_privileges: self.no_new_privileges,
            umask: self.umask,
            limits: self.limits,
            ceilings: ProcessCeilings { core: Some(0), ..ProcessCeilings::default() },
            nice: 0,
        })
    }
}

/// Reads both until their other ends are closed, within the bounds.
fn read_both(pipes: [OwnedFd; 2], most: usize, end: Instant) -> Result<[Vec<u8>; 2], ToolError> {
    let mut open: Vec<(usize, File)> = pipes.map(File::from).into_iter().enumerate().collect();
    let mut read = [Vec::new(), Vec::new()];
    let mut buffer = vec![0; 64 * 1024];
    while !open.is_empty() {
        let left = end.saturating_duration_since(Instant::now());
        let time = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut polled: Vec<PollFd<'_>> =
            open.iter().map(|(_, file)| PollFd::from_borrowed_fd(file.as_fd(), PollFlags::IN)).collect();
        match poll(&mut polled, Some(&time)) {
            Ok(0) => return Err(ToolError::TooLong),
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(io::Error::from(errno).into()),
            Ok(_) => {}
        }
        let ready: Vec<bool> = polled.iter().map(|one| !one.revents().is_empty()).collect();
        let mut still_open = Vec::new();
        for ((stream, mut file), ready) in open.into_iter().zip(ready) {
            if ready {
                let count = file.read(&mut buffer)?;
                if count == 0 {
                    continue;
                }
                read[stream].extend_from_slice(&buffer[..count]);
                if read[stream].len() > most {
                    return Err(ToolError::TooMuch(most));
                }
            }
            still_open.push((stream, file));
        }
        open = still_open;
    }
    Ok(read)
}

/// Waits for the program until that moment, and then a while for nothing to be left of it, which is killed. How the program
/// ended, if it did so by itself.
fn wait(pid: i32, end: Instant) -> Option<JobEnd> {
    let mut ended = None;
    let mut killing = false;
    let mut pause = PAUSES.0;
    loop {
        match process::reap() {
            Ok(Wait::NoChildren) | Err(_) => return ended,
            Ok(Wait::Reaped(child)) if child.pid == pid => {
                ended = (!killing).then_some(child.end);
                killing = true;
            }
            Ok(Wait::Reaped(_)) => {}
            Ok(Wait::Running) if Instant::now() >= end + HANGS => return ended,
            Ok(Wait::Running) => {
                killing |= Instant::now() >= end;
                if killing {
                    let _ = descendants::kill_all();
                }
                sleep(pause);
                pause = (pause * 2).min(PAUSES.1);
            }
        }
    }
}
