//! `pam_deputy.so`: the entry points of PAM's modules, `<security/pam_modules.h>`.
//!
//! It is loaded into foreign processes: no thread, no signal, no lock, no output but PAM's log. Panics do not leave it.
//! What it decides is in `deputy-pam-core`; here are only PAM's pointers.

mod call;
mod entry;
mod ffi;
mod handle;

#[cfg(not(panic = "unwind"))]
compile_error!("a panic must not end the program that loaded the module: build with panic=unwind");
