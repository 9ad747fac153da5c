//! The tool behind `deputyctl store`: verify, rebuild, export and import the daemon's state.
//!
//! It runs as the user that owns the folders. It ends with 0 only if what was asked for held in full.
#![forbid(unsafe_code)]

use std::io::{self, BufReader, BufWriter};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use deputyd::store::{self, Directories, Options, StoreError, VerifyReport};

/// Verify, rebuild, export or import the state of deputyd.
#[derive(Parser)]
#[command(name = "deputy-store", version)]
struct Arguments {
    /// The ledger's folder.
    #[arg(long, global = true, value_name = "DIR", default_value = "/var/lib/deputy/ledger")]
    ledger: PathBuf,
    /// The view's folder.
    #[arg(long, global = true, value_name = "DIR", default_value = "/var/lib/deputy/view")]
    view: PathBuf,
    /// Report in JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check every record of the ledger; the daemon may run.
    Verify,
    /// Make the view anew from the ledger; the daemon must not run.
    Rebuild,
    /// Write all records to standard output as JSON lines; the daemon may run.
    Export,
    /// Read an export from standard input into an empty store; the daemon must not run. Consent is not touched.
    Import,
}

fn main() -> ExitCode {
    // What sled makes is nobody else's to read.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            if arguments.json {
                let damage = match &error {
                    StoreError::Damaged(damage) | StoreError::Newer(damage) => Some(damage),
                    _ => None,
                };
                println!("{}", serde_json::json!({ "error": error.to_string(), "damage": damage }));
            }
            eprintln!("deputy-store: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool, StoreError> {
    let directories = Directories { ledger: arguments.ledger.clone(), view: arguments.view.clone() };
    match arguments.command {
        Command::Verify => {
            let report = store::verify(&directories.ledger)?;
            if arguments.json {
                println!("{}", serde_json::to_string(&report).expect("the report is plain data"));
            } else {
                tell(&report);
            }
            Ok(report.whole)
        }
        Command::Rebuild => {
            let records = store::rebuild(&directories, Options::default())?;
            done(arguments.json, records, "the view was made anew from");
            Ok(true)
        }
        Command::Export => {
            store::export(&directories, &mut BufWriter::new(io::stdout().lock()))?;
            Ok(true)
        }
        Command::Import => {
            let input = &mut BufReader::new(io::stdin().lock());
            let records = store::import(&directories, Options::default(), input)?;
            done(arguments.json, records, "imported");
            Ok(true)
        }
    }
}

fn done(json: bool, records: u64, what: &str) {
    if json {
        println!("{}", serde_json::json!({ "records": records }));
    } else {
        println!("{what} {records} records");
    }
}

fn tell(report: &VerifyReport) {
    if let Some(damage) = &report.damage {
        println!("DAMAGED: {damage}");
        println!("records 1 to {} verify; nothing after them can be trusted", report.last_number);
        return;
    }
    println!("{} records in {} segments verify", report.last_number, report.segments);
    println!("the chain's head is {}", report.hash);
    match &report.tail {
        Some(tail) if report.in_use => {
            println!(
                "the daemon is writing: {} bytes from byte {} of {} on",
                tail.bytes, tail.at.offset, tail.at.segment
            );
        }
        Some(tail) => println!(
            "NOT WHOLE: {} more bytes from byte {} of {} on are no record ({}); unless they were acknowledged, a \
             crash left them, and the next start puts them aside",
            tail.bytes, tail.at.offset, tail.at.segment, tail.at.what
        ),
        None => {}
    }
}
