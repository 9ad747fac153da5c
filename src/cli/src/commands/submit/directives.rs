//! `#SBATCH` lines as options of a call. What is not known is refused: nothing is left out silently that was to bound a job.

use deputy_core::denial::Code;
use zbus::Variant;

use crate::bus::CallOptions;
use crate::failure::Failure;

/// Short options and their long names.
const SHORT: [(&str, &str); 13] = [
    ("A", "account"),
    ("C", "constraint"),
    ("D", "chdir"),
    ("H", "hold"),
    ("J", "job-name"),
    ("N", "nodes"),
    ("c", "cpus-per-task"),
    ("e", "error"),
    ("i", "input"),
    ("n", "ntasks"),
    ("o", "output"),
    ("p", "partition"),
    ("t", "time"),
];

/// Those that say nothing here: the environment is the login's, and Deputy tells how a job ended.
const PASSED_OVER: [&str; 5] = ["export", "get-user-env", "mail-type", "mail-user", "parsable"];

/// Adds what the script's lines ask for.
pub fn add(script: &[u8], call: &mut CallOptions<'static>) -> Result<(), Failure> {
    for line in script.split(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if let Some(rest) = line.strip_prefix(b"#SBATCH") {
            let text = std::str::from_utf8(rest).map_err(|_| wrong("a line that is no text"))?;
            one(text.trim(), call)?;
        } else if !line.is_empty() && !line.starts_with(b"#") {
            // The first command: nothing behind it is a directive.
            break;
        }
    }
    Ok(())
}

fn wrong(what: &str) -> Failure {
    Failure::new(Code::InvalidArgument, format!("#SBATCH: {what}"))
        .remedy("take it out of the script, or write it as 'deputyctl submit --help' says")
}

fn one(text: &str, call: &mut CallOptions<'static>) -> Result<(), Failure> {
    let words = text.split(" #").next().unwrap_or_default().trim_end();
    if words.is_empty() {
        return Ok(());
    }
    let split = |text: &str| -> (String, Option<String>) {
        match text.split_once(|character: char| character == '=' || character.is_whitespace()) {
            Some((name, value)) => (name.to_owned(), Some(value.trim().to_owned())),
            None => (text.to_owned(), None),
        }
    };
    let (name, value) = if let Some(long) = words.strip_prefix("--") {
        split(long)
    } else if let Some(short) = words.strip_prefix('-').filter(|short| short.is_char_boundary(1)) {
        let (letter, rest) = short.split_at(1);
        let long = SHORT.iter().find(|(short, _)| *short == letter).map(|(_, long)| (*long).to_owned());
        let rest = rest.trim();
        (long.ok_or_else(|| wrong(words))?, Some(rest.to_owned()).filter(|rest| !rest.is_empty()))
    } else {
        return Err(wrong(words));
    };
    if PASSED_OVER.contains(&name.as_str()) {
        return Ok(());
    }
    let value = value.map(|value| value.trim_matches(['"', '\'']).to_owned()).unwrap_or_default();
    let bad = || wrong(words);
    let number = || value.parse::<u32>().ok().filter(|number| *number > 0).map(Variant::from).ok_or_else(bad);
    let (key, put): (&'static str, Variant<'static>) = match name.as_str() {
        "partition" => ("partition", value.into()),
        "account" => ("slurm_account", value.into()),
        "qos" => ("qos", value.into()),
        "constraint" => ("constraint", value.replace('&', ",").into()),
        "nodes" => ("nodes", number()?),
        "ntasks" => ("tasks", number()?),
        "cpus-per-task" => ("cpus", f64::from(value.parse::<u32>().map_err(|_| bad())?).into()),
        "mem" => ("memory", memory(&value).ok_or_else(bad)?.into()),
        "time" => ("time_limit_seconds", seconds(&value).ok_or_else(bad)?.into()),
        "gres" | "gpus-per-node" => {
            let count = if name == "gres" { value.strip_prefix("gpu:").ok_or_else(bad)? } else { &value };
            match count.parse::<u32>().map_err(|_| bad())? {
                // Templates have it whether there are any or not.
                0 => return Ok(()),
                gpus => ("gpus", gpus.into()),
            }
        }
        "hold" => ("hold", true.into()),
        // The later of the two counts, as for sbatch.
        "requeue" => ("requeue", true.into()),
        "no-requeue" => ("requeue", false.into()),
        "job-name" => ("name", value.into()),
        "chdir" => ("directory", value.into_bytes().into()),
        "input" | "output" | "error" if value.contains('%') => return Err(bad()),
        "input" => ("stdin", value.into_bytes().into()),
        "output" => ("stdout", value.into_bytes().into()),
        "error" => ("stderr", value.into_bytes().into()),
        "open-mode" if value == "append" => {
            call.insert("stderr_append", true.into());
            ("stdout_append", true.into())
        }
        "open-mode" if value == "truncate" => return Ok(()),
        _ => return Err(bad()),
    };
    call.insert(key, put);
    Ok(())
}

