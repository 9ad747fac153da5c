//! What the options of `run` are as the options of the call.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use deputy_core::denial::Code;
use deputy_core::slurm::ExecutorChoice;
use zbus::{Fd, Variant};
use zeroize::Zeroizing;

use super::streams::Streams;
use super::terminal::JobTerminal;
use crate::bus::CallOptions;
use crate::failure::Failure;
use crate::memory;
use crate::options::RunOptions;

/// The most bytes of a file with variables.
const MAX_VARIABLES: u64 = 1 << 20;

/// The argument vector.
pub fn argv(options: &RunOptions) -> Vec<&[u8]> {
    let name = options.script.as_deref().and_then(Path::file_name);
    name.into_iter().chain(options.command.iter().map(AsRef::as_ref)).map(OsStrExt::as_bytes).collect()
}

/// How the caller speaks with the job.
pub enum Way {
    /// Not at all.
    None,
    /// By the caller's own standard descriptors, and the copies that they need.
    Streams(Streams),
    /// By a terminal of the job's own.
    Terminal(JobTerminal),
}

/// The options of the call, and how the caller speaks with the job.
pub fn options(options: &RunOptions) -> Result<(CallOptions<'_>, Way), Failure> {
    let mut call = CallOptions::from([("application", options.application.as_str().into())]);
    let mut put = |key, value: Option<Variant<'static>>| {
        if let Some(value) = value {
            call.insert(key, value);
        }
    };
    let text = |value: Option<String>| value.map(Variant::from);
    put("project", text(options.project.as_ref().map(ToString::to_string)));
    put("kind", text(options.kind.clone().map(String::from)));
    put("name", text(options.name.clone().map(String::from)));
    put("umask", text(options.umask.clone()));
    put("os_group", text(options.group.clone().map(String::from)));
    put("directory", options.cwd.as_ref().map(|directory| directory.as_bytes().to_vec().into()));
    let variables: Vec<Vec<u8>> =
        options.environment.iter().map(|variable| variable.as_bytes().to_vec()).collect();
    put("environment", (!variables.is_empty()).then(|| variables.into()));
    put("memory", options.memory.map(|size| size.0.into()));
    put("core", options.core.map(|size| size.0.into()));
    put("needs", options.needs.map(|size| size.0.into()));
    put("needs_path", options.needs_path.as_ref().map(|folder| folder.as_bytes().to_vec().into()));
    put("cpus", options.cpus.map(|cpus| (f64::from(cpus.0) / 1000.0).into()));
    put("gpus", options.gpus.map(|gpus| u32::from(gpus).into()));
    put("pids", options.pids.map(Variant::from));
    put("files", options.files.map(Variant::from));
    put("time_limit_seconds", options.time_limit.map(Variant::from));
    put("grace_seconds", options.grace.map(Variant::from));
    put("nice", options.nice.map(|nice| u32::from(nice).into()));
    put("executor", options.executor.map(|executor| executor.as_str().into()));
    put("cluster", text(options.cluster.clone().map(String::from)));
    put("partition", text(options.partition.clone().map(String::from)));
    put("slurm_account", text(options.slurm_account.clone().map(String::from)));
    put("qos", text(options.qos.clone().map(String::from)));
    put("nodes", options.nodes.map(Variant::from));
    put("tasks", options.tasks.map(Variant::from));
    put("constraint", joined(&options.constraint));
    put("dependency", joined(&options.dependency));
    put("hold", options.hold.then(|| true.into()));
    put("requeue", options.requeue.then(|| true.into()));
    if let Some(script) = &options.script {
        put("script", Some(descriptor(open(script)?.into())));
    }
    if let Some(file) = &options.env_file {
        put("environment_fd", Some(descriptor(variables_of(file)?)));
    }
    let named = [
        options.stdin.as_ref().map(|file| file.as_bytes().to_vec().into()),
        output(options.stdout.as_ref(), options),
        if options.merge { Some("stdout".into()) } else { output(options.stderr.as_ref(), options) },
    ];
    if options.append {
        put("stdout_append", options.stdout.is_some().then(|| true.into()));
        put("stderr_append", options.stderr.is_some().then(|| true.into()));
    }
    put("interactive", options.interactive.then(|| true.into()));
    // Slurm starts a job elsewhere, or may, unless somebody speaks with it: what this process has is of no use there.
    let elsewhere = options.executor.is_some_and(|executor| executor != ExecutorChoice::Local);
    let (way, own) = if options.detach || (elsewhere && !options.interactive) {
        (Way::None, [None, None, None])
    } else if options.terminal {
        let (terminal, theirs) = JobTerminal::new()?;
        put("terminal", Some(descriptor(theirs)));
        (Way::Terminal(terminal), [None, None, None])
    } else {
        let (streams, own) = Streams::new()?;
        (Way::Streams(streams), own.map(|own| Some(descriptor(own))))
    };
    for ((key, named), own) in ["stdin", "stdout", "stderr"].into_iter().zip(named).zip(own) {
        put(key, named.or(own));
    }
    Ok((call, way))
}

