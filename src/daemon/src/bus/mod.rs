//! The D-Bus side: one table of methods, a router in front of it, and what both need to read and write messages.
//!
//! The stock object server is not used. It would show every job and session to everybody who introspects, and it
//! would spread over many attributes what has to be decided in one place.

pub mod caller;
pub mod introspection;
#[cfg(test)]
mod manual;
pub mod options;
pub mod record;
pub mod reply;
pub mod router;
pub mod table;

/// The name on the bus.
pub const NAME: &str = "org.deputy.Deputy1";

/// The object with all interfaces but a job's and a session's.
pub const ROOT: &str = "/org/deputy/Deputy1";

/// What the interfaces' names begin with.
pub const INTERFACES: &str = "org.deputy.Deputy1.";

/// What the names of errors begin with.
pub const ERRORS: &str = "org.deputy.Deputy1.Error.";
