//! What `pam_deputy.so` does, as ordinary code: the shim around it turns PAM's pointers into [`Pam`].
//!
//! Nobody is let in on the daemon's word alone. A login as an OS account needs, read by this process itself: the
//! application's file that lists the service, the launcher's rules about targets, and a consent of root's. What cannot
//! be read is a no.
#![forbid(unsafe_code)]

mod account;
mod authenticate;
mod client;
mod converse;
mod launcher;
mod machine;
mod options;
mod pam;
mod password;
mod session;
mod start;
#[cfg(test)]
mod tests;

pub use account::account;
pub use authenticate::authenticate;
pub use converse::Ended;
pub use machine::Machine;
pub use options::{OptionError, Options};
pub use pam::{Known, Level, Pam, Refusal, SecretItem, Turn, World};
pub use password::{Phase, change_password};
pub use session::{close_session, open_session};
