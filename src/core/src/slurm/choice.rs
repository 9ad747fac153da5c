//! Where a job runs that may run at either place: `executor = "auto"`.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Executor;

/// What policy or a request says about the executor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExecutorChoice {
    /// On this machine.
    #[default]
    Local,
    /// At Slurm.
    Slurm,
    /// At one of the two, by [`choose`].
    Auto,
}

impl ExecutorChoice {
    /// The word in files, on the bus and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            ExecutorChoice::Local => Executor::Local.as_str(),
            ExecutorChoice::Slurm => Executor::Slurm.as_str(),
            ExecutorChoice::Auto => "auto",
        }
    }
}

impl From<Executor> for ExecutorChoice {
    fn from(executor: Executor) -> Self {
        match executor {
            Executor::Local => ExecutorChoice::Local,
            Executor::Slurm => ExecutorChoice::Slurm,
        }
    }
}

impl FromStr for ExecutorChoice {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "local" => Ok(ExecutorChoice::Local),
            "slurm" => Ok(ExecutorChoice::Slurm),
            "auto" => Ok(ExecutorChoice::Auto),
            _ => Err("an executor is local, slurm or auto"),
        }
    }
}

/// Why `auto` came to the executor that a job has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Chosen {
    /// It asks for what only Slurm has.
    OnlySlurm,
    /// It asks for what only this machine has, or for what the kind's table for Slurm does not allow.
    OnlyHere,
    /// It could start here in that moment.
    Room,
    /// It could not.
    NoRoom,
}

impl Chosen {
    /// The word on the bus.
    pub fn as_str(self) -> &'static str {
        match self {
            Chosen::OnlySlurm => "only-slurm",
            Chosen::OnlyHere => "only-here",
            Chosen::Room => "room",
            Chosen::NoRoom => "no-room",
        }
    }

    /// The same of a job that cannot start here now.
    #[must_use]
    pub fn without_room(self) -> Self {
        match self {
            Chosen::Room => Chosen::NoRoom,
            other => other,
        }
    }

    /// Where such a job runs.
    pub fn executor(self) -> Executor {
        match self {
            Chosen::OnlySlurm | Chosen::NoRoom => Executor::Slurm,
            Chosen::OnlyHere | Chosen::Room => Executor::Local,
        }
    }
}

/// The rule of `auto`, while there is room here. What only one of the two can take goes there, whatever is free; what both can
/// take runs here, unless it finds no room ([`Chosen::without_room`]). `names_slurm`: it asks for what only Slurm has.
/// `slurm_may`: everything that can be said here about its submission says yes.
pub fn choose(names_slurm: bool, slurm_may: bool) -> Chosen {
    match (names_slurm, slurm_may) {
        (true, _) => Chosen::OnlySlurm,
        (false, false) => Chosen::OnlyHere,
        (false, true) => Chosen::Room,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_free_decides_only_where_both_can_take_the_job() {
        let of = |names_slurm, slurm_may| {
            let chosen = choose(names_slurm, slurm_may);
            (chosen, chosen.without_room(), chosen.executor(), chosen.without_room().executor())
        };
        let (local, slurm) = (Executor::Local, Executor::Slurm);
        for may in [false, true] {
            assert_eq!(of(true, may), (Chosen::OnlySlurm, Chosen::OnlySlurm, slurm, slurm));
        }
        assert_eq!(of(false, false), (Chosen::OnlyHere, Chosen::OnlyHere, local, local));
        assert_eq!(of(false, true), (Chosen::Room, Chosen::NoRoom, local, slurm));
    }

    #[test]
    fn words_are_the_same_both_ways() {
        for choice in [ExecutorChoice::Local, ExecutorChoice::Slurm, ExecutorChoice::Auto] {
            assert_eq!(choice.as_str().parse(), Ok(choice));
        }
        assert!("Auto".parse::<ExecutorChoice>().is_err());
    }
}
