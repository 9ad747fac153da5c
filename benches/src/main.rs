//! `deputy-bench`: what one launch costs through Deputy, beside what it costs without, in one and the same run.
//!
//! Runs as root inside the sandbox; `make bench` puts it there. Absolute times are the machine's: what counts are the
//! ratios. Each round measures every contender once, in another order each time, so that what slows the machine down
//! slows all of them.
#![forbid(unsafe_code)]

mod contender;
mod deputy;
mod portal;
mod report;
mod statistics;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, Subcommand};

use crate::contender::Contender;
use crate::report::Report;

/// Measures launches of /bin/true.
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
    Portal,
}

/// How many launches at once.
const WIDTHS: [usize; 3] = [1, 4, 16];

/// Rounds that are not counted.
const WARM_UP: usize = 20;

fn main() -> Result<()> {
    let options = Options::parse();
    if let Some(Role::Portal) = options.role {
        return portal::serve();
    }
    ensure!(
        std::path::Path::new("/run/deputy-sandbox").is_dir(),
        "deputy-bench runs inside the sandbox: use `make bench`"
    );
    deputy::link_the_account()?;
    let mut contenders = contender::all()?;
    let latency = latency(&mut contenders, options.rounds)?;
    let throughput = throughput(&mut contenders, options.throughput)?;
    let report = Report { rounds: options.rounds, latency, throughput };
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
