//! Nobody reaches anything beneath no root, whatever he says to a file agent and whatever he puts on the way.

use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use deputy_core::Code;
use deputy_core::message::{FileReply, FileRequest, OpenHow, RenameHow};
use deputy_suite::acting::ids;
use deputy_suite::files::{Ended, FileAgent, files_of, for_reading, for_writing, stat};
use deputy_suite::machine::{add_service_user, install_application, run};
use deputy_suite::need_the_sandbox;
use deputy_suite::requests::{grant, grant_in};

const ENOENT: i32 = 2;
const EACCES: i32 = 13;
const EBUSY: i32 = 16;
const EISDIR: i32 = 21;
const EINVAL: i32 = 22;
const EROFS: i32 = 30;
const ENAMETOOLONG: i32 = 36;
const ELOOP: i32 = 40;

const OUTSIDE: Ended = Ended::Refused(Code::PathOutside);

/// The applications of these tests, before there is any agent: one that is added ends them.
fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        fs::create_dir_all("/outside").expect("a folder");
        fs::set_permissions("/outside", Permissions::from_mode(0o777)).expect("a mode");
        fs::write("/outside/file", "outside").expect("a file");
        for (name, roots) in [
            ("procfiles", "[[roots]]\npath = \"/proc\"\naccess = \"read-write\"\n"),
            (
                "rofiles",
                "[[roots]]\npath = \"/data/lab1/policy\"\naccess = \"read-only\"\n\
                 [[roots]]\npath = \"/data/lab1/policy/free\"\naccess = \"read-write\"\n\
                 [[roots]]\npath = \"/data/lab1/policy/free/held\"\naccess = \"read-only\"\n",
            ),
        ] {
            let user = format!("{name}-portal");
            add_service_user(&user);
            install_application(
                name,
                &format!("service_user = \"{user}\"\ntrust = \"application\"\n{roots}"),
            );
        }
    });
}

/// A folder of this name beneath alice's root, hers alone, and an agent as alice for an account of the same name.
fn begin(name: &str) -> (FileAgent, PathBuf) {
    need_the_sandbox();
    install();
    let root = Path::new("/data/lab1");
    fs::create_dir_all(root).expect("the root");
    fs::set_permissions("/data", Permissions::from_mode(0o755)).expect("a mode");
    fs::set_permissions(root, Permissions::from_mode(0o777)).expect("a mode");
    let folder = root.join(name);
    fs::create_dir(&folder).expect("a folder");
    alices(&folder);
    grant(name, "alice");
    (FileAgent::of(name, "alice"), folder)
}

fn alices(path: &Path) {
    let alice = ids("alice");
    chown(path, Some(alice.uid), Some(alice.gid)).expect("its owner");
}

fn file(path: &Path, text: &str) {
    fs::write(path, text).expect("a file");
    alices(path);
}

fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

/// Every call that takes a path, for this one.
fn every_call(path: &[u8], other: &[u8]) -> Vec<FileRequest> {
    let path = path.to_vec();
    let (p, o) = (|| path.clone(), || other.to_vec());
    vec![
        FileRequest::Open { path: p(), how: for_reading() },
        FileRequest::Open { path: p(), how: for_writing() },
        FileRequest::Open { path: p(), how: OpenHow { truncate: true, ..for_writing() } },
        FileRequest::Stat { path: p(), follow: true },
        FileRequest::Stat { path: p(), follow: false },
        FileRequest::List { path: p(), after: Vec::new(), limit: 10 },
        FileRequest::MakeDirectory { path: p(), mode: None, parents: false },
        FileRequest::MakeDirectory { path: p(), mode: None, parents: true },
        FileRequest::Remove { path: p(), missing_ok: true },
        FileRequest::Rename { from: p(), to: o(), how: RenameHow::Replace },
        FileRequest::Rename { from: o(), to: p(), how: RenameHow::Replace },
        FileRequest::Rename { from: o(), to: p(), how: RenameHow::Exchange },
        FileRequest::Symlink { target: b"x".to_vec(), path: p() },
        FileRequest::ReadLink { path: p() },
        FileRequest::Link { from: p(), to: o() },
        FileRequest::Link { from: o(), to: p() },
        FileRequest::SetMode { path: p(), mode: 0o777 },
        FileRequest::SetGroup { path: p(), gid: 1 },
        FileRequest::SetTimes { path: p(), accessed: None, modified: None },
        FileRequest::GetAcl { path: p(), default: false },
        FileRequest::SetAcl { path: p(), default: false, acl: "u::rwx,g::rwx,o::rwx".parse().ok() },
    ]
}

