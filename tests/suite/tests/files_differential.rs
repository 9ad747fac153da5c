//! What the kernel refuses is refused with the same error as for a login of that user: the same operation, by a thread
//! with the user's ids and groups and through a file agent, on two trees that were made alike.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use deputy_core::acl::Acl;
use deputy_core::message::{FileRequest, FileTime, OpenHow, RenameHow};
use deputy_suite::acting::ids;
use deputy_suite::files::{Ended, FileAgent, files_of, for_reading, for_writing};
use deputy_suite::machine::{add_service_user, install_application, run};
use deputy_suite::need_the_sandbox;
use deputy_suite::requests::grant_in;
use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_OMIT, XattrFlags, chmod,
    chownat, getxattr, link, mkdir, open, readlink, rename, renameat_with, rmdir, setxattr, stat, unlink,
    utimensat,
};
use rustix::io::Errno;
use rustix::process::Uid;
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// The people, who have the groups lab1, lab2 and lab1.
const PEOPLE: [&str; 3] = ["alice", "bob", "carol"];

/// How a folder and the file in it are made.
#[derive(Debug, Clone, Copy)]
struct Made {
    folder: (&'static str, &'static str, u32),
    folder_acl: &'static str,
    folder_default: &'static str,
    file: (&'static str, &'static str, u32),
    file_acl: &'static str,
}

const PLAIN: Made = Made {
    folder: ("alice", "lab1", 0o755),
    folder_acl: "",
    folder_default: "",
    file: ("alice", "lab1", 0o644),
    file_acl: "",
};

/// Owner, group and mode of the folder, then of the file.
fn modes() -> Vec<Made> {
    let folders = [0o755, 0o750, 0o700, 0o770, 0o2775, 0o1777, 0o711, 0o733, 0o000, 0o500, 0o1770];
    let files = [("alice", 0o644), ("alice", 0o600), ("carol", 0o660), ("root", 0o604), ("bob", 0o000)];
    let pairs = folders.into_iter().zip(files.into_iter().cycle());
    let mut all: Vec<Made> = pairs
        .map(|(folder, (owner, file))| Made {
            folder: ("alice", "lab1", folder),
            file: (owner, "lab1", file),
            ..PLAIN
        })
        .collect();
    all.push(Made { folder: ("root", "lab1", 0o1770), file: ("carol", "lab1", 0o664), ..PLAIN });
    all.push(Made { folder: ("root", "root", 0o1777), file: ("root", "root", 0o666), ..PLAIN });
    all
}

/// Lists with named users and groups, masks that take away, defaults for what is made.
fn acls() -> Vec<Made> {
    let file =
        |file_acl| Made { folder: ("root", "root", 0o777), file: ("root", "root", 0o640), file_acl, ..PLAIN };
    let folder = |folder_acl| Made {
        folder: ("root", "root", 0o750),
        folder_acl,
        file: ("root", "root", 0o666),
        ..PLAIN
    };
    vec![
        file("user::rw-,user:ALICE:rw-,group::---,mask::rw-,other::---"),
        file("user::rw-,user:ALICE:rw-,group::---,mask::r--,other::---"),
        file("user::rw-,user:ALICE:---,group::rw-,mask::rw-,other::rw-"),
        file("user::rw-,group::---,group:LAB1:rw-,mask::rw-,other::---"),
        file("user::rw-,group::---,group:LAB1:rw-,group:LAB2:r--,mask::rw-,other::---"),
        file("user::rw-,group::rw-,group:LAB1:---,mask::rw-,other::rw-"),
        file("user::rw-,user:BOB:r--,group::r--,group:LAB2:rw-,mask::rw-,other::---"),
        file("user::---,group::---,mask::---,other::---"),
        folder("user::rwx,user:ALICE:rwx,group::---,mask::rwx,other::---"),
        folder("user::rwx,user:ALICE:rwx,group::---,mask::r-x,other::---"),
        folder("user::rwx,user:ALICE:--x,group::---,group:LAB2:r--,mask::rwx,other::---"),
        folder("user::rwx,group::---,group:LAB1:rwx,mask::rwx,other::--x"),
        Made {
            folder_default: "user::rwx,user:BOB:rwx,group::r-x,mask::rwx,other::---",
            ..folder("user::rwx,group::rwx,group:LAB1:rwx,mask::rwx,other::rwx")
        },
        Made {
            folder_default: "user::r--,group::---,other::---",
            ..folder("user::rwx,group::rwx,mask::rwx,other::rwx")
        },
    ]
}

