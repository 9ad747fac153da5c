//! What root wrote down: reads Deputy's configuration, and refuses what is not root's alone.
//!
//! A rule is only as trustworthy as everything along the path of its file, so [`root_owned`] walks each path from the
//! root directory, one component at a time, and stops at the first that anybody but root could have put there.
//! [`Directory`] reads `/etc/deputy` that way, afresh at each use: a change counts at once.
#![forbid(unsafe_code)]

mod directory;
pub mod root_owned;

pub use directory::{Directory, MAX_FILE};

/// Where the configuration is.
pub const ETC_DEPUTY: &str = "/etc/deputy";
