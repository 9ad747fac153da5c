//! What is left of a uid on this machine: files, processes, crontabs, queues.
//!
//! This is one of the places where root's code goes through folders of users. It opens folders only, to list them: each
//! by its descriptor's folder and one name, never through a link, never onto another file system (`openat2(2)`); of
//! everything else it asks who owns it. It changes nothing, and what it cannot look at counts as left.

use std::ffi::{CStr, OsStr};
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use deputy_core::denial::Denial;
use deputy_core::job::OsIdentity;
use deputy_core::pool::{LeftOver, PoolSettings};
use deputy_core::settings::{Settings, SlurmSettings};
use deputy_etc::{Directory, ETC_DEPUTY, root_owned};
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, lgetxattr, openat, openat2, statat,
};
use rustix::io::Errno;

/// How much is listed at most: few enough for one packet, whatever the names.
const MAX_LISTED: usize = 32;

/// The most bytes of what is shown of a path.
const MAX_SHOWN: usize = 512;

/// How deep folders are looked into; what is deeper counts as left.
const MAX_DEPTH: u32 = 400;

/// Where programs leave files for users, beside the roots and the homes.
const PLACES: [&str; 11] = [
    "/tmp",
    "/var/tmp",
    "/dev/shm",
    "/dev/mqueue",
    "/run/user",
    "/var/mail",
    "/var/spool/mail",
    "/var/spool/cron",
    "/var/spool/at",
    "/var/spool/atjobs",
    "/var/lib/systemd/linger",
];

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    list: Vec<LeftOver>,
    more: bool,
}

impl Found {
    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The list, and whether there is more.
    pub fn into_list(self) -> (Vec<LeftOver>, bool) {
        (self.list, self.more)
    }

    fn add(&mut self, sort: &str, what: impl Into<String>) {
        if self.is_full() {
            self.more = true;
            return;
        }
        let mut what: String = what.into();
        if what.len() > MAX_SHOWN {
            what.truncate((0..=MAX_SHOWN).rev().find(|end| what.is_char_boundary(*end)).unwrap_or(0));
            what.push_str("...");
        }
        self.list.push(LeftOver::new(sort, what));
    }

    fn unknown(&mut self, what: impl std::fmt::Display, error: impl std::fmt::Display) {
        self.add("unknown", format!("{what} could not be looked at: {error}"));
    }

    fn is_full(&self) -> bool {
        self.list.len() >= MAX_LISTED
    }
}

/// Whom is searched for.
#[derive(Debug, Clone, Copy)]
struct Ids {
    uid: u32,
    gid: u32,
}

/// Everything of an OS account of the pool that is left.
pub fn of(identity: &OsIdentity, pool: &PoolSettings, settings: &Settings) -> Result<Found, Denial> {
    let ids = Ids { uid: identity.uid.raw(), gid: identity.gid.raw() };
    let mut found = Found::default();
    processes(ids, &mut found);
    queues(ids, &mut found);
    by_name(identity.name.as_str(), &mut found);
    match &settings.executor.slurm {
        None => slurm(ids, None, &mut found),
        Some(slurm) => slurm.all().for_each(|(_, one)| self::slurm(ids, Some(one), &mut found)),
    }
    let mut places = roots()?;
    places.push(pool.homes().to_owned());
    places.extend(PLACES.map(PathBuf::from));
    for place in distinct(places) {
        let sort = match place.to_str() {
            Some("/dev/mqueue") => "message-queue",
            Some("/dev/shm") => "shared-memory",
            _ => "file",
        };
        tree(&place, sort, ids, &mut found);
        if found.is_full() {
            break;
        }
    }
    Ok(found)
}

/// The fixed parts of all applications' roots. A file that cannot be read is an error: its roots would be left out.
fn roots() -> Result<Vec<PathBuf>, Denial> {
    let etc = Directory::new(ETC_DEPUTY);
    let mut roots = Vec::new();
    for name in etc.names() {
        roots.extend(etc.application(&name)?.roots.iter().map(|root| fixed_part(&root.path)));
    }
    Ok(roots)
}

/// A root's path up to the first component that is a pattern.
fn fixed_part(pattern: &str) -> PathBuf {
    let components = pattern.split('/').filter(|component| !component.is_empty());
    let fixed = components.take_while(|component| !component.contains('{'));
    Path::new("/").join(fixed.collect::<PathBuf>())
}

/// Each once. A folder inside another one stays: it may be another file system's.
fn distinct(mut places: Vec<PathBuf>) -> Vec<PathBuf> {
    places.sort();
    places.dedup();
    places
}

/// Every process with one of the ids, as any of its own.
fn processes(ids: Ids, found: &mut Found) {
    let entries = match fs::read_dir("/proc") {
        Ok(entries) => entries,
        Err(error) => return found.unknown("/proc", error),
    };
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        match fs::read_to_string(format!("/proc/{pid}/status")) {
            Ok(status) if has_ids(&status, ids) => {
                let name = status.lines().find_map(|line| line.strip_prefix("Name:\t")).unwrap_or_default();
                found.add("process", format!("{pid} ({name})"));
            }
            // It has ended meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => {}
            Err(error) => found.unknown(format_args!("process {pid}"), error),
            Ok(_) => {}
        }
    }
}

