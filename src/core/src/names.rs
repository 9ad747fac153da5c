//! Names of applications, accounts, projects, kinds, and of users and groups of the operating system.
//!
//! A name of one sort never stands in for another: each is a type of its own, checked when it is made.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The most bytes that a name of Deputy's own has.
pub const MAX_NAME_BYTES: usize = 64;

/// The most bytes of an OS account's or group's name (`LOGIN_NAME_MAX` of Linux without its NUL).
pub const MAX_OS_NAME_BYTES: usize = 255;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// It has no characters.
    #[error("a name cannot be empty")]
    Empty,
    /// It is longer than its sort allows.
    #[error("a name has at most {0} bytes")]
    TooLong(usize),
    /// It holds a character that has a meaning elsewhere (paths, shells, patterns, records).
    #[error("a name cannot contain {0:?}")]
    Character(char),
    /// It begins with `-` (an option) or `.` (a hidden file, `..`).
    #[error("a name cannot begin with {0:?}")]
    Start(char),
    /// It is digits alone, and so looks like a numeric id.
    #[error("a name cannot be a number")]
    Number,
}

fn check_own(text: &str) -> Result<(), NameError> {
    check_common(text, MAX_NAME_BYTES)?;
    match text.chars().find(|&c| is_forbidden(c)) {
        Some(c) => Err(NameError::Character(c)),
        None => Ok(()),
    }
}

/// The rule for names that come from the passwd and group databases: what those files can hold, less what would
/// change the meaning of a path, a record or a command line. Directory services allow inner spaces, backslashes
/// (`DOMAIN\user`) and `$`.
fn check_os(text: &str) -> Result<(), NameError> {
    check_common(text, MAX_OS_NAME_BYTES)?;
    match text.chars().find(|&c| c.is_control() || matches!(c, ':' | '/' | ',')) {
        Some(c) => Err(NameError::Character(c)),
        None => Ok(()),
    }
}

fn check_common(text: &str, max: usize) -> Result<(), NameError> {
    let first = text.chars().next().ok_or(NameError::Empty)?;
    if text.len() > max {
        return Err(NameError::TooLong(max));
    }
    if matches!(first, '-' | '.') {
        return Err(NameError::Start(first));
    }
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(NameError::Number);
    }
    Ok(())
}

/// Characters that no name of Deputy's own holds: they mean something to a path, a shell, a pattern, a passwd line,
/// a terminal, or cannot be seen.
fn is_forbidden(c: char) -> bool {
    c.is_control()
        || c.is_whitespace()
        || matches!(c, '/' | '*' | '?' | '[' | ']' | '{' | '}' | '\\' | '\'' | '"' | '`' | ':')
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// Checks `text` against the rule of this sort of name.
            pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                $check(&text)?;
                Ok(Self(text))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:?})", stringify!($type), self.0)
            }
        }
    };
}

name!(
    /// The name of an application: its policy file's name without `.toml`.
    ApplicationName,
    check_own
);
name!(
    /// The name of an account inside one application.
    AccountName,
    check_own
);
name!(
    /// The name of a project of one account.
    ProjectName,
    check_own
);
name!(
    /// The name of a role.
    RoleName,
    check_own
);
name!(
    /// The name of a group of accounts inside one application.
    GroupName,
    check_own
);
name!(
    /// A kind of job, as policy names it.
    KindName,
    check_own
);
name!(
    /// What a job is called by whoever runs it; two jobs may have one name.
    JobName,
    check_own
);
name!(
    /// The name of an OS account, as the passwd database has it.
    OsUserName,
    check_os
);
name!(
    /// The name of an OS group, as the group database has it.
    OsGroupName,
    check_os
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_a_path_an_option_a_pattern_or_a_number_is_refused() {
        let refused: &[(&str, NameError)] = &[
            ("", NameError::Empty),
            ("..", NameError::Start('.')),
            (".hidden", NameError::Start('.')),
            ("-rf", NameError::Start('-')),
            ("a/b", NameError::Character('/')),
            ("a*", NameError::Character('*')),
            ("a b", NameError::Character(' ')),
            ("a\nb", NameError::Character('\n')),
            ("{os_user}", NameError::Character('{')),
            ("a:b", NameError::Character(':')),
            ("a\\b", NameError::Character('\\')),
            ("a\u{202e}b", NameError::Character('\u{202e}')),
            ("1000", NameError::Number),
        ];
        for (text, why) in refused {
            assert_eq!(AccountName::new(*text).as_ref(), Err(why), "{text:?}");
        }
        assert_eq!(AccountName::new("a".repeat(65)), Err(NameError::TooLong(64)));
    }

    #[test]
    fn ordinary_names_domains_and_letters_of_any_script_are_accepted() {
        for text in ["alice", "alice@lab.example.org", "j.doe", "Jürgen", "a", "x1000", &"a".repeat(64)] {
            assert_eq!(AccountName::new(text).map(String::from), Ok(text.to_owned()));
        }
    }

    #[test]
    fn os_names_may_be_those_of_directory_services_but_not_break_a_record() {
        for text in ["DOMAIN\\alice", "domain users", "host$", "_apt"] {
            assert!(OsUserName::new(text).is_ok(), "{text}");
        }
        for text in ["a:b", "a/b", "0", "-x", "a\nb", ""] {
            assert!(OsUserName::new(text).is_err(), "{text}");
        }
    }
}
