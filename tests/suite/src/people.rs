//! Running commands as the people of the sandbox.

use std::io::Write as _;
use std::process::{Command, Stdio};

/// What a command left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its exit status, 128+N for a signal.
    pub status: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// A command that will run as this user, with the user's groups and an environment of a login, but for the bus.
pub fn command_as(user: &str, argv: &[&str]) -> Command {
    let mut command = Command::new("runuser");
    command.args(["-u", user, "--"]).args(argv).current_dir("/").stdin(Stdio::null());
    command
}

/// Runs a command as this user and waits for it.
pub fn as_user(user: &str, argv: &[&str]) -> Output {
    run(command_as(user, argv))
}

/// Runs `deputyctl` as this user and waits for it.
pub fn deputyctl(user: &str, arguments: &[&str]) -> Output {
    as_user(user, &[&["deputyctl"], arguments].concat())
}

/// Runs a command and waits for it.
pub fn run(mut command: Command) -> Output {
    left_behind(command.output().expect("the command can be started"))
}

/// Runs a command that reads lines, and waits for it.
pub fn answering(mut command: Command, answers: &[&str]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a program; tests/packages.sh installs what is missing");
    let lines = answers.iter().flat_map(|answer| [*answer, "\n"]).collect::<String>();
    // One that refuses at once does not read.
    let _ = child.stdin.take().expect("a pipe").write_all(lines.as_bytes());
    left_behind(child.wait_with_output().expect("its output"))
}

fn left_behind(output: std::process::Output) -> Output {
    use std::os::unix::process::ExitStatusExt as _;
    let status = output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0));
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Output { status, stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// What a command of `deputyctl` printed, which has to have worked.
pub fn ok(output: &Output) -> String {
    assert_eq!(output.status, 0, "{}{}", output.stdout, output.stderr);
    output.stdout.trim().to_owned()
}

/// The code with which a command of `deputyctl` was refused, which it has to have been.
pub fn refused(output: &Output) -> String {
    assert_eq!(output.status, 125, "{}{}", output.stdout, output.stderr);
    let code = output.stderr.lines().find_map(|line| line.strip_prefix("deputyctl: "));
    code.and_then(|line| line.split(':').next()).unwrap_or_default().to_owned()
}

/// A command of `deputyctl` was refused, with this code and these words.
pub fn refused_with(output: &Output, code: &str, words: &str) {
    assert_eq!(refused(output), code, "{output:?}");
    assert!(output.stderr.contains(words), "{output:?}");
}
