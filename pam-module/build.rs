//! What the linker has to know of the module.

fn main() {
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,pam_deputy.so");
    // A symbol that nobody has is an error now, not in somebody's login. After the objects, or it would not be needed.
    println!("cargo::rustc-link-lib=dylib=pam");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,defs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,now");
    // It stays once it is loaded: the standard library in it is not made to be taken out again.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo::rerun-if-changed=build.rs");
}
