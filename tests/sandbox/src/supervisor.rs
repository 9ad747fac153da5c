//! Process 1's loop: reaps every orphan, restarts services, passes signals on, waits for conditions.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::files::{LOGS, RUN};
use crate::services::Service;
use crate::{exec, outer};

/// A service that lives shorter than this died at once.
const AT_ONCE: Duration = Duration::from_secs(1);
/// So often a service may die at once before it is restarted less eagerly.
const PATIENCE: u32 = 5;
/// How long less eagerly is.
const BACK_OFF: Duration = Duration::from_millis(500);
/// How often a wait looks again.
const TICK_MS: u16 = 2;
/// How often a held service's file is looked for.
const HOLD_TICK: Duration = Duration::from_millis(20);

struct Supervised {
    service: Service,
    pid: Option<Pid>,
    started: Instant,
    died_at_once: u32,
    last_status: u8,
    restart_at: Option<Instant>,
}

/// The state of process 1.
pub struct Supervisor {
    signals: SignalFd,
    /// End of file: the outer process is gone.
    outer: File,
    own: PathBuf,
    services: Vec<Supervised>,
    command: Option<Pid>,
    command_status: Option<u8>,
    /// A signal that came before there was a command.
    early: Option<Signal>,
}

impl Supervisor {
    /// A supervisor without services. `own` is this program, as seen from inside.
    pub fn new(signals: SignalFd, outer: File, own: PathBuf) -> Self {
        Self { signals, outer, own, services: Vec::new(), command: None, command_status: None, early: None }
    }

    /// Starts a service and keeps it running from now on.
    pub fn start(&mut self, service: Service) -> Result<()> {
        let mut supervised = Supervised {
            service,
            pid: None,
            started: Instant::now(),
            died_at_once: 0,
            last_status: 0,
            restart_at: None,
        };
        spawn(&self.own, &mut supervised)?;
        self.services.push(supervised);
        Ok(())
    }

    /// Waits until a service is ready; fails when it keeps dying, or after ten seconds, with its log's end.
    pub fn wait_ready(&mut self, name: &str, what: &str, ready: impl FnMut() -> bool) -> Result<()> {
        self.wait_ready_within(Duration::from_secs(10), name, what, ready)
    }

    /// The same with another patience.
    pub fn wait_ready_within(
        &mut self,
        patience: Duration,
        name: &str,
        what: &str,
        mut ready: impl FnMut() -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + patience;
        while !ready() {
            self.turn(PollTimeout::from(TICK_MS))?;
            if let Some(signal) = self.early {
                // As if it had ended the command, which is not there yet; the kernel ends the rest with us.
                eprintln!("deputy-sandbox: ended by {signal} during the start");
                std::process::exit(128 + signal as i32);
            }
            let dying = self.services.iter().find(|s| s.service.name == name && s.died_at_once >= PATIENCE);
            let reason = match dying {
                Some(s) => format!("it ends at once each time it is started, with status {}", s.last_status),
                None if Instant::now() > deadline => format!("not so within {} s", patience.as_secs()),
                None => continue,
            };
            bail!("{name} is not ready ({what}): {reason}. The end of its log:\n{}", log_tail(name));
        }
        Ok(())
    }

    /// Runs the command to its end.
    pub fn run_command(&mut self, mut command: Command) -> Result<u8> {
        let child = exec::by_fork(&mut command).spawn().context("starting the command")?;
        self.command = Some(pid_of(&child)?);
        loop {
            if let Some(status) = self.command_status {
                return Ok(status);
            }
            let timeout = self.next_restart().map_or(PollTimeout::NONE, |at| {
                let wait = at.saturating_duration_since(Instant::now()).as_millis();
                // Rounded up: a zero would spin until the moment has come.
                PollTimeout::from(u16::try_from(wait + 1).unwrap_or(u16::MAX))
            });
            self.turn(timeout)?;
        }
    }