fn every_long_call(path: &[u8], other: &[u8]) -> Vec<FileRequest> {
    let path = path.to_vec();
    let (p, o) = (|| path.clone(), || other.to_vec());
    vec![
        FileRequest::ListStream { path: p() },
        FileRequest::RemoveTree { path: p(), missing_ok: true },
        FileRequest::DiskUsage { path: p() },
        FileRequest::CopyTree { from: p(), to: o(), resume: false },
        FileRequest::CopyTree { from: o(), to: p(), resume: false },
    ]
}

/// Every call with a path that leads out is refused so, and nothing outside has changed.
fn all_refused(agent: &FileAgent, path: &[u8], inside: &Path, expected: &Ended) {
    let before = fs::metadata("/outside/file").expect("the file");
    for request in every_call(path, &bytes(inside)) {
        assert_eq!(agent.call(&request), *expected, "{request:?}");
    }
    for request in every_long_call(path, &bytes(inside)) {
        assert_eq!(agent.long(&request).expect_err("refused"), *expected, "{request:?}");
    }
    let after = fs::metadata("/outside/file").expect("the file");
    assert_eq!(
        (before.ctime(), before.ctime_nsec(), before.nlink()),
        (after.ctime(), after.ctime_nsec(), after.nlink())
    );
    assert_eq!(fs::read_to_string("/outside/file").expect("the file"), "outside");
}

#[test]
fn dots_and_absolute_paths_lead_nowhere() {
    let (agent, folder) = begin("dots");
    let inside = folder.join("inside");
    file(&inside, "inside");
    for path in [
        "/outside/file",
        "/data/lab1/../../outside/file",
        "/data/lab1/dots/../../../outside/file",
        "/data/lab1/dots/../../lab1/../../outside/file",
        "/data/./lab1/../../outside/file",
        "/data/../data/lab1/dots/inside",
        "/data/lab10/file",
        "/data/lab2/file",
        "/data",
        "/",
        "//",
        "",
        "outside/file",
        "../../../outside/file",
    ] {
        all_refused(&agent, path.as_bytes(), &inside, &OUTSIDE);
    }
    // What stays inside works.
    for path in
        ["/data/lab1/dots/../dots/./inside", "//data//lab1/./dots//inside", "/data/lab1/dots/x/../inside"]
    {
        let expected = if path.contains("/x/") { Err(Ended::Errno(ENOENT)) } else { Ok("inside".to_owned()) };
        assert_eq!(agent.read(path), expected, "{path}");
    }
    // The root itself is nobody's to remove or rename.
    for request in [
        FileRequest::Remove { path: b"/data/lab1".to_vec(), missing_ok: false },
        FileRequest::Rename {
            from: b"/data/lab1/".to_vec(),
            to: bytes(&folder.join("y")),
            how: RenameHow::Replace,
        },
    ] {
        assert_eq!(agent.call(&request), Ended::Errno(EBUSY), "{request:?}");
    }
}

