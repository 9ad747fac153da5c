//! The system calls of Deputy's root programs. All unsafe code of the project's own is here (and in the shims of the
//! two modules that foreign processes load), each block with the promise it keeps.
//!
//! Nothing here decides. What may happen is decided in `deputy-core`, from what root wrote down; this crate only
//! knows how to do it and how to notice that it did not happen.

pub mod accounts;
pub mod cgroup;
pub mod confine;
pub mod descendants;
pub mod device_filter;
mod drop;
pub mod launch;
pub mod limits;
pub mod modules;
pub mod process;
pub mod quota;
pub mod root_path;
pub mod slots;
pub mod streams;

pub use drop::{Credentials, DropError, become_user};