fn gid(group: &str) -> u32 {
    let text = fs::read_to_string("/etc/group").expect("/etc/group");
    let line = text.lines().find(|line| line.split(':').next() == Some(group)).expect("the group");
    line.split(':').nth(2).expect("a gid").parse().expect("a gid")
}

fn owned(path: &Path, (owner, group, mode): (&str, &str, u32)) {
    chown(path, Some(ids(owner).uid), Some(gid(group))).expect("its owner");
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("its mode");
}

fn with_acl(path: &Path, attribute: &str, text: &str) {
    if text.is_empty() {
        return;
    }
    let mut text = text.to_owned();
    for name in ["alice", "bob"] {
        text = text.replace(&name.to_uppercase(), &ids(name).uid.to_string());
    }
    for group in ["lab1", "lab2"] {
        text = text.replace(&group.to_uppercase(), &gid(group).to_string());
    }
    let acl: Acl = text.parse().expect("a list");
    setxattr(path, attribute, &acl.to_bytes(), XattrFlags::empty()).expect("the file system keeps lists");
}

/// Makes `folder` with a file, a folder with a file in it, a full folder's neighbour and two links.
fn make(folder: &Path, made: &Made) {
    fs::create_dir(folder).expect("a folder");
    let file = folder.join("file");
    fs::write(&file, "text").expect("a file");
    owned(&file, made.file);
    with_acl(&file, "system.posix_acl_access", made.file_acl);
    fs::create_dir(folder.join("sub")).expect("a folder");
    owned(&folder.join("sub"), made.file);
    fs::create_dir(folder.join("full")).expect("a folder");
    fs::write(folder.join("full/inner"), "inner").expect("a file");
    owned(&folder.join("full"), made.folder);
    symlink("file", folder.join("link")).expect("a link");
    symlink("nowhere", folder.join("broken")).expect("a link");
    owned(folder, made.folder);
    with_acl(folder, "system.posix_acl_access", made.folder_acl);
    with_acl(folder, "system.posix_acl_default", made.folder_default);
}

