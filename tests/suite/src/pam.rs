//! `pam_deputy.so` in the sandbox: where it is, services that use it, and accounts that log in through them.

use std::fs;

use crate::deputyctl;
use crate::people::{answering, command_as, ok};

/// Where the module is.
pub const MODULE: &str = "/srv/pam/pam_deputy.so";

/// A passphrase that is strong enough, another one, and one that nobody has.
pub const GOOD: &str = "violet harbour seven kites";
/// See [`GOOD`].
pub const BETTER: &str = "oblique tundra marzipan bell";
/// See [`GOOD`].
pub const WRONG: &str = "saddle comet biscuit rowing";

/// What pamtester says where the module refuses.
pub const FAILED: &str = "pamtester: Authentication failure";

/// Puts the module that was built into its place.
pub fn install_module() {
    let test = std::env::current_exe().expect("this program's path");
    let built = test.ancestors().nth(2).expect("target/debug").join("libpam_deputy.so");
    fs::create_dir_all("/srv/pam").expect("a folder");
    fs::copy(built, MODULE).expect("the module: cargo build --workspace makes it");
}

/// A PAM service of these lines of each of the four sorts.
pub fn service(name: &str, options: &str) {
    let line = |sort: &str| format!("{sort} required {MODULE} {options}\n");
    let text = ["auth", "account", "password", "session"].map(line).concat();
    fs::write(format!("/etc/pam.d/{name}"), text).expect("a service");
}

/// An account with a password.
pub fn account(application: &str, name: &str, password: &str) {
    ok(&deputyctl("root", &["account", "add", application, name]));
    let command =
        command_as("root", &["deputyctl", "account", "password", application, name, "--answers-fd", "0"]);
    ok(&answering(command, &[password]));
}

/// An account with a password, linked to an OS account with root's consent.
pub fn person(application: &str, name: &str, os_user: &str, password: &str) {
    account(application, name, password);
    ok(&deputyctl("root", &["consent", "grant", application, name, os_user]));
    ok(&deputyctl("root", &["link", "request", application, name, os_user]));
}
