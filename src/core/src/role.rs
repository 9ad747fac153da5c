//! Roles: permissions under a name, Deputy's own and those of an application.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::application::ApplicationError;
use crate::names::RoleName;
use crate::permission::{Permission, Permissions};

/// The role that an account has which was given none.
pub const DEFAULT_ROLE: &str = "user";

/// The role that each application needs an active account of.
pub const SUPERUSER: &str = "superuser";

/// How many seconds acting for another account lasts, where the file does not say.
pub const ACT_FOR_SECONDS: u64 = 900;

/// The longest that a file may let it last: a day.
const MAX_ACT_FOR_SECONDS: u64 = 24 * 3600;

/// The roles that every application has, with what each allows in words.
pub const BUILT_IN: [(&str, &str); 4] = [
    (SUPERUSER, "everything but acting for others, other superusers included"),
    ("administrator", "the same, but nothing about superusers"),
    (DEFAULT_ROLE, "jobs and files of one's own"),
    ("viewer", "seeing accounts and jobs"),
];

/// What a role allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Role {
    /// Its permissions.
    pub permissions: Permissions,
    /// Whether it may also give, take and manage the role of a superuser.
    pub superuser: bool,
}

impl Role {
    /// Whether who has this may give the other role to somebody, or manage somebody who has it: nobody has power over
    /// more than he has himself.
    pub fn covers(&self, other: &Role) -> bool {
        self.permissions.covers(other.permissions) && (self.superuser || !other.superuser)
    }

    /// What both allow together.
    #[must_use]
    pub fn and(&self, other: &Role) -> Role {
        Role {
            permissions: self.permissions.and(other.permissions),
            superuser: self.superuser || other.superuser,
        }
    }
}

/// One `[roles.NAME]` of an application's file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnRole {
    /// What it allows.
    pub permissions: Vec<Permission>,
}

/// The roles of one application.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Roles {
    own: BTreeMap<RoleName, Permissions>,
    /// For how long an account may act for another; `None` where the file does not allow it.
    pub act_for_seconds: Option<u64>,
}

impl Roles {
    /// The roles of a file that has these keys.
    pub fn new(
        own: BTreeMap<RoleName, OwnRole>,
        act_for: bool,
        act_for_seconds: Option<u64>,
    ) -> Result<Self, ApplicationError> {
        if own.keys().any(|name| built_in(name.as_str()).is_some()) {
            return Err(ApplicationError::Meaning(
                "superuser, administrator, user and viewer are the same in every application; give the role another name",
            ));
        }
        let own: BTreeMap<_, _> =
            own.into_iter().map(|(name, role)| (name, role.permissions.into_iter().collect())).collect();
        if !act_for
            && (act_for_seconds.is_some()
                || own.values().any(|role: &Permissions| role.has(Permission::ActFor)))
        {
            return Err(ApplicationError::Meaning("to act for another account needs act_for = true"));
        }
        if act_for_seconds.is_some_and(|seconds| !(1..=MAX_ACT_FOR_SECONDS).contains(&seconds)) {
            return Err(ApplicationError::Meaning("act_for_seconds is 1 to 86400"));
        }
        let act_for_seconds = act_for.then(|| act_for_seconds.unwrap_or(ACT_FOR_SECONDS));
        Ok(Self { own, act_for_seconds })
    }

    /// What a role allows; `None` if the application has no such role.
    pub fn get(&self, name: &str) -> Option<Role> {
        if let Some(role) = built_in(name) {
            return Some(role);
        }
        let found = self.own.iter().find(|(own, _)| own.as_str() == name);
        found.map(|(_, permissions)| Role { permissions: *permissions, superuser: false })
    }

    /// What a role allows. One that the application no longer has allows nothing.
    pub fn of(&self, name: &str) -> Role {
        self.get(name).unwrap_or_default()
    }

    /// Every role by name: Deputy's own, then the application's.
    pub fn all(&self) -> impl Iterator<Item = (&str, Role)> {
        let own = self.own.keys().map(RoleName::as_str);
        BUILT_IN.iter().map(|(name, _)| *name).chain(own).map(|name| (name, self.of(name)))
    }
}

fn built_in(name: &str) -> Option<Role> {
    let all = Permissions::ALL.without(Permission::ActFor);
    let of = |list: &[Permission]| Role { permissions: list.iter().copied().collect(), superuser: false };
    match name {
        SUPERUSER => Some(Role { permissions: all, superuser: true }),
        "administrator" => Some(Role { permissions: all, superuser: false }),
        DEFAULT_ROLE => Some(of(&[Permission::RunJobs, Permission::UseFiles])),
        "viewer" => Some(of(&[Permission::ViewAccounts, Permission::ViewJobs])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roles(own: &[(&str, &[Permission])], act_for: bool) -> Result<Roles, ApplicationError> {
        let own = own.iter().map(|(name, permissions)| {
            (RoleName::new(*name).unwrap(), OwnRole { permissions: permissions.to_vec() })
        });
        Roles::new(own.collect(), act_for, None)
    }

    #[test]
    fn a_file_changes_no_built_in_role_and_gives_act_for_only_with_the_key() {
        for (name, _) in BUILT_IN {
            assert!(roles(&[(name, &[])], false).is_err(), "{name}");
        }
        assert!(roles(&[("support", &[Permission::ActFor])], false).is_err());
        assert!(Roles::new(BTreeMap::new(), false, Some(60)).is_err());
        assert!(Roles::new(BTreeMap::new(), true, Some(0)).is_err());
        assert!(Roles::new(BTreeMap::new(), true, Some(86_401)).is_err());
        let roles = roles(&[("support", &[Permission::ActFor])], true).unwrap();
        assert!(roles.of("support").permissions.has(Permission::ActFor));
        assert_eq!(roles.act_for_seconds, Some(900));
        for (name, _) in BUILT_IN {
            assert!(!roles.of(name).permissions.has(Permission::ActFor), "{name}");
        }
    }

    #[test]
    fn nobody_covers_more_than_he_has() {
        let roles = roles(&[("helper", &[Permission::ManageAccounts]), ("odd", &[Permission::ActFor])], true);
        let roles = roles.unwrap();
        let names: Vec<&str> = roles.all().map(|(name, _)| name).collect();
        assert_eq!(names, ["superuser", "administrator", "user", "viewer", "helper", "odd"]);
        let covered = |by: &str| -> Vec<&str> {
            names.iter().copied().filter(|name| roles.of(by).covers(&roles.of(name))).collect()
        };
        assert_eq!(covered("superuser"), ["superuser", "administrator", "user", "viewer", "helper"]);
        assert_eq!(covered("administrator"), ["administrator", "user", "viewer", "helper"]);
        assert_eq!(covered("user"), ["user"]);
        assert_eq!(covered("viewer"), ["viewer"]);
        assert_eq!(covered("helper"), ["helper"]);
        assert_eq!(covered("odd"), ["odd"]);
        assert!(covered("a role that is gone").is_empty());
        let both = roles.of("user").and(&roles.of("viewer"));
        assert!(both.covers(&roles.of("user")) && both.covers(&roles.of("viewer")));
        assert!(!both.covers(&roles.of("administrator")));
    }
}
