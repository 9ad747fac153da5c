//! Permissions: what an account may do to others, or at all, inside its application.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A text that names no permission.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("there is no permission called {0:?}; there are {all}", all = Permissions::ALL)]
pub struct UnknownPermission(String);

macro_rules! permissions {
    ($($(#[doc = $doc:literal])* $permission:ident = $name:literal,)*) => {
        /// What an account may do inside its application, in the whole of it or in one group.
        ///
        /// There are few, and each is a question that a person who runs an application would ask.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "&'static str")]
        pub enum Permission {
            $($(#[doc = $doc])* $permission,)*
        }

        impl Permission {
            /// Every permission, in the order of the documentation.
            pub const ALL: &'static [Permission] = &[$(Permission::$permission,)*];

            /// The name, as files and interfaces have it.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Permission::$permission => $name,)*
                }
            }

            /// What it allows, in words.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Permission::$permission => concat!($($doc),*).trim_ascii(),)*
                }
            }
        }
    };
}

permissions! {
    /// See accounts, their roles and status, and the groups they are in.
    ViewAccounts = "view_accounts",
    /// Create, approve, reject, edit, deactivate, reactivate and delete accounts.
    ManageAccounts = "manage_accounts",
    /// Change which role an account has.
    ManageRoles = "manage_roles",
    /// Create and delete groups, and say who is in one.
    ManageGroups = "manage_groups",
    /// Set other accounts' passwords.
    ResetPasswords = "reset_passwords",
    /// Ask for and remove links of other accounts.
    ManageLinks = "manage_links",
    /// Change, hand over and delete other accounts' projects.
    ManageProjects = "manage_projects",
    /// Set how much other accounts' jobs may have at once, below what root's file gives.
    ManageLimits = "manage_limits",
    /// See other accounts' jobs.
    ViewJobs = "view_jobs",
    /// Cancel and signal other accounts' jobs.
    ManageJobs = "manage_jobs",
    /// Run jobs, as the OS account that the account is linked to.
    RunJobs = "run_jobs",
    /// Touch files, as the OS account that the account is linked to.
    UseFiles = "use_files",
    /// See what other accounts used.
    ViewUsage = "view_usage",
    /// Read the log of what was decided in the application.
    ViewAudit = "view_audit",
    /// Act for another account, for a short time and with a reason.
    ActFor = "act_for",
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Permission {
    type Err = UnknownPermission;
    fn from_str(text: &str) -> Result<Self, UnknownPermission> {
        let found = Self::ALL.iter().find(|permission| permission.as_str() == text);
        found.copied().ok_or_else(|| UnknownPermission(text.to_owned()))
    }
}

impl TryFrom<String> for Permission {
    type Error = UnknownPermission;
    fn try_from(text: String) -> Result<Self, UnknownPermission> {
        text.parse()
    }
}

impl From<Permission> for &'static str {
    fn from(permission: Permission) -> Self {
        permission.as_str()
    }
}

/// A set of permissions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Permissions(u32);

impl Permissions {
    /// None.
    pub const NONE: Self = Self(0);

    /// All that there are.
    pub const ALL: Self = Self((1 << Permission::ALL.len()) - 1);

    /// Whether this one is in it.
    pub fn has(self, permission: Permission) -> bool {
        self.0 & (1 << permission as u32) != 0
    }

    /// With this one too.
    #[must_use]
    pub fn with(self, permission: Permission) -> Self {
        Self(self.0 | 1 << permission as u32)
    }

    /// Without this one.
    #[must_use]
    pub fn without(self, permission: Permission) -> Self {
        Self(self.0 & !(1 << permission as u32))
    }

    /// Those of both.
    #[must_use]
    pub fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Whether every one of `others` is in it.
    pub fn covers(self, others: Self) -> bool {
        others.0 & !self.0 == 0
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL.iter().copied().filter(move |permission| self.has(*permission))
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        permissions.into_iter().fold(Self::NONE, Self::with)
    }
}

impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, permission) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{permission}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_none_is_refused_with_those_that_are() {
        for text in ["", "root", "Manage_Accounts", "manage-accounts"] {
            let error = text.parse::<Permission>().unwrap_err().to_string();
            assert!(error.contains("manage_accounts"), "{error}");
        }
    }

    #[test]
    fn each_has_a_name_of_its_own_and_words() {
        for permission in Permission::ALL {
            assert_eq!(permission.as_str().parse::<Permission>().as_ref(), Ok(permission));
            assert!(permission.meaning().ends_with('.'), "{permission}");
        }
    }

    #[test]
    fn a_set_has_what_was_put_in_and_nothing_else() {
        for permission in Permission::ALL {
            let set: Permissions = [*permission].into_iter().collect();
            assert_eq!(set.iter().collect::<Vec<_>>(), [*permission]);
            assert!(Permissions::ALL.covers(set) && !Permissions::NONE.covers(set));
            assert!(!Permissions::ALL.without(*permission).covers(set));
            assert_eq!(set.without(*permission), Permissions::NONE);
        }
        assert_eq!(Permissions::ALL.iter().count(), Permission::ALL.len());
    }
}
