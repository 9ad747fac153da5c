//! Applications that touch files over D-Bus: each with the root `/data/bus`, which everybody may write.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use zbus::Variant;

use crate::client::{Client, Failed, Options, on_bus};
use crate::machine::{add_service_user, install_application, wait_until};
use crate::need_the_sandbox;
use crate::requests::grant_in;

/// The root of the test, which all its applications have.
pub fn root() -> &'static Path {
    need_the_sandbox();
    let root = Path::new("/data/bus");
    fs::create_dir_all(root).expect("the root");
    for (path, mode) in [(Path::new("/data"), 0o755), (root, 0o777)] {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("a mode");
    }
    root
}

/// An application of its own, whose word is enough, with one account, `ada`, for alice; its service user's name.
pub fn application(name: &str) -> String {
    root();
    let user = format!("{name}user");
    add_service_user(&user);
    install_application(name, &policy(name, "read-write"));
    wait_until("the application is known", || {
        on_bus(&user, async |client: Client| {
            let created = client.call::<_, ()>("Accounts.Create", &("ada", Options::new())).await;
            created.is_ok() || created.is_err_and(|failed| failed == Failed::Refused("Conflict".into()))
        })
    });
    grant_in(name, "ada", "alice");
    on_bus(&user, async |client: Client| {
        let linked: (String, String) =
            client.call("Links.Request", &("ada", "alice", Options::new())).await.expect("a link");
        assert_eq!(linked.0, "active");
    });
    user
}

/// Its file, with this access to the root.
pub fn policy(name: &str, access: &str) -> String {
    format!(
        "service_user = \"{name}user\"\ntrust = \"application\"\n[link]\nshared = true\n\
         [[roots]]\npath = \"/data/bus\"\naccess = \"{access}\"\n"
    )
}

/// Options that are only said.
pub fn flags(names: &[&'static str]) -> Options {
    names.iter().map(|name| (*name, Variant::from(true))).collect()
}
