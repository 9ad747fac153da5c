//! PAM's declarations, as Linux-PAM has them: `<security/_pam_types.h>` and `<security/pam_modules.h>`.

use libc::{c_char, c_int, c_void};

/// `pam_handle_t`, which only PAM knows from inside.
#[repr(C)]
pub struct Handle {
    _private: [u8; 0],
}

/// `struct pam_message`.
#[repr(C)]
pub struct Message {
    /// Its sort.
    pub style: c_int,
    /// Its text.
    pub text: *const c_char,
}

/// `struct pam_response`; both it and its text are from `malloc`, and the module's to free.
#[repr(C)]
pub struct Response {
    /// What the person answered.
    pub text: *mut c_char,
    /// Not used.
    pub code: c_int,
}

/// `struct pam_conv`.
#[repr(C)]
pub struct Conversation {
    /// Asks the person.
    pub converse:
        Option<unsafe extern "C" fn(c_int, *mut *const Message, *mut *mut Response, *mut c_void) -> c_int>,
    /// The program's own.
    pub data: *mut c_void,
}

/// What PAM calls when data of the module's goes.
pub type Cleanup = unsafe extern "C" fn(*mut Handle, *mut c_void, c_int);

pub const SUCCESS: c_int = 0;
pub const SERVICE_ERR: c_int = 3;
pub const SYSTEM_ERR: c_int = 4;
pub const PERM_DENIED: c_int = 6;
pub const AUTH_ERR: c_int = 7;
pub const AUTHINFO_UNAVAIL: c_int = 9;
pub const NEW_AUTHTOK_REQD: c_int = 12;
pub const SESSION_ERR: c_int = 14;
pub const CONV_ERR: c_int = 19;
pub const AUTHTOK_ERR: c_int = 20;
pub const AUTHTOK_RECOVERY_ERR: c_int = 21;
pub const TRY_AGAIN: c_int = 24;

pub const ITEM_SERVICE: c_int = 1;
pub const ITEM_USER: c_int = 2;
pub const ITEM_RHOST: c_int = 4;
pub const ITEM_CONV: c_int = 5;
pub const ITEM_AUTHTOK: c_int = 6;
pub const ITEM_OLDAUTHTOK: c_int = 7;

pub const PROMPT_ECHO_OFF: c_int = 1;
pub const PROMPT_ECHO_ON: c_int = 2;
pub const ERROR_MSG: c_int = 3;
pub const TEXT_INFO: c_int = 4;

pub const FLAG_SILENT: c_int = 0x8000;
pub const FLAG_CHANGE_EXPIRED: c_int = 0x20;
pub const FLAG_PRELIM_CHECK: c_int = 0x4000;
pub const FLAG_UPDATE: c_int = 0x2000;

unsafe extern "C" {
    pub fn pam_get_item(handle: *const Handle, item: c_int, value: *mut *const c_void) -> c_int;
    pub fn pam_set_item(handle: *mut Handle, item: c_int, value: *const c_void) -> c_int;
    pub fn pam_get_user(handle: *mut Handle, user: *mut *const c_char, prompt: *const c_char) -> c_int;
    pub fn pam_get_data(handle: *const Handle, name: *const c_char, data: *mut *const c_void) -> c_int;
    pub fn pam_set_data(
        handle: *mut Handle,
        name: *const c_char,
        data: *mut c_void,
        cleanup: Option<Cleanup>,
    ) -> c_int;
    pub fn pam_getenv(handle: *mut Handle, name: *const c_char) -> *const c_char;
    pub fn pam_putenv(handle: *mut Handle, pair: *const c_char) -> c_int;
    pub fn pam_syslog(handle: *const Handle, priority: c_int, format: *const c_char, ...);
}
