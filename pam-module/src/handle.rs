//! PAM's handle as [`Pam`].

use std::ffi::{CStr, CString};
use std::ptr;

use deputy_core::ApplicationName;
use deputy_pam_core::{Known, Level, Pam, Refusal, SecretItem};
use libc::{c_char, c_int, c_void};
use zeroize::{Zeroize as _, Zeroizing};

use crate::ffi::{self, Handle, Message, Response};

/// The most bytes that are read from a text of PAM's or the program's.
const MAX_TEXT: usize = 64 * 1024;

/// A handle, for the length of one call.
pub struct Call {
    handle: *mut Handle,
    silent: bool,
}

impl Call {
    /// # Safety
    ///
    /// `handle` is what PAM gave to an entry point, and is used within that call only.
    pub unsafe fn new(handle: *mut Handle, flags: c_int) -> Self {
        Self { handle, silent: flags & ffi::FLAG_SILENT != 0 }
    }

    /// The bytes of an item that is a text.
    fn item(&self, item: c_int) -> Option<Zeroizing<Vec<u8>>> {
        let mut value = ptr::null();
        // SAFETY: the handle is PAM's, and the place for the value is a local variable.
        let result = unsafe { ffi::pam_get_item(self.handle, item, &raw mut value) };
        if result != ffi::SUCCESS {
            return None;
        }
        // SAFETY: these items are C strings, which stay until they are set anew.
        unsafe { bytes(value.cast()) }
    }

    fn set_item(&mut self, item: c_int, text: &[u8]) -> Result<(), Refusal> {
        let text = c_text(text)?;
        // SAFETY: the handle is PAM's; it copies the string.
        let result = unsafe { ffi::pam_set_item(self.handle, item, text.as_ptr().cast()) };
        if result == ffi::SUCCESS { Ok(()) } else { Err(Refusal::System) }
    }

    /// One message to the program; its answer, where it is a question.
    fn converse(&self, style: c_int, text: &str) -> Option<Zeroizing<Vec<u8>>> {
        let text = CString::new(text).ok()?;
        let mut value = ptr::null();
        // SAFETY: the handle is PAM's, and the place for the value is a local variable.
        let result = unsafe { ffi::pam_get_item(self.handle, ffi::ITEM_CONV, &raw mut value) };
        if result != ffi::SUCCESS || value.is_null() {
            return None;
        }
        // SAFETY: this item is a `struct pam_conv`, which stays during the call.
        let conversation = unsafe { &*value.cast::<ffi::Conversation>() };
        let converse = conversation.converse?;
        let message = Message { style, text: text.as_ptr() };
        let mut messages = &raw const message;
        let mut response: *mut Response = ptr::null_mut();
        // SAFETY: as <security/pam_appl.h> has it: one message, the place for the answers, the program's own data.
        let result = unsafe { converse(1, &raw mut messages, &raw mut response, conversation.data) };
        if response.is_null() {
            return None;
        }
        // SAFETY: an answer is from malloc, and has as many places as there are messages.
        let text = unsafe { (*response).text };
        // SAFETY: the text is null or a C string.
        let answer = unsafe { bytes(text) };
        // SAFETY: the text is null or a C string from malloc.
        unsafe { wipe(text) };
        // SAFETY: both are the module's to free; free takes null.
        unsafe { libc::free(text.cast()) };
        // SAFETY: likewise, and nothing uses it any more.
        unsafe { libc::free(response.cast()) };
        if result == ffi::SUCCESS { answer } else { None }
    }
}

impl Pam for Call {
    fn service(&self) -> Option<String> {
        String::from_utf8(self.item(ffi::ITEM_SERVICE)?.to_vec()).ok()
    }

    fn user(&mut self) -> Result<Vec<u8>, Refusal> {
        let mut user = ptr::null();
        // SAFETY: the handle is PAM's; null asks for its own prompt; the place for the name is a local variable.
        let result = unsafe { ffi::pam_get_user(self.handle, &raw mut user, ptr::null()) };
        if result != ffi::SUCCESS {
            return Err(Refusal::Conversation);
        }
        // SAFETY: it is a C string, which stays until it is set anew.
        let bytes = unsafe { bytes(user) };
        Ok(bytes.ok_or(Refusal::Conversation)?.to_vec())
    }

    fn set_user(&mut self, name: &str) -> Result<(), Refusal> {
        self.set_item(ffi::ITEM_USER, name.as_bytes())
    }

    fn origin(&self) -> Option<String> {
        String::from_utf8(self.item(ffi::ITEM_RHOST)?.to_vec()).ok()
    }

    fn secret(&self, item: SecretItem) -> Option<Zeroizing<Vec<u8>>> {
        self.item(number(item))
    }

    fn keep_secret(&mut self, item: SecretItem, secret: &[u8]) -> Result<(), Refusal> {
        self.set_item(number(item), secret)
    }

