//! The parts of `deputyd`, the unprivileged daemon that applications talk to.
//!
//! The program is a thin `main` over this library, so that tests and the tools of the administrator use the same code.
#![forbid(unsafe_code)]

pub mod store;
