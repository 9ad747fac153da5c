//! The files of a sandbox below /etc and the directories of tmpfiles.d, written while the root is still staged.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::accounts::Accounts;
use crate::mounts;
use crate::options::Options;
use crate::root::{copy_tree, make_directory, staged};

/// The private bus's configuration.
pub const BUS_CONFIG: &str = "/etc/dbus-1/deputy-sandbox.conf";
/// The bus is where every system bus is: setuid helpers clear the environment and look there.
pub const BUS_SOCKET: &str = "/run/dbus/system_bus_socket";
/// State of the sandbox itself: pid files, the notification socket.
pub const RUN: &str = "/run/deputy-sandbox";
/// The services' output.
pub const LOGS: &str = "/var/log/deputy-sandbox";

// What is installed on a real machine is what is tested here, byte by byte.
const BUS_POLICY: &str = include_str!("../../../dbus/org.deputy.Deputy1.conf");
const POLKIT_POLICY: &str = include_str!("../../../polkit/org.deputy.Deputy1.policy");
const PAM_LOGIN: &str = include_str!("../../../pam/deputy-login");
const PAM_JOB: &str = include_str!("../../../pam/deputy-job");
const TMPFILES: &str = include_str!("../../../systemd/tmpfiles.d/deputy.conf");

/// dbus-daemon's standard policy for a system bus, and nothing that could start services: those are ours to start.
const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <user>messagebus</user>
  <auth>EXTERNAL</auth>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Introspectable"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Properties"/>
    <deny send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus"
          send_member="UpdateActivationEnvironment"/>
    <deny send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Debug.Stats"/>
    <deny send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.systemd1.Activator"/>
  </policy>
  <policy user="root">
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Monitoring"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Debug.Stats"/>
  </policy>
  <include>/usr/share/dbus-1/system.d/org.freedesktop.PolicyKit1.conf</include>
  <includedir>/etc/dbus-1/system.d</includedir>
</busconfig>
"#;

/// Accounts and groups from files alone: no name service of the host answers inside.
const NSSWITCH: &str = "passwd: files\ngroup: files\nshadow: files\ngshadow: files\n\
    hosts: files dns\nnetworks: files\nprotocols: files\nservices: files\nethers: files\nrpc: files\n";

/// Writes everything; `cgroup` is where jobs' cgroups can be made, as seen from inside.
pub fn write(options: &Options, accounts: &Accounts, cgroup: Option<&str>) -> Result<()> {
    put("/etc/nsswitch.conf", NSSWITCH)?;
    put("/etc/pam.d/deputy-login", PAM_LOGIN)?;
    put("/etc/pam.d/deputy-job", PAM_JOB)?;
    // The host's own services and rules must not decide what happens in here.
    empty("/etc/dbus-1/system.d")?;
    empty("/etc/polkit-1/rules.d")?;
    put(BUS_CONFIG, BUS)?;
    put("/etc/dbus-1/system.d/org.deputy.Deputy1.conf", BUS_POLICY)?;
    let actions = "/usr/share/polkit-1/actions";
    ensure!(Path::new(actions).is_dir(), "{actions} is not there: install polkitd (tests/packages.sh does)");
    mounts::tmpfs(&staged(actions), 0o755)?;
    copy_tree(Path::new(actions), &staged(actions))?;
    put(&format!("{actions}/org.deputy.Deputy1.policy"), POLKIT_POLICY)?;

    empty("/etc/deputy")?;
    apply_tmpfiles(accounts)?;
    make_directory(&staged("/run/dbus"), 0o755)?;
    make_directory(&staged("/run/lock"), 0o1777)?;
    make_directory(&staged("/run/user"), 0o755)?;
    make_directory(&staged(RUN), 0o755)?;
    make_directory(&staged(LOGS), 0o755)?;

    put("/etc/deputy/deputy.toml", &configuration(options, cgroup)?)?;
    for file in &options.applications {
        let text = fs::read_to_string(file).with_context(|| format!("--application {}", file.display()))?;
        let name = file.file_name().and_then(|name| name.to_str());
        let Some(name) = name.filter(|name| Path::new(name).extension().is_some_and(|e| e == "toml")) else {
            bail!("--application {}: the file's name must be the application's, with .toml", file.display());
        };
        put(&format!("/etc/deputy/applications.d/{name}"), &text)?;
    }
    Ok(())
}

/// The text of deputy.toml.
fn configuration(options: &Options, cgroup: Option<&str>) -> Result<String> {
    match (&options.config, cgroup) {
        (Some(file), _) => {
            let text = fs::read_to_string(file).with_context(|| format!("--config {}", file.display()))?;
            ensure!(
                cgroup.is_some() || !text.contains("{sandbox_cgroup}"),
                "--config {}: {{sandbox_cgroup}}, but no cgroup2 can be mounted here",
                file.display()
            );
            Ok(text.replace("{sandbox_cgroup}", cgroup.unwrap_or_default()))
        }
        (None, Some(directory)) => Ok(format!(
            "# Written by deputy-sandbox.\n[executor.local]\n# Below it each job gets a cgroup of its own.\n\
             cgroup = \"{directory}\"\n"
        )),
        (None, None) => {
            Ok("# Written by deputy-sandbox. This machine has no cgroup2: jobs run without.\n".into())
        }
    }
}

/// A root-owned file that all can read.
pub fn put(path: &str, text: &str) -> Result<()> {
    let target = staged(path);
    let what = || target.display().to_string();
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).with_context(what)?;
    }
    fs::write(&target, text).with_context(what)?;
    // The umask of whoever started the sandbox is not ours.
    fs::set_permissions(&target, fs::Permissions::from_mode(0o644)).with_context(what)?;
    chown(&target, Some(0), Some(0)).with_context(what)
}

/// Removes what a directory has; its owner and mode stay.
fn empty(path: &str) -> Result<()> {
    let directory = staged(path);
    for entry in fs::read_dir(&directory).into_iter().flatten() {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    fs::create_dir_all(&directory).with_context(|| directory.display().to_string())
}

/// Makes the directories of our tmpfiles.d, as systemd-tmpfiles would: this is the very file that is installed.
fn apply_tmpfiles(accounts: &Accounts) -> Result<()> {
    for line in TMPFILES.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let ["d", path, mode, user, group, "-"] = fields[..] else {
            bail!("systemd/tmpfiles.d/deputy.conf: '{line}' is none of the lines that the sandbox knows");
        };
        let mode = u32::from_str_radix(mode, 8).with_context(|| line.to_owned())?;
        make_directory(&staged(path), mode)?;
        let uid = accounts.uid(user).with_context(|| format!("no account {user}"))?;
        let gid = accounts.gid(group).with_context(|| format!("no group {group}"))?;
        chown(staged(path), Some(uid), Some(gid)).with_context(|| path.to_owned())?;
    }
    Ok(())
}
