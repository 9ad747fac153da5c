//! A job at Slurm that somebody speaks with while it runs: the argument vector of `srun`.
//!
//! `srun` runs on this machine as the user, with the job's streams as its own, and has Slurm run the program on a node. Its
//! options are made of the fields of which `sbatch`'s are. Variables go by its environment; the program and its arguments by
//! its argument vector, which Slurm hands on word by word.

use serde::{Deserialize, Serialize};

use super::SlurmRequest;
use super::command::described;
use crate::ids::JobId;
use crate::limits::JobBounds;

/// How somebody speaks with a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interactive {
    /// By its standard input, output and error, whatever they are.
    Streams,
    /// By a terminal of its own, which is all three.
    Terminal,
}

/// The exit code of `srun` where it is Slurm that failed, and not the program. It is what `deputyctl` exits with where Deputy
/// does.
pub const SLURM_FAILED: u8 = 125;

/// What runs on the node before the program: the job's mask and working directory, as in a batch script. Its words are the
/// mask, the directory or nothing, the program and its arguments; none of them is read as a command.
const BEGIN: &str = "unset SLURM_EXPORT_ENV SLURM_EXIT_ERROR; umask \"$1\"; \
     if [ -n \"$2\" ]; then cd \"$2\" || exit 126; else cd 2>/dev/null || cd /; fi; shift 2; exec \"$@\"";

/// A program that is to run on a node.
#[derive(Debug, Clone, Copy)]
pub struct Program<'a> {
    /// It and its arguments.
    pub argv: &'a [Vec<u8>],
    /// The working directory; none is the home directory, or `/` where that cannot be entered.
    pub directory: Option<&'a [u8]>,
    /// The file mode creation mask.
    pub umask: u32,
}