#[test]
fn links_lead_nowhere_outside_and_work_inside() {
    let (agent, folder) = begin("links");
    let inside = folder.join("inside");
    file(&inside, "inside");
    fs::create_dir(folder.join("sub")).expect("a folder");
    alices(&folder.join("sub"));
    for (name, target) in [
        ("absolute", "/outside"),
        ("relative", "../../../outside"),
        ("chain1", "chain2"),
        ("chain2", "sub/../chain3"),
        ("chain3", "../links/absolute"),
        // Absolute links are refused wherever they lead: a root is not the root of what its files say.
        ("absolute-inside", "/data/lab1/links"),
        ("root", "/"),
        ("proc", "/proc/self/root"),
    ] {
        symlink(target, folder.join(name)).expect("a link");
    }
    for name in ["absolute", "relative", "chain1", "root/outside", "proc/outside", "absolute-inside"] {
        all_refused(&agent, &bytes(&folder.join(name).join("file")), &inside, &OUTSIDE);
    }
    // A link as the last component: what opens or follows it is refused, what is about the name is about the link.
    symlink("/outside/file", folder.join("last")).expect("a link");
    let last = bytes(&folder.join("last"));
    for how in [for_reading(), for_writing(), OpenHow { truncate: true, ..for_writing() }] {
        assert_eq!(agent.open(&last, how).expect_err("refused"), OUTSIDE);
    }
    let exclusive = OpenHow { exclusive: true, ..for_writing() };
    assert_eq!(agent.open(&last, exclusive).expect_err("refused"), Ended::Errno(17));
    for request in [
        FileRequest::Stat { path: last.clone(), follow: true },
        FileRequest::SetMode { path: last.clone(), mode: 0o777 },
        FileRequest::SetGroup { path: last.clone(), gid: ids("alice").gid },
        FileRequest::SetAcl { path: last.clone(), default: false, acl: None },
    ] {
        assert_eq!(agent.call(&request), OUTSIDE, "{request:?}");
    }
    assert_eq!(
        agent.call(&FileRequest::ReadLink { path: last.clone() }),
        Ended::Answer(FileReply::Target(b"/outside/file".to_vec()))
    );
    // A slash at the end does not make a name be followed.
    let with_slash = [last.clone(), b"/".to_vec()].concat();
    let to = bytes(&folder.join("hard"));
    agent.call(&FileRequest::Link { from: with_slash, to });
    let hard = fs::symlink_metadata(folder.join("hard"));
    assert!(hard.is_err() || hard.is_ok_and(|found| found.is_symlink()), "the link was followed");
    // Loops end.
    symlink("loop", folder.join("loop")).expect("a link");
    symlink("loop2b", folder.join("loop2a")).expect("a link");
    symlink("loop2a", folder.join("loop2b")).expect("a link");
    for name in ["loop", "loop2a", "loop/x"] {
        assert_eq!(agent.read(bytes(&folder.join(name))), Err(Ended::Errno(ELOOP)), "{name}");
    }
    // Inside they work; a broken one can be removed.
    symlink("../links/./inside", folder.join("good")).expect("a link");
    assert_eq!(agent.read(bytes(&folder.join("good"))), Ok("inside".into()));
    symlink("nowhere", folder.join("broken")).expect("a link");
    let broken = bytes(&folder.join("broken"));
    assert_eq!(
        agent.call(&FileRequest::Remove { path: broken.clone(), missing_ok: false }),
        Ended::Answer(FileReply::Done)
    );
    assert!(fs::symlink_metadata(folder.join("broken")).is_err());
    assert_eq!(
        agent.call(&FileRequest::Remove { path: broken, missing_ok: true }),
        Ended::Answer(FileReply::Done)
    );
}

#[test]
fn magic_links_are_not_followed() {
    need_the_sandbox();
    install();
    grant_in("procfiles", "magic", "alice");
    let agent = FileAgent::start(&files_of("procfiles", "magic", "alice")).expect("an agent");
    // That it is there and beneath the root, and that it is the link that is refused.
    assert!(matches!(agent.call(&stat("/proc/self/root")), Ended::Answer(FileReply::Stat(_))));
    assert!(agent.read("/proc/version").is_ok());
    for path in [
        "/proc/self/root/etc/passwd",
        "/proc/self/cwd/etc/passwd",
        "/proc/self/fd/0",
        "/proc/self/fd/3",
        "/proc/self/fd/4",
        "/proc/thread-self/root/etc/passwd",
        "/proc/self/exe",
        "/proc/self/task/../root/etc/passwd",
    ] {
        let ended = agent.read(path).expect_err("refused");
        assert!([ELOOP, EACCES, ENOENT].map(Ended::Errno).contains(&ended), "{path}: {ended:?}");
    }
    assert_eq!(agent.read("/proc/self/root/etc/passwd"), Err(Ended::Errno(ELOOP)));
    // Nothing of the agent's own can be had either: it is not to be traced, and its memory is not alice's.
    for path in ["/proc/self/mem", "/proc/self/environ", "/proc/1/environ"] {
        assert!(agent.read(path).is_err(), "{path}");
    }
}

