//! A Slurm of one node inside, or two of them: munged, slurmctld and slurmd, and for the accounting `MariaDB` and slurmdbd, all
//! of them Debian's.
//!
//! They listen on the loopback only, at ports that were free when the sandbox began, so that several sandboxes do not
//! meet. A node says that it has sixteen processors and two GPUs, whatever the machine has.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::accounts::Accounts;
use crate::files::put;
use crate::options::User;
use crate::root::{make_directory, staged};
use crate::services::{Service, needs, service};
use crate::supervisor::Supervisor;

/// How long a part may take until it is ready: a database that begins is no small thing.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at something that costs a process.
const PAUSE: Duration = Duration::from_millis(50);

const DATABASE_SOCKET: &str = "/run/mysqld/mysqld.sock";
const DATABASE_BEGIN: &str = "/etc/mysql/deputy-sandbox.sql";
const MUNGE_KEY: &str = "/etc/munge/munge.key";

/// One statement a line. Who slurm is, the socket says.
const STATEMENTS: &str = "\
CREATE DATABASE IF NOT EXISTS slurm_acct_db;
CREATE OR REPLACE USER slurm@localhost IDENTIFIED VIA unix_socket;
GRANT ALL ON slurm_acct_db.* TO slurm@localhost;
";

/// Folders, with mode and owner.
const FOLDERS: [(&str, u32, &str); 7] = [
    ("/etc/munge", 0o700, "munge"),
    ("/run/munge", 0o755, "munge"),
    ("/var/log/munge", 0o700, "munge"),
    ("/var/lib/munge", 0o711, "munge"),
    ("/run/slurm", 0o755, "slurm"),
    ("/var/lib/slurm", 0o755, "slurm"),
    ("/var/log/slurm", 0o755, "slurm"),
];

/// The folder of the database's socket, and its owner.
const DATABASE_FOLDER: (&str, u32, &str) = ("/run/mysqld", 0o755, "mysql");

/// What is in place of the accounting where there is none.
const WITHOUT_ACCOUNTING: &str = "\
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=/var/log/slurm/jobs.log
";

/// The same for each cluster, below which the names of parts follow.
const CLUSTER_FOLDERS: [(&str, u32, &str); 2] = [("controller", 0o700, "slurm"), ("node", 0o755, "root")];

/// One cluster: a controller and a node.
struct Cluster {
    /// What Slurm calls it.
    name: &'static str,
    /// The folder of its configuration.
    etc: &'static str,
    /// The folder of its state.
    state: &'static str,
    /// The names of its two services.
    services: [&'static str; 2],
    controller: u16,
    node: u16,
}

impl Cluster {
    fn conf(&self) -> String {
        format!("{}/slurm.conf", self.etc)
    }
}

/// Where the parts listen.
pub struct Slurm {
    host: String,
    /// Where the accounting does, if there is any.
    accounting: Option<u16>,
    clusters: Vec<Cluster>,
}

impl Slurm {
    /// Finds free ports. Asked for while `/proc` is the machine's own.
    pub fn new(with_accounting: bool, second: bool) -> Result<Self> {
        let always = [
            ("/usr/sbin/munged", "munge"),
            ("/usr/sbin/slurmctld", "slurm-wlm"),
            ("/usr/sbin/slurmd", "slurm-wlm"),
        ];
        let accounting = [("/usr/sbin/mariadbd", "mariadb-server"), ("/usr/sbin/slurmdbd", "slurmdbd")];
        for (path, package) in always.iter().chain(accounting.iter().filter(|_| with_accounting)) {
            needs(path, package)?;
        }
        let host = fs::read_to_string("/proc/sys/kernel/hostname").context("this machine's name")?;
        let host = host.trim().split('.').next().unwrap_or_default().to_owned();
        ensure!(!host.is_empty(), "--slurm: this machine has no name");
        // All are held until the last is found, so that they differ.
        let listeners = [(); 5].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let mut ports = [0; 5];
        for (port, listener) in ports.iter_mut().zip(listeners) {
            *port = listener.and_then(|listener| listener.local_addr()).context("a free port")?.port();
        }
        let [accounting, controller, node, second_controller, second_node] = ports;
        let mut clusters = vec![Cluster {
            name: "sandbox",
            etc: "/etc/slurm",
            state: "/var/lib/slurm",
            services: ["slurmctld", "slurmd"],
            controller,
            node,
        }];
        if second {
            clusters.push(Cluster {
                name: "second",
                etc: "/etc/slurm-second",
                state: "/var/lib/slurm/second",
                services: ["slurmctld-second", "slurmd-second"],
                controller: second_controller,
                node: second_node,
            });
        }
        Ok(Self { host, accounting: with_accounting.then_some(accounting), clusters })
    }

