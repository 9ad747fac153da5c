//! `store`: Deputy's own records, which only the user `deputy` opens.
//!
//! The work is done by `deputy-store`, the daemon's program, as `deputy`. A process of that user must not share root's
//! terminal: whoever has taken `deputyd` over could attach to it and type commands there. So root's `deputyctl` calls
//! itself again; that second process first leaves the session, then becomes `deputy`, and has pipes where the first
//! has a terminal.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;

use deputy_core::Code;
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, PidfdFlags, Signal, getuid, pidfd_open, pidfd_send_signal, setsid};

use super::{Context, block_on};
use crate::confirm::confirm;
use crate::failure::Failure;
use crate::launcher::{is_root, needs_root};
use crate::options::StoreCommand;
use crate::signals::Signals;

/// The daemon's user.
const USER: &str = "deputy";

/// The program, beside `deputyctl` itself where it was built, or where it is installed.
const PROGRAM: &str = "deputy-store";
const FOLDERS: [&str; 2] = ["/usr/libexec/deputy", "/usr/lib/deputy"];

/// Set for the second process. Who sets it for the first gets no more by it: the session is left in any case.
const SECOND: &str = "DEPUTYCTL_SECOND";

/// The option of `deputyctl` and of the program.
const WITH_PASSWORDS: &str = "--with-passwords";

/// `store`.
pub fn store(context: &Context, command: StoreCommand) -> Result<ExitCode, Failure> {
    let verb = match command {
        StoreCommand::Verify => "verify",
        StoreCommand::Rebuild => "rebuild",
        StoreCommand::Export { .. } => "export",
        StoreCommand::Import => "import",
    };
    let second = is_root() && std::env::var_os(SECOND).is_some();
    if let StoreCommand::Export { with_passwords: Some(path) } = &command {
        // The second process has the file for its standard output.
        return if second {
            Err(detached(&[verb, WITH_PASSWORDS], context.json))
        } else {
            with_passwords(context, path)
        };
    }
    if second {
        return Err(detached(&[verb], context.json));
    }
    if matches!(command, StoreCommand::Import) {
        confirm(context.yes, "Import records into the empty store?")?;
    }
    if is_root() {
        return supervise(&[verb], unless_terminal(io::stdout()), context.json);
    }
    if getuid().as_raw() == user()?.uid.as_raw() {
        let program = program()?;
        return Err(exec_failed(&program, &order(&program, &[verb], context.json).exec()));
    }
    Err(needs_root("work on Deputy's own records"))
}

/// `store export --with-passwords`: into a new file of root's alone, which is not left behind unfinished.
fn with_passwords(context: &Context, path: &Path) -> Result<ExitCode, Failure> {
    if !is_root() {
        return Err(needs_root("export the hashes of passwords"));
    }
    let question = format!(
        "Write the hashes of all accounts' own passwords into {}? Who reads them can try passwords at leisure.",
        path.display()
    );
    confirm(context.yes, &question)?;
    let failed = |error: io::Error| {
        let failure = Failure::new(Code::InvalidArgument, format!("{}: {error}", path.display()));
        failure.remedy("name a file that is not there yet, in a folder of root's")
    };
    let private = Mode::RUSR | Mode::WUSR;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(open(path, flags, private).map_err(|errno| failed(errno.into()))?);
    let arguments = ["export".as_ref(), WITH_PASSWORDS.as_ref(), path.as_os_str()];
    let ended = file
        .try_clone()
        .map_err(Failure::from)
        .and_then(|output| supervise(&arguments, output.into(), context.json))
        .and_then(|code| file.sync_all().map(|()| code).map_err(failed));
    if !matches!(ended, Ok(code) if code == ExitCode::SUCCESS) {
        // It is what was made above, or somebody with root's rights put something else there.
        let _ = std::fs::remove_file(path);
    }
    ended
}

/// The second process: out of the session, then `deputy`, then the program. Returns only if one of them failed.
fn detached(words: &[&str], json: bool) -> Failure {
    let become_deputy = || -> Result<Failure, Failure> {
        let (user, program) = (user()?, program()?);
        setsid().map_err(|error| Failure::from(io::Error::from(error)))?;
        // As root, with a uid and no groups named, the standard library empties the supplementary groups, between
        // setting the gid and the uid.
        let mut command = order(&program, words, json);
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        Ok(exec_failed(&program, &command.exec()))
    };
    become_deputy().unwrap_or_else(|failure| failure)
}