    fn ask(&mut self, question: &str) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        self.converse(ffi::PROMPT_ECHO_OFF, question).ok_or(Refusal::Conversation)
    }

    fn ask_shown(&mut self, question: &str) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        self.converse(ffi::PROMPT_ECHO_ON, question).ok_or(Refusal::Conversation)
    }

    fn inform(&mut self, text: &str) {
        if !self.silent {
            self.converse(ffi::TEXT_INFO, text);
        }
    }

    fn complain(&mut self, text: &str) {
        if !self.silent {
            self.converse(ffi::ERROR_MSG, text);
        }
    }

    fn known(&self, application: &ApplicationName) -> Option<Known> {
        let name = data_name(application).ok()?;
        let mut data = ptr::null();
        // SAFETY: the handle is PAM's, and the place for the value is a local variable.
        let result = unsafe { ffi::pam_get_data(self.handle, name.as_ptr(), &raw mut data) };
        if result != ffi::SUCCESS || data.is_null() {
            return None;
        }
        // SAFETY: under this name is only what `remember` put there; nobody changes it while this call lasts.
        Some(unsafe { &*data.cast::<Known>() }.clone())
    }

    fn remember(&mut self, application: &ApplicationName, known: Known) -> Result<(), Refusal> {
        let name = data_name(application)?;
        let data = Box::into_raw(Box::new(known));
        // SAFETY: the handle is PAM's; it copies the name, and gives the data to `forget` when it goes.
        let result = unsafe { ffi::pam_set_data(self.handle, name.as_ptr(), data.cast(), Some(forget)) };
        if result == ffi::SUCCESS {
            return Ok(());
        }
        // SAFETY: PAM did not take it.
        drop(unsafe { Box::from_raw(data) });
        Err(Refusal::System)
    }

    fn variable(&self, name: &str) -> Option<String> {
        let name = CString::new(name).ok()?;
        // SAFETY: the handle is PAM's.
        let value = unsafe { ffi::pam_getenv(self.handle, name.as_ptr()) };
        // SAFETY: it is null or a C string, which stays until the environment is changed.
        let bytes = unsafe { bytes(value) }?;
        String::from_utf8(bytes.to_vec()).ok()
    }

    fn set_variable(&mut self, name: &str, value: &str) -> Result<(), Refusal> {
        let pair = CString::new(format!("{name}={value}")).map_err(|_| Refusal::System)?;
        // SAFETY: the handle is PAM's; it copies the string.
        let result = unsafe { ffi::pam_putenv(self.handle, pair.as_ptr()) };
        if result == ffi::SUCCESS { Ok(()) } else { Err(Refusal::System) }
    }

    fn log(&self, level: Level, text: &str) {
        let priority = match level {
            Level::Error => libc::LOG_ERR,
            Level::Notice => libc::LOG_NOTICE,
            Level::Debug => libc::LOG_DEBUG,
        };
        // One line, whatever is in it.
        let line: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).take(512).collect();
        let Ok(line) = CString::new(line) else { return };
        // SAFETY: the handle is PAM's, and the format takes exactly one string.
        unsafe { ffi::pam_syslog(self.handle, priority, c"%s".as_ptr(), line.as_ptr()) };
    }
}

/// What PAM does with the data of `remember` when the handle ends, or other data takes its place.
unsafe extern "C" fn forget(_handle: *mut Handle, data: *mut c_void, _status: c_int) {
    if data.is_null() {
        return;
    }
    // SAFETY: it is what `remember` put there, and PAM gives it away once.
    let known = unsafe { Box::from_raw(data.cast::<Known>()) };
    // A destructor that panics must not unwind into PAM.
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(known)));
}

fn data_name(application: &ApplicationName) -> Result<CString, Refusal> {
    CString::new(format!("deputy:{application}")).map_err(|_| Refusal::System)
}

fn number(item: SecretItem) -> c_int {
    match item {
        SecretItem::Password => ffi::ITEM_AUTHTOK,
        SecretItem::OldPassword => ffi::ITEM_OLDAUTHTOK,
    }
}

/// The bytes with a NUL behind them, in memory that is wiped.
fn c_text(text: &[u8]) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    if text.contains(&0) {
        return Err(Refusal::System);
    }
    let mut copy = Zeroizing::new(Vec::with_capacity(text.len() + 1));
    copy.extend_from_slice(text);
    copy.push(0);
    Ok(copy)
}

/// # Safety
///
/// `text` is null or a C string that stays as it is during the call.
unsafe fn bytes(text: *const c_char) -> Option<Zeroizing<Vec<u8>>> {
    if text.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    let bytes = unsafe { CStr::from_ptr(text) }.to_bytes();
    (bytes.len() <= MAX_TEXT).then(|| Zeroizing::new(bytes.to_vec()))
}

/// # Safety
///
/// `text` is null or a C string that can be written.
unsafe fn wipe(text: *mut c_char) {
    if text.is_null() {
        return;
    }
    // SAFETY: the caller's promise.
    let length = unsafe { libc::strlen(text) };
    // SAFETY: so many bytes are the string's.
    unsafe { std::slice::from_raw_parts_mut(text.cast::<u8>(), length) }.zeroize();
}
