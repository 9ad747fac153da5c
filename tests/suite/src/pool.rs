//! The pool in the sandbox: the name service's module behind `files`, homes, settings, and an application that leases.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use deputy_core::job::OsIdentity;
use deputy_core::message::{LauncherReply, LauncherRequest, Leased, Returned};
use deputy_core::pool::PoolRecord;
use deputy_core::root_record::RootRecord as _;

use crate::acting::made_up_identity;
use crate::fake::{Answers, Fake};
use crate::machine;
use crate::requests::{account, app};

/// Where the records are.
pub const RECORDS: &str = "/var/lib/deputy/pool";

/// The application that leases.
const TENANTS: &str = "\
service_user = \"tenants\"
trust = \"application\"

[pool]
lease = true

[[roots]]
path = \"/data/{os_user}\"
access = \"read-write\"

[kinds.batch]
commands = [\"*\"]
";

/// A pool of one test: the settings are the machine's, so there is one at a time.
#[derive(Debug)]
pub struct Pool {
    _alone: MutexGuard<'static, ()>,
    /// Its first uid.
    pub first: u32,
    /// Its last uid.
    pub last: u32,
}

/// Makes the machine's pool this range; the gids are a thousand more at the beginning.
pub fn pool(first: u32, last: u32, more: &str) -> Pool {
    static ALONE: Mutex<()> = Mutex::new(());
    static INSTALLED: Once = Once::new();
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    INSTALLED.call_once(install);
    let path = "/etc/deputy/deputy.toml";
    let before = fs::read_to_string(path).expect("deputy.toml");
    let others = before.split("[pool]").next().unwrap_or_default();
    let gid_min = first - 1000;
    let text = format!(
        "{others}[pool]\nuid_min = {first}\nuid_max = {last}\ngid_min = {gid_min}\ngid_max = {last}\n{more}\n"
    );
    fs::write("/etc/deputy/deputy.new", text).expect("deputy.toml");
    fs::rename("/etc/deputy/deputy.new", path).expect("deputy.toml");
    Pool { _alone: alone, first, last }
}

fn install() {
    crate::need_the_sandbox();
    machine::add_service_user("tenants");
    machine::add_service_user("neighbours");
    machine::install_application("tenants", TENANTS);
    machine::install_application("neighbours", &TENANTS.replace("tenants", "neighbours"));
    for folder in [
        "/home/pool",
        "/data",
        "/dev/mqueue",
        "/var/spool/cron/crontabs",
        "/srv/pool/lib",
        "/srv/skeleton/inner",
    ] {
        machine::run("mkdir", &["-p", "-m", "0755", folder]);
    }
    machine::run("sh", &["-c", "mountpoint -q /dev/mqueue || mount -t mqueue mqueue /dev/mqueue"]);
    fs::write("/srv/skeleton/.profile", "# of the skeleton\n").expect("the skeleton");
    fs::write("/srv/skeleton/inner/file", "deep\n").expect("the skeleton");
    let test = std::env::current_exe().expect("this program's path");
    let built = test.ancestors().nth(2).expect("target/debug").join("libnss_deputy.so");
    fs::copy(built, "/srv/pool/lib/libnss_deputy.so.2")
        .expect("the module: cargo build --workspace makes it");
    fs::write("/etc/ld.so.conf.d/deputy-pool.conf", "/srv/pool/lib\n").expect("the loader's folders");
    machine::run("ldconfig", &[]);
    let before = fs::read_to_string("/etc/nsswitch.conf").expect("nsswitch.conf");
    let behind = before
        .replace("passwd: files", "passwd: files deputy")
        .replace("\ngroup: files", "\ngroup: files deputy");
    assert!(behind.contains("passwd: files deputy") && behind.contains("\ngroup: files deputy"), "{behind}");
    fs::write("/etc/nsswitch.conf", behind).expect("nsswitch.conf");
}

/// Asks for a lease, as a taken-over daemon can.
pub fn ask(application: &str, name: &str) -> Answers {
    let request = LauncherRequest::LeasePool { application: app(application), account: account(name) };
    Fake::daemon().ask(&request, &[])
}

/// The lease of an account of `tenants`, given.
pub fn lease(name: &str) -> Leased {
    let answers = ask("tenants", name);
    let [LauncherReply::Leased(leased)] = &answers.replies[..] else { panic!("{answers:?}") };
    leased.clone()
}

/// What root hears when a lease of `tenants` is to be returned.
pub fn give_back(name: &str) -> Answers {
    let request = LauncherRequest::ReturnPool { application: app("tenants"), account: account(name) };
    Fake::as_user("root").ask(&request, &[])
}

/// What is said of a lease that is to be returned: what is left of it, each as its sort and a colon and which.
pub fn left_of(name: &str) -> Vec<String> {
    let answers = give_back(name);
    let [LauncherReply::Returned(Returned { left, .. })] = &answers.replies[..] else {
        panic!("{answers:?}")
    };
    left.iter().map(ToString::to_string).collect()
}

/// The identity of a uid in the pool's usual names.
pub fn identity(uid: u32) -> OsIdentity {
    made_up_identity(&format!("dp{uid}"), uid, uid)
}

/// All records on disk, each of which has to be whole.
pub fn records() -> Vec<PoolRecord> {
    let mut records = Vec::new();
    for entry in fs::read_dir(RECORDS).expect("the pool's folder").flatten() {
        let name = entry.file_name().into_string().expect("plain names");
        if name.bytes().all(|b| b.is_ascii_digit()) {
            let text = fs::read_to_string(entry.path()).expect("a record");
            records.push(
                PoolRecord::parse(&name, &text).unwrap_or_else(|error| panic!("{name}: {error}: {text}")),
            );
        }
    }
    records.sort_by_key(|record| record.os_account.uid);
    records
}

/// The place of a record.
pub fn record_path(uid: u32) -> PathBuf {
    Path::new(RECORDS).join(uid.to_string())
}
