//! Quotas that the kernel counts and enforces, on ext4 and XFS file systems of their own: at the same byte as for a login,
//! in the numbers of the systems' own tools, in an upload, in the copy of a tree, and told before a write fails.
//!
//! They run where the kernel has quotas: in the virtual machine.
#![forbid(unsafe_code)]

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::PathBuf;
use std::process::Command;

use deputy_suite::acting::{acting_as, ids};
use deputy_suite::client::{Client, Dictionary, Options, on_bus, text};
use deputy_suite::machine::{add_service_user, install_application, names_in, run, wait_until};
use deputy_suite::people::{ok, refused};
use deputy_suite::requests::grant_in;
use deputy_suite::{Output, deputyctl, need_the_sandbox, skip};
use zbus::Variant;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// A file system with quotas, on which alice has a folder.
struct Disk {
    kind: &'static str,
    root: PathBuf,
    portal: String,
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["--lazy"]).arg(&self.root).status();
    }
}

impl Disk {
    /// Makes one, and an application whose root it is. None where this kernel knows no quotas.
    fn new(kind: &'static str) -> Option<Self> {
        need_the_sandbox();
        let disk = std::env::var_os("DEPUTY_SUITE_DISK").map(PathBuf::from)?;
        let image = disk.join(format!("{kind}.image"));
        File::create(&image).and_then(|file| file.set_len(400 * MIB)).expect("an image");
        let root = PathBuf::from(format!("/data/{kind}"));
        fs::create_dir_all(&root).expect("the root");
        fs::set_permissions("/data", Permissions::from_mode(0o755)).expect("a mode");
        let image = image.to_str().expect("text");
        let (make, options): (&[&str], &str) = match kind {
            "ext4" => (&["mkfs.ext4", "-q", "-O", "quota"], "loop,usrquota,grpquota"),
            _ => (&["mkfs.xfs", "-q", "-f"], "loop,uquota,gquota,pquota"),
        };
        run(make[0], &[&make[1..], &[image]].concat());
        run("mount", &["-o", options, image, root.to_str().expect("text")]);
        if kind == "ext4" {
            // Where it is on already it says so, and fails.
            let _ = Command::new("quotaon").arg("-ug").arg(&root).output();
        }
        let folder = root.join("alice");
        fs::create_dir(&folder).expect("a folder");
        let alice = ids("alice");
        chown(&folder, Some(alice.uid), Some(alice.gid)).expect("its owner");
        let (portal, application) = (format!("{kind}portal"), format!("{kind}files"));
        add_service_user(&portal);
        install_application(
            &application,
            &format!(
                "service_user = \"{portal}\"\ntrust = \"application\"\n[kinds.batch]\ncommands = [\"*\"]\n\
                 [[roots]]\npath = \"{}\"\naccess = \"read-write\"\n",
                root.display()
            ),
        );
        wait_until("the application is known", || {
            deputyctl(&portal, &["account", "add", &application, "ada"]).status == 0
        });
        grant_in(&application, "ada", "alice");
        ok(&deputyctl(&portal, &["link", "request", &application, "ada", "alice"]));
        Some(Self { kind, root, portal })
    }

    /// A local file of so many bytes, that the portal can read.
    fn local(&self, bytes: u64) -> String {
        let path = format!("/tmp/{}-{bytes}", self.kind);
        fs::write(&path, vec![b'x'; usize::try_from(bytes).expect("a size")]).expect("a file");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("a mode");
        path
    }

    fn path(&self, name: &str) -> String {
        format!("{}/alice/{name}", self.root.display())
    }

    /// Limits of alice's, in KiB.
    fn limit(&self, soft: u64, hard: u64) {
        let root = self.root.to_str().expect("text");
        if self.kind == "ext4" {
            run("setquota", &["-u", "alice", &soft.to_string(), &hard.to_string(), "0", "0", root]);
        } else {
            let words = format!("limit -u bsoft={soft}k bhard={hard}k alice");
            run("xfs_quota", &["-x", "-c", &words, root]);
        }
    }

    /// What the system's own tool says about alice: bytes used, soft and hard limit, files used.
    fn told(&self) -> [u64; 4] {
        let root = self.root.to_str().expect("text");
        let kib = |word: &str| word.parse::<u64>().expect("a number") * KIB;
        if self.kind == "ext4" {
            let output = Command::new("repquota").args(["-u", "-O", "csv", root]).output().expect("repquota");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let line = text.lines().find(|line| line.starts_with("alice,")).expect("alice's line");
            let words: Vec<&str> = line.split(',').collect();
            return [kib(words[3]), kib(words[4]), kib(words[5]), words[7].parse().expect("a number")];
        }
        let ask = |what: &str| {
            let words = format!("quota -u {what} -N alice");
            let output =
                Command::new("xfs_quota").args(["-x", "-c", &words, root]).output().expect("xfs_quota");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            text.split_ascii_whitespace().map(ToOwned::to_owned).collect::<Vec<_>>()
        };
        let (blocks, files) = (ask("-b"), ask("-i"));
        [kib(&blocks[1]), kib(&blocks[2]), kib(&blocks[3]), files[1].parse().expect("a number")]
    }