/// The first process: starts the second, copies between it and the terminal, hands signals on, and waits.
fn supervise(words: &[impl AsRef<OsStr>], output: Stdio, json: bool) -> Result<ExitCode, Failure> {
    let mut command = order(Path::new("/proc/self/exe"), &["store"], json);
    command.args(words).env(SECOND, "1");
    command.stdin(unless_terminal(io::stdin())).stdout(output).stderr(unless_terminal(io::stderr()));
    block_on(async {
        // From before the start on, so that no signal is missed.
        let mut signals = Signals::new()?;
        let mut child = command.spawn()?;
        let process = handle(&child)?;
        let copies = copies(&mut child);
        let mut waiting = tokio::task::spawn_blocking(move || child.wait());
        let status = loop {
            tokio::select! {
                status = &mut waiting => {
                    break status.map_err(|_| Failure::new(Code::Internal, "waiting failed"))??;
                }
                signal = signals.next() => {
                    let signal = Signal::from_named_raw(signal).unwrap_or(Signal::TERM);
                    // It may just have ended by itself.
                    let _ = pidfd_send_signal(&process, signal);
                }
            }
        };
        for copy in copies {
            // A copy that panicked has nothing more to copy.
            let _ = copy.join();
        }
        let code = status.code().or(status.signal().map(|signal| 128 + signal));
        Ok(ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(crate::failure::FAILED)))
    })
}

/// A command without anything of the caller's environment.
fn order(program: &Path, words: &[&str], json: bool) -> Command {
    let mut command = Command::new(program);
    command.env_clear().current_dir("/").args(words);
    if json {
        command.arg("--json");
    }
    command
}

/// A handle that cannot come to mean another process.
fn handle(child: &Child) -> Result<OwnedFd, Failure> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| Failure::new(Code::Internal, "a process without a number"))?;
    Ok(pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from)?)
}

/// Copies between the pipes and the terminal: what is typed until the program ends, what is written until its end.
fn copies(child: &mut Child) -> Vec<thread::JoinHandle<()>> {
    if let Some(mut input) = child.stdin.take() {
        thread::spawn(move || io::copy(&mut io::stdin().lock(), &mut input));
    }
    let mut copies = Vec::new();
    if let Some(output) = child.stdout.take() {
        copies.push(thread::spawn(move || show(output, io::stdout())));
    }
    if let Some(output) = child.stderr.take() {
        copies.push(thread::spawn(move || show(output, io::stderr())));
    }
    copies
}

/// Shows on the terminal what the program writes. It speaks of other people's names, and a taken-over one would be
/// free to send what it likes: everything but line feeds is escaped.
fn show(from: impl io::Read, mut to: impl io::Write) {
    use io::BufRead as _;
    let mut from = io::BufReader::new(from);
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        let text = String::from_utf8_lossy(&line);
        let shown = writeln!(to, "{}", crate::escape::text(text.trim_end_matches('\n')));
        if shown.is_err() {
            return;
        }
        line.clear();
    }
}

fn unless_terminal(own: impl IsTerminal) -> Stdio {
    if own.is_terminal() { Stdio::piped() } else { Stdio::inherit() }
}

fn user() -> Result<nix::unistd::User, Failure> {
    nix::unistd::User::from_name(USER).ok().flatten().ok_or_else(|| {
        Failure::new(Code::Internal, format!("there is no user {USER}"))
            .remedy("install the daemon: its package makes the user (systemd-sysusers)")
    })
}

fn program() -> Result<PathBuf, Failure> {
    let beside = std::env::current_exe().ok().and_then(|own| own.parent().map(Path::to_path_buf));
    let folders = beside.into_iter().chain(FOLDERS.map(PathBuf::from));
    folders.map(|folder| folder.join(PROGRAM)).find(|path| path.is_file()).ok_or_else(|| {
        Failure::new(Code::Internal, format!("{PROGRAM} is not installed"))
            .remedy(format!("install the daemon: its package has {}/{PROGRAM}", FOLDERS[0]))
    })
}

fn exec_failed(program: &Path, error: &io::Error) -> Failure {
    Failure::new(Code::Internal, format!("{} could not be started: {error}", program.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_program_writes_cannot_act_on_the_terminal() {
        let mut shown = Vec::new();
        show(&b"one\x1b[2J\n\xfftwo"[..], &mut shown);
        assert_eq!(String::from_utf8(shown).unwrap(), "one\\x1b[2J\n\u{fffd}two\n");
    }

    /// What the standard library does for `uid` is not its documented contract, so it is looked at.
    #[test]
    fn becoming_another_user_as_root_empties_the_supplementary_groups() {
        if !is_root() {
            return;
        }
        let output = Command::new("/bin/sh")
            .args(["-c", "grep -E '^(Uid|Gid|Groups):' /proc/self/status"])
            .env_clear()
            .uid(12345)
            .gid(12346)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let words: Vec<_> = text.split_whitespace().collect();
        let same = |id: &'static str| [id; 4];
        assert_eq!(words[..5], [&["Uid:"][..], &same("12345")].concat());
        assert_eq!(words[5..10], [&["Gid:"][..], &same("12346")].concat());
        assert_eq!(words[10..], ["Groups:"]);
    }
}
