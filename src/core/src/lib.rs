//! The words, rules, messages, policy and decisions of Deputy.
//!
//! Nothing here reads or writes a file, a socket or a clock: callers bring the bytes and the time, so that every
//! rule can be tested as a value. `docs/ARCHITECTURE.md` explains the words.
#![forbid(unsafe_code)]

pub mod account;
pub mod acl;
pub mod application;
pub mod byte_text;
pub mod consent;
pub mod denial;
pub mod file_line;
pub mod finding;
pub mod ids;
pub mod job;
pub mod journal;
pub mod kind;
pub mod limits;
#[cfg(test)]
mod manual;
pub mod message;
pub mod metrics;
pub mod names;
pub mod pattern;
pub mod permission;
pub mod policy;
pub mod pool;
pub mod project;
pub mod project_group;
pub mod queue;
pub mod quota;
pub mod quota_settings;
pub mod rebind;
pub mod role;
pub mod root_record;
pub mod schedule;
pub mod settings;
pub mod size;
pub mod slurm;
pub mod space;
pub mod storage;
pub mod stream;
mod toml_error;

pub use denial::{Code, Denial};
pub use finding::{Finding, FindingCode, Severity};
pub use ids::{JobId, LinkCode, Nonce, OsGid, OsUid, RebindId, SessionId};
pub use names::{
    AccountName, ApplicationName, GroupName, JobName, KindName, NameError, OsGroupName, OsUserName,
    ProjectName, RoleName,
};
pub use permission::{Permission, Permissions};
