//! `libnss_deputy.so.2`: accounts and groups of Deputy's for glibc's name service.
//!
//! It is loaded into foreign processes, so it has no thread, no lock, no socket, no allocation of its own and no state
//! but two numbers; it opens root's files anew at each call, which makes forks, chroots, programs that close every
//! descriptor and replaced maps ordinary cases. Panics do not leave it, nor does a cancelled thread unwind through it.
//! `docs/ARCHITECTURE.md` has the whole of it.

mod answer;
mod call;
mod entry;
mod lookup;

#[cfg(not(panic = "unwind"))]
compile_error!("a panic must not end the program that loaded the module: build with panic=unwind");