/// Bytes: MiB, unless a unit is named.
fn memory(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "K" | "KB" => 10,
        "" | "M" | "MB" => 20,
        "G" | "GB" => 30,
        "T" | "TB" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift).filter(|bytes| *bytes > 0)
}

/// Minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes or days-hours:minutes:seconds.
fn seconds(text: &str) -> Option<u32> {
    let (days, rest) = match text.split_once('-') {
        Some((days, rest)) => (Some(days.parse::<u32>().ok()?), rest),
        None => (None, text),
    };
    let parts: Vec<u32> = rest.split(':').map(str::parse).collect::<Result<_, _>>().ok()?;
    let (hours, minutes, seconds) = match (days, &parts[..]) {
        (None, [minutes]) => (0, *minutes, 0),
        (None, [minutes, seconds]) => (0, *minutes, *seconds),
        (Some(_), [hours]) => (*hours, 0, 0),
        (Some(_), [hours, minutes]) => (*hours, *minutes, 0),
        (_, [hours, minutes, seconds]) => (*hours, *minutes, *seconds),
        _ => return None,
    };
    let hours = days.unwrap_or(0).checked_mul(24)?.checked_add(hours)?;
    hours.checked_mul(60)?.checked_add(minutes)?.checked_mul(60)?.checked_add(seconds).filter(|all| *all > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(script: &str) -> Result<CallOptions<'static>, Failure> {
        let mut call = CallOptions::new();
        add(script.as_bytes(), &mut call).map(|()| call)
    }

    #[test]
    fn what_is_not_known_is_refused_and_nothing_behind_the_first_command_counts() {
        for bad in [
            "--array=0-9",
            "--wrap=id",
            "--reservation=x",
            "--exclusive",
            "-w node",
            "--mem=0",
            "--mem=4Q",
            "--time=0",
            "--nodes=1-2",
            "--gres=license:1",
            "--gres=gpu:a100:1",
            "--output=slurm-%j.out",
            "job",
            "-",
            "--uid=0",
            "--open-mode=x",
        ] {
            assert!(of(&format!("#!/bin/sh\n#SBATCH {bad}\n")).is_err(), "{bad}");
        }
        assert!(of("#!/bin/sh\ntrue\n#SBATCH --array=0-9\n").unwrap().is_empty());
        assert!(of("#!/bin/sh\n# SBATCH --array=0-9\n##SBATCH --array=0-9\n").unwrap().is_empty());
    }

    #[test]
    fn the_lines_of_usual_templates_become_options() {
        let script = "#!/usr/bin/env bash\n#SBATCH --job-name cryosparc_P1_J2\n#SBATCH --cpus-per-task=4\n#SBATCH --gres=gpu:2\n\
                      #SBATCH --mem=16G\n#SBATCH --output=/data/P1/J2/job.log\n#SBATCH --error=/data/P1/J2/job.log\n#SBATCH -p gpu\n\
                      #SBATCH --time=1-02:03:04 # a day\n#SBATCH --export=NONE\n#SBATCH --constraint=\"a100&fast\"\n\n/opt/run\n";
        let call = of(script).unwrap();
        let expected: [(&str, Variant<'static>); 9] = [
            ("name", "cryosparc_P1_J2".into()),
            ("cpus", 4.0.into()),
            ("gpus", 2_u32.into()),
            ("memory", (16_u64 << 30).into()),
            ("stdout", b"/data/P1/J2/job.log".to_vec().into()),
            ("stderr", b"/data/P1/J2/job.log".to_vec().into()),
            ("partition", "gpu".into()),
            ("time_limit_seconds", 93_784_u32.into()),
            ("constraint", "a100,fast".into()),
        ];
        assert_eq!(call.len(), expected.len());
        for (key, value) in expected {
            assert_eq!(call.get(key), Some(&value), "{key}");
        }
        for (lines, requeue) in
            [("--requeue", true), ("--no-requeue", false), ("--requeue\n#SBATCH --no-requeue", false)]
        {
            assert_eq!(
                of(&format!("#SBATCH {lines}\n")).unwrap().get("requeue"),
                Some(&requeue.into()),
                "{lines}"
            );
        }
        for (text, all) in [("5", 300), ("5:30", 330), ("1:00:00", 3600), ("1-0", 86_400), ("0-1:30", 5400)] {
            assert_eq!(seconds(text), Some(all), "{text}");
        }
    }
}