#[test]
fn mounts_and_hard_links_are_what_the_kernel_makes_of_them() {
    let (agent, folder) = begin("mounts");
    let secret = Path::new("/outside/secret");
    fs::write(secret, "secret").expect("a file");
    fs::set_permissions(secret, Permissions::from_mode(0o600)).expect("a mode");
    fs::write("/outside/linked", "outside").expect("a file");
    fs::hard_link("/outside/linked", folder.join("hard")).expect("a link");
    fs::hard_link(secret, folder.join("hard-secret")).expect("a link");
    // A name in the root is a name in the root, and the file's own mode decides.
    assert_eq!(agent.read(bytes(&folder.join("hard"))), Ok("outside".into()));
    assert_eq!(agent.read(bytes(&folder.join("hard-secret"))), Err(Ended::Errno(EACCES)));
    // Alice cannot give root's files a name in the root herself, as she could not in a login (fs.protected_hardlinks),
    // and the agent does not for her: the other side is beneath no root.
    let link = FileRequest::Link { from: b"/outside/file".to_vec(), to: bytes(&folder.join("h")) };
    assert_eq!(agent.call(&link), OUTSIDE);
    // What root mounts beneath a root is beneath it; a read-only mount is read-only; `..` of a mount stays in the tree.
    let mount = folder.join("mount");
    fs::create_dir(&mount).expect("a folder");
    let at = mount.to_str().expect("text");
    run("mount", &["--bind", "/outside", at]);
    assert_eq!(agent.read(bytes(&mount.join("file"))), Ok("outside".into()));
    assert_eq!(agent.read(bytes(&mount.join("secret"))), Err(Ended::Errno(EACCES)));
    assert_eq!(agent.read(bytes(&mount.join("../../../../outside/file"))), Err(OUTSIDE));
    assert_eq!(agent.read(bytes(&mount.join("../hard"))), Ok("outside".into()));
    assert_eq!(
        agent.call(&FileRequest::Remove { path: bytes(&mount), missing_ok: false }),
        Ended::Errno(EBUSY)
    );
    run("mount", &["-o", "remount,bind,ro", at]);
    assert_eq!(
        agent.open(bytes(&mount.join("new")), for_writing()).expect_err("refused"),
        Ended::Errno(EROFS)
    );
    run("umount", &[at]);
    fs::remove_file(secret).expect("removed");
}

#[test]
fn names_are_bytes_of_any_sort_within_what_the_file_system_takes() {
    let (agent, folder) = begin("names");
    let names: Vec<Vec<u8>> = vec![
        b"new\nline".to_vec(),
        b"\xff\xfe invalid \xc3".to_vec(),
        b" -rf *".to_vec(),
        b"\x1b[31m".to_vec(),
        vec![b'a'; 255],
        b"...".to_vec(),
        "j\u{fc}rgen \u{202e}".into(),
    ];
    for name in &names {
        let path = [&bytes(&folder), &b"/"[..], name].concat();
        drop(agent.open(&path, for_writing()).unwrap_or_else(|ended| panic!("{name:?}: {ended:?}")));
        assert!(matches!(agent.call(&stat(&path)), Ended::Answer(FileReply::Stat(_))), "{name:?}");
    }
    let Ended::Answer(FileReply::Entries { entries, more }) =
        agent.call(&FileRequest::List { path: bytes(&folder), after: Vec::new(), limit: 1000 })
    else {
        panic!("no page")
    };
    let mut expected = names.clone();
    expected.sort();
    assert_eq!(entries.iter().map(|entry| entry.name.clone()).collect::<Vec<_>>(), expected);
    assert!(!more);
    // Pages of two, each after the last name of the one before.
    let (mut paged, mut after) = (Vec::new(), Vec::new());
    loop {
        let list = FileRequest::List { path: bytes(&folder), after: after.clone(), limit: 2 };
        let Ended::Answer(FileReply::Entries { entries, more }) = agent.call(&list) else {
            panic!("no page")
        };
        paged.extend(entries.into_iter().map(|entry| entry.name));
        after.clone_from(paged.last().expect("a name"));
        if !more {
            break;
        }
    }
    assert_eq!(paged, expected);
    let lines = agent.long(&FileRequest::ListStream { path: bytes(&folder) }).expect("lines");
    assert_eq!(lines.len(), names.len() + 1);
    assert_eq!(lines.last().expect("a line")["done"], names.len());
    assert!(lines.iter().any(|line| line["name"] == "\\xff\\xfe invalid \\xc3"), "{lines:?}");
    // What no file system takes.
    for (name, expected) in [(vec![b'a'; 256], ENAMETOOLONG), (b"nul\0byte".to_vec(), EINVAL)] {
        let path = [&bytes(&folder), &b"/"[..], &name].concat();
        for request in every_call(&path, &bytes(&folder.join("..."))) {
            assert_eq!(agent.call(&request), Ended::Errno(expected), "{request:?}");
        }
    }
    // A NUL must not cut a path to one that is allowed.
    let mut cut = bytes(&folder.join("..."));
    cut.extend(b"\0/../../../../outside/file");
    assert_eq!(agent.read(&cut), Err(Ended::Errno(EINVAL)));
}

