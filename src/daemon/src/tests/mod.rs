//! The daemon with doubles for the launcher, polkit and the configuration; and with a real bus.

pub(crate) mod harness;
mod jobs;
mod passwords;
mod people;
mod private_bus;
mod refusals;
mod run_options;
mod services;
