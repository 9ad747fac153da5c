//! Random bytes for ids that nobody may guess.

use deputy_core::Denial;
use rustix::rand::{GetRandomFlags, getrandom};

/// So many random bytes of the kernel's.
pub fn bytes<const N: usize>() -> Result<[u8; N], Denial> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty())
            .map_err(|error| Denial::internal(format!("no random bytes: {error}")))?;
    }
    Ok(bytes)
}