/// A list as one text; none where it is empty.
fn joined<T: ToString>(list: &[T]) -> Option<Variant<'static>> {
    let words: Vec<String> = list.iter().map(T::to_string).collect();
    (!words.is_empty()).then(|| words.join(",").into())
}

fn output(file: Option<&std::ffi::OsString>, options: &RunOptions) -> Option<Variant<'static>> {
    let file = file.map(|file| file.as_bytes().to_vec().into());
    file.or_else(|| options.capture.then(|| "capture".into()))
}

fn descriptor(descriptor: OwnedFd) -> Variant<'static> {
    Variant::Fd(Fd::from(descriptor))
}

fn open(path: &Path) -> Result<File, Failure> {
    File::open(path).map_err(|error| {
        Failure::new(Code::InvalidArgument, format!("{}: {error}", path.display()))
            .remedy("name a file that you can read")
    })
}

/// The lines of a file as a descriptor brings variables: with NUL behind each. Empty lines and those that begin with `#`
/// are none.
fn variables_of(path: &Path) -> Result<OwnedFd, Failure> {
    let mut text = Zeroizing::new(Vec::new());
    open(path)?.take(MAX_VARIABLES + 1).read_to_end(&mut text)?;
    let wrong = |what: String| {
        Failure::new(Code::InvalidArgument, format!("{}: {what}", path.display()))
            .remedy("write one variable a line, as NAME=VALUE")
    };
    if text.len() as u64 > MAX_VARIABLES {
        return Err(wrong(format!("it has more than {MAX_VARIABLES} bytes")));
    }
    let mut joined = Zeroizing::new(Vec::with_capacity(text.len() + 1));
    for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        if line.is_empty() || line[0] == b'#' {
            continue;
        }
        // The line itself may be a secret.
        if line.contains(&0) || line.iter().position(|byte| *byte == b'=').is_none_or(|at| at == 0) {
            return Err(wrong(format!("line {number} is no variable")));
        }
        joined.extend_from_slice(line);
        joined.push(0);
    }
    memory::holding("variables", &joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_variables_and_what_is_none_is_told_without_its_words() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("env");
        std::fs::write(&file, "# comment\nTOKEN=s3cret=x\n\nB=\n").unwrap();
        let mut read = Vec::new();
        File::from(variables_of(&file).unwrap()).read_to_end(&mut read).unwrap();
        assert_eq!(read, b"TOKEN=s3cret=x\0B=\0");
        for wrong in ["s3cret", "=s3cret", "A=1\ns3cret\n", "A=s3cret\0"] {
            std::fs::write(&file, wrong).unwrap();
            let told = variables_of(&file).unwrap_err().report(true);
            assert!(told.contains("is no variable") && !told.contains("s3cret"), "{told}");
        }
        std::fs::write(&file, vec![b'x'; (1 << 20) + 1]).unwrap();
        assert!(variables_of(&file).is_err());
    }
}
