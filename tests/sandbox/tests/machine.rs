//! What is inside: accounts, directories, the bus and its policy, polkit, units.

mod common;

use std::path::Path;
use std::process::Command;

use common::{good, text};

#[test]
fn accounts_are_made_inside_and_not_on_the_host() {
    let before = std::fs::read_to_string("/etc/passwd").unwrap();
    let out = good(
        &["--user", "alice:one:lab1,lab2", "--user", "bob::lab2", "--user", "service/portal"],
        "id alice; id bob; stat -c '%a %U %G %n' /home/alice /home/bob; getent passwd portal deputy | cut -d: -f6,7
         id -u portal; id -u deputy; getent shadow alice | grep -o '^alice:.y' ; getent shadow bob portal | cut -d: -f2",
    );
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "uid=1001(alice) gid=1001(alice) groups=1001(alice),2001(lab1),2002(lab2)");
    assert_eq!(lines[1], "uid=1002(bob) gid=1002(bob) groups=1002(bob),2002(lab2)");
    assert_eq!(lines[2], "700 alice alice /home/alice");
    assert_eq!(lines[3], "700 bob bob /home/bob");
    assert_eq!(lines[4..6], ["/nonexistent:/usr/sbin/nologin"; 2]);
    assert!(lines[6].parse::<u32>().unwrap() < 1000 && lines[7].parse::<u32>().unwrap() < 1000, "{out}");
    assert_eq!(lines[8..], ["alice:$y", "*", "*"], "{out}");
    assert_eq!(std::fs::read_to_string("/etc/passwd").unwrap(), before);
}

#[test]
fn account_tools_and_acls_work_inside() {
    let out = good(
        &["--user", "alice:one"],
        "useradd -m -G alice carol; groupadd -g 3000 crew; usermod -aG crew alice; echo carol:two | chpasswd
         id carol; id alice; setfacl -m u:carol:rx /home/alice; runuser -u carol -- ls -d /home/alice
         mkdir /data/lab; setfacl -d -m g:crew:rwx /data/lab; getfacl -pc /data/lab | grep default:group:crew
         userdel -r carol; id carol >/dev/null 2>&1 || echo gone",
    );
    let expected = "uid=1002(carol) gid=1002(carol) groups=1002(carol),1001(alice)\n\
        uid=1001(alice) gid=1001(alice) groups=1001(alice),3000(crew)\n/home/alice\ndefault:group:crew:rwx\ngone\n";
    assert_eq!(out, expected);
}

#[test]
fn the_host_s_programs_cannot_be_changed_from_inside() {
    let out = good(
        &[],
        "for f in /usr/x /usr/bin/x /usr/share/x; do touch $f 2>&1 | grep -o 'Read-only' || true; done",
    );
    assert_eq!(out, "Read-only\n".repeat(3));
}

#[test]
fn directories_are_as_tmpfiles_makes_them() {
    let out = good(
        &["--user", "deputyx:x"],
        "stat -c '%a %U %G %n' /run/deputy /run/deputy/* /run/deputyd /var/lib/deputy /var/lib/deputy/* \
         /etc/deputy/applications.d /etc/deputy/deputy.toml /etc/pam.d/deputy-* /tmp /var/tmp",
    );
    let expected = "\
755 root root /run/deputy
700 root root /run/deputy/jobs
700 root root /run/deputy/slots
700 root root /run/deputy/tries
755 deputy deputy /run/deputyd
755 root root /var/lib/deputy
700 root root /var/lib/deputy/consent
700 root root /var/lib/deputy/jobs
700 deputy deputy /var/lib/deputy/ledger
755 root root /var/lib/deputy/nss
700 root root /var/lib/deputy/pool
700 root root /var/lib/deputy/rebind
700 root root /var/lib/deputy/requests
700 deputy deputy /var/lib/deputy/secrets
700 deputy deputy /var/lib/deputy/view
755 root root /etc/deputy/applications.d
644 root root /etc/deputy/deputy.toml
644 root root /etc/pam.d/deputy-job
644 root root /etc/pam.d/deputy-login
1777 root root /tmp
1777 root root /var/tmp
";
    assert_eq!(out, expected);
}

