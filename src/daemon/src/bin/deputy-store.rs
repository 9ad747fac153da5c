//! The tool behind `deputyctl store`: verify, rebuild, export and import the daemon's state.
//!
//! It runs as the user that owns the folders. It ends with 0 only if what was asked for held in full.
#![forbid(unsafe_code)]

use std::io::{self, BufRead as _, BufReader, BufWriter, Cursor, Read as _};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use deputyd::passwords::{file::FileError, transfer};
use deputyd::store::{self, Directories, Options, StoreError, VerifyReport};
use rustix::fs::{FileType, Mode};
use thiserror::Error;

/// The longest first line of an import.
const MAX_FIRST_LINE: u64 = 4096;

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
    /// The folder of the hashes of accounts' own passwords.
    #[arg(long, global = true, value_name = "DIR", default_value = "/var/lib/deputy/secrets")]
    secrets: PathBuf,
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
    Export {
        /// The hashes of accounts' own passwords too; standard output must be a file that only its owner can read.
        #[arg(long)]
        with_passwords: bool,
    },
    /// Read an export from standard input into an empty store; the daemon must not run. Consent is not touched.
    Import,
}

/// Why it could not be done.
#[derive(Debug, Error)]
enum Failure {
    /// The store's reason.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The passwords' reason.
    #[error(transparent)]
    Passwords(#[from] FileError),
    /// Hashes would go where others could read them.
    #[error("passwords' hashes go only into a file that nobody but its owner can read")]
    NotPrivate,
}

fn main() -> ExitCode {
    // What sled makes is nobody else's to read.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            if arguments.json {
                let damage = match &error {
                    Failure::Store(StoreError::Damaged(damage) | StoreError::Newer(damage)) => Some(damage),
                    _ => None,
                };
                println!("{}", serde_json::json!({ "error": error.to_string(), "damage": damage }));
            }
            eprintln!("deputy-store: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool, Failure> {
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
        Command::Export { with_passwords } => {
            if with_passwords && !is_private(io::stdout()) {
                return Err(Failure::NotPrivate);
            }
            let out = &mut BufWriter::new(io::stdout().lock());
            store::export_after(&directories, out, |out| {
                if with_passwords {
                    transfer::export(&arguments.secrets, out)?;
                }
                Ok::<_, Failure>(())
            })?;
            Ok(true)
        }
        Command::Import => {
            let records = import(&directories, arguments)?;
            done(arguments.json, records, "imported");
            Ok(true)
        }
    }
}

/// Takes an export in, with the passwords' hashes where it has them: all of it, or nothing.
fn import(directories: &Directories, arguments: &Arguments) -> Result<u64, Failure> {
    let mut input = BufReader::new(io::stdin().lock());
    let mut first = Vec::new();
    let read = input.by_ref().take(MAX_FIRST_LINE).read_until(b'\n', &mut first);
    read.map_err(|error| StoreError::Import { line: 1, what: error.to_string() })?;
    if !transfer::begins_with_passwords(&first) {
        let input = &mut Cursor::new(first).chain(input);
        return Ok(store::import(directories, Options::default(), input)?);
    }
    // The hashes come first: without the ledger's records they are of no use to anybody.
    let passwords = transfer::import(&arguments.secrets, &first, &mut input)?;
    match store::import(directories, Options::default(), &mut input) {
        Ok(records) => Ok(records),
        Err(error) => {
            passwords.undo()?;
            Err(error.into())
        }
    }
}

/// Whether this is a file that nobody but its owner can read.
fn is_private(file: impl AsFd) -> bool {
    rustix::fs::fstat(file).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && !Mode::from_raw_mode(stat.st_mode).intersects(Mode::RWXG | Mode::RWXO)
    })
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
