//! What runs inside: the commands of the services, and when each is ready.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};

use crate::accounts::DEPUTY;
use crate::files::{BUS_CONFIG, BUS_SOCKET, RUN};

/// What systemd gives a system service as PATH.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One service's definition.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its name: that of its log and pid file.
    pub name: &'static str,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The whole environment.
    pub environment: Vec<(String, String)>,
}

/// Where deputyd says that it is ready.
pub fn notify_socket() -> String {
    format!("{RUN}/notify")
}

/// A service with nothing of the caller's environment.
pub fn service(name: &'static str, argv: &[&str], environment: &[(&str, &str)]) -> Service {
    let mut all: Vec<(String, String)> =
        vec![("PATH".into(), PATH.into()), ("LANG".into(), "C.UTF-8".into())];
    all.extend(environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    // For the person who debugs; nothing else of the caller's environment reaches a service.
    for key in ["RUST_LOG", "RUST_BACKTRACE", "LLVM_PROFILE_FILE"] {
        if let Ok(value) = std::env::var(key) {
            all.push((key.into(), value));
        }
    }
    Service { name, argv: argv.iter().map(|word| (*word).to_owned()).collect(), environment: all }
}

/// The private system bus.
pub fn bus() -> Result<Service> {
    needs("/usr/bin/dbus-daemon", "dbus-daemon")?;
    needs("/usr/share/dbus-1/system.d/org.freedesktop.PolicyKit1.conf", "polkitd")?;
    let config = format!("--config-file={BUS_CONFIG}");
    Ok(service(
        "dbus-daemon",
        &["/usr/bin/dbus-daemon", &config, "--nofork", "--nopidfile", "--nosyslog"],
        &[],
    ))
}

/// The real polkit; it becomes user polkitd by itself.
pub fn polkit() -> Result<Service> {
    let program = "/usr/lib/polkit-1/polkitd";
    needs(program, "polkitd")?;
    Ok(service("polkitd", &[program, "--no-debug"], &[]))
}

/// The launcher: root, and nothing taken from it, as in its unit.
pub fn launcher() -> Result<Service> {
    let program = built("deputy-launcher")?;
    Ok(service("deputy-launcher", &[&program], &[]))
}

/// The daemon, as its unit runs it: the static user without a capability, and no way to get any.
pub fn daemon() -> Result<Service> {
    let program = built("deputyd")?;
    needs("/usr/bin/setpriv", "util-linux")?;
    let argv = [
        "/usr/bin/setpriv",
        "--reuid=deputy",
        "--regid=deputy",
        "--init-groups",
        "--inh-caps=-all",
        "--ambient-caps=-all",
        "--bounding-set=-all",
        "--no-new-privs",
        &program,
    ];
    let notify = notify_socket();
    let environment = [
        ("HOME", "/nonexistent"),
        ("LOGNAME", DEPUTY),
        ("USER", DEPUTY),
        ("SHELL", "/usr/sbin/nologin"),
        ("NOTIFY_SOCKET", notify.as_str()),
    ];
    Ok(service("deputyd", &argv, &environment))
}

fn built(name: &str) -> Result<String> {
    let path = format!("/usr/local/bin/{name}");
    ensure!(
        Path::new(&path).exists(),
        "{name} is not built: run `cargo build --workspace`, or name the directory that has it with --bin-dir, or \
         start without the daemons with --no-daemons"
    );
    Ok(path)
}

/// Refuses, with the package's name, where a file is not there.
pub fn needs(path: &str, package: &str) -> Result<()> {
    ensure!(Path::new(path).exists(), "{path} is not there: install {package} (tests/packages.sh does)");
    Ok(())
}

/// The bus accepts connections.
pub fn bus_accepts() -> bool {
    UnixStream::connect(BUS_SOCKET).is_ok()
}

/// The launcher listens on both sockets.
pub fn launcher_listens() -> bool {
    ["/run/deputy/launcher.sock", "/run/deputy/owner.sock"].iter().all(|path| Path::new(path).exists())
}

/// Somebody has this name on the bus.
pub fn name_is_owned(name: &str) -> bool {
    let output = Command::new("/usr/bin/dbus-send")
        .args(["--system", "--print-reply=literal", "--dest=org.freedesktop.DBus", "/org/freedesktop/DBus"])
        .arg("org.freedesktop.DBus.NameHasOwner")
        .arg(format!("string:{name}"))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("true"))
}
