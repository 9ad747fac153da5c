//! The batch script of a job.
//!
//! What has to be in it (the program and its arguments, paths, variables) is there between single quotes, behind the first
//! command: `sbatch` looks for `#SBATCH` only before that.

use super::ArrayPart;
use crate::stream::{Input, Output, Streams};

/// What the batch script does, as the user, where Slurm starts it.
#[derive(Debug, Clone, Copy)]
pub struct Script<'a> {
    /// The program and its arguments.
    pub argv: &'a [Vec<u8>],
    /// Variables, each `NAME=VALUE`, with a name that policy has checked.
    pub environment: &'a [Vec<u8>],
    /// The working directory; none is the home directory, or `/` where that cannot be entered.
    pub directory: Option<&'a [u8]>,
    /// The file mode creation mask.
    pub umask: u32,
    /// Standard input, output and error: files.
    pub streams: &'a Streams,
    /// Which part of an array it is.
    pub array: Option<&'a ArrayPart>,
    /// A program of the request's own, which takes the place of the first argument.
    pub program: Option<&'a [u8]>,
}

/// The batch script. None if something in it cannot be there: a NUL, a variable without a shell's name, a stream that is
/// no file, a program that looks like an option.
pub fn script(script: &Script<'_>) -> Option<Vec<u8>> {
    // The first command: nothing behind it is a directive. `sbatch` leaves these two for `srun`, which would then keep
    // the job's own variables from its steps.
    let mut text = b"#!/bin/sh\n:\nunset SLURM_EXPORT_ENV SLURM_GET_USER_ENV\n".to_vec();
    text.extend_from_slice(format!("umask {:04o}\n", script.umask & 0o777).as_bytes());
    if let Some(ArrayPart { array, index, count, min, max }) = script.array {
        // What a part of an array of Slurm's own would have, but for its number there.
        let variables = format!(
            "export DEPUTY_ARRAY={array} SLURM_ARRAY_TASK_ID={index} SLURM_ARRAY_TASK_COUNT={count} \
             SLURM_ARRAY_TASK_MIN={min} SLURM_ARRAY_TASK_MAX={max}\n"
        );
        text.extend_from_slice(variables.as_bytes());
    }
    for variable in script.environment {
        let at = variable.iter().position(|&byte| byte == b'=')?;
        let (name, value) = (&variable[..at], &variable[at + 1..]);
        if !is_shell_name(name) {
            return None;
        }
        text.extend_from_slice(b"export ");
        text.extend_from_slice(name);
        text.push(b'=');
        quote(value, &mut text)?;
        text.push(b'\n');
    }
    match script.directory {
        Some(directory) if directory.starts_with(b"/") => {
            text.extend_from_slice(b"cd ");
            quote(directory, &mut text)?;
            text.extend_from_slice(b" || exit 126\n");
        }
        Some(_) => return None,
        None => text.extend_from_slice(b"cd 2>/dev/null || cd /\n"),
    }
    let arguments = if let Some(program) = script.program {
        text.extend_from_slice(UNPACK.0);
        base64(program, &mut text);
        text.extend_from_slice(UNPACK.1);
        script.argv.get(1..).unwrap_or_default()
    } else if script.argv.first().is_none_or(|program| program.is_empty() || program.starts_with(b"-")) {
        return None;
    } else {
        text.extend_from_slice(b"exec");
        script.argv
    };
    for word in arguments {
        text.push(b' ');
        quote(word, &mut text)?;
    }
    redirect(script.streams, &mut text)?;
    text.push(b'\n');
    Some(text)
}

/// What stands around a program that the script brings. It becomes a file of the user's in the node's folder for such, whose
/// name is gone before it begins, as on this machine; its interpreter reads it by the descriptor. None of its bytes is a
/// directive or a command here.
const UNPACK: (&[u8], &[u8]) = (
    b"deputy_program=$(mktemp) && base64 -d > \"$deputy_program\" <<'DEPUTY' && chmod 700 \"$deputy_program\" || exit 126\n",
    b"DEPUTY\nexec 3< \"$deputy_program\" && rm -f \"$deputy_program\" || exit 126\nexec /dev/fd/3",
);

/// As lines of letters, digits, `+`, `/` and `=`.
fn base64(bytes: &[u8], text: &mut Vec<u8>) {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for line in bytes.chunks(57) {
        for three in line.chunks(3) {
            let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
            let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
            for at in 0..4_usize {
                let letter = LETTERS[(bits >> (18 - 6 * at) & 63) as usize];
                text.push(if at > three.len() { b'=' } else { letter });
            }
        }
        text.push(b'\n');
    }
}

