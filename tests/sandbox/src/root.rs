//! The private root file system: built on a tmpfs beside the host's, then switched to.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::mounts;
use crate::options::Options;

/// Where the new root is put together. `/proc` exists on every Linux, and its host instance is the one directory
/// of which nothing is needed inside, so covering it in our mount namespace costs nothing and leaves no folder.
pub const STAGE: &str = "/proc";

/// Directories inside that do not show the host's.
const HIDDEN: [&str; 9] = ["/etc", "/home", "/srv", "/data", "/run", "/tmp", "/var", "/proc", "/dev/shm"];
/// The host's, but not to be written.
const READ_ONLY: [&str; 1] = ["/usr"];
/// Below /var, empty inside, with their modes.
const EMPTY_IN_VAR: [(&str, u32); 4] = [("tmp", 0o1777), ("log", 0o755), ("mail", 0o2775), ("spool", 0o755)];

/// A path of the new root while it is still beside the old one.
pub fn staged(path: impl AsRef<Path>) -> PathBuf {
    let path = path.as_ref();
    Path::new(STAGE).join(path.strip_prefix("/").unwrap_or(path))
}

/// Builds the new root at [`STAGE`]; `bin_dir` has the built programs, `own` is this program.
pub fn build(options: &Options, bin_dir: &Path, own: &Path) -> Result<()> {
    // Before anything is covered.
    let kept = kept_paths(options, bin_dir);
    mounts::make_private()?;
    mounts::tmpfs(Path::new(STAGE), 0o755)?;
    for (directory, mode) in
        [("home", 0o755), ("srv", 0o755), ("data", 0o755), ("run", 0o755), ("tmp", 0o1777), ("proc", 0o555)]
    {
        make_directory(&staged(directory), mode)?;
    }
    bind_top_level()?;
    copy_etc()?;
    mounts::read_only(&staged("/usr"))?;
    mounts::tmpfs(&staged("/dev/shm"), 0o1777)?;
    if staged("/dev/mqueue").is_dir() {
        mounts::fresh(&staged("/dev/mqueue"), "mqueue", "")?;
    }
    private_var()?;
    let state = staged("/var/lib/deputy");
    match &options.state_dir {
        None => mounts::tmpfs(&state, 0o755)?,
        Some(real) => {
            fs::create_dir_all(real).with_context(|| format!("--state-dir {}", real.display()))?;
            mounts::bind(&absolute(real)?, &state)?;
        }
    }
    if let Some(real) = &options.log_dir {
        fs::create_dir_all(real).with_context(|| format!("--log-dir {}", real.display()))?;
        mounts::bind(&absolute(real)?, &staged("/var/log/deputy-sandbox"))?;
    }
    install_programs(bin_dir, own)?;
    for path in kept {
        mounts::bind(&path, &staged(&path))?;
    }
    // Last: it shows the processes of this pid namespace.
    mounts::fresh(&staged("/proc"), "proc", "")
}

/// Every directory, file and link in `/` that is not private.
fn bind_top_level() -> Result<()> {
    for entry in fs::read_dir("/")? {
        let path = entry?.path();
        // The stage itself is /proc and so among the hidden.
        if HIDDEN.iter().any(|hidden| path == Path::new(hidden)) {
            continue;
        }
        let target = staged(&path);
        if path.is_symlink() {
            symlink(fs::read_link(&path)?, &target)?;
        } else {
            mounts::bind(&path, &target)?;
        }
    }
    Ok(())
}

/// /etc as a copy: small, and account tools want to lock, link and rename in it.
fn copy_etc() -> Result<()> {
    copy_tree(Path::new("/etc"), &staged("/etc"))?;
    // A link into /run would lead nowhere in here.
    let resolv = staged("/etc/resolv.conf");
    if resolv.is_symlink()
        && let Ok(text) = fs::read("/etc/resolv.conf")
    {
        fs::remove_file(&resolv)?;
        fs::write(&resolv, text)?;
    }
    Ok(())
}

/// /var with a writable layer in memory; where the kernel cannot do that, its entries read-only.
fn private_var() -> Result<()> {
    let var = staged("/var");
    let scratch = staged("/.var");
    if let Err(error) = mounts::overlay(Path::new("/var"), &scratch, &var) {
        eprintln!("deputy-sandbox: {error:#}; what is in /var is read-only inside");
        bind_entries(Path::new("/var"), &["lib", "tmp", "log", "mail", "spool"])?;
        bind_entries(Path::new("/var/lib"), &["deputy"])?;
    }
    for (name, mode) in EMPTY_IN_VAR {
        let directory = var.join(name);
        if directory.is_symlink() {
            continue;
        }
        mounts::tmpfs(&directory, mode)?;
    }
    let mail = fs::metadata("/var/mail").ok().map(|metadata| std::os::unix::fs::MetadataExt::gid(&metadata));
    std::os::unix::fs::chown(var.join("mail"), None, mail)?;
    // tmpfs takes the mode before chown clears the set-group bit.
    fs::set_permissions(var.join("mail"), fs::Permissions::from_mode(0o2775))?;
    symlink("../mail", var.join("spool/mail"))?;
    Ok(())
}