#[test]
fn a_tree_of_depth_ten_thousand_is_measured_copied_and_removed() {
    const DEPTH: usize = 10_000;
    let (agent, folder) = begin("deep");
    deep(&folder.join("tree"), DEPTH);
    // As a login: no path of the kernel's has so many bytes.
    let path = [bytes(&folder.join("tree")), b"/d".repeat(DEPTH)].concat();
    assert_eq!(agent.call(&stat(&path)), Ended::Errno(ENAMETOOLONG));
    let make =
        FileRequest::MakeDirectory { path: [path, b"/x/y".to_vec()].concat(), mode: None, parents: true };
    assert_eq!(agent.call(&make), Ended::Errno(ENAMETOOLONG));
    let last = |lines: Vec<serde_json::Value>| lines.last().expect("a line").clone();
    let tree = bytes(&folder.join("tree"));
    let usage = last(agent.long(&FileRequest::DiskUsage { path: tree.clone() }).expect("lines"));
    assert_eq!(
        (usage["result"].as_str(), usage["done"].as_u64()),
        (Some("done"), Some(DEPTH as u64 + 1)),
        "{usage}"
    );
    // The kernel asks Landlock about every folder above each one that is opened: copying costs the square of the depth.
    let copied_depth = if std::env::var_os("DEPUTY_SOAK").is_some() { DEPTH } else { DEPTH / 10 };
    deep(&folder.join("tree2"), copied_depth);
    let (tree2, copy) = (bytes(&folder.join("tree2")), bytes(&folder.join("copy")));
    let copied = FileRequest::CopyTree { from: tree2.clone(), to: copy.clone(), resume: false };
    let copied = last(agent.long(&copied).expect("lines"));
    assert_eq!(
        (copied["result"].as_str(), copied["done"].as_u64()),
        (Some("done"), Some(copied_depth as u64 + 1)),
        "{copied}"
    );
    for (path, depth) in [(tree, DEPTH), (tree2, copied_depth), (copy, copied_depth)] {
        let removed = last(
            agent.long(&FileRequest::RemoveTree { path: path.clone(), missing_ok: false }).expect("lines"),
        );
        assert_eq!(
            (removed["result"].as_str(), removed["done"].as_u64()),
            (Some("done"), Some(depth as u64 + 1)),
            "{removed}"
        );
        assert_eq!(agent.call(&stat(&path)), Ended::Errno(ENOENT));
    }
}

/// Makes folders in folders, which no path can name, as alice's.
fn deep(top: &Path, depth: usize) {
    use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid, chownat, mkdirat, openat};
    let alice = ids("alice");
    let (uid, gid) = (Some(Uid::from_raw(alice.uid)), Some(Gid::from_raw(alice.gid)));
    let open = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    mkdirat(CWD, top, Mode::RWXU).expect("a folder");
    alices(top);
    let mut at = openat(CWD, top, open, Mode::empty()).expect("the folder");
    for _ in 0..depth {
        mkdirat(&at, "d", Mode::RWXU).expect("a folder");
        chownat(&at, "d", uid, gid, AtFlags::SYMLINK_NOFOLLOW).expect("its owner");
        at = openat(&at, "d", open, Mode::empty()).expect("the folder");
    }
}

/// For how long a race is run.
fn race_time() -> Duration {
    Duration::from_secs(if std::env::var_os("DEPUTY_SOAK").is_some() { 60 } else { 3 })
}

