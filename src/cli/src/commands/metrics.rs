//! `metrics`: figures as `OpenMetrics`, which `node_exporter` reads from a file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use deputy_core::metrics::{FAMILIES, Sort};

use super::{Context, block_on};
use crate::bus::Bus;
use crate::failure::Failure;
use crate::options::MetricsOptions;
use crate::output;

/// A figure as `Manager.Metrics` tells it: name, labels, value.
type Figure = (String, BTreeMap<String, String>, u64);

/// `metrics`.
pub fn metrics(context: &Context, options: &MetricsOptions) -> Result<ExitCode, Failure> {
    let figures: Vec<Figure> =
        block_on(async { Bus::connect().await?.call("Manager", "Metrics", &()).await })?;
    if context.json {
        let shown: Vec<_> = figures
            .iter()
            .map(
                |(name, labels, value)| serde_json::json!({ "name": name, "labels": labels, "value": value }),
            )
            .collect();
        output::print(&format!("{}\n", serde_json::Value::from(shown)))?;
        return Ok(ExitCode::SUCCESS);
    }
    let text = text(&figures);
    match &options.output {
        None => output::print(&text)?,
        Some(path) => replace(path, &text)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The file is never seen half written, and is readable to the exporter.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::other("--output names no file"))?;
    let mut beside = name.to_owned();
    // node_exporter reads what ends in .prom.
    beside.push(".new");
    let beside = path.with_file_name(beside);
    let written = File::create(&beside)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        })
        .and_then(|()| fs::rename(&beside, path));
    written.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// As the `OpenMetrics` text format has it. A newer deputyd may tell of figures that are not known here: they are left out,
/// because nothing is known about them.
fn text(figures: &[Figure]) -> String {
    let mut text = String::new();
    for family in FAMILIES {
        let _ = writeln!(
            text,
            "# TYPE {} {}\n# HELP {} {}",
            family.name,
            family.sort.as_str(),
            family.name,
            family.help
        );
        let suffix = if family.sort == Sort::Counter { "_total" } else { "" };
        for (_, labels, value) in figures.iter().filter(|(name, ..)| name == family.name) {
            let _ = write!(text, "{}{suffix}", family.name);
            let shown: Vec<_> =
                labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
            if !shown.is_empty() {
                let _ = write!(text, "{{{}}}", shown.join(","));
            }
            let _ = writeln!(text, " {value}");
        }
    }
    text.push_str("# EOF\n");
    text
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(name: &str, labels: &[(&str, &str)], value: u64) -> Figure {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        (name.to_owned(), labels.collect(), value)
    }

    #[test]
    fn figures_become_lines_of_their_families() {
        let shown = text(&[
            figure("deputy_job_ends", &[("end", "lost")], 2),
            figure("deputy_jobs", &[("application", "a\"b\\c\nd"), ("state", "running")], 7),
            figure("deputy_ledger_bytes", &[], 4096),
            figure("deputy_of_tomorrow", &[], 1),
        ]);
        assert!(shown.contains("# TYPE deputy_job_ends counter\n"));
        assert!(shown.contains("\ndeputy_job_ends_total{end=\"lost\"} 2\n"));
        assert!(shown.contains("\ndeputy_jobs{application=\"a\\\"b\\\\c\\nd\",state=\"running\"} 7\n"));
        assert!(shown.contains("\ndeputy_ledger_bytes 4096\n"));
        assert!(!shown.contains("tomorrow"));
        assert!(shown.ends_with("# EOF\n"));
        // Each line is a comment of the format, or a figure.
        for line in shown.lines() {
            assert!(
                line.starts_with("# ")
                    || line.rsplit_once(' ').is_some_and(|(_, value)| value.parse::<u64>().is_ok()),
                "{line}"
            );
        }
    }

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deputy.prom");
        fs::write(&path, "old, and longer than the new text").unwrap();
        replace(&path, "new\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let error = replace(&folder.path().join("absent/deputy.prom"), "x").unwrap_err().to_string();
        assert!(error.contains("absent/deputy.prom"), "{error}");
    }
}