fn bind_entries(directory: &Path, without: &[&str]) -> Result<()> {
    make_directory(&staged(directory), 0o755)?;
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| without.iter().any(|other| name == OsStr::new(other))) {
            continue;
        }
        if path.is_symlink() {
            symlink(fs::read_link(&path)?, staged(&path))?;
        } else {
            mounts::bind(&path, &staged(&path))?;
            mounts::read_only(&staged(&path))?;
        }
    }
    Ok(())
}

/// Puts the built programs into /usr/local/bin, each as a mount of its own: the directory they were built in may
/// be below one that only its owner can enter. What the host has in /usr/local/bin stays.
fn install_programs(bin_dir: &Path, own: &Path) -> Result<()> {
    let mut programs: Vec<(PathBuf, PathBuf)> = Vec::new();
    for entry in fs::read_dir(bin_dir).with_context(|| format!("--bin-dir {}", bin_dir.display()))? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(OsStr::to_str) else { continue };
        // Files like deputyd.d (what make reads) are not executable.
        if ours(name) && name != "deputy-sandbox" && executable(&path) {
            programs.push((path.clone(), Path::new("/usr/local/bin").join(name)));
        }
    }
    programs.push((own.into(), "/usr/local/bin/deputy-sandbox".into()));
    for directory in ["/usr/local/bin", "/usr/local/sbin"] {
        let entries: Vec<PathBuf> =
            fs::read_dir(directory).into_iter().flatten().filter_map(|e| Some(e.ok()?.path())).collect();
        mounts::tmpfs(&staged(directory), 0o755)?;
        for path in entries {
            // An installed Deputy must not stand in for one that is not built.
            if path.file_name().and_then(OsStr::to_str).is_some_and(ours) {
                continue;
            }
            if path.is_symlink() {
                symlink(fs::read_link(&path)?, staged(&path))?;
            } else {
                mounts::bind(&path, &staged(&path))?;
            }
        }
    }
    for (source, target) in programs {
        mounts::bind(&source, &staged(&target))?;
    }
    Ok(())
}

fn ours(name: &str) -> bool {
    name == "deputyd" || name == "deputyctl" || name.starts_with("deputy-")
}

fn executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// What lies below a private directory and has to be seen inside all the same: the project of the current
/// directory, the built programs, Cargo's directories, the command.
fn kept_paths(options: &Options, bin_dir: &Path) -> BTreeSet<PathBuf> {
    let mut wanted: Vec<PathBuf> = options.keep.clone();
    wanted.push(bin_dir.into());
    wanted.extend(std::env::current_dir());
    for variable in ["CARGO_MANIFEST_DIR", "CARGO_TARGET_DIR", "CARGO_HOME", "RUSTUP_HOME"] {
        wanted.extend(std::env::var_os(variable).map(PathBuf::from));
    }
    if let Some(program) = options.command.first()
        && program.as_encoded_bytes().contains(&b'/')
    {
        wanted.push(program.into());
    }
    wanted.iter().filter_map(|path| path.canonicalize().ok()).filter_map(|path| kept(&path)).collect()
}

/// The path to bind for one wanted path; none when it is seen, and writable, anyway, or is itself private.
fn kept(path: &Path) -> Option<PathBuf> {
    let covering: Vec<&Path> =
        HIDDEN.iter().chain(&READ_ONLY).map(Path::new).filter(|hidden| path.starts_with(hidden)).collect();
    if covering.is_empty() || covering.contains(&path) {
        return None;
    }
    // Its copy has it, and what is written to that shall not reach the machine's own.
    if path.starts_with("/etc") {
        return None;
    }
    // The programs that everybody has need no second mount.
    if path.starts_with("/usr/bin") || path.starts_with("/usr/sbin") || path.starts_with("/usr/local/bin") {
        return None;
    }
    let below = |candidate: &&Path| {
        covering.iter().all(|hidden| *candidate != *hidden && candidate.starts_with(hidden))
    };
    let project =
        path.ancestors().take_while(below).find(|p| p.join(".git").exists() || p.join("Cargo.lock").exists());
    Some(project.unwrap_or(path).to_path_buf())
}

fn absolute(path: &Path) -> Result<PathBuf> {
    path.canonicalize().with_context(|| path.display().to_string())
}

/// A directory with exactly this mode.
pub fn make_directory(path: &Path, mode: u32) -> Result<()> {
    fs::create_dir_all(path).with_context(|| path.display().to_string())?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).with_context(|| path.display().to_string())
}

/// Copies a tree with owners, modes, links and attributes.
pub fn copy_tree(source: &Path, target: &Path) -> Result<()> {
    let status = Command::new("cp").arg("-aT").arg(source).arg(target).status().context("cp")?;
    ensure!(status.success(), "copying {} failed ({status}); cp's message is above", source.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_would_be_hidden_is_kept() {
        assert_eq!(kept(Path::new("/tmp")), None);
        assert_eq!(kept(Path::new("/opt/x/y")), None);
        assert_eq!(kept(Path::new("/usr/bin/env")), None);
        assert_eq!(kept(Path::new("/etc/passwd")), None);
        assert_eq!(kept(Path::new("/tmp/x/y")), Some("/tmp/x/y".into()));
        assert_eq!(kept(Path::new("/dev/shm/x")), Some("/dev/shm/x".into()));
        assert_eq!(kept(Path::new("/usr/local/cargo")), Some("/usr/local/cargo".into()));
    }
}