#[test]
fn a_link_that_is_swapped_during_the_call_leads_nowhere() {
    let (agent, folder) = begin("swapped");
    let (name, good, bad) = (folder.join("x"), folder.join("good"), folder.join("bad"));
    fs::create_dir(&good).expect("a folder");
    alices(&good);
    file(&good.join("file"), "inside");
    symlink("/outside", &bad).expect("a link");
    symlink("good", &name).expect("a link");
    let stop = AtomicBool::new(false);
    let (mut inside, mut refused) = (0u32, 0u32);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use rustix::fs::{CWD, RenameFlags, renameat_with};
            while !stop.load(Ordering::Relaxed) {
                renameat_with(CWD, &name, CWD, &bad, RenameFlags::EXCHANGE).expect("exchanged");
            }
        });
        let end = Instant::now() + race_time();
        let mut number = 0;
        while Instant::now() < end {
            match agent.read(bytes(&name.join("file"))) {
                Ok(text) => {
                    assert_eq!(text, "inside");
                    inside += 1;
                }
                Err(ended) => {
                    assert_eq!(ended, OUTSIDE);
                    refused += 1;
                }
            }
            number += 1;
            let new = bytes(&name.join(format!("new{number}")));
            let _ = agent.open(&new, for_writing());
            agent.call(&FileRequest::MakeDirectory {
                path: [&new[..], b"d"].concat(),
                mode: None,
                parents: true,
            });
            agent.call(&FileRequest::Remove { path: new, missing_ok: true });
            let _ =
                agent.long(&FileRequest::RemoveTree { path: bytes(&name.join("file2")), missing_ok: true });
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(inside > 0 && refused > 0, "the race was none: {inside} inside, {refused} refused");
    let outside: Vec<_> =
        fs::read_dir("/outside").expect("the folder").flatten().map(|entry| entry.file_name()).collect();
    assert!(
        outside.iter().all(|name| ["file", "secret", "linked"].iter().any(|known| name == known)),
        "{outside:?}"
    );
}

#[test]
fn renaming_what_is_above_a_walk_does_not_lead_it_elsewhere() {
    let (agent, folder) = begin("renamed");
    let end = Instant::now() + race_time();
    let mut rounds = 0;
    while Instant::now() < end {
        rounds += 1;
        // A tree deeper than what is held open, so that the way back is by `..`.
        let tree = folder.join(format!("tree{rounds}"));
        deep(&tree, 300);
        let elsewhere = folder.join(format!("elsewhere{rounds}"));
        fs::create_dir(&elsewhere).expect("a folder");
        alices(&elsewhere);
        file(&elsewhere.join("precious"), "precious");
        let below: PathBuf = tree.join("d/".repeat(100));
        let stop = AtomicBool::new(false);
        let lines = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let moved = elsewhere.join("moved");
                    if fs::rename(&below, &moved).is_ok() {
                        let _ = fs::rename(&moved, &below);
                    }
                }
            });
            let lines = agent.long(&FileRequest::RemoveTree { path: bytes(&tree), missing_ok: false });
            stop.store(true, Ordering::Relaxed);
            lines
        });
        let lines = lines.expect("lines");
        let last = lines.last().expect("a line");
        assert!(last["result"] == "done" || last["result"] == "failed", "{last}");
        assert_eq!(
            fs::read_to_string(elsewhere.join("precious")).expect("what is elsewhere stays"),
            "precious"
        );
        run("rm", &["-rf", tree.to_str().expect("text"), elsewhere.to_str().expect("text")]);
    }
    assert!(rounds > 0);
}

