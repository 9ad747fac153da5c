//! The entry points, as glibc calls them: `<nss.h>`, and "Adding another Service to NSS" in its manual.

use std::ffi::{CStr, c_char};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};

use deputy_nss_format::{Cursor, FoundAccount, FoundGroup};
use libc::{c_int, c_long, gid_t, group, passwd, size_t, uid_t};

use crate::answer::{Buffer, Gids, Put};
use crate::call::{Answer, Failure, Found, Status, guarded};
use crate::lookup::Lookup;

/// How far `getpwent_r` is in this process. A number that is changed in one step needs no lock, and a fork has its own.
static ACCOUNTS: AtomicU64 = AtomicU64::new(0);
/// How far `getgrent_r` is.
static GROUPS: AtomicU64 = AtomicU64::new(0);

/// `getpwnam_r(3)`.
///
/// # Safety
///
/// As glibc calls it: `name` is a C string; `result` and `buflen` bytes of `buffer` can be written; `errnop` too.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _nss_deputy_getpwnam_r(
    name: *const c_char,
    result: *mut passwd,
    buffer: *mut c_char,
    buflen: size_t,
    errnop: *mut c_int,
) -> Status {
    let body = || {
        // SAFETY: the caller's promise.
        let name = unsafe { text(name) }?;
        // SAFETY: the caller's promise.
        let mut buffer = unsafe { Buffer::new(buffer, buflen) };
        let found = Lookup::open()?.account_by_name(name, &mut buffer)?;
        // SAFETY: the caller's promise.
        unsafe { give_account(found, &mut buffer, result) }
    };
    // SAFETY: the caller's promise.
    unsafe { guarded(errnop, body) }
}

/// `getpwuid_r(3)`.
///
/// # Safety
///
/// As for [`_nss_deputy_getpwnam_r`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _nss_deputy_getpwuid_r(
    uid: uid_t,
    result: *mut passwd,
    buffer: *mut c_char,
    buflen: size_t,
    errnop: *mut c_int,
) -> Status {
    let body = || {
        // SAFETY: the caller's promise.
        let mut buffer = unsafe { Buffer::new(buffer, buflen) };
        let found = Lookup::open()?.account_by_uid(uid, &mut buffer)?;
        // SAFETY: the caller's promise.
        unsafe { give_account(found, &mut buffer, result) }
    };
    // SAFETY: the caller's promise.
    unsafe { guarded(errnop, body) }
}

/// `getgrnam_r(3)`.
///
/// # Safety
///
/// As for [`_nss_deputy_getpwnam_r`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _nss_deputy_getgrnam_r(
    name: *const c_char,
    result: *mut group,
    buffer: *mut c_char,
    buflen: size_t,
    errnop: *mut c_int,
) -> Status {
    let body = || {
        // SAFETY: the caller's promise.
        let name = unsafe { text(name) }?;
        // SAFETY: the caller's promise.
        let mut buffer = unsafe { Buffer::new(buffer, buflen) };
        let found = Lookup::open()?.group_by_name(name, &mut buffer)?;
        // SAFETY: the caller's promise.
        unsafe { give_group(found, &mut buffer, result) }
    };
    // SAFETY: the caller's promise.
    unsafe { guarded(errnop, body) }
}

/// `getgrgid_r(3)`.
///
/// # Safety
///
/// As for [`_nss_deputy_getpwnam_r`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _nss_deputy_getgrgid_r(
    gid: gid_t,
    result: *mut group,
    buffer: *mut c_char,
    buflen: size_t,
    errnop: *mut c_int,
) -> Status {
    let body = || {
        // SAFETY: the caller's promise.
        let mut buffer = unsafe { Buffer::new(buffer, buflen) };
        let found = Lookup::open()?.group_by_gid(gid, &mut buffer)?;
        // SAFETY: the caller's promise.
        unsafe { give_group(found, &mut buffer, result) }
    };
    // SAFETY: the caller's promise.
    unsafe { guarded(errnop, body) }
}

/// `setpwent(3)`: to the beginning.
#[unsafe(no_mangle)]
pub extern "C" fn _nss_deputy_setpwent(_stay_open: c_int) -> Status {
    begin(&ACCOUNTS)
}

/// `endpwent(3)`: nothing is open, so nothing is closed.
#[unsafe(no_mangle)]
pub extern "C" fn _nss_deputy_endpwent() -> Status {
    ACCOUNTS.store(0, Ordering::Relaxed);
    Status::Success
}

/// `getpwent_r(3)`: the next account, in the order of uids.
///
/// # Safety
///
/// As for [`_nss_deputy_getpwnam_r`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _nss_deputy_getpwent_r(
    result: *mut passwd,
    buffer: *mut c_char,
    buflen: size_t,
    errnop: *mut c_int,
) -> Status {
    let body = || {
        // SAFETY: the caller's promise.
        let mut buffer = unsafe { Buffer::new(buffer, buflen) };
        let lookup = Lookup::open()?;
        step(&ACCOUNTS, |cursor| {
            let Some((found, behind)) = lookup.next_account(cursor, &mut buffer)? else { return Ok(None) };
            // SAFETY: the caller's promise.
            unsafe { give_account(Some(found), &mut buffer, result) }?;
            Ok(Some(behind))
        })
    };
    // SAFETY: the caller's promise.
    unsafe { guarded(errnop, body) }
}