#[test]
fn applications_configuration_and_real_directories_are_used() {
    let files = std::env::temp_dir().join(format!("files-{}", std::process::id()));
    std::fs::create_dir(&files).unwrap();
    let path = |name: &str| files.join(name).to_str().unwrap().to_owned();
    std::fs::write(path("demo.toml"), "service_user = \"portal\"\n").unwrap();
    std::fs::write(path("deputy.toml"), "# {sandbox_cgroup}\n").unwrap();
    let (demo, config, state, logs) = (path("demo.toml"), path("deputy.toml"), path("state"), path("logs"));
    let options = ["--application", &demo, "--config", &config, "--state-dir", &state, "--log-dir", &logs];
    let out = common::run(
        &options,
        "cd /etc/deputy; cat applications.d/demo.toml deputy.toml; stat -c %U:%a applications.d/demo.toml
         echo kept > /var/lib/deputy/ledger/file",
    );
    let kept = std::fs::read_to_string(files.join("state/ledger/file"));
    let log = files.join("logs/polkitd.log").exists();
    std::fs::remove_dir_all(&files).unwrap();
    let (out, err) = (text(&out.stdout), text(&out.stderr));
    assert!(out.starts_with("service_user = \"portal\"\n# /") && out.ends_with("root:644\n"), "{out}{err}");
    assert_eq!(kept.unwrap(), "kept\n");
    assert!(log);
}

#[test]
fn the_real_polkit_answers_on_the_private_bus() {
    let ask = "busctl --system call org.freedesktop.PolicyKit1 /org/freedesktop/PolicyKit1/Authority \
        org.freedesktop.PolicyKit1.Authority";
    let out = good(
        &["--user", "alice:x"],
        &format!(
            "gdbus call --system -d org.freedesktop.PolicyKit1 -o /org/freedesktop/PolicyKit1/Authority \
               -m org.freedesktop.DBus.Peer.Ping
             {ask} EnumerateActions s '' | grep -o 'org.deputy.Deputy1.[a-z-]*' | sort
             pkaction --verbose --action-id org.deputy.Deputy1.run | grep -c 'implicit any: *yes'
             pkaction --verbose --action-id org.deputy.Deputy1.view | grep -c 'unix-user:deputy'"
        ),
    );
    let actions: String =
        ["audit", "files", "link", "manage-accounts", "manage-jobs", "manage-links", "run", "view"]
            .iter()
            .map(|action| format!("org.deputy.Deputy1.{action}\n"))
            .collect::<Vec<_>>()
            .concat();
    assert_eq!(out, format!("()\n{actions}1\n1\n"));
}

/// Has the name, one of our interfaces, one that is not, and a signal.
const SERVICE: &str = "\
import dbus, dbus.service, dbus.mainloop.glib
from gi.repository import GLib
dbus.mainloop.glib.DBusGMainLoop(set_as_default=True)
bus = dbus.SystemBus()
name = dbus.service.BusName('org.deputy.Deputy1', bus)
class Thing(dbus.service.Object):
    @dbus.service.method('org.deputy.Deputy1.Jobs', out_signature='s')
    def List(self): return 'reached'
    @dbus.service.method('org.other.Thing', out_signature='s')
    def Bad(self): return 'reached'
    @dbus.service.method('org.deputy.Deputy1.Manager', out_signature='s')
    def Ask(self):
        authority = bus.get_object('org.freedesktop.PolicyKit1', '/org/freedesktop/PolicyKit1/Authority')
        me = ('system-bus-name', {'name': bus.get_unique_name()})
        return str(authority.CheckAuthorization(me, 'org.deputy.Deputy1.run', {'account': 'x'}, 0, '',
            dbus_interface='org.freedesktop.PolicyKit1.Authority')[0])
    @dbus.service.signal('org.deputy.Deputy1.Job')
    def Changed(self): pass
    @dbus.service.method('org.deputy.Deputy1.Files', out_signature='')
    def Tell(self): self.Changed()
thing = Thing(bus, '/o')
GLib.MainLoop().run()
";

/// Prints the path of each signal that says it is ours, until the daemon's own comes.
const LISTENER: &str = "\
import dbus, dbus.mainloop.glib
from gi.repository import GLib
dbus.mainloop.glib.DBusGMainLoop(set_as_default=True)
bus = dbus.SystemBus()
def heard(path): print(path, flush=True)
bus.add_signal_receiver(heard, dbus_interface='org.deputy.Deputy1.Job', path_keyword='path')
bus.list_names()
print('listening', flush=True)
GLib.MainLoop().run()
";

