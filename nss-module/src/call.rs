//! What surrounds each call: nothing that happens inside reaches the program that called, but the answer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use deputy_nss_format::Fault;
use libc::c_int;

/// `enum nss_status` of glibc's `<nss.h>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Status {
    /// Again: later, or, with ERANGE, with a larger buffer.
    TryAgain = -2,
    /// This service cannot answer.
    Unavailable = -1,
    /// It answers that there is no such entry.
    NotFound = 0,
    /// It answers.
    Success = 1,
}

/// What an entry point tells.
pub type Answer = Result<Found, Failure>;

/// Whether there is such an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// There is.
    Yes,
    /// There is not.
    No,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The map or what belongs to it.
    Fault(Fault),
    /// glibc's heap is exhausted.
    NoMemory,
    /// The caller gave what no caller may give.
    Arguments,
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Failure {
    fn status_and_errno(self) -> (Status, c_int) {
        match self {
            Self::Fault(Fault::NoSpace) => (Status::TryAgain, libc::ERANGE),
            Self::NoMemory => (Status::TryAgain, libc::ENOMEM),
            // glibc takes ERANGE for a question for more room, whatever the status is.
            Self::Fault(Fault::Io(libc::ERANGE)) => (Status::Unavailable, libc::EIO),
            Self::Fault(Fault::Io(errno)) => (Status::Unavailable, errno),
            Self::Fault(Fault::Damaged) => (Status::Unavailable, libc::EBADMSG),
            Self::Fault(Fault::Version) => (Status::Unavailable, libc::ENOTSUP),
            Self::Fault(Fault::Foreign) => (Status::Unavailable, libc::EPERM),
            Self::Arguments => (Status::Unavailable, libc::EINVAL),
        }
    }
}

/// Runs the body of an entry point: no panic and no cancellation gets through it. The answer's errno goes to `errno`.
///
/// # Safety
///
/// `errno` is null or points to a number that can be written.
pub unsafe fn guarded(errno: *mut c_int, body: impl FnOnce() -> Answer) -> Status {
    let cancellation = NoCancellation::new();
    let answer = catch_unwind(AssertUnwindSafe(|| {
        silence_panics();
        body()
    }));
    drop(cancellation);
    let (status, number) = match answer {
        Ok(Ok(Found::Yes)) => return Status::Success,
        Ok(Ok(Found::No)) => (Status::NotFound, libc::ENOENT),
        Ok(Err(failure)) => failure.status_and_errno(),
        Err(payload) => {
            // Its destructor could panic again.
            std::mem::forget(payload);
            (Status::Unavailable, libc::EIO)
        }
    };
    if !errno.is_null() {
        // SAFETY: it is not null, and the caller of this function answers for the rest.
        unsafe { *errno = number };
    }
    status
}

/// The default hook writes to descriptor 2, which in a foreign process can be anything, and takes a lock.
fn silence_panics() {
    static SILENT: AtomicBool = AtomicBool::new(false);
    // This copy of the standard library is the module's own: nobody else's panics are silenced.
    if !SILENT.load(Ordering::Relaxed) && !SILENT.swap(true, Ordering::Relaxed) {
        std::panic::set_hook(Box::new(|_| {}));
    }
}

unsafe extern "C" {
    /// `pthread_setcancelstate(3)`.
    fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
}

/// `PTHREAD_CANCEL_DISABLE` of `<pthread.h>`.
const CANCEL_DISABLE: c_int = 1;

/// While it lives this thread cannot be cancelled. Opening and reading are cancellation points, glibc cancels by
/// unwinding, and a foreign unwinding that meets `catch_unwind` ends the process.
struct NoCancellation {
    before: c_int,
}

impl NoCancellation {
    fn new() -> Self {
        let mut before = CANCEL_DISABLE;
        // SAFETY: the place for the old state is a local variable.
        unsafe { pthread_setcancelstate(CANCEL_DISABLE, &raw mut before) };
        Self { before }
    }
}

impl Drop for NoCancellation {
    fn drop(&mut self) {
        // SAFETY: the state is one that the same call has returned; null asks for no old state.
        unsafe { pthread_setcancelstate(self.before, std::ptr::null_mut()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(body: impl FnOnce() -> Answer) -> (Status, c_int) {
        let mut errno = -1;
        // SAFETY: it is a local variable.
        let status = unsafe { guarded(&raw mut errno, body) };
        (status, errno)
    }

    #[test]
    fn a_panic_becomes_a_service_that_cannot_answer() {
        assert_eq!(run(|| panic!("a fault of ours")), (Status::Unavailable, libc::EIO));
        let empty: &[u8] = &[];
        let beyond = std::hint::black_box(7);
        assert_eq!(
            run(|| if empty[beyond] == 0 { Ok(Found::Yes) } else { Ok(Found::No) }).0,
            Status::Unavailable
        );
        // And the next call works.
        assert_eq!(run(|| Ok(Found::Yes)), (Status::Success, -1));
    }

    #[test]
    fn only_a_small_buffer_is_answered_with_erange() {
        assert_eq!(run(|| Err(Fault::NoSpace.into())), (Status::TryAgain, libc::ERANGE));
        assert_eq!(run(|| Ok(Found::No)), (Status::NotFound, libc::ENOENT));
        for fault in
            [Fault::Io(libc::ERANGE), Fault::Io(libc::EMFILE), Fault::Damaged, Fault::Version, Fault::Foreign]
        {
            let (status, errno) = run(|| Err(fault.into()));
            assert_eq!(status, Status::Unavailable);
            assert!(errno > 0 && errno != libc::ERANGE, "{fault:?}");
        }
    }
}
