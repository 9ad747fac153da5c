//! Which commands and which variables a request may name.

use serde::Deserialize;
use thiserror::Error;

/// A pattern is not one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PatternError {
    /// A command rule without elements.
    #[error("a command rule cannot be empty")]
    Empty,
    /// A program that is not named by an absolute path.
    #[error("a command rule begins with an absolute path, or is \"*\"")]
    NotAbsolute,
    /// A path with `.`, `..` or an empty component.
    #[error("a command rule's path has no '.', '..' or empty component")]
    DotComponent,
    /// A variable that no rule may allow.
    #[error("{0:?} cannot be allowed: it would change what other programs load or do")]
    ForbiddenVariable(String),
    /// A variable pattern that is not a name with an optional final `*`.
    #[error("a variable is named with letters, digits and _, with at most one '*' at the end")]
    VariableSyntax,
}

/// One element of a command rule: text in which `*` stands for one or more bytes other than `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Element(String);

impl Element {
    fn is_lone_star(&self) -> bool {
        self.0 == "*"
    }

    fn matches(&self, argument: &[u8]) -> bool {
        if has_dot_component(argument) {
            return false;
        }
        glob(self.0.as_bytes(), argument)
    }
}

/// Matches with one remembered star, so the cost is at most the product of both lengths.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on from if the latest star has to take one byte more.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if p < pattern.len() && pattern[p] == b'*' {
            // A star takes at least one byte.
            if t < text.len() && text[t] != b'/' {
                retry = Some((p, t + 1));
                p += 1;
                t += 1;
                continue;
            }
        } else if p < pattern.len() && t < text.len() && pattern[p] == text[t] {
            p += 1;
            t += 1;
            continue;
        } else if p == pattern.len() && t == text.len() {
            return true;
        }
        match retry {
            Some((star, next)) if next < text.len() && text[next] != b'/' => {
                retry = Some((star, next + 1));
                p = star + 1;
                t = next + 1;
            }
            _ => return false,
        }
    }
}

/// Whether a component between slashes is `.` or `..`, or is empty inside a path (`//`), so that the path could
/// name something else than it shows.
fn has_dot_component(argument: &[u8]) -> bool {
    if !argument.contains(&b'/') {
        return argument == b"." || argument == b"..";
    }
    argument.split(|&b| b == b'/').enumerate().any(|(index, component)| {
        component == b"." || component == b".." || (component.is_empty() && index > 0)
    })
}

/// Which program, with which arguments: one pattern for each element of argv.
///
/// `*` alone allows any program. Otherwise the first pattern is an absolute path; each further pattern takes exactly
/// one argument, and a final `*` alone takes any number, of any form.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct CommandRule {
    text: String,
    elements: Vec<Element>,
}

impl CommandRule {
    /// Reads a rule: patterns with spaces between them.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let elements: Vec<Element> = text.split_ascii_whitespace().map(|e| Element(e.to_owned())).collect();
        let program = elements.first().ok_or(PatternError::Empty)?;
        if !(elements.len() == 1 && program.is_lone_star()) {
            if !program.0.starts_with('/') {
                return Err(PatternError::NotAbsolute);
            }
            if elements.iter().any(|element| has_dot_component(element.0.as_bytes())) {
                return Err(PatternError::DotComponent);
            }
        }
        Ok(Self { text: elements.iter().map(|e| e.0.as_str()).collect::<Vec<_>>().join(" "), elements })
    }

    /// The rule as root wrote it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the rule allows any program at all.
    pub fn allows_any_program(&self) -> bool {
        self.elements.len() == 1 && self.elements[0].is_lone_star()
    }

    /// Whether the rule allows this argument vector.
    pub fn allows(&self, argv: &[Vec<u8>]) -> bool {
        if argv.is_empty() {
            return false;
        }
        if self.allows_any_program() {
            return true;
        }
        let (fixed, open_end) = match self.elements.split_last() {
            Some((last, rest)) if last.is_lone_star() => (rest, true),
            _ => (&self.elements[..], false),
        };
        let enough = if open_end { argv.len() >= fixed.len() } else { argv.len() == fixed.len() };
        enough && fixed.iter().zip(argv).all(|(element, argument)| element.matches(argument))
    }

    /// The elements of `argv` that the rule names by path: these have to be root's all along, or the rule would
    /// allow whatever somebody puts there.
    pub fn paths<'a>(&self, argv: &'a [Vec<u8>]) -> Vec<&'a [u8]> {
        if self.allows_any_program() {
            return Vec::new();
        }
        self.elements
            .iter()
            .zip(argv)
            .filter(|(element, _)| element.0.starts_with('/'))
            .map(|(_, argument)| argument.as_slice())
            .collect()
    }
}

