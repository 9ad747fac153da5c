//! What the tests of the whole share: acting as somebody, and playing a `deputyd` that has been taken over.
//!
//! These tests run inside the sandbox, as its root; `make test` puts them there. The people and applications that
//! they use are those of `tests/suite/people.sh` and `tests/suite/applications/`.
#![forbid(unsafe_code)]

pub mod acting;
pub mod client;
pub mod fake;
pub mod files;
pub mod groups;
pub mod line;
pub mod machine;
pub mod memory;
pub mod nss;
pub mod pam;
pub mod people;
pub mod pool;
pub mod portal;
pub mod rebind;
pub mod requests;
pub mod slurm;
pub mod streams;
pub mod talk;
pub mod trace;

pub use fake::{Descriptor, Fake};
pub use people::{Output, as_user, deputyctl};

use deputy_core::ids::JobId;

/// A new job id.
pub fn job_id() -> JobId {
    let mut bytes = [0; JobId::BYTES];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).expect("random bytes");
    JobId::from_random(bytes)
}

/// Fails with the remedy if the test does not run inside the sandbox.
pub fn need_the_sandbox() {
    assert!(
        std::path::Path::new("/run/deputy-sandbox").is_dir(),
        "these tests run inside the sandbox: use `make test`, or deputy-sandbox as cargo's runner"
    );
}

/// Says what is not tested here and why, past the harness, which keeps what a passing test prints. `make test` counts
/// these lines and repeats them at its end.
pub fn skip(why: &str) {
    use std::io::Write as _;
    writeln!(std::io::stdout(), "SKIPPED {why}").expect("standard output");
}
