//! `[quota]` of `deputy.toml`: when to warn, and which program tells the quota where the kernel does not know it.
//!
//! Such a program is root's, and runs as the OS account that it is asked about. It writes one line for each quota:
//!
//! ```text
//! user space_used=5368709120 space_hard=10737418240 files_used=1200
//! group:2001 space_used=1099511627776 space_soft=2199023255552
//! ```
//!
//! The first word says whose it is (`user`, `group`, `group:GID`, `project:NUMBER`); then come numbers of bytes, of files,
//! or of seconds since 1970. A limit that is absent or 0 is none.

use serde::Deserialize;

use crate::ids::{OsGid, OsUid};
use crate::quota::{Amount, QuotaUsage, Whose};
use crate::storage;

/// The most bytes that a program may write.
pub const MAX_OUTPUT: usize = 16 * 1024;

/// The most quotas that it may tell.
const MAX_QUOTAS: usize = 32;

/// The longest that it may run, seconds.
const MAX_SECONDS: u32 = 60;

/// The most programs.
const MAX_COMMANDS: usize = 32;

/// What is done about quotas.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuotaSettings {
    /// At how many percent of a limit an alert is raised, each once; in rising order.
    pub thresholds: Vec<u8>,
    /// Seconds between two looks at the quotas of whoever used the machine meanwhile.
    pub check_seconds: u32,
    /// The programs that tell quotas, of which the first that fits is asked.
    pub commands: Vec<QuotaCommand>,
}

impl Default for QuotaSettings {
    fn default() -> Self {
        Self { thresholds: vec![80, 95], check_seconds: 300, commands: Vec::new() }
    }
}

/// A program that tells quotas.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuotaCommand {
    /// For these sorts of file systems; empty for any.
    #[serde(default)]
    pub fstype: Vec<String>,
    /// For roots in this folder; none for all.
    #[serde(default)]
    pub path: Option<String>,
    /// The program and its arguments, in which `{os_user}`, `{uid}`, `{gid}` and `{path}` stand for what they say.
    pub argv: Vec<String>,
    /// How long it may take.
    #[serde(default = "ten")]
    pub seconds: u32,
}

fn ten() -> u32 {
    10
}

/// The words that an argument may have in braces.
const TOKENS: [&str; 4] = ["{os_user}", "{uid}", "{gid}", "{path}"];

impl QuotaSettings {
    /// What is wrong with them.
    pub fn check(&self) -> Result<(), String> {
        let rising = self.thresholds.windows(2).all(|pair| pair[0] < pair[1]);
        if self.thresholds.len() > 8 || !rising || self.thresholds.iter().any(|t| !(1..=100).contains(t)) {
            return Err("quota.thresholds: percentages from 1 to 100, at most 8, in rising order".into());
        }
        if !(10..=86_400).contains(&self.check_seconds) {
            return Err("quota.check_seconds: 10 to 86400".into());
        }
        if self.commands.len() > MAX_COMMANDS {
            return Err(format!("quota.commands: at most {MAX_COMMANDS}"));
        }
        self.commands.iter().try_for_each(QuotaCommand::check)
    }

    /// The program that tells the quotas of a root.
    pub fn command(&self, filesystem: &str, path: &[u8]) -> Option<&QuotaCommand> {
        self.commands.iter().find(|command| command.fits(filesystem, path))
    }
}