/// Whether a shell can have a variable of this name.
fn is_shell_name(name: &[u8]) -> bool {
    let begins = name.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_');
    begins && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

/// A word between single quotes. A carriage return is made by the shell: `sbatch` takes no script that has one in front
/// of a line feed.
fn quote(word: &[u8], text: &mut Vec<u8>) -> Option<()> {
    text.push(b'\'');
    for &byte in word {
        match byte {
            0 => return None,
            b'\'' => text.extend_from_slice(br"'\''"),
            b'\r' => text.extend_from_slice(br#"'"$(printf '\r')"'"#),
            byte => text.push(byte),
        }
    }
    text.push(b'\'');
    Some(())
}

/// Redirections, which the shell makes as the user before it executes the program. A relative path is one below the
/// working directory; it cannot look like a descriptor.
fn redirect(streams: &Streams, text: &mut Vec<u8>) -> Option<()> {
    let to = |operator: &[u8], path: &[u8], text: &mut Vec<u8>| {
        text.push(b' ');
        text.extend_from_slice(operator);
        let relative: &[u8] = if path.starts_with(b"/") { b"" } else { b"./" };
        quote(&[relative, path].concat(), text)
    };
    match &streams.input {
        Input::File(path) => to(b"<", path, text)?,
        Input::Descriptor => return None,
    }
    for (number, output) in [("1", &streams.output), ("2", &streams.error)] {
        match output {
            Output::File { path, append } => {
                let operator = format!("{number}{}", if *append { ">>" } else { ">" });
                to(operator.as_bytes(), path, text)?;
            }
            Output::SameAsOutput => text.extend_from_slice(b" 2>&1"),
            Output::Descriptor | Output::Captured => return None,
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::JobId;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    use std::process::Command;

    fn null() -> Streams {
        let nothing = || Output::File { path: b"/dev/null".to_vec(), append: true };
        Streams { input: Input::File(b"/dev/null".to_vec()), output: nothing(), error: nothing() }
    }

    #[test]
    fn what_cannot_be_in_a_script_is_refused() {
        let good = [b"/bin/true".to_vec()];
        let streams = null();
        let least = Script {
            argv: &good,
            environment: &[],
            directory: None,
            umask: 0o22,
            streams: &streams,
            array: None,
            program: None,
        };
        assert!(script(&least).is_some());
        for argv in [
            &[][..],
            &[b"".to_vec()],
            &[b"-c".to_vec()],
            &[b"a\0b".to_vec()],
            &[b"a".to_vec(), b"\0".to_vec()],
        ] {
            assert_eq!(script(&Script { argv, ..least }), None, "{argv:?}");
        }
        for variable in ["A", "=x", "A B=x", "A;id=x", "1=x", "A\n=x", "A=\0"] {
            let environment = [variable.as_bytes().to_vec()];
            assert_eq!(script(&Script { environment: &environment, ..least }), None, "{variable:?}");
        }
        for directory in [&b"relative"[..], b"", b"-P", b"/a\0b"] {
            assert_eq!(script(&Script { directory: Some(directory), ..least }), None, "{directory:?}");
        }
        for output in [Output::Captured, Output::Descriptor] {
            let streams = Streams { output, ..null() };
            assert_eq!(script(&Script { streams: &streams, ..least }), None);
        }
    }

    /// Every way to break out of a word, and what a shell or `sbatch` would take for something else.
    const ODD: [&str; 22] = [
        "",
        " ",
        "a b",
        "'",
        "''",
        "'\\''",
        "\"",
        "\\",
        "$HOME",
        "`id`",
        "$(id)",
        "\n#SBATCH --partition=short\n",
        "\n",
        "\r\n",
        "\r",
        "a\r\n",
        "--wrap=id",
        "-c",
        ";id",
        "& id &",
        "ä€😀",
        "*?[a]{b,c}~!",
    ];

    #[test]
    fn a_shell_gives_the_program_every_byte_and_runs_nothing_else() {
        let folder = std::env::temp_dir().join(format!("deputy-script-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("a'b\n\r$x")).unwrap();
        let directory = folder.join("a'b\n\r$x");
        let mut argv: Vec<Vec<u8>> = [&b"/usr/bin/printf"[..], b"%s\\0"].map(<[u8]>::to_vec).to_vec();
        argv.extend(ODD.map(|word| word.as_bytes().to_vec()));
        argv.push(b"\xff\xfe".to_vec());
        let streams =
            Streams { output: Output::File { path: b"&1 -o'ut".to_vec(), append: false }, ..null() };
        let made = script(&Script {
            argv: &argv,
            environment: &[],
            directory: Some(directory.as_os_str().as_bytes()),
            umask: 0o027,
            streams: &streams,
            array: None,
            program: None,
        })
        .unwrap();
        assert!(!made.windows(2).any(|pair| pair == b"\r\n"));
        let ended = Command::new("/bin/sh").arg("-c").arg(OsStr::from_bytes(&made)).status().unwrap();
        let written = std::fs::read(directory.join("&1 -o'ut")).unwrap();
        let words: Vec<&[u8]> = written.split(|&byte| byte == 0).collect();
        let entries = std::fs::read_dir(&directory).unwrap().count();
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(ended.success());
        assert_eq!(words[..ODD.len()], ODD.map(str::as_bytes));
        assert_eq!(words[ODD.len()..], [&b"\xff\xfe"[..], b""]);
        assert_eq!(entries, 1);
    }

    #[test]
    fn variables_and_the_umask_are_the_jobs() {
        let environment: Vec<Vec<u8>> =
            ODD.iter().enumerate().map(|(at, value)| format!("APP_{at}={value}").into_bytes()).collect();
        let out = std::env::temp_dir().join(format!("deputy-script-env-{}", std::process::id()));
        let streams = Streams {
            output: Output::File { path: out.as_os_str().as_bytes().to_vec(), append: true },
            ..null()
        };
        let part =
            ArrayPart { array: JobId::from_random([1; JobId::BYTES]), index: 3, count: 2, min: 1, max: 3 };
        let argv = ["/bin/sh", "-c", "umask; /usr/bin/env -0"].map(|word| word.as_bytes().to_vec());
        let made = script(&Script {
            argv: &argv,
            environment: &environment,
            directory: Some(b"/"),
            umask: 0o7027,
            streams: &streams,
            array: Some(&part),
            program: None,
        });
        let made = made.unwrap();
        let mut shell = Command::new("/bin/sh");
        shell.env("SLURM_EXPORT_ENV", "NONE").arg("-c").arg(OsStr::from_bytes(&made));
        assert!(shell.status().unwrap().success());
        let written = std::fs::read(&out).unwrap();
        std::fs::remove_file(&out).unwrap();
        let rest = written.strip_prefix(b"0027\n").expect("the umask");
        let found: Vec<&[u8]> = rest.split(|&byte| byte == 0).collect();
        assert!(environment.iter().all(|variable| found.contains(&variable.as_slice())));
        let slurm = found.iter().filter(|variable| variable.starts_with(b"SLURM_"));
        assert_eq!(slurm.count(), 4);
        assert!(found.contains(&&b"SLURM_ARRAY_TASK_ID=3"[..]), "{found:?}");
    }

    #[test]
    fn a_program_of_the_requests_own_runs_as_it_is_and_says_nothing_here() {
        let out = std::env::temp_dir().join(format!("deputy-script-own-{}", std::process::id()));
        let streams = Streams {
            output: Output::File { path: out.as_os_str().as_bytes().to_vec(), append: false },
            ..null()
        };
        for length in 0..130 {
            let odd = "x".repeat(length);
            let program =
                format!("#!/bin/sh\n#SBATCH --qos=high\r\nDEPUTY\n# {odd}\nprintf '%s|' {length} \"$@\"\n");
            let program = program.replace("\nDEPUTY\n", "\n: DEPUTY\n");
            let argv = [b"job.sh".to_vec(), b"a 'b'".to_vec(), b"--wrap=id".to_vec()];
            let made = script(&Script {
                argv: &argv,
                environment: &[],
                directory: Some(b"/"),
                umask: 0o22,
                streams: &streams,
                array: None,
                program: Some(program.as_bytes()),
            })
            .unwrap();
            let text = String::from_utf8(made).unwrap();
            assert!(!text.contains("#SBATCH") && !text.contains('\r'), "{text}");
            let ended = Command::new("/bin/sh").arg("-c").arg(&text).status().unwrap();
            let written = std::fs::read_to_string(&out).unwrap();
            assert_eq!((ended.code(), written), (Some(0), format!("{length}|a 'b'|--wrap=id|")));
        }
        std::fs::remove_file(&out).unwrap();
    }
}