    /// Writes configuration and folders, while the root is still staged.
    pub fn write(&self, accounts: &Accounts) -> Result<()> {
        let database = self.accounting.map(|_| DATABASE_FOLDER);
        for (path, mode, owner) in FOLDERS.into_iter().chain(database) {
            make_directory(&staged(path), mode)?;
            give(path, accounts, owner)?;
        }
        for cluster in &self.clusters {
            for (part, mode, owner) in CLUSTER_FOLDERS {
                let path = format!("{}/{part}", cluster.state);
                make_directory(&staged(&path), mode)?;
                give(&path, accounts, owner)?;
            }
        }
        let mut key = vec![0; 1024];
        std::io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut key)?;
        fs::write(staged(MUNGE_KEY), key)?;
        private(MUNGE_KEY, accounts, "munge")?;
        if let Some(port) = self.accounting {
            put(DATABASE_BEGIN, STATEMENTS)?;
            put("/etc/slurm/slurmdbd.conf", &accounting_configuration(port))?;
            private("/etc/slurm/slurmdbd.conf", accounts, "slurm")?;
        }
        for cluster in &self.clusters {
            put(&cluster.conf(), &self.configuration(cluster))?;
            // Any two devices: nobody opens them.
            put(&format!("{}/gres.conf", cluster.etc), "Name=gpu File=/dev/zero\nName=gpu File=/dev/full\n")?;
        }
        Ok(())
    }

    fn configuration(&self, cluster: &Cluster) -> String {
        let Self { host, accounting, .. } = self;
        let storage = storage(*accounting);
        let Cluster { name, state, services: [controller_name, node_name], controller, node, .. } = cluster;
        format!(
            "\
ClusterName={name}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=slurm
AuthType=auth/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
KillWait=2
StateSaveLocation={state}/controller
SlurmdSpoolDir={state}/node
SlurmctldPidFile=/run/slurm/{controller_name}.pid
SlurmdPidFile=/run/slurm/{node_name}.pid
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=64
SlurmdParameters=config_overrides
{storage}EnforcePartLimits=ALL
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=16 RealMemory=8192 Gres=gpu:2
PartitionName=batch Nodes={host} Default=YES MaxTime=60
PartitionName=short Nodes={host} MaxTime=5
"
        )
    }

    /// Starts all of it, in order; each person with a group has an account of that name with the accounting afterwards.
    pub fn start(&self, supervisor: &mut Supervisor, users: &[User], timing: &impl Fn(&str)) -> Result<()> {
        supervisor.start(as_user("munged", "munge", &["/usr/sbin/munged", "--foreground"]))?;
        if let Some(port) = self.accounting {
            self.start_accounting(port, supervisor, users, timing)?;
        }
        for Cluster { etc, services: [controller, node], .. } in &self.clusters {
            let conf = format!("{etc}/slurm.conf");
            supervisor.start(as_user(controller, "slurm", &["/usr/sbin/slurmctld", "-D", "-f", &conf]))?;
            supervisor.start(service(node, &["/usr/sbin/slurmd", "-D", "-f", &conf], &[]))?;
        }
        for cluster in &self.clusters {
            let [controller, _] = cluster.services;
            let idle = || node_is_idle(&cluster.conf());
            supervisor.wait_ready_within(PATIENCE, controller, "the node is idle", idle)?;
        }
        timing("Slurm ready");
        Ok(())
    }