impl QuotaCommand {
    fn check(&self) -> Result<(), String> {
        if let Some(unknown) = self.fstype.iter().find(|name| !storage::is_filesystem(name)) {
            let known = storage::known();
            return Err(format!(
                "quota.commands.fstype: {unknown:?} is none of {known}, and no number as 0x6969"
            ));
        }
        if self.path.as_ref().is_some_and(|path| !is_plain_path(path)) {
            return Err("quota.commands.path: an absolute path without . and ..".into());
        }
        if self.fstype.is_empty() && self.path.is_none() {
            return Err("quota.commands: say for which fstype or for which path it is".into());
        }
        if !self.argv.first().is_some_and(|program| is_plain_path(program)) || self.argv.len() > 64 {
            return Err("quota.commands.argv: an absolute path of a program, and at most 63 arguments".into());
        }
        for argument in &self.argv {
            let rest = TOKENS.iter().fold(argument.clone(), |rest, token| rest.replace(token, ""));
            if rest.contains(['{', '}', '\0']) || argument.len() > 4096 {
                return Err(format!(
                    "quota.commands.argv: {argument:?}: braces are for {}",
                    TOKENS.join(", ")
                ));
            }
        }
        if TOKENS.iter().any(|token| self.argv[0].contains(token)) {
            return Err("quota.commands.argv: the program is the same for everybody".into());
        }
        if !(1..=MAX_SECONDS).contains(&self.seconds) {
            return Err(format!("quota.commands.seconds: 1 to {MAX_SECONDS}"));
        }
        Ok(())
    }

    fn fits(&self, filesystem: &str, path: &[u8]) -> bool {
        let beneath = self.path.as_ref().is_none_or(|folder| {
            let folder = folder.trim_end_matches('/').as_bytes();
            path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
        });
        beneath && (self.fstype.is_empty() || self.fstype.iter().any(|name| name == filesystem))
    }

    /// The argument vector for one OS account and one root.
    pub fn argv(&self, os_user: &str, uid: OsUid, gid: OsGid, path: &[u8]) -> Vec<Vec<u8>> {
        let (uid, gid) = (uid.raw().to_string(), gid.raw().to_string());
        let meaning: [(&str, &[u8]); 4] = [
            ("{os_user}", os_user.as_bytes()),
            ("{uid}", uid.as_bytes()),
            ("{gid}", gid.as_bytes()),
            ("{path}", path),
        ];
        self.argv.iter().map(|argument| filled(argument, &meaning)).collect()
    }
}

/// An argument with what its words mean, each of which is looked for once, from left to right: what one means is not read
/// again.
fn filled(argument: &str, meaning: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut filled, mut rest) = (Vec::new(), argument);
    while let Some(at) = rest.find('{') {
        filled.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at..];
        let word = meaning.iter().find(|(token, _)| rest.starts_with(token));
        let (token, value) = word.map_or(("{", b"{".as_slice()), |(token, value)| (*token, *value));
        filled.extend_from_slice(value);
        rest = &rest[token.len()..];
    }
    filled.extend_from_slice(rest.as_bytes());
    filled
}

fn is_plain_path(path: &str) -> bool {
    path.starts_with('/')
        && path.len() > 1
        && !path.contains('\0')
        && !path.split('/').any(|part| part == "." || part == "..")
}

/// What a program wrote. Whatever is not exactly as it should be is an error: half an answer is none.
pub fn parse(output: &[u8], uid: OsUid, gid: OsGid) -> Result<Vec<QuotaUsage>, String> {
    if output.len() > MAX_OUTPUT {
        return Err(format!("more than {MAX_OUTPUT} bytes"));
    }
    let text = std::str::from_utf8(output).map_err(|_| "it is not text".to_owned())?;
    let mut quotas: Vec<QuotaUsage> = Vec::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let quota = line_of(line, uid, gid).map_err(|why| format!("line {number}: {why}"))?;
        if quotas.iter().any(|other| other.whose == quota.whose) {
            return Err(format!("line {number}: {} has two lines", quota.whose));
        }
        if quotas.len() == MAX_QUOTAS {
            return Err(format!("more than {MAX_QUOTAS} quotas"));
        }
        quotas.push(quota);
    }
    Ok(quotas)
}

