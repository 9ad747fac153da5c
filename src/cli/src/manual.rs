//! The manual page `man/deputyctl.1`, made from the definition of the command line and checked in.
//!
//! `DEPUTY_WRITE_MANUAL=1 cargo test -p deputyctl manual` writes it anew.

use std::fmt::Write as _;
use std::path::Path;

use clap::{Command, CommandFactory as _};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::options::{EXIT_STATUS, JSON_FORM, Options};

/// The whole page.
fn page() -> String {
    let mut command = Options::command().disable_help_subcommand(true);
    command.build();
    let man = Man::new(command.clone()).section("1").manual("Deputy").date("").source("deputy");
    let mut page = Vec::new();
    man.render_title(&mut page).unwrap();
    man.render_name_section(&mut page).unwrap();
    man.render_synopsis_section(&mut page).unwrap();
    man.render_description_section(&mut page).unwrap();
    man.render_options_section(&mut page).unwrap();
    section(&mut page, "COMMANDS", &[]);
    let global: Vec<_> = command.get_arguments().map(|argument| argument.get_id().to_string()).collect();
    leaves(&command, "deputyctl", &mut |path, leaf| describe(&mut page, path, leaf, &global));
    let exit_status = EXIT_STATUS.strip_prefix("Exit status:\n").unwrap();
    literal(&mut page, "EXIT STATUS", exit_status);
    section(&mut page, "JSON", &[JSON_FORM]);
    section(
        &mut page,
        "ERRORS",
        &[
            "A refusal or failure is told on standard error as 'deputyctl: CODE: message', followed by a line 'rule: ...' \
           (with --verbose or --json) and a line 'remedy: ...'. The codes are those of Deputy's D-Bus errors, and \
           DaemonUnavailable, JobLost and Interrupted of deputyctl itself. Text from elsewhere is shown with control \
           characters written as \\xNN or \\u{N}.",
        ],
    );
    section(
        &mut page,
        "ENVIRONMENT",
        &[
            "NO_COLOR: if set and not empty, nothing is printed in colours unless --color=always asks for them.",
            "DBUS_SYSTEM_BUS_ADDRESS: the system bus's address.",
        ],
    );
    String::from_utf8(page).unwrap()
}

/// Every command that does something, with the words that lead to it.
fn leaves(command: &Command, path: &str, found: &mut impl FnMut(&str, &Command)) {
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        let path = format!("{path} {}", sub.get_name());
        if sub.has_subcommands() { leaves(sub, &path, found) } else { found(&path, sub) }
    }
}

/// A command: how it is written, what it does, its own options, its examples.
fn describe(page: &mut Vec<u8>, path: &str, command: &Command, global: &[String]) {
    let mut roff = Roff::new();
    roff.control("SS", [path]);
    let mut line = String::new();
    let own = || {
        command
            .get_arguments()
            .filter(|argument| !argument.is_hide_set() && argument.get_id() != "help")
            .filter(|argument| !global.contains(&argument.get_id().to_string()))
    };
    for argument in own() {
        let mut word = argument.to_string();
        if !argument.is_required_set() && !word.starts_with('[') {
            word = format!("[{word}]");
        }
        let _ = write!(line, " {word}");
    }
    roff.text([bold(path), roman(line)]);
    roff.control("PP", []);
    roff.text([roman(format!("{}.", command.get_about().unwrap_or_default()))]);
    for argument in own() {
        roff.control("TP", []);
        roff.text([bold(argument.to_string())]);
        roff.text([roman(argument.get_help().map(ToString::to_string).unwrap_or_default())]);
    }
    let after = command.get_after_long_help().or(command.get_after_help()).map(ToString::to_string);
    roff.control("PP", []);
    roff.control("nf", []);
    for line in after.unwrap_or_default().lines() {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
    roff.to_writer(page).unwrap();
}

fn section(page: &mut Vec<u8>, name: &str, paragraphs: &[&str]) {
    let mut roff = Roff::new();
    roff.control("SH", [name]);
    for paragraph in paragraphs {
        roff.control("PP", []);
        roff.text([roman(*paragraph)]);
    }
    roff.to_writer(page).unwrap();
}

fn literal(page: &mut Vec<u8>, name: &str, text: &str) {
    let mut roff = Roff::new();
    roff.control("SH", [name]);
    roff.control("nf", []);
    for line in text.lines() {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
    roff.to_writer(page).unwrap();
}

#[test]
fn the_manual_page_is_that_of_this_command_line() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../man/deputyctl.1");
    if std::env::var_os("DEPUTY_WRITE_MANUAL").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, page()).unwrap();
    }
    let checked_in = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        checked_in == page(),
        "man/deputyctl.1 is out of date: DEPUTY_WRITE_MANUAL=1 cargo test -p deputyctl manual"
    );
}

#[test]
fn every_command_and_every_switch_is_in_the_manual_page() {
    let page = page();
    let plain = page.replace("\\-", "-");
    leaves(&Options::command(), "deputyctl", &mut |path, leaf| {
        assert!(plain.contains(&format!(".SS \"{path}\"")), "{path}");
        for long in leaf.get_arguments().filter_map(clap::Arg::get_long) {
            assert!(plain.contains(&format!("--{long}")), "{path} --{long}");
        }
    });
}
