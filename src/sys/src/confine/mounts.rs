//! The first wall: a root directory of the job's own, put together from parts of the machine's.
//!
//! It is built in a mount namespace of the job's own, on a tmpfs that covers Deputy's own folder in /run, and then
//! takes the place of `/`; the old root is let go. What root makes here lies in that tmpfs. A folder of the user's is
//! never looked up by path as root: it comes as a descriptor that was opened as the user.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::{Confinement, Opened};
use crate::drop::Credentials;

/// Where the new root is put together; nothing of it is needed in the job's namespace.
const STAGE: &str = "/run/deputy";

/// What of the system can be read, as far as it is there. Links among them are made anew.
const SYSTEM: [&str; 10] =
    ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/usr", "/etc", "/opt", "/sys"];

/// Devices that are no more than they seem.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// The links that programs expect in /dev.
const DEVICE_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// What temporary folders may take of the machine's memory, as tmpfs(5) reads it.
const SCRATCH: &str = "size=10%,nr_inodes=100k";

/// `struct mount_attr` of `mount_setattr(2)`.
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

const MOUNT_ATTR_RDONLY: u64 = 0x1;
const MOUNT_ATTR_NOSUID: u64 = 0x2;
const MOUNT_ATTR_NODEV: u64 = 0x4;
const MOUNT_ATTR_NOEXEC: u64 = 0x8;