/// Whether the text of `/proc/PID/status` has the uid or gid among the process's own, or the gid among its groups.
fn has_ids(status: &str, ids: Ids) -> bool {
    status.lines().any(|line| {
        let Some((key, values)) = line.split_once(':') else { return false };
        let wanted = match key {
            "Uid" => ids.uid,
            "Gid" | "Groups" => ids.gid,
            _ => return false,
        };
        values.split_ascii_whitespace().any(|value| value.parse() == Ok(wanted))
    })
}

/// System V's shared memory, semaphores and message queues, and whether POSIX's queues can be seen.
fn queues(ids: Ids, found: &mut Found) {
    for (file, sort) in [("shm", "shared-memory"), ("sem", "semaphore"), ("msg", "message-queue")] {
        match fs::read_to_string(format!("/proc/sysvipc/{file}")) {
            Ok(text) => {
                for id in owned(&text, ids) {
                    found.add(sort, format!("System V {file} {id}"));
                }
            }
            // A kernel without them has none.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => found.unknown(format_args!("/proc/sysvipc/{file}"), error),
        }
    }
    if Path::new("/proc/sys/fs/mqueue").exists() && !is_mqueue("/dev/mqueue") {
        found.add("unknown", "message queues could not be looked at: mount -t mqueue mqueue /dev/mqueue");
    }
}

fn is_mqueue(path: &str) -> bool {
    /// `MQUEUE_MAGIC` of the kernel's `ipc/mqueue.c`.
    const MQUEUE: rustix::fs::FsWord = 0x1980_0202;
    rustix::fs::statfs(path).is_ok_and(|found| found.f_type == MQUEUE)
}

/// The ids of those lines of a table of `/proc/sysvipc` whose owner or maker has one of the ids. The first line names
/// the columns (`proc_sysvipc(5)`).
fn owned(table: &str, ids: Ids) -> Vec<String> {
    let mut lines = table.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let names = lines.next().unwrap_or_default();
    let at = |line: &[&str], name: &str| -> Option<u32> {
        line.get(names.iter().position(|known| *known == name)?)?.parse().ok()
    };
    lines
        .filter(|line| {
            ["uid", "cuid"].iter().any(|name| at(line, name) == Some(ids.uid))
                || ["gid", "cgid"].iter().any(|name| at(line, name) == Some(ids.gid))
        })
        .map(|line| line.get(1).copied().unwrap_or_default().to_owned())
        .collect()
}

/// What lies under the account's name, whoever owns it.
fn by_name(name: &str, found: &mut Found) {
    for (sort, folder) in [
        ("crontab", "/var/spool/cron/crontabs"),
        ("crontab", "/var/spool/cron"),
        ("linger", "/var/lib/systemd/linger"),
        ("file", "/var/mail"),
    ] {
        let path = format!("{folder}/{name}");
        match statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => found.add(sort, path),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(errno) => found.unknown(path, errno),
        }
    }
}

/// The jobs at a cluster; where `deputy.toml` names none, at the machine's own, if there is one.
fn slurm(ids: Ids, cluster: Option<&SlurmSettings>, found: &mut Found) {
    let programs = cluster.map_or(Path::new("/usr/bin"), |cluster| &cluster.programs);
    let squeue = programs.join("squeue");
    match root_owned::open_file(&squeue) {
        Ok(_) => {}
        Err(error) if error.is_absent() && cluster.is_none() => return,
        Err(error) => return found.unknown("Slurm's queue", error),
    }
    let output = Command::new(&squeue)
        .args(["--noheader", "--states=all", "--format=%i %T", &format!("--user={}", ids.uid)])
        .env_clear()
        .envs(cluster.and_then(|cluster| cluster.conf.as_ref()).map(|conf| ("SLURM_CONF", conf)))
        .current_dir("/")
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => {
            let over = [
                "BOOT_FAIL",
                "CANCELLED",
                "COMPLETED",
                "DEADLINE",
                "FAILED",
                "NODE_FAIL",
                "OUT_OF_MEMORY",
                "PREEMPTED",
                "TIMEOUT",
            ];
            for line in String::from_utf8_lossy(&output.stdout).lines() {
                if !over.iter().any(|state| line.ends_with(state)) {
                    found.add("slurm-job", line);
                }
            }
        }
        Ok(output) => found.unknown("Slurm's queue", String::from_utf8_lossy(&output.stderr).trim()),
        Err(error) => found.unknown("Slurm's queue", error),
    }
}

/// Everything below a folder that one of the ids owns, on the folder's own file system.
fn tree(top: &Path, sort: &str, ids: Ids, found: &mut Found) {
    // The way to the top is the administrator's, links included: /var/spool/mail is often one.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match openat(CWD, top, flags, Mode::empty()) {
        Ok(folder) => below(&folder, top, sort, ids, MAX_DEPTH, found),
        Err(Errno::NOENT | Errno::NOTDIR) => {}
        Err(errno) => found.unknown(top.display(), errno),
    }
}

