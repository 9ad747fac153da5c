//! Which paths a process and its children open, seen by `strace`.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A trace of a running process.
pub struct Trace {
    strace: Child,
    folder: PathBuf,
}

/// An open of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// The process or thread.
    pub pid: String,
    /// The whole path.
    pub path: String,
    /// Whether the process had become somebody else than root for good before.
    pub after_the_drop: bool,
}

impl Trace {
    /// Attaches to the service of this name in the sandbox, and follows its children.
    pub fn of_service(name: &str) -> Self {
        let pid = crate::machine::service_pid(name);
        let folder = PathBuf::from(format!("/tmp/deputy-suite-strace-{name}-{}", std::process::id()));
        fs::create_dir(&folder).expect("a folder for the trace");
        // A file for each process. In a common one a call that others interrupt is two lines.
        let strace = Command::new("strace")
            .args(["-ff", "-y", "-s", "4096", "-e", "trace=open,openat,openat2,creat,setresuid,execve", "-p"])
            .arg(pid.to_string())
            .arg("-o")
            .arg(folder.join("of"))
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace: install the package strace");
        let mut trace = Self { strace, folder };
        trace.wait_until_attached();
        trace
    }

    fn wait_until_attached(&mut self) {
        use std::io::{BufRead as _, BufReader};
        let said = self.strace.stderr.take().expect("a pipe");
        let mut lines = BufReader::new(said).lines();
        let line = lines.next().expect("strace says something").expect("a line");
        assert!(line.contains("attached"), "strace: {line}");
        // The rest is read, so that strace never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
    }

    /// Detaches, and tells what was opened.
    pub fn finish(mut self) -> Vec<Opened> {
        let pid = rustix::process::Pid::from_child(&self.strace);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("strace is there");
        self.strace.wait().expect("strace ends");
        let mut opened = Vec::new();
        for file in fs::read_dir(&self.folder).expect("the traces") {
            let file = file.expect("a trace").path();
            let pid = file.extension().expect("of.PID").to_string_lossy();
            opened.extend(parse(&pid, &fs::read_to_string(&file).expect("the trace")));
        }
        let _ = fs::remove_dir_all(&self.folder);
        opened
    }
}

/// What one process opened.
fn parse(pid: &str, text: &str) -> Vec<Opened> {
    let mut after_the_drop = false;
    let mut opened = Vec::new();
    for call in text.lines() {
        after_the_drop |=
            call.starts_with("setresuid(") && !call.starts_with("setresuid(0") && call.ends_with("= 0");
        if let Some(path) = opened_path(call) {
            opened.push(Opened { pid: pid.to_owned(), path, after_the_drop });
        }
    }
    opened
}

/// The path of an open that worked or could have: `openat(3</etc>, "passwd", ...`.
fn opened_path(call: &str) -> Option<String> {
    let arguments =
        ["openat(", "openat2(", "open(", "creat("].iter().find_map(|name| call.strip_prefix(name))?;
    let (folder, rest) = arguments.split_once('"')?;
    let (name, _) = rest.split_once('"')?;
    if name.starts_with('/') {
        return Some(name.to_owned());
    }
    let folder =
        folder.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map_or("?", |(path, _)| path);
    Some(format!("{}/{name}", folder.trim_end_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_strace_are_understood() {
        let text = "\
openat(AT_FDCWD</>, \"/etc/passwd\", O_RDONLY|O_CLOEXEC) = 3</etc/passwd>
openat(5</etc/deputy>, \"applications.d\", O_RDONLY) = 6</etc/deputy/applications.d>
setresuid(1001, 1001, 1001) = 0
setresuid(0, 0, 0) = -1 EPERM (Operation not permitted)
openat(AT_FDCWD</home/alice>, \"x\", O_RDONLY) = -1 ENOENT (No such file or directory)
";
        let opened = parse("7", text);
        let paths: Vec<_> = opened.iter().map(|o| (o.path.as_str(), o.after_the_drop)).collect();
        assert_eq!(
            paths,
            [("/etc/passwd", false), ("/etc/deputy/applications.d", false), ("/home/alice/x", true)]
        );
    }
}