    fn empty(&self) {
        let folder = self.root.join("alice");
        for entry in fs::read_dir(&folder).expect("the folder").flatten() {
            let path = entry.path();
            if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.expect("removed");
        }
        run("sync", &["-f", folder.to_str().expect("text")]);
    }

    fn deputyctl(&self, words: &[&str]) -> Output {
        deputyctl(&self.portal, words)
    }

    fn file(&self, words: &[&str]) -> Output {
        self.deputyctl(&[&["file", words[0], "--account", "ada"], &words[1..]].concat())
    }

    fn names(&self, folder: &str) -> Vec<String> {
        names_in(self.path(folder))
    }
}

/// Writes until the kernel refuses; how many bytes it took, and with which error it refused.
fn fill(mut file: &File) -> (u64, i32) {
    let chunk = vec![b'x'; 10_000];
    let mut taken = 0;
    loop {
        match file.write(&chunk) {
            Ok(count) => taken += count as u64,
            Err(error) => return (taken, error.raw_os_error().unwrap_or_default()),
        }
        assert!(taken < 100 * MIB, "nothing refuses it");
    }
}

const EDQUOT: i32 = 122;

fn at_the_same_byte_as_for_a_login(disk: &Disk) {
    disk.empty();
    disk.limit(0, 20 * KIB);
    let path = disk.path("by-login");
    let by_login = acting_as(ids("alice"), || fill(&File::create(&path).expect("a file")));
    assert_eq!(by_login.1, EDQUOT);
    fs::remove_file(&path).expect("removed");
    run("sync", &["-f", "/"]);
    let (by_descriptor, committed) = on_bus(&disk.portal, async |client: Client| {
        let how: Options =
            ["write", "create", "keep"].into_iter().map(|flag| (flag, Variant::from(true))).collect();
        let body = ("ada", disk.path("by-descriptor").into_bytes(), how);
        let (file, handle): (zbus::OwnedFd, String) = client.call("Files.Open", &body).await.expect("a file");
        let file = File::from(std::os::fd::OwnedFd::from(file));
        let filled = fill(&file);
        // What was taken is on the disk; the next byte is refused.
        let committed = client.call::<_, ()>("Files.Commit", &("ada", handle.as_str(), Options::new())).await;
        (filled, committed)
    });
    assert_eq!(by_descriptor, by_login, "{}", disk.kind);
    assert_eq!(committed, Ok(()));
    assert_eq!(fs::metadata(disk.path("by-descriptor")).expect("the file").len(), by_descriptor.0);
    // In a job too.
    disk.empty();
    let job = disk.deputyctl(&[
        "run",
        "--app",
        &format!("{}files", disk.kind),
        "--account",
        "ada",
        "--",
        "dd",
        "if=/dev/zero",
        &format!("of={}", disk.path("by-job")),
        "bs=10000",
        "count=10000",
    ]);
    assert_ne!(job.status, 0);
    assert!(job.stderr.contains("Disk quota exceeded"), "{}", job.stderr);
    assert_eq!(fs::metadata(disk.path("by-job")).expect("the file").len(), by_login.0, "{}", disk.kind);
}

fn an_upload_and_a_copy_leave_nothing_half(disk: &Disk) {
    disk.empty();
    disk.limit(0, 10 * KIB);
    let upload = disk.file(&["put", &disk.local(12 * MIB), &disk.path("upload")]);
    assert_eq!(refused(&upload), "FileError");
    for expected in ["Disk quota exceeded", "10.0 MiB space", &format!("uid {}", ids("alice").uid)] {
        assert!(upload.stderr.contains(expected), "{expected}: {}", upload.stderr);
    }
    assert_eq!(disk.names(""), Vec::<String>::new());

    disk.limit(0, 20 * KIB);
    ok(&disk.file(&["mkdir", &disk.path("tree")]));
    let part = disk.local(MIB);
    for number in 0..12 {
        ok(&disk.file(&["put", &part, &disk.path(&format!("tree/f{number:02}"))]));
    }
    let copy = disk.file(&["cp", &disk.path("tree"), &disk.path("copy")]);
    assert_eq!(refused(&copy), "FileError");
    assert!(
        copy.stderr.contains("Disk quota exceeded") && copy.stderr.contains("20.0 MiB space"),
        "{}",
        copy.stderr
    );
    let part = disk.names("copy");
    assert!(!part.is_empty() && part.len() < 12, "{part:?}");
    for name in &part {
        assert_eq!(fs::metadata(disk.path(&format!("copy/{name}"))).expect("a file").len(), MIB, "{name}");
    }
    disk.limit(0, 60 * KIB);
    ok(&disk.file(&["cp", "--resume", &disk.path("tree"), &disk.path("copy")]));
    assert_eq!(disk.names("copy"), disk.names("tree"));
}

