//! Mounting, with errors that name the place.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::{FsFlags, statvfs};

const NONE: Option<&str> = None;

/// Cuts this mount namespace off: nothing mounted from here on is seen outside, nor the other way round.
pub fn make_private() -> Result<()> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).context("making / private")
}

/// A new file system of a kind that needs no device, on an existing directory.
pub fn fresh(target: &Path, kind: &str, data: &str) -> Result<()> {
    let flags = match kind {
        "proc" | "cgroup2" => MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        _ => MsFlags::empty(),
    };
    let data = (!data.is_empty()).then_some(data);
    mount(Some("deputy-sandbox"), target, Some(kind), flags, data)
        .with_context(|| format!("mounting {kind} on {}", target.display()))
}

/// A tmpfs on a directory, which is made when missing.
pub fn tmpfs(target: &Path, mode: u32) -> Result<()> {
    fs::create_dir_all(target).with_context(|| target.display().to_string())?;
    fresh(target, "tmpfs", &format!("mode={mode:o}"))
}

/// The same directory or file at a second place, with all that is mounted below; the place is made when missing.
pub fn bind(source: &Path, target: &Path) -> Result<()> {
    let what = || format!("binding {} to {}", source.display(), target.display());
    if source.is_dir() {
        fs::create_dir_all(target).with_context(what)?;
    } else if !target.exists() {
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).with_context(what)?;
        }
        fs::File::create(target).with_context(what)?;
    }
    mount(Some(source), target, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE).with_context(what)
}

/// Makes one bind mount read-only. Its other flags stay: a remount would else clear them.
pub fn read_only(target: &Path) -> Result<()> {
    let what = || format!("making {} read-only", target.display());
    let now = statvfs(target).with_context(what)?.flags();
    let mut flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    for (has, keep) in [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ] {
        if now.contains(has) {
            flags |= keep;
        }
    }
    mount(NONE, target, NONE, flags, NONE).with_context(what)
}

/// A writable layer in memory over a directory.
pub fn overlay(lower: &Path, scratch: &Path, target: &Path) -> Result<()> {
    let (upper, work) = (scratch.join("upper"), scratch.join("work"));
    for directory in [&upper, &work, &target.to_path_buf()] {
        fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    }
    // The upper directory's mode is what the merged directory shows.
    fs::set_permissions(&upper, fs::metadata(lower)?.permissions())?;
    fs::set_permissions(scratch, fs::Permissions::from_mode(0o700))?;
    let data =
        format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    mount(Some("deputy-sandbox"), target, Some("overlay"), MsFlags::empty(), Some(data.as_str()))
        .with_context(|| format!("an overlay over {}", lower.display()))
}

/// Takes away what is mounted on a place; nothing there is no fault.
pub fn detach(target: &Path) {
    let _ = umount2(target, MntFlags::MNT_DETACH);
}

/// Makes `new_root` the root and lets go of the old one.
pub fn switch_root(new_root: &Path) -> Result<()> {
    std::env::set_current_dir(new_root)?;
    // With the same directory twice the old root is stacked upon the new one; see pivot_root(2).
    nix::unistd::pivot_root(".", ".")
        .context("pivot_root (it does not work from an initramfs; use a machine with a mounted root)")?;
    umount2(".", MntFlags::MNT_DETACH).context("letting go of the old root")?;
    std::env::set_current_dir("/")?;
    Ok(())
}
