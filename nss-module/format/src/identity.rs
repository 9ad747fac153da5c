//! Which `/etc/passwd` or `/etc/group` somebody has looked at.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::layout::u64_at;

/// What `stat` says of a file and changes with it: device, inode, size, modification and change times.
///
/// The writer refuses names that `files` has, and notes which file it looked at. While that is the file, the module
/// need not read it; else it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilesIdentity([u64; 7]);

/// A file that changed more recently than this could change once more without looking different: the kernel's clock
/// for files has a coarse tick.
const SETTLED: Duration = Duration::from_secs(1);

impl FilesIdentity {
    /// Matches no file.
    pub const NONE: Self = Self([0; 7]);

    /// Of what `stat` said.
    pub fn of(metadata: &Metadata) -> Self {
        Self([
            metadata.dev(),
            metadata.ino(),
            metadata.size(),
            metadata.mtime().cast_unsigned(),
            metadata.mtime_nsec().cast_unsigned(),
            metadata.ctime().cast_unsigned(),
            metadata.ctime_nsec().cast_unsigned(),
        ])
    }

    /// The same for a writer: [`Self::NONE`] if the file has changed within the last second, as seen from `now`.
    /// Call `stat` before reading the file.
    pub fn settled(metadata: &Metadata, now: SystemTime) -> Self {
        let age = now.duration_since(UNIX_EPOCH).ok().and_then(|now| {
            let changed = u64::try_from(metadata.ctime()).ok()?;
            now.checked_sub(Duration::from_secs(changed))
        });
        // Whole seconds of the change: one more than asked for is on the safe side.
        if age.is_some_and(|age| age > SETTLED * 2) { Self::of(metadata) } else { Self::NONE }
    }

    /// Whether this is the file that was looked at.
    pub fn is(self, metadata: &Metadata) -> bool {
        self != Self::NONE && self == Self::of(metadata)
    }

    pub(crate) fn encode(self) -> [u8; 56] {
        let mut bytes = [0; 56];
        for (number, place) in self.0.iter().zip(bytes.chunks_exact_mut(8)) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Self {
        Self(std::array::from_fn(|index| u64_at(bytes, index * 8)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_has_just_changed_has_no_identity_yet() {
        let metadata = std::fs::metadata("/proc/self/exe").unwrap();
        let changed = UNIX_EPOCH + Duration::from_secs(u64::try_from(metadata.ctime()).unwrap());
        assert_eq!(FilesIdentity::settled(&metadata, changed), FilesIdentity::NONE);
        assert_eq!(FilesIdentity::settled(&metadata, changed - Duration::from_secs(9)), FilesIdentity::NONE);
        let later = FilesIdentity::settled(&metadata, changed + Duration::from_secs(9));
        assert!(later.is(&metadata));
        assert_eq!(FilesIdentity::decode(&later.encode()), later);
        assert!(!FilesIdentity::NONE.is(&metadata));
    }
}
