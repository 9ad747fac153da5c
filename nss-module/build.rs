//! What the linker has to know of the module.

fn main() {
    // The name that glibc loads, so that a second copy under another path is not mapped beside it.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libnss_deputy.so.2");
    // It stays once it is loaded: a thread may be inside.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    // A symbol that nobody has is an error now, not in somebody's process.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,defs");
    println!("cargo::rerun-if-changed=build.rs");
}