fn below(folder: &OwnedFd, path: &Path, sort: &str, ids: Ids, depth: u32, found: &mut Found) {
    if depth == 0 {
        return found.unknown(path.display(), "it is too deep");
    }
    let entries = match Dir::read_from(folder) {
        Ok(entries) => entries,
        Err(errno) => return found.unknown(path.display(), errno),
    };
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            Err(errno) => return found.unknown(path.display(), errno),
        };
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if found.is_full() {
            found.more = true;
            return;
        }
        let here = path.join(OsStr::from_bytes(name.to_bytes()));
        one(folder, name, &here, sort, ids, depth, found);
    }
}

/// One name in a folder, and what is below it.
fn one(folder: &OwnedFd, name: &CStr, path: &Path, sort: &str, ids: Ids, depth: u32, found: &mut Found) {
    let stat = match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        // It has gone meanwhile.
        Err(Errno::NOENT) => return,
        Err(errno) => return found.unknown(path.display(), errno),
    };
    if stat.st_uid == ids.uid || stat.st_gid == ids.gid {
        found.add(sort, path.display().to_string());
    } else if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        match acl_names(folder, name, ids) {
            Ok(true) => found.add(sort, format!("{} (its access list)", path.display())),
            Ok(false) => {}
            Err(errno) => found.unknown(path.display(), errno),
        }
    }
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        let flags =
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        match openat2(folder, name, flags, Mode::empty(), resolve) {
            Ok(inner) => below(&inner, path, sort, ids, depth - 1, found),
            // Another file system, or it has become something else meanwhile, which is nobody's folder.
            Err(Errno::XDEV | Errno::NOENT) => {}
            Err(errno) => found.unknown(path.display(), errno),
        }
    }
}

/// Whether an access list of a name in an open folder has one of the ids.
fn acl_names(folder: &OwnedFd, name: &CStr, ids: Ids) -> Result<bool, Errno> {
    let mut path = format!("/proc/self/fd/{}/", folder.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    for attribute in ["system.posix_acl_access", "system.posix_acl_default"] {
        let mut list = vec![0; 64 * 1024];
        match lgetxattr(&path[..], attribute, &mut list) {
            Ok(length) if has_entry(&list[..length], ids) => return Ok(true),
            Ok(_) | Err(Errno::NODATA | Errno::NOTSUP | Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(false)
}

/// Whether an access list, in the kernel's form (`linux/posix_acl_xattr.h`: four bytes of version, then entries of tag,
/// permissions and id), has an entry for one of the ids.
fn has_entry(list: &[u8], ids: Ids) -> bool {
    const USER: u16 = 0x02;
    const GROUP: u16 = 0x08;
    list.get(4..).unwrap_or_default().chunks_exact(8).any(|entry| {
        let [tag, tag_high, _, _, id @ ..] = entry else { return false };
        let id = <[u8; 4]>::try_from(id).map_or(0, u32::from_le_bytes);
        match u16::from_le_bytes([*tag, *tag_high]) {
            USER => id == ids.uid,
            GROUP => id == ids.gid,
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: Ids = Ids { uid: 70_001, gid: 70_001 };

    #[test]
    fn a_process_is_found_by_any_of_its_ids() {
        let status =
            |uids: &str, groups: &str| format!("Name:\tx\nUid:\t{uids}\nGid:\t5 5 5 5\nGroups:\t{groups}\n");
        assert!(has_ids(&status("0 70001 0 0", ""), IDS));
        assert!(has_ids(&status("0 0 0 0", "4 70001"), IDS));
        assert!(!has_ids(&status("0 0 0 700012", "7000"), IDS));
    }

    #[test]
    fn a_queue_is_found_by_its_owner_and_its_maker() {
        let table = "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      stime\n\
                     \x20        0         0   600  0  0  0  0  70001  5  0  0  0\n\
                     \x20        0         7   600  0  0  0  0  5  5  70001  5  0\n\
                     \x20    70001         9   600  0  0  0  0  5  5  5  5  0\n";
        assert_eq!(owned(table, IDS), ["0", "7"]);
    }

    #[test]
    fn an_access_list_names_users_and_groups_by_their_own_entries() {
        let entry = |tag: u16, id: u32| [&tag.to_le_bytes()[..], &[7, 0], &id.to_le_bytes()].concat();
        let list = |entries: &[Vec<u8>]| [vec![2, 0, 0, 0], entries.concat()].concat();
        assert!(has_entry(&list(&[entry(1, u32::MAX), entry(2, 70_001)]), IDS));
        assert!(has_entry(&list(&[entry(8, 70_001)]), IDS));
        assert!(!has_entry(&list(&[entry(4, 70_001), entry(2, 70_002)]), IDS));
        assert!(!has_entry(&[], IDS));
    }

    #[test]
    fn a_roots_fixed_part_ends_before_the_first_pattern() {
        assert_eq!(fixed_part("/data/{os_group}/x"), Path::new("/data"));
        assert_eq!(fixed_part("/data/all"), Path::new("/data/all"));
        assert_eq!(fixed_part("/{account}"), Path::new("/"));
    }
}