fn line_of(line: &str, uid: OsUid, gid: OsGid) -> Result<QuotaUsage, String> {
    let mut words = line.split_ascii_whitespace();
    let first = words.next().unwrap_or_default();
    let id = |digits: &str| number(digits).and_then(|id| u32::try_from(id).ok());
    let whose = match first.split_once(':') {
        None if first == "user" => Some(Whose::User(uid)),
        None if first == "group" => Some(Whose::Group(gid)),
        Some(("group", gid)) => id(gid).and_then(OsGid::new).map(Whose::Group),
        Some(("project", number)) => id(number).map(Whose::Project),
        _ => None,
    };
    let whose = whose.ok_or("it begins with user, group, group:GID or project:NUMBER")?;
    let (mut space, mut files) = (Given::default(), Given::default());
    for word in words {
        let wrong = || format!("{} is not KEY=NUMBER", printable(word));
        let (key, value) = word.split_once('=').ok_or_else(wrong)?;
        let value = number(value).ok_or_else(wrong)?;
        let (of, field) = match key.split_once('_') {
            Some(("space", field)) => (&mut space, field),
            Some(("files", field)) => (&mut files, field),
            _ => return Err(wrong()),
        };
        let place = match field {
            "used" => &mut of.used,
            "soft" => &mut of.soft,
            "hard" => &mut of.hard,
            "grace_ends" => &mut of.grace_ends,
            _ => return Err(wrong()),
        };
        if place.replace(value).is_some() {
            return Err(format!("{key} is there twice"));
        }
    }
    if space.used.is_none() && files.used.is_none() {
        return Err("space_used or files_used is missing".into());
    }
    Ok(QuotaUsage { whose, space: space.amount(), files: files.amount() })
}

/// The numbers of one line, as far as they were read.
#[derive(Default)]
struct Given {
    used: Option<u64>,
    soft: Option<u64>,
    hard: Option<u64>,
    grace_ends: Option<u64>,
}

