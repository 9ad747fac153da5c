//! The examples of `docs/applications.md` are what they say.
#![forbid(unsafe_code)]

use deputy_core::application::Application;
use deputy_core::settings::Settings;

const DOCUMENT: &str = include_str!("../../../docs/applications.md");

fn examples() -> Vec<&'static str> {
    let blocks = DOCUMENT.split("```toml\n").skip(1);
    blocks.map(|rest| rest.split_once("```").expect("a block ends").0).collect()
}

fn is_settings(example: &str) -> bool {
    example.contains("[launcher]")
}

/// A table of `deputy.toml` that has no default.
fn is_part_of_settings(example: &str) -> bool {
    example.contains("[[quota.commands]]")
}

#[test]
fn a_table_of_the_settings_alone_is_valid() {
    let parts: Vec<_> = examples().into_iter().filter(|example| is_part_of_settings(example)).collect();
    assert_eq!(parts.len(), 1);
    assert_eq!(Settings::parse(parts[0]).unwrap().quota.commands.len(), 1);
}

#[test]
fn the_settings_shown_as_defaults_are_the_defaults() {
    let shown: Vec<_> = examples().into_iter().filter(|example| is_settings(example)).collect();
    assert_eq!(shown.len(), 1);
    assert_eq!(Settings::parse(shown[0]).unwrap(), Settings::default());
}

#[test]
fn every_example_of_an_applications_file_is_valid() {
    let of_application = |example: &&str| !is_settings(example) && !is_part_of_settings(example);
    let examples: Vec<_> = examples().into_iter().filter(of_application).collect();
    assert!(examples.len() >= 6, "{} examples", examples.len());
    for example in examples {
        // An example of one key is a part of a file.
        let file = if example.contains("service_user") {
            example.to_owned()
        } else {
            format!("service_user = \"portal\"\n{example}")
        };
        if let Err(error) = Application::parse(&file) {
            panic!("{error}\n{file}");
        }
    }
}