/// Variables that no request may set, whatever a rule says: the loader's, the shells' functions, the scheduler's,
/// and those that a login sets itself.
const FORBIDDEN_PREFIXES: [&str; 10] =
    ["LD_", "BASH_FUNC_", "SLURM_", "_SLURM_", "SBATCH_", "SRUN_", "SALLOC_", "PMI", "DEPUTY_", "GCONV_"];
const FORBIDDEN_NAMES: [&str; 16] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "MAIL",
    "IFS",
    "ENV",
    "BASH_ENV",
    "SHELLOPTS",
    "BASHOPTS",
    "PS4",
    "GLIBC_TUNABLES",
    "NLSPATH",
    "HOSTALIASES",
    "XDG_RUNTIME_DIR",
];

/// The longest value that a request may give to a variable.
pub const MAX_VALUE_BYTES: usize = 32 * 1024;

fn is_variable_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn is_forbidden_variable(name: &str) -> bool {
    FORBIDDEN_NAMES.contains(&name) || FORBIDDEN_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Which variable a request may set: a name, or the beginning of names with a final `*`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct EnvironmentRule {
    stem: String,
    prefix: bool,
}

impl EnvironmentRule {
    /// Reads a rule such as `OMP_NUM_THREADS` or `MYAPP_*`.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let (stem, prefix) = match text.strip_suffix('*') {
            Some(stem) => (stem, true),
            None => (text, false),
        };
        if !is_variable_name(stem) {
            return Err(PatternError::VariableSyntax);
        }
        if is_forbidden_variable(stem) {
            return Err(PatternError::ForbiddenVariable(text.to_owned()));
        }
        Ok(Self { stem: stem.to_owned(), prefix })
    }

    fn names(&self, name: &str) -> bool {
        if self.prefix { name.starts_with(&self.stem) } else { name == self.stem }
    }
}