    fn next_restart(&self) -> Option<Instant> {
        self.services.iter().filter_map(|s| s.restart_at).min()
    }

    /// One turn of the loop.
    fn turn(&mut self, timeout: PollTimeout) -> Result<()> {
        let mut descriptors = [
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.outer.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut descriptors, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => bail!("poll: {error}"),
        }
        if descriptors[1].any().unwrap_or(false) {
            bail!("the outer process is gone");
        }
        while let Some(info) = self.signals.read_signal().context("signalfd")? {
            let Some(signal) = outer::to_forward(info.ssi_signo, info.ssi_code) else { continue };
            match self.command {
                Some(pid) => drop(kill(pid, signal)),
                None => self.early = Some(signal),
            }
        }
        self.reap();
        self.restart()
    }

    fn reap(&mut self) {
        loop {
            let (pid, status) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, u8::try_from(code).unwrap_or(u8::MAX)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    (pid, 128_u8.saturating_add(u8::try_from(signal as i32).unwrap_or(127)))
                }
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(_) => continue,
            };
            if self.command == Some(pid) {
                self.command_status = Some(status);
            }
            for supervised in self.services.iter_mut().filter(|s| s.pid == Some(pid)) {
                supervised.pid = None;
                supervised.last_status = status;
                if supervised.started.elapsed() < AT_ONCE {
                    supervised.died_at_once += 1;
                } else {
                    supervised.died_at_once = 0;
                }
                let pause = if supervised.died_at_once > PATIENCE { BACK_OFF } else { Duration::ZERO };
                supervised.restart_at = Some(Instant::now() + pause);
            }
        }
    }

    fn restart(&mut self) -> Result<()> {
        for supervised in &mut self.services {
            if supervised.restart_at.is_none_or(|at| at > Instant::now()) {
                continue;
            }
            if Path::new(&format!("{RUN}/{}.hold", supervised.service.name)).exists() {
                // Stopped on purpose: look again in a moment, and do not count it against the service.
                supervised.died_at_once = 0;
                supervised.restart_at = Some(Instant::now() + HOLD_TICK);
                continue;
            }
            spawn(&self.own, supervised)?;
        }
        Ok(())
    }
}

/// Starts a service: its output to its log, its process id to its file.
fn spawn(own: &Path, supervised: &mut Supervised) -> Result<()> {
    let service = &supervised.service;
    let log = format!("{LOGS}/{}.log", service.name);
    let log = File::options().create(true).append(true).open(&log).context(log)?;
    let child = exec::by_fork(&mut Command::new(own))
        .args([exec::ROLE, exec::SERVICE])
        .args(&service.argv)
        .env_clear()
        .envs(service.environment.iter().map(|(key, value)| (key, value)))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("starting {}", service.name))?;
    let pid = pid_of(&child)?;
    let file = format!("{RUN}/{}.pid", service.name);
    // Renamed into place, so that a test never reads half a number.
    fs::write(format!("{file}.new"), format!("{pid}\n"))?;
    fs::rename(format!("{file}.new"), file)?;
    supervised.pid = Some(pid);
    supervised.started = Instant::now();
    supervised.restart_at = None;
    Ok(())
}

fn pid_of(child: &Child) -> Result<Pid> {
    Ok(Pid::from_raw(i32::try_from(child.id())?))
}

/// The last lines of a service's log.
fn log_tail(name: &str) -> String {
    let mut text = String::new();
    let path = format!("{LOGS}/{name}.log");
    let read = File::open(&path).and_then(|mut file| {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        text = String::from_utf8_lossy(&bytes).into_owned();
        Ok(())
    });
    match read {
        Err(error) => format!("  ({path}: {error})"),
        Ok(()) if text.trim().is_empty() => "  (it is empty)".into(),
        Ok(()) => {
            let lines: Vec<&str> = text.lines().collect();
            format!("  {}", lines[lines.len().saturating_sub(20)..].join("\n  "))
        }
    }
}
