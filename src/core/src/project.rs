//! Projects: which one, and what a member may do there.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::names::{AccountName, NameError, ProjectName};

/// The lowest permission bits that a project's umask can take away: nobody but others and the group.
pub const MAX_UMASK: u32 = 0o077;

/// One project of an application, written `OWNER/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProjectKey {
    /// The account that owns it.
    pub owner: AccountName,
    /// Its name among the owner's.
    pub name: ProjectName,
}

/// A text names no project.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProjectKeyError {
    /// Not two names with a slash between.
    #[error("a project is written OWNER/NAME")]
    Form,
    /// One of the two is no name.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl FromStr for ProjectKey {
    type Err = ProjectKeyError;
    fn from_str(text: &str) -> Result<Self, ProjectKeyError> {
        // No name has a slash.
        let (owner, name) = text.split_once('/').ok_or(ProjectKeyError::Form)?;
        Ok(Self { owner: owner.parse()?, name: name.parse()? })
    }
}

impl TryFrom<String> for ProjectKey {
    type Error = ProjectKeyError;
    fn try_from(text: String) -> Result<Self, ProjectKeyError> {
        text.parse()
    }
}

impl From<ProjectKey> for String {
    fn from(key: ProjectKey) -> String {
        key.to_string()
    }
}

impl fmt::Display for ProjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

/// What a member may do with a project's records. What he may do with files is the kernel's matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProjectAccess {
    /// See them.
    Read,
    /// See them, and run jobs in the project.
    Write,
}

/// A text names no access.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the access to a project is read or write")]
pub struct UnknownAccess;

impl ProjectAccess {
    /// The word in records and interfaces.
    pub fn as_str(self) -> &'static str {
        match self {
            ProjectAccess::Read => "read",
            ProjectAccess::Write => "write",
        }
    }
}

impl FromStr for ProjectAccess {
    type Err = UnknownAccess;
    fn from_str(text: &str) -> Result<Self, UnknownAccess> {
        [Self::Read, Self::Write].into_iter().find(|access| access.as_str() == text).ok_or(UnknownAccess)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_is_two_names_and_nothing_else() {
        for text in ["", "ann", "/x", "ann/", "ann/x/y", "../x", "ann/..", "ann/a b", "a\0/b"] {
            assert!(text.parse::<ProjectKey>().is_err(), "{text:?}");
        }
        let key: ProjectKey = "ann@lab/run.1".parse().unwrap();
        assert_eq!(key.to_string(), "ann@lab/run.1");
        assert!("admin".parse::<ProjectAccess>().is_err());
        assert_eq!("write".parse(), Ok(ProjectAccess::Write));
    }
}