#[test]
fn the_bus_lets_only_deputy_own_the_name_and_passes_only_our_interfaces() {
    let out = good(
        &["--user", "alice:x", "--user", "service/portal"],
        &format!(
            "cat > /tmp/service.py <<'END'\n{SERVICE}END
            own='dbus-send --system --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.RequestName \
                 string:org.deputy.Deputy1 uint32:4'
            for u in root alice portal; do runuser -u $u -- $own 2>&1 | grep -o AccessDenied; done
            cat > /tmp/listener.py <<'END'\n{LISTENER}END
            runuser -u alice -- /usr/bin/python3 /tmp/listener.py > /tmp/signals &
            for i in $(seq 500); do grep -q listening /tmp/signals && break; sleep 0.01; done
            setpriv --reuid deputy --regid deputy --init-groups /usr/bin/python3 /tmp/service.py &
            for i in $(seq 500); do
                busctl --system status org.deputy.Deputy1 >/dev/null 2>&1 && break; sleep 0.01; done
            call='gdbus call --system -d org.deputy.Deputy1 -o /o -m'
            for u in root alice portal; do
                runuser -u $u -- $call org.deputy.Deputy1.Jobs.List
                runuser -u $u -- $call org.other.Thing.Bad 2>&1 | grep -o AccessDenied
                runuser -u $u -- $call org.freedesktop.DBus.Introspectable.Introspect | grep -c Jobs
                runuser -u $u -- dbus-send --system /forged org.deputy.Deputy1.Job.Changed
            done
            # The daemon itself can ask polkit, gets the answer, and may send its signals.
            $call org.deputy.Deputy1.Manager.Ask; $call org.deputy.Deputy1.Files.Tell
            for i in $(seq 500); do grep -q /o /tmp/signals && break; sleep 0.01; done
            cat /tmp/signals"
        ),
    );
    let each = "('reached',)\nAccessDenied\n1\n".repeat(3);
    assert_eq!(out, format!("{}{each}('1',)\n()\nlistening\n/o\n", "AccessDenied\n".repeat(3)));
}

#[test]
fn the_units_are_valid() {
    let systemd = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../systemd")).canonicalize().unwrap();
    // /usr is read-only inside: programs to be found there are laid over it.
    let out = good(
        &[],
        &format!(
            "for bin in sbin bin; do
                 mkdir -p /tmp/o/$bin/u /tmp/o/$bin/w
                 mount -t overlay o -o lowerdir=/usr/$bin,upperdir=/tmp/o/$bin/u,workdir=/tmp/o/$bin/w /usr/$bin
             done
             cp /bin/true /usr/sbin/deputyd; cp /bin/true /usr/sbin/deputy-launcher; cp /bin/true /usr/bin/deputyctl
             cd {0}
             systemd-analyze verify --man=no *.service *.socket *.slice *.timer 2>&1
             SYSTEMD_LOG_LEVEL=warning systemd-sysusers {0}/sysusers.d/deputy.conf 2>&1
             SYSTEMD_LOG_LEVEL=warning systemd-tmpfiles --create {0}/tmpfiles.d/deputy.conf 2>&1",
            systemd.display()
        ),
    );
    assert_eq!(out, "");
}

#[test]
fn the_units_that_need_no_right_of_root_s_are_as_closed_as_they_were() {
    // The check of links and the figures have root's uid, which alone counts 0.4, and nothing else.
    for (unit, threshold) in [("deputyd", "10"), ("deputy-check-links", "15"), ("deputy-metrics", "15")] {
        let path = format!("{}/../../systemd/{unit}.service", env!("CARGO_MANIFEST_DIR"));
        let threshold = format!("--threshold={threshold}");
        let output =
            Command::new("systemd-analyze").args(["security", "--offline=true", &threshold, &path]).output();
        let output = output.expect("systemd-analyze: install systemd (tests/packages.sh does)");
        assert!(output.status.success(), "the exposure of {unit} is too high:\n{}", text(&output.stdout));
    }
}
