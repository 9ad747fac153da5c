//! A program of root's that runs as an OS account, and whose output is read: for what the kernel does not know.
//!
//! The way from here to the program is a job's (`deputy_sys::launch`): the same drop, `no_new_privs`, nothing inherited.
//! The process that waits stays root and looks at nothing but the pipe. Time and output are bounded, and whatever the
//! program leaves behind is killed.

use std::ffi::{CString, OsStr};
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use deputy_core::job::JobEnd;
use deputy_core::policy::PasswdEntry;
use deputy_etc::root_owned;
use deputy_sys::launch::{self, Launch, LaunchResult};
use deputy_sys::limits::{Limits, ProcessCeilings};
use deputy_sys::process::{self, Wait};
use deputy_sys::streams::{Stream, above_stdio};
use deputy_sys::{Credentials, descendants};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

use crate::shepherd::environment;

/// How often it is looked whether what was killed has gone.
const PAUSE: Duration = Duration::from_millis(2);

/// For how long: what waits for a file server that hangs cannot even be killed.
const HANGS: Duration = Duration::from_secs(5);

/// What is to run.
pub struct Tool<'a> {
    /// The program, an absolute path that has to be root's, and its arguments.
    pub argv: Vec<Vec<u8>>,
    /// As whom.
    pub credentials: Credentials,
    /// The same one's passwd entry.
    pub entry: &'a PasswdEntry,
    /// How long it may take.
    pub time: Duration,
    /// The most bytes that it may write.
    pub most: usize,
}

impl Tool<'_> {
    /// Runs it, and returns what it wrote to standard output. Why there is none, in words: it is not root's, could not be
    /// executed, took too long, wrote too much, or ended otherwise than with status 0.
    pub fn output(self) -> Result<Vec<u8>, String> {
        let end = Instant::now() + self.time;
        let most = self.most;
        let program = self.argv.first().cloned().unwrap_or_default();
        let path = Path::new(OsStr::from_bytes(&program));
        root_owned::open_file(path).map_err(|error| error.to_string())?;
        process::become_subreaper().map_err(|error| format!("becoming a subreaper: {error}"))?;
        let (reader, writer) = io::pipe().map_err(|error| format!("a pipe: {error}"))?;
        let job = self.launch(writer.into()).map_err(|error| format!("the program's fork: {error}"))?;
        let started = launch::launch(&job).map_err(|error| format!("the program's fork: {error}"))?;
        // It has its copies; ours would keep the pipe open.
        drop(job);
        let read = read(&mut OwnedFd::from(reader), most, end);
        let ended = wait(started.pid, if read.is_ok() { end } else { Instant::now() });
        match launch::launch_result(started.report) {
            Ok(LaunchResult::Executed) => {}
            Ok(LaunchResult::Failed { step, errno }) => {
                return Err(format!("it could not be started: {step}: {}", Errno::from_raw_os_error(errno)));
            }
            Ok(LaunchResult::Vanished) | Err(_) => return Err("it was killed before it began".into()),
        }
        let output = read?;
        match ended {
            Some(JobEnd::Exited { code: 0 }) => Ok(output),
            Some(JobEnd::Exited { code }) => Err(format!("it ended with status {code}")),
            Some(JobEnd::Signaled { signal, .. }) => Err(format!("signal {signal} ended it")),
            _ => Err(too_long()),
        }
    }

    fn launch(self, output: OwnedFd) -> io::Result<Launch> {
        let null = || open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
        let argv: Vec<CString> =
            self.argv.into_iter().map(CString::new).collect::<Result<_, _>>().map_err(io::Error::other)?;
        Ok(Launch {
            programs: argv.first().cloned().into_iter().collect(),
            script: None,
            argv,
            environment: environment::build(self.entry, &[], std::iter::empty()),
            credentials: self.credentials,
            directories: vec![c"/".to_owned()],
            streams: above_stdio([
                Stream::Descriptor(null()?),
                Stream::Descriptor(output),
                Stream::Descriptor(null()?),
            ])?,
            cgroup: None,
            confinement: None,
            no_new_privileges: true,
            umask: 0o077,
            limits: Limits::current()?,
            ceilings: ProcessCeilings { core: Some(0), ..ProcessCeilings::default() },
            nice: 0,
        })
    }
}

fn too_long() -> String {
    "it took too long".into()
}

/// What comes until the other end is closed, within the bounds.
fn read(pipe: &mut OwnedFd, most: usize, end: Instant) -> Result<Vec<u8>, String> {
    let mut output = Vec::new();
    let mut file = std::fs::File::from(pipe.try_clone().map_err(|error| error.to_string())?);
    let mut buffer = [0; 4096];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let time = Timespec::try_from(left).map_err(|error| error.to_string())?;
        match poll(&mut [PollFd::new(pipe, PollFlags::IN)], Some(&time)) {
            Ok(0) => return Err(too_long()),
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(format!("its output: {errno}")),
            Ok(_) => {}
        }
        let count = file.read(&mut buffer).map_err(|error| format!("its output: {error}"))?;
        if count == 0 {
            return Ok(output);
        }
        output.extend_from_slice(&buffer[..count]);
        if output.len() > most {
            return Err(format!("it wrote more than {most} bytes"));
        }
    }
}

/// Waits for the program until that moment, and then a while for nothing to be left of it, which is killed. How the program
/// ended, if it did so by itself.
fn wait(pid: i32, end: Instant) -> Option<JobEnd> {
    let mut ended = None;
    let mut killing = false;
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
                sleep(PAUSE);
            }
        }
    }
}
