//! The page about roles has every permission in the words of the code, and every built-in role.
#![forbid(unsafe_code)]

use deputy_core::Permission;
use deputy_core::role::BUILT_IN;

const PAGE: &str = include_str!("../../../docs/roles.md");

#[test]
fn every_permission_is_explained_in_the_words_of_the_code() {
    for permission in Permission::ALL {
        let row = format!("| `{permission}` | {} |", permission.meaning());
        assert!(PAGE.contains(&row), "docs/roles.md has no line {row}");
    }
    let rows = PAGE.lines().filter(|line| line.starts_with("| `") && line.ends_with(". |")).count();
    assert_eq!(rows, Permission::ALL.len(), "docs/roles.md explains what is no permission");
}

#[test]
fn every_built_in_role_is_there() {
    for (role, _) in BUILT_IN {
        assert!(PAGE.contains(&format!("| `{role}` | ")), "docs/roles.md has no {role}");
    }
}
