//! The manual pages of the two files of root's name every key that the files can have.
//!
//! The keys are found by asking: a key that nobody knows is refused with the list of those that are known.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;

/// The keys of the table `path` of a file, however it is written; `None` if there is no such table.
fn keys<File: DeserializeOwned>(path: &[String]) -> Option<Vec<String>> {
    let name = path.join(".");
    // A table, a table for each name, a list of tables.
    let forms = match path {
        [] => vec!["no_such_key = 1\n".to_owned()],
        _ => ["[NAME]", "[NAME.name]", "[[NAME]]"]
            .map(|form| format!("{}\nno_such_key = 1\n", form.replace("NAME", &name)))
            .to_vec(),
    };
    forms.iter().find_map(|text| {
        let error = toml::from_str::<File>(text).err()?;
        let known = error.message().strip_prefix("unknown field `no_such_key`")?;
        Some(known.split('`').skip(1).step_by(2).map(str::to_owned).collect())
    })
}

/// Every key of a file, tables' names included.
fn all_keys<File: DeserializeOwned>() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![Vec::new()];
    while let Some(path) = open.pop() {
        for key in keys::<File>(&path).unwrap_or_default() {
            let mut deeper = path.clone();
            deeper.push(key.clone());
            found.insert(key);
            open.push(deeper);
        }
    }
    found
}

/// The keys that a page does not have in bold, as keys are written, or in the name of a table.
fn left_out<File: DeserializeOwned>(page: &str) -> Vec<String> {
    let page = page.replace("\\-", "-");
    let emphasized: BTreeSet<&str> = page
        .lines()
        .filter(|line| line.starts_with(".B") || line.starts_with(".SS"))
        .flat_map(|line| line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')))
        .collect();
    all_keys::<File>().into_iter().filter(|key| !emphasized.contains(key.as_str())).collect()
}

#[test]
fn the_pages_name_every_key() {
    let settings = include_str!("../../../man/deputy.toml.5");
    assert_eq!(left_out::<crate::settings::Settings>(settings), [""; 0], "man/deputy.toml.5");
    let application = include_str!("../../../man/deputy-application.5");
    assert_eq!(left_out::<crate::application::File>(application), [""; 0], "man/deputy-application.5");
}

#[test]
fn keys_are_found_at_every_depth() {
    let settings = all_keys::<crate::settings::Settings>();
    assert!(settings.contains("executor") && settings.contains("cgroup"), "{settings:?}");
    let application = all_keys::<crate::application::File>();
    for key in ["service_uid", "commands", "permissions", "access", "strip_domain", "login"] {
        assert!(application.contains(key), "{key}: {application:?}");
    }
    assert!(!left_out::<crate::settings::Settings>(".B cgroup\n").contains(&"cgroup".to_owned()));
    assert!(left_out::<crate::settings::Settings>(".B cgroup\n").contains(&"max_jobs".to_owned()));
}