/// `setgrent(3)`: to the beginning.
#[unsafe(no_mangle)]
pub extern "C" fn _nss_deputy_setgrent(_stay_open: c_int) -> Status {
    begin(&GROUPS)
}

/// `endgrent(3)`: nothing is open, so nothing is closed.
#[unsafe(no_mangle)]
pub extern "C" fn _nss_deputy_endgrent() -> Status {
    GROUPS.store(0, Ordering::Relaxed);
    Status::Success
}

/// `getgrent_r(3)`: the next group, in the order of gids.
///
/// # Safety
///
/// As for [`_nss_deputy_getpwnam_r`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _nss_deputy_getgrent_r(
    result: *mut group,
    buffer: *mut c_char,
    buflen: size_t,
    errnop: *mut c_int,
) -> Status {
    let body = || {
        // SAFETY: the caller's promise.
        let mut buffer = unsafe { Buffer::new(buffer, buflen) };
        let lookup = Lookup::open()?;
        step(&GROUPS, |cursor| {
            let Some((found, behind)) = lookup.next_group(cursor, &mut buffer)? else { return Ok(None) };
            // SAFETY: the caller's promise.
            unsafe { give_group(Some(found), &mut buffer, result) }?;
            Ok(Some(behind))
        })
    };
    // SAFETY: the caller's promise.
    unsafe { guarded(errnop, body) }
}

/// The groups of a user, for `initgroups(3)` and `getgrouplist(3)`; without it glibc would walk every group.
///
/// # Safety
///
/// As glibc calls it: `user` is a C string; `*groupsp` is from `malloc`, with `*size` places of which `*start` are used.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _nss_deputy_initgroups_dyn(
    user: *const c_char,
    primary: gid_t,
    start: *mut c_long,
    size: *mut c_long,
    groupsp: *mut *mut gid_t,
    limit: c_long,
    errnop: *mut c_int,
) -> Status {
    let body = || {
        // SAFETY: the caller's promise.
        let user = unsafe { text(user) }?;
        // SAFETY: the caller's promise.
        let mut gids = unsafe { Gids::new(start, size, groupsp, limit) };
        let mut exhausted = false;
        let any = Lookup::open()?.groups_of(user, |gid| {
            // The primary group is in the list already.
            let put = if gid == primary { Put::Done } else { gids.put(gid) };
            exhausted = put == Put::NoMemory;
            if put == Put::Done { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        match (exhausted, any) {
            (true, _) => Err(Failure::NoMemory),
            (false, true) => Ok(Found::Yes),
            (false, false) => Ok(Found::No),
        }
    };
    // SAFETY: the caller's promise.
    unsafe { guarded(errnop, body) }
}

/// # Safety
///
/// `name` is null or a C string that stays as it is during the call.
unsafe fn text<'a>(name: *const c_char) -> Result<&'a [u8], Failure> {
    if name.is_null() {
        return Err(Failure::Arguments);
    }
    // SAFETY: it is not null, and the caller answers for the rest.
    Ok(unsafe { CStr::from_ptr(name) }.to_bytes())
}

/// # Safety
///
/// `result` can be written.
unsafe fn give_account(found: Option<FoundAccount>, buffer: &mut Buffer, result: *mut passwd) -> Answer {
    let Some(found) = found else { return Ok(Found::No) };
    // SAFETY: the caller's promise.
    unsafe { buffer.account(&found, result) }?;
    Ok(Found::Yes)
}

/// # Safety
///
/// `result` can be written.
unsafe fn give_group(found: Option<FoundGroup>, buffer: &mut Buffer, result: *mut group) -> Answer {
    let Some(found) = found else { return Ok(Found::No) };
    // SAFETY: the caller's promise.
    unsafe { buffer.group(&found, result) }?;
    Ok(Found::Yes)
}

/// Whether an enumeration can begin; it does at the beginning.
fn begin(position: &AtomicU64) -> Status {
    position.store(0, Ordering::Relaxed);
    let body = || Lookup::open().map(|_| Found::Yes).map_err(Failure::Fault);
    // SAFETY: null is allowed.
    unsafe { guarded(std::ptr::null_mut(), body) }
}

/// Gives the next entry once, however many threads ask: who finds that another was faster takes the one after.
fn step(position: &AtomicU64, mut give: impl FnMut(Cursor) -> Result<Option<Cursor>, Failure>) -> Answer {
    loop {
        let now = position.load(Ordering::Relaxed);
        let Some(behind) = give(Cursor::unpack(now))? else { return Ok(Found::No) };
        let next = behind.pack();
        if position.compare_exchange(now, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            return Ok(Found::Yes);
        }
    }
}