/// One operation, on names in a folder.
#[derive(Debug, Clone, Copy)]
enum Operation {
    Open(&'static str, OpenHow),
    Stat(&'static str, bool),
    List(&'static str),
    MakeDirectory(&'static str),
    Remove(&'static str),
    Rename(&'static str, &'static str, RenameHow),
    Symlink(&'static str),
    ReadLink(&'static str),
    Link(&'static str, &'static str),
    SetMode(&'static str, u32),
    SetGroup(&'static str, &'static str),
    SetTimes(&'static str),
    GetAcl(&'static str, bool),
    SetAcl(&'static str, bool),
}

use Operation::{
    GetAcl, Link, List, MakeDirectory, Open, ReadLink, Remove, Rename, SetAcl, SetGroup, SetMode, SetTimes,
    Stat, Symlink,
};

fn operations() -> Vec<Operation> {
    let write = OpenHow { write: true, ..OpenHow::default() };
    let exclusive = OpenHow { exclusive: true, ..for_writing() };
    vec![
        Open("file", for_reading()),
        Open("file", write),
        Open("file", OpenHow { read: true, ..write }),
        Open("file", OpenHow { truncate: true, ..write }),
        Open("file", OpenHow { append: true, ..write }),
        Open("file", for_writing()),
        Open("file", exclusive),
        Open("new", exclusive),
        Open("new", for_writing()),
        Open("link", for_reading()),
        Open("link", for_writing()),
        Open("broken", for_reading()),
        Open("full/inner", for_reading()),
        Open("full/new", for_writing()),
        Open("absent/x", for_writing()),
        Open("file/x", for_reading()),
        Open("sub", write),
        Stat("file", true),
        Stat("full/inner", false),
        Stat("absent", false),
        Stat("broken", true),
        List(""),
        List("full"),
        List("file"),
        MakeDirectory("made"),
        MakeDirectory("sub"),
        MakeDirectory("file"),
        MakeDirectory("full/made"),
        MakeDirectory("absent/made"),
        Remove("file"),
        Remove("sub"),
        Remove("full"),
        Remove("link"),
        Remove("absent"),
        Remove("full/inner"),
        Rename("file", "other", RenameHow::Replace),
        Rename("file", "sub", RenameHow::Replace),
        Rename("sub", "full", RenameHow::Replace),
        Rename("full", "sub", RenameHow::Replace),
        Rename("file", "link", RenameHow::NoReplace),
        Rename("file", "full", RenameHow::Exchange),
        Rename("full", "full/inside", RenameHow::Replace),
        Rename("absent", "x", RenameHow::Replace),
        Rename("file", "full/inner", RenameHow::Replace),
        Rename("full/inner", "moved", RenameHow::Replace),
        Symlink("made"),
        Symlink("file"),
        ReadLink("link"),
        ReadLink("file"),
        Link("file", "hard"),
        Link("sub", "hard"),
        Link("link", "hard"),
        Link("file", "full/inner"),
        SetMode("file", 0o600),
        SetMode("sub", 0o2777),
        SetMode("absent", 0o600),
        SetMode("link", 0o640),
        SetGroup("file", "lab1"),
        SetGroup("file", "lab2"),
        SetGroup("file", "root"),
        SetTimes("file"),
        SetTimes("sub"),
        GetAcl("file", false),
        GetAcl("", true),
        GetAcl("file", true),
        SetAcl("file", false),
        SetAcl("", true),
        SetAcl("file", true),
    ]
}

const NEW_ACL: &str = "user::rw-,user:0:r--,group::r--,mask::r--,other::---";

impl Operation {
    fn request(self, folder: &Path) -> FileRequest {
        let at = |name: &str| if name.is_empty() { bytes(folder) } else { bytes(&folder.join(name)) };
        match self {
            Open(name, how) => FileRequest::Open { path: at(name), how },
            Stat(name, follow) => FileRequest::Stat { path: at(name), follow },
            List(name) => FileRequest::List { path: at(name), after: Vec::new(), limit: 10 },
            MakeDirectory(name) => FileRequest::MakeDirectory { path: at(name), mode: None, parents: false },
            Remove(name) => FileRequest::Remove { path: at(name), missing_ok: false },
            Rename(from, to, how) => FileRequest::Rename { from: at(from), to: at(to), how },
            Symlink(name) => FileRequest::Symlink { target: b"anywhere".to_vec(), path: at(name) },
            ReadLink(name) => FileRequest::ReadLink { path: at(name) },
            Link(from, to) => FileRequest::Link { from: at(from), to: at(to) },
            SetMode(name, mode) => FileRequest::SetMode { path: at(name), mode },
            SetGroup(name, group) => FileRequest::SetGroup { path: at(name), gid: gid(group) },
            SetTimes(name) => FileRequest::SetTimes {
                path: at(name),
                accessed: None,
                modified: Some(FileTime { seconds: 1000, nanoseconds: 5 }),
            },
            GetAcl(name, default) => FileRequest::GetAcl { path: at(name), default },
            SetAcl(name, default) => {
                FileRequest::SetAcl { path: at(name), default, acl: NEW_ACL.parse().ok() }
            }
        }
    }

    /// The same by the calls that a program of the user's makes.
    fn in_a_login(self, folder: &Path) -> Result<(), Errno> {
        let at = |name: &str| if name.is_empty() { folder.to_owned() } else { folder.join(name) };
        let attribute =
            |default| if default { "system.posix_acl_default" } else { "system.posix_acl_access" };
        match self {
            Open(name, how) => {
                let mut flags = match (how.read, how.write) {
                    (true, true) => OFlags::RDWR,
                    (_, false) => OFlags::RDONLY,
                    (false, true) => OFlags::WRONLY,
                };
                for (asked, flag) in [
                    (how.create, OFlags::CREATE),
                    (how.exclusive, OFlags::EXCL),
                    (how.append, OFlags::APPEND),
                    (how.truncate, OFlags::TRUNC),
                ] {
                    if asked {
                        flags |= flag;
                    }
                }
                open(at(name), flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o666)).map(drop)
            }
            Stat(name, true) => stat(at(name)).map(drop),
            Stat(name, false) => rustix::fs::lstat(at(name)).map(drop),
            List(name) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                open(at(name), flags, Mode::empty()).map(drop)
            }
            MakeDirectory(name) => mkdir(at(name), Mode::from_raw_mode(0o777)),
            Remove(name) => match unlink(at(name)) {
                Err(Errno::ISDIR) => rmdir(at(name)),
                other => other,
            },
            Rename(from, to, RenameHow::Replace) => rename(at(from), at(to)),
            Rename(from, to, how) => {
                let flags =
                    if how == RenameHow::Exchange { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
                renameat_with(CWD, at(from), CWD, at(to), flags)
            }
            Symlink(name) => rustix::fs::symlink("anywhere", at(name)),
            ReadLink(name) => readlink(at(name), Vec::new()).map(drop),
            Link(from, to) => link(at(from), at(to)),
            SetMode(name, mode) => chmod(at(name), Mode::from_raw_mode(mode)),
            SetGroup(name, group) => {
                chownat(CWD, at(name), None, Some(Gid::from_raw(gid(group))), AtFlags::empty())
            }
            SetTimes(name) => {
                let times = Timestamps {
                    last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
                    last_modification: Timespec { tv_sec: 1000, tv_nsec: 5 },
                };
                utimensat(CWD, at(name), &times, AtFlags::empty())
            }
            GetAcl(name, default) => match getxattr(at(name), attribute(default), &mut vec![0u8; 4096]) {
                Ok(_) | Err(Errno::NODATA) => Ok(()),
                Err(errno) => Err(errno),
            },
            SetAcl(name, default) => {
                let acl: Acl = NEW_ACL.parse().expect("a list");
                setxattr(at(name), attribute(default), &acl.to_bytes(), XattrFlags::empty())
            }
        }
    }
}

fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

/// The groups of a user, as `initgroups` gives them.
fn groups_of(user: &str) -> Vec<Gid> {
    static KNOWN: Mutex<BTreeMap<String, Vec<Gid>>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().expect("the groups");
    let look_up = || {
        let groups = Command::new("id").args(["-G", user]).output().expect("id").stdout;
        let numbers = String::from_utf8_lossy(&groups).into_owned();
        numbers.split_ascii_whitespace().map(|gid| Gid::from_raw(gid.parse().expect("a gid"))).collect()
    };
    known.entry(user.to_owned()).or_insert_with(look_up).clone()
}

/// Does something as a login of this user would: ids, and the groups of the group database.
fn in_a_login_of<R: Send>(user: &str, action: impl FnOnce() -> R + Send) -> R {
    let own = ids(user);
    let groups = groups_of(user);
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let (uid, gid) = (Uid::from_raw(own.uid), Gid::from_raw(own.gid));
            set_thread_groups(&groups).expect("the groups");
            set_thread_res_gid(gid, gid, gid).expect("the gid");
            set_thread_res_uid(uid, uid, uid).expect("the uid");
            action()
        });
        thread.join().expect("the login")
    })
}

/// An agent for each of the people, and the folder of this test beneath their root.
fn begin(name: &str) -> (Vec<(&'static str, FileAgent)>, PathBuf) {
    static ONCE: std::sync::Once = std::sync::Once::new();
    need_the_sandbox();
    ONCE.call_once(|| {
        // What both sides make has the umask of a login.
        rustix::process::umask(Mode::from_raw_mode(0o022));
        add_service_user("samesame");
        install_application(
            "same",
            "service_user = \"samesame\"\ntrust = \"application\"\n[link]\nshared = true\n\
             [[roots]]\npath = \"/data/same\"\naccess = \"read-write\"\n",
        );
        fs::create_dir_all("/data/same").expect("the root");
        for folder in ["/data", "/data/same"] {
            fs::set_permissions(folder, Permissions::from_mode(0o755)).expect("a mode");
        }
    });
    let folder = Path::new("/data/same").join(name);
    fs::create_dir(&folder).expect("a folder");
    fs::set_permissions(&folder, Permissions::from_mode(0o755)).expect("a mode");
    let agents = PEOPLE.map(|person| {
        let account = format!("{name}-{person}");
        grant_in("same", &account, person);
        (person, FileAgent::start(&files_of("same", &account, person)).expect("an agent"))
    });
    (agents.into(), folder)
}

/// The two answers, which have to be the same.
fn compare(
    user: &str,
    agent: &FileAgent,
    operation: Operation,
    ours: &Path,
    theirs: &Path,
    made: &Made,
) -> Option<i32> {
    let login = in_a_login_of(user, || operation.in_a_login(ours)).err().map(rustix::io::Errno::raw_os_error);
    let through = match operation.request(theirs) {
        FileRequest::Open { path, how } => agent.open(path, how).map(drop).err(),
        request => match agent.call(&request) {
            Ended::Answer(_) => None,
            other => Some(other),
        },
    };
    assert_eq!(through, login.map(Ended::Errno), "{user}: {operation:?} in {made:?}");
    login
}

/// Every operation by everybody in each of these; how many were refused, and how many not.
fn all(name: &str, made: &[Made]) {
    let (agents, base) = begin(name);
    let (mut refused, mut done) = (0, 0);
    let mut errors = std::collections::BTreeSet::new();
    let mut number = 0;
    for made in made {
        for (user, agent) in &agents {
            for operation in operations() {
                number += 1;
                let (ours, theirs) =
                    (base.join(format!("{number}-login")), base.join(format!("{number}-agent")));
                make(&ours, made);
                make(&theirs, made);
                match compare(user, agent, operation, &ours, &theirs, made) {
                    Some(errno) => {
                        refused += 1;
                        errors.insert(errno);
                    }
                    None => done += 1,
                }
                assert_eq!(look(&ours), look(&theirs), "{user}: {operation:?} in {made:?}");
                fs::remove_dir_all(&ours).expect("removed");
                fs::remove_dir_all(&theirs).expect("removed");
            }
        }
    }
    println!("{name}: {done} were done, {refused} refused, with {} different errors", errors.len());
    assert!(done > 300 && refused > 300 && errors.len() > 5, "{done} {refused} {errors:?}");
}

/// What a tree looks like afterwards: names, owners, groups, modes, lengths, what links say.
fn look(folder: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(&at).expect("a folder").flatten() {
            let (path, found) = (entry.path(), entry.metadata().expect("its metadata"));
            let target = fs::read_link(&path).unwrap_or_default();
            let size = if found.is_file() { found.len() } else { 0 };
            let name = path.strip_prefix(folder).expect("beneath").display();
            let (uid, gid, mode) = (found.uid(), found.gid(), found.mode());
            lines.push(format!("{name} {uid} {gid} {mode:o} {size} {}", target.display()));
            if found.is_dir() {
                folders.push(path);
            }
        }
    }
    lines.sort();
    lines
}

#[test]
fn modes_groups_and_sticky_folders() {
    all("modes", &modes());
}

#[test]
fn access_control_lists() {
    all("acls", &acls());
}

#[test]
fn read_only_mounts() {
    let (agents, base) = begin("read-only");
    let mut refused = std::collections::BTreeSet::new();
    for made in modes().iter().chain(&acls()).step_by(4) {
        let (ours, theirs) = (base.join("login"), base.join("agent"));
        for folder in [&ours, &theirs] {
            make(folder, made);
            let path = folder.to_str().expect("text");
            run("mount", &["--bind", path, path]);
            run("mount", &["-o", "remount,bind,ro", path]);
        }
        for (user, agent) in &agents {
            for operation in operations() {
                refused.extend(compare(user, agent, operation, &ours, &theirs, made));
            }
        }
        for folder in [&ours, &theirs] {
            run("umount", &[folder.to_str().expect("text")]);
            fs::remove_dir_all(folder).expect("removed");
        }
    }
    assert!(refused.contains(&Errno::ROFS.raw_os_error()), "{refused:?}");
}
