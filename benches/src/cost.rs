//! CPU time of a launch, over all processes that take part in it. It depends far less than time on what else the machine
//! does.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::contender::Contender;
use crate::processes;

/// How long what a launch leaves to do later may take.
const SETTLE: Duration = Duration::from_millis(600);

/// Turns of each contender.
const TURNS: usize = 3;

/// CPU time of one launch.
#[derive(Debug, Serialize)]
pub struct Cost {
    /// Whose launches.
    pub contender: &'static str,
    /// In which process and its children.
    pub process: &'static str,
    /// Nanoseconds of one launch.
    pub cpu_ns: u64,
}

/// CPU time of one launch, one at a time, of those contenders whose processes are known.
pub fn measure(contenders: &mut [Box<dyn Contender>], launches: usize) -> Result<Vec<Cost>> {
    let mut found: Vec<Cost> = Vec::new();
    if launches == 0 {
        return Ok(found);
    }
    let count = u64::try_from(launches * TURNS)?;
    for _ in 0..TURNS {
        for contender in contenders.iter_mut() {
            let name = contender.name();
            let before = now(contender.as_ref())?;
            if before.is_empty() {
                continue;
            }
            contender.launch(launches, 1).with_context(|| name.to_owned())?;
            std::thread::sleep(SETTLE);
            for ((process, before), (_, after)) in before.into_iter().zip(now(contender.as_ref())?) {
                let spent = after.saturating_sub(before) / count;
                match found.iter_mut().find(|cost| cost.contender == name && cost.process == process) {
                    Some(cost) => cost.cpu_ns += spent,
                    None => found.push(Cost { contender: name, process, cpu_ns: spent }),
                }
            }
        }
    }
    Ok(found)
}

/// The CPU time of a contender's processes so far.
fn now(contender: &dyn Contender) -> Result<Vec<(&'static str, u64)>> {
    let cpu = |(name, pids): (&'static str, Vec<i32>)| {
        let spent = pids.into_iter().map(processes::cpu).sum::<Result<u64>>()?;
        Ok((name, spent))
    };
    contender.processes()?.into_iter().map(cpu).collect()
}
