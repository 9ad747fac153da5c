//! `deputy-bench`: what one launch costs through Deputy, beside what it costs without, in one and the same run; and
//! what a million accounts cost.
//!
//! Runs as root inside the sandbox; `make bench` puts it there. Absolute times are the machine's: what counts are the
//! ratios. Each round measures every contender once, in another order each time, so that what slows the machine down
//! slows all of them.
#![forbid(unsafe_code)]

mod accounts;
mod contender;
mod cost;
mod deputy;
mod files;
mod logins;
mod memory;
mod nss;
mod portal;
mod processes;
mod report;
mod slurm;
mod statistics;
mod store;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, Subcommand};

use crate::contender::{Contender, Contenders};
use crate::portal::Hears;
use crate::report::Report;

/// Measures launches of /bin/true, unless another thing is named.
#[derive(Debug, Parser)]
#[command(name = "deputy-bench", version)]
struct Options {
    /// Rounds; each measures every contender once
    #[arg(long, default_value_t = 300)]
    rounds: usize,

    /// Launches for each measurement of throughput; 0 leaves it out
    #[arg(long, default_value_t = 400)]
    throughput: usize,

    /// Print one JSON object instead of tables
    #[arg(long)]
    json: bool,

    #[command(subcommand)]
    role: Option<Role>,
}

/// What the benchmark starts of itself.
#[derive(Debug, Subcommand)]
enum Role {
    /// The connected client; runs as the application's service user
    #[command(hide = true)]
    Portal {
        /// Watches each job by a second call
        #[arg(long)]
        two_calls: bool,
        /// Submits jobs to Slurm, where they are held
        #[arg(long, conflicts_with = "two_calls")]
        submits: bool,
    },
    /// Asks for jobs that sleep; runs as the application's service user
    #[command(hide = true)]
    Hold {
        /// How many
        count: u32,
    },
    /// What the processes cost in memory: idle, with jobs that wait, with jobs that run
    Memory {
        /// How many jobs wait
        #[arg(long, default_value_t = 10_000)]
        waiting: u32,
        /// How many run
        #[arg(long, default_value_t = 1_000)]
        running: u32,
    },
    /// One million accounts, in a sandbox without daemons: the store, and the daemon on top of it
    Accounts {
        /// How many
        #[arg(long, default_value_t = MILLION)]
        accounts: u64,
    },
    /// Files by descriptors, beside a process of the user's own and one that passes chunks through a socket
    Files(files::Amounts),
    /// One measurement of these; runs as who it is
    #[command(hide = true)]
    File {
        /// Which
        what: files::What,
        /// Where the large file is
        place: files::Place,
        /// How many bytes, files or entries
        count: u64,
    },
    /// The other end of the socket; runs as the user
    #[command(hide = true)]
    FileServer {
        /// What it does
        serves: files::Serves,
        /// Where the file is
        place: files::Place,
    },
    /// Look-ups of names and ids, beside other name services
    Names,
    /// Submissions to Slurm, beside sbatch by the user, and questions where jobs stand
    Slurm {
        /// How many jobs are followed
        #[arg(long, default_value_t = 5000)]
        jobs: u32,
    },
    /// Logins through PAM, beside those with a password of passwd
    Logins,
    /// Fills the store in a folder, and prints one JSON object
    Store {
        /// The folder for the ledger and its view
        folder: std::path::PathBuf,
        /// How many accounts
        #[arg(long, default_value_t = MILLION)]
        accounts: u64,
    },
    /// Asks a store that was filled so, and prints one JSON object
    Ask {
        /// The folder with the ledger and its view
        folder: std::path::PathBuf,
    },
}

const MILLION: u64 = 1_000_000;

/// How many launches at once.
const WIDTHS: [usize; 4] = [1, 4, 16, 64];

/// Rounds that are not counted.
const WARM_UP: usize = 20;