#[test]
fn special_files_and_folders_are_not_handed_out() {
    let (agent, folder) = begin("special");
    let pipe = folder.join("pipe");
    run("mkfifo", &[pipe.to_str().expect("text")]);
    alices(&pipe);
    // Nobody reads or writes it, and the agent does not wait for somebody who does.
    assert_eq!(
        agent.open(bytes(&pipe), for_reading()).expect_err("refused"),
        Ended::Refused(Code::InvalidArgument)
    );
    assert_eq!(
        agent.open(bytes(&pipe), OpenHow { write: true, ..OpenHow::default() }).expect_err("refused"),
        Ended::Errno(6)
    );
    assert_eq!(agent.open(bytes(&folder), for_reading()).expect_err("refused"), Ended::Errno(EISDIR));
    // A copy says what it leaves out.
    fs::create_dir(folder.join("tree")).expect("a folder");
    alices(&folder.join("tree"));
    run("mkfifo", &[folder.join("tree/pipe").to_str().expect("text")]);
    symlink(".", folder.join("tree/itself")).expect("a link");
    file(&folder.join("tree/file"), "text");
    let (from, to) = (bytes(&folder.join("tree")), bytes(&folder.join("copy")));
    let lines = agent
        .long(&FileRequest::CopyTree { from: from.clone(), to: to.clone(), resume: false })
        .expect("lines");
    assert!(lines.iter().any(|line| line["left_out"] == "pipe" && line["kind"] == "pipe"), "{lines:?}");
    let last = lines.last().expect("a line");
    assert_eq!((last["result"].as_str(), last["left_out"].as_u64()), (Some("done"), Some(1)), "{last}");
    assert_eq!(fs::read_link(folder.join("copy/itself")).expect("a link"), Path::new("."));
    assert_eq!(fs::read_to_string(folder.join("copy/file")).expect("a file"), "text");
    assert_eq!(fs::metadata(folder.join("copy/file")).expect("a file").uid(), ids("alice").uid);
    // Again: refused without resume, and nothing to do with it.
    let again = |resume| {
        agent.long(&FileRequest::CopyTree { from: from.clone(), to: to.clone(), resume }).expect("lines")
    };
    assert_eq!(again(false).last().expect("a line")["errno"], 17);
    assert_eq!(again(true).last().expect("a line")["result"], "done");
    // A copy into itself ends.
    let inner =
        FileRequest::CopyTree { from: from.clone(), to: [&from[..], b"/inner"].concat(), resume: false };
    let lines = agent.long(&inner).expect("lines");
    assert_eq!(lines.last().expect("a line")["errno"], EINVAL);
}

#[test]
fn what_is_read_only_by_policy_is_not_changed_by_any_way() {
    let (_, folder) = begin("policy");
    let mark = folder.join("mark");
    file(&mark, "mark");
    fs::create_dir(folder.join("free")).expect("a folder");
    fs::create_dir_all(folder.join("free/held/deeper")).expect("folders");
    for path in ["free", "free/held", "free/held/deeper"] {
        alices(&folder.join(path));
    }
    file(&folder.join("free/held/file"), "held");
    symlink("held", folder.join("free/way")).expect("a link");
    grant_in("rofiles", "reader", "alice");
    let agent = FileAgent::start(&files_of("rofiles", "reader", "alice")).expect("an agent");
    let read_only = Ended::Refused(Code::RootReadOnly);
    let free = folder.join("free");
    for path in [
        mark.clone(),
        folder.join("new"),
        free.join("held/file"),
        free.join("held/deeper/new"),
        free.join("held/../held/file"),
        free.join("./held//file"),
    ] {
        let path = bytes(&path);
        for request in every_call(&path, &bytes(&free.join("other"))) {
            let changes = !matches!(
                request,
                FileRequest::Stat { .. }
                    | FileRequest::List { .. }
                    | FileRequest::ReadLink { .. }
                    | FileRequest::GetAcl { .. }
                    | FileRequest::Open { how: OpenHow { write: false, .. }, .. }
            );
            // Where the other name is looked at first, that it is not there may be said.
            if changes {
                let ended = agent.call(&request);
                assert!(ended == read_only || ended == Ended::Errno(ENOENT), "{request:?}: {ended:?}");
            }
        }
    }
    // By a link, and by moving what the read-only root is in.
    assert!(agent.open(bytes(&free.join("way/file")), for_writing()).is_err());
    assert!(agent.open(bytes(&free.join("way/new")), for_writing()).is_err());
    for request in [
        FileRequest::Rename {
            from: bytes(&free.join("held")),
            to: bytes(&free.join("moved")),
            how: RenameHow::Replace,
        },
        FileRequest::Remove { path: bytes(&free.join("held")), missing_ok: false },
    ] {
        assert_eq!(agent.call(&request), read_only, "{request:?}");
    }
    let tree = FileRequest::RemoveTree { path: bytes(&free.join("held")), missing_ok: false };
    assert_eq!(agent.long(&tree).expect_err("refused"), read_only);
    assert_eq!(fs::read_to_string(free.join("held/file")).expect("the file"), "held");
    assert_eq!(fs::read_to_string(&mark).expect("the file"), "mark");
    // What is free is free, and everything can be read.
    assert!(agent.open(bytes(&free.join("new")), for_writing()).is_ok());
    assert_eq!(agent.read(bytes(&free.join("way/file"))), Ok("held".into()));
    assert_eq!(agent.read(bytes(&mark)), Ok("mark".into()));
}