fn the_numbers_are_those_of_the_system_s_own_tool(disk: &Disk) {
    disk.empty();
    disk.limit(8 * KIB, 40 * KIB);
    let odd = disk.local(5_000_001);
    for name in ["one", "two"] {
        ok(&disk.file(&["put", &odd, &disk.path(name)]));
    }
    run("sync", &["-f", disk.root.to_str().expect("text")]);
    let told = disk.told();
    let quota = on_bus(&disk.portal, async |client: Client| {
        let (places,): (Vec<Dictionary>,) =
            client.call("Files.Quota", &("ada", Options::new())).await.expect("places");
        let quotas = places[0]["quotas"].try_clone().expect("quotas");
        let quotas: Vec<Dictionary> = Vec::try_from(Variant::from(quotas)).expect("a list of records");
        let whose = format!("uid {}", ids("alice").uid);
        let quota =
            quotas.iter().find(|quota| text(quota, "whose").as_ref() == Some(&whose)).expect("alice's");
        ["space_used", "space_soft", "space_hard", "files_used"]
            .map(|name| u64::try_from(quota[name].try_clone().expect("a number")).expect("a number"))
    });
    assert_eq!(quota, told, "{}", disk.kind);
    assert_eq!((told[1], told[2]), (8 * MIB, 40 * MIB));
    assert!(told[0] >= 10_000_002, "{told:?}");
}

fn an_alert_is_raised_at_eighty_percent_and_once(disk: &Disk) {
    disk.empty();
    disk.limit(0, 10 * KIB);
    let application = format!("{}files", disk.kind);
    let alerts = || -> Vec<serde_json::Value> {
        ok(&disk.deputyctl(&["quota", "--account", "ada"]));
        let list = ok(&disk.deputyctl(&["--json", "alert", "list", &application]));
        serde_json::from_str(&list).expect("JSON")
    };
    assert!(alerts().is_empty());
    let put = |kib: u64, name: &str| {
        ok(&disk.file(&["put", &disk.local(kib * KIB), &disk.path(name)]));
    };
    put(8000, "below");
    assert!(alerts().is_empty(), "78 percent is below");
    put(400, "above");
    for _ in 0..3 {
        let found = alerts();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((&found[0]["threshold"], &found[0]["of"]), (&80.into(), &"space".into()));
        assert_eq!(found[0]["limit"], 10 * MIB);
    }
    // The look before a job has the same numbers.
    let job = disk.deputyctl(&[
        "run",
        "--app",
        &application,
        "--account",
        "ada",
        "--needs",
        "4M",
        "--needs-path",
        &disk.path(""),
        "--",
        "true",
    ]);
    assert_eq!(refused(&job), "NotEnoughSpace");
    assert!(job.stderr.contains("of 10.0 MiB space"), "{}", job.stderr);
    disk.empty();
    assert!(alerts().is_empty());
}

/// The quotas of a group and of a tree count as well, and are told.
fn a_group_s_and_a_tree_s_quota_count_too(disk: &Disk) {
    disk.empty();
    disk.limit(0, 0);
    let root = disk.root.to_str().expect("text");
    if disk.kind == "ext4" {
        run("setquota", &["-g", "alice", "0", "6144", "0", "0", root]);
    } else {
        run("xfs_quota", &["-x", "-c", "limit -g bhard=6m alice", root]);
    }
    let gid = format!("gid {}: ", ids("alice").gid);
    let upload = disk.file(&["put", &disk.local(8 * MIB), &disk.path("upload")]);
    assert_eq!(refused(&upload), "FileError");
    assert!(upload.stderr.contains(&gid) && upload.stderr.contains("of 6.0 MiB space"), "{}", upload.stderr);
    if disk.kind == "ext4" {
        run("setquota", &["-g", "alice", "0", "0", "0", "0", root]);
    } else {
        run("xfs_quota", &["-x", "-c", "limit -g bhard=0 alice", root]);
    }
    if disk.kind != "xfs" {
        return;
    }
    let tree = disk.path("tree");
    ok(&disk.file(&["mkdir", &tree]));
    run("xfs_quota", &["-x", "-c", &format!("project -s -p {tree} 42"), root]);
    run("xfs_quota", &["-x", "-c", "limit -p bhard=30m 42", root]);
    let needs = |bytes: &str| {
        let words = ["run", "--app", "xfsfiles", "--account", "ada", "--needs", bytes, "--needs-path"];
        disk.deputyctl(&[&words, &[tree.as_str(), "--", "true"][..]].concat())
    };
    assert_eq!(refused(&needs("31M")), "NotEnoughSpace");
    assert!(needs("31M").stderr.contains("quota project 42: "), "{}", needs("31M").stderr);
    assert_eq!(needs("20M").status, 0);
}

fn all(kind: &'static str) {
    let Some(disk) = Disk::new(kind) else {
        return skip(&format!(
            "files_kernel_quota: this is no machine whose kernel has quotas on {kind}; make test-vm is"
        ));
    };
    at_the_same_byte_as_for_a_login(&disk);
    an_upload_and_a_copy_leave_nothing_half(&disk);
    the_numbers_are_those_of_the_system_s_own_tool(&disk);
    an_alert_is_raised_at_eighty_percent_and_once(&disk);
    a_group_s_and_a_tree_s_quota_count_too(&disk);
}

#[test]
fn quotas_of_ext4() {
    all("ext4");
}

#[test]
fn quotas_of_xfs() {
    all("xfs");
}