/// The argument vector of `srun`, with everything filled in that policy fills in. None if something in it cannot be there: a
/// program that looks like an option, a directory that is not absolute.
pub fn srun(
    job: &JobId,
    asked: &SlurmRequest,
    bounds: &JobBounds,
    program: &Program<'_>,
) -> Option<Vec<Vec<u8>>> {
    let first = program.argv.first()?;
    if first.is_empty() || first.starts_with(b"-") {
        return None;
    }
    if program.directory.is_some_and(|directory| !directory.starts_with(b"/")) {
        return None;
    }
    let mut options: Vec<String> = [
        "srun",
        // Its environment was made for the job, from nothing.
        "--export=ALL",
        "--propagate=NONE",
        "--chdir=/",
        // Nothing but srun runs on this machine.
        "--prolog=none",
        "--epilog=none",
        // There is nobody who presses a key twice.
        "--quit-on-interrupt",
    ]
    .map(str::to_owned)
    .to_vec();
    match asked.interactive {
        Some(Interactive::Terminal) => options.push("--pty".to_owned()),
        // What Slurm has to say goes between the program's own words, so it says what is wrong and no more.
        _ => options.push("--quiet".to_owned()),
    }
    options.extend(described(job, asked, bounds));
    let begin = ["/bin/sh", "-c", BEGIN, "sh"].map(str::to_owned);
    let mask = format!("{:04o}", program.umask & 0o777);
    let mut argv: Vec<Vec<u8>> =
        options.into_iter().chain(begin).chain([mask]).map(String::into_bytes).collect();
    argv.push(program.directory.unwrap_or_default().to_vec());
    argv.extend(program.argv.iter().cloned());
    Some(argv)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::ResourceLimits;
    use crate::size::{ByteSize, MilliCpus};
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    use std::process::Command;

    fn job() -> JobId {
        JobId::from_random([1; JobId::BYTES])
    }

    fn argv(asked: &SlurmRequest, program: &Program<'_>) -> Option<Vec<Vec<u8>>> {
        let limits = ResourceLimits {
            memory: Some(ByteSize(1 << 20)),
            cpus: Some(MilliCpus(2000)),
            ..ResourceLimits::default()
        };
        let bounds = JobBounds { limits, time_limit_seconds: Some(61), ..JobBounds::default() };
        srun(&job(), asked, &bounds, program)
    }

    #[test]
    fn each_field_is_one_option_in_front_of_the_program() {
        let words = ["/bin/echo", "--pty", "a b\n"].map(|word| word.as_bytes().to_vec());
        let program = Program { argv: &words, directory: Some(b"/tmp"), umask: 0o7027 };
        let asked = SlurmRequest {
            partition: "gpu".parse().ok(),
            account: "lab1".parse().ok(),
            gpus: 1,
            interactive: Some(Interactive::Streams),
            ..SlurmRequest::default()
        };
        let made = argv(&asked, &program).unwrap();
        let end = made.iter().position(|word| word == b"/bin/sh").unwrap();
        let has = |option: &str| made[..end].iter().any(|word| word == option.as_bytes());
        for option in [
            "--partition=gpu",
            "--account=lab1",
            "--gres=gpu:1",
            "--nodes=1",
            "--ntasks=1",
            "--cpus-per-task=2",
            "--mem=1024K",
            "--time=0:01:01",
            "--export=ALL",
            "--propagate=NONE",
            "--reservation=",
        ] {
            assert!(has(option), "{option} in {made:?}");
        }
        assert!(made[1..end].iter().all(|word| word.starts_with(b"--")) && !has("--pty"));
        assert_eq!(made[end + 4..end + 6], [b"0027".to_vec(), b"/tmp".to_vec()]);
        assert_eq!(made[end + 6..], words);
        let asked = SlurmRequest { interactive: Some(Interactive::Terminal), ..asked };
        assert!(argv(&asked, &program).unwrap()[..end].iter().any(|word| word == b"--pty"));
    }

    #[test]
    fn what_would_be_an_option_is_refused() {
        let asked = SlurmRequest::default();
        for words in [&[][..], &[b"".to_vec()], &[b"-c".to_vec()], &[b"--multi-prog".to_vec(), b"x".to_vec()]]
        {
            let program = Program { argv: words, directory: None, umask: 0o22 };
            assert_eq!(argv(&asked, &program), None, "{words:?}");
        }
        let words = [b"true".to_vec()];
        for directory in [&b"relative"[..], b"", b"-P"] {
            let program = Program { argv: &words, directory: Some(directory), umask: 0o22 };
            assert_eq!(argv(&asked, &program), None, "{directory:?}");
        }
    }

    #[test]
    fn the_program_has_its_own_words_mask_and_directory_and_nothing_else_is_run() {
        let folder = std::env::temp_dir().join(format!("deputy-srun-{}", std::process::id()));
        let directory = folder.join("a 'b'$(id)\n");
        std::fs::create_dir_all(&directory).unwrap();
        let run = |directory: Option<&[u8]>, words: &[&str]| {
            let words: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
            let made =
                argv(&SlurmRequest::default(), &Program { argv: &words, directory, umask: 0o027 }).unwrap();
            let begin = made.iter().position(|word| word == b"/bin/sh").unwrap();
            let mut command = Command::new("/bin/sh");
            command.env("HOME", "/nonexistent").env("SLURM_EXIT_ERROR", "125");
            command.args(made[begin + 1..].iter().map(|word| OsStr::from_bytes(word))).output().unwrap()
        };
        let look = "pwd; umask; printf '%s|' \"$@\"; echo ${SLURM_EXIT_ERROR-none}";
        let odd = ["", "a b", "$(id)", "`id`", ";id", "'", "\\", "-c", "*"];
        let words = [&["sh", "-c", look, "sh"][..], &odd].concat();
        let inside = run(Some(directory.as_os_str().as_bytes()), &words);
        std::fs::remove_dir_all(&folder).unwrap();
        let wanted = format!("{}\n0027\n{}|none\n", directory.display(), odd.join("|"));
        assert_eq!(String::from_utf8(inside.stdout).unwrap(), wanted);
        let home = run(None, &["pwd"]);
        assert_eq!(home.stdout, b"/\n");
        assert_eq!(run(Some(b"/nonexistent"), &["true"]).status.code(), Some(126));
        assert_eq!(run(None, &["/nonexistent/program"]).status.code(), Some(127));
    }
}