    fn start_accounting(
        &self,
        port: u16,
        supervisor: &mut Supervisor,
        users: &[User],
        timing: &impl Fn(&str),
    ) -> Result<()> {
        let begin = format!("--init-file={DATABASE_BEGIN}");
        let socket = format!("--socket={DATABASE_SOCKET}");
        // What it has stored is worth nothing behind the end of the sandbox.
        let database = [
            "/usr/sbin/mariadbd",
            "--no-defaults",
            "--user=mysql",
            "--datadir=/var/lib/mysql",
            "--skip-networking",
            "--innodb-flush-log-at-trx-commit=0",
            &socket,
            &begin,
        ];
        supervisor.start(service("mariadbd", &database, &[]))?;
        supervisor.wait_ready_within(PATIENCE, "mariadbd", "its socket is there", || {
            Path::new(DATABASE_SOCKET).exists()
        })?;
        timing("Slurm's database ready");
        supervisor.start(as_user("slurmdbd", "slurm", &["/usr/sbin/slurmdbd", "-D"]))?;
        supervisor.wait_ready_within(PATIENCE, "slurmdbd", "its port accepts", || accepts(port))?;
        associate(users, &self.clusters)?;
        timing("Slurm's accounting ready");
        Ok(())
    }
}

fn accounting_configuration(port: u16) -> String {
    format!(
        "AuthType=auth/munge\nDbdHost=localhost\nDbdAddr=127.0.0.1\nDbdPort={port}\nSlurmUser=slurm\n\
         StorageType=accounting_storage/mysql\nStorageHost=localhost\nStorageUser=slurm\n\
         StorageLoc=slurm_acct_db\nPidFile=/run/slurm/slurmdbd.pid\n"
    )
}

/// What a cluster says of its accounting.
fn storage(accounting: Option<u16>) -> String {
    accounting.map_or_else(
        || WITHOUT_ACCOUNTING.to_owned(),
        |port| {
            format!(
                "AccountingStorageType=accounting_storage/slurmdbd\nAccountingStorageHost=127.0.0.1\n\
                 AccountingStoragePort={port}\nAccountingStorageEnforce=associations,limits,qos\n\
                 AccountingStoreFlags=job_comment\n"
            )
        },
    )
}

fn give(path: &str, accounts: &Accounts, owner: &str) -> Result<()> {
    let who =
        || format!("--slurm: no account {owner} on this machine: install Slurm (tests/packages.sh does)");
    let (uid, gid) = (accounts.uid(owner).with_context(who)?, accounts.gid(owner).with_context(who)?);
    chown(staged(path), Some(uid), Some(gid)).with_context(|| path.to_owned())
}

fn private(path: &str, accounts: &Accounts, owner: &str) -> Result<()> {
    give(path, accounts, owner)?;
    fs::set_permissions(staged(path), fs::Permissions::from_mode(0o600)).with_context(|| path.to_owned())
}

fn as_user(name: &'static str, user: &str, argv: &[&str]) -> Service {
    let (uid, gid) = (format!("--reuid={user}"), format!("--regid={user}"));
    let mut all = vec!["/usr/bin/setpriv", &uid, &gid, "--init-groups"];
    all.extend(argv);
    service(name, &all, &[])
}

fn accepts(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// The clusters, and an association with each for each person who is in a group; one in none is unknown to Slurm.
fn associate(users: &[User], clusters: &[Cluster]) -> Result<()> {
    let mut commands = String::new();
    for cluster in clusters {
        commands.extend(["add cluster ", cluster.name, "\n"]);
    }
    for user in users.iter().filter(|user| !user.service) {
        if let Some(group) = user.groups.first() {
            // An account that is there already is no fault.
            let lines = ["add account ", group, "\nadd user ", &user.name, " account=", group, "\n"];
            commands.extend(lines);
        }
    }
    let mut child = Command::new("/usr/bin/sacctmgr")
        .arg("--immediate")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("sacctmgr")?;
    child.stdin.take().context("sacctmgr's input")?.write_all(commands.as_bytes())?;
    child.wait().context("sacctmgr")?;
    for user in users.iter().filter(|user| !user.service && !user.groups.is_empty()) {
        let shown = Command::new("/usr/bin/sacctmgr")
            .args(["--noheader", "--parsable2", "show", "associations", "format=account"])
            .arg(format!("user={}", user.name))
            .output()
            .context("sacctmgr")?;
        ensure!(!shown.stdout.is_empty(), "Slurm does not know {}: {}", user.name, text(&shown.stderr));
    }
    Ok(())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn node_is_idle(conf: &str) -> bool {
    std::thread::sleep(PAUSE);
    let shown = Command::new("/usr/bin/sinfo")
        .args(["--noheader", "--partition=batch", "--format=%t"])
        .env("SLURM_CONF", conf)
        .output();
    shown.is_ok_and(|shown| shown.stdout == b"idle\n")
}