fn set_attributes(tree: BorrowedFd<'_>, set: u64, recursive: bool) -> io::Result<()> {
    let attributes = MountAttributes { set, clear: 0, propagation: 0, userns: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty NUL-terminated string, and the structure, which outlives the call, is as large as
    // is said.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether the kernel has the calls. They fail here, with something else than "no such call".
pub fn supported() -> bool {
    let no_such_call = |error: io::Error| error.raw_os_error() == Some(libc::ENOSYS);
    let nowhere = match fs::File::open("/dev/null") {
        Ok(file) => OwnedFd::from(file),
        Err(_) => return false,
    };
    // /dev/null is no mount's root, which is what the call wants.
    !set_attributes(nowhere.as_fd(), 0, false).is_err_and(no_such_call)
        && open_tree(CWD, "/", OpenTreeFlags::OPEN_TREE_CLOEXEC).is_ok()
}

/// Gives this process mounts of its own: nothing that happens to them shows outside. Folders are opened after this,
/// because only what lies in one's own mounts can be put to another place.
pub fn part() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    Ok(mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?)
}

/// Builds the new root and makes it this process's.
pub fn enter(wanted: &Confinement, folders: &[Opened], credentials: &Credentials) -> io::Result<()> {
    // What is made here is for everybody to see; the job's own mask is set later.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let resolver = resolver();
    mount_tmpfs(Path::new(STAGE), "mode=755,size=1m")?;
    system(resolver.as_deref())?;
    devices(&wanted.devices)?;
    scratch(wanted.empty_home.as_deref(), credentials)?;
    for (index, folder) in folders.iter().enumerate() {
        let inside_another = folders[..index].iter().any(|outer| folder.path.starts_with(&outer.path));
        place(folder, inside_another)?;
    }
    let stage = open_tree(CWD, STAGE, OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    set_attributes(stage.as_fd(), MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, false)?;
    // pivot_root(2), "pivot_root(".", ".")": the old root lies on top of the new one and is let go.
    nix::unistd::chdir(STAGE)?;
    nix::unistd::pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    nix::unistd::chdir("/")?;
    Ok(())
}

/// A path of the new root while it is being built.
fn staged(path: &Path) -> PathBuf {
    Path::new(STAGE).join(path.strip_prefix("/").unwrap_or(path))
}

fn make_folders(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(staged(path))
}

fn mount_tmpfs(target: &Path, options: &str) -> io::Result<()> {
    Ok(mount(Some("tmpfs"), target, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(options))?)
}

/// A part of the system's, at its own path. The path is root's all the way.
fn show(path: &Path, attributes: u64) -> io::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let tree = open_tree(CWD, path, flags)?;
    set_attributes(tree.as_fd(), attributes, true)?;
    move_mount(&tree, "", CWD, staged(path), MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(())
}

/// What all programs need and nobody but root can change.
fn system(resolver: Option<&Path>) -> io::Result<()> {
    for path in SYSTEM.map(Path::new) {
        let Ok(found) = fs::symlink_metadata(path) else { continue };
        if found.is_symlink() {
            symlink(fs::read_link(path)?, staged(path))?;
        } else if found.is_dir() {
            make_folders(path)?;
            show(path, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)?;
        }
    }
    for path in ["/var", "/run", "/proc"].map(Path::new) {
        make_folders(path)?;
    }
    symlink("/run", staged(Path::new("/var/run")))?;
    if let Some(resolver) = resolver {
        if let Some(folder) = resolver.parent() {
            make_folders(folder)?;
        }
        fs::File::create_new(staged(resolver))?;
        show(resolver, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)?;
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    // Only processes of the same user are there to be seen.
    Ok(mount(Some("proc"), &staged(Path::new("/proc")), Some("proc"), flags, Some("hidepid=2"))?)
}

/// The file that /etc/resolv.conf leads to, where that lies in /run.
fn resolver() -> Option<PathBuf> {
    let path = fs::canonicalize("/etc/resolv.conf").ok()?;
    (path.starts_with("/run") && path.is_file()).then_some(path)
}

fn devices(leased: &[PathBuf]) -> io::Result<()> {
    let folder = Path::new("/dev");
    make_folders(folder)?;
    mount_tmpfs(&staged(folder), "mode=755,size=64k")?;
    let harmless = DEVICES.iter().map(|name| folder.join(name));
    for device in harmless.chain(leased.iter().cloned()) {
        // Without a terminal there may be no /dev/tty; a leased device that has gone is none.
        if !device.exists() {
            continue;
        }
        if let Some(parent) = device.parent() {
            make_folders(parent)?;
        }
        fs::File::create_new(staged(&device))?;
        show(&device, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC)?;
    }
    for (name, target) in DEVICE_LINKS {
        symlink(target, staged(&folder.join(name)))?;
    }
    let terminals = folder.join("pts");
    make_folders(&terminals)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let options = "newinstance,ptmxmode=0666,mode=620";
    mount(Some("devpts"), &staged(&terminals), Some("devpts"), flags, Some(options))?;
    let shared = folder.join("shm");
    make_folders(&shared)?;
    mount_tmpfs(&staged(&shared), &format!("mode=1777,{SCRATCH}"))?;
    let folder = open_tree(CWD, staged(folder), OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    set_attributes(folder.as_fd(), MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, false)
}

/// Folders that are empty at the job's start and gone at its end.
fn scratch(empty_home: Option<&Path>, credentials: &Credentials) -> io::Result<()> {
    for path in ["/tmp", "/var/tmp"].map(Path::new) {
        make_folders(path)?;
        mount_tmpfs(&staged(path), &format!("mode=1777,{SCRATCH}"))?;
    }
    let Some(home) = empty_home.filter(|home| can_be_made(home)) else { return Ok(()) };
    make_folders(home)?;
    let owner = format!("uid={},gid={}", credentials.uid.raw(), credentials.gid.raw());
    mount_tmpfs(&staged(home), &format!("mode=700,{owner},{SCRATCH}"))
}

/// Whether a home is one that can have an empty one in its place: not `/`, and not part of the system.
fn can_be_made(home: &Path) -> bool {
    let in_order = home.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    let taken = SYSTEM.iter().copied().chain(["/proc", "/dev", "/run"]).any(|part| home.starts_with(part));
    home.is_absolute() && in_order && home.parent().is_some() && !taken
}

/// Puts a folder of the machine's where the job expects it.
fn place(folder: &Opened, inside_another: bool) -> io::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(&folder.folder, "", flags)?;
    let read_only = if folder.writable { 0 } else { MOUNT_ATTR_RDONLY };
    set_attributes(tree.as_fd(), MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | read_only, true)?;
    if !inside_another {
        make_folders(&folder.path)?;
    }
    // Inside a folder of the user's nothing is made, and no link of his is followed.
    let stage = openat2(CWD, STAGE, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::empty())?;
    let relative = folder.path.strip_prefix("/").map_err(io::Error::other)?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let place = openat2(
        &stage,
        if relative.as_os_str().is_empty() { Path::new(".") } else { relative },
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        resolve,
    )?;
    let both = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&tree, "", &place, "", both)?;
    Ok(())
}