/// Whether the rules allow a variable with this value. `LANG` and `LC_*` are always allowed; values that a shell
/// would take for a function, that hold a NUL or are over [`MAX_VALUE_BYTES`] never are; `LANG`, `LC_*` and `TZ`
/// cannot name a path.
pub fn allows_variable(rules: &[EnvironmentRule], name: &[u8], value: &[u8]) -> bool {
    let Ok(name) = std::str::from_utf8(name) else { return false };
    let locale = name == "LANG" || name == "LANGUAGE" || name.starts_with("LC_");
    let value_is_plain = !value.starts_with(b"()") && !value.contains(&0) && value.len() <= MAX_VALUE_BYTES;
    let may_be_path = !(locale || name == "TZ")
        || !(value.contains(&b'/') && (locale || value.starts_with(b"/"))
            || value.starts_with(b":")
            || value.windows(2).any(|pair| pair == b".."));
    is_variable_name(name)
        && !is_forbidden_variable(name)
        && value_is_plain
        && may_be_path
        && (locale || rules.iter().any(|rule| rule.names(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn argv(text: &str) -> Vec<Vec<u8>> {
        text.split(' ').map(|a| a.as_bytes().to_vec()).collect()
    }

    fn allows(rule: &str, command: &str) -> bool {
        CommandRule::parse(rule).unwrap().allows(&argv(command))
    }

    #[test]
    fn what_the_rule_does_not_say_is_refused() {
        for (rule, command) in [
            ("/opt/app/bin/*", "/opt/app/bin/../../../bin/sh"),
            ("/opt/app/bin/*", "/opt/app/bin/sub/tool"),
            ("/opt/app/bin/*", "/opt/app/bin/"),
            ("/opt/app/bin/*", "/opt/app/bin/.."),
            ("/opt/app/bin/*", "/opt/app/bin/tool extra"),
            ("/opt/app/bin/*", "/opt/app/bin//tool"),
            ("/opt/app/bin/*", "tool"),
            ("/usr/bin/python3 /opt/app/*.py *", "/usr/bin/python3 /tmp/x.py"),
            ("/usr/bin/python3 /opt/app/*.py *", "/usr/bin/python3 /opt/app/../../tmp/x.py"),
            ("/usr/bin/python3 /opt/app/*.py *", "/usr/bin/python3 -c /opt/app/x.py"),
            ("/usr/bin/python3 /opt/app/*.py *", "/usr/bin/python3"),
            ("/bin/echo * end", "/bin/echo a b end"),
            ("/bin/echo * end", "/bin/echo a/b end"),
            ("/bin/echo * end", "/bin/echo .. end"),
        ] {
            assert!(!allows(rule, command), "{rule} should refuse {command}");
        }
        assert!(!CommandRule::parse("*").unwrap().allows(&[]));
    }

    #[test]
    fn what_the_rule_says_is_allowed() {
        for (rule, command) in [
            ("*", "id"),
            ("*", "/any/thing -x .."),
            ("/opt/app/bin/*", "/opt/app/bin/tool"),
            ("/usr/bin/python3 /opt/app/*.py *", "/usr/bin/python3 /opt/app/x.py"),
            ("/usr/bin/python3 /opt/app/*.py *", "/usr/bin/python3 /opt/app/x.py a ../b /c -d"),
            ("/bin/echo * end", "/bin/echo a end"),
            ("/a/x*y*z", "/a/x1y2yz3z"),
        ] {
            assert!(allows(rule, command), "{rule} should allow {command}");
        }
    }

    #[test]
    fn rules_that_would_allow_more_than_they_show_are_not_rules() {
        assert_eq!(CommandRule::parse(""), Err(PatternError::Empty));
        assert_eq!(CommandRule::parse("* /x"), Err(PatternError::NotAbsolute));
        assert_eq!(CommandRule::parse("bin/x"), Err(PatternError::NotAbsolute));
        assert_eq!(CommandRule::parse("/a/../b"), Err(PatternError::DotComponent));
    }

    #[test]
    fn the_paths_of_a_rule_are_those_it_names() {
        let rule = CommandRule::parse("/usr/bin/python3 /opt/app/*.py *").unwrap();
        let command = argv("/usr/bin/python3 /opt/app/x.py /home/u/file");
        assert_eq!(rule.paths(&command), [b"/usr/bin/python3".as_slice(), b"/opt/app/x.py"]);
    }

    #[test]
    fn variables_that_change_what_programs_load_are_never_allowed() {
        for text in [
            "LD_PRELOAD",
            "LD_*",
            "BASH_FUNC_x*",
            "SLURM_CONF",
            "_SLURM_SPANK_OPTION_a_b",
            "PATH",
            "HOME",
            "PMI_RANK",
            "A-B",
            "*",
            "",
        ] {
            assert!(EnvironmentRule::parse(text).is_err(), "{text}");
        }
        // A broad rule does not reach the forbidden names below it.
        let rules = [EnvironmentRule::parse("L*").unwrap(), EnvironmentRule::parse("TZ").unwrap()];
        for (name, value) in [
            (&b"LD_PRELOAD"[..], &b"x"[..]),
            (b"LANG", b"/tmp/evil"),
            (b"LX", b"() { :; }; id"),
            (b"LX", b"a\0b"),
            (b"TZ", b"/etc/shadow"),
            (b"TZ", b"../../etc/shadow"),
            (b"TZ", b":/etc/shadow"),
            (b"OTHER", b"x"),
            (b"L=X", b"x"),
            (b"L\xff", b"x"),
            (b"", b"x"),
        ] {
            assert!(!allows_variable(&rules, name, value), "{:?}", String::from_utf8_lossy(name));
        }
        assert!(!allows_variable(&rules, b"LX", &vec![b'x'; MAX_VALUE_BYTES + 1]));
        assert!(allows_variable(&rules, b"LX", b"/a/path"));
        assert!(allows_variable(&rules, b"LC_ALL", b"C.UTF-8"));
        assert!(allows_variable(&rules, b"TZ", b"Europe/Berlin"));
    }

    /// The definition of `*`, by trying every length.
    fn slow_glob(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => {
                (1..=text.len()).take_while(|&n| text[n - 1] != b'/').any(|n| slow_glob(rest, &text[n..]))
            }
            Some((byte, rest)) => text.first() == Some(byte) && slow_glob(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn the_fast_match_agrees_with_the_definition(pattern in "[ab/*]{0,8}", text in "[ab/]{0,10}") {
            prop_assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), slow_glob(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn no_rule_but_the_star_allows_a_program_with_dots(program in "/[a./]{0,12}") {
            let rule = CommandRule::parse("/* *").unwrap();
            if program.split('/').any(|c| c == "." || c == "..") {
                prop_assert!(!rule.allows(&[program.into_bytes()]));
            }
        }
    }
}
