//! A real bus of the test's own, two connections, and where the test runs as root a caller of another uid.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::harness::Harness;
use crate::bus::{NAME, ROOT};
use crate::life::{Fatal, Serving};
use deputy_core::message::LauncherReply;
use zbus::connection::Builder;
use zbus::{Connection, MessageStream, OwnedVariant};

const CONFIG: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:path=SOCKET</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*" eavesdrop="false"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
"#;

struct Bus {
    process: Child,
    address: String,
    _folder: tempfile::TempDir,
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn bus() -> Bus {
    let folder = tempfile::tempdir().unwrap();
    // Callers of other uids have to reach the socket.
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let socket = folder.path().join("bus");
    let config = folder.path().join("bus.conf");
    std::fs::write(&config, CONFIG.replace("SOCKET", socket.to_str().unwrap())).unwrap();
    let process = Command::new("dbus-daemon")
        .arg(format!("--config-file={}", config.display()))
        .args(["--nofork", "--nopidfile"])
        .stdin(Stdio::null())
        .spawn()
        .expect("dbus-daemon is needed for this test");
    for _ in 0..200 {
        if std::os::unix::net::UnixStream::connect(&socket).is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Bus { process, address: format!("unix:path={}", socket.display()), _folder: folder }
}

async fn connect(bus: &Bus) -> Connection {
    Builder::address(bus.address.as_str()).build().await.unwrap()
}

async fn serve(bus: &Bus, harness: &Harness) -> Result<Serving, Fatal> {
    let connection = connect(bus).await;
    let stream = MessageStream::from(&connection);
    Serving::serve(std::sync::Arc::clone(&harness.daemon), connection, stream).await
}

/// A harness in which the test's own uid speaks for an application, unless it is root.
fn harness() -> (Harness, Vec<(&'static str, OwnedVariant)>) {
    let harness = Harness::new(|_, _, socket| {
        crate::launcher::double::answer(&socket, &LauncherReply::Done);
    });
    let uid = rustix::process::getuid().as_raw();
    if uid == 0 {
        let name = OwnedVariant::try_from(zbus::Variant::from("demo")).unwrap();
        return (harness, vec![("application", name)]);
    }
    harness.files.lock().unwrap().insert("mine".into(), format!("service_uid = {uid}"));
    (harness, Vec::new())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_connections_create_list_and_get() {
    let (harness, extra) = harness();
    let options = || -> std::collections::BTreeMap<&str, OwnedVariant> { extra.iter().cloned().collect() };
    let bus = bus();
    let serving = serve(&bus, &harness).await.unwrap();
    let (first, second) = (connect(&bus).await, connect(&bus).await);
    let accounts = Some("org.deputy.Deputy1.Accounts");
    for name in ["alice", "bob"] {
        let mut all = options();
        all.insert("email", OwnedVariant::try_from(zbus::Variant::from("a@lab.example")).unwrap());
        first.call_method(Some(NAME), ROOT, accounts, "Create", &(name, all)).await.unwrap();
    }
    let again =
        first.call_method(Some(NAME), ROOT, accounts, "Create", &("bob", options())).await.unwrap_err();
    let zbus::Error::MethodError(name, message, _) = again else { panic!("{again:?}") };
    assert_eq!(name.as_str(), "org.deputy.Deputy1.Error.Conflict");
    assert!(message.unwrap().contains("exists already"));
    let list = second.call_method(Some(NAME), ROOT, accounts, "List", &(options(),)).await.unwrap();
    let (found, next): (Vec<std::collections::BTreeMap<String, OwnedVariant>>, String) =
        list.body().deserialize().unwrap();
    assert_eq!((found.len(), next.as_str()), (2, ""));
    let got = second.call_method(Some(NAME), ROOT, accounts, "Get", &("alice", options())).await.unwrap();
    let (got,): (std::collections::BTreeMap<String, OwnedVariant>,) = got.body().deserialize().unwrap();
    assert_eq!(<&str>::try_from(&got["email"]).unwrap(), "a@lab.example");
    // A second daemon does not get the name, and does not take it away.
    let (other, _) = self::harness();
    assert!(matches!(serve(&bus, &other).await, Err(Fatal::NameTaken)));
    serving.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_bus_is_the_end_of_the_daemon() {
    let (harness, _) = harness();
    let bus = bus();
    let mut serving = serve(&bus, &harness).await.unwrap();
    drop(bus);
    let end = tokio::time::timeout(Duration::from_secs(5), serving.wait()).await.unwrap();
    assert!(matches!(end, Err(Fatal::Closed)), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_uid_is_known_by_the_bus_alone() {
    if !rustix::process::getuid().is_root() {
        eprintln!("needs root to call as somebody else; left out");
        return;
    }
    // The bus takes only callers that the passwd database knows; these are in every one.
    let [daemon, bin, sys] = [1, 2, 3];
    let (harness, _) = harness();
    for (name, uid) in [("demo", daemon), ("strict", bin)] {
        harness
            .files
            .lock()
            .unwrap()
            .insert(name.into(), format!("service_uid = {uid}\ntrust = \"application\""));
    }
    let bus = bus();
    let serving = serve(&bus, &harness).await.unwrap();
    let call = |uid: u32, arguments: &[&str]| {
        let mut command = Command::new("busctl");
        command.arg(format!("--address={}", bus.address)).arg("call").args([NAME, ROOT]).args(arguments);
        command.uid(uid).gid(uid).env("LC_ALL", "C").output().expect("busctl is needed for this test")
    };
    let create = ["org.deputy.Deputy1.Accounts", "Create", "sa{sv}", "carol", "0"];
    let created = tokio::task::block_in_place(|| call(daemon, &create));
    assert!(created.status.success(), "{created:?}");
    let refused = tokio::task::block_in_place(|| call(sys, &create));
    assert!(!refused.status.success());
    let other = ["org.deputy.Deputy1.Accounts", "Get", "sa{sv}", "carol", "1", "application", "s", "demo"];
    let refused = tokio::task::block_in_place(|| call(bin, &other));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no such object"), "{refused:?}");
    serving.end().await;
}
