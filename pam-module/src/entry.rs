//! The entry points.

use deputy_pam_core::{
    Machine, Phase, Refusal, account, authenticate, change_password, close_session, open_session,
};
use libc::{c_char, c_int};

use crate::call::guarded;
use crate::ffi::{self, Handle};

/// `pam_sm_authenticate(3)`.
///
/// # Safety
///
/// As PAM calls it: a handle, and so many C strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pam_sm_authenticate(
    handle: *mut Handle,
    flags: c_int,
    count: c_int,
    words: *const *const c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { guarded(handle, flags, count, words, |call, options| authenticate(call, &Machine, options)) }
}

/// `pam_sm_setcred(3)`: there are no credentials to set. It gives nobody anything, and a program that authenticated in
/// another process (sshd) calls it without having been let in on this handle.
///
/// # Safety
///
/// As for [`pam_sm_authenticate`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pam_sm_setcred(
    handle: *mut Handle,
    flags: c_int,
    count: c_int,
    words: *const *const c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { guarded(handle, flags, count, words, |_, _| Ok(())) }
}

/// `pam_sm_acct_mgmt(3)`.
///
/// # Safety
///
/// As for [`pam_sm_authenticate`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pam_sm_acct_mgmt(
    handle: *mut Handle,
    flags: c_int,
    count: c_int,
    words: *const *const c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { guarded(handle, flags, count, words, |call, options| account(call, &Machine, options)) }
}

/// `pam_sm_chauthtok(3)`.
///
/// # Safety
///
/// As for [`pam_sm_authenticate`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pam_sm_chauthtok(
    handle: *mut Handle,
    flags: c_int,
    count: c_int,
    words: *const *const c_char,
) -> c_int {
    let phase = match flags & (ffi::FLAG_PRELIM_CHECK | ffi::FLAG_UPDATE) {
        ffi::FLAG_PRELIM_CHECK => Some(Phase::Check),
        ffi::FLAG_UPDATE => Some(Phase::Update),
        _ => None,
    };
    let only_expired = flags & ffi::FLAG_CHANGE_EXPIRED != 0;
    let body = |call: &mut crate::handle::Call, options: &_| {
        let phase = phase.ok_or(Refusal::System)?;
        change_password(call, &Machine, options, phase, only_expired)
    };
    // SAFETY: the caller's promise.
    let result = unsafe { guarded(handle, flags, count, words, body) };
    // In the first of the two calls PAM takes this for "not now", and does not make the second.
    let is_check = phase == Some(Phase::Check);
    if is_check && result == ffi::AUTHINFO_UNAVAIL { ffi::TRY_AGAIN } else { result }
}

/// `pam_sm_open_session(3)`.
///
/// # Safety
///
/// As for [`pam_sm_authenticate`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pam_sm_open_session(
    handle: *mut Handle,
    flags: c_int,
    count: c_int,
    words: *const *const c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { guarded(handle, flags, count, words, |call, options| open_session(call, &Machine, options)) }
}

/// `pam_sm_close_session(3)`.
///
/// # Safety
///
/// As for [`pam_sm_authenticate`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pam_sm_close_session(
    handle: *mut Handle,
    flags: c_int,
    count: c_int,
    words: *const *const c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { guarded(handle, flags, count, words, |call, options| close_session(call, &Machine, options)) }
}
