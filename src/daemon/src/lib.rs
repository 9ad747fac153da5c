//! The parts of `deputyd`, the unprivileged daemon that applications talk to.
//!
//! The program is a thin `main` over this library, so that tests and the tools of the administrator use the same code.
#![forbid(unsafe_code)]

pub mod accounts;
mod acting;
pub mod alerts;
mod applications;
pub mod audit;
pub mod authentication;
pub mod authority;
pub mod bus;
pub mod clock_watch;
pub mod daemon;
pub mod directory;
pub mod explain;
pub mod files;
pub mod groups;
pub mod jobs;
pub mod journal;
pub mod launcher;
pub mod life;
pub mod limits;
pub mod links;
pub mod manager;
pub mod metrics;
pub mod packets;
pub mod passwords;
pub mod polkit;
pub mod projects;
pub mod query;
mod random;
pub mod sessions;
pub mod store;

#[cfg(test)]
mod tests;
