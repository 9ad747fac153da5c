//! What surrounds each call: nothing that happens inside reaches the program that called, but the answer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use deputy_pam_core::{Level, Options, Pam as _, Refusal};
use libc::{c_char, c_int};

use crate::ffi::{self, Handle};
use crate::handle::Call;

/// The most words that a line may have.
const MAX_WORDS: usize = 64;

/// Runs the body of an entry point with its options.
///
/// # Safety
///
/// `handle` is what PAM gave to an entry point, and `words` points to so many C strings.
pub unsafe fn guarded(
    handle: *mut Handle,
    flags: c_int,
    count: c_int,
    words: *const *const c_char,
    body: impl FnOnce(&mut Call, &Options) -> Result<(), Refusal>,
) -> c_int {
    if handle.is_null() {
        return ffi::SYSTEM_ERR;
    }
    let ended = catch_unwind(AssertUnwindSafe(|| {
        silence_panics();
        // SAFETY: the caller's promise; it does not outlive this call.
        let mut call = unsafe { Call::new(handle, flags) };
        // SAFETY: the caller's promise.
        let Some(words) = (unsafe { listed(count, words) }) else { return Err(Refusal::Service) };
        match Options::parse(&words) {
            Ok(options) => body(&mut call, &options),
            Err(error) => {
                call.log(Level::Error, &error.0);
                Err(Refusal::Service)
            }
        }
    }));
    match ended {
        Ok(Ok(())) => ffi::SUCCESS,
        Ok(Err(refusal)) => number(refusal),
        Err(payload) => {
            // Its destructor could panic again.
            std::mem::forget(payload);
            ffi::SYSTEM_ERR
        }
    }
}

/// PAM's number for a refusal.
fn number(refusal: Refusal) -> c_int {
    match refusal {
        Refusal::Service => ffi::SERVICE_ERR,
        Refusal::NotAuthenticated | Refusal::NoFirstPass => ffi::AUTH_ERR,
        Refusal::Unavailable => ffi::AUTHINFO_UNAVAIL,
        Refusal::NotPermitted => ffi::PERM_DENIED,
        Refusal::NewPasswordNeeded => ffi::NEW_AUTHTOK_REQD,
        Refusal::Conversation => ffi::CONV_ERR,
        Refusal::NewPasswordRefused => ffi::AUTHTOK_ERR,
        Refusal::OldPasswordWrong => ffi::AUTHTOK_RECOVERY_ERR,
        Refusal::Session => ffi::SESSION_ERR,
        Refusal::System => ffi::SYSTEM_ERR,
    }
}

/// # Safety
///
/// `words` points to so many C strings, which stay during the call.
unsafe fn listed<'a>(count: c_int, words: *const *const c_char) -> Option<Vec<&'a [u8]>> {
    let count = usize::try_from(count).ok().filter(|&count| count <= MAX_WORDS)?;
    if count == 0 {
        return Some(Vec::new());
    }
    if words.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    let words = unsafe { std::slice::from_raw_parts(words, count) };
    let bytes = words.iter().map(|&word| {
        // SAFETY: the caller's promise, where it is not null.
        (!word.is_null()).then(|| unsafe { std::ffi::CStr::from_ptr(word) }.to_bytes())
    });
    bytes.collect()
}

/// The default hook writes to descriptor 2, which in a foreign process can be anything, and takes a lock.
fn silence_panics() {
    static SILENT: AtomicBool = AtomicBool::new(false);
    // This copy of the standard library is the module's own: nobody else's panics are silenced.
    if !SILENT.load(Ordering::Relaxed) && !SILENT.swap(true, Ordering::Relaxed) {
        std::panic::set_hook(Box::new(|_| {}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A handle that nobody looks into.
    fn handle() -> *mut Handle {
        std::ptr::dangling_mut()
    }

    fn run(words: &[&std::ffi::CStr], body: impl FnOnce() -> Result<(), Refusal>) -> c_int {
        let words: Vec<*const c_char> = words.iter().map(|word| word.as_ptr()).collect();
        let count = c_int::try_from(words.len()).unwrap();
        // SAFETY: the words are C strings, and nothing looks into the handle.
        unsafe { guarded(handle(), 0, count, words.as_ptr(), |_, _| body()) }
    }

    #[test]
    fn a_panic_becomes_an_error_and_each_refusal_a_number_that_is_none_of_success() {
        let good = [c"application=demo"];
        assert_eq!(run(&good, || panic!("a fault of ours")), ffi::SYSTEM_ERR);
        // And the next call works.
        assert_eq!(run(&good, || Ok(())), ffi::SUCCESS);
        for refusal in [
            Refusal::Service,
            Refusal::NotAuthenticated,
            Refusal::Unavailable,
            Refusal::NotPermitted,
            Refusal::NewPasswordNeeded,
            Refusal::Conversation,
            Refusal::NoFirstPass,
            Refusal::NewPasswordRefused,
            Refusal::OldPasswordWrong,
            Refusal::Session,
            Refusal::System,
        ] {
            // 25 is PAM_IGNORE, with which a stack goes on as if the module were not there.
            assert!(![ffi::SUCCESS, 25].contains(&run(&good, || Err(refusal))), "{refusal:?}");
        }
    }

    #[test]
    fn without_a_handle_or_words_nothing_is_done() {
        // SAFETY: null is looked for.
        let result = unsafe { guarded(std::ptr::null_mut(), 0, 0, std::ptr::null(), |_, _| Ok(())) };
        assert_eq!(result, ffi::SYSTEM_ERR);
        for count in [-1, 1, 1000] {
            // SAFETY: null is looked for.
            let result = unsafe { guarded(handle(), 0, count, std::ptr::null(), |_, _| Ok(())) };
            assert_eq!(result, ffi::SERVICE_ERR);
        }
    }
}