impl Given {
    fn amount(self) -> Amount {
        let limit = |value: Option<u64>| value.filter(|&value| value > 0);
        Amount {
            used: self.used.unwrap_or_default(),
            soft: limit(self.soft),
            hard: limit(self.hard),
            grace_ends: limit(self.grace_ends),
        }
    }
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// A word that a person is shown.
fn printable(word: &str) -> String {
    word.chars().take(40).flat_map(char::escape_default).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn ids() -> (OsUid, OsGid) {
        (OsUid::new(1001).unwrap(), OsGid::new(2001).unwrap())
    }

    fn told(text: &str) -> Result<Vec<QuotaUsage>, String> {
        let (uid, gid) = ids();
        parse(text.as_bytes(), uid, gid)
    }

    #[test]
    fn what_is_not_exactly_as_documented_is_refused() {
        for (text, expected) in [
            ("nobody space_used=1\n", "line 1"),
            ("user\n", "missing"),
            ("user space_hard=5\n", "missing"),
            ("user space_used=-1\n", "KEY=NUMBER"),
            ("user space_used=1k\n", "KEY=NUMBER"),
            ("user space_used=99999999999999999999\n", "KEY=NUMBER"),
            ("user space_used\n", "KEY=NUMBER"),
            ("user space_colour=1\n", "KEY=NUMBER"),
            ("user space_used=1 space_used=2\n", "twice"),
            ("user space_used=1\nuser space_used=2\n", "two lines"),
            ("user space_used=1\n\ngroup:x files_used=2\n", "line 3"),
            ("group:-1 files_used=2\n", "line 1"),
            ("project:4294967296 files_used=2\n", "line 1"),
            ("user \u{1b}[31m\n", "\\u{1b}"),
        ] {
            let why = told(text).unwrap_err();
            assert!(why.contains(expected), "{text:?}: {why}");
        }
        let many: Vec<String> =
            (0..=MAX_QUOTAS).map(|number| format!("project:{number} files_used=1\n")).collect();
        assert!(told(&many.concat()).unwrap_err().contains("more than"));
        assert!(told(&"user space_used=1\n".repeat(2000)).unwrap_err().contains("bytes"));
        assert!(parse(b"\xff", ids().0, ids().1).is_err());
    }

    #[test]
    fn numbers_are_taken_as_they_are_and_no_limit_is_none() {
        assert_eq!(told("").unwrap(), []);
        let quotas = told(
            "user space_used=5 space_soft=0 space_hard=10 space_grace_ends=7 files_used=3\n\n\
                  group space_used=1\ngroup:77 files_used=2 files_soft=4\nproject:9 space_used=1\n",
        )
        .unwrap();
        assert_eq!(quotas[0].space, Amount { used: 5, soft: None, hard: Some(10), grace_ends: Some(7) });
        assert_eq!(quotas[0].files, Amount { used: 3, ..Amount::default() });
        let whose: Vec<String> = quotas.iter().map(|quota| quota.whose.to_string()).collect();
        assert_eq!(whose, ["uid 1001", "gid 2001", "gid 77", "quota project 9"]);
        assert_eq!(quotas[2].files.soft, Some(4));
    }

    fn settings(text: &str) -> Result<Settings, String> {
        Settings::parse(text).map_err(|error| error.to_string())
    }

    #[test]
    fn settings_that_could_not_work_are_refused() {
        let command = |rest: &str| format!("[[quota.commands]]\n{rest}\n");
        for (text, expected) in [
            ("[quota]\nthresholds = [95, 80]\n".to_owned(), "rising"),
            ("[quota]\nthresholds = [0]\n".to_owned(), "1 to 100"),
            ("[quota]\ncheck_seconds = 1\n".to_owned(), "check_seconds"),
            (command("argv = [\"/bin/q\"]"), "fstype"),
            (command("fstype = [\"nfs5\"]\nargv = [\"/bin/q\"]"), "nfs5"),
            (command("path = \"data\"\nargv = [\"/bin/q\"]"), "absolute"),
            (command("path = \"/data\"\nargv = [\"q\"]"), "argv"),
            (command("path = \"/data\"\nargv = []"), "argv"),
            (command("path = \"/data\"\nargv = [\"/bin/../q\"]"), "argv"),
            (command("path = \"/data\"\nargv = [\"/bin/{os_user}\"]"), "everybody"),
            (command("path = \"/data\"\nargv = [\"/bin/q\", \"{account}\"]"), "braces"),
            (command("path = \"/data\"\nargv = [\"/bin/q\"]\nseconds = 0"), "seconds"),
        ] {
            let why = settings(&text).unwrap_err();
            assert!(why.contains(expected), "{text}: {why}");
        }
    }

    #[test]
    fn the_first_program_that_fits_is_asked_with_what_its_words_mean() {
        let settings = settings(
            "[[quota.commands]]\nfstype = [\"nfs\", \"lustre\"]\npath = \"/data/\"\nargv = [\"/bin/one\"]\n\
             [[quota.commands]]\nfstype = [\"nfs\"]\n\
             argv = [\"/bin/two\", \"-u{os_user}\", \"{uid}:{gid}\", \"{path}\"]\n",
        )
        .unwrap();
        let (uid, gid) = ids();
        let argv = |filesystem, path: &str| {
            let command = settings.quota.command(filesystem, path.as_bytes())?;
            let argv = command.argv("ann{uid}", uid, gid, path.as_bytes());
            Some(argv.into_iter().map(|word| String::from_utf8(word).unwrap()).collect::<Vec<_>>())
        };
        assert_eq!(argv("lustre", "/data").unwrap(), ["/bin/one"]);
        assert_eq!(argv("nfs", "/data/lab").unwrap(), ["/bin/one"]);
        assert_eq!(argv("nfs", "/database").unwrap(), ["/bin/two", "-uann{uid}", "1001:2001", "/database"]);
        assert_eq!(argv("lustre", "/database"), None);
        assert_eq!(argv("ext4", "/data"), None);
        assert_eq!(settings.quota.thresholds, [80, 95]);
    }
}