fn main() -> Result<()> {
    let options = Options::parse();
    match options.role {
        Some(Role::Portal { two_calls, submits }) => {
            return portal::serve(match (two_calls, submits) {
                (true, _) => Hears::WithWatch,
                (false, true) => Hears::NotAtAll,
                (false, false) => Hears::WithRun,
            });
        }
        Some(Role::Hold { count }) => return portal::hold(count),
        Some(Role::File { what, place, count }) => return files::one(what, place, count),
        Some(Role::FileServer { serves, place }) => return files::serve(serves, place),
        Some(Role::Store { folder, accounts }) => {
            println!("{}", serde_json::to_string_pretty(&store::fill(&folder, accounts)?)?);
            return Ok(());
        }
        Some(Role::Ask { folder }) => {
            println!("{}", serde_json::to_string_pretty(&store::ask(&folder)?)?);
            return Ok(());
        }
        Some(
            Role::Accounts { .. }
            | Role::Names
            | Role::Logins
            | Role::Slurm { .. }
            | Role::Memory { .. }
            | Role::Files(_),
        )
        | None => {}
    }
    ensure!(
        std::path::Path::new("/run/deputy-sandbox").is_dir() || contender::systemd_booted(),
        "deputy-bench runs inside the sandbox: use `make bench`; or on a machine of its own that systemd booted, where \
         Deputy, benches/bench.toml, the person alice and the service user portal are installed"
    );
    if let Some(Role::Accounts { accounts }) = options.role {
        let report = accounts::measure(accounts)?;
        if options.json {
            println!("{}", serde_json::to_string_pretty(&report)?);
        } else {
            print!("{report}");
        }
        return Ok(());
    }
    if let Some(Role::Names) = options.role {
        let rows = nss::rows()?;
        let json = options.json.then(|| serde_json::to_string_pretty(&rows)).transpose()?;
        println!("{}", json.unwrap_or_else(|| nss::table(&rows)));
        return Ok(());
    }
    if let Some(Role::Logins) = options.role {
        let report = logins::measure(options.rounds)?;
        let json = options.json.then(|| serde_json::to_string_pretty(&report)).transpose()?;
        println!("{}", json.unwrap_or_else(|| logins::table(&report)));
        return Ok(());
    }
    deputy::link_the_account()?;
    if let Some(Role::Slurm { jobs }) = options.role {
        let report = slurm::measure(options.rounds, jobs)?;
        let json = options.json.then(|| serde_json::to_string_pretty(&report)).transpose()?;
        println!("{}", json.unwrap_or_else(|| slurm::table(&report)));
        return Ok(());
    }
    if let Some(Role::Files(amounts)) = &options.role {
        let report = files::measure(amounts)?;
        if options.json {
            println!("{}", serde_json::to_string_pretty(&report)?);
        } else {
            print!("{report}");
        }
        return Ok(());
    }
    if let Some(Role::Memory { waiting, running }) = options.role {
        let report = memory::measure(running, waiting)?;
        if options.json {
            println!("{}", serde_json::to_string_pretty(&report)?);
        } else {
            print!("{report}");
        }
        return Ok(());
    }
    let Contenders { ready: mut contenders, missing } = contender::all()?;
    let latency = latency(&mut contenders, options.rounds)?;
    let throughput = throughput(&mut contenders, options.throughput)?;
    let cost = cost::measure(&mut contenders, options.throughput)?;
    let report = Report { rounds: options.rounds, latency, throughput, cost, missing };
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    Ok(())
}

/// Nanoseconds of each launch, by contender.
fn latency(contenders: &mut [Box<dyn Contender>], rounds: usize) -> Result<Vec<report::Latency>> {
    let mut samples: BTreeMap<&'static str, Vec<u64>> = BTreeMap::new();
    for round in 0..WARM_UP + rounds {
        for turn in 0..contenders.len() {
            let count = contenders.len();
            let contender = &mut contenders[(round + turn) % count];
            let name = contender.name();
            let nanoseconds = contender.launch(1, 1).with_context(|| name.to_owned())?;
            if round >= WARM_UP {
                samples.entry(name).or_default().push(nanoseconds);
            }
        }
    }
    let in_order = contenders.iter().map(|contender| {
        let name = contender.name();
        report::Latency::new(name, contender.what(), samples.remove(name).unwrap_or_default())
    });
    Ok(in_order.collect())
}

/// Launches in a second, by contender and width. Three turns of each, in turn, of which the middle one counts.
fn throughput(contenders: &mut [Box<dyn Contender>], launches: usize) -> Result<Vec<report::Throughput>> {
    const TURNS: usize = 3;
    let mut found = Vec::new();
    if launches == 0 {
        return Ok(found);
    }
    for width in WIDTHS {
        let mut samples: BTreeMap<&'static str, Vec<u64>> = BTreeMap::new();
        for _ in 0..TURNS {
            for contender in contenders.iter_mut().filter(|contender| contender.runs_side_by_side()) {
                let name = contender.name();
                let nanoseconds = contender.launch(launches, width).with_context(|| name.to_owned())?;
                samples.entry(name).or_default().push(nanoseconds);
            }
        }
        for (contender, mut samples) in samples {
            let middle = statistics::quantile(&mut samples, 50);
            found.push(report::Throughput::new(contender, width, launches, middle));
        }
    }
    Ok(found)
}
